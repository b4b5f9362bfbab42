/* The Container Network Interface, version 1.0.0: command and configuration of the plugin `bridge` (with `host-local`
 * addresses), and its answers, which are taken as hostile. Starting the plugin is up to the caller (base/spawn.h). */
#pragma once

#include "base/buffer.h"
#include "base/spawn.h"

#include <net/if.h>
#include <netinet/in.h>

/* Where distributions put the plugins. */
#define CNI_PATH_DEFAULT "/usr/lib/cni:/opt/cni/bin:/usr/libexec/cni"

struct cni_config {
    const char *path;   /* folders of the plugins, colon-separated */
    const char *bridge; /* name of the bridge interface */
    const char *subnet; /* "10.88.64.0/18" */
    const char
        *state; /* folder that all workers of the bridge share; addresses in use are below it */
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
/* `verb` is "ADD" or "DEL"; deinit also after failure. */
int cni_command_init(struct cni_command *command, const struct cni_config *config, const char *verb,
                     const char *container_id, const char *namespace_path, struct error *err);
void cni_command_deinit(struct cni_command *command);

struct cni_result {
    char address[INET_ADDRSTRLEN]; /* first IPv4 address, without prefix length */
    char host_interface[IFNAMSIZ]; /* first interface outside of the sandbox that is not `bridge` */
    uint8_t mac[6];                /* of the first interface in the sandbox */
};
/* What an ADD printed. */
int cni_parse_result(const char *text, size_t len, const char *bridge, struct cni_result *ret,
                     struct error *err);
/* The message of an error object (`{"code": 7, "msg": …}`), or "" when it is none. */
void cni_parse_error(const char *text, size_t len, char *out, size_t size);
/* 0 when the plugin succeeded, otherwise an error with its own words. */
int cni_check(const struct spawn_result *result, const char *verb, struct error *err);

/* What the kernel takes as an interface's name, less what would be a path or a pattern. */
bool interface_name_valid(const char *name);
/* "a.b.c.d/len" with len 8 to 29 and no host bits. */
int subnet_check(const char *subnet, struct error *err);
