/* HTTP client over libcurl.
 *
 * Asynchronous: `struct http_client` keeps connections alive on a libuv loop (curl's multi-socket
 * interface); callbacks come on the loop thread. Blocking: http_fetch(), for command-line programs.
 * Sockets are CLOEXEC: nothing leaks into children. Certificates are checked; `ca_file` sets an own
 * authority. */
#pragma once

#include "base/buffer.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <uv.h>

struct http_client;
struct http_call; /* one request under way */

struct http_call_options {
    const char *method; /* "GET" */
    const char *url;
    const char *const *headers; /* NULL-terminated "Name: value" lines; may be NULL; copied */
    const char *body;           /* borrowed until done for async calls; NULL: none */
    size_t body_len;
    uint64_t timeout_ms;         /* whole exchange; 0: 30,000 */
    uint64_t connect_timeout_ms; /* 0: 5,000 */
    size_t max_response_bytes;   /* 0: 8 MiB; more is ERROR_PAYLOAD_TOO_LARGE */
    const char *ca_file;         /* NULL: the system's */
    /* Asked about each address that the host's name has, before that very address is connected to; false: it is not.
     * When none was allowed the error is ERROR_FORBIDDEN. NULL: any. */
    bool (*may_connect)(void *data, const struct sockaddr *address);
    void *may_connect_arg;
    /* http_fetch only: body bytes as they come instead of collecting them; non-zero aborts. Only
     * for 2xx answers. */
    int (*on_data)(void *data, const char *bytes, size_t len);
    void *on_data_arg;
};

struct http_answer {
    int status; /* 0: no answer, see the error; set also when its body was too large */
    struct buffer body;
    char content_type[96];
    char retry_after[32];
};

/* `err` is NULL when there was an answer of whatever status, else says why there was none
 * (ERROR_UNAVAILABLE, ERROR_TIMED_OUT, ERROR_PAYLOAD_TOO_LARGE, ERROR_FORBIDDEN). `answer` is valid during the call;
 * its body may be taken with buffer_take(). */
typedef void http_call_done_fn(void *data, struct http_answer *answer, const struct error *err);

/* Whether a file of authorities can be used for `ca_file`: it can be read, and has a certificate. NULL and "" mean the system's. The error
 * names the file. Blocks. */
int http_check_ca_file(const char *path, struct error *err);

struct http_client *http_client_new(uv_loop_t *loop, struct error *err);
/* Cancels what is under way (no callbacks). */
void http_client_free(struct http_client *client);
/* NULL on failure (then `done` is never called). The handle is valid until `done` is called or it
 * is cancelled. */
struct http_call *http_call_start(struct http_client *client,
                                  const struct http_call_options *options, http_call_done_fn *done,
                                  void *data, struct error *err);
/* No callback after it. */
void http_call_cancel(struct http_call *call);

int http_fetch(const struct http_call_options *options, struct http_answer *ret_answer,
               struct error *err);
void http_answer_deinit(struct http_answer *answer);
/* 0 for 2xx. Otherwise an error made from the contract's error body (code by its type, message,
 * field). */
int http_answer_check(const struct http_answer *answer, struct error *err);
