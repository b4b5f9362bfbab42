/* The data of one execution; its way is told in pool.c and instance.c. */
#include "worker/invocation.h"

#include "base/loop.h"

#include <stdlib.h>
#include <string.h>

struct invocation *invocation_new(const char *execution_id, int64_t attempt, const char *function,
                                  int64_t version, struct error *err)
{
    struct invocation *invocation = calloc(1, sizeof(*invocation));
    if (!invocation) {
        error_set(err, ERROR_INTERNAL, "out of memory");
        return NULL;
    }
    struct execution *execution = &invocation->execution;
    execution_init(execution);
    execution->status = EXECUTION_RUNNING;
    execution->attempt = attempt;
    execution->version = version;
    execution->function = strdup(function);
    if (strlen(execution_id) > TIME_ID_LEN || !execution->function) {
        error_set(err, ERROR_INVALID_REQUEST, "bad execution id \"%s\"", execution_id);
        invocation_free(invocation);
        return NULL;
    }
    memcpy(execution->id, execution_id, strlen(execution_id) + 1);
    invocation->received_ns = clock_monotonic_ns();
    return invocation;
}

void invocation_keep_payload(struct invocation *invocation)
{
    if (invocation->payload_at)
        memcpy(invocation->payload, invocation->payload_at, invocation->payload_len);
    invocation->payload_at = NULL;
}

void invocation_free(struct invocation *invocation)
{
    if (!invocation)
        return;
    execution_deinit(&invocation->execution);
    function_unref(invocation->function);
    free(invocation->payload);
    log_tail_deinit(&invocation->run.log);
    free(invocation);
}
