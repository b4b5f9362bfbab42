/* Changes of functions: create, update, delete.
 *
 * A definition with code is parsed and checked on a pool thread, since it may be many megabytes. Then the changes of
 * one function happen one after the other, each complete in the store before the next begins and before
 * its client is answered. What serves goes on serving until the new version is on the disk (and built). Loop thread
 * only. */
#pragma once

#include "base/http_server.h"
#include "controller/registry.h"

struct controller;

/* Each takes over the request and answers it in the end. */
void changes_create(struct controller *controller, struct http_request *request);
void changes_put(struct controller *controller, struct http_request *request, const char *name);
void changes_delete(struct controller *controller, struct http_request *request, const char *name);

/* The function as users see it: its newest version, and which one serves. */
void function_write(struct json_writer *writer, const struct function_entry *function,
                    const char *code_member, const char *code_base64);
/* The function is deleted, here or by another controller: what waits for it is cancelled. */
void changes_forget_function(struct controller *controller, struct function_entry *function);
