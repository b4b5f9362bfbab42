/* Addresses and routes of links, by rtnetlink(7). */
#include "worker/network_link.h"

#include "base/buffer.h"
#include "base/cleanup.h"
#include "worker/netlink.h"
#include "worker/network_namespace.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_addr.h>
#include <linux/if_bridge.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

/* For a link to come up: it takes the kernel some milliseconds, and longer on a machine that is busy. */
#define UP_WAIT_MS 10
#define UP_TRIES 500
/* IF_OPER_UP (RFC 2863) of linux/if.h, which does not go with net/if.h. */
#define OPER_UP 6

static void add_address(struct netlink_request *request, uint16_t flags, int interface,
                        const struct subnet *subnet, uint32_t address)
{
    const struct ifaddrmsg header = {.ifa_family = AF_INET,
                                     .ifa_prefixlen = (uint8_t)subnet->length,
                                     .ifa_scope = RT_SCOPE_UNIVERSE,
                                     .ifa_index = (unsigned)interface};
    const uint32_t bytes = htonl(address);
    const uint32_t broadcast = htonl(subnet->base | (UINT32_MAX >> subnet->length));

    netlink_message(request, RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE | flags, &header,
                    sizeof(header));
    netlink_attribute(request, IFA_LOCAL, &bytes, sizeof(bytes));
    netlink_attribute(request, IFA_ADDRESS, &bytes, sizeof(bytes));
    netlink_attribute(request, IFA_BROADCAST, &broadcast, sizeof(broadcast));
}

/* ---- the bridge ---- */

/* A bridge takes the lowest MAC address of its ports, until one is set: the one that it has. */
static int keep_mac(const char *bridge, struct error *err)
{
    struct ifreq request = {0};
    autoclose int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    strncpy(request.ifr_name, bridge, IFNAMSIZ - 1);
    if (fd < 0 || ioctl(fd, SIOCGIFHWADDR, &request) < 0 || ioctl(fd, SIOCSIFHWADDR, &request) < 0)
        return error_set_errno(err, ERROR_UNAVAILABLE, errno, "MAC address");
    return 0;
}

static int set_gateway(const char *bridge, const struct subnet *subnet, struct error *err)
{
    struct netlink_request request = NETLINK_REQUEST_INIT;
    int interface = (int)if_nametoindex(bridge);

    if (interface == 0)
        return error_set_errno(err, ERROR_UNAVAILABLE, errno, "interface");
    autoclose int fd = netlink_open(NETLINK_ROUTE, err);
    if (fd < 0)
        return -1;
    add_address(&request, NLM_F_EXCL, interface, subnet, subnet_gateway(subnet));
    struct error failure = {0};
    int rc = netlink_exchange(fd, &request, &failure);
    netlink_request_deinit(&request);
    if (rc == 0)
        return keep_mac(bridge, err);
    if (failure.sys_errno == EEXIST)
        return 0;
    if (err)
        *err = failure;
    return -1;
}

int network_link_set_gateway(const char *bridge, const struct subnet *subnet, struct error *err)
{
    if (set_gateway(bridge, subnet, err) < 0)
        return error_wrap(err, "the gateway's address of bridge %s", bridge);
    return 0;
}

/* ---- inside ---- */

static void add_link_up(struct netlink_request *request, int interface, const uint8_t mac[6])
{
    const struct ifinfomsg header = {
        .ifi_family = AF_UNSPEC, .ifi_index = interface, .ifi_flags = IFF_UP, .ifi_change = IFF_UP};

    netlink_message(request, RTM_NEWLINK, NLM_F_ACK, &header, sizeof(header));
    netlink_attribute(request, IFLA_ADDRESS, mac, 6);
}

static void add_default_route(struct netlink_request *request, int interface, uint32_t gateway)
{
    const struct rtmsg header = {.rtm_family = AF_INET,
                                 .rtm_table = RT_TABLE_MAIN,
                                 .rtm_protocol = RTPROT_BOOT,
                                 .rtm_scope = RT_SCOPE_UNIVERSE,
                                 .rtm_type = RTN_UNICAST};
    const uint32_t bytes = htonl(gateway);

    netlink_message(request, RTM_NEWROUTE, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, &header,
                    sizeof(header));
    netlink_attribute(request, RTA_GATEWAY, &bytes, sizeof(bytes));
    netlink_attribute(request, RTA_OIF, &interface, sizeof(interface));
}

static void mac_of(uint32_t address, uint8_t mac[6])
{
    const uint32_t bytes = htonl(address);

    /* The first byte's second bit: not one of a manufacturer's. */
    mac[0] = 0x02;
    mac[1] = 0xfa;
    memcpy(mac + 2, &bytes, sizeof(bytes));
}

