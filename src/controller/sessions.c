/* Workers in contact: see sessions.h. */
#include "controller/sessions.h"

#include "base/cleanup.h"
#include "base/log.h"
#include "base/message.h"
#include "controller/controller.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OUTBOX_MAX ((size_t)256 * 1024 * 1024)
#define LOST_SHOWN_MS ((uint64_t)600 * 1000)
#define WORKERS_MAX 1000
#define INSTANCES_MAX 10000
#define NS_PER_MS 1000000ULL

struct parked_poll {
    struct worker_session *session;
    struct http_request *request;
    uint64_t deadline_ns;
    struct list link;
};

void sessions_init(struct sessions *sessions)
{
    memset(sessions, 0, sizeof(*sessions));
    list_init(&sessions->all);
}

static struct worker_session *session_of(struct dispatch_worker *worker)
{
    return (struct worker_session *)worker; /* its first member */
}

/* ---- polls that wait ---- */

static struct http_request *unpark(struct parked_poll *poll)
{
    struct http_request *request = poll->request;
    struct worker_session *session = poll->session;
    http_request_on_abort(request, NULL, NULL);
    list_remove(&poll->link);
    session->poll_count--;
    session->dispatch.reachable = session->poll_count > 0;
    free(poll);
    return request;
}

static void answer_nothing(struct http_request *request)
{
    http_respond(request, 204, NULL, NULL, 0, NULL, 0);
}

static void poll_aborted(void *data)
{
    answer_nothing(unpark(data));
}

static void release_polls(struct worker_session *session)
{
    list_for_each(link, &session->polls)
        answer_nothing(unpark(list_entry(link, struct parked_poll, link)));
}

static void park(struct worker_session *session, struct http_request *request, int64_t wait_ms)
{
    struct parked_poll *poll =
        wait_ms > 0 && session->poll_count < SESSION_POLLS_MAX ? calloc(1, sizeof(*poll)) : NULL;
    if (!poll) {
        answer_nothing(request);
        return;
    }
    if (wait_ms > SESSION_POLL_MAX_MS)
        wait_ms = SESSION_POLL_MAX_MS;
    poll->session = session;
    poll->request = request;
    poll->deadline_ns = clock_monotonic_ns() + (uint64_t)wait_ms * NS_PER_MS;
    list_append(&session->polls, &poll->link);
    session->poll_count++;
    session->dispatch.reachable = true;
    http_request_on_abort(request, poll_aborted, poll);
}

/* ---- telling ---- */

int session_tell(struct worker_session *session, const char *head, const char *body,
                 size_t body_len, struct error *err)
{
    return message_append(&session->outbox, head, strlen(head), body, body_len, err);
}

void session_answer(struct worker_session *session, struct http_request *request)
{
    size_t len = 0;
    char *batch = session->outbox.len ? buffer_take(&session->outbox, &len) : NULL;
    http_respond(request, 200, MESSAGE_CONTENT_TYPE, batch, len, NULL, 0);
}

void session_flush(struct worker_session *session)
{
    if (session->outbox.len > 0 && !list_empty(&session->polls))
        session_answer(session,
                       unpark(list_entry(list_first(&session->polls), struct parked_poll, link)));
}

/* Ending takes a while, and every poll until then names the execution. */
static bool cancelled_lately(struct worker_session *session, const char *execution_id)
{
    uint64_t now_ns = clock_monotonic_ns();
    size_t at = SESSION_CANCELS_KEPT;
    for (size_t i = 0; i < SESSION_CANCELS_KEPT; i++)
        if (strcmp(session->cancels[i].id, execution_id) == 0)
            at = i;
    if (at < SESSION_CANCELS_KEPT &&
        now_ns - session->cancels[at].told_ns < SESSION_CANCEL_AGAIN_MS * NS_PER_MS)
        return true;
    if (at == SESSION_CANCELS_KEPT)
        at = session->cancels_next++ % SESSION_CANCELS_KEPT;
    snprintf(session->cancels[at].id, sizeof(session->cancels[at].id), "%s", execution_id);
    session->cancels[at].told_ns = now_ns;
    return false;
}

