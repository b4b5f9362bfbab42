/* See image_import.h. The documents are read and verified first, then each missing chain is made from
 * its parent and one layer, then layers' digests are compared with what the documents say. */
#include "oci/image_import.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/json.h"
#include "oci/archive_reader.h"
#include "oci/image_chain.h"
#include "oci/layer.h"
#include "oci/tree.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define MAX_INDEX_LEVELS 3
#define MAX_PATH_BYTES 4095
#define MAX_DEPTH 128

/* Where the layers of an image are found in its source. */
struct layers {
    char **names;                               /* owned, NULL-terminated */
    const struct image_descriptor *descriptors; /* borrowed; NULL: not known */
    size_t count;
};

void image_import_init(struct image_import *import)
{
    *import = (struct image_import){0};
}

void image_import_deinit(struct image_import *import)
{
    buffer_deinit(&import->manifest);
    buffer_deinit(&import->config);
    image_record_deinit(&import->record);
    free(import->made);
    import->made = NULL;
}

/* ---- documents ---- */

static void digest_of(const struct buffer *text, char out[DIGEST_LEN + 1])
{
    char *hex = stpcpy(out, "sha256:");
    sha256_hex(text->data ? text->data : "", text->len, hex);
}

static int read_blob(const struct image_source *source, const struct image_descriptor *descriptor,
                     const char *what, struct buffer *text, struct error *err)
{
    char name[64 + DIGEST_LEN], digest[DIGEST_LEN + 1];
    snprintf(name, sizeof(name), "blobs/sha256/%s", descriptor->digest + 7);
    buffer_clear(text);
    if (image_source_read(source, name, text, err) < 0)
        return error_wrap(err, "%s", what);
    digest_of(text, digest);
    if ((int64_t)text->len != descriptor->size)
        return error_set(err, ERROR_INVALID_REQUEST, "%s %s has %zu bytes instead of %lld", what,
                         descriptor->digest, text->len, (long long)descriptor->size);
    if (strcmp(digest, descriptor->digest) != 0)
        return error_set(err, ERROR_INVALID_REQUEST,
                         "%s is damaged: its digest is %s instead of %s", what, digest,
                         descriptor->digest);
    return 0;
}

/* From index.json, through nested indexes, to the manifest. */
static int read_oci_manifest(struct image_import *import, const struct image_source *source,
                             struct image_manifest *ret_manifest, struct error *err)
{
    struct image_choice choice = import->choice;
    struct image_descriptor descriptor;
    if (image_source_read(source, "index.json", &import->manifest, err) < 0)
        return -1;
    for (int i = 0; i < MAX_INDEX_LEVELS; i++) {
        const char *text = import->manifest.data ? import->manifest.data : "";
        if (image_index_choose(text, import->manifest.len, &choice, &descriptor, err) < 0)
            return -1;
        choice = (struct image_choice){0}; /* below, only platforms tell images apart */
        if (read_blob(source, &descriptor, "the image manifest", &import->manifest, err) < 0 ||
            image_manifest_read(import->manifest.data ? import->manifest.data : "",
                                import->manifest.len, import->limits->max_layers, ret_manifest,
                                err) < 0)
            return -1;
        if (!ret_manifest->is_index) {
            memcpy(import->record.manifest, descriptor.digest, sizeof(descriptor.digest));
            return 0;
        }
    }
    return error_set(err, ERROR_INVALID_REQUEST, "image indexes are nested deeper than %d",
                     MAX_INDEX_LEVELS);
}

static int read_config(struct image_import *import, struct image_config *ret_config,
                       struct error *err)
{
    const char *machine = image_machine_architecture();
    char shown[TREE_NAME_MAX];
    if (image_config_read(import->config.data ? import->config.data : "", import->config.len,
                          import->limits->max_layers, ret_config, err) < 0)
        return -1;
    digest_of(&import->config, import->record.config);
    if (*ret_config->os && strcmp(ret_config->os, "linux") != 0)
        return error_set(err, ERROR_INVALID_REQUEST, "the image is for %s; it must be for linux",
                         tree_name(ret_config->os, shown));
    if (*ret_config->architecture && strcmp(ret_config->architecture, machine) != 0)
        return error_set(err, ERROR_INVALID_REQUEST, "the image is for %s; this machine is %s",
                         tree_name(ret_config->architecture, shown), machine);
    return 0;
}

