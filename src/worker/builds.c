/* The queue of builds; see builds.h. */
#include "worker/builds.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "worker/build.h"
#include "worker/link.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#define BUILDS_MAX 64
#define EXECUTABLE_MAX_BYTES (128ul * 1024 * 1024)

struct request {
    struct builds *builds;
    struct link *link;
    char id[128];
    char *name; /* owned */
    int64_t version;
    struct function *source; /* NULL while it is being fetched */
    struct build *build;     /* NULL: waits for its turn */
    TAILQ_ENTRY(request) all;
};

struct builds {
    uv_loop_t *loop;
    struct builds_options options;
    struct build_options build;
    char *directory; /* owned */
    TAILQ_HEAD(request_list, request) all;
    size_t count;
    bool stopping;
};

struct builds *builds_new(uv_loop_t *loop, const struct builds_options *options, struct error *err)
{
    const struct worker_settings *settings = options->settings;
    struct builds *builds = calloc(1, sizeof(*builds));
    if (builds)
        builds->directory = string_printf("%s/worker/builds", settings->data_dir);
    if (!builds || !builds->directory) {
        free(builds);
        error_set(err, ERROR_INTERNAL, "out of memory");
        return NULL;
    }
    builds->loop = loop;
    builds->options = *options;
    TAILQ_INIT(&builds->all);
    builds->build = (struct build_options){
        .runtime = options->runtime,
        .directory = builds->directory,
        .memory_mb = settings->build_memory_mb,
        .timeout_ms = (uint64_t)settings->build_timeout_ms,
        .start_timeout_ms = (uint64_t)settings->start_timeout_ms,
        .executable_max_bytes = EXECUTABLE_MAX_BYTES,
        .artifact_max_bytes = (size_t)settings->archive_max_bytes,
        .log_max_bytes = (size_t)settings->log_max_bytes,
    };
    if (remove_tree(builds->directory, err) < 0) {
        builds_free(builds);
        return NULL;
    }
    return builds;
}

void builds_free(struct builds *builds)
{
    if (!builds)
        return;
    remove_tree(builds->directory, NULL);
    free(builds->directory);
    free(builds);
}

static void start_next(struct builds *builds);

static void answer(struct request *request, bool ok, const char *output, size_t output_len,
                   const char *artifact, size_t artifact_len)
{
    struct builds *builds = request->builds;
    log_info("build finished", LOG_STR("function", request->name),
             LOG_INT("version", request->version), LOG_INT("ok", ok),
             LOG_INT("artifact_bytes", (int64_t)artifact_len));
    link_send_build(request->link, request->id, ok, output, output_len, artifact, artifact_len);
    TAILQ_REMOVE(&builds->all, request, all);
    builds->count--;
    function_unref(request->source);
    free(request->name);
    free(request);
    start_next(builds);
    builds->options.over(builds->options.data);
}

static void on_built(void *data, bool ok, const char *output, size_t output_len,
                     const char *artifact, size_t artifact_len)
{
    answer(data, ok, output, output_len, artifact, artifact_len);
}

static void refuse(struct request *request, const struct error *err)
{
    answer(request, false, err->message, strlen(err->message), NULL, 0);
}

static void refuse_stopping(struct request *request)
{
    struct error err = {0};
    error_set(&err, ERROR_UNAVAILABLE, "the worker is stopping");
    refuse(request, &err);
}

static void start_next(struct builds *builds)
{
    struct request *request, *next = NULL;
    struct error err = {0};
    TAILQ_FOREACH(request, &builds->all, all)
    {
        if (request->build)
            return;
        if (!next && request->source)
            next = request;
    }
    if (!next || builds->stopping)
        return;
    next->build = build_start(builds->loop, &builds->build, next->source, on_built, next, &err);
    if (!next->build)
        refuse(next, &err); /* starts the one after it */
}

static void on_source(void *data, struct function *function, const struct error *err)
{
    struct request *request = data;
    request->source = function;
    if (!function)
        refuse(request, err);
    else if (request->builds->stopping)
        refuse_stopping(request);
    else
        start_next(request->builds);
}

void builds_take(struct builds *builds, struct link *link, const struct json *head)
{
    struct error err = {0};
    const char *id = json_get_string(head, "build_id");
    const char *name = json_get_string(head, "function");
    struct request *request = calloc(1, sizeof(*request));
    if (!id || strlen(id) >= sizeof(request->id) || !name || !function_name_valid(name) ||
        !request || builds->count >= BUILDS_MAX) {
        log_error("build cannot be taken", LOG_STR("function", name));
        free(request);
        return;
    }
    request->builds = builds;
    request->link = link;
    snprintf(request->id, sizeof(request->id), "%s", id);
    request->name = strdup(name);
    request->version = json_get_int(head, "version", 0);
    TAILQ_INSERT_TAIL(&builds->all, request, all);
    builds->count++;
    log_info("build begins", LOG_STR("function", name), LOG_INT("version", request->version));
    if (functions_get_source(builds->options.functions, link, name, request->version, on_source,
                             request, &err) < 0)
        refuse(request, &err);
}

void builds_write(const struct builds *builds, const struct link *link, struct json_writer *writer)
{
    const struct request *request;
    TAILQ_FOREACH(request, &builds->all, all)
    {
        if (request->link == link)
            json_write_string(writer, request->id);
    }
}

size_t builds_count(const struct builds *builds)
{
    return builds->count;
}

void builds_stop(struct builds *builds)
{
    struct request *request, *next;
    builds->stopping = true;
    for (request = TAILQ_FIRST(&builds->all); request; request = next) {
        next = TAILQ_NEXT(request, all);
        if (request->build)
            build_cancel(request->build);
        else if (request->source)
            refuse_stopping(request);
    }
}
