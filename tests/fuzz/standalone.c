/* Runs a fuzz target as a plain test: once for each file named, and for each file in each folder named. Fails when
 * there was none, so that a lost corpus is noticed. */
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/text.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define INPUT_MAX ((size_t)64 * 1024 * 1024)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int run_file(const char *path)
{
    with_cleanup(buffer_deinit) struct buffer input = BUFFER_INIT(INPUT_MAX);
    struct error err;
    if (buffer_read_file(&input, path, &err) < 0) {
        fprintf(stderr, "%s\n", err.message);
        return -1;
    }
    /* A copy of exactly its size, so that a sanitizer sees one byte read too many. */
    autofree uint8_t *data = malloc(input.len ? input.len : 1);
    if (!data)
        return -1;
    memcpy(data, input.len ? input.data : "", input.len);
    LLVMFuzzerTestOneInput(data, input.len);
    return 0;
}

static void close_folder(DIR **folder)
{
    if (*folder)
        closedir(*folder);
}

/* The number of files run, or -1. */
static int run_folder(const char *path)
{
    with_cleanup(close_folder) DIR *folder = opendir(path);
    int count = 0;
    if (!folder) {
        perror(path);
        return -1;
    }
    for (struct dirent *entry; (entry = readdir(folder));) {
        if (entry->d_name[0] == '.')
            continue;
        autofree char *file = string_printf("%s/%s", path, entry->d_name);
        if (!file || run_file(file) < 0)
            return -1;
        count++;
    }
    return count;
}

int main(int argc, char **argv)
{
    int total = 0;
    for (int i = 1; i < argc; i++) {
        struct stat status;
        bool is_folder = stat(argv[i], &status) == 0 && S_ISDIR(status.st_mode);
        int count = is_folder ? run_folder(argv[i]) : run_file(argv[i]) < 0 ? -1 : 1;
        if (count < 0)
            return 1;
        total += count;
    }
    printf("%d inputs\n", total);
    return total > 0 ? 0 : 1;
}
