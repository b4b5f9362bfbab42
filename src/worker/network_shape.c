/* Queueing disciplines by rtnetlink (rtnetlink(7), linux/pkt_sched.h). */
#include "worker/network_shape.h"

#include "base/cleanup.h"
#include "worker/netlink.h"
#include "worker/network_namespace.h"

#include <errno.h>
#include <linux/netlink.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <string.h>
#include <unistd.h>

/* What may pass at once: 20 ms' worth, and at least some full packets. */
#define BURST_MS 20
#define BURST_MIN 16384
/* What may wait: 200 ms' worth, on top of the burst. */
#define QUEUE_MS 200

/* Bytes that a rate lets through in `ms`. */
static uint32_t bytes_in(int64_t kbps, int64_t ms)
{
    int64_t bytes = kbps * ms / 8;

    return bytes > UINT32_MAX / 4 ? UINT32_MAX / 4 : (uint32_t)bytes;
}

static int add_bucket(int fd, int interface, int64_t kbps, struct error *err)
{
    struct netlink_request request = NETLINK_REQUEST_INIT;
    const struct tcmsg header = {
        .tcm_family = AF_UNSPEC, .tcm_ifindex = interface, .tcm_parent = TC_H_ROOT};
    uint32_t burst = bytes_in(kbps, BURST_MS);
    if (burst < BURST_MIN)
        burst = BURST_MIN;
    const struct tc_tbf_qopt options = {
        .rate = {.rate = (uint32_t)(kbps * 125), .linklayer = TC_LINKLAYER_ETHERNET},
        .limit = burst + bytes_in(kbps, QUEUE_MS)};

    netlink_message(&request, RTM_NEWQDISC, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, &header,
                    sizeof(header));
    netlink_attribute(&request, TCA_KIND, "tbf", sizeof("tbf"));
    size_t nest = netlink_nest(&request, TCA_OPTIONS);
    netlink_attribute(&request, TCA_TBF_PARMS, &options, sizeof(options));
    netlink_attribute(&request, TCA_TBF_BURST, &burst, sizeof(burst));
    netlink_nest_end(&request, nest);
    int rc = netlink_exchange(fd, &request, err);
    netlink_request_deinit(&request);
    return rc;
}

static int shape(const char *namespace_path, const char *host_interface, int64_t kbps,
                 struct error *err)
{
    int inside = 0, outside = (int)if_nametoindex(host_interface);
    autoclose int host_fd = netlink_open(NETLINK_ROUTE, err);
    if (host_fd < 0)
        return -1;
    autoclose int inside_fd = network_namespace_netlink(namespace_path, "eth0", &inside, err);
    if (inside_fd < 0 || add_bucket(inside_fd, inside, kbps, err) < 0)
        return -1;
    return add_bucket(host_fd, outside, kbps, err);
}

int network_shape(const char *namespace_path, const char *host_interface, int64_t kbps,
                  struct error *err)
{
    if (shape(namespace_path, host_interface, kbps, err) < 0)
        return error_wrap(err, "the bandwidth (network_kbps) cannot be limited");
    return 0;
}
