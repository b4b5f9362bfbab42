/* The heap's thresholds: see memory.h. */
#include "base/memory.h"

#include <malloc.h>

#define KEPT_MAX (32 * 1024 * 1024) /* the most that glibc takes for M_MMAP_THRESHOLD */

void memory_keep_freed(void)
{
    mallopt(M_MMAP_THRESHOLD, KEPT_MAX);
    mallopt(M_TRIM_THRESHOLD, KEPT_MAX);
}
