/* Ownership by scope: cleanup attributes and steal helpers.
 *
 *     autofree char *path = NULL;         freed when it leaves scope
 *     autoclose int fd = -1;              closed when it leaves scope
 *     return steal_pointer(&path);        handed to the caller instead
 *
 * A type with its own destructor, which gets a pointer to the variable:
 *
 *     with_cleanup(buffer_deinit) struct buffer out = BUFFER_INIT(4096); */
#pragma once

#include <stdlib.h>
#include <unistd.h>

#define with_cleanup(function) __attribute__((__cleanup__(function)))

static inline void cleanup_free(void *pointer)
{
    free(*(void **)pointer);
}

static inline void cleanup_close(const int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

#define autofree with_cleanup(cleanup_free)
#define autoclose with_cleanup(cleanup_close)

#define steal_pointer(pointer)                                                                     \
    ({                                                                                             \
        __typeof__(*(pointer)) stolen_ = *(pointer);                                               \
        *(pointer) = NULL;                                                                         \
        stolen_;                                                                                   \
    })

static inline int steal_fd(int *fd)
{
    int stolen = *fd;
    *fd = -1;
    return stolen;
}

#define ARRAY_LENGTH(array) (sizeof(array) / sizeof((array)[0]))
