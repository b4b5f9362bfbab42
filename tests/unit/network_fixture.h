/* Network namespaces on a "host" that is a network namespace of the test's own: nothing here touches the machine's
 * interfaces, and no packet leaves it. Needs root, the CNI plugins and nftables. */
#pragma once

#include "base/cleanup.h"
#include "base/file.h"
#include "base/loop.h"
#include "base/spawn.h"
#include "base/text.h"
#include "worker/cni.h"
#include "worker/network.h"
#include "worker/network_namespace.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define LAN_ADDRESS "198.51.100.9"
#define HOST_ADDRESS "198.51.100.1"

static char base[] = "/tmp/faas-network-XXXXXX";
static char directory[64], state[64], lan[64];
static uv_loop_t loop;

__attribute__((unused)) static char *shell(const char *command)
{
    const char *const argv[] = {"sh", "-c", command, NULL};
    const struct spawn_options options = {.argv = argv, .timeout_ms = 20000, .output_max = 65536};
    with_cleanup(spawn_result_deinit) struct spawn_result result = {0};
    struct error err = {0};

    cr_assert_eq(spawn_run(&options, &result, &err), 0, "%s", err.message);
    cr_assert_eq(result.wait_status, 0, "%s: %s", command, result.errors);
    return steal_pointer(&result.output);
}

__attribute__((unused)) static void run(const char *command)
{
    free(shell(command));
}

/* The host: a namespace with an uplink to a second one, the "LAN", which has no other way out. */
__attribute__((unused)) static void set_up(void)
{
    autofree char *command = NULL;
    struct error err = {0};

    if (geteuid() != 0)
        cr_skip_test("needs root");
    cr_assert_eq(unshare(CLONE_NEWNET | CLONE_NEWNS), 0);
    cr_assert_eq(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
    cr_assert_eq(mount("sysfs", "/sys", "sysfs", 0, NULL), 0);
    cr_assert_not_null(mkdtemp(base));
    snprintf(directory, sizeof(directory), "%s/netns", base);
    snprintf(state, sizeof(state), "%s/cni", base);
    snprintf(lan, sizeof(lan), "%s/lan", base);
    cr_assert_eq(network_namespace_make(lan, &err), 0, "%s", err.message);
    command = string_printf(
        "ip link set lo up && ip link add up0 type veth peer name lan0 &&"
        "ip addr add " HOST_ADDRESS "/24 dev up0 && ip link set up0 up &&"
        "nsenter --net=%s sh -c 'true' && exec 7<%s && ip link set lan0 netns /proc/self/fd/7 &&"
        "nsenter --net=%s sh -c 'ip addr add " LAN_ADDRESS "/24 dev lan0 && ip link set lan0 up'",
        lan, lan, lan);
    run(command);
    uv_loop_init(&loop);
}

__attribute__((unused)) static void tear_down(void)
{
    struct error err = {0};

    if (geteuid() != 0)
        return;
    loop_close(&loop);
    cr_expect_eq(network_namespace_remove(lan, &err), 0, "%s", err.message);
    cr_expect_eq(rmdir(base), 0, "%s is not empty: %s", base, strerror(errno));
}

/* ---- driving the pool ---- */

struct taken {
    struct network_namespace *ns;
    struct error err;
    bool called;
};

__attribute__((unused)) static void on_taken(void *data, struct network_namespace *ns,
                                             const struct error *err)
{
    struct taken *taken = data;

    taken->called = true;
    taken->ns = ns;
    if (err)
        taken->err = *err;
}

__attribute__((unused)) static struct network *
open_network_with(const struct network_options *options)
{
    struct error err = {0};
    struct network *network = network_new(&loop, options, &err);

    cr_assert_not_null(network, "%s", err.message);
    return network;
}

__attribute__((unused)) static struct network *open_network(size_t pool)
{
    struct network *network = open_network_with(&(struct network_options){.worker = "test-1",
                                                                          .directory = directory,
                                                                          .state = state,
                                                                          .bridge = "faastest0",
                                                                          .pool_bridge = pool});

    cr_assert_null(network_bridge_problem(network), "%s", network_bridge_problem(network)->message);
    return network;
}

__attribute__((unused)) static struct network_namespace *take(struct network *network,
                                                              enum function_network kind)
{
    struct taken taken = {0};
    struct error err = {0};

    cr_assert_eq(network_take(network, kind, on_taken, &taken, &err), 0, "%s", err.message);
    cr_assert_not(taken.called, "a take is asynchronous");
    while (!taken.called)
        uv_run(&loop, UV_RUN_ONCE);
    cr_assert_not_null(taken.ns, "%s", taken.err.message);
    return taken.ns;
}

__attribute__((unused)) static void set_flag(void *data)
{
    *(bool *)data = true;
}

__attribute__((unused)) static void close_network(struct network *network)
{
    bool stopped = false;

    network_stop(network, set_flag, &stopped);
    while (!stopped)
        uv_run(&loop, UV_RUN_ONCE);
    network_free(network);
}

/* ---- looking from inside ---- */

/* A failing test must not leave processes behind. */
__attribute__((unused)) static pid_t fork_bound(void)
{
    pid_t pid = fork();

    cr_assert_geq(pid, 0);
    if (pid == 0)
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    return pid;
}

__attribute__((unused)) static int in_namespace(const char *path, int (*what)(const void *),
                                                const void *data)
{
    int status = 0;
    pid_t pid = fork_bound();

    if (pid == 0) {
        int fd = path ? open(path, O_RDONLY) : -1;
        if (path && (fd < 0 || setns(fd, CLONE_NEWNET) < 0))
            _exit(250);
        _exit(what(data));
    }
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 251;
}

struct endpoint {
    const char *address;
    int port;
};

__attribute__((unused)) static struct sockaddr_in socket_address(const struct endpoint *endpoint)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)endpoint->port)};

    inet_pton(AF_INET, endpoint->address, &address.sin_addr);
    return address;
}