void session_cancel(struct worker_session *session, const char *execution_id)
{
    char head[128];
    if (!time_id_valid(execution_id) || cancelled_lately(session, execution_id))
        return;
    snprintf(head, sizeof(head), "{\"kind\":\"cancel\",\"execution_id\":\"%s\"}", execution_id);
    session_tell(session, head, NULL, 0, NULL);
}

void sessions_forget(struct controller *controller, const char *function, int64_t version)
{
    char head[192];
    snprintf(head, sizeof(head), "{\"kind\":\"forget\",\"function\":\"%s\",\"version\":%lld}",
             function, (long long)version);
    list_for_each(link, &controller->sessions.all)
    {
        struct worker_session *session = session_of(list_entry(link, struct dispatch_worker, link));
        if (session->lost)
            continue;
        session_tell(session, head, NULL, 0, NULL);
        session_flush(session);
    }
}

/* ---- life ---- */

static struct worker_session *new_session(struct controller *controller, const char *name,
                                          struct error *err)
{
    struct sessions *sessions = &controller->sessions;
    if (sessions->by_name.count >= WORKERS_MAX) {
        error_set(err, ERROR_THROTTLED,
                  "%d workers are known already, which is the most that may be", WORKERS_MAX);
        return NULL;
    }
    struct worker_session *session = calloc(1, sizeof(*session));
    if (!session) {
        error_set(err, ERROR_INTERNAL, "out of memory");
        return NULL;
    }
    snprintf(session->name, sizeof(session->name), "%s", name);
    buffer_init(&session->outbox, OUTBOX_MAX);
    list_init(&session->running);
    list_init(&session->polls);
    if (string_map_put(&sessions->by_name, session->name, session, err) < 0) {
        free(session);
        return NULL;
    }
    list_append(&sessions->all, &session->dispatch.link);
    return session;
}

static void free_session(struct sessions *sessions, struct worker_session *session)
{
    string_map_remove(&sessions->by_name, session->name);
    list_remove(&session->dispatch.link);
    dispatch_worker_deinit(&session->dispatch);
    keeps_clear(session);
    json_free(session->described);
    buffer_deinit(&session->outbox);
    free(session);
}

/* All that it had is lost; what was to be told to it is void. */
static void lose_work(struct controller *controller, struct worker_session *session,
                      const char *why)
{
    session->dispatch.free_slots = 0;
    buffer_clear(&session->outbox);
    dispatch_warm_begin(&session->dispatch);
    dispatch_warm_end(&session->dispatch);
    keeps_clear(session);
    keeps_workers_changed(controller);
    builds_worker_lost(controller, session);
    list_for_each(link, &session->running) executions_worker_lost(
        controller, list_entry(link, struct live_execution, owner_link), why);
}

static void lose_session(struct controller *controller, struct worker_session *session)
{
    log_warn("worker lost", LOG_STR("worker", session->name), LOG_STR("session", session->id),
             LOG_INT("running", (int64_t)session->dispatch.busy));
    controller->metrics.workers_lost++;
    session->lost = true;
    release_polls(session);
    lose_work(controller, session, "it was not heard of for too long");
}

void sessions_deinit(struct controller *controller)
{
    list_for_each(link, &controller->sessions.all) free_session(
        &controller->sessions, session_of(list_entry(link, struct dispatch_worker, link)));
    string_map_deinit(&controller->sessions.by_name);
}

static bool is_superseded(const struct sessions *sessions, const char *id)
{
    for (size_t i = 0; i < ARRAY_LENGTH(sessions->superseded); i++)
        if (strcmp(sessions->superseded[i], id) == 0)
            return true;
    return false;
}

/* Another start of the same worker: the earlier one is over. */
static void replace_session(struct controller *controller, struct worker_session *session,
                            const char *id)
{
    struct sessions *sessions = &controller->sessions;
    if (session->id[0]) {
        size_t at = sessions->superseded_next++ % ARRAY_LENGTH(sessions->superseded);
        snprintf(sessions->superseded[at], sizeof(sessions->superseded[at]), "%s", session->id);
        release_polls(session);
        lose_work(controller, session, "it was started anew");
    }
    snprintf(session->id, sizeof(session->id), "%s", id);
    memset(session->finished, 0, sizeof(session->finished));
    json_free(session->described);
    session->described = NULL;
    log_info("worker connected", LOG_STR("worker", session->name), LOG_STR("session", id));
}

