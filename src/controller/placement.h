/* Which workers a version may run on: its `requires`, and the architecture that it was compiled for, against the labels of the
 * workers.
 *
 * Each worker has a place, a small number. What a version matches is worked out once, for all places, when it is first asked
 * after something about the workers has changed; from then on an answer is one bit. A version that requires nothing is never
 * looked at. Loop thread only. */
#pragma once

#include "base/error.h"
#include "model/labels.h"

#include <stdbool.h>
#include <stdint.h>

#define PLACEMENT_PLACES 1024

/* What can be hoped for from a worker. */
enum placement_standing {
    PLACEMENT_GONE,
    PLACEMENT_PAUSES, /* it is given nothing: it is drained, or stops, most likely to come back soon */
    PLACEMENT_TAKES,
};

struct function_version;

struct placement {
    struct {
        struct labels labels; /* owned */
        bool taken;
        enum placement_standing standing;
    } places[PLACEMENT_PLACES];
    unsigned generation; /* counts changes; never 0 once there is a worker */
};

/* What a version matches; made when first needed. */
struct placement_match {
    unsigned generation;
    enum placement_standing best; /* of the workers among them */
    uint64_t places[PLACEMENT_PLACES / 64];
};

/* A place without labels, of a worker that is gone; -1 when all are taken. */
int placement_enter(struct placement *placement);
void placement_leave(struct placement *placement, int place);
/* Takes the labels. True when they are others than before. */
bool placement_set_labels(struct placement *placement, int place, struct labels *labels);
void placement_set_standing(struct placement *placement, int place,
                            enum placement_standing standing);

/* Whether it requires anything of its worker. */
bool placement_constrained(const struct function_version *version);
/* Whether the worker at that place may run it. */
bool placement_fits(const struct placement *placement, struct function_version *version, int place);
/* Whether one at these places (a bit each) may. */
bool placement_fits_any(const struct placement *placement, struct function_version *version,
                        const uint64_t places[PLACEMENT_PLACES / 64]);
/* Whether a worker that is given work may. */
bool placement_possible(const struct placement *placement, struct function_version *version);
/* Whether one may that is not gone, so that waiting may be worth it. */
bool placement_expected(const struct placement *placement, struct function_version *version);
/* Why it is not possible: "no worker in contact has the label gpu, which function hello requires". */
void placement_explain(const struct placement *placement, struct function_version *version,
                       char *text, size_t size);
