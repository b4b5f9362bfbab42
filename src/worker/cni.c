/* Configuration for, and answers of, the CNI bridge plugin. */
#include "worker/cni.h"

#include "base/cleanup.h"
#include "base/json.h"
#include "base/text.h"
#include "worker/network_link.h"

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

/* ipMasq is off: one nftables rule of the worker's masquerades the whole subnet, which is twice as fast as the plugin's
 * iptables chain for each container, and leaves nothing behind after a crash. An empty "ipam" asks for no addresses. */
static int write_input(struct buffer *out, const struct cni_config *config, struct error *err)
{
    struct json_writer *json = json_writer_new(out);

    if (!json)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    json_object_begin(json);
    json_member_string(json, "cniVersion", CNI_VERSION);
    json_member_string(json, "name", config->bridge);
    json_member_string(json, "type", "bridge");
    json_member_string(json, "bridge", config->bridge);
    json_member_bool(json, "isGateway", false);
    json_member_bool(json, "ipMasq", false);
    json_member_bool(json, "hairpinMode", false);
    json_key(json, "ipam");
    json_object_begin(json);
    json_object_end(json);
    json_object_end(json);
    return json_writer_finish(json, err);
}

int cni_command_init(struct cni_command *command, const struct cni_config *config,
                     const char *container_id, const char *namespace_path, struct error *err)
{
    *command = (struct cni_command){.input = BUFFER_INIT(INPUT_MAX)};
    command->program = cni_find_plugin(config, "bridge", err);
    if (!command->program || write_input(&command->input, config, err) < 0)
        return -1;
    command->environment[0] = strdup("CNI_COMMAND=ADD");
    command->environment[1] = string_printf("CNI_CONTAINERID=%s", container_id);
    command->environment[2] = string_printf("CNI_NETNS=%s", namespace_path);
    command->environment[3] = strdup("CNI_IFNAME=" NETWORK_LINK_INSIDE);
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

int cni_parse_result(const char *text, size_t len, const char *bridge,
                     char ret_host_interface[IFNAMSIZ], struct error *err)
{
    autojson *root = json_parse(text, len, &limits, err);

    if (!root)
        return error_wrap(err, "result of the CNI plugin");
    json_foreach (i, interface, json_get(root, "interfaces")) {
        size_t name_len = 0;
        const char *name = json_string(json_get(interface, "name"), &name_len);
        const char *sandbox = json_get_string(interface, "sandbox");
        if (!name || (sandbox && *sandbox) || name_len != strlen(name) ||
            !interface_name_valid(name) || strcmp(name, bridge) == 0)
            continue;
        memcpy(ret_host_interface, name, name_len + 1);
        return 0;
    }
    return error_set(err, ERROR_UNAVAILABLE, "the CNI plugin's result has no host interface");
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

int cni_check(const struct spawn_result *result, struct error *err)
{
    char words[400];

    if (!result->timed_out && result->wait_status == 0)
        return 0;
    cni_parse_error(result->output, result->output_len, words, sizeof(words));
    if (result->timed_out || !words[0]) {
        spawn_result_check(result, "CNI plugin bridge", err);
        return -1;
    }
    return error_set(err, ERROR_UNAVAILABLE, "CNI plugin bridge: %s", words);
}
