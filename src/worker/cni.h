/* The Container Network Interface, version 1.0.0: command and configuration of the plugin `bridge`, which makes an instance's link, and its
 * answers, which are taken as hostile. Starting the plugin is up to the caller (base/spawn.h). Addresses, and the end of the link, are the worker's own
 * business (worker/network_link.h): the configuration is one of layer 2 only. */
#pragma once

#include "base/buffer.h"
#include "base/spawn.h"

#include <net/if.h>
#include <stdbool.h>

/* Where distributions put the plugins. */
#define CNI_PATH_DEFAULT "/usr/lib/cni:/opt/cni/bin:/usr/libexec/cni"

struct cni_config {
    const char *path;   /* folders of the plugins, colon-separated */
    const char *bridge; /* name of the bridge interface */
};

/* A plugin's command; give `options` to base/spawn. It borrows from itself, so it must not be moved. */
struct cni_command {
    char *program;        /* owned */
    char *environment[8]; /* owned */
    struct buffer input;  /* owned */
    const char *argv[2];
    struct spawn_options options;
};

/* Finds a plugin's program in config->path; malloc'd. */
char *cni_find_plugin(const struct cni_config *config, const char *name, struct error *err);
/* The link of a namespace (ADD). deinit also after failure. */
int cni_command_init(struct cni_command *command, const struct cni_config *config,
                     const char *container_id, const char *namespace_path, struct error *err);
void cni_command_deinit(struct cni_command *command);

/* What an ADD printed: the name of the first interface outside of the sandbox that is not `bridge`. */
int cni_parse_result(const char *text, size_t len, const char *bridge,
                     char ret_host_interface[IFNAMSIZ], struct error *err);
/* The message of an error object (`{"code": 7, "msg": …}`), or "" when it is none. */
void cni_parse_error(const char *text, size_t len, char *out, size_t size);
/* 0 when the plugin succeeded, otherwise an error with its own words. */
int cni_check(const struct spawn_result *result, struct error *err);

/* What the kernel takes as an interface's name, less what would be a path or a pattern. */
bool interface_name_valid(const char *name);
