/* Descriptors that an instance sends: see instance_socket.h. */
#include "worker/instance_socket.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83
#endif
/* With one message, by the kernel's own limit (SCM_MAX_FD). */
#define DESCRIPTORS_MAX 253
#define STACK_BYTES (64UL * 1024)

struct descriptors {
    int fds[DESCRIPTORS_MAX];
    size_t count;
};

void instance_socket_refuse_descriptors(int fd)
{
    int passes = 0;
    setsockopt(fd, SOL_SOCKET, SO_PASSRIGHTS, &passes, sizeof(passes));
}

/* What its sender has too it may set anew before the last close, so that this alone is no help. */
static void close_all(const struct descriptors *descriptors)
{
    static const struct linger waits_for_nothing = {0};
    for (size_t i = 0; i < descriptors->count; i++) {
        setsockopt(descriptors->fds[i], SOL_SOCKET, SO_LINGER, &waits_for_nothing,
                   sizeof(waits_for_nothing));
        close(descriptors->fds[i]);
    }
}

static void *closer(void *data)
{
    close_all(data);
    free(data);
    return NULL;
}

static int start_closer(struct descriptors *descriptors)
{
    pthread_t thread;
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0)
        return -1;
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    int status = pthread_create(&thread, &attributes, closer, descriptors);
    pthread_attr_destroy(&attributes);
    return status == 0 ? 0 : -1;
}

/* Without memory or a thread for it, here. */
static void close_elsewhere(const struct descriptors *descriptors)
{
    struct descriptors *copy = malloc(sizeof(*copy));
    if (copy)
        *copy = *descriptors;
    if (copy && start_closer(copy) == 0)
        return;
    free(copy);
    close_all(descriptors);
}

static bool take_descriptors(struct msghdr *message, struct descriptors *ret)
{
    ret->count = 0;
    for (struct cmsghdr *header = CMSG_FIRSTHDR(message); header;
         header = CMSG_NXTHDR(message, header)) {
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
            continue;
        ret->count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        memcpy(ret->fds, CMSG_DATA(header), ret->count * sizeof(int));
    }
    return ret->count > 0;
}

ssize_t instance_socket_receive(int fd, void *to, size_t max)
{
    union {
        struct cmsghdr header; /* aligns it */
        char bytes[CMSG_SPACE(DESCRIPTORS_MAX * sizeof(int))];
    } control;
    struct iovec part = {to, max};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes)};
    struct descriptors descriptors;
    ssize_t got = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
    if (got < 0 || message.msg_controllen == 0 || !take_descriptors(&message, &descriptors))
        return got;
    close_elsewhere(&descriptors);
    errno = EPROTO;
    return -1;
}

/* Nothing more comes once it is shut; a descriptor comes with a byte at least. */
void instance_socket_close(int fd)
{
    int unread = 0;
    shutdown(fd, SHUT_RD);
    if (ioctl(fd, FIONREAD, &unread) == 0 && unread == 0)
        close(fd);
    else
        close_elsewhere(&(struct descriptors){.fds = {fd}, .count = 1});
}
