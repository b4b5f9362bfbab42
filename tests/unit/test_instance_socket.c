/* Descriptors that come over a socket, with a test as the instance. Whoever would wait for the other end of a connection that is closed here
 * would wait until the test's time is over. */
#include "worker/instance_socket.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int ours, theirs;
static int remote; /* the other end of lingering_connection() */

static void set_up(void)
{
    int pair[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
    ours = pair[0];
    theirs = pair[1];
    remote = -1;
}

static void tear_down(void)
{
    if (ours >= 0)
        close(ours);
    if (remote >= 0)
        close(remote);
    close(theirs);
}

TestSuite(instance_socket, .init = set_up, .fini = tear_down, .timeout = 60);

/* One whose other end reads nothing, and whose close waits for that for an hour. */
static int lingering_connection(void)
{
    static char bytes[65536];
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);
    struct linger hour = {1, 3600};
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(listener, (struct sockaddr *)&address, len), 0);
    cr_assert_eq(listen(listener, 1), 0);
    cr_assert_eq(getsockname(listener, (struct sockaddr *)&address, &len), 0);
    cr_assert_eq(connect(fd, (struct sockaddr *)&address, len), 0);
    remote = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    cr_assert_geq(remote, 0);
    close(listener);
    while (send(fd, bytes, sizeof(bytes), MSG_DONTWAIT) > 0)
        ;
    cr_assert_eq(setsockopt(fd, SOL_SOCKET, SO_LINGER, &hour, sizeof(hour)), 0);
    return fd;
}

/* With one byte; as sendmsg(2). Takes none of them. */
static ssize_t pass(const int *fds, size_t count)
{
    char byte = 'x';
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(253 * sizeof(int))];
    } control = {0};
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = CMSG_SPACE(count * sizeof(int))};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    *header = (struct cmsghdr){.cmsg_level = SOL_SOCKET,
                               .cmsg_type = SCM_RIGHTS,
                               .cmsg_len = CMSG_LEN(count * sizeof(int))};
    memcpy(CMSG_DATA(header), fds, count * sizeof(int));
    return sendmsg(theirs, &message, MSG_NOSIGNAL);
}

static void pass_lingering(void)
{
    int fd = lingering_connection();
    cr_assert_eq(pass(&fd, 1), 1);
    close(fd);
}

static void expect_closed(void)
{
    static char bytes[65536];
    ssize_t got;
    while ((got = recv(remote, bytes, sizeof(bytes), 0)) > 0)
        ;
    cr_expect_eq(got, 0, "all that was sent comes, and then its end");
}

Test(instance_socket, bytes_come_as_they_were_sent)
{
    char bytes[10];
    cr_expect_eq(instance_socket_receive(ours, bytes, sizeof(bytes)), -1);
    cr_expect_eq(errno, EAGAIN);
    cr_assert_eq(write(theirs, "hello", 5), 5);
    cr_expect_eq(instance_socket_receive(ours, bytes, 3), 3);
    cr_expect_arr_eq(bytes, "hel", 3);
    cr_expect_eq(instance_socket_receive(ours, bytes, sizeof(bytes)), 2);
    shutdown(theirs, SHUT_WR);
    cr_expect_eq(instance_socket_receive(ours, bytes, sizeof(bytes)), 0);
}

Test(instance_socket, a_descriptor_is_not_taken_and_nobody_waits_for_its_close)
{
    char bytes[10];
    pass_lingering();
    cr_expect_eq(instance_socket_receive(ours, bytes, sizeof(bytes)), -1);
    cr_expect_eq(errno, EPROTO);
    expect_closed();
}

Test(instance_socket, nobody_waits_for_what_was_not_received)
{
    pass_lingering();
    instance_socket_close(ours);
    ours = -1;
    expect_closed();
}

static int open_descriptors(void)
{
    int count = 0;
    for (int fd = 0; fd < 1024; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

Test(instance_socket, many_are_all_closed)
{
    int fds[253], ends[2];
    char bytes[10];
    cr_assert_eq(pipe(ends), 0);
    int before = open_descriptors();
    for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
        fds[i] = ends[1];
    cr_assert_eq(pass(fds, sizeof(fds) / sizeof(fds[0])), 1);
    cr_expect_eq(instance_socket_receive(ours, bytes, sizeof(bytes)), -1);
    cr_expect_eq(errno, EPROTO);
    close(ends[1]);
    cr_expect_eq(read(ends[0], bytes, 1), 0, "nobody has it any more");
    cr_expect_eq(open_descriptors(), before - 1);
    close(ends[0]);
}

Test(instance_socket, the_kernel_refuses_them_where_it_can)
{
    int fd = fcntl(theirs, F_DUPFD_CLOEXEC, 0);
    char bytes[10];
    instance_socket_refuse_descriptors(ours);
    errno = 0;
    ssize_t sent = pass(&fd, 1);
    close(fd);
    if (sent < 0)
        cr_expect_eq(errno, EPERM);
    else
        cr_expect_lt(instance_socket_receive(ours, bytes, sizeof(bytes)), 0);
    cr_assert_eq(write(theirs, "x", 1), 1);
    cr_expect_eq(instance_socket_receive(ours, bytes, sizeof(bytes)), 1);
}
