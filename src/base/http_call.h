/* What the HTTP client gives to http_tunnel.c: a call that only connects. Private to these two, which are the only places that include
 * curl/curl.h. */
#pragma once

#include "base/http_client.h"

#include <curl/curl.h>

/* Only connects; `done` without an error means that the connection stands, and then the call lives until
 * http_call_cancel(), which ends both. */
struct http_call *http_call_connect(struct http_client *client,
                                    const struct http_call_options *options,
                                    http_call_done_fn *done, void *data, struct error *err);
CURL *http_call_easy(struct http_call *call);
int http_call_socket(struct http_call *call);
uv_loop_t *http_client_loop(const struct http_client *client);
