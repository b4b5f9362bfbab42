/* Workers in contact: see sessions.h. */
#include "controller/sessions.h"

#include "base/cleanup.h"
#include "base/log.h"
#include "controller/controller.h"
#include "controller/worker_message.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOST_SHOWN_MS ((uint64_t)600 * 1000)
#define WORKERS_MAX 1000
#define INSTANCES_MAX 10000
#define NS_PER_MS 1000000ULL

void sessions_init(struct sessions *sessions)
{
    memset(sessions, 0, sizeof(*sessions));
    list_init(&sessions->all);
    list_init(&sessions->streams);
}

static struct worker_session *session_of(struct dispatch_worker *worker)
{
    return (struct worker_session *)worker; /* its first member */
}

/* ---- telling ---- */

int session_give(struct worker_session *session, const char *head, struct blob *body,
                 struct error *err)
{
    if (session->stream)
        return worker_stream_send(session->stream, head, body, err);
    return error_set(err, ERROR_UNAVAILABLE, "worker %s is not connected", session->name);
}

int session_tell(struct worker_session *session, const char *head, struct error *err)
{
    return session_give(session, head, NULL, err);
}

void session_flush(struct worker_session *session)
{
    if (session->stream)
        worker_stream_push(session->stream);
}

size_t session_queued(const struct worker_session *session)
{
    return session->stream ? message_stream_queued(session->stream->messages) : 0;
}

void session_detach(struct worker_session *session)
{
    session->stream = NULL;
    session->dispatch.reachable = false;
    session->detached_ns = clock_monotonic_ns();
}

/* Ending takes a while, and every state until then names the execution. */
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
    session_tell(session, head, NULL);
}

static void session_forget(struct worker_session *session, const char *function, int64_t version)
{
    char head[192];
    snprintf(head, sizeof(head), "{\"kind\":\"forget\",\"function\":\"%s\",\"version\":%lld}",
             function, (long long)version);
    session_tell(session, head, NULL);
}

void sessions_forget(struct controller *controller, const char *function, int64_t version)
{
    list_for_each(link, &controller->sessions.all)
    {
        struct worker_session *session = session_of(list_entry(link, struct dispatch_worker, link));
        session_forget(session, function, version);
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
    list_init(&session->running);
    session->dispatch.place = placement_enter(&controller->dispatch.placement);
    if (session->dispatch.place < 0) {
        error_set(err, ERROR_THROTTLED, "there is no place for another worker");
        free(session);
        return NULL;
    }
    if (string_map_put(&sessions->by_name, session->name, session, err) < 0) {
        placement_leave(&controller->dispatch.placement, session->dispatch.place);
        free(session);
        return NULL;
    }
    list_append(&sessions->all, &session->dispatch.link);
    return session;
}

static void free_session(struct controller *controller, struct worker_session *session)
{
    struct sessions *sessions = &controller->sessions;
    placement_leave(&controller->dispatch.placement, session->dispatch.place);
    string_map_remove(&sessions->by_name, session->name);
    list_remove(&session->dispatch.link);
    dispatch_worker_deinit(&session->dispatch);
    keeps_clear(session);
    json_free(session->described);
    free(session);
}

/* One that said that it stops is most likely on its way back: calls wait for it for as long as they wait at most. */
static enum placement_standing standing_of(const struct controller *controller,
                                           const struct worker_session *session)
{
    uint64_t wait_ns = (uint64_t)controller->config.queue_wait_ms * NS_PER_MS;
    if (!session->lost)
        return session->dispatch.draining ? PLACEMENT_PAUSES : PLACEMENT_TAKES;
    return session->says_draining && clock_monotonic_ns() - session->detached_ns < wait_ns
               ? PLACEMENT_PAUSES
               : PLACEMENT_GONE;
}

static void note_standing(struct controller *controller, struct worker_session *session)
{
    placement_set_standing(&controller->dispatch.placement, session->dispatch.place,
                           standing_of(controller, session));
}

/* All that it had is lost. */
static void lose_work(struct controller *controller, struct worker_session *session,
                      const char *why)
{
    session->dispatch.free_slots = 0;
    dispatch_warm_begin(&session->dispatch);
    dispatch_warm_end(&session->dispatch);
    keeps_clear(session);
    keeps_workers_changed(controller);
    builds_worker_lost(controller, session);
    list_for_each(link, &session->running) executions_worker_lost(
        controller, list_entry(link, struct live_execution, owner_link), why);
}

static void lose_session(struct controller *controller, struct worker_session *session,
                         const char *why)
{
    log_warn("worker lost", LOG_STR("worker", session->name), LOG_STR("session", session->id),
             LOG_STR("why", why), LOG_INT("running", (int64_t)session->dispatch.busy));
    controller->metrics.workers_lost++;
    session->lost = true;
    if (session->stream)
        worker_stream_close(session->stream);
    note_standing(controller, session);
    lose_work(controller, session, why);
}

void sessions_deinit(struct controller *controller)
{
    list_for_each(link, &controller->sessions.all)
        free_session(controller, session_of(list_entry(link, struct dispatch_worker, link)));
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
        if (session->stream) {
            struct error why = {0};
            error_set(&why, ERROR_CONFLICT, "a newer session has taken the name %s", session->name);
            worker_stream_dismiss(session->stream, "superseded", &why);
        }
        lose_work(controller, session, "it was started anew");
    }
    snprintf(session->id, sizeof(session->id), "%s", id);
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
}

