/* Gives a forked child kernel objects of its own in place of those that an event loop shares with its parent.
 *
 * A forked process has the same epoll instances, eventfds and pipes as its parent: what one registers or writes there, the
 * other sees. For each that the process made for itself, the child gets a new one under the same number, in the same
 * state: an epoll instance with the same registrations, a pipe with as many bytes in it.
 *
 *     files_survey(message)    once, before the first fork
 *     files_renew(message)     in each child, before anything else uses a descriptor
 *
 * What is only opened (regular files, devices), and pipes and sockets whose other end is elsewhere, stays shared as after
 * any fork. Messages have room for ZYGOTE_MESSAGE_MAX bytes. */
#pragma once

/* 0; or -1 with `message` when there is a descriptor that cannot be made anew (timers, io_uring and the like). `spare` is one that the caller deals with. */
int files_survey(int spare, char *message);
int files_renew(char *message);
