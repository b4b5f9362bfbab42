/* The store: names, what each needs, and what nobody needs any more. How an image comes in is in
 * image_import.c, the index file in image_records.c.
 *
 * Whoever changes the store holds its lock. A chain that no image lists is removed by the next change
 * or opening: so an import that died between its renames and the index leaves nothing for ever. */
#include "oci/image_store.h"

#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "oci/folder.h"
#include "oci/image_import.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>

#define DEFAULT_BYTES (8ull * 1024 * 1024 * 1024)
#define DEFAULT_FILES 500000
#define DEFAULT_LAYERS 128
#define DEFAULT_MANIFEST_BYTES (4u * 1024 * 1024)
#define MAX_NAMES 1000000

const struct image_mount_point image_store_default_mount_points[] = {
    {"/proc", false},           {"/dev", false},          {"/tmp", false},
    {"/run/faas", false},       {"/app/function", false}, {"/.faas", false},
    {"/etc/resolv.conf", true},
};
const size_t image_store_default_mount_point_count =
    sizeof(image_store_default_mount_points) / sizeof(image_store_default_mount_points[0]);

struct image_store {
    char *directory; /* owned; absolute */
    char *index;     /* owned; path of index.json */
    const struct image_mount_point *mount_points;
    size_t mount_point_count;
    struct image_limits limits; /* none of them 0 */
};

/* ---- lock ---- */

static int open_lock(const struct image_store *store, struct error *err)
{
    autofree char *path = string_printf("%s/lock", store->directory);
    int fd = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (fd < 0)
        return error_set_errno(err, ERROR_INTERNAL, errno, "cannot open the image store's lock");
    return fd;
}

static int lock(const struct image_store *store, int *ret_fd, struct error *err)
{
    autoclose int fd = open_lock(store, err);
    if (fd < 0)
        return -1;
    while (flock(fd, LOCK_EX) < 0) {
        if (errno != EINTR)
            return error_set_errno(err, ERROR_INTERNAL, errno, "cannot lock the image store");
    }
    *ret_fd = steal_fd(&fd);
    return 0;
}

/* ---- what nobody needs ---- */

static bool is_needed_chain(const struct image_records *records, const char *id)
{
    for (size_t i = 0; i < records->count; i++) {
        for (char **chain = records->items[i].chains; *chain; chain++) {
            if (strcmp(*chain, id) == 0)
                return true;
        }
    }
    return false;
}

static bool is_needed_blob(const struct image_records *records, const char *hex)
{
    for (size_t i = 0; i < records->count; i++) {
        const struct image_record *record = &records->items[i];
        if (strcmp(record->config + 7, hex) == 0 ||
            (*record->manifest && strcmp(record->manifest + 7, hex) == 0))
            return true;
    }
    return false;
}

static bool is_never_needed(const struct image_records *records, const char *name)
{
    (void)records;
    (void)name;
    return false;
}

/* All but an index that was being written. */
static bool is_needed_file(const struct image_records *records, const char *name)
{
    (void)records;
    return strncmp(name, "index.json.", strlen("index.json.")) != 0;
}

/* Removes an entry unless somebody holds it. It is renamed first, so that it is there whole or not at
 * all. */
static int discard(int folder, int trash, const char *name, struct error *err)
{
    autoclose int fd = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0)
        return 0;
    char id[RANDOM_ID_LEN + 1];
    random_id(id);
    if (renameat(folder, name, trash, id) < 0)
        return errno == ENOENT
                   ? 0
                   : error_set_errno(err, ERROR_INTERNAL, errno, "cannot remove %s", name);
    return remove_tree_at(trash, id, err);
}

