/* What the files of delivery share. */
#pragma once

#include "controller/delivery.h"

/* So many of a function may wait in memory. */
size_t delivery_window_max(const struct controller *controller);
/* Fills the function's window from the store, when it has room and there may be something. */
void delivery_claim(struct controller *controller, struct function_entry *function);
int delivery_load_interrupted(struct controller *controller, struct error *err);
/* It waits in memory from now on. */
void delivery_enter_window(struct controller *controller, struct live_execution *execution);
bool delivery_has_workers(const struct controller *controller);
bool delivery_lease_holds(const struct controller *controller);
