/* Surveys and renews descriptors; see files.h. */
#include "files.h"
#include "number.h"
#include "threads.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILES_MAX 64
#define WATCHES_MAX 128
#define FDINFO_BYTES 4096

enum kind { KIND_EPOLL, KIND_EVENT, KIND_PIPE };

struct file {
    enum kind kind;
    int fd;
    int status_flags;                /* F_GETFL; of a pipe's reading end */
    int fd_flags;                    /* F_GETFD */
    unsigned int count;              /* what an eventfd holds, the bytes in a pipe */
    int writer, writer_status_flags; /* a pipe's other end */
    ino_t inode;
};

/* A registration with an epoll instance. */
struct watch {
    int epoll, fd;
    uint32_t events;
    uint64_t data;
};

static struct file files[FILES_MAX];
static size_t file_count;
static struct watch watches[WATCHES_MAX];
static size_t watch_count;

/* ---- survey ---- */

static int cannot(char *message, int fd, const char *what)
{
    snprintf(message, ZYGOTE_MESSAGE_MAX, "descriptor %d, %s, cannot be made anew", fd, what);
    return -1;
}

static int read_info(int fd, char text[FDINFO_BYTES])
{
    char path[64];
    ssize_t len;
    int info;

    snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
    info = open(path, O_RDONLY | O_CLOEXEC);
    len = info < 0 ? -1 : read(info, text, FDINFO_BYTES - 1);
    if (info >= 0)
        close(info);
    if (len < 0 || len == FDINFO_BYTES - 1)
        return -1;
    text[len] = '\0';
    return 0;
}

/* The number after `name` at or after `text`. */
static bool number_after(const char *text, const char *name, unsigned int base,
                         uint64_t *ret_number)
{
    const char *place = strstr(text, name);

    if (!place)
        return false;
    place += strlen(name);
    return number_read(&place, base, ret_number);
}

/* Lines such as "tfd:       11 events:       19 data:                b  pos:0 ino:5a7a4 sdev:f". */
static int survey_watches(int epoll, const char *text, char *message)
{
    for (const char *line = text; (line = strstr(line, "tfd:")); line++) {
        uint64_t fd, events, data;

        if (watch_count == WATCHES_MAX || !number_after(line, "tfd:", 10, &fd) ||
            !number_after(line, "events:", 16, &events) || !number_after(line, "data:", 16, &data))
            return cannot(message, epoll, "an epoll instance");
        watches[watch_count++] =
            (struct watch){.epoll = epoll, .fd = (int)fd, .events = (uint32_t)events, .data = data};
    }
    return 0;
}

static struct file *add_file(enum kind kind, int fd, char *message)
{
    if (file_count == FILES_MAX) {
        cannot(message, fd, "one of many");
        return NULL;
    }
    files[file_count] = (struct file){.kind = kind,
                                      .fd = fd,
                                      .status_flags = fcntl(fd, F_GETFL),
                                      .fd_flags = fcntl(fd, F_GETFD),
                                      .writer = -1};
    return &files[file_count++];
}

static int survey_epoll(int fd, char *message)
{
    char text[FDINFO_BYTES];

    if (read_info(fd, text) != 0)
        return cannot(message, fd, "an epoll instance");
    return add_file(KIND_EPOLL, fd, message) ? survey_watches(fd, text, message) : -1;
}

static int survey_event(int fd, char *message)
{
    char text[FDINFO_BYTES];
    uint64_t count, semaphore = 0;
    struct file *file;

    if (read_info(fd, text) != 0 || !number_after(text, "eventfd-count:", 16, &count) ||
        count > UINT32_MAX)
        return cannot(message, fd, "an eventfd");
    if (number_after(text, "eventfd-semaphore:", 10, &semaphore) && semaphore)
        return cannot(message, fd, "an eventfd with a semaphore");
    file = add_file(KIND_EVENT, fd, message);
    if (!file)
        return -1;
    file->count = (unsigned int)count;
    return 0;
}

/* Either end may come first. */
static int survey_pipe(int fd, ino_t inode, char *message)
{
    int flags = fcntl(fd, F_GETFL), bytes = 0;
    bool writes = (flags & O_ACCMODE) == O_WRONLY;
    struct file *file = NULL;

    for (size_t i = 0; i < file_count; i++)
        if (files[i].kind == KIND_PIPE && files[i].inode == inode)
            file = &files[i];
    if (!file) {
        file = add_file(KIND_PIPE, -1, message);
        if (!file)
            return -1;
        file->inode = inode;
    }
    if ((writes ? file->writer : file->fd) >= 0 || (flags & O_ACCMODE) == O_RDWR)
        return cannot(message, fd, "one of several for the same pipe");
    if (writes) {
        file->writer = fd;
        file->writer_status_flags = flags;
        return 0;
    }
    ioctl(fd, FIONREAD, &bytes);
    file->fd = fd;
    file->count = (unsigned int)bytes;
    file->status_flags = flags;
    file->fd_flags = fcntl(fd, F_GETFD);
    return 0;
}

