/* worker/network_policy.h: what a function's allow-list, bandwidth and the operator's forbidden networks let through, tried from inside a namespace by
 * somebody with every right over it, so that nothing but the host's own rules can hold him. */
#include "network_fixture.h"

#include "worker/dns_message.h"
#include "worker/network_item.h"
#include "worker/network_policy.h"

#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/udp.h>

#define OTHER_ADDRESS "198.51.100.10"

TestSuite(network_policy, .init = set_up, .fini = tear_down, .timeout = 60);

static struct network *open_with(const char *denied, const char *dns)
{
    struct name_servers servers = {0};

    cr_assert_eq(name_servers_parse(dns, &servers, NULL), 0);
    return open_network_with(&(struct network_options){.worker = "test-1",
                                                       .directory = directory,
                                                       .state = state,
                                                       .bridge = "faastest0",
                                                       .denied = denied,
                                                       .name_servers = &servers});
}

static void on_applied(void *data, const struct error *err)
{
    struct taken *taken = data;

    taken->called = true;
    if (err)
        taken->err = *err;
}

/* A namespace with the policy of a definition with these members. */
static struct network_namespace *take_with(struct network *network, const char *members)
{
    with_cleanup(function_spec_deinit) struct function_spec spec;
    autofree char *text = string_printf("{\"runtime\":\"python\",%s}", members);
    autojson *value = json_parse(text, strlen(text), NULL, NULL);
    struct network_namespace *ns = take(network, NETWORK_BRIDGE);
    struct taken applied = {0};
    struct error err = {0};

    cr_assert_eq(function_spec_read_request(value, "f", 1, &spec, &err), 0, "%s", err.message);
    int rc = network_apply(network, ns, &spec, on_applied, &applied, &err);
    cr_assert_eq(rc, network_policy_waits(&spec) ? 0 : 1, "%s", err.message);
    cr_assert_not(applied.called, "never from inside");
    while (rc == 0 && !applied.called)
        uv_run(&loop, UV_RUN_ONCE);
    cr_assert_eq(applied.err.code, 0, "%s", applied.err.message);
    return ns;
}

Test(network_policy, a_function_without_policy_has_nothing_to_wait_for)
{
    struct network *network = open_with(NULL, "");
    struct network_namespace *ns = take(network, NETWORK_BRIDGE);
    with_cleanup(function_spec_deinit) struct function_spec spec;

    function_spec_init(&spec);
    cr_expect_eq(network_apply(network, ns, &spec, on_applied, NULL, NULL), 1);
    close_network(network);
}

Test(network_policy, only_what_is_listed_is_reached)
{
    autofree char *second =
        string_printf("nsenter --net=%s ip addr add " OTHER_ADDRESS "/24 dev lan0", lan);
    struct network *network = open_with(NULL, "");
    run(second);
    struct network_namespace *limited =
        take_with(network, "\"network_allow\":[\"" LAN_ADDRESS ":80-81/tcp\",\"10.9.0.0/16\"]");
    struct network_namespace *open = take(network, NETWORK_BRIDGE);
    pid_t on_80 = start_server(lan, 80), on_81 = start_server(lan, 81),
          on_82 = start_server(lan, 82);

    cr_expect(reaches(limited->path, LAN_ADDRESS, 80));
    cr_expect(reaches(limited->path, LAN_ADDRESS, 81));
    cr_expect_not(reaches(limited->path, LAN_ADDRESS, 82), "another port");
    cr_expect_not(reaches(limited->path, OTHER_ADDRESS, 80), "another address");
    cr_expect_not(datagram_arrives(limited->path), "another protocol");
    cr_expect(reaches(open->path, LAN_ADDRESS, 82), "a neighbour without list");
    cr_expect(reaches(open->path, OTHER_ADDRESS, 80));
    stop_process(on_80);
    stop_process(on_81);
    stop_process(on_82);
    close_network(network);
}

Test(network_policy, entries_may_overlap)
{
    struct network *network = open_with(NULL, "");
    struct network_namespace *ns = take_with(
        network, "\"network_allow\":[\"198.51.100.0/24:80\",\"" LAN_ADDRESS
                 ":70-90\",\"0.0.0.0/0:53/udp\",\"198.51.0.0/16:53\",\"" LAN_ADDRESS ":80\"]");
    pid_t server = start_server(lan, 80);

    cr_expect(reaches(ns->path, LAN_ADDRESS, 80));
    cr_expect(datagram_arrives(ns->path), "port 53");
    stop_process(server);
    close_network(network);
}

