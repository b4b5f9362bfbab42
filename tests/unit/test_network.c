/* worker/network.h: the pool of namespaces, what the rules for all forbid, and that the host is left as it was. */
#include "network_fixture.h"

TestSuite(network, .init = set_up, .fini = tear_down, .timeout = 60);

static int interface_count(const void *data)
{
    (void)data;
    DIR *folder = opendir("/proc/self/net/dev_snmp6");
    int count = 0;
    if (folder)
        closedir(folder);
    FILE *file = fopen("/proc/self/net/dev", "re");
    char line[512];
    while (file && fgets(line, sizeof(line), file))
        count += strchr(line, ':') != NULL;
    if (file)
        fclose(file);
    return count;
}

static int ipv6_addresses(const void *data)
{
    char line[256];
    int count = 0;
    FILE *file = fopen("/proc/self/net/if_inet6", "re");

    (void)data;
    while (file && fgets(line, sizeof(line), file))
        count++;
    if (file)
        fclose(file);
    return count;
}

/* ---- tests ---- */

Test(network, none_has_loopback_only)
{
    struct network *network = open_network(0);
    struct network_namespace *ns = take(network, NETWORK_NONE);

    cr_expect_str_eq(ns->address, "");
    cr_expect_eq(in_namespace(ns->path, interface_count, NULL), 1);
    cr_expect(reaches(ns->path, "127.0.0.1", 9) == false);
    pid_t server = start_server(ns->path, 8080);
    cr_expect(reaches(ns->path, "127.0.0.1", 8080), "loopback must be up");
    stop_process(server);
    close_network(network);
}

Test(network, a_bridged_function_reaches_the_lan_masqueraded)
{
    struct network *network = open_network(0);
    struct network_namespace *ns = take(network, NETWORK_BRIDGE);
    pid_t server = start_server(lan, 80);

    /* The LAN has no route back to 10.88.64.0/18: only a masqueraded connection gets an answer. */
    cr_expect(reaches(ns->path, LAN_ADDRESS, 80));
    stop_process(server);
    close_network(network);
}

Test(network, a_bridged_function_reaches_neither_host_nor_gateway)
{
    struct network *network = open_network(0);
    struct network_namespace *ns = take(network, NETWORK_BRIDGE);
    pid_t server = start_server(NULL, 80);

    cr_assert(reaches(NULL, "10.88.64.1", 80), "the host's service is there");
    cr_assert(reaches(NULL, HOST_ADDRESS, 80));
    cr_expect_not(reaches(ns->path, "10.88.64.1", 80), "the gateway");
    cr_expect_not(reaches(ns->path, HOST_ADDRESS, 80), "the host's other address");
    stop_process(server);
    close_network(network);
}

Test(network, functions_do_not_reach_each_other)
{
    struct network *network = open_network(0);
    struct network_namespace *one = take(network, NETWORK_BRIDGE),
                             *two = take(network, NETWORK_BRIDGE);
    pid_t server = start_server(two->path, 80);

    /* Where br_netfilter is loaded, the packet filter sees bridged frames too; elsewhere only the isolated ports help. */
    run("echo 0 2>/dev/null >/proc/sys/net/bridge/bridge-nf-call-iptables || true");
    cr_expect_str_neq(one->address, two->address);
    cr_assert(reaches(two->path, two->address, 80), "the function's service is there");
    cr_expect_not(reaches(one->path, two->address, 80), "over the bridge");
    /* And not by way of the gateway, as somebody with rights over his routes might try. */
    autofree char *route = string_printf("nsenter --net=%s ip route replace %s/32 via 10.88.64.1",
                                         one->path, two->address);
    run(route);
    cr_expect_not(reaches(one->path, two->address, 80), "through the gateway");
    stop_process(server);
    close_network(network);
}

Test(network, the_lan_reaches_no_function)
{
    struct network *network = open_network(0);
    struct network_namespace *ns = take(network, NETWORK_BRIDGE);
    pid_t server = start_server(ns->path, 80);
    autofree char *route =
        string_printf("nsenter --net=%s ip route add 10.88.64.0/18 via " HOST_ADDRESS, lan);

    run(route);
    cr_expect_not(reaches(lan, ns->address, 80));
    stop_process(server);
    close_network(network);
}