static int sweep(const struct image_store *store, const char *folder_name,
                 const struct image_records *records,
                 bool (*is_needed)(const struct image_records *records, const char *name),
                 struct error *err)
{
    with_cleanup(folder_names_deinit) struct folder_names names = {0};
    autofree char *path = string_printf("%s/%s", store->directory, folder_name);
    autofree char *trash_path = string_printf("%s/tmp", store->directory);
    if (!path || !trash_path)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    autoclose int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    autoclose int trash = open(trash_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0 || trash < 0)
        return error_set_errno(err, ERROR_INTERNAL, errno, "cannot open %s", path);
    if (folder_names_read(&names, folder, MAX_NAMES, err) < 0)
        return -1;
    for (size_t i = 0; i < names.count; i++) {
        if (!is_needed(records, names.items[i]) && discard(folder, trash, names.items[i], err) < 0)
            return -1;
    }
    return 0;
}

/* With the lock held. */
static int collect(const struct image_store *store, struct error *err)
{
    with_cleanup(image_records_deinit) struct image_records records = {0};
    if (image_records_load(store->index, &records, err) < 0 ||
        sweep(store, ".", &records, is_needed_file, err) < 0 ||
        sweep(store, "tmp", &records, is_never_needed, err) < 0 ||
        sweep(store, "chains", &records, is_needed_chain, err) < 0)
        return -1;
    return sweep(store, "blobs/sha256", &records, is_needed_blob, err);
}

/* ---- open and close ---- */

static int make_folders(const struct image_store *store, struct error *err)
{
    static const struct {
        const char *name;
        mode_t mode;
    } folders[] = {{"", 0711}, {"/chains", 0711}, {"/blobs/sha256", 0755}, {"/tmp", 0700}};
    for (size_t i = 0; i < ARRAY_LENGTH(folders); i++) {
        autofree char *path = string_printf("%s%s", store->directory, folders[i].name);
        if (!path)
            return error_set(err, ERROR_INTERNAL, "out of memory");
        if (make_directories(path, folders[i].mode, err) < 0)
            return error_wrap(err, "making the image store");
    }
    return 0;
}

static char *absolute_path(const char *path)
{
    char current[PATH_MAX];
    if (path[0] == '/')
        return strdup(path);
    return getcwd(current, sizeof(current)) ? string_printf("%s/%s", current, path) : NULL;
}

/* What an interrupted import left; whoever is changing the store now does it anyway. Images can be
 * used while something cannot be removed. */
static int clean_up(const struct image_store *store, struct error *err)
{
    struct error why;
    autoclose int fd = open_lock(store, err);
    if (fd < 0)
        return -1;
    if (flock(fd, LOCK_EX | LOCK_NB) == 0 && collect(store, &why) < 0)
        log_warn("cannot clean the image store", LOG_STR("directory", store->directory),
                 LOG_ERR(&why));
    return 0;
}

static void set_options(struct image_store *store, const struct image_store_options *options)
{
    const struct image_limits *limits = &options->limits;
    bool own_points = options->mount_points != NULL;
    store->mount_points = own_points ? options->mount_points : image_store_default_mount_points;
    store->mount_point_count =
        own_points ? options->mount_point_count : image_store_default_mount_point_count;
    store->limits = (struct image_limits){
        .max_bytes = limits->max_bytes ? limits->max_bytes : DEFAULT_BYTES,
        .max_files = limits->max_files ? limits->max_files : DEFAULT_FILES,
        .max_layers = limits->max_layers ? limits->max_layers : DEFAULT_LAYERS,
        .max_manifest_bytes =
            limits->max_manifest_bytes ? limits->max_manifest_bytes : DEFAULT_MANIFEST_BYTES,
    };
}

static void close_store(struct image_store **store)
{
    image_store_close(*store);
}

struct image_store *image_store_open(const char *directory,
                                     const struct image_store_options *options, struct error *err)
{
    static const struct image_store_options defaults;
    with_cleanup(close_store) struct image_store *store = calloc(1, sizeof(*store));
    if (!store || !(store->directory = absolute_path(directory)) ||
        !(store->index = string_printf("%s/index.json", store->directory))) {
        error_set(err, ERROR_INTERNAL, "out of memory");
        return NULL;
    }
    set_options(store, options ? options : &defaults);
    if (make_folders(store, err) < 0 || clean_up(store, err) < 0)
        return NULL;
    return steal_pointer(&store);
}

