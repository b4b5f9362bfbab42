/* faas-init while it serves a worker: the state that serve.c, companion.c and generic.c share. */
#pragma once

#include "init/instance.h"

enum phase {
    PHASE_IDLE,     /* or in the middle of a frame that is arriving */
    PHASE_RUNNING,  /* the invocation's main process runs */
    PHASE_CLEANING, /* it ended, and the zygote still has other children to reap */
};

struct server {
    struct instance *instance;
    enum phase phase;
    struct frame_reader worker;
    struct frame_reader zygote;
    int zygote_fd; /* to the zygote, or to the keeper of a generic instance; -1: none */
    struct payload *payload;
    pid_t main;          /* exec, standby: the invocation's main process */
    pid_t standby;       /* standby: the process that waits for the next invocation; 0: none */
    bool standby_up;     /* it was heard of (or of its end): no more to wait for */
    int standby_fd;      /* our end of its socket; -1: none */
    bool falls_back;     /* standby, since the mode's zygote could not be forked */
    uint32_t status;     /* PHASE_CLEANING: its wait status */
    uint64_t give_up_ms; /* PHASE_CLEANING, monotonic */
    bool ready_said;
    bool ended; /* the worker hung up, or the connection makes no sense any more */
};

/* ---- serve.c ---- */
/* A frame of faas-init's own. They are small and few, so that waiting for room in the socket never
 * takes long. */
int send_frame(int fd, enum frame_type type, uint16_t flags, uint32_t value, const char *meta);
/* The same to the worker; the instance ends when it cannot be sent. */
void answer(struct server *server, enum frame_type type, uint16_t flags, uint32_t value,
            const char *meta);
void say_ready_once(struct server *server);
/* Which frames the worker may send now; said anew when that changes. */
void worker_expect(struct server *server);
void invocation_end(struct server *server, uint16_t flags, uint32_t status, const char *message);

/* ---- companion.c: processes that live longer than an invocation, or start before it ---- */
/* Starts what the mode needs; READY is said once it is up. */
void mode_start(struct server *server);
/* A failure (with `message`, which may be NULL) matters only once there is an invocation for it. */
int standby_start(struct server *server, char *message);
/* The process that stands by says that it is up, or it ended; what is wrong then shows at the
 * invocation that starts it again. */
void standby_heard(struct server *server);
void standby_forget(struct server *server);
/* The zygote's socket can be read. */
void zygote_heard(struct server *server);
/* The zygote, adapter or keeper was reaped. */
void keeper_ended(struct server *server, uint32_t status);

/* ---- generic.c: an instance before its function ---- */
void load_arrives(struct server *server);
void load_piece(struct server *server, const uint8_t *bytes, size_t len);
/* The frame is complete: the instance becomes the function's, or ends when it makes no sense. */
void load_take(struct server *server);