static int survey_one(int fd, char *message)
{
    char path[64], target[128];
    struct stat info;
    ssize_t len;

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    len = readlink(path, target, sizeof(target) - 1);
    if (len < 0 || fstat(fd, &info) != 0)
        return cannot(message, fd, strerror(errno));
    target[len] = '\0';
    if (strcmp(target, "anon_inode:[eventpoll]") == 0)
        return survey_epoll(fd, message);
    if (strcmp(target, "anon_inode:[eventfd]") == 0)
        return survey_event(fd, message);
    if (S_ISFIFO(info.st_mode) && fd > STDERR_FILENO)
        return survey_pipe(fd, info.st_ino, message);
    if (S_ISREG(info.st_mode) || S_ISCHR(info.st_mode) || S_ISDIR(info.st_mode) ||
        fd <= STDERR_FILENO)
        return 0;
    return cannot(message, fd, target);
}

/* A pipe of which the process has one end only belongs to somebody else. */
static void forget_half_pipes(void)
{
    size_t kept = 0;

    for (size_t i = 0; i < file_count; i++)
        if (files[i].kind != KIND_PIPE || (files[i].fd >= 0 && files[i].writer >= 0))
            files[kept++] = files[i];
    file_count = kept;
}

int files_survey(int spare, char *message)
{
    DIR *dir = opendir("/proc/self/fd");
    const struct dirent *entry;
    int result = 0;

    file_count = 0;
    watch_count = 0;
    if (!dir) {
        snprintf(message, ZYGOTE_MESSAGE_MAX, "its descriptors cannot be listed: %s",
                 strerror(errno));
        return -1;
    }
    while (result == 0 && (entry = readdir(dir))) {
        const char *name = entry->d_name;
        uint64_t fd;

        if (number_read(&name, 10, &fd) && (int)fd != dirfd(dir) && (int)fd != spare)
            result = survey_one((int)fd, message);
    }
    closedir(dir);
    forget_half_pipes();
    return result;
}

/* ---- renewal ---- */

/* Takes `made`, which gets the number `fd`. */
static int put(int made, int fd, int fd_flags)
{
    int result = made < 0 ? -1 : dup3(made, fd, fd_flags & FD_CLOEXEC ? O_CLOEXEC : 0);

    if (made >= 0)
        close(made);
    return result < 0 ? -1 : 0;
}

static int renew_pipe(const struct file *file)
{
    static const char zeros[64];
    int ends[2];

    if (pipe2(ends, O_CLOEXEC) != 0)
        return -1;
    for (unsigned int left = file->count; left > 0;) {
        unsigned int piece = left < sizeof(zeros) ? left : sizeof(zeros);

        if (write(ends[1], zeros, piece) != (ssize_t)piece)
            break;
        left -= piece;
    }
    fcntl(ends[0], F_SETFL, file->status_flags);
    fcntl(ends[1], F_SETFL, file->writer_status_flags);
    if (put(ends[0], file->fd, file->fd_flags) != 0) {
        close(ends[1]);
        return -1;
    }
    return put(ends[1], file->writer, file->fd_flags);
}

static int renew_file(const struct file *file)
{
    if (file->kind == KIND_PIPE)
        return renew_pipe(file);
    if (file->kind == KIND_EPOLL)
        return put(epoll_create1(EPOLL_CLOEXEC), file->fd, file->fd_flags);
    return put(
        eventfd(file->count, EFD_CLOEXEC | (file->status_flags & O_NONBLOCK ? EFD_NONBLOCK : 0)),
        file->fd, file->fd_flags);
}

int files_renew(char *message)
{
    for (size_t i = 0; i < file_count; i++)
        if (renew_file(&files[i]) != 0)
            return cannot(message, files[i].fd, strerror(errno));
    for (size_t i = 0; i < watch_count; i++) {
        struct epoll_event event = {.events = watches[i].events, .data.u64 = watches[i].data};

        if (epoll_ctl(watches[i].epoll, EPOLL_CTL_ADD, watches[i].fd, &event) != 0)
            return cannot(message, watches[i].epoll, "an epoll instance");
    }
    return 0;
}
