/* Functions' code on disk: each archive (or source file) is downloaded, checked against its SHA-256
 * and unpacked once.
 *
 *     DIR/<sha256>-<entry>/          ready: complete, read-only by convention, world-readable
 *     anything else                  half done or half removed; goes at the next start
 *
 * A single source file is written under `entry`, the runtime's entry name (an ES module as .mjs).
 * Requests for the same code at the same time share one download. The cache survives restarts. Over
 * `max_bytes` the least recently used code that nobody holds goes. Blocking work is done on the
 * thread pool. Loop thread only. */
#pragma once

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>
#include <uv.h>

struct code_cache;
struct code; /* one unpacked archive, counted */

struct code_cache_options {
    const char *directory;
    uint64_t max_bytes;
    size_t archive_max_bytes;
    uint64_t unpacked_max_bytes;
    size_t archive_max_files;
};

/* Gets the bytes: calls `done` later, exactly once, with malloc'd bytes or an error. */
typedef void code_fetched_fn(void *data, char *bytes, size_t len, const struct error *err);
typedef int code_fetch_fn(void *source, const char *sha256, size_t max_bytes, code_fetched_fn *done,
                          void *data, struct error *err);
/* `code` is NULL on failure, else a reference of the callee's. */
typedef void code_done_fn(void *data, struct code *code, const struct error *err);

/* Blocks: looks through the folder. */
struct code_cache *code_cache_new(uv_loop_t *loop, const struct code_cache_options *options,
                                  struct error *err);
/* No code is held any more. Who still waits gets an answer while the loop closes. Accepts NULL. */
void code_cache_free(struct code_cache *cache);
/* Always asynchronous. */
int code_cache_get(struct code_cache *cache, const char *sha256, const char *entry,
                   code_fetch_fn *fetch, void *source, code_done_fn *done, void *data,
                   struct error *err);
const char *code_directory(const struct code *code);
struct code *code_ref(struct code *code);
void code_unref(struct code *code); /* accepts NULL */
uint64_t code_cache_bytes(const struct code_cache *cache);
