/* How the C library's heap behaves in a program that serves. */
#pragma once

#include "base/error.h"

#include <uv.h>

/* Freed memory up to some 32 MiB stays with the program, in place of a return to the system that the next body of the same size has to
 * undo page by page: 6 MiB are 1,500 page faults. To be called first in main(). */
void memory_keep_freed(void);

/* All that is free goes back to the system: of every heap, and of the calling thread's own to its top. Any thread. */
void memory_give_back(void);

/* Until it has had nothing to do for a moment: then all that is free goes back to the system. So what a burst of calls took is not kept for
 * ever, and calls that come one by one, which use next to no processor time, do not pay for it. Loop thread only. */
struct memory_rest;
struct memory_rest *memory_rest_start(uv_loop_t *loop, struct error *err);
void memory_rest_stop(struct memory_rest *rest); /* accepts NULL */
