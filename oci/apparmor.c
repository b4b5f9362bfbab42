/* The AppArmor profile of containers, and its way into the kernel; see apparmor.h. */
#include "oci/apparmor.h"

#include "base/cleanup.h"
#include "base/spawn.h"

#include <string.h>
#include <unistd.h>

#define ENABLED_FILE "/sys/module/apparmor/parameters/enabled"
#define REMOVE_FILE "/sys/kernel/security/apparmor/.remove"
#define PARSER_TIMEOUT_MS 60000

/* %s: the profile's name. `file` and `network` allow, what follows takes away. */
static const char profile_format[] = "profile %s flags=(attach_disconnected,mediate_deleted) {\n"
                                     "  file,\n"
                                     "  network inet stream,\n"
                                     "  network inet dgram,\n"
                                     "  network inet6 stream,\n"
                                     "  network inet6 dgram,\n"
                                     "  network unix,\n"
                                     "  network netlink raw,\n"
                                     "  unix,\n"
                                     "  signal (receive) peer=unconfined,\n"
                                     "  signal (send, receive) peer=%s,\n"
                                     "  ptrace (trace, tracedby, read, readby) peer=%s,\n"
                                     "\n"
                                     "  deny capability,\n"
                                     "  deny mount,\n"
                                     "  deny remount,\n"
                                     "  deny umount,\n"
                                     "  deny pivot_root,\n"
                                     "  deny network packet,\n"
                                     "  deny network inet raw,\n"
                                     "  deny network inet6 raw,\n"
                                     "  deny /app/function/** w,\n"
                                     "  deny /.faas/** w,\n"
                                     "  deny /proc/sys/** wkl,\n"
                                     "  deny /proc/sysrq-trigger rwkl,\n"
                                     "  deny /proc/kcore rwkl,\n"
                                     "  deny /proc/kallsyms rwkl,\n"
                                     "  deny /proc/kmsg rwkl,\n"
                                     "  deny /proc/keys rwkl,\n"
                                     "  deny /proc/mem rwkl,\n"
                                     "  deny /sys/** rwkl,\n"
                                     "}\n";

bool oci_apparmor_enabled(void)
{
    with_cleanup(buffer_deinit) struct buffer text = BUFFER_INIT(64);
    return buffer_read_file(&text, ENABLED_FILE, NULL) == 0 && text.len > 0 &&
           text.data[0] == 'Y' && access(REMOVE_FILE, W_OK) == 0;
}

int oci_apparmor_write(const char *name, struct buffer *out, struct error *err)
{
    return buffer_printf(out, err, profile_format, name, name, name);
}

/* `action`: --replace or --remove. The cache is for files that stay. */
static int run_parser(const char *action, const char *name, struct error *err)
{
    with_cleanup(buffer_deinit) struct buffer text = BUFFER_INIT(64 * 1024);
    with_cleanup(spawn_result_deinit) struct spawn_result result = {0};
    const char *const argv[] = {"apparmor_parser", action, "--skip-cache", "--quiet", NULL};
    const char *const environment[] = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", NULL};
    if (oci_apparmor_write(name, &text, err) < 0)
        return -1;
    struct spawn_options options = {.argv = argv,
                                    .environment = environment,
                                    .input = text.data,
                                    .input_len = text.len,
                                    .timeout_ms = PARSER_TIMEOUT_MS,
                                    .output_max = 4096};
    if (spawn_run(&options, &result, err) < 0 ||
        spawn_result_check(&result, "apparmor_parser", err) < 0)
        return error_wrap(err, "AppArmor profile %s", name);
    return 0;
}

int oci_apparmor_load(const char *name, struct error *err)
{
    return run_parser("--replace", name, err);
}

static bool is_loaded(const char *name)
{
    with_cleanup(buffer_deinit) struct buffer text = BUFFER_INIT(1024 * 1024);
    size_t len = strlen(name);
    if (buffer_read_file(&text, "/sys/kernel/security/apparmor/profiles", NULL) < 0)
        return false;
    for (const char *line = text.data; line && *line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, name, len) == 0 && line[len] == ' ')
            return true;
    }
    return false;
}

int oci_apparmor_unload(const char *name, struct error *err)
{
    return is_loaded(name) ? run_parser("--remove", name, err) : 0;
}
