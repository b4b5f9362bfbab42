/* resolv.conf for containers (resolv.conf(5)), made from the host's. */
#include "worker/network.h"

#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#define HOST_FILE "/etc/resolv.conf"
/* Where systemd-resolved tells the servers behind its own 127.0.0.53. */
#define UPSTREAM_FILE "/run/systemd/resolve/resolv.conf"
#define RESOLV_MAX_BYTES (64 * 1024)

/* Usable from another network namespace: an address, but not this machine's loopback or a link-local one with a scope. */
static bool server_usable(const char *address)
{
    struct in_addr v4;
    struct in6_addr v6;

    if (inet_pton(AF_INET, address, &v4) == 1)
        return (ntohl(v4.s_addr) >> 24) != 127 && v4.s_addr != 0;
    return inet_pton(AF_INET6, address, &v6) == 1 && !IN6_IS_ADDR_LOOPBACK(&v6) &&
           !IN6_IS_ADDR_UNSPECIFIED(&v6);
}

/* Appends the lines of a resolv.conf but for servers of no use; *ret_servers: how many were kept. */
static int copy_lines(char *text, struct buffer *out, size_t *ret_servers, struct error *err)
{
    char *rest = NULL;

    *ret_servers = 0;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        char address[INET6_ADDRSTRLEN] = "";
        bool is_server = strncmp(line, "nameserver", 10) == 0 && strchr(" \t", line[10]);
        if (line[0] == '#' || line[0] == ';')
            continue;
        if (is_server) {
            size_t skip = 10 + strspn(line + 10, " \t"), len = strcspn(line + skip, " \t\r");
            if (len >= sizeof(address))
                continue;
            memcpy(address, line + skip, len);
            if (!server_usable(address))
                continue;
            (*ret_servers)++;
        }
        if (buffer_printf(out, err, "%s\n", line) < 0)
            return -1;
    }
    return 0;
}

static int from_file(const char *path, struct buffer *out, size_t *ret_servers, struct error *err)
{
    with_cleanup(buffer_deinit) struct buffer text = BUFFER_INIT(RESOLV_MAX_BYTES);

    *ret_servers = 0;
    if (!path_exists(path))
        return 0;
    buffer_clear(out);
    if (buffer_read_file(&text, path, err) < 0)
        return -1;
    return text.data ? copy_lines(text.data, out, ret_servers, err) : 0;
}

static int from_list(const char *list, struct buffer *out, struct error *err)
{
    autofree char *copy = strdup(list ? list : "");
    char *rest = NULL;

    if (!copy)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    for (char *address = strtok_r(copy, ", ", &rest); address;
         address = strtok_r(NULL, ", ", &rest)) {
        if (!server_usable(address))
            return error_set(
                err, ERROR_INVALID_REQUEST,
                "name server \"%.64s\" must be an IP address that containers can reach", address);
        if (buffer_printf(out, err, "nameserver %s\n", address) < 0)
            return -1;
    }
    return 0;
}

int network_write_resolv_conf(const char *path, const char *fallback, struct error *err)
{
    with_cleanup(buffer_deinit) struct buffer out = BUFFER_INIT(RESOLV_MAX_BYTES);
    size_t servers = 0;

    if (from_file(HOST_FILE, &out, &servers, err) < 0)
        return -1;
    if (servers == 0 && from_file(UPSTREAM_FILE, &out, &servers, err) < 0)
        return -1;
    if (servers == 0 && from_list(fallback, &out, err) < 0)
        return -1;
    return write_file_atomic(path, out.data ? out.data : "", out.len, 0644, false, err);
}
