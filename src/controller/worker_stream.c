/* A worker's connection: see worker_stream.h. */
#include "controller/worker_stream.h"

#include "base/cleanup.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/shared_memory.h"
#include "controller/controller.h"
#include "controller/handlers.h"
#include "controller/worker_message.h"

#include <inttypes.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define PROTOCOL "faas-worker"
/* For a connection to say who it is, and for one that was dismissed to go. */
#define NO_SESSION_MS 10000
/* With so many messages that were not acknowledged, that is done without waiting for other news. */
#define ACKNOWLEDGE_COUNT 32
#define QUEUED_MAX ((size_t)256 * 1024 * 1024)
#define NS_PER_MS 1000000ULL

/* ---- out ---- */

int worker_stream_send(struct worker_stream *stream, const char *head, struct blob *body,
                       struct error *err)
{
    struct message_part part = {0};
    if (body)
        part =
            (struct message_part){.bytes = body->bytes, .len = body->len, .shared = blob_ref(body)};
    if (message_stream_send(stream->messages, head, strlen(head), &part, body ? 1 : 0, err) < 0)
        return -1;
    stream->given++;
    return 0;
}

static void acknowledge(struct worker_stream *stream)
{
    char head[64];
    if (stream->acknowledged == stream->taken)
        return;
    snprintf(head, sizeof(head), "{\"kind\":\"ack\",\"messages\":%" PRIu64 "}", stream->taken);
    if (worker_stream_send(stream, head, NULL, NULL) == 0)
        stream->acknowledged = stream->taken;
}

void worker_stream_push(struct worker_stream *stream)
{
    acknowledge(stream);
    message_stream_push(stream->messages);
}

void worker_stream_dismiss(struct worker_stream *stream, const char *kind, const struct error *why)
{
    with_cleanup(buffer_deinit) struct buffer head = BUFFER_INIT(8192);
    struct json_writer *writer = json_writer_new(&head);
    if (stream->session)
        acknowledge(stream); /* it need not keep what was taken */
    if (writer) {
        json_object_begin(writer);
        json_member_string(writer, "kind", kind);
        json_member_string(writer, "message", why->message);
        json_object_end(writer);
        if (json_writer_finish(writer, NULL) == 0)
            worker_stream_send(stream, head.data, NULL, NULL);
    }
    message_stream_push(stream->messages);
    if (stream->session)
        session_detach(stream->session);
    stream->session = NULL;
    stream->deadline_ns = clock_monotonic_ns() + NO_SESSION_MS * NS_PER_MS;
}

/* ---- memory for large bodies ---- */

static bool same_host(const struct sockaddr_storage *a, const struct sockaddr_storage *b)
{
    if (a->ss_family == AF_INET && b->ss_family == AF_INET)
        return ((const struct sockaddr_in *)a)->sin_addr.s_addr ==
               ((const struct sockaddr_in *)b)->sin_addr.s_addr;
    return a->ss_family == AF_INET6 && b->ss_family == AF_INET6 &&
           IN6_ARE_ADDR_EQUAL(&((const struct sockaddr_in6 *)a)->sin6_addr,
                              &((const struct sockaddr_in6 *)b)->sin6_addr);
}

/* Both ends have the same address: most likely one machine, which the worker finds out. */
static bool is_local(const struct worker_stream *stream)
{
    struct sockaddr_storage own = {0}, peer = {0};
    socklen_t own_len = sizeof(own), peer_len = sizeof(peer);
    if (getsockname(stream->fd, (struct sockaddr *)&own, &own_len) < 0 ||
        getpeername(stream->fd, (struct sockaddr *)&peer, &peer_len) < 0)
        return false;
    return same_host(&own, &peer);
}

void worker_stream_offer_memory(struct worker_stream *stream, struct json_writer *writer)
{
    struct error err = {0};
    if (message_stream_shared(stream->messages) || !is_local(stream))
        return;
    struct shared_memory *memory = shared_memory_new(&err);
    if (!memory) {
        log_warn("large bodies go to a worker by its connection", LOG_ERR(&err));
        return;
    }
    json_key(writer, "memory");
    shared_memory_offer(memory, writer);
    message_stream_share(stream->messages, memory);
}

static void take_memory(struct worker_stream *stream, const struct worker_message *message)
{
    struct shared_memory *memory = message_stream_shared(stream->messages);
    if (!memory)
        return;
    shared_memory_withdraw(memory);
    if (!message->ok) {
        message_stream_share(stream->messages, NULL);
        return;
    }
    message_stream_share_sending(stream->messages);
    if (message->shown)
        shared_memory_show(memory);
}

