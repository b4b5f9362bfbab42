/* Function versions: fetched once, kept while used, forgotten by age; see functions.h. */
#include "worker/functions.h"

#include "base/cleanup.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/text.h"
#include "worker/instance_spec.h"
#include "worker/link.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define DEFINITION_MAX (1024 * 1024)

struct waiter {
    functions_done_fn *done;
    void *data;
    struct waiter *next;
};

/* A definition and its code under way. */
struct request {
    struct functions *functions; /* NULL: dropped */
    struct link *link;
    char *name; /* owned */
    int64_t version;
    bool source;
    bool forgotten; /* not to be kept */
    struct function_spec spec;
    struct waiter *waiters;
    struct request *next;
};

struct functions {
    uv_loop_t *loop;
    struct code_cache *cache;
    char *seen_libexec_dir; /* owned */
    size_t max;
    struct function *known; /* most recently used first; each with a reference of ours */
    size_t count;
    struct request *requests;
};

struct function *function_new(const struct function_spec *spec, struct code *code,
                              const char **command, struct error *err)
{
    struct function *function = calloc(1, sizeof(*function));
    if (!function || function_spec_copy(&function->spec, spec, err) < 0) {
        if (!function)
            error_set(err, ERROR_INTERNAL, "out of memory");
        free(function);
        free(command);
        code_unref(code);
        return NULL;
    }
    function->code = code;
    function->command = command;
    function->references = 1;
    return function;
}

struct function *function_ref(struct function *function)
{
    function->references++;
    return function;
}

void function_unref(struct function *function)
{
    if (!function)
        return;
    assert(function->references > 0);
    if (--function->references > 0)
        return;
    function_spec_deinit(&function->spec);
    code_unref(function->code);
    free(function->command);
    free(function);
}

struct functions *functions_new(uv_loop_t *loop, const struct functions_options *options,
                                struct error *err)
{
    struct functions *functions = calloc(1, sizeof(*functions));
    if (functions)
        functions->seen_libexec_dir = strdup(options->seen_libexec_dir);
    if (!functions || !functions->seen_libexec_dir) {
        free(functions);
        error_set(err, ERROR_INTERNAL, "out of memory");
        return NULL;
    }
    functions->loop = loop;
    functions->cache = options->cache;
    functions->max = options->max;
    return functions;
}

/* Takes it off the list, with our reference. */
static void drop(struct functions *functions, struct function **at)
{
    struct function *function = *at;
    *at = function->next;
    function->known = false;
    functions->count--;
    function_unref(function);
}

void functions_free(struct functions *functions)
{
    if (!functions)
        return;
    for (struct request *request = functions->requests; request; request = request->next)
        request->functions = NULL; /* freed by the callback that is still to come */
    while (functions->known)
        drop(functions, &functions->known);
    free(functions->seen_libexec_dir);
    free(functions);
}

static struct function **find(struct functions *functions, const char *name, int64_t version)
{
    for (struct function **at = &functions->known; *at; at = &(*at)->next) {
        if ((*at)->spec.version == version && strcmp((*at)->spec.name, name) == 0)
            return at;
    }
    return NULL;
}

struct function *functions_find(struct functions *functions, const char *name, int64_t version)
{
    struct function **at = find(functions, name, version);
    if (!at)
        return NULL;
    struct function *function = *at;
    *at = function->next;
    function->next = functions->known;
    functions->known = function;
    return function_ref(function);
}

/* The oldest that nobody else uses goes when there are too many. */
static void shrink(struct functions *functions)
{
    struct function **oldest = NULL;
    if (functions->count <= functions->max)
        return;
    for (struct function **at = &functions->known; *at; at = &(*at)->next) {
        if ((*at)->references == 1)
            oldest = at;
    }
    if (oldest)
        drop(functions, oldest);
}

static void keep(struct functions *functions, struct function *function)
{
    function->known = true;
    function->next = functions->known;
    functions->known = function_ref(function);
    functions->count++;
    shrink(functions);
}

void functions_forget(struct functions *functions, const char *name, int64_t version)
{
    struct function **at = find(functions, name, version);
    if (at)
        drop(functions, at);
    for (struct request *request = functions->requests; request; request = request->next) {
        if (request->version == version && strcmp(request->name, name) == 0)
            request->forgotten = true;
    }
}

/* ---- requests ---- */

static void request_free(struct request *request)
{
    while (request->waiters) {
        struct waiter *waiter = request->waiters;
        request->waiters = waiter->next;
        free(waiter);
    }
    function_spec_deinit(&request->spec);
    free(request->name);
    free(request);
}

static void unlink_request(struct request *request)
{
    struct request **at = &request->functions->requests;
    while (*at != request)
        at = &(*at)->next;
    *at = request->next;
}

/* Answers everybody who waits, and ends the request. Takes `function`. */
static void settle(struct request *request, struct function *function, const struct error *err)
{
    struct waiter *waiters = steal_pointer(&request->waiters);
    unlink_request(request);
    if (function && !request->source && !request->forgotten)
        keep(request->functions, function);
    if (err)
        log_warn("function cannot be made ready", LOG_STR("function", request->name),
                 LOG_INT("version", request->version), LOG_ERR(err));
    request_free(request);
    while (waiters) {
        struct waiter *waiter = waiters;
        waiters = waiter->next;
        waiter->done(waiter->data, function ? function_ref(function) : NULL, err);
        free(waiter);
    }
    function_unref(function);
}