/* ---- what a state says ---- */

/* Executions that the worker names: those it was given have arrived; those that are not ours (any more) are to end. */
static void match_running(struct controller *controller, struct worker_session *session,
                          const struct json *running)
{
    list_for_each(link, &session->running) list_entry(link, struct live_execution, owner_link)
        ->delivered = false;
    json_foreach (i, item, running) {
        const char *id = json_string(item, NULL);
        struct live_execution *execution = id ? executions_find(controller, id) : NULL;
        if (execution && execution->session == session)
            execution->delivered = true;
        else if (execution && execution->interrupted && !list_empty(&execution->queue_link))
            executions_adopt(controller, execution, session);
        else if (id)
            session_cancel(session, id);
    }
}

/* What went by an earlier connection was lost with it. By this one it is on its way for as long as the worker has not `taken` so many
 * messages: a large body may take its time. */
static bool is_on_its_way(const struct worker_session *session,
                          const struct live_execution *execution, int64_t taken, uint64_t now_ns)
{
    if (execution->stream_number != session->stream_number)
        return false;
    return (taken >= 0 && (uint64_t)taken < execution->stream_message) ||
           now_ns - execution->dispatched_ns <= SESSION_DELIVERY_MS * NS_PER_MS;
}

/* Those that the worker was given and does not name. */
static int64_t count_undelivered(struct controller *controller, struct worker_session *session,
                                 int64_t taken)
{
    int64_t count = 0;
    uint64_t now_ns = clock_monotonic_ns();
    list_for_each(link, &session->running)
    {
        struct live_execution *execution = list_entry(link, struct live_execution, owner_link);
        if (execution->delivered)
            continue;
        if (is_on_its_way(session, execution, taken, now_ns))
            count++;
        else
            executions_worker_lost(controller, execution, "it does not know of it");
    }
    return count;
}

/* What the worker says of itself; what is no label is left out. One that says none has at least its architecture. */
static void read_labels(struct controller *controller, struct worker_session *session,
                        const struct json *state)
{
    struct labels labels = {0};
    struct error err = {0};
    char arch[LABEL_TEXT_MAX + 1];
    if (!json_get(state, "labels") && json_get_string(state, "arch")) {
        snprintf(arch, sizeof(arch), "arch=%s", json_get_string(state, "arch"));
        labels_add(&labels, arch, &err);
    }
    json_foreach (i, item, json_get(state, "labels")) {
        const char *text = json_string(item, NULL);
        if (text && labels_add(&labels, text, &err) < 0)
            log_warn("a worker's label cannot be used", LOG_STR("worker", session->name),
                     LOG_ERR(&err));
    }
    if (placement_set_labels(&controller->dispatch.placement, session->dispatch.place, &labels)) {
        keeps_workers_changed(controller);
        delivery_look(controller);
    }
}

