/* Sending of callbacks: see callbacks.h. */
#include "controller/callbacks.h"

#include "base/log.h"
#include "controller/controller.h"
#include "controller/handlers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NS_PER_MS 1000000ULL
#define NS_PER_HOUR (3600ULL * 1000000000ULL)
#define LOOK_EVERY_MS 1000
#define LOOK_AGAIN_MS 5
/* A claim outlives its attempt by this. */
#define LEASE_MARGIN_MS 5000
#define BACKOFF_MAX_MS ((uint64_t)3600 * 1000)
#define ANSWER_BODY_MAX (16 * 1024)
#define BODY_MAX (8UL * 1024 * 1024)

/* One that was claimed. */
struct sending {
    struct controller *controller;
    struct list link;
    struct store_callback item; /* owned */
    bool tls;
    struct buffer body;
    struct http_call *call; /* NULL: its record is being read */
};

static void look_due(void *data);

static void arm(struct controller *controller, uint64_t after_ms)
{
    struct callbacks *callbacks = &controller->callbacks;
    loop_timer_stop(callbacks->timer);
    callbacks->look_at_ns = clock_monotonic_ns() + after_ms * NS_PER_MS;
    callbacks->timer = loop_timer_start(&controller->loop, after_ms, 0, look_due, controller, NULL);
}

/* Only ever sooner: who asks again and again must not put it off. */
void callbacks_look(struct controller *controller)
{
    struct callbacks *callbacks = &controller->callbacks;
    if (callbacks->stopped)
        return;
    if (callbacks->claiming)
        callbacks->again = true;
    else if (!callbacks->timer ||
             callbacks->look_at_ns > clock_monotonic_ns() + LOOK_AGAIN_MS * NS_PER_MS)
        arm(controller, LOOK_AGAIN_MS);
}

/* ---- the end of an attempt ---- */

static void sending_free(struct sending *sending)
{
    list_remove(&sending->link);
    sending->controller->callbacks.count--;
    free(sending->item.url);
    free(sending->item.host);
    if (sending->item.secret)
        explicit_bzero(sending->item.secret, strlen(sending->item.secret));
    free(sending->item.secret);
    buffer_deinit(&sending->body);
    free(sending);
}

/* Between half and the whole of a pause that doubles with each attempt. */
static uint64_t backoff_ms(const struct controller *controller, int64_t attempt)
{
    uint64_t ms = (uint64_t)controller->config.callback_backoff_ms;
    for (int64_t i = 1; i < attempt && ms < BACKOFF_MAX_MS; i++)
        ms *= 2;
    if (ms > BACKOFF_MAX_MS)
        ms = BACKOFF_MAX_MS;
    return ms / 2 + (uint64_t)random() % (ms / 2 + 1);
}

static void written(void *data, const struct error *err)
{
    struct controller *controller = data;
    if (err)
        log_warn("how a callback went cannot be written: it will be sent again", LOG_ERR(err));
    callbacks_look(controller);
}

static void put_outcome(struct sending *sending, const struct store_callback_outcome *outcome)
{
    struct controller *controller = sending->controller;
    store_finish_callback(controller->store, outcome, written, controller);
    sending_free(sending);
}

static void delivered(struct sending *sending, int status)
{
    struct store_callback_outcome outcome = {.id = sending->item.id,
                                             .fence = sending->item.fence,
                                             .state = "delivered",
                                             .delivered_at_ns = clock_realtime_ns(),
                                             .status = status};
    sending->controller->metrics.callbacks_delivered++;
    log_debug("callback delivered", LOG_STR("execution", sending->item.id));
    put_outcome(sending, &outcome);
}