Test(network, metadata_addresses_are_dropped)
{
    static const char *const addresses[] = {"169.254.169.254", "100.100.100.200", "168.63.129.16",
                                            "192.0.0.192"};
    struct network *network = open_network(0);
    struct network_namespace *ns = take(network, NETWORK_BRIDGE);
    pid_t server = start_server(lan, 80);

    for (size_t i = 0; i < ARRAY_LENGTH(addresses); i++) {
        autofree char *command = string_printf("nsenter --net=%s ip addr add %s/32 dev "
                                               "lan0; ip route add %s/32 dev up0",
                                               lan, addresses[i], addresses[i]);
        run(command);
        cr_assert(reaches(NULL, addresses[i], 80), "the host reaches its metadata service");
        cr_expect_not(reaches(ns->path, addresses[i], 80), "%s", addresses[i]);
    }
    stop_process(server);
    close_network(network);
}

Test(network, a_false_source_address_is_dropped)
{
    struct network *network = open_network(0);
    struct network_namespace *ns = take(network, NETWORK_BRIDGE);
    autofree char *command =
        string_printf("nsenter --net=%s sh -c 'ip addr add 203.0.113.7/32 dev eth0 &&"
                      "ip route replace default via 10.88.64.1 src 203.0.113.7'",
                      ns->path);

    cr_assert(datagram_arrives(ns->path), "with the true one");
    run(command);
    cr_expect_not(datagram_arrives(ns->path), "with a false one");
    close_network(network);
}

/* A subnet of five addresses: whoever has one after another is reached under it, though the host remembers whose it was. */
Test(network, an_address_is_used_again_and_the_last_one_is_told)
{
    struct network *network =
        open_network_with(&(struct network_options){.worker = "test-1",
                                                    .directory = directory,
                                                    .state = state,
                                                    .bridge = "faastest0",
                                                    .subnet = "10.88.64.0/29"});
    struct network_namespace *taken[5];
    struct taken sixth = {0};

    for (size_t round = 0; round < 2; round++) {
        for (size_t i = 0; i < ARRAY_LENGTH(taken); i++) {
            taken[i] = take(network, NETWORK_BRIDGE);
            pid_t server = start_server(lan, 80);
            cr_expect(reaches(taken[i]->path, LAN_ADDRESS, 80), "%s", taken[i]->address);
            stop_process(server);
        }
        cr_assert_eq(network_take(network, NETWORK_BRIDGE, on_taken, &sixth, NULL), 0);
        while (!sixth.called)
            uv_run(&loop, UV_RUN_ONCE);
        cr_expect_null(sixth.ns);
        cr_expect_str_eq(sixth.err.message, "all 5 addresses of 10.88.64.0/29 are in use");
        sixth = (struct taken){0};
        for (size_t i = 0; i < ARRAY_LENGTH(taken); i++)
            network_release(network, taken[i]);
        autofree char *addresses = string_printf("ls %s/faastest0/addresses", state);
        for (autofree char *left = NULL; !left || *left; left = shell(addresses)) {
            free(left);
            uv_run(&loop, UV_RUN_ONCE);
        }
    }
    close_network(network);
}

Test(network, the_bridge_keeps_its_mac_address)
{
    struct network *network = open_network(0);
    struct network_namespace *one = take(network, NETWORK_BRIDGE);
    autofree char *before = shell("cat /sys/class/net/faastest0/address");

    for (size_t i = 0; i < 4; i++)
        take(network, NETWORK_BRIDGE);
    network_release(network, one);
    take(network, NETWORK_BRIDGE);
    autofree char *after = shell("cat /sys/class/net/faastest0/address");
    cr_expect_str_eq(before, after);
    close_network(network);
}

Test(network, ipv6_is_off_inside)
{
    struct network *network = open_network(0);
    struct network_namespace *ns = take(network, NETWORK_BRIDGE);

    cr_expect_eq(in_namespace(ns->path, ipv6_addresses, NULL), 0);
    close_network(network);
}

