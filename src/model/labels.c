/* Labels of workers and requirements of functions: see labels.h. */
#include "model/labels.h"

#include <stdlib.h>
#include <string.h>

#define KEY_MAX 63
#define VALUE_MAX 127
#define ALPHANUMERIC "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

int label_check(const char *text, struct error *err)
{
    size_t key = strspn(text, ALPHANUMERIC "._/-");
    bool good = key >= 1 && key <= KEY_MAX && strspn(text, ALPHANUMERIC) > 0;
    if (good && text[key] == '=') {
        const char *value = text + key + 1;
        size_t len = strspn(value, ALPHANUMERIC "._/:@+-");
        good = len >= 1 && len <= VALUE_MAX && !value[len];
    } else {
        good = good && !text[key];
    }
    if (good)
        return 0;
    return error_set(err, ERROR_INVALID_REQUEST,
                     "a label must be KEY or KEY=VALUE such as gpu or zone=a (a key of 1 to %d "
                     "letters, digits and . _ / -, a value of 1 to %d letters, digits and . _ / : "
                     "@ + -), not \"%.80s\"",
                     KEY_MAX, VALUE_MAX, text);
}

static bool has(const struct labels *labels, const char *text)
{
    for (size_t i = 0; i < labels->count; i++)
        if (strcmp(labels->items[i], text) == 0)
            return true;
    return false;
}

int labels_add(struct labels *labels, const char *text, struct error *err)
{
    if (label_check(text, err) < 0)
        return -1;
    if (has(labels, text))
        return 0;
    if (labels->count == LABELS_MAX)
        return error_set(err, ERROR_INVALID_REQUEST, "more than %d labels", LABELS_MAX);
    if (!labels->items && !(labels->items = calloc(LABELS_MAX, sizeof(*labels->items))))
        return error_set(err, ERROR_INTERNAL, "out of memory");
    char *copy = strdup(text);
    if (!copy)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    labels->items[labels->count++] = copy;
    return 0;
}

int labels_parse(const char *list, struct labels *labels, struct error *err)
{
    while (*list) {
        char text[LABEL_TEXT_MAX + 2];
        list += strspn(list, " ,");
        size_t len = strcspn(list, ","), end = len;
        while (end > 0 && list[end - 1] == ' ')
            end--;
        if (end >= sizeof(text)) /* too long: refused with what can be shown of it */
            end = sizeof(text) - 1;
        memcpy(text, list, end);
        text[end] = '\0';
        if (end > 0 && labels_add(labels, text, err) < 0)
            return -1;
        list += len;
    }
    return 0;
}

bool label_has_key(const char *label, const char *key)
{
    size_t len = strlen(key);
    return strncmp(label, key, len) == 0 && (!label[len] || label[len] == '=');
}

bool labels_meet(const struct labels *labels, const char *requirement)
{
    bool exact = strchr(requirement, '=');
    for (size_t i = 0; i < labels->count; i++)
        if (exact ? strcmp(labels->items[i], requirement) == 0
                  : label_has_key(labels->items[i], requirement))
            return true;
    return false;
}

bool labels_equal(const struct labels *a, const struct labels *b)
{
    if (a->count != b->count)
        return false;
    for (size_t i = 0; i < a->count; i++)
        if (strcmp(a->items[i], b->items[i]) != 0)
            return false;
    return true;
}

int labels_copy(struct labels *to, const struct labels *from)
{
    struct labels copy = {0};
    for (size_t i = 0; i < from->count; i++) {
        if (labels_add(&copy, from->items[i], NULL) < 0) {
            labels_deinit(&copy);
            *to = copy;
            return -1;
        }
    }
    *to = copy;
    return 0;
}

void labels_deinit(struct labels *labels)
{
    for (size_t i = 0; i < labels->count; i++)
        free(labels->items[i]);
    free(labels->items);
    *labels = (struct labels){0};
}
