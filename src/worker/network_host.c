/* The host's side of bridged networks: joining, filtering, and leaving it as it was. */
#include "worker/network_host.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/spawn.h"
#include "base/text.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define FORWARD_SWITCH "/proc/sys/net/ipv4/ip_forward"
#define TOOL_TIMEOUT_MS 30000

struct network_host {
    struct network_host_options options;
    char *table;     /* owned: name of the nftables tables */
    char *folder;    /* owned: <state>/<bridge> */
    char *user_path; /* owned */
    int user_lock;   /* owned; -1 until joined */
    bool filtered;   /* the tables were installed */
};

/* ---- tools ---- */

static int run_tool(const char *const *argv, const char *input, char **ret_output,
                    struct error *err)
{
    const struct spawn_options options = {.argv = argv,
                                          .input = input,
                                          .input_len = input ? strlen(input) : 0,
                                          .timeout_ms = TOOL_TIMEOUT_MS,
                                          .output_max = 16384};
    with_cleanup(spawn_result_deinit) struct spawn_result result = {0};

    if (spawn_run(&options, &result, err) < 0 || spawn_result_check(&result, argv[0], err) < 0)
        return -1;
    if (ret_output)
        *ret_output = steal_pointer(&result.output);
    return 0;
}

/* ---- the packet filter ---- */

/* A worker's name may hold what a table's may not; two names never make the same table. */
static char *table_name(const char *worker)
{
    with_cleanup(buffer_deinit) struct buffer name = BUFFER_INIT(256);

    if (buffer_append_string(&name, "faas_", NULL) < 0)
        return NULL;
    for (; *worker; worker++) {
        bool plain = islower((unsigned char)*worker) || isdigit((unsigned char)*worker);
        if (buffer_printf(&name, NULL, plain ? "%c" : "_%02x", (unsigned char)*worker) < 0)
            return NULL;
    }
    return buffer_take(&name, NULL);
}

static int install_filter(const struct network_host *host, struct error *err)
{
    struct network_filter_options options = {.table = host->table,
                                             .bridge = host->options.bridge,
                                             .subnet = host->options.subnet,
                                             .denied = host->options.denied,
                                             .name_servers = host->options.name_servers};

    return network_filter_install(&options, err);
}

static void remove_filter(const struct network_host *host)
{
    struct error err = {0};

    if (network_filter_remove(host->table, &err) < 0)
        log_warn("nftables tables are left behind", LOG_STR("table", host->table), LOG_ERR(&err));
}

/* Docker, for one, sets the policy of iptables' FORWARD chain to DROP; then what may pass must be said there, too. */
static bool forward_is_dropped(void)
{
    const char *const argv[] = {"iptables", "-w", "-S", "FORWARD", NULL};
    autofree char *rules = NULL;

    return run_tool(argv, NULL, &rules, NULL) == 0 &&
           strncmp(rules, "-P FORWARD DROP", strlen("-P FORWARD DROP")) == 0;
}

static int forward_rules(const struct network_host *host, const char *action, struct error *err)
{
    const char *bridge = host->options.bridge;
    const char *const out[] = {"iptables", "-w", action,   "FORWARD", "-i",
                               bridge,     "-j", "ACCEPT", NULL};
    const char *const in[] = {"iptables", "-w",     action,      "FORWARD",   "-o",
                              bridge,     "-m",     "conntrack", "--ctstate", "RELATED,ESTABLISHED",
                              "-j",       "ACCEPT", NULL};

    if (run_tool(out, NULL, NULL, err) < 0)
        return -1;
    return run_tool(in, NULL, NULL, err);
}

static int open_forward_chain(const struct network_host *host, struct error *err)
{
    if (!forward_is_dropped() || forward_rules(host, "-C", NULL) == 0)
        return 0;
    return forward_rules(host, "-I", err);
}

static void close_forward_chain(const struct network_host *host)
{
    if (forward_rules(host, "-C", NULL) == 0)
        forward_rules(host, "-D", NULL);
}

