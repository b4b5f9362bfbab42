/* Configuration for, and answers of, the CNI bridge plugin. */
#include "worker/cni.h"

#include "base/cleanup.h"
#include "base/json.h"
#include "base/text.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CNI_VERSION "1.0.0"
#define INPUT_MAX 8192
#define OUTPUT_MAX (64 * 1024)
#define TIMEOUT_MS 30000

static const struct json_limits limits = {
    .max_bytes = OUTPUT_MAX, .max_depth = 16, .max_values = 2048};

bool interface_name_valid(const char *name)
{
    size_t len = strlen(name);

    return len > 0 && len < IFNAMSIZ && name[0] != '.' && name[0] != '-' &&
           strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") == len;
}

int subnet_check(const char *subnet, struct error *err)
{
    char address[INET_ADDRSTRLEN] = "", extra;
    unsigned length = 0;
    struct in_addr parsed;

    if (sscanf(subnet, "%15[0-9.]/%2u%c", address, &length, &extra) != 2 ||
        inet_pton(AF_INET, address, &parsed) != 1 || length < 8 || length > 29)
        return error_set(
            err, ERROR_INVALID_REQUEST,
            "subnet \"%.32s\" must be an IPv4 network such as 10.88.64.0/18, /8 to /29", subnet);
    if (ntohl(parsed.s_addr) & (UINT32_MAX >> length))
        return error_set(err, ERROR_INVALID_REQUEST,
                         "subnet \"%.32s\" has bits set beyond its first %u", subnet, length);
    return 0;
}

/* ---- command ---- */

char *cni_find_plugin(const struct cni_config *config, const char *name, struct error *err)
{
    for (const char *path = config->path; *path;) {
        size_t len = strcspn(path, ":");
        char *candidate = string_printf("%.*s/%s", (int)len, path, name);
        if (!candidate) {
            error_set(err, ERROR_INTERNAL, "out of memory");
            return NULL;
        }
        if (len > 0 && access(candidate, X_OK) == 0)
            return candidate;
        free(candidate);
        path += len + (path[len] == ':');
    }
    error_set(err, ERROR_UNAVAILABLE,
              "CNI plugin \"%s\" is not in %s; install the package containernetworking-plugins",
              name, config->path);
    return NULL;
}

static void write_ipam(struct json_writer *json, const struct cni_config *config,
                       const char *addresses)
{
    json_key(json, "ipam");
    json_object_begin(json);
    json_member_string(json, "type", "host-local");
    json_member_string(json, "dataDir", addresses);
    json_key(json, "ranges");
    json_array_begin(json);
    json_array_begin(json);
    json_object_begin(json);
    json_member_string(json, "subnet", config->subnet);
    json_object_end(json);
    json_array_end(json);
    json_array_end(json);
    json_key(json, "routes");
    json_array_begin(json);
    json_object_begin(json);
    json_member_string(json, "dst", "0.0.0.0/0");
    json_object_end(json);
    json_array_end(json);
    json_object_end(json);
}

/* ipMasq is off: one nftables rule of the worker's masquerades the whole subnet, which is twice as fast as the plugin's
 * iptables chain for each container, and leaves nothing behind after a crash. */
static int write_input(struct buffer *out, const struct cni_config *config, struct error *err)
{
    autofree char *addresses = string_printf("%s/%s/addresses", config->state, config->bridge);
    struct json_writer *json = addresses ? json_writer_new(out) : NULL;

    if (!json)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    json_object_begin(json);
    json_member_string(json, "cniVersion", CNI_VERSION);
    json_member_string(json, "name", config->bridge);
    json_member_string(json, "type", "bridge");
    json_member_string(json, "bridge", config->bridge);
    json_member_bool(json, "isGateway", true);
    json_member_bool(json, "ipMasq", false);
    json_member_bool(json, "hairpinMode", false);
    write_ipam(json, config, addresses);
    json_object_end(json);
    return json_writer_finish(json, err);
}

int cni_command_init(struct cni_command *command, const struct cni_config *config, const char *verb,
                     const char *container_id, const char *namespace_path, struct error *err)
{
    *command = (struct cni_command){.input = BUFFER_INIT(INPUT_MAX)};
    command->program = cni_find_plugin(config, "bridge", err);
    if (!command->program || write_input(&command->input, config, err) < 0)
        return -1;
    command->environment[0] = string_printf("CNI_COMMAND=%s", verb);
    command->environment[1] = string_printf("CNI_CONTAINERID=%s", container_id);
    command->environment[2] = string_printf("CNI_NETNS=%s", namespace_path);
    command->environment[3] = strdup("CNI_IFNAME=eth0");
    command->environment[4] = string_printf("CNI_PATH=%s", config->path);
    command->environment[5] = strdup("PATH=/usr/sbin:/usr/bin:/sbin:/bin");
    /* Plugins are Go programs, which do one thing after the other: threads on other processors only take these from calls. */
    command->environment[6] = strdup("GOMAXPROCS=1");
    for (size_t i = 0; i < ARRAY_LENGTH(command->environment) - 1; i++)
        if (!command->environment[i])
            return error_set(err, ERROR_INTERNAL, "out of memory");
    command->argv[0] = command->program;
    command->options = (struct spawn_options){
        .argv = command->argv,
        .environment = (const char *const *)command->environment,
        .input = command->input.data,
        .input_len = command->input.len,
        .timeout_ms = TIMEOUT_MS,
        .output_max = OUTPUT_MAX,
    };
    return 0;
}