/* What the packet filter has in its sets. */
static char *filter_elements(void)
{
    return shell("nft list ruleset | tr -d '\\n\\t' | grep -o 'elements = {[^}]*}' || true");
}

Test(network_policy, rules_are_gone_with_the_instance)
{
    struct network *network = open_with(NULL, "192.0.2.1");
    autofree char *before = filter_elements();
    struct network_namespace *one = take_with(
        network, "\"network_kbps\":1000,\"network_allow\":[\"10.0.0.0/8:1-9\",\"10.1.0.0/16\"]");
    struct network_namespace *two = take_with(network, "\"network_allow\":[\"10.0.0.0/8\"]");
    autofree char *during = filter_elements();
    cr_expect_not_null(strstr(during, one->address));
    cr_expect_not_null(strstr(during, two->host_interface));

    network_release(network, one);
    network_release(network, two);
    /* Both interfaces are gone. */
    while (uv_run(&loop, UV_RUN_NOWAIT)) {
        autofree char *now = filter_elements();
        if (strcmp(now, before) == 0)
            break;
        uv_run(&loop, UV_RUN_ONCE);
    }
    autofree char *after = filter_elements();
    cr_expect_str_eq(after, before);
    close_network(network);
}

static bool has_address(const struct network_namespace *ns)
{
    autofree char *path = string_printf("%s/faastest0/addresses/%s", state, ns->address);
    struct stat status;

    return lstat(path, &status) == 0;
}

/* Rules that cannot be taken back are as good as anything else that makes a transaction fail: here somebody has removed one of them before. */
Test(network_policy, an_address_that_still_has_rules_is_given_to_nobody)
{
    autofree char *host_before = shell("ip -o link; nft list ruleset");
    struct network *network = open_with(NULL, "");
    struct network_namespace *spoiled = take_with(network, "\"network_allow\":[\"10.0.0.0/8\"]");
    struct network_namespace *port_spoiled = take(network, NETWORK_BRIDGE);
    struct network_namespace *fine = take(network, NETWORK_BRIDGE);
    autofree char *table = shell("nft list tables inet | sed 's/table inet //' | tr -d '\\n'");
    autofree char *spoil = string_printf(
        "nft delete element inet %s limited { %s } && nft delete element bridge %s ports { %s }",
        table, spoiled->address, table, port_spoiled->host_interface);
    /* Copies: what is released is gone. */
    struct network_namespace one = *spoiled, two = *port_spoiled, three = *fine;
    autofree char *fine_path = strdup(fine->path);

    run(spoil);
    network_release(network, spoiled);
    network_release(network, port_spoiled);
    network_release(network, fine);
    while (path_exists(fine_path) || if_nametoindex(one.host_interface) ||
           if_nametoindex(two.host_interface))
        uv_run(&loop, UV_RUN_ONCE);
    /* Comes after what was under way. */
    network_release(network, take(network, NETWORK_BRIDGE));
    cr_expect(has_address(&one), "%s still has an allow-list", one.address);
    cr_expect(has_address(&two), "%s is still bound to a port", two.address);
    cr_expect_not(has_address(&three), "%s has nothing", three.address);
    autofree char *during = filter_elements();
    cr_expect_null(strstr(during, three.address), "%s", during);
    close_network(network);
    autofree char *host_after = shell("ip -o link; nft list ruleset");
    cr_expect_str_eq(host_after, host_before);
}

static long tracked_connections(void)
{
    autofree char *count = shell("cat /proc/sys/net/netfilter/nf_conntrack_count");

    return strtol(count, NULL, 10);
}

Test(network_policy, connections_are_gone_with_the_instance)
{
    struct network *network = open_with(NULL, "");
    struct network_namespace *gone = take(network, NETWORK_BRIDGE),
                             *stays = take(network, NETWORK_BRIDGE);
    pid_t server = start_server(lan, 80);

    for (int i = 0; i < 3; i++)
        cr_assert(reaches(gone->path, LAN_ADDRESS, 80));
    cr_assert(reaches(stays->path, LAN_ADDRESS, 80));
    long before = tracked_connections();
    cr_assert_geq(before, 4);
    network_release(network, gone);
    while (tracked_connections() > before - 3)
        uv_run(&loop, UV_RUN_ONCE);
    cr_expect_eq(tracked_connections(), before - 3, "the others' are still there");
    stop_process(server);
    close_network(network);
}