/* `for_good`: another attempt would end the same. */
static void attempt_failed(struct sending *sending, int status, const char *why, bool for_good)
{
    struct controller *controller = sending->controller;
    const struct store_callback *item = &sending->item;
    uint64_t due_ns = clock_realtime_ns() + backoff_ms(controller, item->attempt) * NS_PER_MS;
    uint64_t end_ns =
        item->since_ns + (uint64_t)controller->config.callback_age_hours * NS_PER_HOUR;
    bool again =
        !for_good && item->attempt < controller->config.callback_attempts && due_ns <= end_ns;
    struct store_callback_outcome outcome = {.id = item->id,
                                             .fence = item->fence,
                                             .state = again ? "pending" : "failed",
                                             .due_at_ns = again ? due_ns : 0,
                                             .status = status,
                                             .error = why};
    if (again) {
        controller->metrics.callback_retries++;
    } else {
        controller->metrics.callbacks_failed++;
        log_warn("a callback was given up", LOG_STR("execution", item->id),
                 LOG_INT("attempts", item->attempt), LOG_INT("status", status));
    }
    put_outcome(sending, &outcome);
}

/* The client's words without the URL, which may hold what is nobody's business, before them. */
static const char *words_of(const struct sending *sending, const struct error *err)
{
    size_t len = strlen(sending->item.url);
    if (err->code == ERROR_FORBIDDEN)
        return "the receiver's address is not one that callbacks may be sent to";
    return strncmp(err->message, sending->item.url, len) == 0 &&
                   strncmp(err->message + len, ": ", 2) == 0
               ? err->message + len + 2
               : "the receiver could not be reached";
}

static void answered(void *data, struct http_answer *answer, const struct error *err)
{
    struct sending *sending = data;
    char why[64];
    sending->call = NULL;
    /* What its body says, and how much, is no matter. */
    bool told = answer->status > 0 && (!err || err->code == ERROR_PAYLOAD_TOO_LARGE);
    if (told && answer->status >= 200 && answer->status < 300) {
        delivered(sending, answer->status);
    } else if (told) {
        snprintf(why, sizeof(why), "the receiver answered with status %d", answer->status);
        attempt_failed(sending, answer->status, why, false);
    } else {
        attempt_failed(sending, 0, words_of(sending, err), err->code == ERROR_FORBIDDEN);
    }
}

/* ---- an attempt ---- */

static bool may_connect(void *data, const struct sockaddr *address)
{
    struct sending *sending = data;
    return callback_guard_allows(&sending->controller->callbacks.guard, address, sending->tls);
}

static int send_body(struct sending *sending, struct error *err)
{
    const struct controller_config *config = &sending->controller->config;
    time_t now = (time_t)(clock_realtime_ns() / 1000000000ULL);
    char id[80], attempt[64], stamp[64], signature[CALLBACK_SIGNATURE_SIZE];
    char signature_line[CALLBACK_SIGNATURE_SIZE + 20];
    callback_sign(sending->item.secret, now, sending->body.data, sending->body.len, signature);
    snprintf(id, sizeof(id), "Faas-Execution-Id: %s", sending->item.id);
    snprintf(attempt, sizeof(attempt), "Faas-Callback-Attempt: %lld",
             (long long)sending->item.attempt);
    snprintf(stamp, sizeof(stamp), "Faas-Timestamp: %lld", (long long)now);
    snprintf(signature_line, sizeof(signature_line), "Faas-Signature: %s", signature);
    const char *const headers[] = {
        "Content-Type: application/json", id, attempt, stamp, signature_line, NULL};
    struct http_call_options options = {
        .method = "POST",
        .url = sending->item.url,
        .headers = headers,
        .body = sending->body.data,
        .body_len = sending->body.len,
        .timeout_ms = (uint64_t)config->callback_timeout_ms,
        .connect_timeout_ms = (uint64_t)config->callback_timeout_ms,
        .max_response_bytes = ANSWER_BODY_MAX,
        .ca_file = config->callback_ca_file[0] ? config->callback_ca_file : NULL,
        .may_connect = may_connect,
        .may_connect_arg = sending};
    sending->call =
        http_call_start(sending->controller->callbacks.client, &options, answered, sending, err);
    return sending->call ? 0 : -1;
}

