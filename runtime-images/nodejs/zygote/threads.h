/* Forks a process that has threads, so that the child has them too.
 *
 * fork() copies the calling thread only, and an interpreter whose helpers (garbage collection, compilation, signals) are
 * gone hangs at the first thing that it asks of them. Here the other threads are frozen first: a signal makes each save
 * where it is in a frame on its own stack, and end without telling anybody. What is then a process with one thread is
 * copied by the kernel's plain fork; in the child (or in the same process, when forking is given up) the threads are
 * revived: new ones of the kernel's that use the old ones' stacks and thread-local memory, and return from the signal
 * handler to where they were. To the C library and to the program nothing has happened but that a system call was
 * interrupted.
 *
 *     threads_freeze(message)     once, in the zygote
 *     threads_fork()              as often as wanted
 *     threads_revive(message)     in each child; or in the zygote, to go back to what it was
 *
 * A thread is frozen in a system call that waits for something only, so that it holds no lock with an owner: mutexes
 * know their owner by its thread id, which changes.
 *
 * Linux on x86-64 with glibc; elsewhere threads_freeze() says that it cannot. All functions are for the main thread. Messages have
 * room for ZYGOTE_MESSAGE_MAX bytes. */
#pragma once

#include <sys/types.h>

#define ZYGOTE_MESSAGE_MAX 256

/* 0; or -1 with `message`, and then every thread runs as before. */
int threads_freeze(char *message);
/* As fork(), without its handlers (pthread_atfork): nothing is to be put right for the child. -1 sets errno. */
pid_t threads_fork(void);
/* 0; or -1 with `message` when the system gives no thread: the process can then only end. */
int threads_revive(char *message);