static bool is_there(const struct network *network, const char *id)
{
    for (const struct item *item = network->items; item; item = item->next)
        if (strcmp(item->id, id) == 0)
            return true;
    return false;
}

/* Returns when nothing of it is left. */
static void release(struct network *network, struct network_namespace *ns)
{
    autofree char *id = strdup(strrchr(ns->path, '/') + 1);

    network_release(network, ns);
    while (is_there(network, id))
        uv_run(&loop, UV_RUN_ONCE);
}

Test(network_policy, who_has_never_spoken_costs_no_look_at_the_table_of_connections)
{
    struct network *network = open_with(NULL, "");

    release(network, take(network, NETWORK_BRIDGE));
    cr_expect_eq(network->table_ns, 0);
    cr_expect_null(network->rest);
    close_network(network);
}

Test(network_policy, the_table_of_connections_is_not_read_without_a_pause)
{
    struct network *network = open_with(NULL, "");
    struct network_namespace *first = take(network, NETWORK_BRIDGE),
                             *second = take(network, NETWORK_BRIDGE);
    pid_t server = start_server(lan, 80);

    cr_assert(reaches(first->path, LAN_ADDRESS, 80));
    cr_assert(reaches(second->path, LAN_ADDRESS, 80));
    long before = tracked_connections();
    network_release(network, first);
    while (!network->rest)
        uv_run(&loop, UV_RUN_ONCE);
    cr_expect_gt(network->table_ns, 0);
    network_release(network, second);
    cr_expect_eq(network->clearing_count, 0, "not yet");
    while (network->rest || network->clearing_count > 0)
        uv_run(&loop, UV_RUN_ONCE);
    cr_expect_leq(tracked_connections(), before - 2);
    stop_process(server);
    close_network(network);
}

Test(network_policy, forbidden_networks_are_for_nobody)
{
    struct network *network = open_with("198.51.100.0/28, 203.0.113.0/24", LAN_ADDRESS);
    struct network_namespace *plain = take(network, NETWORK_BRIDGE);
    struct network_namespace *limited =
        take_with(network, "\"network_allow\":[\"" LAN_ADDRESS "\"]");
    pid_t server = start_server(lan, 80);

    cr_expect_not(reaches(plain->path, LAN_ADDRESS, 80));
    cr_expect_not(reaches(limited->path, LAN_ADDRESS, 80), "a list allows no more than there is");
    cr_expect(datagram_arrives(plain->path), "the name server is reached on port 53");
    cr_expect_not(datagram_arrives(limited->path), "but not by who has no names to ask for");
    stop_process(server);
    close_network(network);
}

/* ---- names ---- */

/* A name server in the LAN that gives every name this address. */
static pid_t start_name_server(const char *answer)
{
    int ready[2];
    char byte;

    cr_assert_eq(pipe(ready), 0);
    pid_t pid = fork_bound();
    if (pid == 0) {
        const struct endpoint here = {LAN_ADDRESS, 53};
        struct sockaddr_in address = socket_address(&here), from;
        unsigned char message[600];
        int fd = open(lan, O_RDONLY);
        if (setns(fd, CLONE_NEWNET) < 0)
            _exit(2);
        int server = socket(AF_INET, SOCK_DGRAM, 0);
        if (bind(server, (struct sockaddr *)&address, sizeof(address)) < 0 ||
            write(ready[1], "x", 1) != 1)
            _exit(2);
        for (;;) {
            socklen_t from_len = sizeof(from);
            ssize_t len = recvfrom(server, message, 512, 0, (struct sockaddr *)&from, &from_len);
            static const unsigned char record[] = {0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4};
            if (len < 12 + 11)
                continue;
            len -= 11; /* EDNS */
            message[2] |= 0x80;
            message[7] = 1;
            message[11] = 0;
            memcpy(message + len, record, sizeof(record));
            inet_pton(AF_INET, answer, message + len + sizeof(record));
            sendto(server, message, (size_t)len + sizeof(record) + 4, 0, (struct sockaddr *)&from,
                   from_len);
        }
    }
    close(ready[1]);
    cr_assert_eq(read(ready[0], &byte, 1), 1, "the name server did not start");
    close(ready[0]);
    return pid;
}

