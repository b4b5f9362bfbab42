/* Acceptance of asynchronous invocations: committed before the 202; see delivery.h. */
#include "controller/controller.h"
#include "controller/delivery_internal.h"
#include "controller/handlers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NS_PER_HOUR (3600ULL * 1000000000ULL)

/* An acceptance on its way into the store. */
struct commit {
    struct controller *controller;
    struct http_request *request;
    struct live_execution *execution;
    char *key;                     /* owned */
    char owner[RANDOM_ID_LEN + 1]; /* "": free */
};

static void respond_accepted(struct http_request *request, const char *id)
{
    struct json_answer answer;
    char location[64];
    if (json_answer_begin(&answer, request) < 0)
        return;
    json_object_begin(answer.writer);
    json_member_string(answer.writer, "id", id);
    json_object_end(answer.writer);
    struct error err = {0};
    size_t len = 0;
    if (json_writer_finish(answer.writer, &err) < 0) {
        http_respond_error(request, &err);
        buffer_deinit(&answer.body);
        return;
    }
    snprintf(location, sizeof(location), "/v1/executions/%s", id);
    struct http_header header = {.name = "Location", .value = location};
    char *body = buffer_take(&answer.body, &len);
    http_respond(request, 202, "application/json", body, len, &header, 1);
}

/* ---- the window ---- */

void delivery_enter_window(struct controller *controller, struct live_execution *execution)
{
    execution->in_window = true;
    execution->version->function->window++;
    controller->delivery.window++;
}

/* Whether it can wait in memory: nothing older waits in the store, and there is room. */
static bool fits_window(const struct controller *controller, const struct live_execution *execution)
{
    const struct function_entry *function = execution->version->function;
    return !controller->draining && !function->stored && !function->claiming &&
           function->window < delivery_window_max(controller) &&
           dispatch_check_room(&controller->dispatch, function, execution->payload->len, NULL) ==
               0 &&
           delivery_has_workers(controller) &&
           placement_possible(&controller->dispatch.placement, execution->version) &&
           delivery_lease_holds(controller);
}

int delivery_check_room(const struct controller *controller, struct error *err)
{
    size_t most = (size_t)controller->config.async_queue_length;
    if (controller->delivery.stored < most)
        return 0;
    return error_set(err, ERROR_THROTTLED,
                     "%zu asynchronous invocations wait already, and %zu is the most that may; try "
                     "again later",
                     controller->delivery.stored, most);
}

/* ---- the end of a commit ---- */

static void refuse(struct commit *commit, const struct error *err)
{
    struct controller *controller = commit->controller;
    struct execution *record = &commit->execution->record;
    struct error failure = *err;
    error_wrap(&failure, "the invocation could not be stored");
    http_respond_error(commit->request, &failure);
    store_withdraw_execution(controller->store, record->id, record->function, commit->key, NULL,
                             NULL);
    delivery_left_window(controller, commit->execution);
    executions_discard(controller, commit->execution);
}

/* It waits in the store, or it is one that was accepted before under the same key. */
static void let_go(struct commit *commit, bool stored)
{
    struct controller *controller = commit->controller;
    struct function_entry *function = commit->execution->version->function;
    delivery_left_window(controller, commit->execution);
    executions_discard(controller, commit->execution);
    if (!stored)
        return;
    controller->delivery.stored++;
    function->stored = true;
    delivery_claim(controller, function);
}

static void enqueue(struct commit *commit)
{
    struct controller *controller = commit->controller;
    struct live_execution *execution = commit->execution;
    if (!execution->version->function->newest) {
        executions_fail(controller, execution, EXECUTION_CANCELLED, "Platform.FunctionDeleted",
                        "function %s was deleted before this could run",
                        execution->record.function);
    } else if (!controller->draining) {
        dispatch_enqueue(&controller->dispatch, execution);
        controller_dispatch(controller);
    }
}

static void committed(void *data, const char *id, const struct error *err)
{
    struct commit *commit = data;
    struct controller *controller = commit->controller;
    controller->executions.committing--;
    commit->execution->committing = false;
    if (err) {
        refuse(commit, err);
    } else {
        bool same = strcmp(id, commit->execution->record.id) == 0;
        respond_accepted(commit->request, id);
        if (same && commit->owner[0] && strcmp(commit->owner, controller->delivery.owner) == 0)
            enqueue(commit);
        else
            let_go(commit, same);
    }
    free(commit->key);
    free(commit);
}

/* ---- the beginning ---- */

/* The store takes what it is given, and the execution may go on living here: copies. */
static int copy_for_store(const struct live_execution *execution, struct execution *copy,
                          char **ret_payload)
{
    const struct execution *record = &execution->record;
    char *payload = malloc(execution->payload->len + 1);
    execution_init(copy);
    copy->function = strdup(record->function);
    if (!payload || !copy->function) {
        free(payload);
        execution_deinit(copy);
        return -1;
    }
    memcpy(payload, execution->payload->bytes, execution->payload->len);
    memcpy(copy->id, record->id, sizeof(copy->id));
    copy->version = record->version;
    copy->status = EXECUTION_QUEUED;
    copy->async = true;
    copy->attempt = record->attempt;
    copy->created_at_ns = record->created_at_ns;
    copy->delivery = record->delivery;
    *ret_payload = payload;
    return 0;
}

static void put(struct commit *commit, struct execution *copy, char *payload, const char *callback)
{
    char host[CALLBACK_HOST_SIZE];
    struct controller *controller = commit->controller;
    uint64_t now_ns = clock_realtime_ns();
    struct store_acceptance acceptance = {
        .owner = commit->owner[0] ? commit->owner : NULL,
        .key = commit->key,
        .now_ns = now_ns,
        .key_until_ns = now_ns + (uint64_t)controller->config.idempotency_hours * NS_PER_HOUR};
    if (callback && callback_host(callback, host) == 0) {
        acceptance.callback_url = callback;
        acceptance.callback_host = host;
        acceptance.callback_secret = commit->execution->version->record.spec.callback_secret;
        commit->execution->record.delivery.has_callback = true;
    }
    controller->executions.committing++;
    commit->execution->committing = true;
    store_accept_execution(controller->store, copy, payload, commit->execution->payload->len,
                           &acceptance, committed, commit);
}

void delivery_accept(struct controller *controller, struct http_request *request,
                     struct live_execution *execution, const char *key, const char *callback)
{
    struct commit *commit = calloc(1, sizeof(*commit));
    struct execution copy;
    char *payload = NULL, *own_key = key ? strdup(key) : NULL;
    execution->record.delivery.aged_from_ns = execution->record.created_at_ns;
    if (!commit || (key && !own_key) || copy_for_store(execution, &copy, &payload) < 0) {
        struct error err = {0};
        error_set(&err, ERROR_INTERNAL, "out of memory");
        http_respond_error(request, &err);
        executions_discard(controller, execution);
        free(own_key);
        free(commit);
        return;
    }
    *commit = (struct commit){controller, request, execution, own_key, ""};
    if (fits_window(controller, execution)) {
        memcpy(commit->owner, controller->delivery.owner, sizeof(commit->owner));
        delivery_enter_window(controller, execution);
    }
    put(commit, &copy, payload, callback);
}
