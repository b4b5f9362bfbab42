/* The client's side of a connection that leaves HTTP: libcurl connects (name, TLS), this file says the request, reads the answer's
 * head, and gives the connection away. */
#include "base/http_tunnel.h"

#include "base/cleanup.h"
#include "base/http_call.h"
#include "base/loop.h"
#include "base/text.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define ANSWER_MAX (16UL * 1024)
#define DEFAULT_TIMEOUT_MS 10000

/* The connection while the request goes out and the answer comes. */
struct http_tunnel {
    struct http_client *client;
    struct http_call *call; /* owned: the connection is its */
    uv_poll_t *poll;        /* owned; NULL while libcurl connects */
    struct loop_timer *timer;
    struct buffer request;
    size_t sent;
    char answer[ANSWER_MAX];
    size_t answer_len;
    bool tls;
    char *url; /* owned */
    http_tunnel_done_fn *done;
    void *data;
};

struct tunnel_stream {
    struct byte_stream stream; /* first member */
    struct http_call *call;    /* owned */
    bool tls;
    size_t early_len, early_done;
    char early[]; /* came behind the answer's head */
};

/* ---- bytes: libcurl reads at most 16 KiB at a time, so it is asked only where it decrypts ---- */

static ssize_t outcome(CURLcode code, size_t done)
{
    if (code == CURLE_OK)
        return (ssize_t)done;
    errno = code == CURLE_AGAIN ? EAGAIN : ECONNRESET;
    return -1;
}

static ssize_t receive(struct byte_stream *base, void *to, size_t max)
{
    struct tunnel_stream *stream = (struct tunnel_stream *)base;
    size_t left = stream->early_len - stream->early_done;
    if (left == 0 && !stream->tls) {
        base->holds_bytes = false;
        return recv(base->fd, to, max, MSG_DONTWAIT);
    }
    if (left == 0) {
        size_t got = 0;
        CURLcode code = curl_easy_recv(http_call_easy(stream->call), to, max, &got);
        base->holds_bytes = true;
        return outcome(code, got);
    }
    size_t len = left < max ? left : max;
    memcpy(to, stream->early + stream->early_done, len);
    stream->early_done += len;
    return (ssize_t)len;
}

