/* A store in a folder of the test's own, an OCI layout beside it, a tar under way, and what tests of the store say about images. */
#pragma once

#include "oci/image_store.h"

#include "image_maker.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

static char *folder, *store_path, *layout;
static struct image_store *store;
static struct buffer tar;

static inline void fixture_set_up(void)
{
    char template[] = "/tmp/faas-test-images.XXXXXX";
    struct error err = {0};
    cr_assert_not_null(mkdtemp(template));
    folder = strdup(template);
    store_path = string_printf("%s/store", folder);
    layout = string_printf("%s/layout", folder);
    store = image_store_open(store_path, NULL, &err);
    cr_assert_not_null(store, "%s", err.message);
    make_layout(layout);
    buffer_init(&tar, ARCHIVE_MAX);
}

static inline void fixture_tear_down(void)
{
    struct error err = {0};
    image_store_close(store);
    cr_assert_eq(remove_tree(folder, &err), 0, "%s", err.message);
    free(folder);
    free(store_path);
    free(layout);
    buffer_deinit(&tar);
}

/* ---- helpers ---- */

static inline void add(struct tar_entry entry)
{
    tar_add(&tar, entry);
}

static inline int count_entries(const char *name)
{
    autofree char *path = string_printf("%s/%s", store_path, name);
    DIR *open_folder = opendir(path);
    int count = -2;
    cr_assert_not_null(open_folder);
    while (readdir(open_folder))
        count++;
    closedir(open_folder);
    return count;
}

static inline void assert_imports_from(const char *path, const char *name, struct image *image)
{
    struct error err = {0};
    cr_assert_eq(image_store_import(store, name, path, NULL, image, &err), 0, "%s", err.message);
    cr_assert_eq(count_entries("tmp"), 0);
}

/* Refused with these words, and the store is as it was. */
static inline void assert_refused_with(const char *path, const struct image_import_options *options,
                                       enum error_code code, const char *words)
{
    struct error err = {0};
    int chains = count_entries("chains"), blobs = count_entries("blobs/sha256");
    cr_assert_eq(image_store_import(store, "refused", path, options, NULL, &err), -1);
    cr_assert_eq(err.code, code, "%d: %s", err.code, err.message);
    cr_assert_not_null(strstr(err.message, words), "%s", err.message);
    cr_assert_eq(image_store_get(store, "refused", NULL, &err), -1);
    cr_assert_eq(count_entries("chains"), chains);
    cr_assert_eq(count_entries("blobs/sha256"), blobs);
    cr_assert_eq(count_entries("tmp"), 0);
}

static inline void assert_refused(const char *words)
{
    assert_refused_with(layout, NULL, ERROR_INVALID_REQUEST, words);
}

static inline ino_t inode(const struct image *image, const char *name, mode_t *ret_mode)
{
    autofree char *path = string_printf("%s/%s", image->rootfs, name);
    struct stat status;
    if (lstat(path, &status) < 0)
        return 0;
    if (ret_mode)
        *ret_mode = status.st_mode;
    return status.st_ino;
}

static inline mode_t mode_in(const struct image *image, const char *name)
{
    mode_t mode = 0;
    inode(image, name, &mode);
    return mode;
}

static inline void assert_content(const struct image *image, const char *name, const char *expected)
{
    autofree char *path = string_printf("%s/%s", image->rootfs, name);
    struct buffer content = BUFFER_INIT(1 << 20);
    struct error err = {0};
    cr_assert_eq(buffer_read_file(&content, path, &err), 0, "%s", err.message);
    cr_assert_str_eq(content.data ? content.data : "", expected);
    buffer_deinit(&content);
}

/* The content of `tar` as a file, under this name in the test's folder. */
static inline char *tar_file(const char *name)
{
    char *path = string_printf("%s/%s", folder, name);
    tar_end(&tar);
    write_text(tar.data, tar.len, "%s", path);
    buffer_clear(&tar);
    return path;
}

/* Two layers: "base" has /base and /gone; "top" adds /top and removes /gone. */
static inline struct made_image two_layers(void)
{
    struct made_image image = {.layout = layout};
    add((struct tar_entry){.name = "base", .data = "base"});
    add((struct tar_entry){.name = "gone", .data = "gone"});
    add_layer(&image, &tar, true);
    add((struct tar_entry){.name = "top", .data = "top"});
    add((struct tar_entry){.name = ".wh.gone", .data = ""});
    add_layer(&image, &tar, false);
    return image;
}

static inline void write_only(const struct made_image *image)
{
    const char *name = NULL;
    write_index(layout, &image, &name, 1);
}

static inline void reopen_with(struct image_limits limits)
{
    struct error err = {0};
    const struct image_store_options options = {.limits = limits};
    image_store_close(store);
    store = image_store_open(store_path, &options, &err);
    cr_assert_not_null(store, "%s", err.message);
}