void session_heard(struct worker_session *session)
{
    session->last_contact_ns = clock_monotonic_ns();
    session->last_contact_wall_ns = clock_realtime_ns();
    if (session->lost) {
        session->lost = false;
        log_info("worker is back", LOG_STR("worker", session->name));
    }
}

void session_execution_ended(struct worker_session *session, struct live_execution *execution)
{
    list_remove(&execution->owner_link);
    session->dispatch.busy--;
    session->dispatch.free_slots++;
    size_t at = session->finished_next++ % SESSION_FINISHED_KEPT;
    memcpy(session->finished[at], execution->record.id, sizeof(session->finished[at]));
}

/* ---- what a poll says ---- */

static bool finished_lately(const struct worker_session *session, const char *id)
{
    for (size_t i = 0; i < SESSION_FINISHED_KEPT; i++)
        if (strcmp(session->finished[i], id) == 0)
            return true;
    return false;
}

/* Executions that the worker names: those it was given have arrived; those that are over freed a
 * slot after this poll was sent; others are not ours (any more) and are to end. */
static int64_t match_running(struct controller *controller, struct worker_session *session,
                             const struct json *running)
{
    int64_t correction = 0;
    list_for_each(link, &session->running) list_entry(link, struct live_execution, owner_link)
        ->delivered = false;
    json_foreach (i, item, running) {
        const char *id = json_string(item, NULL);
        struct live_execution *execution = id ? executions_find(controller, id) : NULL;
        if (execution && execution->session == session)
            execution->delivered = true;
        else if (execution && execution->interrupted && !list_empty(&execution->queue_link))
            executions_adopt(controller, execution, session);
        else if (id && finished_lately(session, id))
            correction++;
        else if (id)
            session_cancel(session, id);
    }
    return correction;
}

/* Those that the worker was given and does not name are on their way to it (or were lost on it). */
static int64_t count_undelivered(struct controller *controller, struct worker_session *session)
{
    int64_t count = 0;
    uint64_t now_ns = clock_monotonic_ns();
    list_for_each(link, &session->running)
    {
        struct live_execution *execution = list_entry(link, struct live_execution, owner_link);
        if (execution->delivered)
            continue;
        if (now_ns - execution->dispatched_ns > SESSION_DELIVERY_MS * NS_PER_MS)
            executions_worker_lost(controller, execution, "it does not know of it");
        else
            count++;
    }
    return count;
}

static void read_instances(struct worker_session *session, const struct json *instances)
{
    size_t count = 0;
    dispatch_warm_begin(&session->dispatch);
    json_foreach (i, instance, instances) {
        char key[VERSION_KEY_MAX];
        const char *function = json_get_string(instance, "function");
        const char *state = json_get_string(instance, "state");
        if (!function || !function_name_valid(function) || count++ >= INSTANCES_MAX)
            continue;
        snprintf(key, sizeof(key), "%s/%lld", function,
                 (long long)json_get_int(instance, "version", 0));
        dispatch_warm_set(&session->dispatch, key,
                          state && (strcmp(state, "idle") == 0 || strcmp(state, "frozen") == 0));
    }
    dispatch_warm_end(&session->dispatch);
}

/* Takes the tree. */
static void read_poll(struct controller *controller, struct worker_session *session,
                      struct json *poll)
{
    int64_t slots = json_get_int(poll, "slots", 0);
    slots += match_running(controller, session, json_get(poll, "running"));
    slots -= count_undelivered(controller, session);
    session->dispatch.free_slots = slots > 0 ? slots : 0;
    bool draining = json_get_bool(poll, "draining", false);
    if (!session->described || draining != session->dispatch.draining)
        keeps_workers_changed(controller);
    session->dispatch.draining = draining;
    if (json_get(poll, "instances")) {
        keeps_read(session, json_get(poll, "kept"));
        read_instances(session, json_get(poll, "instances"));
        session->dispatch.concurrency = json_get_int(poll, "concurrency", 1);
        json_free(session->described);
        session->described = poll;
    } else {
        json_free(poll);
    }
}

