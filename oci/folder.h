/* Reading a folder's names, sorted or as they come, without ".." and ".". */
#pragma once

#include "base/error.h"

#include <stddef.h>

struct folder_names {
    char **items; /* owned; sorted by their bytes */
    size_t count, cap;
};

void folder_names_deinit(struct folder_names *names);
/* Of the open folder `fd`, which stays the caller's. More than `max` names are an error. */
int folder_names_read(struct folder_names *names, int fd, size_t max, struct error *err);
