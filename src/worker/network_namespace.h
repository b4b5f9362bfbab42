/* Network namespaces bound to files. Blocking: for thread-pool jobs.
 *
 * A namespace belongs to the thread that makes it, so each is made by a thread of its own that ends at once: no other thread of
 * the worker ever leaves the host's namespace. */
#pragma once

#include "base/error.h"

/* Makes a namespace with loopback up and IPv6 off, and binds it to the file `path`, which must not exist. */
int network_namespace_make(const char *path, struct error *err);
/* Unbinds and removes the file; the namespace ends when nothing else uses it. 0 also when it does not exist. */
int network_namespace_remove(const char *path, struct error *err);
/* A NETLINK_ROUTE socket of that namespace, and the index of an interface in it, 0 when there is none. The caller closes the socket. */
int network_namespace_netlink(const char *path, const char *interface, int *ret_index,
                              struct error *err);
