/* Memory of a sealed size: see sealed_memory.h. */
#include "base/sealed_memory.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

/* With strict accounting a page that nobody has touched yet need not be there when it is, and who touches it then is ended by SIGBUS. The
 * other side can use up what there is. */
int sealed_memory_check(struct error *err)
{
    static const char path[] = "/proc/sys/vm/overcommit_memory";
    autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);
    char mode = 0;

    if (fd < 0 || read(fd, &mode, 1) != 1)
        return error_set_errno(err, ERROR_UNAVAILABLE, errno, "cannot read %s", path);
    if (mode == '2')
        return error_set(err, ERROR_UNAVAILABLE, "%s is 2: shared memory would not be safe", path);
    return 0;
}

static int new_memory(const char *name, size_t size, struct error *err)
{
    autoclose int fd = -1;

    if (sealed_memory_check(err) < 0)
        return -1;
    fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || ftruncate(fd, (off_t)size) < 0)
        return error_set_errno(err, ERROR_INTERNAL, errno, "cannot make shared memory");
    return steal_fd(&fd);
}

int sealed_memory_new(const char *name, size_t size, struct error *err)
{
    autoclose int fd = new_memory(name, size, err);

    if (fd < 0)
        return -1;
    if (fcntl(fd, F_ADD_SEALS, SEALS) < 0)
        return error_set_errno(err, ERROR_INTERNAL, errno, "cannot seal shared memory");
    return steal_fd(&fd);
}

int sealed_memory_new_to_read(const char *name, size_t size, void **ret_mapping, struct error *err)
{
    autoclose int fd = new_memory(name, size, err);
    void *mapping = fd >= 0 ? sealed_memory_map(fd, size, err) : NULL;

    if (!mapping)
        return -1;
    if (fcntl(fd, F_ADD_SEALS, SEALS | F_SEAL_FUTURE_WRITE) < 0) {
        error_set_errno(err, ERROR_INTERNAL, errno, "cannot seal memory against writing");
        munmap(mapping, size);
        return -1;
    }
    *ret_mapping = mapping;
    return steal_fd(&fd);
}

bool sealed_memory_is(int fd)
{
    int seals = fcntl(fd, F_GET_SEALS);

    return seals >= 0 && (seals & SEALS) == SEALS;
}

static void *map(int fd, size_t size, int protection, struct error *err)
{
    void *mapping = mmap(NULL, size, protection, MAP_SHARED, fd, 0);

    if (mapping != MAP_FAILED)
        return mapping;
    error_set_errno(err, ERROR_INTERNAL, errno, "cannot map %zu bytes", size);
    return NULL;
}

void *sealed_memory_map(int fd, size_t size, struct error *err)
{
    return map(fd, size, PROT_READ | PROT_WRITE, err);
}

void *sealed_memory_map_to_read(int fd, size_t size, struct error *err)
{
    return map(fd, size, PROT_READ, err);
}