static int find_session(struct controller *controller, const struct json *poll,
                        struct worker_session **ret, struct error *err)
{
    const char *name = json_get_string(poll, "worker");
    const char *id = json_get_string(poll, "session");
    if (!name || !name[0] || strlen(name) > SESSION_NAME_MAX)
        return error_set_field(err, ERROR_INVALID_REQUEST, "/worker",
                               "worker must be a name of 1 to %d bytes", SESSION_NAME_MAX);
    if (!id || !id[0] || strlen(id) > SESSION_ID_MAX)
        return error_set_field(err, ERROR_INVALID_REQUEST, "/session",
                               "session must be an id of 1 to %d bytes", SESSION_ID_MAX);
    if (is_superseded(&controller->sessions, id))
        return error_set(err, ERROR_CONFLICT, "a newer session has taken the name %s", name);
    struct worker_session *session = string_map_get(&controller->sessions.by_name, name);
    if (!session && !(session = new_session(controller, name, err)))
        return -1;
    if (strcmp(session->id, id) != 0)
        replace_session(controller, session, id);
    *ret = session;
    return 0;
}

void sessions_poll(struct controller *controller, struct http_request *request)
{
    struct error err = {0};
    struct worker_session *session = NULL;
    size_t len = 0;
    const char *text = http_request_body(request, &len);
    struct json *poll = json_parse(text, len, NULL, &err);

    if (!poll || find_session(controller, poll, &session, &err) < 0) {
        json_free(poll);
        http_respond_error(request, &err);
        return;
    }
    int64_t wait_ms = json_get_int(poll, "wait_ms", 0);
    session_heard(session);
    read_poll(controller, session, poll);
    park(session, request, controller->draining && wait_ms > 500 ? 500 : wait_ms);
    session_flush(session);
    controller_dispatch(controller);
}

/* ---- time ---- */

static void answer_old_polls(struct worker_session *session, uint64_t now_ns)
{
    list_for_each(link, &session->polls)
    {
        struct parked_poll *poll = list_entry(link, struct parked_poll, link);
        if (now_ns >= poll->deadline_ns)
            answer_nothing(unpark(poll));
    }
}

void sessions_tick(struct controller *controller)
{
    uint64_t now_ns = clock_monotonic_ns();
    uint64_t lost_ns = (uint64_t)controller->config.worker_lost_ms * NS_PER_MS;
    list_for_each(link, &controller->sessions.all)
    {
        struct worker_session *session = session_of(list_entry(link, struct dispatch_worker, link));
        uint64_t silent_ns = now_ns - session->last_contact_ns;
        answer_old_polls(session, now_ns);
        if (!session->lost && silent_ns > lost_ns)
            lose_session(controller, session);
        if (session->lost && silent_ns > lost_ns + LOST_SHOWN_MS * NS_PER_MS)
            free_session(&controller->sessions, session);
    }
}

void sessions_release_polls(struct controller *controller)
{
    list_for_each(link, &controller->sessions.all)
        release_polls(session_of(list_entry(link, struct dispatch_worker, link)));
}

size_t sessions_alive(const struct controller *controller)
{
    size_t count = 0;
    list_for_each(link, &controller->sessions.all) count +=
        !session_of(list_entry(link, struct dispatch_worker, link))->lost;
    return count;
}

int64_t sessions_free_slots(const struct controller *controller)
{
    int64_t slots = 0;
    list_for_each(link, &controller->sessions.all)
    {
        const struct dispatch_worker *worker = list_entry(link, struct dispatch_worker, link);
        int64_t room = worker->concurrency - (int64_t)worker->busy;
        int64_t free = worker->free_slots < room ? worker->free_slots : room;
        slots += worker->draining || free < 0 ? 0 : free;
    }
    return slots;
}
