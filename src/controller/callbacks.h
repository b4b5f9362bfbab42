/* Callbacks: the controller tells a URL how an asynchronous invocation ended.
 *
 * What is to be told is in the store (store.h, "callbacks"), due from the moment of the end on. A controller claims what is due
 * while it has room, so that its memory is bounded and no slow receiver holds up others: of one host only so many are
 * under way. Each is one POST, signed with the function's secret; 2xx is the end, anything else is tried again with growing
 * pauses until the attempts or the time are used up. A controller that dies leaves a claim whose lease ends: it is told at
 * least once. Loop thread only. */
#pragma once

#include "base/http_client.h"
#include "base/http_url.h"
#include "base/list.h"
#include "controller/callback_guard.h"
#include "model/function.h"

#include <time.h>

struct controller;
struct http_request;

struct callbacks {
    struct http_client *client; /* owned */
    struct callback_guard guard;
    struct list under_way;
    size_t count;
    bool claiming, again, stopped;
    struct loop_timer *timer;
    uint64_t look_at_ns; /* monotonic: when the timer ends */
};

int callbacks_start(struct controller *controller, struct error *err);
/* What is under way is told again by whoever comes next. */
void callbacks_stop(struct controller *controller);
/* Something may be due that was not. */
void callbacks_look(struct controller *controller);

/* Whether this URL may be given for a function: it can be read, leads to nothing that is refused by its text alone, and the
 * function has a secret to sign with. `field` is the error's. */
int callback_check(const struct controller *controller, const char *url,
                   const struct function_spec *spec, const char *field, struct error *err);
/* "https://host:port": what is counted as one host. -1 for a URL that cannot be read. */
#define CALLBACK_HOST_SIZE (HTTP_URL_HOST_MAX + 24)
int callback_host(const char *url, char out[CALLBACK_HOST_SIZE]);
/* "t=TIME,v1=HEX": HMAC-SHA256 of "TIME.BODY". */
#define CALLBACK_SIGNATURE_SIZE 96
void callback_sign(const char *secret, time_t time, const char *body, size_t body_len,
                   char out[CALLBACK_SIGNATURE_SIZE]);
