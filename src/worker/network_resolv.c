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

/* Usable from another network namespace: an IPv4 address, but not this machine's loopback. */
static bool server_usable(const char *text, uint32_t *ret_address)
{
    struct in_addr address;

    if (inet_pton(AF_INET, text, &address) != 1)
        return false;
    *ret_address = ntohl(address.s_addr);
    return *ret_address >> 24 != 127 && *ret_address != 0;
}

/* The address in a line "nameserver ADDRESS"; 0: another line, -1: a server of no use. */
static int read_server(const char *line, uint32_t *ret_address)
{
    char address[INET6_ADDRSTRLEN] = "";
    size_t skip = strlen("nameserver");

    if (strncmp(line, "nameserver", skip) != 0 || !strchr(" \t", line[skip]))
        return 0;
    skip += strspn(line + skip, " \t");
    size_t len = strcspn(line + skip, " \t\r");
    if (len >= sizeof(address))
        return -1;
    memcpy(address, line + skip, len);
    return server_usable(address, ret_address) ? 1 : -1;
}

int network_copy_resolv_conf(char *text, struct buffer *out, struct name_servers *servers,
                             struct error *err)
{
    char *rest = NULL;

    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        uint32_t address = 0;
        int found = read_server(line, &address);
        if (line[0] == '#' || line[0] == ';' || found < 0 ||
            (found && servers->count == NAME_SERVERS_MAX))
            continue;
        if (found)
            servers->addresses[servers->count++] = address;
        if (buffer_printf(out, err, "%s\n", line) < 0)
            return -1;
    }
    return 0;
}

static int from_file(const char *path, struct buffer *out, struct name_servers *servers,
                     struct error *err)
{
    with_cleanup(buffer_deinit) struct buffer text = BUFFER_INIT(RESOLV_MAX_BYTES);

    if (!path_exists(path))
        return 0;
    buffer_clear(out);
    if (buffer_read_file(&text, path, err) < 0)
        return -1;
    return text.data ? network_copy_resolv_conf(text.data, out, servers, err) : 0;
}

int name_servers_parse(const char *list, struct name_servers *ret, struct error *err)
{
    autofree char *copy = strdup(list ? list : "");
    char *rest = NULL;

    if (!copy)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    *ret = (struct name_servers){0};
    for (char *text = strtok_r(copy, ", ", &rest); text; text = strtok_r(NULL, ", ", &rest)) {
        uint32_t address;
        if (!server_usable(text, &address))
            return error_set(
                err, ERROR_INVALID_REQUEST,
                "name server \"%.64s\" must be an IPv4 address that containers can reach", text);
        if (ret->count == NAME_SERVERS_MAX)
            return error_set(err, ERROR_INVALID_REQUEST, "more than %d name servers",
                             NAME_SERVERS_MAX);
        ret->addresses[ret->count++] = address;
    }
    return 0;
}

static int from_list(const char *list, struct buffer *out, struct name_servers *servers,
                     struct error *err)
{
    if (name_servers_parse(list, servers, err) < 0)
        return -1;
    for (size_t i = 0; i < servers->count; i++) {
        struct in_addr address = {htonl(servers->addresses[i])};
        char shown[INET_ADDRSTRLEN];
        inet_ntop(AF_INET, &address, shown, sizeof(shown));
        if (buffer_printf(out, err, "nameserver %s\n", shown) < 0)
            return -1;
    }
    return 0;
}

int network_write_resolv_conf(const char *path, const char *list, struct name_servers *ret,
                              struct error *err)
{
    with_cleanup(buffer_deinit) struct buffer out = BUFFER_INIT(RESOLV_MAX_BYTES);
    struct name_servers servers = {0};
    int rc;

    if (list && *list) {
        rc = from_list(list, &out, &servers, err);
    } else {
        rc = from_file(HOST_FILE, &out, &servers, err);
        if (rc == 0 && servers.count == 0)
            rc = from_file(UPSTREAM_FILE, &out, &servers, err);
    }
    if (rc < 0)
        return -1;
    *ret = servers;
    return write_file_atomic(path, out.data ? out.data : "", out.len, 0644, false, err);
}
