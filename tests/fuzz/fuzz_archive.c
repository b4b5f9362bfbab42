/* Code archives: whatever the bytes, what was unpacked is beneath the destination, within the limits,
 * and a refused archive leaves nothing. Code that a function may have can be unpacked. */
#include "oci/archive.h"

#include "base/cleanup.h"
#include "controller/code_check.h"
#include "scratch.h"
#include "tar_repair.h"

#include <stdint.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct archive_limits limits = {
    .max_unpacked_bytes = 256 * 1024, .max_files = 100, .max_path_bytes = 200, .max_depth = 10};

/* Only its own folder links to scratch ("." and ".."): nothing was left, and nothing got out. */
static void check_scratch(void)
{
    struct stat status;
    if (stat(scratch_folder(), &status) < 0 || status.st_nlink != 2)
        abort();
}

/* Whether code of a function of any kind may be so. */
static bool check_code(const uint8_t *data, size_t size)
{
    static const struct function_spec kinds[] = {
        {.runtime = RUNTIME_PYTHON},
        {.runtime = RUNTIME_PYTHON, .contract = CONTRACT_HANDLER, .handler = (char *)"a.b.handler"},
        {.runtime = RUNTIME_NODEJS, .contract = CONTRACT_HANDLER, .handler = (char *)"a.handler"},
        {.runtime = RUNTIME_NODEJS},
        {.runtime = RUNTIME_GO},
        {.runtime = RUNTIME_NATIVE}};
    struct error err = {0};
    bool taken = code_check(&kinds[size % (sizeof(kinds) / sizeof(kinds[0]))], data, size,
                            scratch_folder(), &limits, &err) == 0;
    if (!taken && (err.code == ERROR_NONE || strcmp(err.field, "/code") != 0))
        abort();
    check_scratch();
    return taken && archive_detect(data, size) != ARCHIVE_KIND_FILE;
}

static void extract(const uint8_t *data, size_t size)
{
    struct archive_totals totals = {0};
    struct error err = {0};
    char destination[128];
    bool taken = check_code(data, size);
    snprintf(destination, sizeof(destination), "%s/code", scratch_folder());
    int result = archive_extract(data, size, destination, &limits, &totals, &err);
    if (result == 0 &&
        (totals.bytes > limits.max_unpacked_bytes || totals.files > limits.max_files))
        abort();
    if (result < 0 && (err.code == ERROR_NONE || taken))
        abort();
    if (result == 0 && remove_tree(destination, &err) < 0)
        abort();
    check_scratch();
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