/* ---- forwarding ---- */

/* Notes how the switch was; a note that is there is an earlier worker's and stays. */
static int forward_on(const struct network_host *host, struct error *err)
{
    with_cleanup(buffer_deinit) struct buffer value = BUFFER_INIT(64);
    autofree char *note = string_printf("%s/ip_forward", host->folder);

    if (!note)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    if (path_exists(note))
        return write_file_value(FORWARD_SWITCH, "1", err);
    if (buffer_read_file(&value, FORWARD_SWITCH, err) < 0 ||
        write_file_atomic(note, value.data ? value.data : "", value.len, 0600, false, err) < 0)
        return -1;
    return value.data && value.data[0] == '1' ? 0 : write_file_value(FORWARD_SWITCH, "1", err);
}

static void forward_as_before(const struct network_host *host)
{
    with_cleanup(buffer_deinit) struct buffer value = BUFFER_INIT(64);
    autofree char *note = string_printf("%s/ip_forward", host->folder);

    if (note && buffer_read_file(&value, note, NULL) == 0 && value.data && value.data[0] == '0')
        write_file_value(FORWARD_SWITCH, "0", NULL);
}

/* ---- users of a bridge ---- */

/* Serialises joining and leaving. The file goes when the last user goes, so the lock counts only while the path still leads to it; so does the
 * folder `state` that holds it, which is therefore made anew when it went between two steps of ours. */
static int lock_state(const char *state, const char *folder, struct error *err)
{
    autofree char *path = string_printf("%s.lock", folder);

    if (!path)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    for (;;) {
        if (make_directories(state, 0700, err) < 0)
            return -1;
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0 && errno == ENOENT)
            continue;
        if (fd < 0)
            return error_set_errno(err, ERROR_UNAVAILABLE, errno, "open %s", path);
        if (flock(fd, LOCK_EX) == 0 && is_file_at(fd, path))
            return fd;
        close(fd);
    }
}

static bool is_locked(const char *path)
{
    int fd = -1;
    struct error err = {0};

    if (lock_file(path, &fd, &err) < 0)
        return err.code == ERROR_CONFLICT;
    close(fd);
    return false;
}

/* Whether another worker that lives uses the bridge. */
static bool has_other_users(const struct network_host *host)
{
    autofree char *folder = string_printf("%s/users", host->folder);
    DIR *users = folder ? opendir(folder) : NULL;
    bool found = false;

    if (!users)
        return false;
    for (struct dirent *entry; !found && (entry = readdir(users));) {
        autofree char *path = string_printf("%s/%s", folder, entry->d_name);
        if (path && entry->d_type == DT_REG && strcmp(path, host->user_path) != 0)
            found = is_locked(path);
    }
    closedir(users);
    return found;
}

/* A crashed worker's ports stay until its successor cleans up. */
static bool has_ports(const char *bridge)
{
    autofree char *path = string_printf("/sys/class/net/%s/brif", bridge);
    DIR *ports = path ? opendir(path) : NULL;
    bool found = false;

    if (!ports)
        return false;
    for (struct dirent *entry; (entry = readdir(ports));)
        found = found || entry->d_name[0] != '.';
    closedir(ports);
    return found;
}

static void delete_bridge(const char *bridge)
{
    struct ifreq request = {0};
    autoclose int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    strncpy(request.ifr_name, bridge, IFNAMSIZ - 1);
    if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &request) < 0 || ioctl(fd, SIOCBRDELBR, bridge) < 0)
        if (errno != ENODEV && errno != ENXIO)
            log_warn("network bridge is left behind", LOG_STR("bridge", bridge),
                     LOG_STR("error", strerror(errno)));
}

