/* Memory that another process can map, too (memfd_create(2)). Its size is sealed, so that no access to the mapping can fail
 * because the other side has cut it. What is in it either side may change at any moment. There is none where the kernel promises no more
 * memory than it has (vm.overcommit_memory 2): there any access to a new page can fail. Any thread. */
#pragma once

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>

/* Whether there can be any here. */
int sealed_memory_check(struct error *err);
/* Its descriptor, closed on exec and the caller's; -1 on error. `name` is what /proc shows. */
int sealed_memory_new(const char *name, size_t size, struct error *err);
/* The same, but whoever else opens it can only read: `ret_mapping` is the one way to write to it, and is ended with munmap(2). Needs
 * Linux 5.1. */
int sealed_memory_new_to_read(const char *name, size_t size, void **ret_mapping, struct error *err);
/* Whether the size of what `fd` is open for, which somebody else may have made, is sealed. */
bool sealed_memory_is(int fd);
/* The mapping, to be ended with munmap(2); the descriptor is not needed for it any more. NULL on error. */
void *sealed_memory_map(int fd, size_t size, struct error *err);
void *sealed_memory_map_to_read(int fd, size_t size, struct error *err);
