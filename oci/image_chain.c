/* See image_chain.h. Mount points are made through the tree writer, so that a hostile image's links
 * (/tmp -> /etc on the host, say) lead to places inside its own root file system. */
#include "oci/image_chain.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

void image_chain_id(const char *parent, const char *diff_id, char out[SHA256_HEX_LEN + 1])
{
    char both[2 * DIGEST_LEN + 9];
    if (!parent) {
        memcpy(out, diff_id + strlen("sha256:"), SHA256_HEX_LEN + 1);
        return;
    }
    int len = snprintf(both, sizeof(both), "sha256:%s %s", parent, diff_id);
    sha256_hex(both, (size_t)len, out);
}

static int make_folder_point(struct tree_writer *writer, const char *path, struct error *err)
{
    int at;
    const char *name;
    autofree char *inside = string_printf("%s/.", path);
    if (!inside)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    return tree_writer_open_parent(writer, inside, true, &at, &name, err);
}

static int make_file_point(struct tree_writer *writer, const char *path, struct error *err)
{
    int at;
    const char *name;
    struct stat status;
    if (tree_writer_open_parent(writer, path, true, &at, &name, err) < 0)
        return -1;
    if (fstatat(at, name, &status, AT_SYMLINK_NOFOLLOW) == 0) {
        if (S_ISREG(status.st_mode))
            return 0;
        if (S_ISDIR(status.st_mode))
            return error_set(err, ERROR_INVALID_REQUEST,
                             "it is a folder in the image; a file is "
                             "needed");
    }
    const struct timespec time = {0};
    if (tree_writer_file_begin(writer, path, 0644, time, err) < 0)
        return -1;
    return tree_writer_file_end(writer, 0, err);
}

int image_chain_make_mount_points(int root, const struct image_mount_point *points, size_t count,
                                  struct error *err)
{
    const struct tree_writer_limits limits = {
        .max_bytes = 1, .max_files = 1000, .max_path_bytes = 4095, .max_depth = 64};
    with_cleanup(tree_writer_deinit) struct tree_writer writer;
    tree_writer_init(&writer, root, TREE_WRITER_LAYER, &limits);
    for (size_t i = 0; i < count; i++) {
        autofree char *path = NULL;
        if (tree_writer_normalise(&writer, points[i].path, &path, err) < 0)
            return -1;
        if ((points[i].is_file ? make_file_point : make_folder_point)(&writer, path, err) < 0)
            return error_wrap(err, "making the mount point %s in the image", points[i].path);
    }
    return 0;
}
