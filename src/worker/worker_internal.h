/* What worker.c (assignments, starting, stopping) and worker_state.c (what a state says) share. */
#pragma once

#include "base/text.h"
#include "oci/image_store.h"
#include "worker/builds.h"
#include "worker/functions.h"
#include "worker/invocation.h"
#include "worker/kept.h"
#include "worker/link.h"
#include "worker/locks.h"
#include "worker/pool.h"
#include "worker/worker.h"

#include <sys/utsname.h>

#define LINKS_MAX 8

struct worker {
    uv_loop_t *loop;
    const struct worker_settings *settings;
    enum worker_runtime_kind kind;
    char session[RANDOM_ID_LEN + 1];
    struct utsname system;
    struct labels labels;
    int cpus;
    struct worker_locks locks;
    struct http_client *http;
    struct link *links[LINKS_MAX];
    size_t link_count;
    struct orphans *orphans;
    struct code_cache *cache;
    struct functions *functions;
    struct kept *kept;
    struct idle_table *idle_table; /* NULL: policy fixed */
    struct runtime *runtime;
    limit_set without; /* the runtime's; told until the end */
    struct pool *pool;
    struct builds *builds;
    struct image_store *images; /* for their names */
    struct image_list image_list;
    struct timespec images_changed;
    struct invocation_list all;     /* every invocation that has not been answered */
    struct invocation_list backlog; /* more than the concurrency: they wait here */
    struct invocation *arriving;    /* its payload is borrowed; NULL: no one's */
    size_t running;                 /* in functions or pool */
    bool draining, stopping, closing, delivering;
    /* By an operator, a controller's last word: no more calls come until it is resumed. */
    bool drained;
    struct loop_timer *deadline; /* of the drain, then of the delivery */
    struct loop_timer *check;    /* at once, whether the stop may go on; NULL: none is due */
    void (*stopped)(void *data);
    void *data;
};

/* Writes the state's members; see struct link_options. `data`: the worker. */
void worker_describe(void *data, struct link *link, struct json_writer *writer);
/* Reads the list of images anew when it has changed, and keeps a generic instance ready of each built-in runtime's. */
void worker_refresh_images(struct worker *worker);