/* Nobody there speaks it, so the host has nothing to say either. */
Test(network, ipv6_is_off_at_the_hosts_end)
{
    struct network *network = open_network(0);
    struct network_namespace *ns = take(network, NETWORK_BRIDGE);
    autofree char *addresses =
        string_printf("ip -o -6 addr show dev %s; cat /proc/sys/net/ipv6/conf/%s/disable_ipv6",
                      ns->host_interface, ns->host_interface);
    autofree char *told = shell(addresses);

    cr_expect_str_eq(told, "1\n");
    close_network(network);
}

static int sleep_forever(const char *namespace_path)
{
    int fd = open(namespace_path, O_RDONLY);
    if (fd < 0 || setns(fd, CLONE_NEWNET) < 0)
        _exit(1);
    for (;;)
        pause();
}

Test(network, counters_tell_what_was_sent_and_received)
{
    struct network *network = open_network(0);
    struct network_namespace *ns = take(network, NETWORK_BRIDGE);
    struct network_counters before = {0}, after = {0};
    struct error err = {0};
    pid_t server = start_server(lan, 80), inside = fork_bound();

    if (inside == 0)
        sleep_forever(ns->path);
    /* It has joined when its namespace is no longer ours. */
    autofree char *link = string_printf("/proc/%d/ns/net", inside);
    struct stat joined = {0}, wanted = {0};
    cr_assert_eq(stat(ns->path, &wanted), 0);
    while (stat(link, &joined) == 0 && joined.st_ino != wanted.st_ino)
        sched_yield();
    autoclose int fd = network_counters_open(inside, &err);
    cr_assert_geq(fd, 0, "%s", err.message);
    cr_assert_eq(network_counters_read(fd, &before, &err), 0, "%s", err.message);
    cr_assert(reaches(ns->path, LAN_ADDRESS, 80));
    cr_assert_eq(network_counters_read(fd, &after, &err), 0, "%s", err.message);
    cr_expect_geq(after.out_bytes - before.out_bytes, 2 * 54, "SYN and ACK");
    cr_expect_geq(after.in_bytes - before.in_bytes, 54, "SYN+ACK");
    stop_process(inside);
    stop_process(server);
    close(steal_fd(&fd));
    close_network(network);
}

Test(network, counters_leave_loopback_out)
{
    struct network *network = open_network(0);
    struct network_counters counters = {1, 1};
    struct error err = {0};
    struct network_namespace *ns = take(network, NETWORK_NONE);
    pid_t server = start_server(ns->path, 80);

    cr_assert(reaches(ns->path, "127.0.0.1", 80));
    autoclose int fd = network_counters_open(server, &err);
    cr_assert_eq(network_counters_read(fd, &counters, &err), 0, "%s", err.message);
    cr_expect_eq(counters.in_bytes, 0);
    cr_expect_eq(counters.out_bytes, 0);
    stop_process(server);
    close_network(network);
}

/* Not all mounts: other workers of this machine come and go. */
static char *host_state(void)
{
    autofree char *command = string_printf(
        "ip -o link | cut -d: -f2; nft list ruleset; iptables-save -t nat | grep -v '^#';"
        "cat /proc/sys/net/ipv4/ip_forward; ls %s; grep -c %s /proc/self/mountinfo",
        base, base);

    return shell(command);
}

Test(network, stopping_leaves_the_host_as_it_was)
{
    run("iptables -t nat -S >/dev/null; echo 0 >/proc/sys/net/ipv4/ip_forward");
    autofree char *before = host_state();
    struct network *network = open_network(2);
    autofree char *during = NULL;

    take(network, NETWORK_BRIDGE);
    network_release(network, take(network, NETWORK_BRIDGE));
    during = host_state();
    cr_expect_str_neq(before, during);
    close_network(network);
    autofree char *after = host_state();
    cr_expect_str_eq(before, after, "before:\n%s\nafter:\n%s", before, after);
}

Test(network, forwarding_stays_on_when_it_was_on)
{
    run("echo 1 >/proc/sys/net/ipv4/ip_forward");
    struct network *network = open_network(0);
    take(network, NETWORK_BRIDGE);
    close_network(network);
    autofree char *value = shell("cat /proc/sys/net/ipv4/ip_forward");
    cr_expect_str_eq(value, "1\n");
}

