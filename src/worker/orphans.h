/* Processes that became this process's children because it is the subreaper of what OCI runtimes and plain-process
 * instances leave behind, and that nobody else waits for: reaped when they have been dead for a while. Loop thread only. */
#pragma once

#include "base/error.h"

#include <uv.h>

struct orphans;

/* Makes this process the subreaper, and looks every few seconds. */
struct orphans *orphans_start(uv_loop_t *loop, struct error *err);
/* Reaps what is dead now. Accepts NULL. */
void orphans_stop(struct orphans *orphans);
