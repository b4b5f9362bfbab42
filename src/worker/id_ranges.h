/* Which range of host ids each instance's user namespace has: of all instances that may be alive on this machine, of whichever worker, no two
 * have the same.
 *
 * The workers of a machine share a table, a file that each has mapped: a word for each range, 0 or its owner's. A worker that dies leaves its
 * ranges marked, since its containers may live on (frozen, say); its successor, which has the same owner's name, removes those and then opens
 * the table, and what was marked is free. The file is gone when nobody has it open and nothing in it is marked. Range 0 is given to nobody: it
 * is that of bundles which are run by hand.
 *
 * Loop thread only. */
#pragma once

#include "base/error.h"

#include <stdint.h>

#define ID_RANGES_FOLDER "/run/faas"
#define ID_RANGES_FILE ID_RANGES_FOLDER "/ids"

struct id_ranges {
    int fd;                    /* -1: not open */
    char *path;                /* owned */
    uint64_t owner;            /* never 0 */
    _Atomic uint64_t *markers; /* mapped */
};

#define ID_RANGES_NONE ((struct id_ranges){.fd = -1})

/* `owner`: what only one worker of the machine has at a time, and its successor again. None of its containers may be there any more. Makes the
 * file where it is missing, but not its folder. */
int id_ranges_open(struct id_ranges *ranges, const char *path, const char *owner,
                   struct error *err);
/* What is still marked stays so. Accepts what was never opened. */
void id_ranges_close(struct id_ranges *ranges);
/* The number of a range, 1 or more; -1 with ERROR_NO_CAPACITY when all are in use. */
int id_ranges_take(struct id_ranges *ranges, struct error *err);
void id_ranges_give(struct id_ranges *ranges, int range);
