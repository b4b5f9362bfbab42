/* Workers that an operator drains: they are given nothing new, end what they run, and stay in contact.
 *
 * The mark belongs to the worker's name, so it outlives the worker's sessions and the controller: the store has it as the setting
 * "worker-drain/NAME". With PostgreSQL other controllers hear of a change and read all marks anew. Loop thread only. */
#pragma once

#include "base/error.h"
#include "base/list.h"
#include "base/string_map.h"

#include <stdbool.h>

struct controller;

#define WORKER_DRAIN_PREFIX "worker-drain/"

struct worker_drains {
    struct string_map by_name; /* struct worker_drain, owned by `all` */
    struct list all;
};

void worker_drains_init(struct worker_drains *drains);
void worker_drains_deinit(struct worker_drains *drains);
/* Blocking, at start-up. */
int worker_drains_load(struct controller *controller, struct error *err);
/* Reads them anew: another controller may have changed them. */
void worker_drains_refresh(struct controller *controller);
bool worker_drains_has(const struct worker_drains *drains, const char *name);
/* In memory only, and at once for a worker that is in contact. -1 only when out of memory. */
int worker_drains_set(struct controller *controller, const char *name, bool drains,
                      struct error *err);
