/* What a worker sends to POST /v1/worker/results, read and checked: heads are a stranger's JSON,
 * lengths are checked against the body. docs/worker-protocol.md says what they mean. */
#pragma once

#include "base/message.h"
#include "model/execution.h"

enum worker_message_kind { WORKER_MESSAGE_RESULT, WORKER_MESSAGE_LOG, WORKER_MESSAGE_BUILD_RESULT };

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
    const char *result; /* borrowed from the message, as all below; valid JSON; NULL: none */
    size_t result_len;
    const char *logs;
    size_t logs_len;
    uint64_t logs_total; /* bytes the function wrote, those cut included */
    /* log */
    uint64_t offset;
    const char *bytes;
    size_t bytes_len;
    /* build_result */
    bool ok;
    const char *output;
    size_t output_len;
    const char *artifact;
    size_t artifact_len;
};

int worker_message_read(const struct message *message, struct worker_message *ret,
                        struct error *err);
void worker_message_deinit(struct worker_message *message);