static int check_layer_count(const struct image_config *config, size_t layers, struct error *err)
{
    if (config->diff_id_count == layers)
        return 0;
    return error_set(err, ERROR_INVALID_REQUEST,
                     "the image's manifest has %zu layers, its config %zu", layers,
                     config->diff_id_count);
}

/* ---- chains ---- */

static char *chain_path(const struct image_import *import, size_t i)
{
    if (import->made[i])
        return string_printf("%s/%zu", import->scratch, i);
    return string_printf("%s/chains/%s", import->directory, import->record.chains[i]);
}

static int open_tree(const char *path, int *ret_fd, struct error *err)
{
    int fd = path ? open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1;
    if (fd < 0)
        return error_set_errno(err, ERROR_INTERNAL, errno, "cannot open %s",
                               path ? path : "a tree");
    *ret_fd = fd;
    return 0;
}

static int open_chain(const struct image_import *import, size_t i, int *ret_fd, struct error *err)
{
    autofree char *path = chain_path(import, i);
    return open_tree(path, ret_fd, err);
}

/* An empty tree in scratch for chain `i`. */
static int new_chain(struct image_import *import, size_t i, int *ret_fd, struct error *err)
{
    autofree char *path = string_printf("%s/%zu", import->scratch, i);
    if (!path)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    if (mkdir(path, 0755) < 0 || chmod(path, 0755) < 0)
        return error_set_errno(err, ERROR_INTERNAL, errno, "cannot make %s", path);
    import->made[i] = true;
    return open_tree(path, ret_fd, err);
}

static int allocate_chains(struct image_import *import, size_t count, struct error *err)
{
    size_t chains = count ? count : 1; /* an image without layers is an empty tree */
    import->record.chains = calloc(chains + 1, sizeof(*import->record.chains));
    import->made = calloc(chains, sizeof(*import->made));
    if (!import->record.chains || !import->made)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    for (size_t i = 0; i < chains; i++) {
        import->record.chains[i] = calloc(1, SHA256_HEX_LEN + 1);
        if (!import->record.chains[i])
            return error_set(err, ERROR_INTERNAL, "out of memory");
    }
    import->record.chain_count = chains;
    return 0;
}

static int name_chains(struct image_import *import, const struct image_config *config,
                       struct error *err)
{
    if (allocate_chains(import, config->diff_id_count, err) < 0)
        return -1;
    if (config->diff_id_count == 0)
        sha256_hex("", 0, import->record.chains[0]);
    for (size_t i = 0; i < config->diff_id_count; i++)
        image_chain_id(i ? import->record.chains[i - 1] : NULL, config->diff_ids[i],
                       import->record.chains[i]);
    return 0;
}

/* ---- layers ---- */

struct step {
    const struct image_import *import;
    const char *text;
    uint64_t total;
};

static void report(void *data, uint64_t done)
{
    const struct step *step = data;
    if (step->import->progress)
        step->import->progress(step->import->progress_data, step->text, done, step->total);
}

/* Unpacks one layer to the tree `root`, counting against the import's limits. */
static int unpack(struct image_import *import, struct byte_stream *stream, int root,
                  const struct layer_options *options, struct layer_result *ret_result,
                  struct error *err)
{
    const struct tree_writer_limits limits = {
        .max_bytes = import->limits->max_bytes - import->bytes,
        .max_files = import->limits->max_files - import->files,
        .max_path_bytes = MAX_PATH_BYTES,
        .max_depth = MAX_DEPTH,
    };
    with_cleanup(tree_writer_deinit) struct tree_writer writer;
    tree_writer_init(&writer, root, TREE_WRITER_LAYER, &limits);
    if (layer_apply(stream, &writer, options, ret_result, err) < 0)
        return -1;
    import->bytes += writer.bytes;
    import->files += writer.files;
    return 0;
}

