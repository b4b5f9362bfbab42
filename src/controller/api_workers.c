/* /v1/workers: who works, and who is to stop. */
#include "base/cleanup.h"
#include "controller/controller.h"
#include "controller/handlers.h"

#include <stdlib.h>
#include <string.h>

/* ---- list ---- */

/* A member of the worker's own description, as it is. */
static void copy_member(struct json_writer *writer, const struct json *described, const char *key)
{
    const struct json *value = json_get(described, key);
    if (!value)
        return;
    json_key(writer, key);
    json_write_value(writer, value);
}

static const char *state_of(const struct worker_session *session)
{
    if (session->lost)
        return "lost";
    if (!session->dispatch.draining)
        return "active";
    return session->dispatch.busy > 0 || session->build ? "draining" : "drained";
}

static void write_worker(struct json_writer *writer, const struct worker_session *session)
{
    static const char *const members[] = {"runtime",   "arch",     "version", "concurrency",
                                          "memory_mb", "cpus",     "labels",  "unenforced",
                                          "images",    "instances"};
    char time[25];
    clock_format_rfc3339(session->last_contact_wall_ns, time);
    json_object_begin(writer);
    json_member_string(writer, "name", session->name);
    json_member_string(writer, "session", session->id);
    json_member_string(writer, "state", state_of(session));
    json_member_string(writer, "last_contact_at", time);
    json_member_int(writer, "running", (int64_t)session->dispatch.busy);
    json_member_int(writer, "free_slots", session->lost ? 0 : session->dispatch.free_slots);
    for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++)
        copy_member(writer, session->described, members[i]);
    json_object_end(writer);
}

void serve_workers(struct http_request *request, void *data)
{
    struct controller *controller = data;
    struct json_answer answer;
    if (json_answer_begin(&answer, request) < 0)
        return;
    json_object_begin(answer.writer);
    json_key(answer.writer, "workers");
    json_array_begin(answer.writer);
    list_for_each(link, &controller->sessions.all)
        write_worker(answer.writer,
                     (const struct worker_session *)list_entry(link, struct dispatch_worker, link));
    json_array_end(answer.writer);
    json_object_end(answer.writer);
    json_answer_respond(&answer, request, 200);
}

/* ---- draining one, and the end of it ---- */

/* A change that waits for the store. */
struct drain_change {
    struct controller *controller;
    struct http_request *request;
    bool drains;
    char name[SESSION_NAME_MAX + 1];
};

static void stored(void *data, const struct error *err)
{
    struct drain_change *change = data;
    struct error failure = {0};
    change->controller->pending_reads--;
    if (err)
        failure = *err;
    else
        worker_drains_set(change->controller, change->name, change->drains, &failure);
    if (failure.code)
        http_respond_error(change->request, &failure);
    else
        http_respond(change->request, 204, NULL, NULL, 0, NULL, 0);
    free(change);
}

/* A name that nobody has is most likely a mistake. */
static int check_known(const struct controller *controller, const char *name, struct error *err)
{
    if (string_map_get(&controller->sessions.by_name, name) ||
        worker_drains_has(&controller->worker_drains, name))
        return 0;
    return error_set(err, ERROR_NOT_FOUND, "there is no worker %.80s", name);
}

static void change_drain(struct controller *controller, struct http_request *request, bool drains)
{
    const char *name = http_request_param(request, "name");
    struct error err = {0};
    autofree char *setting = string_printf(WORKER_DRAIN_PREFIX "%s", name);
    struct drain_change *change = calloc(1, sizeof(*change));
    if (!setting || !change)
        error_set(&err, ERROR_INTERNAL, "out of memory");
    else
        check_known(controller, name, &err);
    if (err.code) {
        free(change);
        http_respond_error(request, &err);
        return;
    }
    change->controller = controller;
    change->request = request;
    change->drains = drains;
    snprintf(change->name, sizeof(change->name), "%s", name);
    controller->pending_reads++;
    store_put_setting(controller->store, setting, drains ? "1" : NULL, stored, change);
}

void serve_drain_worker(struct http_request *request, void *data)
{
    change_drain(data, request, true);
}

void serve_resume_worker(struct http_request *request, void *data)
{
    change_drain(data, request, false);
}
