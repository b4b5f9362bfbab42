/* ctnetlink (linux/netfilter/nfnetlink_conntrack.h): the table is read once, and what is to go deleted by its own words. */
#include "worker/network_conntrack.h"

#include "base/cleanup.h"
#include "worker/netlink.h"

#include <arpa/inet.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <linux/netlink.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>

/* Deletions that are sent at once. */
#define SEND_BYTES 32768

struct forgetting {
    const uint32_t *addresses;
    size_t count;
    struct netlink_request deletions;
    int fd;
};

static uint16_t message_type(uint16_t kind)
{
    return (uint16_t)(NFNL_SUBSYS_CTNETLINK << 8 | kind);
}

static bool is_wanted(const struct forgetting *forgetting, uint32_t address)
{
    for (size_t i = 0; i < forgetting->count; i++)
        if (forgetting->addresses[i] == address)
            return true;
    return false;
}

/* Nobody waits for the answers: one that has ended meanwhile is as well. */
static void send_deletions(struct forgetting *forgetting)
{
    if (forgetting->deletions.bytes.len > 0)
        netlink_exchange(forgetting->fd, &forgetting->deletions, NULL);
    buffer_clear(&forgetting->deletions.bytes);
}

static void on_entry(void *data, const void *attributes, size_t len)
{
    struct forgetting *forgetting = data;
    const struct nfgenmsg header = {.nfgen_family = AF_INET};
    size_t tuple_len = 0, ip_len = 0, source_len = 0, zone_len = 0;
    const void *tuple = netlink_find(attributes, len, CTA_TUPLE_ORIG, &tuple_len);
    const void *ip = netlink_find(tuple, tuple_len, CTA_TUPLE_IP, &ip_len);
    const void *source = netlink_find(ip, ip_len, CTA_IP_V4_SRC, &source_len);
    const void *zone = netlink_find(attributes, len, CTA_ZONE, &zone_len);
    uint32_t address;

    if (!source || source_len != sizeof(address))
        return;
    memcpy(&address, source, sizeof(address));
    if (!is_wanted(forgetting, ntohl(address)))
        return;
    netlink_message(&forgetting->deletions, message_type(IPCTNL_MSG_CT_DELETE), 0, &header,
                    sizeof(header));
    netlink_attribute(&forgetting->deletions, CTA_TUPLE_ORIG | NLA_F_NESTED, tuple, tuple_len);
    if (zone)
        netlink_attribute(&forgetting->deletions, CTA_ZONE, zone, zone_len);
    if (forgetting->deletions.bytes.len > SEND_BYTES)
        send_deletions(forgetting);
}

int network_conntrack_forget(const uint32_t *addresses, size_t count, struct error *err)
{
    const struct nfgenmsg header = {.nfgen_family = AF_INET};
    struct netlink_request dump = NETLINK_REQUEST_INIT;
    struct forgetting forgetting = {
        .addresses = addresses, .count = count, .deletions = NETLINK_REQUEST_INIT};
    autoclose int reading = netlink_open(NETLINK_NETFILTER, err);
    autoclose int deleting = netlink_open(NETLINK_NETFILTER, err);

    if (reading < 0 || deleting < 0)
        return -1;
    forgetting.fd = deleting;
    netlink_message(&dump, message_type(IPCTNL_MSG_CT_GET), NLM_F_DUMP, &header, sizeof(header));
    int rc = netlink_dump(reading, &dump, sizeof(header), on_entry, &forgetting, err);
    send_deletions(&forgetting);
    netlink_request_deinit(&forgetting.deletions);
    netlink_request_deinit(&dump);
    return rc < 0 ? error_wrap(err, "table of connections") : 0;
}
