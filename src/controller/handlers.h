/* The handlers behind the routes: one function a call of the API, in api_*.c and worker_api.c. Each answers its
 * request exactly once, at once or later. `data` is the struct controller. */
#pragma once

#include "base/http_server.h"

/* api_functions.c */
void serve_create_function(struct http_request *request, void *data);
void serve_put_function(struct http_request *request, void *data);
void serve_get_function(struct http_request *request, void *data);
void serve_list_functions(struct http_request *request, void *data);
void serve_delete_function(struct http_request *request, void *data);
/* api_invoke.c */
void serve_invoke(struct http_request *request, void *data);
void serve_invoke_raw(struct http_request *request, void *data);
/* api_executions.c */
void serve_get_execution(struct http_request *request, void *data);
void serve_redrive_callback(struct http_request *request, void *data);
void serve_list_executions(struct http_request *request, void *data);
/* api_dead_letters.c */
void serve_list_dead_letters(struct http_request *request, void *data);
void serve_get_dead_letter(struct http_request *request, void *data);
void serve_redrive_dead_letter(struct http_request *request, void *data);
void serve_redrive_dead_letters(struct http_request *request, void *data);
void serve_delete_dead_letter(struct http_request *request, void *data);
void serve_delete_dead_letters(struct http_request *request, void *data);
/* api_tokens.c */
void serve_create_token(struct http_request *request, void *data);
void serve_list_tokens(struct http_request *request, void *data);
void serve_delete_token(struct http_request *request, void *data);
/* api_logs.c */
void serve_execution_logs(struct http_request *request, void *data);
void serve_function_logs(struct http_request *request, void *data);
/* api_service.c */
void serve_workers(struct http_request *request, void *data);
void serve_drain_worker(struct http_request *request, void *data);
void serve_resume_worker(struct http_request *request, void *data);
void serve_health(struct http_request *request, void *data);
void serve_ready(struct http_request *request, void *data);
void serve_metrics(struct http_request *request, void *data);
void serve_openapi(struct http_request *request, void *data);
/* worker_stream.c */
void serve_worker_stream(struct http_request *request, void *data);
/* worker_api.c */
void serve_worker_function(struct http_request *request, void *data);
void serve_worker_code(struct http_request *request, void *data);

/* A query parameter that is a whole number from 1 to `max`; `fallback` when absent. */
int query_limit(const struct http_request *request, int max, int fallback, int *ret,
                struct error *err);
/* One JSON value made by a writer: begin, write, respond. The buffer is owned until responded. */
struct json_answer {
    struct buffer body;
    struct json_writer *writer;
};
int json_answer_begin(struct json_answer *answer, struct http_request *request);
/* Responds, with an error when the writing failed. */
void json_answer_respond(struct json_answer *answer, struct http_request *request, int status);