Test(network_policy, names_are_resolved_by_the_platform)
{
    pid_t name_server = start_name_server(LAN_ADDRESS);
    pid_t server = start_server(lan, 80);
    struct network *network = open_with(NULL, LAN_ADDRESS);
    struct network_namespace *ns =
        take_with(network, "\"network_allow\":[\"db.example:80\",\"Other.example:81\"]");

    cr_expect(reaches(ns->path, LAN_ADDRESS, 80));
    cr_expect_not(reaches(ns->path, LAN_ADDRESS, 82));
    stop_process(name_server);
    cr_expect(datagram_arrives(ns->path), "it may ask the name server itself");
    stop_process(server);
    close_network(network);
}

Test(network_policy, a_name_that_nobody_knows_yet_lets_the_instance_start)
{
    pid_t server = start_server(lan, 80);
    struct network *network = open_with(NULL, LAN_ADDRESS);
    struct network_namespace *ns = take_with(network, "\"network_allow\":[\"db.example:80\"]");

    cr_expect_not(reaches(ns->path, LAN_ADDRESS, 80));
    /* The name server comes up; the next refresh finds it. */
    pid_t name_server = start_name_server(LAN_ADDRESS);
    for (;;) {
        autofree char *elements = filter_elements();
        if (strstr(elements, LAN_ADDRESS " . tcp . 80"))
            break;
        uv_run(&loop, UV_RUN_ONCE);
    }
    cr_expect(reaches(ns->path, LAN_ADDRESS, 80));
    stop_process(name_server);
    stop_process(server);
    close_network(network);
}

/* ---- bandwidth ---- */

Test(network_policy, bandwidth_is_limited_on_both_ends)
{
    struct network *network = open_with(NULL, "");
    struct network_namespace *ns = take_with(network, "\"network_kbps\":2000");
    autofree char *outside = string_printf("tc qdisc show dev %s", ns->host_interface);
    autofree char *inside = string_printf("nsenter --net=%s tc qdisc show dev eth0", ns->path);
    autofree char *outside_text = shell(outside), *inside_text = shell(inside);

    cr_expect_not_null(strstr(outside_text, "tbf"));
    cr_expect_not_null(strstr(outside_text, "rate 2Mbit"), "%s", outside_text);
    cr_expect_not_null(strstr(inside_text, "rate 2Mbit"), "%s", inside_text);
    close_network(network);
}

/* ---- frames that are not one's own ---- */

struct frame {
    const char *host_mac;
    unsigned char own_mac[6];
    unsigned char source_mac[6];
    uint32_t source;
    bool arp;
};

static void fill_udp(unsigned char *packet, const struct frame *frame)
{
    struct {
        struct iphdr ip;
        struct udphdr udp;
        char body[2];
    } datagram = {.ip = {.version = 4,
                         .ihl = 5,
                         .tot_len = htons(sizeof(datagram)),
                         .ttl = 64,
                         .protocol = IPPROTO_UDP,
                         .saddr = frame->source},
                  .udp = {.source = htons(5353),
                          .dest = htons(53),
                          .len = htons(sizeof(datagram.udp) + sizeof(datagram.body))},
                  .body = "x"};
    uint16_t words[sizeof(datagram.ip) / 2];
    uint32_t sum = 0;

    inet_pton(AF_INET, LAN_ADDRESS, &datagram.ip.daddr);
    memcpy(words, &datagram.ip, sizeof(words));
    for (size_t i = 0; i < ARRAY_LENGTH(words); i++)
        sum += words[i];
    sum = (sum & 0xffff) + (sum >> 16);
    datagram.ip.check = (uint16_t) ~(sum + (sum >> 16));
    memcpy(packet, &datagram, sizeof(datagram));
}

/* "Who has the gateway's address? Tell `source`, which is at `source_mac`." */
static void fill_arp(unsigned char *packet, const struct frame *frame)
{
    static const unsigned char head[] = {0, 1, 8, 0, 6, 4, 0, 1};
    memcpy(packet, head, sizeof(head));
    memcpy(packet + 8, frame->source_mac, 6);
    memcpy(packet + 14, &frame->source, 4);
    inet_pton(AF_INET, "10.88.64.1", packet + 24);
}