static int verify(const struct layer_result *result, const struct image_descriptor *descriptor,
                  const char *diff_id, struct error *err)
{
    if (descriptor && (int64_t)result->packed_bytes != descriptor->size)
        return error_set(err, ERROR_INVALID_REQUEST, "it has %llu bytes instead of %lld",
                         (unsigned long long)result->packed_bytes, (long long)descriptor->size);
    if (descriptor && strcmp(result->digest, descriptor->digest) != 0)
        return error_set(err, ERROR_INVALID_REQUEST,
                         "it is damaged: its digest is %s instead of %s", result->digest,
                         descriptor->digest);
    if (strcmp(result->diff_id, diff_id) != 0)
        return error_set(err, ERROR_INVALID_REQUEST,
                         "unpacked, its digest is %s; the image's config says %s", result->diff_id,
                         diff_id);
    return 0;
}

/* Chain `i` from chain `i - 1` and layer `i`. */
static int make_chain(struct image_import *import, const struct image_source *source,
                      const struct layers *layers, size_t i, const char *diff_id, struct error *err)
{
    autoclose int parent = -1, root = -1;
    char text[64];
    struct layer_result result;
    const struct image_descriptor *descriptor =
        layers->descriptors ? &layers->descriptors[i] : NULL;
    snprintf(text, sizeof(text), "layer %zu of %zu", i + 1, layers->count);
    struct step step = {import, text, descriptor ? (uint64_t)descriptor->size : 0};
    with_cleanup(byte_stream_close) struct byte_stream *stream =
        image_source_member(source, layers->names[i], err);
    if (!stream || new_chain(import, i, &root, err) < 0)
        return error_wrap(err, "%s", text);
    if (i > 0 && (open_chain(import, i - 1, &parent, err) < 0 ||
                  tree_clone(parent, root, &import->budget, err) < 0))
        return error_wrap(err, "%s", text);
    const struct layer_options options = {.has_lower = i > 0,
                                          .complete_last_block = true,
                                          .progress = report,
                                          .progress_data = &step};
    if (unpack(import, stream, root, &options, &result, err) < 0)
        return descriptor ? error_wrap(err, "%s (%s)", text, descriptor->digest)
                          : error_wrap(err, "%s", text);
    if (verify(&result, descriptor, diff_id, err) < 0)
        return error_wrap(err, "%s", text);
    return image_chain_make_mount_points(root, import->mount_points, import->mount_point_count,
                                         err);
}

static bool has_chain(const struct image_import *import, size_t i)
{
    autofree char *path = chain_path(import, i);
    return path && path_exists(path);
}

/* The rootfs is complete: what is left to know about it, and its mount points where an earlier
 * import had others. */
static int finish_rootfs(struct image_import *import, struct error *err)
{
    autoclose int root = -1;
    uint64_t bytes;
    if (open_chain(import, import->record.chain_count - 1, &root, err) < 0 ||
        image_chain_make_mount_points(root, import->mount_points, import->mount_point_count, err) <
            0 ||
        tree_measure(root, &bytes, err) < 0)
        return -1;
    import->record.size_bytes = (int64_t)bytes;
    return 0;
}

static int import_layers(struct image_import *import, const struct image_source *source,
                         const struct layers *layers, const struct image_config *config,
                         struct error *err)
{
    if (check_layer_count(config, layers->count, err) < 0 || name_chains(import, config, err) < 0)
        return -1;
    size_t start = import->record.chain_count;
    while (start > 0 && !has_chain(import, start - 1))
        start--;
    for (size_t i = start; i < layers->count; i++) {
        if (make_chain(import, source, layers, i, config->diff_ids[i], err) < 0)
            return -1;
    }
    autoclose int empty = -1;
    if (layers->count == 0 && start == 0 && new_chain(import, 0, &empty, err) < 0)
        return -1;
    return finish_rootfs(import, err);
}