static ssize_t send_bytes(struct byte_stream *base, const void *from, size_t len)
{
    struct tunnel_stream *stream = (struct tunnel_stream *)base;
    size_t sent = 0;
    if (!stream->tls)
        return send(base->fd, from, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    CURLcode code = curl_easy_send(http_call_easy(stream->call), from, len, &sent);
    return outcome(code, sent);
}

static void close_stream(struct byte_stream *base)
{
    struct tunnel_stream *stream = (struct tunnel_stream *)base;
    http_call_cancel(stream->call);
    free(stream);
}

/* ---- the exchange ---- */

static void poll_closed(uv_handle_t *handle)
{
    free(handle);
}

static void stop_watching(struct http_tunnel *tunnel)
{
    if (tunnel->poll)
        uv_close((uv_handle_t *)tunnel->poll, poll_closed);
    tunnel->poll = NULL;
    loop_timer_stop(tunnel->timer);
    tunnel->timer = NULL;
}

static void tunnel_free(struct http_tunnel *tunnel)
{
    stop_watching(tunnel);
    if (tunnel->call)
        http_call_cancel(tunnel->call);
    buffer_deinit(&tunnel->request);
    free(tunnel->url);
    free(tunnel);
}

void http_tunnel_cancel(struct http_tunnel *tunnel)
{
    tunnel_free(tunnel);
}

static void fail(struct http_tunnel *tunnel, const struct error *err)
{
    http_tunnel_done_fn *done = tunnel->done;
    void *data = tunnel->data;
    tunnel_free(tunnel);
    done(data, NULL, err);
}

static void give_away(struct http_tunnel *tunnel, size_t head_len)
{
    http_tunnel_done_fn *done = tunnel->done;
    void *data = tunnel->data;
    struct error err = {0};
    size_t early_len = tunnel->answer_len - head_len;
    struct tunnel_stream *stream = calloc(1, sizeof(*stream) + early_len);
    if (!stream) {
        error_set(&err, ERROR_INTERNAL, "out of memory");
        fail(tunnel, &err);
        return;
    }
    *stream = (struct tunnel_stream){.stream = {.receive = receive,
                                                .send = send_bytes,
                                                .close = close_stream,
                                                .fd = http_call_socket(tunnel->call),
                                                .holds_bytes = true},
                                     .call = steal_pointer(&tunnel->call),
                                     .tls = tunnel->tls,
                                     .early_len = early_len};
    memcpy(stream->early, tunnel->answer + head_len, early_len);
    tunnel_free(tunnel);
    done(data, &stream->stream, NULL);
}

ssize_t http_tunnel_read_answer(const char *bytes, size_t len, int *ret_status)
{
    static const char version[] = "HTTP/1.1 ";
    size_t known = len < strlen(version) ? len : strlen(version);
    if (memcmp(bytes, version, known) != 0)
        return -1;
    const char *end = memmem(bytes, len, "\r\n\r\n", 4);
    if (!end)
        return len < ANSWER_MAX ? 0 : -1;
    int status = 0;
    const char *digits = bytes + strlen(version);
    for (int i = 0; i < 3; i++) {
        if (digits[i] < '0' || digits[i] > '9')
            return -1;
        status = status * 10 + digits[i] - '0';
    }
    if (digits[3] != ' ' && digits[3] != '\r')
        return -1;
    *ret_status = status;
    return end + 4 - bytes;
}

/* Another answer than 101. Its body comes with its head, or is not waited for. */
static void refused(struct http_tunnel *tunnel, int status, size_t head_len)
{
    struct http_answer answer = {.status = status};
    struct error err = {0};
    buffer_init(&answer.body, ANSWER_MAX);
    buffer_append(&answer.body, tunnel->answer + head_len, tunnel->answer_len - head_len, NULL);
    if (http_answer_check(&answer, &err) == 0)
        error_set(&err, ERROR_UNAVAILABLE, "the answer of %s has status %d, not 101", tunnel->url,
                  status);
    buffer_deinit(&answer.body);
    fail(tunnel, &err);
}

static void take_answer(struct http_tunnel *tunnel)
{
    struct error err = {0};
    int status = 0;
    ssize_t head_len = http_tunnel_read_answer(tunnel->answer, tunnel->answer_len, &status);
    if (head_len < 0) {
        error_set(&err, ERROR_UNAVAILABLE, "what %s answers is no HTTP", tunnel->url);
        fail(tunnel, &err);
    } else if (head_len > 0 && status == 101) {
        give_away(tunnel, (size_t)head_len);
    } else if (head_len > 0) {
        refused(tunnel, status, (size_t)head_len);
    }
}

static void send_request(struct http_tunnel *tunnel)
{
    size_t sent = 0;
    while (tunnel->sent < tunnel->request.len &&
           curl_easy_send(http_call_easy(tunnel->call), tunnel->request.data + tunnel->sent,
                          tunnel->request.len - tunnel->sent, &sent) == CURLE_OK)
        tunnel->sent += sent;
}

static void on_poll(uv_poll_t *poll, int status, int events);

static void exchange(struct http_tunnel *tunnel)
{
    struct error err = {0};
    size_t got = 0;
    send_request(tunnel);
    uv_poll_start(tunnel->poll,
                  UV_READABLE | (tunnel->sent < tunnel->request.len ? UV_WRITABLE : 0), on_poll);
    CURLcode code =
        curl_easy_recv(http_call_easy(tunnel->call), tunnel->answer + tunnel->answer_len,
                       ANSWER_MAX - tunnel->answer_len, &got);
    if (code == CURLE_AGAIN)
        return;
    if (code != CURLE_OK || got == 0) {
        error_set(&err, ERROR_UNAVAILABLE, "%s closed the connection without an answer",
                  tunnel->url);
        fail(tunnel, &err);
        return;
    }
    tunnel->answer_len += got;
    take_answer(tunnel);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    exchange(poll->data);
}

static void on_timeout(void *data)
{
    struct http_tunnel *tunnel = data;
    struct error err = {0};
    error_set(&err, ERROR_TIMED_OUT, "%s did not answer in time", tunnel->url);
    fail(tunnel, &err);
}

static void connected(void *data, struct http_answer *answer, const struct error *err)
{
    struct http_tunnel *tunnel = data;
    struct error failure = {0};
    (void)answer;
    if (err) {
        tunnel->call = NULL; /* is freed by the client */
        failure = *err;
        fail(tunnel, &failure);
        return;
    }
    uv_loop_t *loop = http_client_loop(tunnel->client);
    tunnel->poll = calloc(1, sizeof(*tunnel->poll));
    if (!tunnel->poll || uv_poll_init(loop, tunnel->poll, http_call_socket(tunnel->call)) < 0) {
        free(tunnel->poll);
        tunnel->poll = NULL;
        error_set(&failure, ERROR_INTERNAL, "cannot watch the connection to %s", tunnel->url);
        fail(tunnel, &failure);
        return;
    }
    tunnel->poll->data = tunnel;
    exchange(tunnel);
}

static int write_request(struct http_tunnel *tunnel, const struct http_tunnel_options *options,
                         struct error *err)
{
    CURLU *url = curl_url();
    char *host = NULL, *port = NULL, *path = NULL;
    int status = 0;
    if (!url || curl_url_set(url, CURLUPART_URL, options->url, 0) != CURLUE_OK ||
        curl_url_get(url, CURLUPART_HOST, &host, 0) != CURLUE_OK ||
        curl_url_get(url, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) != CURLUE_OK ||
        curl_url_get(url, CURLUPART_PATH, &path, 0) != CURLUE_OK)
        status = error_set(err, ERROR_INVALID_REQUEST, "%s is no URL", options->url);
    if (status == 0)
        status = buffer_printf(&tunnel->request, err,
                               "GET %s HTTP/1.1\r\nHost: %s:%s\r\nConnection: Upgrade\r\n"
                               "Upgrade: %s\r\nUser-Agent: faas/" FAAS_VERSION "\r\n",
                               path, host, port, options->protocol);
    for (size_t i = 0; status == 0 && options->headers && options->headers[i]; i++)
        status = buffer_printf(&tunnel->request, err, "%s\r\n", options->headers[i]);
    if (status == 0)
        status = buffer_append_string(&tunnel->request, "\r\n", err);
    curl_free(host);
    curl_free(port);
    curl_free(path);
    curl_url_cleanup(url);
    return status;
}

struct http_tunnel *http_tunnel_start(struct http_client *client,
                                      const struct http_tunnel_options *options,
                                      http_tunnel_done_fn *done, void *data, struct error *err)
{
    struct http_tunnel *tunnel = calloc(1, sizeof(*tunnel));
    uint64_t timeout_ms = options->timeout_ms ? options->timeout_ms : DEFAULT_TIMEOUT_MS;
    struct http_call_options call = {.method = "GET",
                                     .url = options->url,
                                     .timeout_ms = timeout_ms,
                                     .ca_file = options->ca_file};
    if (!tunnel || !(tunnel->url = strdup(options->url))) {
        free(tunnel);
        error_set(err, ERROR_INTERNAL, "out of memory");
        return NULL;
    }
    tunnel->client = client;
    tunnel->done = done;
    tunnel->data = data;
    tunnel->tls = strncasecmp(options->url, "https:", 6) == 0;
    buffer_init(&tunnel->request, ANSWER_MAX);
    if (write_request(tunnel, options, err) == 0 &&
        (tunnel->timer = loop_timer_start(http_client_loop(client), timeout_ms + 1, 0, on_timeout,
                                          tunnel, err)))
        tunnel->call = http_call_connect(client, &call, connected, tunnel, err);
    if (tunnel->call)
        return tunnel;
    tunnel_free(tunnel);
    return NULL;
}
