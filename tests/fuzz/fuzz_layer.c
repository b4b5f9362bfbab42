/* Image layers, on top of a lower one that has a file, a folder and links for them to hide, replace and
 * go through. The first byte: whether the last block may be short. */
#include "oci/layer.h"

#include "base/cleanup.h"
#include "scratch.h"
#include "tar_repair.h"

#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What lower layers share with other images: it must never be written. */
static const char *shared_file(void)
{
    static char path[128];
    snprintf(path, sizeof(path), "%s/shared", scratch_folder());
    return path;
}

static void make_shared_file(void)
{
    int fd = open(shared_file(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0 || write(fd, "lower", 5) != 5)
        abort();
    close(fd);
}

static void check_shared_file(void)
{
    char content[16];
    struct stat status;
    int fd = open(shared_file(), O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, content, sizeof(content)) != 5 || memcmp(content, "lower", 5) != 0)
        abort();
    if (fstat(fd, &status) < 0 || status.st_mode != (S_IFREG | 0644))
        abort();
    close(fd);
}

static void make_lower(int root)
{
    if (linkat(AT_FDCWD, shared_file(), root, "a", 0) < 0 || mkdirat(root, "d", 0755) < 0 ||
        mkdirat(root, "d/e", 0755) < 0 || linkat(root, "a", root, "d/f", 0) < 0 ||
        symlinkat("d", root, "l") < 0 || symlinkat("../../..", root, "d/up") < 0 ||
        symlinkat("/nowhere", root, "n") < 0)
        abort();
}

static void apply(const uint8_t *data, size_t size, bool complete)
{
    static const struct tree_writer_limits limits = {
        .max_bytes = 256 * 1024, .max_files = 100, .max_path_bytes = 200, .max_depth = 10};
    struct layer_result result;
    struct error err = {0};
    struct stat status;
    char path[128];
    const struct layer_options options = {
        .has_lower = true, .max_tar_bytes = 1 << 20, .complete_last_block = complete};
    snprintf(path, sizeof(path), "%s/rootfs", scratch_folder());
    if (mkdir(path, 0755) < 0)
        abort();
    make_shared_file();
    int root = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    make_lower(root);
    struct byte_stream *stream = byte_stream_from_memory(data, size);
    struct tree_writer writer;
    tree_writer_init(&writer, root, TREE_WRITER_LAYER, &limits);
    if (layer_apply(stream, &writer, &options, &result, &err) < 0 && err.code == ERROR_NONE)
        abort();
    if (writer.bytes > limits.max_bytes)
        abort();
    tree_writer_deinit(&writer);
    byte_stream_close(&stream);
    close(root);
    check_shared_file();
    if (remove_tree(path, &err) < 0)
        abort();
    if (stat(scratch_folder(), &status) < 0 || status.st_nlink != 2)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    autofree uint8_t *repaired = malloc(size);
    if (!repaired)
        abort();
    memcpy(repaired, data + 1, size - 1);
    apply(data + 1, size - 1, data[0] & 1);
    if (tar_repair(repaired, size - 1))
        apply(repaired, size - 1, data[0] & 1);
    return 0;
}