static void last_one_out(const struct network_host *host)
{
    autofree char *lock = string_printf("%s.lock", host->folder);

    delete_bridge(host->options.bridge);
    close_forward_chain(host);
    forward_as_before(host);
    remove_tree(host->folder, NULL);
    if (lock)
        unlink(lock);
    rmdir(host->options.state);
}

/* ---- life ---- */

static int join_locked(struct network_host *host, struct error *err)
{
    autofree char *users = string_printf("%s/users", host->folder);

    if (!users)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    if (make_directories(users, 0700, err) < 0)
        return -1;
    if (lock_file(host->user_path, &host->user_lock, err) < 0)
        return error_wrap(err, "another worker of this name uses bridge %s", host->options.bridge);
    if (install_filter(host, err) < 0)
        return -1;
    host->filtered = true;
    if (forward_on(host, err) < 0)
        return -1;
    return open_forward_chain(host, err);
}

static int join(struct network_host *host, struct error *err)
{
    const struct network_host_options *options = &host->options;

    host->table = table_name(options->worker);
    host->folder = string_printf("%s/%s", options->state, options->bridge);
    host->user_path =
        string_printf("%s/%s/users/%s", options->state, options->bridge, options->worker);
    if (!host->table || !host->folder || !host->user_path)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    autoclose int lock = lock_state(host->options.state, host->folder, err);
    return lock < 0 ? -1 : join_locked(host, err);
}

struct network_host *network_host_join(const struct network_host_options *options,
                                       struct error *err)
{
    struct network_host *host = calloc(1, sizeof(*host));

    if (!host) {
        error_set(err, ERROR_INTERNAL, "out of memory");
        return NULL;
    }
    *host = (struct network_host){.options = *options, .user_lock = -1};
    if (join(host, err) == 0)
        return host;
    network_host_leave(host);
    return NULL;
}

static void leave_locked(struct network_host *host)
{
    if (host->filtered)
        remove_filter(host);
    unlink(host->user_path);
    if (!has_other_users(host) && !has_ports(host->options.bridge))
        last_one_out(host);
}

void network_host_leave(struct network_host *host)
{
    if (!host)
        return;
    if (host->user_lock >= 0) {
        autoclose int lock = lock_state(host->options.state, host->folder, NULL);
        (void)lock; /* held to the end of this block */
        leave_locked(host);
        close(host->user_lock);
    }
    free(host->table);
    free(host->folder);
    free(host->user_path);
    free(host);
}

const char *network_host_folder(const struct network_host *host)
{
    return host->folder;
}

const char *network_host_table(const struct network_host *host)
{
    return host->table;
}

int network_host_link_down(const char *interface, struct error *err)
{
    struct ifreq request = {0};
    autoclose int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    strncpy(request.ifr_name, interface, IFNAMSIZ - 1);
    /* Gone is down, too. */
    if (fd < 0 || (ioctl(fd, SIOCSIFFLAGS, &request) < 0 && errno != ENODEV))
        return error_set_errno(err, ERROR_INTERNAL, errno, "switch off interface %s", interface);
    return 0;
}

bool network_host_link_spoke(const char *interface)
{
    with_cleanup(buffer_deinit) struct buffer packets = BUFFER_INIT(64);
    autofree char *path = string_printf("/sys/class/net/%s/statistics/rx_packets", interface);

    return !path || buffer_read_file(&packets, path, NULL) < 0 || packets.len != 2 ||
           memcmp(packets.data, "0\n", 2) != 0;
}

int network_host_isolate(const char *interface, struct error *err)
{
    autofree char *path = string_printf("/sys/class/net/%s/brport/isolated", interface);
    autofree char *ipv6 = string_printf("/proc/sys/net/ipv6/conf/%s/disable_ipv6", interface);

    if (!path || !ipv6)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    if (write_file_value(path, "1", err) < 0)
        return error_wrap(err, "functions cannot be kept apart on the bridge (kernel 4.18 or newer "
                               "and /sys are needed)");
    return path_exists(ipv6) ? write_file_value(ipv6, "1", err) : 0;
}
