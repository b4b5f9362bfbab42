/* Claims: executions from the store into their function's window; see delivery.h. */
#include "controller/controller.h"
#include "controller/delivery_internal.h"

#include "base/log.h"

#include <stdlib.h>
#include <string.h>

struct claim {
    struct controller *controller;
    struct function_entry *function; /* lives as long as the controller */
    char owner[RANDOM_ID_LEN + 1];
};

/* The version that it was accepted for, or, when that cannot run, the one that serves. */
static struct function_version *version_for(struct controller *controller,
                                            const struct execution *record)
{
    struct function_version *version =
        registry_find_version(&controller->registry, record->function, record->version);
    if (version && version->record.state == FUNCTION_READY &&
        placement_possible(&controller->dispatch.placement, version))
        return version;
    struct function_entry *function = registry_find(&controller->registry, record->function);
    return function ? function->current : NULL;
}

/* Takes the item's content. */
static void take(struct controller *controller, struct store_claimed *item)
{
    struct error err = {0};
    struct function_version *version = version_for(controller, &item->execution);
    struct live_execution *execution =
        executions_take_up(controller, &item->execution, item->payload, item->payload_len, &err);
    item->payload = NULL;
    if (!execution) {
        log_error("an accepted execution cannot be taken up", LOG_ERR(&err));
    } else if (!version) {
        executions_fail(controller, execution, EXECUTION_CANCELLED, "Platform.FunctionDeleted",
                        "function %s was deleted before this could run",
                        execution->record.function);
    } else if (execution->record.delivery.losses >= controller->config.async_attempts) {
        execution->version = version_ref(version);
        executions_fail(controller, execution, EXECUTION_LOST, "Platform.WorkerLost",
                        "its worker or its controller was lost while it ran, for the %lldth time",
                        (long long)execution->record.delivery.losses);
    } else {
        execution->version = version_ref(version);
        execution->record.version = version->record.spec.version;
        execution->interrupted = execution->record.delivery.interrupted;
        delivery_enter_window(controller, execution);
        dispatch_enqueue(&controller->dispatch, execution);
    }
}

/* Claimed by a name that is ours no more: others have them. */
static bool is_outdated(const struct claim *claim)
{
    return strcmp(claim->owner, claim->controller->delivery.owner) != 0 ||
           claim->controller->delivery.stopped || claim->controller->draining;
}

static void came(void *data, struct store_claimed *items, size_t count, bool more,
                 const struct error *err)
{
    struct claim *claim = data;
    struct controller *controller = claim->controller;
    struct delivery *delivery = &controller->delivery;
    claim->function->claiming = false;
    claim->function->stored = claim->function->stored || more;
    if (err)
        log_warn("waiting executions cannot be read", LOG_STR("function", claim->function->name),
                 LOG_ERR(err));
    delivery->stored -= count < delivery->stored ? count : delivery->stored;
    for (size_t i = 0; i < count && !is_outdated(claim); i++)
        take(controller, &items[i]);
    if (!is_outdated(claim)) {
        if (!err && count > 0)
            delivery_claim(controller, claim->function);
        controller_dispatch(controller);
    }
    free(claim);
}

static size_t bytes_left(const struct controller *controller)
{
    const struct dispatch *dispatch = &controller->dispatch;
    return dispatch->payload_bytes < dispatch->limits.payload_bytes
               ? dispatch->limits.payload_bytes - dispatch->payload_bytes
               : 0;
}

size_t delivery_window_max(const struct controller *controller)
{
    size_t most = controller->dispatch.limits.length_per_function;
    return most < DELIVERY_WINDOW ? most : DELIVERY_WINDOW;
}

void delivery_claim(struct controller *controller, struct function_entry *function)
{
    if (!function->stored || function->claiming || !function->current ||
        function->window > delivery_window_max(controller) / 2 || bytes_left(controller) == 0 ||
        controller->draining || controller->delivery.stopped || !delivery_has_workers(controller) ||
        !placement_possible(&controller->dispatch.placement, function->current) ||
        !delivery_lease_holds(controller))
        return;
    struct claim *claim = malloc(sizeof(*claim));
    if (!claim)
        return;
    *claim = (struct claim){.controller = controller, .function = function};
    memcpy(claim->owner, controller->delivery.owner, sizeof(claim->owner));
    function->claiming = true;
    function->stored = false; /* whatever is stored from now on says so again */
    store_claim_executions(controller->store, claim->owner, function->name,
                           (int)(delivery_window_max(controller) - function->window),
                           bytes_left(controller) / 4 + 1, came, claim);
}

/* ---- start-up ---- */

static void interrupted_came(void *data, struct store_claimed *items, size_t count, bool more,
                             const struct error *err)
{
    struct controller *controller = data;
    (void)more;
    (void)err;
    for (size_t i = 0; i < count; i++)
        take(controller, &items[i]);
    if (count > 0)
        log_info("took up executions that were under way", LOG_INT("count", (int64_t)count));
}

int delivery_load_interrupted(struct controller *controller, struct error *err)
{
    return store_claim_interrupted(controller->store, controller->delivery.owner, interrupted_came,
                                   controller, err);
}
