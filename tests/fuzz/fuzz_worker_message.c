/* What a worker sends, heads included: whatever comes, what was read lies within the message, and a result that was copied is JSON. A header
 * that is marked has its body in memory which the worker can write to: a long string that does not end, but for two changes that follow the
 * head. The second is made when the reader has had its first look; the linker puts the function below in the place of that. */
#include "controller/worker_message.h"
#include "shared_ends.h"
#include "store/store.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MEMORY_MAX (320UL * 1024)
#define PLAIN 'x'

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct change {
    uint8_t at[3], byte;
};

static struct shared_ends ends;
static const struct change *second; /* NULL: there is none */

static char *changed_at(const struct change *change)
{
    size_t at = change->at[0] | (size_t)change->at[1] << 8 | (size_t)change->at[2] << 16;
    return ends.openers + at % MEMORY_MAX;
}

static void make(const struct change *change)
{
    *changed_at(change) = (char)change->byte;
}

static void take_back(const struct change *change)
{
    char *at = changed_at(change);
    *at = at == ends.openers ? '"' : PLAIN;
}

bool __real_json_check_quick(const char *text, size_t len, const struct json_limits *limits);
bool __wrap_json_check_quick(const char *text, size_t len, const struct json_limits *limits);
bool __wrap_json_check_quick(const char *text, size_t len, const struct json_limits *limits)
{
    bool valid = __real_json_check_quick(text, len, limits);
    if (second)
        make(second);
    return valid;
}

static void check_within(const struct message *message, const char *part, size_t len)
{
    if (len > 0 && (part < message->body || part + len > message->body + message->body_len))
        abort();
}

/* What stays where the worker can change it is a result that is held there, or nothing but a log. */
static void check_body(const struct message_in *in, const struct worker_message *message)
{
    static const struct json_limits limits = {
        .max_bytes = SIZE_MAX, .max_depth = 1000, .max_values = SIZE_MAX};
    bool held = message->result_len > STORE_LARGE_BYTES || message->result_len == 0;
    if (in->memory && (message->kind != WORKER_MESSAGE_RESULT || !held))
        abort();
    if (!in->memory && message->result &&
        json_check(message->result, message->result_len, &limits, NULL) < 0)
        abort();
}

static void read_message(struct message_in *in)
{
    struct worker_message message;
    struct error err = {0};
    if (worker_message_read(in, &message, &err) == 0) {
        if (second)
            make(second);
        check_within(&in->message, message.result, message.result_len);
        check_within(&in->message, message.logs, message.logs_len);
        check_within(&in->message, message.bytes, message.bytes_len);
        check_within(&in->message, message.output, message.output_len);
        check_within(&in->message, message.artifact, message.artifact_len);
        check_body(in, &message);
        worker_message_deinit(&message);
    }
    free(in->large);
}

/* One whose body is in the memory. */
static void read_shared(const struct message *raw)
{
    const struct change *changes = (const struct change *)(raw->head + raw->head_len);
    struct shared_place place = {.len = raw->body_len};
    struct message_in in = {.message = *raw, .memory = ends.maker, .place = &place};
    in.message.body = shared_memory_at(ends.maker, &place);
    make(&changes[0]);
    second = &changes[1];
    read_message(&in);
    second = NULL;
    take_back(&changes[0]);
    take_back(&changes[1]);
}

static void take(const uint8_t **data, size_t *size, size_t count)
{
    *data += count;
    *size -= count;
}

/* Whether there was one. */
static bool read_next(const uint8_t **data, size_t *size)
{
    char header[MESSAGE_HEADER_SIZE];
    struct message raw = {0};
    if (*size < sizeof(header))
        return false;
    memcpy(header, *data, sizeof(header));
    take(data, size, sizeof(header));
    bool shared = message_header_unmark_shared(header);
    if (message_header_read(header, &raw.head_len, &raw.body_len, NULL) < 0)
        return false;
    size_t follows = shared ? 2 * sizeof(struct change) : raw.body_len;
    if (raw.head_len > *size || follows > *size - raw.head_len)
        return false;
    raw.head = (const char *)*data;
    raw.body = raw.head + raw.head_len;
    take(data, size, raw.head_len + follows);
    if (shared && raw.body_len <= MEMORY_MAX)
        read_shared(&raw);
    else if (!shared)
        read_message(&(struct message_in){.message = raw});
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!ends.maker) {
        shared_ends_init(&ends);
        memset(ends.openers, PLAIN, MEMORY_MAX);
        ends.openers[0] = '"';
    }
    while (read_next(&data, &size))
        ;
    return 0;
}