void image_store_close(struct image_store *store)
{
    if (!store)
        return;
    free(store->directory);
    free(store->index);
    free(store);
}

/* ---- reading ---- */

void image_deinit(struct image *image)
{
    free(image->name);
    free(image->digest);
    free(image->manifest_digest);
    free(image->rootfs);
    free(image->user);
    free(image->working_directory);
    free(image->architecture);
    image_strings_free(image->env);
    image_strings_free(image->entrypoint);
    image_strings_free(image->cmd);
    *image = (struct image){0};
}

void image_list_deinit(struct image_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        image_deinit(&list->images[i]);
    free(list->images);
    *list = (struct image_list){0};
}

static int load_config(const struct image_store *store, const struct image_record *record,
                       struct image_config *ret_config, struct error *err)
{
    with_cleanup(buffer_deinit) struct buffer text = BUFFER_INIT(store->limits.max_manifest_bytes);
    autofree char *path = string_printf("%s/blobs/sha256/%s", store->directory, record->config + 7);
    if (!path)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    if (buffer_read_file(&text, path, err) < 0)
        return -1;
    return image_config_read(text.data ? text.data : "", text.len, store->limits.max_layers,
                             ret_config, err);
}

static int fill_image(const struct image_store *store, const struct image_record *record,
                      struct image *ret_image, struct error *err)
{
    with_cleanup(image_config_deinit) struct image_config config = {0};
    with_cleanup(image_deinit) struct image image = {0};
    if (load_config(store, record, &config, err) < 0)
        return error_wrap(err, "image %s", record->name);
    image = (struct image){
        .name = strdup(record->name),
        .digest = strdup(record->config),
        .manifest_digest = strdup(record->manifest),
        .rootfs = string_printf("%s/chains/%s", store->directory,
                                record->chains[record->chain_count - 1]),
        .env = steal_pointer(&config.env),
        .entrypoint = steal_pointer(&config.entrypoint),
        .cmd = steal_pointer(&config.cmd),
        .user = steal_pointer(&config.user),
        .working_directory = steal_pointer(&config.working_directory),
        .architecture = steal_pointer(&config.architecture),
        .size_bytes = (uint64_t)record->size_bytes,
        .created = config.created,
        .imported = record->imported,
    };
    if (!image.name || !image.digest || !image.manifest_digest || !image.rootfs)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    *ret_image = image;
    image = (struct image){0};
    return 0;
}

static int no_such_image(const char *name, struct error *err)
{
    return error_set(err, ERROR_NOT_FOUND,
                     "there is no image \"%s\"; `faas image import %s FILE` brings one in", name,
                     name);
}

int image_store_get(struct image_store *store, const char *name, struct image *ret_image,
                    struct error *err)
{
    with_cleanup(image_records_deinit) struct image_records records = {0};
    char normalised[IMAGE_NAME_MAX + 1];
    if (image_name_normalise(name, normalised, err) < 0 ||
        image_records_load(store->index, &records, err) < 0)
        return -1;
    const struct image_record *record = image_records_find(&records, normalised);
    return record ? fill_image(store, record, ret_image, err) : no_such_image(normalised, err);
}

int image_store_list(struct image_store *store, struct image_list *ret_list, struct error *err)
{
    with_cleanup(image_records_deinit) struct image_records records = {0};
    with_cleanup(image_list_deinit) struct image_list list = {0};
    if (image_records_load(store->index, &records, err) < 0)
        return -1;
    list.images = calloc(records.count + 1, sizeof(*list.images));
    if (!list.images)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    for (size_t i = 0; i < records.count; i++) {
        if (fill_image(store, &records.items[i], &list.images[list.count], err) < 0)
            return -1;
        list.count++;
    }
    *ret_list = list;
    list = (struct image_list){0};
    return 0;
}

