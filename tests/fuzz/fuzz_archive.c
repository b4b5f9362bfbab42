/* Code archives: whatever the bytes, what was unpacked is beneath the destination, within the limits,
 * and a refused archive leaves nothing. */
#include "oci/archive.h"

#include "base/cleanup.h"
#include "scratch.h"
#include "tar_repair.h"

#include <stdint.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void extract(const uint8_t *data, size_t size)
{
    static const struct archive_limits limits = {
        .max_unpacked_bytes = 256 * 1024, .max_files = 100, .max_path_bytes = 200, .max_depth = 10};
    struct archive_totals totals = {0};
    struct error err = {0};
    struct stat status;
    char destination[128];
    snprintf(destination, sizeof(destination), "%s/code", scratch_folder());
    int result = archive_extract(data, size, destination, &limits, &totals, &err);
    if (result == 0 &&
        (totals.bytes > limits.max_unpacked_bytes || totals.files > limits.max_files))
        abort();
    if (result < 0 && err.code == ERROR_NONE)
        abort();
    if (result == 0 && remove_tree(destination, &err) < 0)
        abort();
    /* Only its own folder links to scratch ("." and ".."): nothing was left, and nothing got out. */
    if (stat(scratch_folder(), &status) < 0 || status.st_nlink != 2)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    autofree uint8_t *repaired = malloc(size + 1);
    if (!repaired)
        abort();
    memcpy(repaired, data, size);
    extract(data, size);
    if (tar_repair(repaired, size))
        extract(repaired, size);
    return 0;
}
