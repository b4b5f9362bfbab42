/* Telling a service manager how the program is: the datagrams of sd_notify(3) to $NOTIFY_SOCKET, and the
 * watchdog of $WATCHDOG_USEC, which is fed from the loop, so that a loop that hangs is noticed.
 *
 * Without a manager every call does nothing. Loop thread only. */
#pragma once

#include <stdbool.h>
#include <uv.h>

struct notify;

/* "READY=1"; starts feeding the watchdog when there is one. NULL when there is no manager (or no memory). */
struct notify *notify_ready(uv_loop_t *loop);
/* Has the manager keep a copy of a descriptor, which the next start of this service gets by that name (listen_fds.h), unless the unit
 * allows none (FileDescriptorStoreMax=). False when there is no manager. */
bool notify_keep_fd(const struct notify *notify, const char *name, int fd);
/* The manager drops what it keeps by that name. */
void notify_drop_fd(const char *name);
/* "STOPPING=1"; the watchdog goes on being fed. Accepts NULL. */
void notify_stopping(struct notify *notify);
/* Accepts NULL. Before the loop is closed. */
void notify_free(struct notify *notify);
