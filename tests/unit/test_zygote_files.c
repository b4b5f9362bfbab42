/* Descriptors that a forked child gets anew. */
#include "alone.h"
#include "zygote/files.h"
#include "zygote/threads.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>

static char message[ZYGOTE_MESSAGE_MAX];

/* true in the child, whose descriptors are new; in the parent it returns when the child was well. */
static bool forked(void)
{
    pid_t pid;

    ALONE_CHECK(files_survey(-1, message) == 0);
    pid = fork();
    if (pid == 0) {
        ALONE_CHECK(files_renew(message) == 0);
        return true;
    }
    ALONE_CHECK(alone_status(pid) == 0);
    return false;
}

static int bytes_in(int fd)
{
    int bytes = -1;

    ioctl(fd, FIONREAD, &bytes);
    return bytes;
}

static ino_t inode(int fd)
{
    struct stat info;

    ALONE_CHECK(fstat(fd, &info) == 0);
    return info.st_ino;
}

static void own_pipe(void)
{
    int ends[2];

    ALONE_CHECK(pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0);
    ALONE_CHECK(fcntl(ends[1], F_SETFL, O_WRONLY) == 0 && fcntl(ends[1], F_SETFD, 0) == 0);
    ALONE_CHECK(write(ends[1], "abc", 3) == 3);
    ino_t before = inode(ends[0]);
    if (forked()) {
        ALONE_CHECK(inode(ends[0]) != before && inode(ends[0]) == inode(ends[1]));
        ALONE_CHECK(bytes_in(ends[0]) == 3);
        ALONE_CHECK(write(ends[1], "more", 4) == 4 && bytes_in(ends[0]) == 7);
        ALONE_CHECK(fcntl(ends[0], F_GETFL) & O_NONBLOCK);
        ALONE_CHECK(!(fcntl(ends[1], F_GETFL) & O_NONBLOCK));
        ALONE_CHECK(fcntl(ends[0], F_GETFD) == FD_CLOEXEC);
        _exit(0);
    }
    ALONE_CHECK(bytes_in(ends[0]) == 3 && inode(ends[0]) == before);
}

Test(zygote_files, a_child_has_pipes_of_its_own)
{
    cr_assert_eq(run_alone(own_pipe), 0);
}

static void own_event(void)
{
    int fd = eventfd(5, EFD_CLOEXEC | EFD_NONBLOCK);
    uint64_t value = 0;

    if (forked()) {
        ALONE_CHECK(read(fd, &value, 8) == 8 && value == 5);
        ALONE_CHECK(read(fd, &value, 8) < 0 && errno == EAGAIN);
        _exit(0);
    }
    ALONE_CHECK(read(fd, &value, 8) == 8 && value == 5);
}

Test(zygote_files, a_child_has_eventfds_of_its_own)
{
    cr_assert_eq(run_alone(own_event), 0);
}

static void own_epoll(void)
{
    int epoll = epoll_create1(EPOLL_CLOEXEC), event = eventfd(0, EFD_NONBLOCK), ends[2];
    struct epoll_event first = {.events = EPOLLIN, .data.u64 = 0x123456789abcdef0};
    struct epoll_event second = {.events = EPOLLIN | EPOLLET, .data.fd = 77};
    struct epoll_event got[4];

    ALONE_CHECK(pipe2(ends, O_CLOEXEC) == 0);
    ALONE_CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, ends[0], &first) == 0);
    ALONE_CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, event, &second) == 0);
    if (forked()) {
        ALONE_CHECK(epoll_wait(epoll, got, 4, 0) == 0);
        ALONE_CHECK(write(ends[1], "x", 1) == 1);
        ALONE_CHECK(epoll_wait(epoll, got, 4, 0) == 1 && got[0].data.u64 == first.data.u64);
        ALONE_CHECK(eventfd_write(event, 1) == 0);
        ALONE_CHECK(epoll_wait(epoll, got, 4, 0) == 2); /* the pipe again, and the edge */
        ALONE_CHECK(epoll_wait(epoll, got, 4, 0) == 1);
        _exit(0);
    }
    ALONE_CHECK(epoll_wait(epoll, got, 4, 0) == 0);
}

Test(zygote_files, a_child_has_epoll_instances_of_its_own)
{
    cr_assert_eq(run_alone(own_epoll), 0);
}

static void shared(void)
{
    int ends[2], file = open("/proc/self/status", O_RDONLY), null = open("/dev/null", O_RDWR);
    char byte;

    ALONE_CHECK(pipe(ends) == 0 && write(ends[1], "abc", 3) == 3 && close(ends[1]) == 0);
    ALONE_CHECK(file >= 0 && null >= 0);
    ino_t before = inode(ends[0]);
    if (forked()) {
        ALONE_CHECK(inode(ends[0]) == before && read(ends[0], &byte, 1) == 1);
        _exit(0);
    }
    ALONE_CHECK(bytes_in(ends[0]) == 2);
}

Test(zygote_files, what_has_its_other_end_elsewhere_stays_shared)
{
    cr_assert_eq(run_alone(shared), 0);
}

static void refused(void)
{
    int pair[2];
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);

    ALONE_CHECK(files_survey(-1, message) < 0 && strstr(message, "timerfd"));
    ALONE_CHECK(files_survey(timer, message) == 0); /* the caller's own */
    close(timer);
    ALONE_CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    ALONE_CHECK(files_survey(-1, message) < 0 && strstr(message, "socket"));
    close(pair[0]);
    ALONE_CHECK(files_survey(pair[1], message) == 0);
    ALONE_CHECK(pipe(pair) == 0 && dup(pair[1]) >= 0);
    ALONE_CHECK(files_survey(-1, message) < 0);
}

Test(zygote_files, what_cannot_be_made_anew_is_refused_by_name)
{
    cr_assert_eq(run_alone(refused), 0);
}
