/* The HTTP client: libcurl's multi-socket interface on a libuv loop, and a blocking call for
 * commands. */
#include "base/http_call.h"

#include "base/cleanup.h"
#include "base/json.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define DEFAULT_TIMEOUT_MS 30000
#define DEFAULT_CONNECT_TIMEOUT_MS 5000
#define DEFAULT_RESPONSE_MAX (8UL * 1024 * 1024)
#define CA_FILE_MAX_BYTES (16UL * 1024 * 1024)

struct http_client {
    uv_loop_t *loop;
    CURLM *multi; /* owned */
    uv_timer_t timer;
    uv_idle_t reap; /* finished calls are reported outside of curl's own callbacks */
    int open_handles;
    bool freed;
    struct http_call *calls; /* list */
};

/* One request, for both ways of making it. */
struct http_call {
    struct http_client *client; /* NULL: blocking */
    struct http_call *next, *previous;
    CURL *easy;                 /* owned */
    struct curl_slist *headers; /* owned */
    char *url;                  /* owned */
    char curl_error[CURL_ERROR_SIZE];
    struct http_answer answer;
    bool too_large;
    bool connects_only;
    bool refused, connected; /* may_connect said no; it said yes to another address */
    bool (*may_connect)(void *data, const struct sockaddr *address);
    void *may_connect_arg;
    int (*on_data)(void *data, const char *bytes, size_t len);
    void *on_data_arg;
    http_call_done_fn *done;
    void *data;
};

/* A socket that curl wants watched. */
struct watch {
    uv_poll_t poll;
    curl_socket_t fd;
    struct http_client *client;
};

static void init_curl(void)
{
    curl_global_init(CURL_GLOBAL_DEFAULT);
}

static void init_curl_once(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, init_curl);
}

/* ---- authorities ---- */

int http_check_ca_file(const char *path, struct error *err)
{
    static const char begin[] = "CERTIFICATE-----";
    with_cleanup(buffer_deinit) struct buffer text = BUFFER_INIT(CA_FILE_MAX_BYTES);
    struct error why = {0};
    if (!path || !*path)
        return 0;
    if (buffer_read_file(&text, path, &why) < 0)
        return error_set(err, ERROR_INVALID_REQUEST, "%s", why.message);
    if (text.len > 0 && memmem(text.data, text.len, begin, strlen(begin)))
        return 0;
    return error_set(err, ERROR_INVALID_REQUEST,
                     "%s holds no certificate: it must have those of the authorities, in PEM form "
                     "(-----BEGIN CERTIFICATE-----)",
                     path);
}

/* ---- one request ---- */

static curl_socket_t open_socket(void *data, curlsocktype purpose, struct curl_sockaddr *address)
{
    struct http_call *call = data;
    (void)purpose;
    if (call->may_connect && !call->may_connect(call->may_connect_arg, &address->addr)) {
        call->refused = true;
        return CURL_SOCKET_BAD;
    }
    call->connected = true;
    return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

static size_t take_body(char *bytes, size_t size, size_t count, void *data)
{
    struct http_call *call = data;
    size_t len = size * count;
    long status = 0;
    curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &status);
    if (call->on_data && status >= 200 && status < 300)
        return call->on_data(call->on_data_arg, bytes, len) ? 0 : len;
    if (buffer_append(&call->answer.body, bytes, len, NULL)) {
        call->too_large = true;
        return 0;
    }
    return len;
}

/* "Name: value\r\n" -> value, when the name fits. */
static void keep_header(const char *line, size_t len, const char *name, char *out, size_t out_size)
{
    size_t name_len = strlen(name);
    if (len <= name_len || strncasecmp(line, name, name_len) != 0 || line[name_len] != ':')
        return;
    const char *value = line + name_len + 1;
    const char *end = line + len;
    while (value < end && *value == ' ')
        value++;
    while (end > value && (end[-1] == '\n' || end[-1] == '\r' || end[-1] == ' '))
        end--;
    snprintf(out, out_size, "%.*s", (int)(end - value), value);
}

static size_t take_header(char *line, size_t size, size_t count, void *data)
{
    struct http_call *call = data;
    size_t len = size * count;
    keep_header(line, len, "Content-Type", call->answer.content_type,
                sizeof(call->answer.content_type));
    keep_header(line, len, "Retry-After", call->answer.retry_after,
                sizeof(call->answer.retry_after));
    return len;
}

