/* The worker's end of a socket to an instance, beside whose bytes the instance can send descriptors (SCM_RIGHTS, unix(7)).
 *
 * The worker wants none, but whoever takes such bytes, or closes a socket in which they wait, closes their descriptors; and the last close of
 * one can take as long as its sender likes: that of a TCP connection with SO_LINGER waits for the other end. So the kernel is asked to refuse
 * them to the sender, which it can since Linux 6.16. Before, they are taken, and threads of their own close them. Any thread. */
#pragma once

#include <stddef.h>
#include <sys/types.h>

/* From now on, where the kernel can. */
void instance_socket_refuse_descriptors(int fd);
/* As recv(2), without flags; EPROTO when descriptors came with the bytes, which are lost then. */
ssize_t instance_socket_receive(int fd, void *to, size_t max);
/* As close(2), but nothing is waited for that the instance has sent. */
void instance_socket_close(int fd);
