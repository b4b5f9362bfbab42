/* Whether a call is let in: how many a second, and how many at the same time.
 *
 * A function's rate_limit holds for every call, synchronous or not, and is looked at before the body is taken. Its
 * max_concurrency (or reserved_concurrency, which is a bound as well) counts places: a synchronous call has one from its
 * acceptance to its end, and is refused when there is none; an asynchronous one has one while a worker has it, and waits in
 * its queue when there is none, which is no attempt. Refusals are ERROR_THROTTLED with the time to wait.
 *
 * A named token's rate_limit holds for every request that is made with it; its max_concurrency counts the synchronous calls
 * under way, whatever they call. A public function that is called by /fn/ asks for no token and counts for none.
 *
 * All state is in memory, and this controller's alone. No step allocates or searches. Loop thread only. */
#pragma once

#include "controller/executions.h"

/* Takes one of the function's rate; and a place must be free, when the call is synchronous. */
int admission_check(struct controller *controller, struct function_entry *function, bool async,
                    uint64_t now_ns, struct error *err);
/* ERROR_THROTTLED when the function has as many calls as it may. */
int admission_check_place(struct controller *controller, const struct function_entry *function,
                          struct error *err);
/* The same for the token of a request. */
int admission_check_token(struct controller *controller, struct token *token, bool waits,
                          uint64_t now_ns, struct error *err);
/* ERROR_THROTTLED when it has as many calls as it may. `token` may be NULL. */
int admission_check_token_place(struct controller *controller, const struct token *token,
                                struct error *err);
/* A synchronous execution counts for that token (NULL: none) until it gives its place back. */
void admission_take_token(struct live_execution *execution, struct token *token);
bool admission_place_free(const struct function_entry *function);
/* The execution takes a place, if it has none. */
void admission_take_place(struct live_execution *execution);
/* Gives it back, if it has one, and the token; then the function's queue may go on. */
void admission_give_place(struct controller *controller, struct live_execution *execution);
/* Whole seconds, at least 1, for Retry-After. */
unsigned admission_retry_after_s(uint64_t wait_ns);
