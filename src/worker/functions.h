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
    struct code *code; /* a reference in the cache */
    const char *const
        *command; /* faas-init's: MODE, "--", ARGV…, NULL; owned. NULL: made from spec and code */
    unsigned references;   /* function_ref(), function_unref() */
    uint64_t used;         /* order of last use */
    struct function *next; /* in struct functions */
};

struct function *function_new(const struct function_spec *spec, struct code *code,
                              struct error *err);
struct function *function_ref(struct function *function);
void function_unref(struct function *function); /* accepts NULL */

/* `function` is NULL on failure; else the callee gets a reference of its own. */
typedef void functions_done_fn(void *data, struct function *function, const struct error *err);

/* Keeps at most `max` versions that nobody uses. */
struct functions *functions_new(uv_loop_t *loop, struct code_cache *cache, size_t max,
                                struct error *err);
/* Requests under way are dropped without an answer. */
void functions_free(struct functions *functions);
/* Known and ready: a new reference at once. Else NULL. */
struct function *functions_find(struct functions *functions, const char *name, int64_t version);
/* Always asynchronous. */
int functions_get(struct functions *functions, struct link *link, const char *name, int64_t version,
                  functions_done_fn *done, void *data, struct error *err);
/* Deleted or superseded: the definition is read anew when it is asked for again. */
void functions_forget(struct functions *functions, const char *name, int64_t version);
