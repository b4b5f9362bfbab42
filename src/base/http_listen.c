/* The socket that the HTTP server listens on. */
#include "base/http_internal.h"

#include "base/cleanup.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* "127.0.0.1:8080", "[::1]:8080" into its parts. */
static int split_address(const char *listen, char *host, size_t host_size, const char **ret_port,
                         struct error *err)
{
    const char *colon = strrchr(listen, ':');
    const char *start = listen;
    size_t len = colon ? (size_t)(colon - listen) : 0;
    if (len >= 2 && listen[0] == '[' && listen[len - 1] == ']') {
        start++;
        len -= 2;
    }
    char *end = NULL;
    long port = colon ? strtol(colon + 1, &end, 10) : -1;
    if (!colon || len == 0 || len >= host_size || end == colon + 1 || *end || port < 0 ||
        port > 65535)
        return error_set(err, ERROR_INVALID_REQUEST,
                         "an address to listen on looks like 127.0.0.1:8080 or [::1]:8080, not %s",
                         listen);
    snprintf(host, host_size, "%.*s", (int)len, start);
    *ret_port = colon + 1;
    return 0;
}

static int bind_and_listen(const struct addrinfo *address)
{
    int one = 1;
    autoclose int fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) ||
        bind(fd, address->ai_addr, address->ai_addrlen) || listen(fd, SOMAXCONN))
        return -1;
    return steal_fd(&fd);
}

/* NULL with `err` set; else freeaddrinfo() it. */
static struct addrinfo *read_address(const char *listen, struct error *err)
{
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV,
                             .ai_socktype = SOCK_STREAM};
    struct addrinfo *address = NULL;
    char host[64];
    const char *port = NULL;
    if (split_address(listen, host, sizeof(host), &port, err))
        return NULL;
    if (getaddrinfo(host, port, &hints, &address)) {
        error_set(err, ERROR_INVALID_REQUEST,
                  "%s is no IP address to listen on (127.0.0.1, 0.0.0.0 for all of IPv4, [::] for "
                  "all)",
                  host);
        return NULL;
    }
    return address;
}

static bool is_bound_to(int fd, const struct addrinfo *address)
{
    union {
        struct sockaddr any;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
    } bound = {0};
    socklen_t len = sizeof(bound);
    if (getsockname(fd, &bound.any, &len) || bound.any.sa_family != address->ai_family)
        return false;
    if (address->ai_family == AF_INET) {
        const struct sockaddr_in *wanted = (const struct sockaddr_in *)address->ai_addr;
        return wanted->sin_addr.s_addr == bound.in.sin_addr.s_addr &&
               (!wanted->sin_port || wanted->sin_port == bound.in.sin_port);
    }
    const struct sockaddr_in6 *wanted = (const struct sockaddr_in6 *)address->ai_addr;
    return memcmp(&wanted->sin6_addr, &bound.in6.sin6_addr, sizeof(wanted->sin6_addr)) == 0 &&
           (!wanted->sin6_port || wanted->sin6_port == bound.in6.sin6_port);
}

int http_check_address(const char *listen, struct error *err)
{
    struct addrinfo *address = read_address(listen, err);
    if (!address)
        return -1;
    freeaddrinfo(address);
    return 0;
}

bool http_listens_at(int fd, const char *listen)
{
    struct addrinfo *address = read_address(listen, NULL);
    bool at = address && is_bound_to(fd, address);
    if (address)
        freeaddrinfo(address);
    return at;
}

static int bind_new(const char *listen, struct error *err)
{
    struct addrinfo *address = read_address(listen, err);
    if (!address)
        return -1;
    int fd = bind_and_listen(address);
    freeaddrinfo(address);
    return fd >= 0 ? fd
                   : error_set_errno(err, ERROR_UNAVAILABLE, errno, "cannot listen on %s", listen);
}

/* Where a client has connected, there is something of it to be read when its connection is accepted, or a second has passed. The large ones are told
 * from the others by that, and the first request needs no turn of the loop more. */
static void wait_for_first_bytes(int listener)
{
    int seconds = 1;
    setsockopt(listener, IPPROTO_TCP, TCP_DEFER_ACCEPT, &seconds, sizeof(seconds));
}

int http_listener_open(struct http_server *server, struct error *err)
{
    struct sockaddr_storage bound = {0};
    socklen_t bound_len = sizeof(bound);
    int inherited_fd = server->options.inherited_fd;
    server->listen_fd = inherited_fd > 0 ? inherited_fd : bind_new(server->options.listen, err);
    if (server->listen_fd < 0)
        return -1;
    if (getsockname(server->listen_fd, (struct sockaddr *)&bound, &bound_len))
        return error_set_errno(err, ERROR_INTERNAL, errno, "getsockname");
    /* The analyzer does not know that getsockname() writes through its transparent union. */
    /* NOLINTNEXTLINE(clang-analyzer-core.CallAndMessage) */
    server->port = ntohs(bound.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&bound)->sin6_port
                                                     : ((struct sockaddr_in *)&bound)->sin_port);
    wait_for_first_bytes(server->listen_fd);
    return 0;
}
