/* Which calls are let in: see admission.h. */
#include "controller/admission.h"

#include "controller/controller.h"

#define NS_PER_SECOND 1000000000ULL

unsigned admission_retry_after_s(uint64_t wait_ns)
{
    uint64_t seconds = (wait_ns + NS_PER_SECOND - 1) / NS_PER_SECOND;
    return seconds < 1 ? 1 : seconds > UINT32_MAX ? UINT32_MAX : (unsigned)seconds;
}

bool admission_place_free(const struct function_entry *function)
{
    return function->concurrency == 0 || (int64_t)function->places < function->concurrency;
}

int admission_check_place(struct controller *controller, const struct function_entry *function,
                          struct error *err)
{
    if (admission_place_free(function))
        return 0;
    controller->metrics.refused[REFUSED_FUNCTION_CONCURRENCY]++;
    return error_set(err, ERROR_THROTTLED,
                     "%s has %zu calls at the same time already, and its %s is %lld; try again "
                     "later",
                     function->name, function->places,
                     function->reserved ? "reserved_concurrency" : "max_concurrency",
                     (long long)function->concurrency);
}

int admission_check(struct controller *controller, struct function_entry *function, bool async,
                    uint64_t now_ns, struct error *err)
{
    if (!async && admission_check_place(controller, function, err) < 0)
        return -1;
    uint64_t wait_ns = rate_take(&function->rate, now_ns);
    if (wait_ns == 0)
        return 0;
    controller->metrics.refused[REFUSED_FUNCTION_RATE]++;
    error_set(
        err, ERROR_THROTTLED,
        "%s is called more often than its rate_limit allows; the next call is taken in %.3f s",
        function->name, (double)wait_ns / NS_PER_SECOND);
    err->retry_after_s = admission_retry_after_s(wait_ns);
    return -1;
}

int admission_check_token_place(struct controller *controller, const struct token *token,
                                struct error *err)
{
    if (!token || token->spec.max_concurrency == 0 ||
        (int64_t)token->calls < token->spec.max_concurrency)
        return 0;
    controller->metrics.refused[REFUSED_TOKEN_CONCURRENCY]++;
    return error_set(err, ERROR_THROTTLED,
                     "the token %s has %zu calls at the same time already, and its max_concurrency "
                     "is %lld; try again later",
                     token->spec.name, token->calls, (long long)token->spec.max_concurrency);
}

int admission_check_token(struct controller *controller, struct token *token, bool waits,
                          uint64_t now_ns, struct error *err)
{
    if (waits && admission_check_token_place(controller, token, err) < 0)
        return -1;
    uint64_t wait_ns = rate_take(&token->rate, now_ns);
    if (wait_ns == 0)
        return 0;
    controller->metrics.refused[REFUSED_TOKEN_RATE]++;
    error_set(err, ERROR_THROTTLED,
              "the token %s is used more often than its rate_limit allows; the next request is "
              "taken in %.3f s",
              token->spec.name, (double)wait_ns / NS_PER_SECOND);
    err->retry_after_s = admission_retry_after_s(wait_ns);
    return -1;
}

void admission_take_token(struct live_execution *execution, struct token *token)
{
    if (!token)
        return;
    token_take_call(token);
    execution->token = token;
}

void admission_take_place(struct live_execution *execution)
{
    if (execution->has_place)
        return;
    execution->has_place = true;
    execution->version->function->places++;
}

void admission_give_place(struct controller *controller, struct live_execution *execution)
{
    if (execution->token)
        token_give_call(execution->token);
    execution->token = NULL;
    if (!execution->has_place)
        return;
    execution->has_place = false;
    execution->version->function->places--;
    dispatch_take_turns(&controller->dispatch, execution->version->function);
}