/* What another worker may get is not shown to this one. */
struct blob *worker_streams_room(struct controller *controller, size_t len)
{
    struct list *streams = &controller->sessions.streams;
    if (list_empty(streams) || list_first(streams) != streams->previous)
        return NULL;
    struct worker_stream *only = list_entry(list_first(streams), struct worker_stream, link);
    return only->session ? message_stream_room(only->messages, len, 0) : NULL;
}

/* ---- life ---- */

void worker_stream_close(struct worker_stream *stream)
{
    if (stream->session)
        session_detach(stream->session);
    list_remove(&stream->link);
    message_stream_free(stream->messages);
    free(stream);
}

static void on_closed(void *data, const struct error *why)
{
    struct worker_stream *stream = data;
    if (stream->session)
        log_info("a worker's connection has ended", LOG_STR("worker", stream->session->name),
                 LOG_ERR(why));
    worker_stream_close(stream);
}

/* A large message is heard of before it is there. */
static void note_bytes(struct worker_stream *stream)
{
    uint64_t received = message_stream_received(stream->messages);
    if (received != stream->received)
        session_heard(stream->session);
    stream->received = received;
}

void worker_streams_tick(struct controller *controller)
{
    uint64_t now_ns = clock_monotonic_ns();
    list_for_each(link, &controller->sessions.streams)
    {
        struct worker_stream *stream = list_entry(link, struct worker_stream, link);
        if (!stream->session && now_ns > stream->deadline_ns) {
            worker_stream_close(stream);
        } else if (stream->session) {
            note_bytes(stream);
            worker_stream_push(stream);
        }
    }
}

void worker_streams_close(struct controller *controller)
{
    list_for_each(link, &controller->sessions.streams)
        worker_stream_close(list_entry(link, struct worker_stream, link));
}

/* ---- in ---- */

/* A message that cannot be read is passed over with a warning: sending it again would not make it better. */
static void on_message(void *data, struct message_in *in)
{
    struct worker_stream *stream = data;
    struct worker_message message;
    struct error err = {0};
    stream->taken++;
    if (worker_message_read(in, &message, &err) < 0) {
        log_warn("a worker's message cannot be read", LOG_ERR(&err));
        return;
    }
    if (message.kind == WORKER_MESSAGE_STATE)
        session_take_state(stream->controller, stream, &message);
    else if (message.kind == WORKER_MESSAGE_MEMORY)
        take_memory(stream, &message);
    else if (stream->session)
        worker_message_take(stream->controller, stream->session, &message, in);
    worker_message_deinit(&message);
}

/* What came may have made room, or work. */
static void on_settled(void *data)
{
    struct worker_stream *stream = data;
    struct controller *controller = stream->controller;
    if (!stream->session)
        return;
    controller_fill(controller, stream->session);
    if (message_stream_queued(stream->messages) > 0 ||
        stream->taken - stream->acknowledged >= ACKNOWLEDGE_COUNT)
        worker_stream_push(stream);
    controller_dispatch(controller);
}

static void on_opened(void *data, struct byte_stream *connection)
{
    struct worker_stream *stream = data;
    struct controller *controller = stream->controller;
    struct error err = {0};
    size_t archive = (size_t)controller->config.archive_max_bytes;
    size_t result =
        (size_t)(controller->config.result_max_bytes + controller->config.log_max_bytes);
    struct message_stream_options options = {
        .max_body = (archive > result ? archive : result) + (size_t)4 * 1024 * 1024,
        .max_queued = QUEUED_MAX,
        .json_bodies = true,
        /* A file takes whatever a worker has made of a result after it was looked at; PostgreSQL would refuse it, and all records of its
         * batch with it. */
        .shared_held = !controller->delivery.shared,
        .message = on_message,
        .settled = on_settled,
        .closed = on_closed,
        .data = stream,
    };
    if (connection)
        stream->fd = connection->fd;
    if (connection)
        stream->messages = message_stream_new(&controller->loop, connection, &options, &err);
    if (!stream->messages) {
        free(stream);
        return;
    }
    stream->deadline_ns = clock_monotonic_ns() + NO_SESSION_MS * NS_PER_MS;
    list_append(&controller->sessions.streams, &stream->link);
}

void serve_worker_stream(struct http_request *request, void *data)
{
    struct error err = {0};
    struct worker_stream *stream = NULL;
    if (!http_request_wants_upgrade(request, PROTOCOL))
        error_set(&err, ERROR_INVALID_REQUEST,
                  "this call needs the headers Connection: Upgrade and Upgrade: " PROTOCOL);
    else if (!(stream = calloc(1, sizeof(*stream))))
        error_set(&err, ERROR_INTERNAL, "out of memory");
    if (!stream) {
        http_respond_error(request, &err);
        return;
    }
    stream->controller = data;
    list_init(&stream->link);
    http_respond_upgrade(request, PROTOCOL, on_opened, stream);
}
