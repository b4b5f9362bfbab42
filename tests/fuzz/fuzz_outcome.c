/* What functions hand back: stdout that may be JSON, results and errors of handlers. */
#include "worker/outcome.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct outcome_stdout outcome;
    struct execution execution;
    char *text = malloc(size + 1);
    if (!text)
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    if (outcome_from_stdout(text, size, &outcome, NULL) == 0) {
        if (outcome.log_len > size || outcome.result_len == 0 ||
            json_check(outcome.result, outcome.result_len, &(struct json_limits){.max_depth = 128},
                       NULL) < 0)
            abort();
        free(outcome.result);
    }
    execution_init(&execution);
    char *body = malloc(size + 1);
    if (body)
        memcpy(body, text, size + 1);
    outcome_from_handler_result(&execution, body, size, NULL, 1000);
    outcome_from_handler_error(&execution, text, size);
    if (!execution.error.type || strncmp(execution.error.type, "Platform.", 9) == 0)
        abort();
    execution_deinit(&execution);
    free(text);
    return 0;
}