/* ---- the four kinds of source ---- */

static void layers_deinit(struct layers *layers)
{
    image_strings_free(layers->names);
}

static int import_oci(struct image_import *import, const struct image_source *source,
                      struct error *err)
{
    with_cleanup(image_manifest_deinit) struct image_manifest manifest = {0};
    with_cleanup(image_config_deinit) struct image_config config = {0};
    with_cleanup(layers_deinit) struct layers layers = {0};
    if (read_oci_manifest(import, source, &manifest, err) < 0 ||
        read_blob(source, &manifest.config, "the image config", &import->config, err) < 0 ||
        read_config(import, &config, err) < 0)
        return -1;
    layers.names = calloc(manifest.layer_count + 1, sizeof(*layers.names));
    if (!layers.names)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    for (; layers.count < manifest.layer_count; layers.count++) {
        layers.names[layers.count] =
            string_printf("blobs/sha256/%s", manifest.layers[layers.count].digest + 7);
        if (!layers.names[layers.count])
            return error_set(err, ERROR_INTERNAL, "out of memory");
    }
    layers.descriptors = manifest.layers;
    return import_layers(import, source, &layers, &config, err);
}

/* Docker names the config by its digest: "<hex>.json", or "blobs/sha256/<hex>". */
static int check_config_name(const struct image_import *import, const char *name, struct error *err)
{
    const char *slash = strrchr(name, '/');
    const char *base = slash ? slash + 1 : name;
    if (strspn(base, "0123456789abcdef") != SHA256_HEX_LEN)
        return 0;
    if (strncmp(base, import->record.config + 7, SHA256_HEX_LEN) == 0)
        return 0;
    return error_set(err, ERROR_INVALID_REQUEST,
                     "the image config is damaged: its digest is %s, its name says %.64s",
                     import->record.config, base);
}

static int import_docker(struct image_import *import, const struct image_source *source,
                         struct error *err)
{
    with_cleanup(docker_manifest_deinit) struct docker_manifest manifest = {0};
    with_cleanup(image_config_deinit) struct image_config config = {0};
    with_cleanup(buffer_deinit) struct buffer text =
        BUFFER_INIT(import->limits->max_manifest_bytes);
    if (image_source_read(source, "manifest.json", &text, err) < 0 ||
        docker_manifest_choose(text.data ? text.data : "", text.len, &import->choice,
                               import->limits->max_layers, &manifest, err) < 0 ||
        image_source_read(source, manifest.config, &import->config, err) < 0 ||
        read_config(import, &config, err) < 0 ||
        check_config_name(import, manifest.config, err) < 0)
        return -1;
    const struct layers layers = {.names = manifest.layers, .count = manifest.layer_count};
    return import_layers(import, source, &layers, &config, err);
}

/* A config for what has none: the same tree gives the same config. */
static int write_config(struct image_import *import, const char *diff_id, struct error *err)
{
    struct json_writer *writer = json_writer_new(&import->config);
    if (!writer)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    json_object_begin(writer);
    json_member_string(writer, "architecture", image_machine_architecture());
    json_key(writer, "config");
    json_object_begin(writer);
    json_object_end(writer);
    json_member_string(writer, "os", "linux");
    json_key(writer, "rootfs");
    json_object_begin(writer);
    json_key(writer, "diff_ids");
    json_array_begin(writer);
    json_write_string(writer, diff_id);
    json_array_end(writer);
    json_member_string(writer, "type", "layers");
    json_object_end(writer);
    json_object_end(writer);
    if (json_writer_finish(writer, err) < 0)
        return -1;
    digest_of(&import->config, import->record.config);
    return 0;
}

static int unpack_rootfs(struct image_import *import, const struct image_source *source, int root,
                         struct layer_result *ret_result, struct error *err)
{
    struct step step = {import, "root file system", source->bytes};
    const struct layer_options options = {.progress = report, .progress_data = &step};
    with_cleanup(byte_stream_close) struct byte_stream *stream = image_source_stream(source, err);
    return stream ? unpack(import, stream, root, &options, ret_result, err) : -1;
}

