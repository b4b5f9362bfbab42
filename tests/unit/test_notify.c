/* The service manager's socket: what it is told, and when. */
#include "base/loop.h"
#include "base/notify.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int manager = -1;

/* A manager that listens at an abstract address of this process's own. */
static void start_manager(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char name[64];
    int len = snprintf(name, sizeof(name), "@faas-test-notify-%d", getpid());
    memcpy(address.sun_path + 1, name + 1, (size_t)len - 1);
    manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(manager, (struct sockaddr *)&address,
                      (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)len)),
                 0);
    setenv("NOTIFY_SOCKET", name, 1);
}

static const char *heard(void)
{
    static char text[64];
    ssize_t len = recv(manager, text, sizeof(text) - 1, 0);
    text[len > 0 ? len : 0] = '\0';
    return text;
}

Test(notify, tells_that_it_is_ready_and_that_it_stops)
{
    uv_loop_t loop;
    uv_loop_init(&loop);
    start_manager();
    unsetenv("WATCHDOG_USEC");
    struct notify *notify = notify_ready(&loop);
    cr_assert_str_eq(heard(), "READY=1");
    notify_stopping(notify);
    cr_assert_str_eq(heard(), "STOPPING=1");
    notify_free(notify);
    loop_close(&loop);
}

Test(notify, feeds_the_watchdog_from_the_loop)
{
    uv_loop_t loop;
    uv_loop_init(&loop);
    start_manager();
    setenv("WATCHDOG_USEC", "20000", 1);
    unsetenv("WATCHDOG_PID");
    struct notify *notify = notify_ready(&loop);
    cr_assert_str_eq(heard(), "READY=1");
    for (int i = 0; i < 2; i++) {
        uv_run(&loop, UV_RUN_ONCE);
        cr_assert_str_eq(heard(), "WATCHDOG=1");
    }
    notify_free(notify);
    loop_close(&loop);
}

/* The descriptor that came with a message; -1 when there was none. */
static int heard_with_fd(const char *expected)
{
    char text[128] = "";
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec part = {.iov_base = text, .iov_len = sizeof(text) - 1};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes)};
    int fd = -1;
    cr_assert(recvmsg(manager, &message, 0) > 0);
    cr_assert_str_eq(text, expected);
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (header)
        memcpy(&fd, CMSG_DATA(header), sizeof(fd));
    return fd;
}

Test(notify, has_a_descriptor_kept_and_dropped_by_its_name)
{
    uv_loop_t loop;
    uv_loop_init(&loop);
    start_manager();
    unsetenv("WATCHDOG_USEC");
    struct notify *notify = notify_ready(&loop);
    cr_assert_eq(heard_with_fd("READY=1"), -1);
    cr_assert(notify_keep_fd(notify, "door", manager));
    int fd = heard_with_fd("FDSTORE=1\nFDNAME=door");
    cr_assert_geq(fd, 0);
    close(fd);
    notify_drop_fd("door");
    cr_assert_eq(heard_with_fd("FDSTOREREMOVE=1\nFDNAME=door"), -1);
    cr_assert_not(notify_keep_fd(NULL, "door", manager));
    notify_free(notify);
    loop_close(&loop);
}

Test(notify, without_a_manager_or_for_another_process_it_does_nothing)
{
    uv_loop_t loop;
    uv_loop_init(&loop);
    unsetenv("NOTIFY_SOCKET");
    cr_assert_null(notify_ready(&loop));
    notify_stopping(NULL);
    notify_free(NULL);
    setenv("NOTIFY_SOCKET", "not-an-address", 1);
    cr_assert_null(notify_ready(&loop));
    loop_close(&loop);
}