static int fill_headers(struct http_call *call, const char *const *headers)
{
    /* No waiting for 100-continue: it costs a round trip, and our own server refuses early without
     * it. */
    struct curl_slist *list = curl_slist_append(NULL, "Expect:");
    for (size_t i = 0; list && headers && headers[i]; i++) {
        struct curl_slist *longer = curl_slist_append(list, headers[i]);
        if (!longer) {
            curl_slist_free_all(list);
            return -1;
        }
        list = longer;
    }
    call->headers = list;
    return list ? 0 : -1;
}

static void fill_body(CURL *easy, const struct http_call_options *options)
{
    bool is_get = strcmp(options->method, "GET") == 0;
    if (options->body || (!is_get && strcmp(options->method, "DELETE") != 0 &&
                          strcmp(options->method, "HEAD") != 0)) {
        curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)options->body_len);
        curl_easy_setopt(easy, CURLOPT_POSTFIELDS, options->body ? options->body : "");
    }
    if (strcmp(options->method, "HEAD") == 0)
        curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
    curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, options->method);
}

static void fill_options(struct http_call *call, const struct http_call_options *options)
{
    CURL *easy = call->easy;
    long timeout_ms = (long)(options->timeout_ms ? options->timeout_ms : DEFAULT_TIMEOUT_MS);
    long connect_ms = (long)(options->connect_timeout_ms ? options->connect_timeout_ms
                                                         : DEFAULT_CONNECT_TIMEOUT_MS);
    curl_easy_setopt(easy, CURLOPT_URL, call->url);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, call->headers);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, call->curl_error);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_TCP_NODELAY, 1L);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, timeout_ms);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, connect_ms);
#if LIBCURL_VERSION_NUM >= 0x075500
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
#else
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
    /* The platform talks to its own controller: a proxy meant for the internet has no place in
     * between. */
    curl_easy_setopt(easy, CURLOPT_PROXY, "");
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, open_socket);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, call);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, take_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, call);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, take_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, call);
    curl_easy_setopt(easy, CURLOPT_PRIVATE, call);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "faas/" FAAS_VERSION);
    if (options->ca_file)
        curl_easy_setopt(easy, CURLOPT_CAINFO, options->ca_file);
    fill_body(easy, options);
}

static void call_deinit(struct http_call *call)
{
    if (call->easy)
        curl_easy_cleanup(call->easy);
    curl_slist_free_all(call->headers);
    free(call->url);
    buffer_deinit(&call->answer.body);
}

static int call_init(struct http_call *call, const struct http_call_options *options,
                     struct error *err)
{
    init_curl_once();
    *call = (struct http_call){.on_data = options->on_data,
                               .on_data_arg = options->on_data_arg,
                               .may_connect = options->may_connect,
                               .may_connect_arg = options->may_connect_arg};
    buffer_init(&call->answer.body,
                options->max_response_bytes ? options->max_response_bytes : DEFAULT_RESPONSE_MAX);
    call->easy = curl_easy_init();
    call->url = strdup(options->url);
    if (!call->easy || !call->url || fill_headers(call, options->headers)) {
        call_deinit(call);
        return error_set(err, ERROR_INTERNAL, "out of memory");
    }
    fill_options(call, options);
    return 0;
}

/* 0 when there was an answer. */
static int call_outcome(struct http_call *call, CURLcode code, struct error *err)
{
    long status = 0;
    const char *words = call->curl_error[0] ? call->curl_error : curl_easy_strerror(code);
    if (code == CURLE_OK || call->too_large) {
        curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &status);
        call->answer.status = (int)status;
    }
    if (code == CURLE_OK)
        return 0;
    if (call->refused && !call->connected)
        return error_set(err, ERROR_FORBIDDEN, "%s: its address is not one to connect to",
                         call->url);
    if (call->too_large)
        return error_set(err, ERROR_PAYLOAD_TOO_LARGE, "the answer of %s is over %zu bytes",
                         call->url, call->answer.body.max);
    if (code == CURLE_OPERATION_TIMEDOUT)
        return error_set(err, ERROR_TIMED_OUT, "%s: %s", call->url, words);
    if (code == CURLE_URL_MALFORMAT || code == CURLE_UNSUPPORTED_PROTOCOL)
        return error_set(err, ERROR_INVALID_REQUEST, "%s: %s", call->url, words);
    if (code == CURLE_SSL_CONNECT_ERROR)
        return error_set(err, ERROR_UNAVAILABLE, "%s: %s (does it speak TLS there?)", call->url,
                         words);
    return error_set(err, ERROR_UNAVAILABLE, "%s: %s", call->url, words);
}

