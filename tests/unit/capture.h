/* For tests of what a program writes to one of its own descriptors: it goes to a memory file meanwhile. */
#pragma once

#include "base/buffer.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

struct capture {
    int fd;    /* that is captured */
    int saved; /* owned; where it went before */
    int file;  /* owned */
};

static inline struct capture capture_start(int fd)
{
    fflush(NULL);
    struct capture capture = {
        .fd = fd, .saved = dup(fd), .file = memfd_create("capture", MFD_CLOEXEC)};
    dup2(capture.file, fd);
    return capture;
}

/* What was written; buffer_deinit() it. */
static inline struct buffer capture_stop(struct capture *capture)
{
    struct buffer text = BUFFER_INIT(1024 * 1024);
    fflush(NULL);
    dup2(capture->saved, capture->fd);
    close(capture->saved);
    lseek(capture->file, 0, SEEK_SET);
    cr_assert_eq(buffer_read_fd(&text, capture->file, NULL), 0);
    cr_assert_eq(buffer_append(&text, "", 0, NULL), 0);
    close(capture->file);
    return text;
}
