/* Bandwidth of an instance: a token bucket (tc-tbf(8)) on each end of its veth pair, for what the end sends. The end in the
 * instance's namespace is safe there: the function has no rights over the namespace. Gone with the pair. Blocking. */
#pragma once

#include "base/error.h"

#include <stdint.h>

/* `kbps`: kilobits a second, each way. ERROR_UNAVAILABLE where the kernel has no token buckets. */
int network_shape(const char *namespace_path, const char *host_interface, int64_t kbps,
                  struct error *err);
