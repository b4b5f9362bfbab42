/* One invocation's payload: written to RUN_DIR/payload as it arrives, and kept for the environment
 * as far as it may go there.
 *
 * The file is a new one each time, so an earlier invocation's open descriptor cannot reach it.
 * RUN_DIR belongs to the function's uid: whatever an invocation puts there is removed after it. */
#include "init/instance.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

extern char **environ;

#define ENVIRONMENT_MAX 4096 /* entries; a function has at most 64 of its own */

static const char file_name[] = "payload";

struct payload {
    int fd;
    int error;         /* errno of the first write that failed */
    size_t len;        /* bytes added */
    uint32_t kept;     /* bytes in `variable` after its name */
    size_t base_count; /* entries of the environment before this invocation's */
    bool in_environment;
    char execution_id[sizeof("EXECUTION_ID=") + FRAME_META_MAX];
    char variable[sizeof("FUNCTION_PAYLOAD=") + PAYLOAD_ENV_MAX];
};

static struct payload the_payload;
static char file_variable[sizeof("FUNCTION_PAYLOAD_FILE=") + 4096];
static char *environment[ENVIRONMENT_MAX + 4];

static bool is_variable(const char *entry, const char *name)
{
    size_t len = strlen(name);

    return strncmp(entry, name, len) == 0 && entry[len] == '=';
}

/* Puts together what is the same for every invocation; how many entries. */
static size_t base_environment(const struct instance *instance)
{
    size_t count = 0;

    for (char **entry = environ; *entry && count < ENVIRONMENT_MAX; entry++)
        if (!is_variable(*entry, "EXECUTION_ID") && !is_variable(*entry, "FUNCTION_PAYLOAD") &&
            !is_variable(*entry, "FUNCTION_PAYLOAD_FILE"))
            environment[count++] = *entry;
    if (instance->mode == MODE_HANDLER || instance->mode == MODE_GENERIC)
        return count;
    snprintf(file_variable, sizeof(file_variable), "FUNCTION_PAYLOAD_FILE=%s/%s", instance->run_dir,
             file_name);
    environment[count++] = file_variable;
    return count;
}

char *const *payload_base_environment(struct instance *instance)
{
    environment[base_environment(instance)] = NULL;
    return environment;
}

struct payload *payload_begin(struct instance *instance, const char *execution_id, uint32_t len)
{
    struct payload *payload = &the_payload;

    payload->base_count = base_environment(instance);
    payload->error = 0;
    payload->len = 0;
    payload->kept = 0;
    payload->in_environment = len <= PAYLOAD_ENV_MAX;
    snprintf(payload->execution_id, sizeof(payload->execution_id), "EXECUTION_ID=%s", execution_id);
    strcpy(payload->variable, "FUNCTION_PAYLOAD=");
    unlinkat(instance->run_fd, file_name, 0);
    payload->fd = openat(instance->run_fd, file_name,
                         O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (payload->fd < 0)
        payload->error = errno;
    return payload;
}

void payload_add(struct payload *payload, const uint8_t *bytes, size_t len)
{
    if (payload->in_environment && payload->kept + len <= PAYLOAD_ENV_MAX) {
        memcpy(payload->variable + strlen("FUNCTION_PAYLOAD=") + payload->kept, bytes, len);
        payload->kept += (uint32_t)len;
    }
    payload->len += len;
    while (len > 0 && payload->error == 0) {
        ssize_t written = write(payload->fd, bytes, len);

        if (written < 0) {
            payload->error = errno;
            return;
        }
        bytes += written;
        len -= (size_t)written;
    }
}

size_t payload_len(const struct payload *payload)
{
    return payload->len;
}

int payload_finish(struct payload *payload, char *message)
{
    char *value = payload->variable + strlen("FUNCTION_PAYLOAD=");

    value[payload->kept] = '\0';
    if (memchr(value, '\0', payload->kept))
        payload->in_environment = false;
    if (payload->fd >= 0)
        close(payload->fd);
    payload->fd = -1;
    if (payload->error == 0)
        return 0;
    snprintf(message, MESSAGE_MAX, "cannot write the payload file (%zu bytes): %s", payload->len,
             strerror(payload->error));
    return -1;
}

int payload_open(struct instance *instance, char *message)
{
    int fd = openat(instance->run_fd, file_name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0)
        snprintf(message, MESSAGE_MAX, "cannot open the payload file: %s", strerror(errno));
    return fd;
}

char *const *payload_environment(struct payload *payload)
{
    size_t count = payload->base_count;

    environment[count++] = payload->execution_id;
    if (payload->in_environment)
        environment[count++] = payload->variable;
    environment[count] = NULL;
    return environment;
}

void payload_remove(struct instance *instance)
{
    unlinkat(instance->run_fd, file_name, 0);
}

/* Removes what is in the folder, as deep as `depth`; -1 when something stays. Takes `fd`. */
static int empty_folder(int fd, int depth)
{
    DIR *dir = fdopendir(fd);
    struct dirent *entry;
    int result = 0;

    if (!dir) {
        close(fd);
        return -1;
    }
    while ((entry = readdir(dir))) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (unlinkat(fd, entry->d_name, 0) == 0)
            continue;
        if (errno != EISDIR || depth == 0) {
            result = -1;
            continue;
        }
        /* A function may have taken its own rights on the folder away. */
        fchmodat(fd, entry->d_name, 0700, 0);
        int child = openat(fd, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (child < 0 || empty_folder(child, depth - 1) != 0 ||
            unlinkat(fd, entry->d_name, AT_REMOVEDIR) != 0)
            result = -1;
    }
    closedir(dir);
    return result;
}

int run_dir_clean(struct instance *instance)
{
    int fd;

    fchmod(instance->run_fd, 0700);
    fd = openat(instance->run_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -1 : empty_folder(fd, 16);
}
