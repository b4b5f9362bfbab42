/* The open files of one instance's cgroups; see worker/cgroup.h for its interface. */
#pragma once

#include "worker/cgroup.h"
#include "worker/cgroup_hierarchy.h"

struct instance_cgroup *instance_cgroup_new(const struct cgroup_hierarchies *hierarchies,
                                            enum cgroup_version version, pid_t pid,
                                            struct error *err);
