/* Compiles a Go function once, when it is deployed: an invocation of its own kind, in an instance
 * of the Go image without network, with memory and time limits of its own. What the program writes
 * to stdout is the executable, its log is the compiler's output; the artifact is a tar.gz with the
 * executable as `bootstrap`. */
#pragma once

#include "worker/functions.h"
#include "worker/instance.h"

struct build_options {
    struct runtime *runtime;
    const char *directory; /* for the executable, while it is packed */
    int64_t memory_mb;
    uint64_t timeout_ms;
    uint64_t start_timeout_ms;
    size_t executable_max_bytes;
    size_t artifact_max_bytes;
    size_t log_max_bytes;
};

struct build;

/* `ok`: `artifact` is the archive; else `output` says why not. Valid during the call. */
typedef void build_done_fn(void *data, bool ok, const char *output, size_t output_len,
                           const char *artifact, size_t artifact_len);

/* Keeps a reference on `source`, whose code is what the user handed in. `done` comes exactly once,
 * later. `options` and what it points to must live until then. */
struct build *build_start(uv_loop_t *loop, const struct build_options *options,
                          struct function *source, build_done_fn *done, void *data,
                          struct error *err);
/* Ends it at once; done(ok = false) follows. */
void build_cancel(struct build *build);