/* The index of the interface; the caller closes `*ret_fd`. 0: it is not there. */
static int open_inside(const char *namespace_path, int *ret_fd, struct error *err)
{
    int interface = 0;

    *ret_fd = network_namespace_netlink(namespace_path, NETWORK_LINK_INSIDE, &interface, err);
    return *ret_fd < 0 ? -1 : interface;
}

static int configure_inside(int fd, int interface, const struct subnet *subnet, uint32_t address,
                            const uint8_t mac[6], struct error *err)
{
    struct netlink_request request = NETLINK_REQUEST_INIT;

    add_link_up(&request, interface, mac);
    add_address(&request, NLM_F_EXCL, interface, subnet, address);
    add_default_route(&request, interface, subnet_gateway(subnet));
    int rc = netlink_exchange(fd, &request, err);
    netlink_request_deinit(&request);
    return rc < 0 ? error_wrap(err, "the address of an instance") : 0;
}

static void look_whether_up(void *data, const void *attributes, size_t len)
{
    size_t name_len = 0, state_len = 0;
    const char *name = netlink_find(attributes, len, IFLA_IFNAME, &name_len);
    const uint8_t *state = netlink_find(attributes, len, IFLA_OPERSTATE, &state_len);

    if (name && name_len == sizeof(NETWORK_LINK_INSIDE) && state && state_len == 1 &&
        memcmp(name, NETWORK_LINK_INSIDE, name_len) == 0)
        *(bool *)data = *state == OPER_UP;
}

/* 1: it passes packets; 0: not yet. */
static int inside_is_up(int fd, struct error *err)
{
    struct netlink_request request = NETLINK_REQUEST_INIT;
    const struct ifinfomsg header = {.ifi_family = AF_UNSPEC};
    bool up = false;

    netlink_message(&request, RTM_GETLINK, NLM_F_DUMP, &header, sizeof(header));
    int rc = netlink_dump(fd, &request, sizeof(header), look_whether_up, &up, err);
    netlink_request_deinit(&request);
    return rc < 0 ? -1 : up;
}

/* 1: the bridge forwards what comes from this port, and to it (linux/if_bridge.h, BR_STATE_FORWARDING). */
static int outside_is_up(const char *host_interface, struct error *err)
{
    char path[96];
    with_cleanup(buffer_deinit) struct buffer state = BUFFER_INIT(16);

    snprintf(path, sizeof(path), "/sys/class/net/%s/brport/state", host_interface);
    if (buffer_read_file(&state, path, err) < 0)
        return -1;
    return state.len > 0 && state.data[0] - '0' == BR_STATE_FORWARDING;
}

/* Both ends are switched on one right after the other, and the inner one tells of it. */
static int wait_until_up(int fd, const char *host_interface, struct error *err)
{
    const int group = RTNLGRP_LINK;
    char told[4096];

    if (setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof(group)) < 0)
        return error_set_errno(err, ERROR_UNAVAILABLE, errno, "changes of links");
    for (int tries = 0; tries < UP_TRIES; tries++) {
        int inside = inside_is_up(fd, err);
        int outside = inside < 0 ? -1 : outside_is_up(host_interface, err);
        if (outside < 0 || (inside && outside))
            return outside < 0 ? -1 : 0;
        struct pollfd change = {.fd = fd, .events = POLLIN};
        if (poll(&change, 1, UP_WAIT_MS) > 0)
            (void)!recv(fd, told, sizeof(told), MSG_DONTWAIT);
    }
    return error_set(err, ERROR_UNAVAILABLE, "interface %s does not come up", host_interface);
}

int network_link_set_address(const char *namespace_path, const char *host_interface,
                             const struct subnet *subnet, uint32_t address, uint8_t ret_mac[6],
                             struct error *err)
{
    autoclose int fd = -1;
    int interface = open_inside(namespace_path, &fd, err);

    if (interface < 0)
        return -1;
    if (interface == 0)
        return error_set(err, ERROR_UNAVAILABLE, "the CNI plugin has made no %s",
                         NETWORK_LINK_INSIDE);
    mac_of(address, ret_mac);
    if (configure_inside(fd, interface, subnet, address, ret_mac, err) < 0)
        return -1;
    return wait_until_up(fd, host_interface, err);
}

int network_link_delete(const char *namespace_path, struct error *err)
{
    struct netlink_request request = NETLINK_REQUEST_INIT;
    autoclose int fd = -1;
    int interface = open_inside(namespace_path, &fd, err);
    const struct ifinfomsg header = {.ifi_family = AF_UNSPEC, .ifi_index = interface};

    if (interface <= 0)
        return interface;
    netlink_message(&request, RTM_DELLINK, NLM_F_ACK, &header, sizeof(header));
    int rc = netlink_exchange(fd, &request, err);
    netlink_request_deinit(&request);
    return rc;
}
