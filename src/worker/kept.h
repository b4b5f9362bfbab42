/* What controllers have asked to be kept ready ("keep" in docs/worker-protocol.md): so many instances of a function version.
 *
 * A version's definition and code are fetched first; then `keep` is called with the number, and again whenever the number changes.
 * Of several controllers the largest number counts. What cannot be fetched is dropped: the controller, which reads in the
 * worker's next state that it is not kept, asks again. Loop thread only. */
#pragma once

#include "base/json.h"
#include "worker/functions.h"

struct kept;
struct link;

struct kept_options {
    struct functions *functions;
    /* So many instances of it, from now on; 0: none need be kept. */
    void (*keep)(void *data, struct function *function, size_t count);
    void *data;
};

struct kept *kept_new(const struct kept_options *options, struct error *err);
/* Before functions_free(), which drops what is being fetched. Accepts NULL. */
void kept_free(struct kept *kept);
/* One "keep" assignment. */
void kept_take(struct kept *kept, struct link *link, const struct json *head);
/* That version is of no more use; the pool knows. */
void kept_forget(struct kept *kept, const char *function, int64_t version);
/* Items of the state's member "kept": what this controller asked for. */
void kept_write(const struct kept *kept, const struct link *link, struct json_writer *writer);
