/* An AppArmor profile for containers: one more wall behind namespaces, capabilities and seccomp, where the
 * kernel has AppArmor.
 *
 * The profile lets a container use files, sockets and its own processes, and denies what no function
 * needs: mounts, capabilities, raw and packet sockets, writes below /proc/sys and to the kernel's
 * other files in /proc, anything in /sys, and writes to its code and to faas-init. It is loaded under
 * a name of the caller's and named in the runtime spec (struct oci_runtime_spec.apparmor_profile).
 *
 * Block: files of the kernel, and a run of apparmor_parser(8), which compiles the profile. */
#pragma once

#include "base/buffer.h"

#include <stdbool.h>

/* Whether this kernel enforces AppArmor profiles. */
bool oci_apparmor_enabled(void);
/* Loads the profile as `name` ([a-z0-9-]), replacing an earlier one of that name. ERROR_NOT_FOUND when
 * there is no apparmor_parser. */
int oci_apparmor_load(const char *name, struct error *err);
/* Removes it from the kernel; 0 when there is none. */
int oci_apparmor_unload(const char *name, struct error *err);
/* The profile's text. */
int oci_apparmor_write(const char *name, struct buffer *out, struct error *err);
