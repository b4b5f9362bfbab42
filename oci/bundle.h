/* OCI bundles: a folder with config.json, and the root file system that it names.
 *
 * All functions block (files only, no network); call them from a thread-pool job or a command-line
 * program where the disk may be slow. */
#pragma once

#include "oci/runtime_spec.h"

/* Makes the folder `directory` (mode 0711) if needed and writes config.json (mode 0644) atomically,
 * so that a reader sees the old one or the new one. Also replaces the config.json of a bundle that
 * exists. */
int oci_bundle_write(const char *directory, const struct oci_runtime_spec *spec, struct error *err);

/* Checks that `directory` is a bundle that a runtime can take: config.json is JSON, has an
 * ociVersion 1.x, args, an existing root.path, and existing sources of bind mounts. The error names
 * the member that is wrong. */
int oci_bundle_check(const char *directory, struct error *err);

/* A bundle that depends on nothing outside of it, for inspection and for running by hand: the root
 * file system is copied to `directory`/rootfs, the source of each bind mount to
 * `directory`/mounts/<n>, and config.json names them by relative paths. The network namespace and
 * cgroup of the original are left out. `directory` must not exist or be empty. On failure nothing
 * of it is left. */
int oci_bundle_export(const char *directory, const struct oci_runtime_spec *spec,
                      struct error *err);
