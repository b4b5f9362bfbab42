/* The images that containers are made from, unpacked on this machine.
 *
 * Layout of the store's folder (mode 0711, so that a container's mapped root can reach its rootfs):
 *
 *     index.json       names -> images; replaced atomically
 *     blobs/sha256/    manifests and configs of the images (layers are not kept packed)
 *     chains/<hex>/    one root file system for each chain of layers (image-spec, "Layer ChainID"):
 *                      a prefix that two images share exists once, and a file that a layer leaves
 *                      as it is, is a hard link to the parent chain's
 *     tmp/             imports under way
 *     lock             held by whoever changes the store
 *
 * A root file system is never written again once it is in place: replacing a file unlinks it first,
 * so that the other trees that link to it keep theirs. Nothing but root may write in it: files
 * keep their modes without setuid, setgid, sticky and other people's write bits (mode & 0755),
 * folders are made traversable by all, and everything belongs to whoever imports. Times are kept;
 * xattrs (file capabilities too) are not. Devices, fifos and sockets in a layer are left out:
 * containers get theirs from the runtime.
 *
 * Life cycle: image_store_open(), any calls, image_store_close(). Every call blocks on files; calls
 * from several threads and processes are safe. Changes (import, remove, opening a store that needs
 * cleaning) wait for each other; readers never wait.
 *
 * Sources: OCI image-spec 1.0; docker's image save format v1.2. */
#pragma once

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct image_store; /* opaque */

/* Must exist in each root file system because the worker mounts there. */
struct image_mount_point {
    const char *path; /* absolute */
    bool is_file;     /* else a folder */
};

/* Of one import; zero means the default. More is ERROR_PAYLOAD_TOO_LARGE. */
struct image_limits {
    uint64_t max_bytes;          /* unpacked, all layers together: 8 GiB */
    uint64_t max_files;          /* entries of all layers together: 500,000 */
    uint64_t max_layers;         /* 128 */
    uint64_t max_manifest_bytes; /* of an index, manifest or config: 4 MiB */
};

struct image_store_options {
    /* Borrowed until image_store_close(); NULL: image_store_default_mount_points. They are made at
     * import, resolved inside the root file system; where a link that leads nowhere or (for a
     * file) any link is in the way, it is replaced. */
    const struct image_mount_point *mount_points;
    size_t mount_point_count;
    struct image_limits limits;
};

/* /proc /dev /tmp /run/faas /app/function /.faas, and the file /etc/resolv.conf. */
extern const struct image_mount_point image_store_default_mount_points[];
extern const size_t image_store_default_mount_point_count;

/* One image; all owned by the struct. */
struct image {
    char *name;   /* normalised: "faas-runtime-python:latest" */
    char *digest; /* "sha256:…" of its config: the image ID, the same for the same content */
    char *manifest_digest; /* of its OCI manifest; "" when it came without one */
    char *rootfs;          /* absolute path; read-only by convention */
    char **env;            /* NULL-terminated "NAME=value"; never NULL, as the next two */
    char **entrypoint;
    char **cmd;
    char *user; /* "" when not set, as the next two */
    char *working_directory;
    char *architecture;  /* "amd64" */
    uint64_t size_bytes; /* unpacked */
    int64_t created;     /* seconds since the epoch; 0: not known */
    int64_t imported;
};

void image_deinit(struct image *image);

struct image_list {
    struct image *images; /* owned; sorted by name */
    size_t count;
};

void image_list_deinit(struct image_list *list);

/* Makes the folder if needed and clears what an interrupted import left. `directory` is copied.
 * `options` may be NULL. */
struct image_store *image_store_open(const char *directory,
                                     const struct image_store_options *options, struct error *err);
/* Images that were read stay valid. NULL is fine. */
void image_store_close(struct image_store *store);

/* "python" -> "python:latest", "a/b:1" -> "a/b:1"; ERROR_INVALID_REQUEST for what is no image name
 * (lower-case letters, digits, "._-/", an optional host with port, an optional tag). */
#define IMAGE_NAME_MAX 255
int image_name_normalise(const char *name, char out[IMAGE_NAME_MAX + 1], struct error *err);

/* Says how an import goes: called from time to time on the importing thread. `done` and `total` are
 * bytes of the source; total is 0 where it is not known. */
typedef void image_progress_fn(void *data, const char *step, uint64_t done, uint64_t total);

struct image_import_options {
    /* Which image, when the source holds several: a reference name or tag in it. NULL: the only one
     * for this machine, or else the one called like `name`; otherwise the error lists the choices.
     */
    const char *reference;
    image_progress_fn *progress; /* may be NULL */
    void *progress_data;
};

/* Imports from `path`, whose format is found from its content: an exported root file system (tar,
 * or a folder), a `docker save` archive, an OCI image layout (folder or tar); a tar may be packed
 * with gzip or zstd, as may layers. Digests and sizes of everything read are verified. An image of
 * that name is replaced (its running containers: see image_hold). On failure the store is as it
 * was. `options` and `ret_image` may be NULL. */
int image_store_import(struct image_store *store, const char *name, const char *path,
                       const struct image_import_options *options, struct image *ret_image,
                       struct error *err);
/* ERROR_NOT_FOUND, with how to import one, when there is none of that name. */
int image_store_get(struct image_store *store, const char *name, struct image *ret_image,
                    struct error *err);
int image_store_list(struct image_store *store, struct image_list *ret_list, struct error *err);
/* Forgets the name at once. Root file systems that no other name needs are removed at once too,
 * but those that somebody holds: they go with the first change or opening of the store after their
 * last hold ended. */
int image_store_remove(struct image_store *store, const char *name, struct error *err);
/* Keeps the image's root file system while the descriptor is open (a shared lock, so it ends with
 * the process at the latest): hold it for as long as containers use it. ERROR_NOT_FOUND when it has
 * been removed meanwhile: get the image again. */
int image_store_hold(struct image_store *store, const struct image *image, int *ret_fd,
                     struct error *err);