Test(network, a_dropping_forward_chain_is_opened_for_the_bridge_only)
{
    run("iptables -P FORWARD DROP");
    autofree char *before = shell("iptables -S");
    struct network *network = open_network(0);
    struct network_namespace *ns = take(network, NETWORK_BRIDGE);
    pid_t server = start_server(lan, 80);

    cr_expect(reaches(ns->path, LAN_ADDRESS, 80));
    stop_process(server);
    close_network(network);
    autofree char *after = shell("iptables -S");
    cr_expect_str_eq(before, after);
}

Test(network, a_successor_removes_what_a_crashed_worker_left)
{
    autofree char *before = host_state();
    pid_t crashing = fork_bound();
    int status = 0;

    if (crashing == 0) {
        struct taken taken = {0};
        uv_loop_fork(&loop);
        struct network *network = open_network(1);
        network_take(network, NETWORK_BRIDGE, on_taken, &taken, NULL);
        while (!taken.called)
            uv_run(&loop, UV_RUN_ONCE);
        _exit(taken.ns ? 42 : 1);
    }
    waitpid(crashing, &status, 0);
    cr_assert_eq(WEXITSTATUS(status), 42);
    autofree char *left = host_state();
    cr_assert_str_neq(before, left, "the crash left something to clean up");

    close_network(open_network(0));
    autofree char *after = host_state();
    cr_expect_str_eq(before, after, "before:\n%s\nafter:\n%s", before, after);
}

Test(network, the_bridge_stays_while_another_worker_uses_it)
{
    struct network *one = open_network(0);
    autofree char *other_directory = string_printf("%s/netns2", base);
    struct network *two = open_network_with(&(struct network_options){
        .worker = "test-2", .directory = other_directory, .state = state, .bridge = "faastest0"});
    struct network_namespace *mine = take(one, NETWORK_BRIDGE), *others = take(two, NETWORK_BRIDGE);
    pid_t server = start_server(lan, 80), function = start_server(mine->path, 81);

    cr_expect_not(reaches(others->path, mine->address, 81), "functions of different workers");
    close_network(one);
    cr_expect(reaches(others->path, LAN_ADDRESS, 80));
    stop_process(function);
    stop_process(server);
    close_network(two);
    cr_expect_neq(access("/sys/class/net/faastest0", F_OK), 0);
}

Test(network, a_worker_of_the_same_name_is_refused_the_bridge)
{
    struct network *one = open_network(0);
    struct network_options options = {
        .worker = "test-1", .directory = directory, .state = state, .bridge = "faastest0"};
    int status = 0;
    pid_t child = fork_bound();

    if (child == 0) {
        autofree char *other_directory = string_printf("%s/netns2", base);
        options.directory = other_directory;
        struct network *two = network_new(&loop, &options, NULL);
        bool refused = two && network_bridge_problem(two) &&
                       strstr(network_bridge_problem(two)->message, "another worker");
        rmdir(other_directory);
        _exit(refused ? 0 : 1);
    }
    waitpid(child, &status, 0);
    cr_expect_eq(status, 0);
    close_network(one);
}

Test(network, a_missing_plugin_is_told_and_none_still_works)
{
    struct network *network = open_network_with(&(struct network_options){.worker = "test-1",
                                                                          .directory = directory,
                                                                          .state = state,
                                                                          .cni_path = "/nowhere",
                                                                          .pool_bridge = 2});
    struct error err = {0};

    cr_assert_not_null(network_bridge_problem(network));
    cr_expect(strstr(network_bridge_problem(network)->message,
                     "CNI plugin \"bridge\" is not in /nowhere"));
    cr_expect_eq(network_take(network, NETWORK_BRIDGE, on_taken, NULL, &err), -1);
    cr_expect_eq(err.code, ERROR_UNAVAILABLE);
    cr_expect_not_null(take(network, NETWORK_NONE));
    close_network(network);
}

