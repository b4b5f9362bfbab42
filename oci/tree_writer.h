/* Writes files beneath one folder and nowhere else, whatever the paths say.
 *
 * Code archives and image layers come from strangers; both are written through this. Each path is
 * resolved by the kernel beneath the root (openat2(2)), so no link that an archive brings can lead
 * a write out of it. Names that exist are never opened for writing: they are refused, or unlinked
 * first, because other trees may hold hard links to the same file.
 *
 * Two manners:
 *
 *     archive  a path through a symbolic link is refused, as is a link that leads out, or a second
 *              file of the same name
 *     layer    symbolic links in the way of a path are followed inside the root (as a container
 *              would see them), links lead where they like, and what is in an entry's place is
 *              replaced (image-spec, layer.md, "Applying Changesets")
 *
 * Life cycle: tree_writer_init(), entries, tree_writer_finish(), tree_writer_deinit(). A regular
 * file is file_begin(), any number of file_write(), file_end(). After a failure only deinit may
 * follow; the tree is then half-written and the caller's to remove. One thread at a time. */
#pragma once

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

enum tree_writer_manner { TREE_WRITER_ARCHIVE, TREE_WRITER_LAYER };

struct tree_writer_limits {
    uint64_t max_bytes; /* written, holes included */
    uint64_t max_files; /* entries, folders made on the way included */
    uint64_t max_path_bytes;
    uint64_t max_depth;
};

struct tree_writer_time {
    char *path; /* owned */
    struct timespec time;
};

struct tree_writer {
    int root; /* borrowed */
    enum tree_writer_manner manner;
    struct tree_writer_limits limits;
    uint64_t bytes, files;

    char *parent_path; /* owned; the folder that parent_fd is, or NULL */
    int parent_fd;     /* owned */

    int file; /* owned; the regular file being written, or -1 */
    uint64_t file_bytes;
    mode_t file_mode;
    struct timespec file_time;

    struct tree_writer_time *folders; /* owned; times to be set at the end */
    size_t folder_count, folder_cap;
    char **links; /* owned; symbolic links to be checked at the end */
    size_t link_count, link_cap;
};

/* `root` is an open folder and stays the caller's. */
void tree_writer_init(struct tree_writer *writer, int root, enum tree_writer_manner manner,
                      const struct tree_writer_limits *limits);
void tree_writer_deinit(struct tree_writer *writer);

/* A path as archives write them ("./a//b/", in layers also "/a/b") to "a/b"; the root is "". Fails
 * on
 * "..", on an absolute path where that is refused, and on what is too long or too deep. The result
 * is malloc'd. */
int tree_writer_normalise(const struct tree_writer *writer, const char *path, char **ret_path,
                          struct error *err);

/* All take normalised paths. Modes are used as they are; folders get 0755. */
int tree_writer_directory(struct tree_writer *writer, const char *path, struct timespec time,
                          struct error *err);
int tree_writer_file_begin(struct tree_writer *writer, const char *path, mode_t mode,
                           struct timespec time, struct error *err);
/* At an offset not before what was written so far; what is between is a hole. */
int tree_writer_file_write(struct tree_writer *writer, const void *data, size_t len,
                           uint64_t offset, struct error *err);
/* `size`: where a hole at the end reaches to. */
int tree_writer_file_end(struct tree_writer *writer, uint64_t size, struct error *err);
int tree_writer_symlink(struct tree_writer *writer, const char *path, const char *target,
                        struct timespec time, struct error *err);
/* `target` is a path in the tree, normalised. */
int tree_writer_hardlink(struct tree_writer *writer, const char *path, const char *target,
                         struct error *err);
/* Opens the folder that holds `path` and gives the last component; with `make`, missing folders are
 * made. *ret_fd is borrowed and valid until the next call; -1 with 0 when there is no such folder. */
int tree_writer_open_parent(struct tree_writer *writer, const char *path, bool make, int *ret_fd,
                            const char **ret_base, struct error *err);
/* Removes whatever has this path; nothing there is fine. */
int tree_writer_remove(struct tree_writer *writer, const char *path, struct error *err);
/* Sets the folders' times, and checks with the kernel that no link leads out. */
int tree_writer_finish(struct tree_writer *writer, struct error *err);

/* A stranger's file name in a form that is fit for a message: control characters and bytes above
 * ASCII are escaped, long ones cut. */
#define TREE_NAME_MAX 200
const char *tree_name(const char *name, char out[TREE_NAME_MAX]);

/* openat2(2) with these RESOLVE_* flags, tried again when the kernel asks for it. -1 with errno. */
int tree_open(int at, const char *path, int flags, uint64_t resolve);
