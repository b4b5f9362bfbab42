/* Function versions this worker knows: definition, and code unpacked and ready.
 *
 * functions_get() makes one known: definition and code are fetched from the controller that
 * assigned the invocation, once, however many ask at the same time. A `struct function` is counted:
 * who keeps it (instances, invocations) refs it, and its code stays in the cache for so long. Loop
 * thread only. */
#pragma once

#include "model/function.h"
#include "worker/code_cache.h"

#include <uv.h>

struct functions;
struct link;

struct function {
    struct function_spec spec;
    struct code *code;      /* a reference in the cache */
    const char **command;   /* faas-init's: MODE, "--", ARGV…, NULL; owned */
    unsigned references;    /* function_ref(), function_unref() */
    bool known;             /* in struct functions */
    struct pool_slot *slot; /* its instances; the pool's own */
    struct function *next;
};

/* Takes `code` and `command` (malloc'd), also on failure; one reference is the caller's. */
struct function *function_new(const struct function_spec *spec, struct code *code,
                              const char **command, struct error *err);
struct function *function_ref(struct function *function);
void function_unref(struct function *function); /* accepts NULL */

/* `function` is NULL on failure, else a reference of the callee's. ERROR_INVALID_REQUEST and
 * ERROR_PAYLOAD_TOO_LARGE: the code cannot be used; anything else is the platform's failure. */
typedef void functions_done_fn(void *data, struct function *function, const struct error *err);

struct functions_options {
    struct code_cache *cache;
    const char *seen_libexec_dir; /* as functions see it; copied */
    size_t max;                   /* versions that are kept while nobody uses them */
};

struct functions *functions_new(uv_loop_t *loop, const struct functions_options *options,
                                struct error *err);
/* Requests under way are dropped without an answer. Accepts NULL. Before code_cache_free(). */
void functions_free(struct functions *functions);
/* Known and ready: a new reference at once. Else NULL. */
struct function *functions_find(struct functions *functions, const char *name, int64_t version);
/* Always asynchronous. */
int functions_get(struct functions *functions, struct link *link, const char *name, int64_t version,
                  functions_done_fn *done, void *data, struct error *err);
/* The same with the code as it was handed in, for a build: without command, and not kept. */
int functions_get_source(struct functions *functions, struct link *link, const char *name,
                         int64_t version, functions_done_fn *done, void *data, struct error *err);
/* Deleted or superseded: the definition is read anew when it is asked for again. */
void functions_forget(struct functions *functions, const char *name, int64_t version);
