/* The API's table: every call that there is, who may make it, and how large its body may be. */
#pragma once

#include "base/http_server.h"

struct controller;

enum route_access {
    ACCESS_ANYBODY,
    ACCESS_USER,
    ACCESS_WORKER,
    ACCESS_INVOKE,        /* users, also with a token of scope invoke */
    ACCESS_RESULT,        /* the same, for what became of a call */
    ACCESS_INVOKE_PUBLIC, /* users, and anybody when the function is public */
};

enum route_body { BODY_NONE, BODY_SMALL, BODY_DEFINITION, BODY_PAYLOAD };

struct api_route {
    const char *method;
    const char *pattern;
    http_handler_fn *handler;
    enum route_access access;
    enum route_body body;
};

extern const struct api_route api_routes[];
extern const size_t api_route_count;

/* The server's table (malloc'd), with body sizes from the settings. */
struct http_route *routes_make(const struct controller *controller, struct error *err);
/* struct http_server_options.admit: the rate limit, which holds for all but workers. */
int routes_admit(struct http_request *request, const struct http_route *route, void *data,
                 struct error *err);
/* struct http_server_options.authorize: who may, and, where a function is invoked, whether it is let in (admission.h). */
int routes_authorize(struct http_request *request, const struct http_route *route, void *data,
                     struct error *err);
/* struct http_server_options.room: for a payload that a client waits with; others wait long, perhaps. */
struct blob *routes_room(struct http_request *request, const struct http_route *route, void *data,
                         size_t len);
/* struct http_server_options.confirm: a token that was revoked while the body came is nobody's. */
int routes_confirm(struct http_request *request, const struct http_route *route, void *data,
                   struct error *err);