static int write_body(struct sending *sending, const struct execution *execution, struct error *err)
{
    struct execution shown = *execution; /* borrows */
    struct json_writer *writer = json_writer_new(&sending->body);
    bool too_large =
        shown.result_len > (size_t)sending->controller->config.callback_result_max_bytes;
    char link[64];
    if (!writer)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    snprintf(link, sizeof(link), "/v1/executions/%s", shown.id);
    shown.callback = NULL;
    if (too_large) {
        shown.result = NULL;
        shown.result_base64 = false;
    }
    json_object_begin(writer);
    json_member_string(writer, "type", "execution.finished");
    json_key(writer, "execution");
    execution_write(writer, &shown);
    if (too_large)
        json_member_string(writer, "result_link", link);
    json_object_end(writer);
    return json_writer_finish(writer, err);
}

static void record_came(void *data, const struct execution *execution, const struct error *err)
{
    struct sending *sending = data;
    struct controller *controller = sending->controller;
    struct http_url url;
    struct error failure = {0};
    if (controller->callbacks.stopped || !execution || err) {
        /* Gone with its execution, or due again when the lease ends. */
        sending_free(sending);
        return;
    }
    buffer_init(&sending->body, BODY_MAX);
    if (http_url_parse(sending->item.url, &url, &failure) < 0) {
        attempt_failed(sending, 0, failure.message, true);
        return;
    }
    sending->tls = url.tls;
    if (write_body(sending, execution, &failure) < 0 || send_body(sending, &failure) < 0)
        attempt_failed(sending, 0, "it could not be sent", false);
}

/* ---- claims ---- */

static void take(struct controller *controller, struct store_callback *item)
{
    struct sending *sending = calloc(1, sizeof(*sending));
    if (!sending)
        return; /* due again when the lease ends */
    sending->controller = controller;
    sending->item = *item;
    item->url = item->host = item->secret = NULL;
    list_append(&controller->callbacks.under_way, &sending->link);
    controller->callbacks.count++;
    store_get_execution(controller->store, sending->item.id, record_came, sending);
}

static uint64_t until_ms(uint64_t due_ns)
{
    uint64_t now_ns = clock_realtime_ns();
    if (due_ns == 0 || due_ns >= now_ns + LOOK_EVERY_MS * NS_PER_MS || due_ns <= now_ns)
        return LOOK_EVERY_MS;
    return (due_ns - now_ns) / NS_PER_MS + 1;
}

static void claimed(void *data, struct store_callback *items, size_t count, uint64_t next_due_ns,
                    const struct error *err)
{
    struct controller *controller = data;
    struct callbacks *callbacks = &controller->callbacks;
    callbacks->claiming = false;
    if (callbacks->stopped)
        return;
    if (err)
        log_warn("callbacks that are due cannot be read", LOG_ERR(err));
    for (size_t i = 0; i < count; i++)
        take(controller, &items[i]);
    bool more = callbacks->again || count > 0;
    callbacks->again = false;
    arm(controller, more ? LOOK_AGAIN_MS : until_ms(next_due_ns));
}

static int host_count(const struct callbacks *callbacks, const char *host)
{
    int count = 0;
    list_for_each(link, &callbacks->under_way) count +=
        strcmp(list_entry(link, struct sending, link)->item.host, host) == 0;
    return count;
}

/* Hosts that have more than half of what they may: what is claimed of any other one fits. */
static int write_busy(const struct controller *controller, struct buffer *out, int half)
{
    const struct callbacks *callbacks = &controller->callbacks;
    if (buffer_append_string(out, " ", NULL) < 0)
        return -1;
    list_for_each(link, &callbacks->under_way)
    {
        const char *host = list_entry(link, struct sending, link)->item.host;
        if (host_count(callbacks, host) + half <= controller->config.callback_per_host)
            continue;
        if (buffer_append_string(out, host, NULL) < 0 || buffer_append_string(out, " ", NULL) < 0)
            return -1;
    }
    return 0;
}

