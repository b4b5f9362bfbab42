/* The connection to one controller: made, kept, made anew; see link.h and docs/worker-protocol.md. */
#include "worker/link_internal.h"

#include "base/cleanup.h"
#include "base/log.h"
#include "base/shared_memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PROTOCOL "faas-worker"
#define CONNECT_TIMEOUT_MS 10000
#define ASSIGNMENT_MAX_BYTES (128UL * 1024 * 1024)
#define QUEUED_MAX_BYTES (1024UL * 1024 * 1024)
#define BACKOFF_FIRST_MS 100
#define BACKOFF_LAST_MS 1000
/* Until the controller says how often it wants the state. */
#define STATE_MS 5000
/* After something has changed the state is said so soon. */
#define BEAT_MS 200
/* A controller that said nothing for so many times state_ms is not there any more: it acknowledges every state. */
#define SILENT_STATES 3
#define NS_PER_MS 1000000ULL

/* ---- failure and recovery ---- */

uint64_t link_backoff_ms(unsigned failures)
{
    uint64_t ms = BACKOFF_FIRST_MS;
    for (unsigned i = 1; i < failures && ms < BACKOFF_LAST_MS; i++)
        ms *= 2;
    if (ms > BACKOFF_LAST_MS)
        ms = BACKOFF_LAST_MS;
    return ms / 2 + (uint64_t)random() % (ms / 2 + 1);
}

static void on_retry(void *data);

static void disconnect(struct link *link)
{
    if (link->tunnel)
        http_tunnel_cancel(link->tunnel);
    link->tunnel = NULL;
    message_stream_free(link->stream);
    link->stream = NULL;
    loop_timer_stop(link->retry);
    link->retry = NULL;
}

static void tell_failure(const struct link *link, const struct error *err)
{
    static const char words[] = "controller cannot be used, trying again";
    const char *own = link->options.ca_file;
    if (strncmp(link->url, "https://", 8) != 0)
        log_warn(words, LOG_STR("controller", link->url), LOG_ERR(err));
    else
        log_warn(words, LOG_STR("controller", link->url), LOG_ERR(err),
                 LOG_STR("authorities", own ? own : "the system's: WORKER_CA_FILE is not set"));
}

static void note_failure(struct link *link, const struct error *err)
{
    link->failures++;
    if (link->reachable || link->failures == 1)
        tell_failure(link, err);
    link->reachable = false;
    disconnect(link);
    link_note_announced(link);
    if (!link->over)
        link->retry =
            loop_timer_start(link->loop, link_backoff_ms(link->failures), 0, on_retry, link, NULL);
}

static void note_success(struct link *link)
{
    if (!link->reachable)
        log_info("connected to controller", LOG_STR("controller", link->url));
    link->reachable = true;
    link->failures = 0;
}

static void be_superseded(struct link *link)
{
    if (link->over)
        return;
    link->over = true;
    disconnect(link);
    link_note_announced(link);
    log_error("another worker with this name has connected", LOG_STR("controller", link->url),
              LOG_STR("worker", link->name));
    link->options.superseded(link->options.data, link);
}

/* ---- the state ---- */

static int write_state(struct link *link, struct buffer *body, struct error *err)
{
    struct json_writer *writer = json_writer_new(body);
    if (!writer)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    json_object_begin(writer);
    json_member_string(writer, "worker", link->name);
    json_member_string(writer, "session", link->session);
    json_member_int(writer, "taken", (int64_t)link->taken);
    link->options.describe(link->options.data, link, writer);
    json_object_end(writer);
    return json_writer_finish(writer, err);
}

static void send_state(struct link *link)
{
    static const char head[] = "{\"kind\":\"state\"}";
    with_cleanup(buffer_deinit) struct buffer body = BUFFER_INIT(4UL * 1024 * 1024);
    struct error err = {0};
    size_t len = 0;
    int status = write_state(link, &body, &err);
    char *text = status == 0 ? buffer_take(&body, &len) : NULL;
    if (status == 0)
        status = link_send_now(link, head, strlen(head), text, len, &err);
    if (status < 0) {
        note_failure(link, &err);
        return;
    }
    link->state_ns = clock_monotonic_ns();
    link->changed = false;
}

void link_announce(struct link *link)
{
    if (link->stream)
        send_state(link);
    if (link->stream)
        link->announced = link->sent;
}

bool link_announced(const struct link *link)
{
    return link->announced == 0;
}

void link_note_announced(struct link *link)
{
    if (link->announced == 0)
        return;
    link->announced = 0;
    link->options.announced(link->options.data, link);
}

static void on_beat(void *data)
{
    struct link *link = data;
    struct error err = {0};
    uint64_t now_ns = clock_monotonic_ns();
    if (!link->stream)
        return;
    if (message_stream_received(link->stream) != link->received) {
        link->received = message_stream_received(link->stream);
        link->heard_ns = now_ns; /* a large message is heard of before it is there */
    }
    if (now_ns - link->heard_ns > SILENT_STATES * link->state_ms * NS_PER_MS) {
        error_set(&err, ERROR_TIMED_OUT, "nothing came for %llu ms",
                  (unsigned long long)((now_ns - link->heard_ns) / NS_PER_MS));
        note_failure(link, &err);
    } else if (link->changed || now_ns - link->state_ns >= link->state_ms * NS_PER_MS) {
        send_state(link);
    }
}

/* ---- what comes ---- */