int http_fetch(const struct http_call_options *options, struct http_answer *ret_answer,
               struct error *err)
{
    struct http_call call;
    if (call_init(&call, options, err))
        return -1;
    int result = call_outcome(&call, curl_easy_perform(call.easy), err);
    if (result == 0) {
        *ret_answer = call.answer;
        call.answer.body = BUFFER_INIT(0);
    }
    call_deinit(&call);
    return result;
}

void http_answer_deinit(struct http_answer *answer)
{
    buffer_deinit(&answer->body);
}

int http_answer_check(const struct http_answer *answer, struct error *err)
{
    struct json_limits limits = {.max_bytes = 64 * 1024};
    if (answer->status >= 200 && answer->status < 300)
        return 0;
    autojson *body =
        answer->body.data ? json_parse(answer->body.data, answer->body.len, &limits, NULL) : NULL;
    const struct json *error = json_get(body, "error");
    const char *type = json_get_string(error, "type");
    const char *message = json_get_string(error, "message");
    const char *field = json_get_string(error, "field");
    if (!type || !message)
        return error_set(err, ERROR_UNAVAILABLE,
                         "the answer has status %d and is none of this API's", answer->status);
    return error_set_field(err, error_code_from_type(type), field ? field : "", "%s", message);
}

/* ---- on a loop ---- */

static void unlink_call(struct http_call *call)
{
    if (call->previous)
        call->previous->next = call->next;
    else
        call->client->calls = call->next;
    if (call->next)
        call->next->previous = call->previous;
}

/* Tells the owners of finished calls. A callback may start or cancel calls, so the list is asked
 * again each time. */
static void reap_finished(struct http_client *client)
{
    CURLMsg *message;
    int left;
    while (!client->freed && (message = curl_multi_info_read(client->multi, &left))) {
        struct http_call *call = NULL;
        struct error err = {0};
        if (message->msg != CURLMSG_DONE)
            continue;
        CURLcode code = message->data.result;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&call);
        if (call->connects_only && code == CURLE_OK) {
            call->done(call->data, &call->answer, NULL);
            continue;
        }
        curl_multi_remove_handle(client->multi, call->easy);
        unlink_call(call);
        int failed = call_outcome(call, code, &err);
        call->done(call->data, &call->answer, failed ? &err : NULL);
        call_deinit(call);
        free(call);
    }
}

static void report_finished(uv_idle_t *idle)
{
    uv_idle_stop(idle);
    reap_finished(idle->data);
}

static void socket_ready(uv_poll_t *poll, int status, int events)
{
    struct watch *watch = poll->data;
    struct http_client *client = watch->client;
    int running, flags = 0;
    if (status < 0)
        flags = CURL_CSELECT_ERR;
    if (events & UV_READABLE)
        flags |= CURL_CSELECT_IN;
    if (events & UV_WRITABLE)
        flags |= CURL_CSELECT_OUT;
    curl_multi_socket_action(client->multi, watch->fd, flags, &running);
    reap_finished(client);
}

static void watch_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static int socket_changed(CURL *easy, curl_socket_t fd, int what, void *data, void *socket_data)
{
    struct http_client *client = data;
    struct watch *watch = socket_data;
    (void)easy;
    if (what == CURL_POLL_REMOVE) {
        if (watch) {
            uv_poll_stop(&watch->poll);
            uv_close((uv_handle_t *)&watch->poll, watch_closed);
            curl_multi_assign(client->multi, fd, NULL);
        }
        return 0;
    }
    if (!watch) {
        watch = calloc(1, sizeof(*watch));
        if (!watch || uv_poll_init_socket(client->loop, &watch->poll, fd)) {
            free(watch);
            return -1;
        }
        watch->fd = fd;
        watch->client = client;
        watch->poll.data = watch;
        curl_multi_assign(client->multi, fd, watch);
    }
    int events = (what & CURL_POLL_IN ? UV_READABLE : 0) | (what & CURL_POLL_OUT ? UV_WRITABLE : 0);
    uv_poll_start(&watch->poll, events, socket_ready);
    return 0;
}