void cni_command_deinit(struct cni_command *command)
{
    free(command->program);
    for (size_t i = 0; i < ARRAY_LENGTH(command->environment); i++)
        free(command->environment[i]);
    buffer_deinit(&command->input);
}

/* ---- answers ---- */

static void find_host_interface(const struct json *root, const char *bridge, struct cni_result *ret)
{
    json_foreach (i, interface, json_get(root, "interfaces")) {
        size_t len = 0;
        const char *name = json_string(json_get(interface, "name"), &len);
        const char *sandbox = json_get_string(interface, "sandbox");
        if (!name || (sandbox && *sandbox) || len != strlen(name) || !interface_name_valid(name) ||
            strcmp(name, bridge) == 0)
            continue;
        memcpy(ret->host_interface, name, len + 1);
        return;
    }
}

static bool parse_mac(const char *text, uint8_t mac[6])
{
    unsigned bytes[6];
    char extra;

    if (!text || sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x%c", &bytes[0], &bytes[1], &bytes[2],
                        &bytes[3], &bytes[4], &bytes[5], &extra) != 6)
        return false;
    for (size_t i = 0; i < 6; i++)
        mac[i] = (uint8_t)bytes[i];
    return true;
}

static bool find_mac(const struct json *root, struct cni_result *ret)
{
    json_foreach (i, interface, json_get(root, "interfaces")) {
        const char *sandbox = json_get_string(interface, "sandbox");
        if (sandbox && *sandbox)
            return parse_mac(json_get_string(interface, "mac"), ret->mac);
    }
    return false;
}

static void find_address(const struct json *root, struct cni_result *ret)
{
    json_foreach (i, ip, json_get(root, "ips")) {
        char text[INET_ADDRSTRLEN];
        struct in_addr parsed;
        const char *address = json_get_string(ip, "address");
        size_t len = address ? strcspn(address, "/") : 0;
        if (len == 0 || len >= sizeof(text))
            continue;
        memcpy(text, address, len);
        text[len] = '\0';
        if (inet_pton(AF_INET, text, &parsed) != 1)
            continue;
        inet_ntop(AF_INET, &parsed, ret->address, sizeof(ret->address));
        return;
    }
}

int cni_parse_result(const char *text, size_t len, const char *bridge, struct cni_result *ret,
                     struct error *err)
{
    autojson *root = json_parse(text, len, &limits, err);

    *ret = (struct cni_result){0};
    if (!root)
        return error_wrap(err, "result of the CNI plugin");
    find_host_interface(root, bridge, ret);
    find_address(root, ret);
    if (!find_mac(root, ret))
        return error_set(err, ERROR_UNAVAILABLE,
                         "the CNI plugin's result has no MAC address of the container's interface");
    if (!ret->host_interface[0] || !ret->address[0])
        return error_set(err, ERROR_UNAVAILABLE, "the CNI plugin's result has no %s",
                         ret->address[0] ? "host interface" : "IPv4 address");
    return 0;
}

void cni_parse_error(const char *text, size_t len, char *out, size_t size)
{
    autojson *root = json_parse(text, len, &limits, NULL);
    const char *message = json_get_string(root, "msg");
    const char *details = json_get_string(root, "details");

    snprintf(out, size, "%s%s%s", message ? message : "",
             message && details && *details ? "; " : "", message && details ? details : "");
    for (char *at = out; *at; at++)
        if ((unsigned char)*at < 0x20 || *at == 0x7f)
            *at = ' ';
}

int cni_check(const struct spawn_result *result, const char *verb, struct error *err)
{
    char words[400];

    if (!result->timed_out && result->wait_status == 0)
        return 0;
    cni_parse_error(result->output, result->output_len, words, sizeof(words));
    if (result->timed_out || !words[0]) {
        spawn_result_check(result, "CNI plugin bridge", err);
        return -1;
    }
    return error_set(err, ERROR_UNAVAILABLE, "CNI plugin bridge %s: %s", verb, words);
}