static void look_due(void *data)
{
    struct controller *controller = data;
    struct callbacks *callbacks = &controller->callbacks;
    const struct controller_config *config = &controller->config;
    int room = (int)config->callback_concurrency - (int)callbacks->count;
    int half = (int)(config->callback_per_host + 1) / 2;
    struct buffer busy = BUFFER_INIT(STORE_CALLBACKS_MAX * (CALLBACK_HOST_SIZE + 1) + 2);
    loop_timer_stop(callbacks->timer);
    callbacks->timer = NULL;
    if (room <= 0 || controller->draining || write_busy(controller, &busy, half) < 0) {
        arm(controller, LOOK_EVERY_MS);
    } else {
        uint64_t now_ns = clock_realtime_ns();
        uint64_t lease_ms = (uint64_t)config->callback_timeout_ms + LEASE_MARGIN_MS;
        struct store_callback_claim claim = {.now_ns = now_ns,
                                             .lease_until_ns = now_ns + lease_ms * NS_PER_MS,
                                             .limit = room,
                                             .per_host = half,
                                             .busy = busy.data};
        callbacks->claiming = true;
        store_claim_callbacks(controller->store, &claim, claimed, controller);
    }
    buffer_deinit(&busy);
}

/* ---- life ---- */

int callbacks_start(struct controller *controller, struct error *err)
{
    struct callbacks *callbacks = &controller->callbacks;
    list_init(&callbacks->under_way);
    if (callback_guard_init(&callbacks->guard, controller->config.callback_allow, err) < 0)
        return -1;
    callbacks->client = http_client_new(&controller->loop, err);
    if (!callbacks->client)
        return -1;
    arm(controller, LOOK_AGAIN_MS);
    return 0;
}

void callbacks_stop(struct controller *controller)
{
    struct callbacks *callbacks = &controller->callbacks;
    callbacks->stopped = true;
    loop_timer_stop(callbacks->timer);
    callbacks->timer = NULL;
    if (!callbacks->client)
        return;
    list_for_each(link, &callbacks->under_way)
    {
        struct sending *sending = list_entry(link, struct sending, link);
        if (!sending->call)
            continue; /* the store still calls back for it */
        http_call_cancel(sending->call);
        sending_free(sending);
    }
    http_client_free(callbacks->client);
    callbacks->client = NULL;
}

/* ---- POST /v1/executions/{id}/callback/redrive ---- */

struct redrive {
    struct controller *controller;
    struct http_request *request;
};

static void redriven(void *data, int64_t count, const struct error *err)
{
    struct redrive *redrive = data;
    struct error failure = {0};
    struct json_answer answer;
    redrive->controller->pending_reads--;
    callbacks_look(redrive->controller);
    if (!err && count == 0)
        error_set(&failure, ERROR_NOT_FOUND,
                  "execution %.80s has no callback, or has not ended yet",
                  http_request_param(redrive->request, "id"));
    if (err || failure.code) {
        http_respond_error(redrive->request, err ? err : &failure);
    } else if (json_answer_begin(&answer, redrive->request) == 0) {
        json_object_begin(answer.writer);
        json_member_int(answer.writer, "count", count);
        json_object_end(answer.writer);
        json_answer_respond(&answer, redrive->request, 200);
    }
    free(redrive);
}

void serve_redrive_callback(struct http_request *request, void *data)
{
    struct controller *controller = data;
    struct error err = {0};
    const char *id = http_request_param(request, "id");
    struct redrive *redrive = time_id_valid(id) ? malloc(sizeof(*redrive)) : NULL;
    if (!redrive) {
        error_set(&err, time_id_valid(id) ? ERROR_INTERNAL : ERROR_NOT_FOUND,
                  time_id_valid(id) ? "out of memory" : "there is no execution %.80s", id);
        http_respond_error(request, &err);
        return;
    }
    *redrive = (struct redrive){controller, request};
    controller->pending_reads++;
    executions_flush(controller);
    store_redrive_callback(controller->store, id, clock_realtime_ns(), redriven, redrive);
}