/* Of versions that are gone it may have missed the `forget`. */
static void read_instances(const struct controller *controller, struct worker_session *session,
                           const struct json *instances)
{
    size_t count = 0;
    dispatch_warm_begin(&session->dispatch);
    json_foreach (i, instance, instances) {
        char key[VERSION_KEY_MAX];
        const char *function = json_get_string(instance, "function");
        const char *state = json_get_string(instance, "state");
        if (!function || !function_name_valid(function) || count++ >= INSTANCES_MAX)
            continue;
        int64_t version = json_get_int(instance, "version", 0);
        snprintf(key, sizeof(key), "%s/%lld", function, (long long)version);
        if (!registry_find_version(&controller->registry, function, version))
            session_forget(session, function, version);
        bool rests = state && (strcmp(state, "idle") == 0 || strcmp(state, "frozen") == 0);
        dispatch_warm_set(&session->dispatch, key, json_get_int(instance, "free", rests));
    }
    dispatch_warm_end(&session->dispatch);
}

/* So that it makes nothing ready for calls that do not come. */
static void tell_drained(struct worker_session *session, bool drained)
{
    uint64_t now_ns = clock_monotonic_ns();
    bool again = drained != session->says_drained &&
                 now_ns - session->told_drained_ns > SESSION_DRAIN_AGAIN_MS * NS_PER_MS;
    if ((drained == session->told_drained && !again) ||
        session_tell(session,
                     drained ? "{\"kind\":\"drain\",\"drained\":true}"
                             : "{\"kind\":\"drain\",\"drained\":false}",
                     NULL) < 0)
        return;
    session->told_drained = drained;
    session->told_drained_ns = now_ns;
    session_flush(session);
}

static void note_draining(struct controller *controller, struct worker_session *session)
{
    bool drained = worker_drains_has(&controller->worker_drains, session->name);
    bool draining = session->says_draining || drained;
    tell_drained(session, drained);
    bool changed = draining != session->dispatch.draining;
    session->dispatch.draining = draining;
    note_standing(controller, session);
    if (!changed)
        return;
    keeps_workers_changed(controller);
    session_flush(session); /* one that stops waits for the acknowledgement */
}

void sessions_drains_changed(struct controller *controller)
{
    list_for_each(link, &controller->sessions.all)
        note_draining(controller, session_of(list_entry(link, struct dispatch_worker, link)));
}

/* A number of invocations. */
static int64_t read_places(const struct json *state, const char *key, int64_t otherwise)
{
    int64_t count = json_get_int(state, key, otherwise);
    if (count < 0)
        return 0;
    return count < SESSION_CONCURRENCY_MAX ? count : SESSION_CONCURRENCY_MAX;
}

/* Takes the tree. */
static void read_state(struct controller *controller, struct worker_session *session,
                       struct json *state)
{
    match_running(controller, session, json_get(state, "running"));
    builds_match(controller, session, json_get(state, "builds"));
    int64_t slots = read_places(state, "slots", 0) -
                    count_undelivered(controller, session, json_get_int(state, "taken", -1));
    session->dispatch.free_slots = slots > 0 ? slots : 0;
    session->says_draining = json_get_bool(state, "draining", false);
    session->says_drained = json_get_bool(state, "drained", false);
    if (!session->described)
        keeps_workers_changed(controller);
    note_draining(controller, session);
    if (json_get(state, "instances")) {
        read_labels(controller, session, state);
        keeps_read(session, json_get(state, "kept"));
        read_instances(controller, session, json_get(state, "instances"));
        session->dispatch.concurrency = read_places(state, "concurrency", 1);
        json_free(session->described);
        session->described = state;
    } else {
        json_free(state);
    }
}

/* Whether it is left alone until it has ended what it runs: it gets nothing new anyway. */
static bool ends_its_work(const struct worker_session *session)
{
    return session->stream && !session->lost && session->dispatch.draining &&
           (session->dispatch.busy > 0 || session->build);
}

static int find_session(struct controller *controller, const struct json *state,
                        struct worker_session **ret, struct error *err)
{
    const char *name = json_get_string(state, "worker");
    const char *id = json_get_string(state, "session");
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
    if (strcmp(session->id, id) != 0) {
        if (ends_its_work(session))
            return error_set(err, ERROR_UNAVAILABLE,
                             "worker %s of an earlier start is drained and still runs %zu "
                             "invocations; this one is let in when they have ended",
                             name, session->dispatch.busy);
        replace_session(controller, session, id);
    }
    *ret = session;
    return 0;
}

