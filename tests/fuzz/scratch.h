/* A scratch folder for fuzz targets that write files: in memory where there is a tmpfs, gone at exit. */
#pragma once

#include "base/file.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char scratch_path[64];

static inline void scratch_remove(void)
{
    remove_tree(scratch_path, NULL);
}

/* Made by the first call. */
static inline const char *scratch_folder(void)
{
    if (scratch_path[0])
        return scratch_path;
    strcpy(scratch_path, "/dev/shm/faas-fuzz.XXXXXX");
    if (!mkdtemp(scratch_path)) {
        strcpy(scratch_path, "/tmp/faas-fuzz.XXXXXX");
        if (!mkdtemp(scratch_path))
            abort();
    }
    atexit(scratch_remove);
    return scratch_path;
}