static void on_code(void *data, struct code *code, const struct error *code_err)
{
    struct request *request = data;
    struct error err = {0};
    if (!request->functions) {
        code_unref(code);
        request_free(request);
        return;
    }
    if (!code) {
        err = *code_err;
        error_wrap(&err, "code of %s version %lld", request->name, (long long)request->version);
        settle(request, NULL, &err);
        return;
    }
    const char **command = NULL;
    if (!request->source) {
        command = instance_command(&request->spec, code_directory(code),
                                   request->functions->seen_libexec_dir, &err);
        if (!command) {
            code_unref(code);
            settle(request, NULL, &err);
            return;
        }
    }
    struct function *function = function_new(&request->spec, code, command, &err);
    settle(request, function, function ? NULL : &err);
}

/* ---- the code's bytes, from the controller that gave the work ---- */

struct fetch {
    code_fetched_fn *done;
    void *data;
};

static void on_code_answer(void *data, struct http_answer *answer, const struct error *err)
{
    struct fetch *fetch = data;
    size_t len = 0;
    char *bytes = answer ? buffer_take(&answer->body, &len) : NULL;
    struct error none = {0};
    if (answer && !bytes) {
        error_set(&none, ERROR_INTERNAL, "out of memory");
        err = &none;
    }
    fetch->done(fetch->data, bytes, len, err);
    free(fetch);
}

static int fetch_code(void *source, const char *sha256, size_t max_bytes, code_fetched_fn *done,
                      void *data, struct error *err)
{
    struct fetch *fetch = calloc(1, sizeof(*fetch));
    autofree char *path = string_printf("/v1/worker/code/%s", sha256);
    if (!fetch || !path) {
        free(fetch);
        return error_set(err, ERROR_INTERNAL, "out of memory");
    }
    fetch->done = done;
    fetch->data = data;
    if (link_fetch(source, path, max_bytes, on_code_answer, fetch, err) < 0) {
        free(fetch);
        return -1;
    }
    return 0;
}

static int read_definition(struct request *request, const struct http_answer *answer,
                           struct error *err)
{
    autojson *root =
        json_parse(answer->body.data ? answer->body.data : "", answer->body.len, NULL, err);
    if (!root || function_spec_read(root, &request->spec, err) < 0)
        return error_wrap(err, "definition of %s version %lld", request->name,
                          (long long)request->version);
    const char *sha256 =
        request->source ? request->spec.code_sha256 : request->spec.artifact_sha256;
    autofree char *entry = instance_entry(&request->spec);
    if (!sha256 || !entry)
        return error_set(err, ERROR_UNAVAILABLE,
                         "the definition of %s version %lld does not say which code it has",
                         request->name, (long long)request->version);
    return code_cache_get(request->functions->cache, sha256, request->source ? "main.go" : entry,
                          fetch_code, request->link, on_code, request, err);
}

static void on_definition(void *data, struct http_answer *answer, const struct error *err)
{
    struct request *request = data;
    struct error why = {0};
    if (!request->functions) {
        request_free(request);
        return;
    }
    if (!answer) {
        why = *err;
        error_wrap(&why, "definition of %s version %lld", request->name,
                   (long long)request->version);
        /* What the controller says of the request is no verdict on the function. */
        if (why.code == ERROR_INVALID_REQUEST || why.code == ERROR_PAYLOAD_TOO_LARGE)
            why.code = ERROR_UNAVAILABLE;
        settle(request, NULL, &why);
        return;
    }
    if (read_definition(request, answer, &why) < 0) {
        if (why.code == ERROR_INVALID_REQUEST)
            why.code = ERROR_UNAVAILABLE;
        settle(request, NULL, &why);
    }
}

static int add_waiter(struct request *request, functions_done_fn *done, void *data,
                      struct error *err)
{
    struct waiter *waiter = calloc(1, sizeof(*waiter));
    if (!waiter)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    waiter->done = done;
    waiter->data = data;
    struct waiter **at = &request->waiters;
    while (*at)
        at = &(*at)->next;
    *at = waiter;
    return 0;
}

static struct request *find_request(struct functions *functions, const char *name, int64_t version,
                                    bool source)
{
    for (struct request *request = functions->requests; request; request = request->next) {
        if (request->version == version && request->source == source && !request->forgotten &&
            strcmp(request->name, name) == 0)
            return request;
    }
    return NULL;
}

static int get(struct functions *functions, struct link *link, const char *name, int64_t version,
               bool source, functions_done_fn *done, void *data, struct error *err)
{
    struct request *request = find_request(functions, name, version, source);
    if (request)
        return add_waiter(request, done, data, err);
    request = calloc(1, sizeof(*request));
    if (!request)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    function_spec_init(&request->spec);
    request->functions = functions;
    request->link = link;
    request->version = version;
    request->source = source;
    request->name = strdup(name);
    autofree char *path = string_printf("/v1/worker/functions/%s/%lld", name, (long long)version);
    if (!request->name || !path || add_waiter(request, done, data, err) < 0 ||
        link_fetch(link, path, DEFINITION_MAX, on_definition, request, err) < 0) {
        request_free(request);
        return -1;
    }
    request->next = functions->requests;
    functions->requests = request;
    return 0;
}

int functions_get(struct functions *functions, struct link *link, const char *name, int64_t version,
                  functions_done_fn *done, void *data, struct error *err)
{
    return get(functions, link, name, version, false, done, data, err);
}

int functions_get_source(struct functions *functions, struct link *link, const char *name,
                         int64_t version, functions_done_fn *done, void *data, struct error *err)
{
    return get(functions, link, name, version, true, done, data, err);
}