static void welcome(struct controller *controller, struct worker_session *session)
{
    with_cleanup(buffer_deinit) struct buffer head = BUFFER_INIT(1024);
    int64_t state_ms = controller->config.worker_lost_ms / 3;
    struct json_writer *writer = json_writer_new(&head);
    if (!writer)
        return;
    json_object_begin(writer);
    json_member_string(writer, "kind", "welcome");
    json_member_int(writer, "state_ms", state_ms < SESSION_STATE_MS ? state_ms : SESSION_STATE_MS);
    worker_stream_offer_memory(session->stream, writer);
    json_object_end(writer);
    if (json_writer_finish(writer, NULL) == 0)
        session_tell(session, head.data, NULL);
}

/* The session goes on with this connection; an earlier one is cut, if the worker has not done that. */
static void attach(struct controller *controller, struct worker_session *session,
                   struct worker_stream *stream)
{
    if (session->stream)
        worker_stream_close(session->stream);
    stream->session = session;
    session->stream = stream;
    session->stream_number++;
    session->told_drained = false;
    session->told_drained_ns = 0;
    session->dispatch.reachable = true;
    welcome(controller, session);
}

void session_take_state(struct controller *controller, struct worker_stream *stream,
                        const struct worker_message *message)
{
    struct error err = {0};
    struct worker_session *session = NULL;
    struct json *state = json_parse(message->bytes, message->bytes_len, NULL, &err);
    int status = state ? find_session(controller, state, &session, &err) : -1;
    if (status == 0 && stream->session && stream->session != session)
        status = error_set(&err, ERROR_INVALID_REQUEST, "a connection is one session's");
    if (status < 0) {
        json_free(state);
        worker_stream_dismiss(stream, err.code == ERROR_CONFLICT ? "superseded" : "refused", &err);
        return;
    }
    if (!stream->session)
        attach(controller, session, stream);
    session_heard(session);
    read_state(controller, session, state);
}

/* ---- time ---- */

/* Why it is to be taken for lost; NULL: it is not. */
static const char *why_lost(const struct controller *controller,
                            const struct worker_session *session, uint64_t now_ns)
{
    const struct controller_config *config = &controller->config;
    if (now_ns - session->last_contact_ns > (uint64_t)config->worker_lost_ms * NS_PER_MS)
        return "it was not heard of for too long";
    if (!session->stream &&
        now_ns - session->detached_ns > (uint64_t)config->worker_reconnect_ms * NS_PER_MS)
        return "its connection ended and it made no other";
    return NULL;
}

void sessions_tick(struct controller *controller)
{
    uint64_t lost_ns = (uint64_t)controller->config.worker_lost_ms * NS_PER_MS;
    worker_streams_tick(controller); /* hears of workers, so before the clock is read */
    uint64_t now_ns = clock_monotonic_ns();
    list_for_each(link, &controller->sessions.all)
    {
        struct worker_session *session = session_of(list_entry(link, struct dispatch_worker, link));
        const char *why = session->lost ? NULL : why_lost(controller, session, now_ns);
        if (why)
            lose_session(controller, session, why);
        if (session->lost)
            note_standing(controller, session);
        if (session->lost &&
            now_ns - session->last_contact_ns > lost_ns + LOST_SHOWN_MS * NS_PER_MS)
            free_session(controller, session);
    }
}

size_t sessions_alive(const struct controller *controller)
{
    size_t count = 0;
    list_for_each(link, &controller->sessions.all) count +=
        !session_of(list_entry(link, struct dispatch_worker, link))->lost;
    return count;
}

size_t sessions_taking(const struct controller *controller)
{
    size_t count = 0;
    list_for_each(link, &controller->sessions.all)
    {
        const struct worker_session *session =
            session_of(list_entry(link, struct dispatch_worker, link));
        count += !session->lost && !session->dispatch.draining;
    }
    return count;
}

static size_t count_instances(const struct worker_session *session, const char *state)
{
    size_t count = 0;
    json_foreach (i, instance, json_get(session->described, "instances")) {
        const char *its = json_get_string(instance, "state");
        count += its && strcmp(its, state) == 0;
    }
    return count;
}

size_t sessions_instances(const struct controller *controller, const char *state)
{
    size_t count = 0;
    list_for_each(link, &controller->sessions.all)
    {
        const struct worker_session *session =
            session_of(list_entry(link, struct dispatch_worker, link));
        if (!session->lost)
            count += count_instances(session, state);
    }
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
