/* Labels of workers, and what a function requires of them.
 *
 * A label is `key` or `key=value`: a key of 1 to 63 letters, digits and . _ / -, beginning with a letter or digit; a value of 1
 * to 127 letters, digits and . _ / : @ + -. A requirement looks the same: `key` is met by a label with that key, whatever its
 * value, `key=value` by that very label. A set has at most LABELS_MAX of them, each once. */
#pragma once

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>

#define LABELS_MAX 32
#define LABEL_TEXT_MAX (63 + 1 + 127)

struct labels {
    char **items; /* owned, each too */
    size_t count;
};

int label_check(const char *text, struct error *err);
/* Adds a copy; one that is there already is passed over. */
int labels_add(struct labels *labels, const char *text, struct error *err);
/* Adds those of a list, separated by commas; spaces around them do not count. */
int labels_parse(const char *list, struct labels *labels, struct error *err);
/* Whether a worker with these labels meets the requirement. */
bool labels_meet(const struct labels *labels, const char *requirement);
/* Whether a key is that of a label (before any '='). */
bool label_has_key(const char *label, const char *key);
bool labels_equal(const struct labels *a, const struct labels *b); /* in this order */
int labels_copy(struct labels *to, const struct labels *from);
void labels_deinit(struct labels *labels);
