/* Stopping: what is under way comes to its end, within CONTROLLER_DRAIN_MS; what is durable is left to the next controller.
 *
 * On its own a controller that drains goes on to listen, and refuses new invocations with 503. Where a service manager keeps the
 * listening socket for the next start (`listener_kept`), nothing is refused: new connections wait in the socket's queue for the
 * next controller; on those that are open, requests are served and told "Connection: close", and those that are silent
 * are closed between two requests. Asynchronous executions that run are waited for only a moment: the next controller goes on with them.
 * Loop thread only. */
#pragma once

#include <stdbool.h>

struct controller;

/* Once more: at once. */
void drain_begin(struct controller *controller);
/* Every tick while draining: stops the controller when nothing is left to wait for. */
void drain_tick(struct controller *controller);
/* Whether new work is refused. */
bool drain_refuses(const struct controller *controller);
/* After the loop: answers those whose invocations did not end in time. */
void drain_give_up_rest(struct controller *controller);