/* 0: connected; 1: no answer in time or refused. */
__attribute__((unused)) static int try_connect(const void *data)
{
    struct sockaddr_in address = socket_address(data);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), failed = 0;
    socklen_t len = sizeof(failed);

    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
        return 0;
    if (errno != EINPROGRESS)
        return 1;
    struct pollfd wait = {.fd = fd, .events = POLLOUT};
    if (poll(&wait, 1, 700) != 1)
        return 1;
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &failed, &len);
    return failed != 0;
}

__attribute__((unused)) static bool reaches(const char *namespace_path, const char *address,
                                            int port)
{
    int result = in_namespace(namespace_path, try_connect, &(struct endpoint){address, port});

    cr_assert_leq(result, 1, "the child failed: %d", result);
    return result == 0;
}

/* A process that listens in a namespace (NULL: the host's) until it is killed. */
__attribute__((unused)) static pid_t start_server(const char *namespace_path, int port)
{
    int ready[2];
    char byte;

    cr_assert_eq(pipe(ready), 0);
    pid_t pid = fork_bound();
    if (pid == 0) {
        struct sockaddr_in any = socket_address(&(struct endpoint){"0.0.0.0", port});
        int fd = namespace_path ? open(namespace_path, O_RDONLY) : -1;
        if (namespace_path && setns(fd, CLONE_NEWNET) < 0)
            _exit(1);
        int server = socket(AF_INET, SOCK_STREAM, 0);
        if (bind(server, (struct sockaddr *)&any, sizeof(any)) < 0 || listen(server, 8) < 0 ||
            write(ready[1], "x", 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    close(ready[1]);
    cr_assert_eq(read(ready[0], &byte, 1), 1, "the server did not start");
    close(ready[0]);
    return pid;
}

__attribute__((unused)) static void stop_process(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

__attribute__((unused)) static int send_datagram(const void *data)
{
    struct sockaddr_in address = socket_address(data);
    int fd = socket(AF_INET, SOCK_DGRAM, 0);

    return sendto(fd, "x", 1, 0, (struct sockaddr *)&address, sizeof(address)) != 1;
}

/* Whether the datagram that `send` sends in `namespace_path` arrives in the LAN, on port 53. */
__attribute__((unused)) static bool datagram_arrives_by(const char *namespace_path,
                                                        int (*send)(const void *))
{
    const struct endpoint target = {LAN_ADDRESS, 53};
    int ready[2], status = 0;
    char byte;

    cr_assert_eq(pipe(ready), 0);
    pid_t receiver = fork_bound();
    if (receiver == 0) {
        struct sockaddr_in address = socket_address(&target);
        int fd = open(lan, O_RDONLY);
        if (setns(fd, CLONE_NEWNET) < 0)
            _exit(2);
        int server = socket(AF_INET, SOCK_DGRAM, 0);
        struct pollfd wait = {.fd = server, .events = POLLIN};
        if (bind(server, (struct sockaddr *)&address, sizeof(address)) < 0 ||
            write(ready[1], "x", 1) != 1)
            _exit(2);
        _exit(poll(&wait, 1, 700) == 1 ? 0 : 1);
    }
    close(ready[1]);
    cr_assert_eq(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    cr_assert_eq(in_namespace(namespace_path, send, &target), 0);
    waitpid(receiver, &status, 0);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) < 2);
    return WEXITSTATUS(status) == 0;
}

__attribute__((unused)) static bool datagram_arrives(const char *namespace_path)
{
    return datagram_arrives_by(namespace_path, send_datagram);
}
