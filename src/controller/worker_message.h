/* What a worker sends over its stream, read and checked: heads are a stranger's JSON,
 * lengths are checked against the body. docs/worker-protocol.md says what they mean. */
#pragma once

#include "base/message_stream.h"
#include "model/execution.h"

struct controller;
struct worker_session;

enum worker_message_kind {
    WORKER_MESSAGE_STATE,
    WORKER_MESSAGE_RESULT,
    WORKER_MESSAGE_LOG,
    WORKER_MESSAGE_BUILD_RESULT,
    WORKER_MESSAGE_MEMORY
};

struct worker_message {
    enum worker_message_kind kind;
    char id[TIME_ID_LEN + 1]; /* of the execution or build */
    int64_t attempt;
    /* result */
    enum execution_status status;
    bool cold_start;
    bool result_base64;
    bool has_error;
    struct execution_error error; /* owned */
    struct execution_metrics metrics;
    const char *
        result; /* borrowed from the message, as all below; was valid JSON when it was read; NULL: none */
    size_t result_len;
    const char *logs;
    size_t logs_len;
    uint64_t logs_total; /* bytes the function wrote, those cut included */
    /* log; of a state only the bytes, JSON that was not read yet */
    uint64_t offset;
    const char *bytes;
    size_t bytes_len;
    /* memory and build_result */
    bool ok;
    bool shown; /* memory: it can read what is only shown */
    /* build_result */
    const char *output;
    size_t output_len;
    const char *artifact;
    size_t artifact_len;
};

/* A body that is told where it lies is left there when it is a result's, and only passed over; else it is copied. */
int worker_message_read(struct message_in *in, struct worker_message *ret, struct error *err);
void worker_message_deinit(struct worker_message *message);

/* What it says comes to pass (worker_api.c). `in` is what the message was read from; its body may be taken. */
void worker_message_take(struct controller *controller, struct worker_session *session,
                         struct worker_message *message, struct message_in *in);
