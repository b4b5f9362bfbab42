/* `faas-worker --check-host`: what this host can enforce, as a table for people.
 *
 * Each row is one thing that isolation, limits or networks rest on: `ok`, `warn` (functions run, with
 * less than there could be; the text says what is missing) or `no` (the worker, or functions that need it,
 * cannot run). Nothing is changed on the host. Blocks. */
#pragma once

#include "worker/config.h"

#include <stdio.h>

/* `settings` are complete. Returns the exit status: 0 unless a row says `no`. */
int check_host(const struct worker_settings *settings, FILE *out);

/* Whether a runtime that calls itself so ("runc version 1.1.5") has problems that are known to the public; writes what
 * to know of it, "" when there is nothing. */
void check_host_known_problems(const char *version, char *out, size_t size);
