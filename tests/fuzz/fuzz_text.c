/* Base64, durations, identifiers, UTF-8 and lists of labels. The first byte chooses. */
#include "base/cleanup.h"
#include "base/text.h"
#include "model/labels.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What decodes is encoded to the same text again, white space aside. */
static void try_base64(const char *text, size_t len)
{
    with_cleanup(buffer_deinit) struct buffer plain = BUFFER_INIT(1 << 20);
    with_cleanup(buffer_deinit) struct buffer encoded = BUFFER_INIT(1 << 20);
    if (base64_decode(text, len, &plain, NULL) < 0 ||
        base64_encode(plain.data, plain.len, &encoded, NULL) < 0)
        return;
    size_t at = 0;
    for (size_t i = 0; i < len; i++) {
        if (strchr(" \t\r\n", text[i]) && text[i])
            continue;
        if (at >= encoded.len || encoded.data[at++] != text[i])
            abort();
    }
    if (at != encoded.len)
        abort();
}

static void try_duration(const char *text)
{
    int64_t ms = -1;
    if (duration_parse_ms(text, &ms, NULL) == 0 && ms < 0)
        abort();
}

static void try_utf8(const char *text, size_t len)
{
    size_t valid = utf8_valid_len(text, len), at = 0;
    while (at < len) {
        size_t width = utf8_width(text + at, len - at);
        if (width == 0)
            break;
        at += width;
    }
    if (at != valid)
        abort();
}

static void try_nearest(const char *text)
{
    struct nearest nearest = {.wanted = text};
    nearest_offer(&nearest, "memory_mb");
    nearest_offer(&nearest, "timeout_ms");
}

/* What was read is read again as the same, and each of its labels is met by the list. */
static void try_labels(const char *text)
{
    struct labels labels = {0}, again = {0};
    struct error err = {0};
    char joined[LABELS_MAX * (LABEL_TEXT_MAX + 1) + 1] = "";
    size_t len = 0;
    int status = labels_parse(text, &labels, &err);
    if (status < 0 && (!err.message[0] || strchr(err.message, '\n')))
        abort();
    for (size_t i = 0; i < labels.count; i++) {
        len += (size_t)snprintf(joined + len, sizeof(joined) - len, "%s%s", i ? "," : "",
                                labels.items[i]);
        if (len >= sizeof(joined) || label_check(labels.items[i], NULL) < 0 ||
            !labels_meet(&labels, labels.items[i]))
            abort();
    }
    if (labels_parse(joined, &again, NULL) < 0 || !labels_equal(&labels, &again))
        abort();
    labels_deinit(&labels);
    labels_deinit(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    const char *text = (const char *)data + 1;
    size_t len = size - 1;
    autofree char *string = strndup(text, len);
    if (!string)
        return 0;
    if (data[0] & 4) {
        try_labels(string);
        return 0;
    }
    switch (data[0] % 4) {
    case 0:
        try_base64(text, len);
        break;
    case 1:
        try_duration(string);
        time_id_valid(string);
        break;
    case 2:
        try_utf8(text, len);
        break;
    case 3:
        try_nearest(string);
        break;
    }
    return 0;
}
