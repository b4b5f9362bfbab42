/* The builds that controllers assign: fetched, compiled one at a time (see build.h), answered. Loop thread only. */
#pragma once

#include "base/json.h"
#include "worker/config.h"
#include "worker/functions.h"
#include "worker/runtime.h"

struct builds;
struct link;

struct builds_options {
    const struct worker_settings *settings; /* borrowed, as the next two */
    struct runtime *runtime;
    struct functions *functions;
    void (*over)(void *data); /* whenever one has been answered */
    void *data;
};

struct builds *builds_new(uv_loop_t *loop, const struct builds_options *options, struct error *err);
/* None may be under way. Accepts NULL. */
void builds_free(struct builds *builds);
/* An assignment of kind build. */
void builds_take(struct builds *builds, struct link *link, const struct json *head);
/* The ids of those that this link gave and that are not answered yet. */
void builds_write(const struct builds *builds, const struct link *link, struct json_writer *writer);
/* Not yet answered. */
size_t builds_count(const struct builds *builds);
/* Ends all at once; each is answered. */
void builds_stop(struct builds *builds);
