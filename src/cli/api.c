/* Finding the controller and calling it. */
#include "cli/api.h"

#include "base/cleanup.h"
#include "cli/run_file.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int set_url(struct api *api, const char *url, struct error *err)
{
    size_t len = strlen(url);
    if (strncmp(url, "http://", 7) != 0 && strncmp(url, "https://", 8) != 0)
        return error_set(err, ERROR_INVALID_REQUEST,
                         "the controller's address must begin with http:// or https://, not %.200s",
                         url);
    while (len > 0 && url[len - 1] == '/')
        len--;
    if (len > API_URL_MAX)
        return error_set(err, ERROR_INVALID_REQUEST,
                         "the address of the controller must have at most %d bytes, not %zu",
                         API_URL_MAX, len);
    memcpy(api->url, url, len);
    api->url[len] = '\0';
    return 0;
}

/* The errors do not show it. */
static int set_token(struct api *api, const char *token, size_t len, struct error *err)
{
    if (len > API_TOKEN_MAX)
        return error_set(err, ERROR_INVALID_REQUEST,
                         "the token must have at most %d bytes, not %zu", API_TOKEN_MAX, len);
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)token[i] <= ' ' || token[i] == 0x7f)
            return error_set(err, ERROR_INVALID_REQUEST,
                             "the token must be one word, without blanks and control characters");
    snprintf(api->authorization, sizeof(api->authorization), "Authorization: Bearer %.*s", (int)len,
             token);
    return 0;
}

/* 1 when there is no such file that can be read. */
static int read_token_file(struct api *api, const char *path, struct error *err)
{
    with_cleanup(buffer_deinit) struct buffer file = BUFFER_INIT(64 * 1024);
    if (buffer_read_file(&file, path, NULL) < 0)
        return 1;
    size_t len = file.data ? strcspn(file.data, " \t\r\n") : 0;
    return len > 0 && set_token(api, file.data, len, err) < 0 ? error_wrap(err, "%s", path) : 0;
}

static int find_token(struct api *api, const char *token, const char *run_token_file,
                      struct error *err)
{
    if (token && token[0])
        return set_token(api, token, strlen(token), err);
    if (run_token_file)
        return read_token_file(api, run_token_file, err) < 0 ? -1 : 0;
    int outcome = read_token_file(api, DEFAULT_DATA_DIR "/token", err);
    if (outcome > 0)
        outcome = read_token_file(api, SERVICE_DATA_DIR "/token", err);
    return outcome < 0 ? -1 : 0;
}

int api_init(struct api *api, const struct cli *cli, struct error *err)
{
    const char *url = cli_option(cli, "url");
    const char *token = cli_option(cli, "token");

    *api = (struct api){.ca_file = cli_option(cli, "ca-file")};
    if (!api->ca_file)
        api->ca_file = getenv("FAAS_CA_FILE");
    if (!url)
        url = getenv("FAAS_URL");
    if (!token)
        token = getenv("FAAS_TOKEN");
    autojson *run = run_file_find(url);
    const char *run_url = json_get_string(run, "url");
    if (!url)
        url = run_url ? run_url : DEFAULT_URL;
    if (set_url(api, url, err) < 0)
        return -1;
    return find_token(api, token, json_get_string(run, "token_file"), err);
}

int api_call(const struct api *api, const struct api_call *call, struct http_answer *ret_answer,
             struct error *err)
{
    char url[2048];
    char type[128];
    const char *headers[5] = {NULL};
    size_t count = 0;

    if ((size_t)snprintf(url, sizeof(url), "%s%s", api->url, call->path) >= sizeof(url))
        return error_set(err, ERROR_INVALID_REQUEST, "the address is too long: %.60s…", call->path);
    if (api->authorization[0])
        headers[count++] = api->authorization;
    if (call->body) {
        snprintf(type, sizeof(type), "Content-Type: %s",
                 call->content_type ? call->content_type : "application/json");
        headers[count++] = type;
    }
    if (call->header)
        headers[count++] = call->header;
    struct http_call_options options = {
        .method = call->method,
        .url = url,
        .headers = headers,
        .body = call->body,
        .body_len = call->body_len,
        .timeout_ms = call->timeout_ms ? call->timeout_ms : 960 * 1000,
        .max_response_bytes = 128 * 1024 * 1024,
        .ca_file = api->ca_file,
        .on_data = call->on_data,
        .on_data_arg = call->on_data_arg,
    };
    if (http_fetch(&options, ret_answer, err) == 0)
        return 0;
    if (err && err->code == ERROR_UNAVAILABLE)
        error_wrap(err,
                   "no controller answers at %s (is `faas up` running? --url or FAAS_URL sets "
                   "another address%s)",
                   api->url,
                   strncmp(api->url, "https://", 8) == 0
                       ? ", --ca-file or FAAS_CA_FILE the authorities that its certificate is "
                         "checked against"
                       : "");
    return -1;
}

int api_get_json(const struct api *api, const struct api_call *call, struct json **ret_json,
                 struct error *err)
{
    struct http_answer answer = {0};
    struct json_limits limits = {
        .max_bytes = 128 * 1024 * 1024, .max_values = 4 * 1000 * 1000, .max_depth = 600};
    int status = -1;

    if (api_call(api, call, &answer, err))
        return -1;
    if (http_answer_check(&answer, err)) {
        if (err && err->code == ERROR_UNAUTHORIZED)
            error_wrap(err, "%s",
                       api->authorization[0] ? "the token was refused"
                                             : "no token given (--token or FAAS_TOKEN)");
    } else if (answer.body.len == 0 &&
               (call->needs_no_answer || strcmp(call->method, "DELETE") == 0)) {
        *ret_json = NULL;
        status = 0;
    } else if (answer.body.len == 0) {
        error_set(err, ERROR_UNAVAILABLE, "the controller's answer is empty");
    } else {
        *ret_json = json_parse(answer.body.data, answer.body.len, &limits, err);
        status = *ret_json ? 0 : error_wrap(err, "the controller's answer cannot be read");
    }
    http_answer_deinit(&answer);
    return status;
}

void api_escape(const char *text, char *out, size_t size)
{
    size_t len = 0;
    for (const unsigned char *at = (const unsigned char *)text; *at && len + 4 < size; at++) {
        if (isalnum(*at) || strchr("-._~", *at))
            out[len++] = (char)*at;
        else
            len += (size_t)snprintf(out + len, size - len, "%%%02X", *at);
    }
    out[len] = '\0';
}
