/* The controller as a whole: what its parts share, and its life.
 *
 * start: settings, tokens, store, functions, unfinished executions, HTTP server; then the loop
 * runs. stop (SIGINT, SIGTERM, or the end of the parent that gave FAAS_PARENT_FD): new invocations
 * are refused, those under way finish within CONTROLLER_DRAIN_MS, records are written, the server
 * closes; where a service manager keeps the listening socket, nothing is refused: see drain.h. One loop thread owns all of it. */
#pragma once

#include "base/http_server.h"
#include "base/loop.h"
#include "controller/auth.h"
#include "controller/builds.h"
#include "controller/callbacks.h"
#include "controller/config.h"
#include "controller/delivery.h"
#include "controller/dispatch.h"
#include "controller/drain.h"
#include "controller/executions.h"
#include "controller/log_follow.h"
#include "controller/metrics.h"
#include "controller/rate_limit.h"
#include "controller/registry.h"
#include "controller/sessions.h"
#include "controller/tokens.h"
#include "controller/worker_drains.h"
#include "store/store.h"

struct controller {
    uv_loop_t loop;
    struct controller_config config;
    struct auth auth;
    struct tokens tokens;
    struct worker_drains worker_drains;
    struct store *store;
    struct http_server *server;
    struct buffer tls_certificate, tls_key; /* PEM; empty without TLS */
    struct http_route *routes;              /* owned; see routes.c */
    struct registry registry;
    struct executions executions;
    struct dispatch dispatch;
    struct delivery delivery;
    struct callbacks callbacks;
    struct sessions sessions;
    struct builds builds;
    struct log_followers followers;
    struct metrics metrics;
    struct rate_limit rate_limit;
    struct loop_timer *tick, *retention, *ping;
    struct loop_signals *signals;
    struct notify *notify; /* to a service manager; NULL: none */
    struct memory_rest *rest;
    uv_poll_t parent; /* readable when the parent has ended */
    bool watches_parent;
    double machine_cpus;
    size_t deploys;       /* under way */
    size_t pending_reads; /* handlers that wait for the store */
    uint64_t planned_ns;  /* keeps': monotonic */
    bool
        looked_up; /* refresh's: the request that is being served was looked up in the store already */
    bool draining;
    int inherited_fd;   /* the listening socket of an earlier start; -1: none */
    bool listener_kept; /* a service manager holds the listening socket open for the next one */
    bool stopped;
    uint64_t started_ns;                        /* monotonic */
    uint64_t drain_began_ns, drain_deadline_ns; /* monotonic */
};

/* Everything from settings to a listening server. 0, or -1 with nothing left to clean but by
 * controller_deinit(). */
int controller_start(struct controller *controller, struct error *err);
/* Until stopped. */
void controller_run(struct controller *controller);
void controller_deinit(struct controller *controller);

/* Whether it was started so lately that workers may still be on their way to it. */
bool controller_expects_workers(const struct controller *controller);
/* ERROR_NO_CAPACITY when no worker may run the version and none is expected: what is required, and who lacks it. */
int controller_check_placement(const struct controller *controller,
                               struct function_version *version, struct error *err);
/* Gives waiting executions and builds to workers that can take them. Call after anything that may
 * have made room or work. */
void controller_dispatch(struct controller *controller);
/* The same for one worker whose request is about to be answered: into its outbox. */
void controller_fill(struct controller *controller, struct worker_session *session);
