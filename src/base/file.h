/* Files and folders: whole-file reads and atomic writes, tree removal, locks. */
#pragma once

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Like mkdir -p; folders that it makes get `mode` (whatever the umask). */
int make_directories(const char *path, mode_t mode, struct error *err);
/* Writes to a temporary file in the same folder, then renames; with `sync` it is on the disk when
 * this returns. */
int write_file_atomic(const char *path, const void *data, size_t len, mode_t mode, bool sync,
                      struct error *err);
/* One write(2) to a file that exists (cgroup, sysfs, procfs). */
int write_file_value(const char *path, const char *value, struct error *err);
/* Removes a file or a whole tree; never follows a symbolic link, never crosses into another mount.
 * 0 when it is not there. */
int remove_tree(const char *path, struct error *err);
/* The same for an entry `name` of the open folder `parent`. */
int remove_tree_at(int parent, const char *name, struct error *err);
/* Exclusive lock on a file (made if needed), held while the descriptor is open. ERROR_CONFLICT when
 * another process has it. The holder may remove the file before it closes the descriptor. */
int lock_file(const char *path, int *ret_fd, struct error *err);
/* Whether the path still leads to the open file: whoever had it locked may have removed it, and another may have made it anew by now. */
bool is_file_at(int fd, const char *path);
bool path_exists(const char *path);
/* The folder that holds this program's executable file; malloc'd. */
char *program_directory(void);