Test(network, a_plugin_that_fails_is_quoted)
{
    autofree char *script =
        string_printf("mkdir %s/plugins && cd %s/plugins &&"
                      "printf '%%s\\n' '#!/bin/sh' 'echo \"{\\\"code\\\": 11, \\\"msg\\\": \\\"no "
                      "more addresses\\\"}\"' 'exit 1' >bridge &&"
                      "chmod +x bridge",
                      base, base);
    autofree char *plugins = string_printf("%s/plugins", base);
    run(script);
    struct network *network = open_network_with(&(struct network_options){.worker = "test-1",
                                                                          .directory = directory,
                                                                          .state = state,
                                                                          .bridge = "faastest0",
                                                                          .cni_path = plugins});
    struct taken taken = {0};

    cr_assert_eq(network_take(network, NETWORK_BRIDGE, on_taken, &taken, NULL), 0);
    while (!taken.called)
        uv_run(&loop, UV_RUN_ONCE);
    cr_assert_null(taken.ns);
    cr_expect(strstr(taken.err.message, "no more addresses"), "%s", taken.err.message);
    close_network(network);
    remove_tree(plugins, NULL);
}

Test(network, stopping_fails_the_takes_that_wait)
{
    struct network *network = open_network(0);
    struct taken taken = {0};

    cr_assert_eq(network_take(network, NETWORK_BRIDGE, on_taken, &taken, NULL), 0);
    close_network(network);
    cr_expect(taken.called);
    cr_expect_null(taken.ns);
    cr_expect_eq(taken.err.code, ERROR_UNAVAILABLE);
}

Test(network, the_pool_serves_a_burst_larger_than_itself)
{
    struct network *network = open_network(2);
    struct taken taken[9] = {0};

    for (size_t i = 0; i < ARRAY_LENGTH(taken); i++)
        cr_assert_eq(network_take(network, NETWORK_BRIDGE, on_taken, &taken[i], NULL), 0);
    for (size_t i = 0; i < ARRAY_LENGTH(taken); i++) {
        while (!taken[i].called)
            uv_run(&loop, UV_RUN_ONCE);
        cr_assert_not_null(taken[i].ns, "%s", taken[i].err.message);
        for (size_t j = 0; j < i; j++)
            cr_expect_str_neq(taken[i].ns->address, taken[j].ns->address);
    }
    close_network(network);
}

Test(network_options, names_are_checked)
{
    cr_expect(interface_name_valid("faas0"));
    cr_expect_not(interface_name_valid("../../x"));
    cr_expect_not(interface_name_valid("fifteen-and-one."));
    cr_expect_not(interface_name_valid("a\"b"));
}

/* ---- what a plugin says ---- */

static int parse(const char *text, char ret_host_interface[IFNAMSIZ])
{
    return cni_parse_result(text, strlen(text), "faas0", ret_host_interface, NULL);
}

Test(cni, result_gives_the_host_interface)
{
    char interface[IFNAMSIZ];

    cr_assert_eq(parse("{\"interfaces\":[{\"name\":\"faas0\"},{\"name\":\"eth0\","
                       "\"sandbox\":\"/x\"},{\"name\":\"veth1\"}]}",
                       interface),
                 0);
    cr_expect_str_eq(interface, "veth1");
}

Test(cni, hostile_results_are_refused)
{
    static const char *const texts[] = {
        "",
        "[]",
        "{}",
        "{\"interfaces\":[{\"name\":\"../../../etc\"}]}",
        "{\"interfaces\":[{\"name\":\"veth1\\u0000/x\"}]}",
        "{\"interfaces\":[{\"name\":\"sixteen-letters-\"}]}",
        "{\"interfaces\":[{\"name\":7}]}",
        "{\"interfaces\":{\"name\":\"veth1\"}}",
        "{\"interfaces\":[{\"name\":\"faas0\"},{\"name\":\"eth0\",\"sandbox\":\"/x\"}]}",
    };
    char interface[IFNAMSIZ];

    for (size_t i = 0; i < ARRAY_LENGTH(texts); i++)
        cr_expect_eq(parse(texts[i], interface), -1, "%s", texts[i]);
}

