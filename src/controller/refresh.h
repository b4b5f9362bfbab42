/* Functions that other controllers on the same store have changed.
 *
 * The store tells of changes; the function is then read again and what is new is taken up. Whoever changes a function, or
 * is asked for one that is not known here, reads it first, so that a client may deploy at one controller and invoke at
 * another at once. With SQLite there are no others, and nothing is read. Loop thread only. */
#pragma once

#include "base/http_server.h"

struct controller;

/* At start-up: from now on news are followed. */
int refresh_start(struct controller *controller, struct error *err);
/* Reads one function again, then calls `done`. Only when the store is shared. */
typedef void refresh_done_fn(void *data, const struct error *err);
void refresh_function(struct controller *controller, const char *name, refresh_done_fn *done,
                      void *data);
/* For a request that names a function which is not known here: true when that is looked up in the store, and `handler`
 * called again for the request afterwards (once: then it is false). */
bool refresh_missing(struct controller *controller, struct http_request *request, const char *name,
                     void (*handler)(struct http_request *request, void *data));
