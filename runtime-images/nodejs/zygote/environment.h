/* Sets environment variables again and again. process.env does so with setenv(), of which glibc keeps each value that it was ever given;
 * what putenv() is given stays the caller's.
 *
 * A value's memory is written over by the next one, and is never freed: other threads may be reading it. It grows by doubling, so
 * that all of it together is less than four times the largest value. */
#pragma once

#include <stddef.h>

/* `value` has no NUL. 0; or -1: no memory, or there are more names than the few that this is for; then nothing has changed. */
int environment_set(const char *name, const char *value, size_t len);
