/* A mapped table of words that are changed with compare-and-swap; see id_ranges.h. A shared lock on the file says that somebody uses it. */
#include "worker/id_ranges.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/text.h"
#include "worker/instance_spec.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <unistd.h>

#define TABLE_BYTES (INSTANCE_ID_SLOTS * sizeof(uint64_t))

static uint64_t owner_of(const char *text)
{
    char hex[SHA256_HEX_LEN + 1];

    sha256_hex(text, strlen(text), hex);
    hex[16] = '\0';
    return strtoull(hex, NULL, 16) | 1;
}

static int open_locked(const char *path, int *ret_fd, struct error *err)
{
    for (;;) {
        autoclose int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (fd < 0 || flock(fd, LOCK_SH) < 0)
            return error_set_errno(err, ERROR_UNAVAILABLE, errno,
                                   "cannot use the table of user namespaces, %s", path);
        if (is_file_at(fd, path)) {
            *ret_fd = steal_fd(&fd);
            return 0;
        }
    }
}

/* With all its pages, because a write to one that cannot be had would kill. */
static int map(struct id_ranges *ranges, struct error *err)
{
    int failed = posix_fallocate(ranges->fd, 0, TABLE_BYTES);

    if (failed)
        return error_set_errno(err, ERROR_UNAVAILABLE, failed,
                               "the table of user namespaces, %s, cannot be made", ranges->path);
    void *table = mmap(NULL, TABLE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, ranges->fd, 0);
    if (table == MAP_FAILED)
        return error_set_errno(err, ERROR_UNAVAILABLE, errno, "cannot map %s", ranges->path);
    ranges->markers = table;
    return 0;
}

static void give_all(struct id_ranges *ranges)
{
    for (unsigned i = 0; i < INSTANCE_ID_SLOTS; i++) {
        uint64_t own = ranges->owner;
        atomic_compare_exchange_strong(&ranges->markers[i], &own, 0);
    }
}

int id_ranges_open(struct id_ranges *ranges, const char *path, const char *owner, struct error *err)
{
    *ranges = ID_RANGES_NONE;
    ranges->owner = owner_of(owner);
    ranges->path = strdup(path);
    if (!ranges->path)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    if (open_locked(path, &ranges->fd, err) < 0 || map(ranges, err) < 0) {
        id_ranges_close(ranges);
        return -1;
    }
    give_all(ranges);
    return 0;
}

static bool is_empty(const struct id_ranges *ranges)
{
    for (unsigned i = 0; i < INSTANCE_ID_SLOTS; i++)
        if (atomic_load(&ranges->markers[i]))
            return false;
    return true;
}

void id_ranges_close(struct id_ranges *ranges)
{
    if (ranges->markers) {
        if (flock(ranges->fd, LOCK_EX | LOCK_NB) == 0 && is_empty(ranges) &&
            is_file_at(ranges->fd, ranges->path))
            unlink(ranges->path);
        munmap((void *)ranges->markers, TABLE_BYTES);
    }
    if (ranges->fd >= 0)
        close(ranges->fd);
    free(ranges->path);
    *ranges = ID_RANGES_NONE;
}

int id_ranges_take(struct id_ranges *ranges, struct error *err)
{
    for (unsigned i = 1; i < INSTANCE_ID_SLOTS; i++) {
        uint64_t free_one = 0;
        if (atomic_compare_exchange_strong(&ranges->markers[i], &free_one, ranges->owner))
            return (int)i;
    }
    return error_set(err, ERROR_NO_CAPACITY,
                     "all %u user namespace ranges of this machine are in use (%s)",
                     INSTANCE_ID_SLOTS - 1, ranges->path);
}

void id_ranges_give(struct id_ranges *ranges, int range)
{
    uint64_t own = ranges->owner;
    bool was_own = atomic_compare_exchange_strong(&ranges->markers[range], &own, 0);

    assert(was_own);
    (void)was_own;
}