static int copy_rootfs(struct image_import *import, const struct image_source *source, int root,
                       struct layer_result *ret_result, struct error *err)
{
    const struct tree_writer_limits limits = {.max_bytes = import->limits->max_bytes,
                                              .max_files = import->limits->max_files,
                                              .max_path_bytes = MAX_PATH_BYTES,
                                              .max_depth = MAX_DEPTH};
    struct step step = {import, "copying the folder", 0};
    report(&step, 0);
    with_cleanup(tree_writer_deinit) struct tree_writer writer;
    tree_writer_init(&writer, root, TREE_WRITER_LAYER, &limits);
    return tree_copy(source->folder, &writer, ret_result->diff_id, err);
}

static int import_rootfs(struct image_import *import, const struct image_source *source,
                         struct error *err)
{
    autoclose int root = -1;
    struct layer_result result;
    if (allocate_chains(import, 1, err) < 0 || new_chain(import, 0, &root, err) < 0 ||
        (source->kind == IMAGE_SOURCE_FOLDER ? copy_rootfs : unpack_rootfs)(import, source, root,
                                                                            &result, err) < 0)
        return -1;
    image_chain_id(NULL, result.diff_id, import->record.chains[0]);
    autofree char *existing =
        string_printf("%s/chains/%s", import->directory, import->record.chains[0]);
    if (!existing)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    import->made[0] = !path_exists(existing);
    if (write_config(import, result.diff_id, err) < 0)
        return -1;
    return finish_rootfs(import, err);
}

int image_import_run(struct image_import *import, const char *path, struct error *err)
{
    with_archive_locale(ARCHIVE_READER_TAR);
    with_cleanup(image_source_deinit) struct image_source source = {.folder = -1};
    buffer_init(&import->manifest, import->limits->max_manifest_bytes);
    buffer_init(&import->config, import->limits->max_manifest_bytes);
    import->budget = 4 * import->limits->max_files;
    uint64_t max_bytes = import->limits->max_bytes + import->limits->max_files * 4096;
    if (image_source_init(&source, path, import->scratch, max_bytes, err) < 0)
        return -1;
    switch (source.kind) {
    case IMAGE_SOURCE_OCI:
        return import_oci(import, &source, err);
    case IMAGE_SOURCE_DOCKER:
        return import_docker(import, &source, err);
    case IMAGE_SOURCE_ROOTFS:
    case IMAGE_SOURCE_FOLDER:
        break;
    }
    return import_rootfs(import, &source, err);
}

/* ---- into the store ---- */

static int put_blob(const struct image_import *import, const char *digest,
                    const struct buffer *text, struct error *err)
{
    if (*digest == '\0')
        return 0;
    autofree char *path = string_printf("%s/blobs/sha256/%s", import->directory, digest + 7);
    if (!path)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    return write_file_atomic(path, text->data, text->len, 0644, true, err);
}

/* All files of the new trees are on the disk before a name leads to them. */
static int sync_store(const struct image_import *import, struct error *err)
{
    autoclose int fd = open(import->scratch, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || syncfs(fd) < 0)
        return error_set_errno(err, ERROR_INTERNAL, errno, "cannot write the image to the disk");
    return 0;
}

int image_import_commit(struct image_import *import, struct error *err)
{
    if (sync_store(import, err) < 0)
        return -1;
    for (size_t i = 0; i < import->record.chain_count; i++) {
        if (!import->made[i])
            continue;
        autofree char *from = chain_path(import, i);
        autofree char *to =
            string_printf("%s/chains/%s", import->directory, import->record.chains[i]);
        if (!from || !to)
            return error_set(err, ERROR_INTERNAL, "out of memory");
        if (rename(from, to) < 0)
            return error_set_errno(err, ERROR_INTERNAL, errno, "cannot rename %s", from);
    }
    if (put_blob(import, import->record.config, &import->config, err) < 0)
        return -1;
    return put_blob(import, import->record.manifest, &import->manifest, err);
}