Test(cni, a_plugin_runs_with_its_parameters_on_one_processor, .init = set_up, .fini = tear_down)
{
    autofree char *plugins = string_printf("%s/plugins", base);
    autofree char *script = string_printf("mkdir %s && cd %s && printf '#!/bin/sh\\necho"
                                          " $CNI_COMMAND $CNI_IFNAME $GOMAXPROCS' > bridge &&"
                                          " chmod +x bridge",
                                          plugins, plugins);
    struct cni_config config = {.path = plugins, .bridge = "faas0"};
    with_cleanup(cni_command_deinit) struct cni_command command = {0};
    with_cleanup(spawn_result_deinit) struct spawn_result result = {0};
    struct error err = {0};

    run(script);
    cr_assert_eq(cni_command_init(&command, &config, "id", "/nowhere", &err), 0, "%s", err.message);
    cr_assert_eq(spawn_run(&command.options, &result, &err), 0, "%s", err.message);
    cr_assert_str_eq(result.output, "ADD eth0 1\n");
    remove_tree(plugins, NULL);
}

Test(cni, error_message_is_one_printable_line)
{
    char words[64];
    const char *text = "{\"code\":7,\"msg\":\"bad\\nthing\",\"details\":\"why\\u001b[0m\"}";

    cni_parse_error(text, strlen(text), words, sizeof(words));
    cr_expect_str_eq(words, "bad thing; why [0m");
    cni_parse_error("nonsense", 8, words, sizeof(words));
    cr_expect_str_eq(words, "");
}

/* ---- resolv.conf ---- */

static char *resolv_conf(const char *host_text, const char *list, struct name_servers *servers)
{
    char host_file[] = "/tmp/faas-resolv-XXXXXX", out_file[64];
    with_cleanup(buffer_deinit) struct buffer text = BUFFER_INIT(65536);
    struct error err = {0};
    int fd = mkstemp(host_file);

    cr_assert_eq(unshare(CLONE_NEWNS), 0);
    cr_assert_eq(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
    cr_assert_eq(write(fd, host_text, strlen(host_text)), (ssize_t)strlen(host_text));
    close(fd);
    cr_assert_eq(mount(host_file, "/etc/resolv.conf", NULL, MS_BIND, NULL), 0);
    snprintf(out_file, sizeof(out_file), "%s.out", host_file);
    cr_assert_eq(network_write_resolv_conf(out_file, list, servers, &err), 0, "%s", err.message);
    cr_assert_eq(buffer_read_file(&text, out_file, &err), 0, "%s", err.message);
    unlink(out_file);
    umount2("/etc/resolv.conf", MNT_DETACH);
    unlink(host_file);
    char *result = buffer_take(&text, NULL);
    return result;
}

Test(resolv_conf, servers_of_no_use_are_left_out)
{
    struct name_servers servers;

    if (geteuid() != 0)
        cr_skip_test("needs root");
    autofree char *text = resolv_conf("# made by hand\nnameserver 127.0.0.1\nnameserver "
                                      "192.0.2.53\nnameserver ::1\nnameserver "
                                      "2001:db8::53\nsearch example.org\n",
                                      NULL, &servers);
    cr_expect_str_eq(text, "nameserver 192.0.2.53\nsearch example.org\n");
    cr_expect_eq(servers.count, 1);
    cr_expect_eq(servers.addresses[0], 0xc0000235);
}

Test(resolv_conf, the_setting_is_used_instead_of_the_hosts)
{
    struct name_servers servers;

    if (geteuid() != 0)
        cr_skip_test("needs root");
    autofree char *text = resolv_conf("nameserver 192.0.2.53\n", "192.0.2.1, 192.0.2.2", &servers);
    cr_expect_str_eq(text, "nameserver 192.0.2.1\nnameserver 192.0.2.2\n");
    cr_expect_eq(servers.count, 2);
}

Test(resolv_conf, a_list_of_servers_is_checked)
{
    static const char *const bad[] = {
        "x",   "127.0.0.53",   "0.0.0.0",
        "::1", "192.0.2.1/24", "192.0.2.1,192.0.2.2,192.0.2.3,192.0.2.4"};
    struct name_servers servers;
    struct error err = {0};

    cr_expect_eq(name_servers_parse("", &servers, &err), 0);
    cr_expect_eq(servers.count, 0);
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++)
        cr_expect_eq(name_servers_parse(bad[i], &servers, &err), -1, "%s", bad[i]);
}