int image_store_hold(struct image_store *store, const struct image *image, int *ret_fd,
                     struct error *err)
{
    struct stat held, there;
    (void)store;
    autoclose int fd = open(image->rootfs, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    /* Whoever removes it has an exclusive lock for an instant, and the path leads elsewhere after. */
    while (fd >= 0 && flock(fd, LOCK_SH) < 0) {
        if (errno != EINTR)
            return error_set_errno(err, ERROR_INTERNAL, errno, "cannot hold the image %s",
                                   image->name);
    }
    if (fd < 0 || fstat(fd, &held) < 0 || stat(image->rootfs, &there) < 0 ||
        held.st_dev != there.st_dev || held.st_ino != there.st_ino)
        return error_set(err, ERROR_NOT_FOUND, "the image %s has been removed or replaced",
                         image->name);
    *ret_fd = steal_fd(&fd);
    return 0;
}

/* ---- changing ---- */

static int record_import(const struct image_store *store, struct image_import *import,
                         const char *name, struct image *ret_image, struct error *err)
{
    with_cleanup(image_records_deinit) struct image_records records = {0};
    import->record.name = strdup(name);
    import->record.imported = (int64_t)time(NULL);
    if (!import->record.name)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    if (image_records_load(store->index, &records, err) < 0 ||
        image_records_put(&records, &import->record, err) < 0 ||
        image_records_save(store->index, &records, err) < 0)
        return -1;
    return ret_image ? fill_image(store, image_records_find(&records, name), ret_image, err) : 0;
}

static int import_locked(const struct image_store *store, const char *name, const char *path,
                         const struct image_import_options *options, struct image *ret_image,
                         struct error *err)
{
    char id[RANDOM_ID_LEN + 1];
    random_id(id);
    autofree char *scratch = string_printf("%s/tmp/%s", store->directory, id);
    if (!scratch)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    if (mkdir(scratch, 0700) < 0)
        return error_set_errno(err, ERROR_INTERNAL, errno, "cannot make %s", scratch);
    with_cleanup(image_import_deinit) struct image_import import;
    image_import_init(&import);
    import.directory = store->directory;
    import.scratch = scratch;
    import.limits = &store->limits;
    import.mount_points = store->mount_points;
    import.mount_point_count = store->mount_point_count;
    import.choice = (struct image_choice){.reference = options->reference, .name = name};
    import.progress = options->progress;
    import.progress_data = options->progress_data;
    if (image_import_run(&import, path, err) < 0 || image_import_commit(&import, err) < 0)
        return -1;
    return record_import(store, &import, name, ret_image, err);
}

int image_store_import(struct image_store *store, const char *name, const char *path,
                       const struct image_import_options *options, struct image *ret_image,
                       struct error *err)
{
    static const struct image_import_options defaults;
    autoclose int held = -1;
    char normalised[IMAGE_NAME_MAX + 1];
    if (image_name_normalise(name, normalised, err) < 0 || lock(store, &held, err) < 0)
        return -1;
    int result =
        import_locked(store, normalised, path, options ? options : &defaults, ret_image, err);
    if (result < 0)
        error_wrap(err, "importing %s", normalised);
    /* Scratch, and what the replaced image needed. What is left over now, the next change removes:
     * an import that is done is not undone for it. */
    collect(store, NULL);
    return result;
}

int image_store_remove(struct image_store *store, const char *name, struct error *err)
{
    with_cleanup(image_records_deinit) struct image_records records = {0};
    autoclose int held = -1;
    char normalised[IMAGE_NAME_MAX + 1];
    if (image_name_normalise(name, normalised, err) < 0 || lock(store, &held, err) < 0 ||
        image_records_load(store->index, &records, err) < 0)
        return -1;
    if (!image_records_drop(&records, normalised))
        return no_such_image(normalised, err);
    if (image_records_save(store->index, &records, err) < 0)
        return -1;
    return collect(store, err);
}
