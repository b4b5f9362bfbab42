/* Preloaded into a controller or worker: its wall clock is off by what a file says, and can so be made to jump while it runs. The
 * monotonic clock stays as it is, as with a clock that somebody sets.
 *
 * FAAS_CLOCK_FILE names a file of one native int64_t, the offset in nanoseconds. It is mapped, so a write to it takes effect at once.
 * (libfaketime does this too, but leaves semaphores behind in each process that is killed.) */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S INT64_C(1000000000)

static int (*real_clock_gettime)(clockid_t, struct timespec *);
static const _Atomic int64_t *offset;

__attribute__((constructor)) static void clock_jump_init(void)
{
    real_clock_gettime = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    const char *path = getenv("FAAS_CLOCK_FILE");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *map = mmap(NULL, sizeof *offset, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (map != MAP_FAILED)
        offset = map;
}

int clock_gettime(clockid_t clock, struct timespec *ret)
{
    if (!real_clock_gettime) /* called by another library's constructor */
        clock_jump_init();
    int r = real_clock_gettime(clock, ret);
    if (r == 0 && offset && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        int64_t now = ret->tv_sec * NS_PER_S + ret->tv_nsec + *offset;
        *ret = (struct timespec){.tv_sec = now / NS_PER_S, .tv_nsec = now % NS_PER_S};
    }
    return r;
}

int gettimeofday(struct timeval *restrict ret, void *restrict timezone)
{
    (void)timezone;
    struct timespec now;
    int r = clock_gettime(CLOCK_REALTIME, &now);
    *ret = (struct timeval){.tv_sec = now.tv_sec, .tv_usec = now.tv_nsec / 1000};
    return r;
}

time_t time(time_t *ret)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (ret)
        *ret = now.tv_sec;
    return now.tv_sec;
}
