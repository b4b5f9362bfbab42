/* Code that is compiled when it is deployed (Go): building -> a worker compiles -> ready or failed.
 *
 * The version that served goes on serving until the new one is ready. A worker does one build at a
 * time; a build whose worker is lost goes to another. Of several controllers the one that a version was deployed at has
 * it compiled; when that controller is gone, one that has workers does. Should two be at it, the outcome that is stored
 * first counts. Loop thread only. */
#pragma once

#include "base/json.h"
#include "base/text.h"
#include "controller/registry.h"

struct controller;
struct worker_session;
struct worker_message;

#define BUILD_ATTEMPTS 3
#define BUILD_OUTPUT_MAX (256 * 1024)

struct build {
    char id[RANDOM_ID_LEN + 1];
    struct function_version *version; /* a reference */
    struct worker_session *session;   /* NULL: waiting */
    uint64_t stream_number;           /* by which of its connections it went there */
    int attempts;
    uint64_t started_ns;
    struct list link;
};

struct builds {
    struct list waiting, running;
    struct list ending; /* of struct build_end: outcomes on their way into the store */
};

void builds_init(struct builds *builds);
void builds_deinit(struct controller *controller);
/* The version's state is FUNCTION_BUILDING. */
int builds_add(struct controller *controller, struct function_version *version, struct error *err);
/* All that an earlier controller left unfinished, unless others share the database: then builds_claim() finds them. */
int builds_resume(struct controller *controller, struct error *err);
/* Takes over what controllers that are gone have left unfinished, where others share the database. */
void builds_claim(struct controller *controller);
/* Gives waiting builds to workers that have none. */
void builds_dispatch(struct controller *controller);
void builds_worker_lost(struct controller *controller, struct worker_session *session);
/* The worker names these builds: one that it was given by an earlier connection and does not name never arrived. NULL: it
 * did not say. */
void builds_match(struct controller *controller, struct worker_session *session,
                  const struct json *named);
void builds_result(struct controller *controller, const struct worker_message *message);
