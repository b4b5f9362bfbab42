/* The controller's HTTP API from the command's side: where it is, with which token, one call at a
 * time (blocking).
 *
 * Where: --url, else FAAS_URL, else the address of the last `faas up` on this machine
 * (cli/run_file.h), else http://127.0.0.1:8080. Token: --token, else FAAS_TOKEN, else the one of the
 * `faas up` with that address, else /var/lib/faas/token or the service's. */
#pragma once

#include "base/http_client.h"
#include "cli/cli.h"

#include <stdbool.h>

#define DEFAULT_URL "http://127.0.0.1:8080"
#define DEFAULT_DATA_DIR "/var/lib/faas"
/* Of the controller that a service manager runs, under a user of its own. */
#define SERVICE_DATA_DIR "/var/lib/faas/controller"

/* Bytes; what is longer is refused. */
#define API_URL_MAX 1024
#define API_TOKEN_MAX 1024

struct api {
    char url[API_URL_MAX + 1];
    char authorization[API_TOKEN_MAX + 32]; /* header line, or "" */
    const char *ca_file;                    /* borrowed; NULL: the system's */
};

int api_init(struct api *api, const struct cli *cli, struct error *err);

struct api_call {
    const char *method;
    const char *path; /* "/v1/functions" */
    const char *body;
    size_t body_len;
    const char *header;       /* one more line; NULL: none */
    const char *content_type; /* NULL: application/json */
    uint64_t timeout_ms;      /* 0: 960 s, longer than any function may run */
    int (*on_data)(void *data, const char *bytes, size_t len);
    void *on_data_arg;
    bool needs_no_answer; /* an empty body is not an error, as with DELETE */
};

/* An answer of any status; only no answer at all is an error. */
int api_call(const struct api *api, const struct api_call *call, struct http_answer *ret_answer,
             struct error *err);
/* A 2xx answer's JSON, or the API's own error. *ret_json is NULL when an answer that needs none has no body;
 * json_free() it. */
int api_get_json(const struct api *api, const struct api_call *call, struct json **ret_json,
                 struct error *err);
/* Percent-encodes a path segment or query value. out: 3 * strlen + 1. */
void api_escape(const char *text, char *out, size_t size);
