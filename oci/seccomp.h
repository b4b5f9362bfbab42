/* The system calls that code in a container may make: an allow-list, group by group with the reason
 * for each group.
 *
 * Everything that is not listed fails: with ENOSYS where the C library has a fallback that it only
 * takes then (clone3) or where the call is newer than this list, otherwise with EPERM.
 * Architectures: x86_64 and aarch64, native calls only.
 *
 * OCI runtime-spec, "config-linux.md", section Seccomp. */
#pragma once

#include "base/buffer.h"
#include "base/json.h"

/* Writes the value of `linux.seccomp`. */
void oci_seccomp_write(struct json_writer *writer);
/* The table of groups as Markdown (docs/security.md). */
int oci_seccomp_markdown(struct buffer *out, struct error *err);