static int send_frame(const void *data)
{
    const struct frame *frame = data;
    unsigned char bytes[64] = {0};
    struct sockaddr_ll to = {
        .sll_family = AF_PACKET, .sll_ifindex = (int)if_nametoindex("eth0"), .sll_halen = 6};
    int fd = socket(AF_PACKET, SOCK_RAW, 0);

    if (frame->arp)
        memset(bytes, 0xff, 6);
    else if (sscanf(frame->host_mac, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", &bytes[0], &bytes[1],
                    &bytes[2], &bytes[3], &bytes[4], &bytes[5]) != 6)
        return 240;
    memcpy(bytes + 6, frame->source_mac, 6);
    bytes[12] = 8;
    bytes[13] = frame->arp ? 6 : 0;
    if (frame->arp)
        fill_arp(bytes + 14, frame);
    else
        fill_udp(bytes + 14, frame);
    return sendto(fd, bytes, sizeof(bytes), 0, (struct sockaddr *)&to, sizeof(to)) != sizeof(bytes);
}

/* Sends `data` in the namespace at `sending_path`; for datagram_arrives_by(). */
static const struct frame *frame_to_send;
static int send_that_frame(const void *data)
{
    (void)data;
    return send_frame(frame_to_send);
}

static bool frame_arrives(const char *path, const struct frame *frame)
{
    frame_to_send = frame;
    return datagram_arrives_by(path, send_that_frame);
}

static struct frame true_frame(const struct network_namespace *ns, const char *host_mac)
{
    struct frame frame = {.host_mac = host_mac};
    autofree char *command =
        string_printf("nsenter --net=%s ip -o link show eth0 | sed 's/.*ether //'", ns->path);
    autofree char *mac = shell(command);

    cr_assert_eq(sscanf(mac, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", &frame.own_mac[0], &frame.own_mac[1],
                        &frame.own_mac[2], &frame.own_mac[3], &frame.own_mac[4], &frame.own_mac[5]),
                 6);
    memcpy(frame.source_mac, frame.own_mac, 6);
    inet_pton(AF_INET, ns->address, &frame.source);
    return frame;
}

Test(network_policy, frames_with_a_neighbours_address_are_dropped)
{
    struct network *network = open_with(NULL, "");
    struct network_namespace *one = take(network, NETWORK_BRIDGE),
                             *two = take(network, NETWORK_BRIDGE);
    autofree char *host_mac = shell("cat /sys/class/net/faastest0/address");
    struct frame mine = true_frame(one, host_mac), his = true_frame(two, host_mac), mixed = mine;

    cr_assert(frame_arrives(one->path, &mine), "its own");
    cr_expect_not(frame_arrives(one->path, &his), "a neighbour's MAC and address");
    mixed.source = his.source;
    cr_expect_not(frame_arrives(one->path, &mixed), "a neighbour's address");
    mixed = mine;
    memcpy(mixed.source_mac, his.source_mac, 6);
    cr_expect_not(frame_arrives(one->path, &mixed), "a neighbour's MAC");
    inet_pton(AF_INET, HOST_ADDRESS, &mixed.source);
    cr_expect_not(frame_arrives(one->path, &mixed), "the host's address");
    close_network(network);
}

/* What the host believes of the neighbour at `address`. */
static bool host_believes(const char *address, const struct frame *frame)
{
    autofree char *command =
        string_printf("ip neigh show dev faastest0 | grep '^%s ' || true", address);
    autofree char *text = shell(command);
    char mac[24];

    snprintf(mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", frame->source_mac[0],
             frame->source_mac[1], frame->source_mac[2], frame->source_mac[3], frame->source_mac[4],
             frame->source_mac[5]);
    return strstr(text, mac) != NULL;
}

Test(network_policy, arp_for_another_address_is_not_believed)
{
    struct network *network = open_with(NULL, "");
    struct network_namespace *one = take(network, NETWORK_BRIDGE),
                             *two = take(network, NETWORK_BRIDGE);
    struct frame claim = true_frame(one, ""), own = claim;
    own.arp = claim.arp = true;
    inet_pton(AF_INET, two->address, &claim.source);

    cr_assert_eq(in_namespace(one->path, send_frame, &own), 0);
    cr_expect(host_believes(one->address, &own), "its own claim");
    cr_assert_eq(in_namespace(one->path, send_frame, &claim), 0);
    cr_expect_not(host_believes(two->address, &claim), "a claim to a neighbour's address");
    memcpy(claim.source_mac, "\x02\x00\x00\x00\x00\x01", 6);
    cr_assert_eq(in_namespace(one->path, send_frame, &claim), 0);
    cr_expect_not(host_believes(two->address, &claim), "with a false MAC");
    close_network(network);
}
