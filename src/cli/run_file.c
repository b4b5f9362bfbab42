/* Where the controllers of this machine's `faas up` are; see run_file.h. */
#include "cli/run_file.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/text.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_MAX_BYTES 8192

char *run_file_path(pid_t pid)
{
    return string_printf(RUN_FILE_FOLDER "/up-%d.json", (int)pid);
}

int run_file_write(const char *path, const char *url, const char *token_file, struct error *err)
{
    json_free(run_file_find(NULL)); /* which removes stale ones */
    with_cleanup(buffer_deinit) struct buffer out = BUFFER_INIT(FILE_MAX_BYTES);
    struct json_writer *writer = json_writer_new(&out);
    if (!writer)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    json_object_begin(writer);
    json_member_string(writer, "url", url);
    json_member_string(writer, "token_file", token_file);
    json_member_int(writer, "pid", getpid());
    json_object_end(writer);
    if (json_writer_finish(writer, err) < 0 || make_directories(RUN_FILE_FOLDER, 0711, err) < 0)
        return -1;
    return write_file_atomic(path, out.data, out.len, 0644, false, err);
}

static bool is_run_file(const char *name)
{
    size_t len = strlen(name);
    return strncmp(name, "up-", 3) == 0 && len > 8 && strcmp(name + len - 5, ".json") == 0;
}

/* Its `faas up` and the controller were killed at once. */
static bool is_stale(const struct json *run)
{
    pid_t pid = (pid_t)json_get_int(run, "pid", 0);
    return pid <= 0 || (kill(pid, 0) < 0 && errno == ESRCH);
}

/* NULL unless it says a `url`, and that is `url` (NULL: any). */
static struct json *read_run_file(const char *path, const char *url)
{
    with_cleanup(buffer_deinit) struct buffer file = BUFFER_INIT(FILE_MAX_BYTES);
    if (buffer_read_file(&file, path, NULL) < 0)
        return NULL;
    struct json *run = json_parse(file.data, file.len, NULL, NULL);
    const char *found = json_get_string(run, "url");
    if (is_stale(run))
        unlink(path);
    else if (found && (!url || strcmp(found, url) == 0))
        return run;
    json_free(run);
    return NULL;
}

static int64_t written_at_ns(const char *path)
{
    struct stat status;
    if (stat(path, &status) < 0)
        return -1;
    return status.st_mtim.tv_sec * 1000000000LL + status.st_mtim.tv_nsec;
}

struct json *run_file_find(const char *url)
{
    DIR *folder = opendir(RUN_FILE_FOLDER);
    struct json *newest = NULL;
    int64_t newest_ns = -1;
    const struct dirent *entry;
    while (folder && (entry = readdir(folder))) {
        if (!is_run_file(entry->d_name))
            continue;
        autofree char *path = string_printf(RUN_FILE_FOLDER "/%s", entry->d_name);
        int64_t at_ns = path ? written_at_ns(path) : -1;
        struct json *run = at_ns > newest_ns ? read_run_file(path, url) : NULL;
        if (!run)
            continue;
        json_free(newest);
        newest = run;
        newest_ns = at_ns;
    }
    if (folder)
        closedir(folder);
    return newest;
}