/* A controller of this machine offers memory for large bodies; without it they go by the connection. */
static void take_memory(struct link *link, const struct json *offer)
{
    static const char yes[] = "{\"kind\":\"memory\",\"ok\":true}";
    static const char shown[] = "{\"kind\":\"memory\",\"ok\":true,\"shown\":true}";
    static const char no[] = "{\"kind\":\"memory\",\"ok\":false}";
    struct error err = {0};
    struct shared_memory *memory =
        link->options.shared_memory ? shared_memory_open(offer, &err) : NULL;
    const char *answer = !memory ? no : shared_memory_is_shown(memory) ? shown : yes;
    if (memory)
        message_stream_share(link->stream, memory);
    else if (link->options.shared_memory)
        log_debug("large bodies go by the connection", LOG_STR("controller", link->url),
                  LOG_ERR(&err));
    if (link_send_now(link, answer, strlen(answer), NULL, 0, &err) == 0)
        message_stream_share_sending(link->stream);
}

/* Told by the controller about the connection itself; false for all else. */
static bool take_own(struct link *link, const char *kind, const struct json *head)
{
    struct error err = {0};
    const char *words = json_get_string(head, "message");
    if (strcmp(kind, "ack") == 0) {
        int64_t messages = json_get_int(head, "messages", 0);
        link_acknowledged(link, messages > 0 ? (uint64_t)messages : 0);
    } else if (strcmp(kind, "welcome") == 0) {
        int64_t state_ms = json_get_int(head, "state_ms", 0);
        link->state_ms = state_ms > 0 && state_ms < STATE_MS ? (uint64_t)state_ms : STATE_MS;
        note_success(link);
        if (json_get(head, "memory"))
            take_memory(link, json_get(head, "memory"));
    } else if (strcmp(kind, "superseded") == 0) {
        be_superseded(link);
    } else if (strcmp(kind, "refused") == 0) {
        error_set(&err, ERROR_INVALID_REQUEST, "%s", words ? words : "it gave no reason");
        note_failure(link, &err);
    } else {
        return false;
    }
    return true;
}

static void on_message(void *data, struct message_in *in)
{
    struct link *link = data;
    struct error err = {0};
    link->heard_ns = clock_monotonic_ns();
    link->taken++;
    autojson *head = json_parse(in->message.head, in->message.head_len, NULL, &err);
    const char *kind = head ? json_get_string(head, "kind") : NULL;
    if (!kind) {
        log_error("controller sent what cannot be read", LOG_STR("controller", link->url),
                  LOG_STR("error", head ? "a message without kind" : err.message));
        return;
    }
    if (take_own(link, kind, head))
        return;
    link->changed = true;
    link->options.assigned(link->options.data, link, head, in);
}

static void on_closed(void *data, const struct error *why)
{
    note_failure(data, why);
}

/* ---- connecting ---- */

static void on_connected(void *data, struct byte_stream *connection, const struct error *why)
{
    struct link *link = data;
    struct error err = {0};
    struct message_stream_options options = {.max_body = ASSIGNMENT_MAX_BYTES,
                                             .max_queued = QUEUED_MAX_BYTES,
                                             .shared_in_place = true,
                                             .message = on_message,
                                             .closed = on_closed,
                                             .data = link};
    link->tunnel = NULL;
    if (connection)
        link->stream = message_stream_new(link->loop, connection, &options, &err);
    if (!link->stream) {
        note_failure(link, connection ? &err : why);
        return;
    }
    link->sent = 0;
    link->heard_ns = clock_monotonic_ns();
    link->taken = 0;
    link_forget_numbers(link);
    send_state(link);
    if (link->stream)
        link_send_kept(link);
}

static void on_retry(void *data)
{
    struct link *link = data;
    struct error err = {0};
    struct http_tunnel_options options = {.url = link->stream_url,
                                          .protocol = PROTOCOL,
                                          .headers = link->headers,
                                          .timeout_ms = CONNECT_TIMEOUT_MS,
                                          .ca_file = link->options.ca_file};
    loop_timer_stop(link->retry);
    link->retry = NULL;
    link->tunnel = http_tunnel_start(link->client, &options, on_connected, link, &err);
    if (!link->tunnel)
        note_failure(link, &err);
}

void link_start(struct link *link)
{
    on_retry(link);
}

/* ---- life ---- */

void link_on_delivered(struct link *link, void (*fn)(void *data))
{
    link->delivered = fn;
}

const char *link_url(const struct link *link)
{
    return link->url;
}

static int copy_texts(struct link *link, const struct link_options *options)
{
    size_t len = strlen(options->url);
    while (len > 0 && options->url[len - 1] == '/')
        len--;
    link->url = strndup(options->url, len);
    link->stream_url = link->url ? string_printf("%s/v1/worker/stream", link->url) : NULL;
    link->name = strdup(options->name);
    link->session = strdup(options->session);
    link->authorization = string_printf("Authorization: Bearer %s", options->token);
    return link->stream_url && link->name && link->session && link->authorization ? 0 : -1;
}

struct link *link_new(uv_loop_t *loop, struct http_client *client,
                      const struct link_options *options, struct error *err)
{
    struct link *link = calloc(1, sizeof(*link));
    if (!link) {
        error_set(err, ERROR_INTERNAL, "out of memory");
        return NULL;
    }
    link->loop = loop;
    link->client = client;
    link->options = *options;
    link->state_ms = STATE_MS;
    if (copy_texts(link, options) < 0) {
        error_set(err, ERROR_INTERNAL, "out of memory");
        link_free(link);
        return NULL;
    }
    link->headers[0] = link->authorization;
    link->beat = loop_timer_start(loop, BEAT_MS, BEAT_MS, on_beat, link, err);
    if (!link->beat) {
        link_free(link);
        return NULL;
    }
    return link;
}

void link_free(struct link *link)
{
    if (!link)
        return;
    disconnect(link);
    link_end_fetches(link);
    link_drop_kept(link);
    loop_timer_stop(link->beat);
    free(link->url);
    free(link->stream_url);
    free(link->name);
    free(link->session);
    free(link->authorization);
    free(link);
}