static void timer_fired(uv_timer_t *timer)
{
    struct http_client *client = timer->data;
    int running;
    curl_multi_socket_action(client->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    reap_finished(client);
}

static int timer_changed(CURLM *multi, long timeout_ms, void *data)
{
    struct http_client *client = data;
    (void)multi;
    if (client->freed || timeout_ms < 0)
        uv_timer_stop(&client->timer);
    else
        uv_timer_start(&client->timer, timer_fired, (uint64_t)timeout_ms, 0);
    return 0;
}

struct http_client *http_client_new(uv_loop_t *loop, struct error *err)
{
    init_curl_once();
    struct http_client *client = calloc(1, sizeof(*client));
    if (client)
        client->multi = curl_multi_init();
    if (!client || !client->multi) {
        free(client);
        error_set(err, ERROR_INTERNAL, "out of memory");
        return NULL;
    }
    client->loop = loop;
    uv_timer_init(loop, &client->timer);
    uv_idle_init(loop, &client->reap);
    client->timer.data = client->reap.data = client;
    client->open_handles = 2;
    curl_multi_setopt(client->multi, CURLMOPT_SOCKETFUNCTION, socket_changed);
    curl_multi_setopt(client->multi, CURLMOPT_SOCKETDATA, client);
    curl_multi_setopt(client->multi, CURLMOPT_TIMERFUNCTION, timer_changed);
    curl_multi_setopt(client->multi, CURLMOPT_TIMERDATA, client);
    curl_multi_setopt(client->multi, CURLMOPT_PIPELINING, (long)CURLPIPE_NOTHING);
    return client;
}

static void client_handle_closed(uv_handle_t *handle)
{
    struct http_client *client = handle->data;
    if (--client->open_handles == 0)
        free(client);
}

void http_client_free(struct http_client *client)
{
    if (!client)
        return;
    client->freed = true;
    while (client->calls)
        http_call_cancel(client->calls);
    curl_multi_cleanup(client->multi);
    uv_close((uv_handle_t *)&client->timer, client_handle_closed);
    uv_close((uv_handle_t *)&client->reap, client_handle_closed);
}

static struct http_call *start(struct http_client *client, const struct http_call_options *options,
                               bool connects_only, http_call_done_fn *done, void *data,
                               struct error *err)
{
    struct http_call *call = malloc(sizeof(*call));
    int running;
    if (!call) {
        error_set(err, ERROR_INTERNAL, "out of memory");
        return NULL;
    }
    if (call_init(call, options, err)) {
        free(call);
        return NULL;
    }
    call->client = client;
    call->done = done;
    call->data = data;
    call->connects_only = connects_only;
    curl_easy_setopt(call->easy, CURLOPT_CONNECT_ONLY, connects_only ? 1L : 0L);
    if (curl_multi_add_handle(client->multi, call->easy) != CURLM_OK) {
        error_set(err, ERROR_INTERNAL, "cannot start a request to %s", call->url);
        call_deinit(call);
        free(call);
        return NULL;
    }
    call->next = client->calls;
    if (call->next)
        call->next->previous = call;
    client->calls = call;
    /* On a connection that is open the request goes out now, not in the loop's next turn; how it
     * ends is told later. */
    curl_multi_socket_action(client->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    uv_idle_start(&client->reap, report_finished);
    return call;
}

struct http_call *http_call_start(struct http_client *client,
                                  const struct http_call_options *options, http_call_done_fn *done,
                                  void *data, struct error *err)
{
    return start(client, options, false, done, data, err);
}

struct http_call *http_call_connect(struct http_client *client,
                                    const struct http_call_options *options,
                                    http_call_done_fn *done, void *data, struct error *err)
{
    return start(client, options, true, done, data, err);
}

CURL *http_call_easy(struct http_call *call)
{
    return call->easy;
}

int http_call_socket(struct http_call *call)
{
    curl_socket_t fd = CURL_SOCKET_BAD;
    curl_easy_getinfo(call->easy, CURLINFO_ACTIVESOCKET, &fd);
    return fd;
}

uv_loop_t *http_client_loop(const struct http_client *client)
{
    return client->loop;
}

void http_call_cancel(struct http_call *call)
{
    curl_multi_remove_handle(call->client->multi, call->easy);
    unlink_call(call);
    call_deinit(call);
    free(call);
}
