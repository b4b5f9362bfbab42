/* Memory of worker and adapter for large bodies: see body_area.h. */
#include "worker/body_area.h"

#include "base/cleanup.h"
#include "base/sealed_memory.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* Of the function's memory. */
#define SHARE 16
#define CAPACITY_MAX (16UL * 1024 * 1024)
/* Emptying 6 MiB takes 0.3 ms of the processor; the other side can make it take a second, with mappings by the hundred thousand. So it is
 * done piece by piece, as long as that is quick. */
#define EMPTYING_MAX_NS (5 * 1000000ll)
#define EMPTYING_PIECE (64UL * 1024)

struct body_area {
    char *memory; /* the mapping */
    size_t size;
    size_t filled; /* so much of it had pages when it was last looked at */
    int fd;
    bool keeps_pages; /* until its end: giving them back took too long */
};

size_t body_area_size(size_t body_max, int64_t memory_mb)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t size = (body_max + page - 1) / page * page;
    if (body_max < BODY_AREA_MIN || body_max > CAPACITY_MAX)
        return 0;
    return (uint64_t)size * SHARE <= (uint64_t)memory_mb << 20 ? size : 0;
}

static int make(struct body_area *area, struct error *err)
{
    area->fd = sealed_memory_new("faas-instance", area->size, err);
    if (area->fd < 0)
        return -1;
    area->memory = sealed_memory_map(area->fd, area->size, err);
    return area->memory ? 0 : -1;
}

struct body_area *body_area_new(size_t size, struct error *err)
{
    struct body_area *area = calloc(1, sizeof(*area));
    if (!area) {
        error_set(err, ERROR_INTERNAL, "out of memory");
        return NULL;
    }
    area->size = size;
    area->fd = -1;
    if (make(area, err) == 0)
        return area;
    body_area_free(area);
    return NULL;
}

void body_area_free(struct body_area *area)
{
    if (!area)
        return;
    body_area_close_fd(area);
    if (area->memory)
        munmap(area->memory, area->size);
    free(area);
}

int body_area_fd(const struct body_area *area)
{
    return area->fd;
}

void body_area_close_fd(struct body_area *area)
{
    if (area->fd >= 0)
        close(steal_fd(&area->fd));
}

size_t body_area_capacity(const struct body_area *area)
{
    return area->size;
}

/* So that a lack of memory is an answer here and not a signal at the copy. The other side may take pages away again, which only
 * means that the copy makes them. */
bool body_area_make_room(struct body_area *area, size_t len)
{
    assert(len <= area->size);
    if (len <= area->filled)
        return true;
    if (madvise(area->memory, len, MADV_POPULATE_WRITE) < 0 && errno != EINVAL)
        return false;
    area->filled = len;
    return true;
}

void body_area_put(struct body_area *area, const char *from, size_t at, size_t len)
{
    assert(len <= area->size && at <= area->size - len);
    memcpy(area->memory + at, from, len);
}

void body_area_get(const struct body_area *area, char *to, size_t at, size_t len)
{
    assert(len <= area->size && at <= area->size - len);
    memcpy(to, area->memory + at, len);
}

static long long processor_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return time.tv_sec * 1000000000ll + time.tv_nsec;
}

void body_area_empty(struct body_area *area)
{
    if (!area || area->keeps_pages)
        return;
    long long begin_ns = processor_ns();
    for (size_t at = 0; at < area->size && !area->keeps_pages; at += EMPTYING_PIECE) {
        size_t len = area->size - at < EMPTYING_PIECE ? area->size - at : EMPTYING_PIECE;
        if (madvise(area->memory + at, len, MADV_REMOVE) < 0)
            return;
        area->filled = 0;
        area->keeps_pages = processor_ns() - begin_ns > EMPTYING_MAX_NS;
    }
}
