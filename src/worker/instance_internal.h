/* What instance.c (life), instance_load.c (a generic one becomes a function's) and instance_run.c (one invocation) share. */
#pragma once

#include "worker/channel.h"
#include "worker/instance.h"
#include "worker/invocation.h"
#include "worker/output.h"

#define INSTANCE_ID_LEN 16

struct instance {
    uv_loop_t *loop;
    struct runtime *runtime;
    struct function *function;        /* a reference; NULL: generic */
    const struct function_spec *spec; /* the function's, or a borrowed one */
    const char *const *command;       /* likewise */
    char *load;                       /* owned; body of the LOAD frame while it is sent */
    struct instance_limits limits;
    struct instance_events events;
    void *data;
    char id[INSTANCE_ID_LEN + 1];
    enum instance_state state;
    bool handler; /* contract */
    bool started; /* the runtime is done with starting it */
    bool control_ready, adapter_ready;
    uint64_t created_ns; /* monotonic, as the next two */
    uint64_t asked_ns;   /* when it was made, or loaded */
    uint64_t ready_ns;
    struct runtime_instance *runtime_instance; /* NULL before start and after stop */
    struct channel *control, *adapter;         /* adapter: contract handler only */
    int adapter_fd; /* owned; a generic one's until it is known who needs it, or -1 */
    struct output *output;
    struct loop_timer *deadline;  /* of the start; of an end that faas-init is to tell more of */
    struct runtime_usage before;  /* before it was loaded */
    struct runtime_usage usage;   /* at the end of the last call */
    bool measured;                /* just now: the next call begins with that */
    size_t places;                /* so many invocations at once */
    bool spent;                   /* takes no further ones */
    bool wants_area;              /* the adapter would map memory for large bodies */
    struct invocation_list calls; /* that run in it, oldest first */
    size_t call_count;
    struct invocation
        *sending; /* the last one that was handed to the channel; NULL when it is over */
    struct invocation_list unsent; /* of `calls`, those that wait for the channel */
    char *given_up;                /* owned; payload of one that was over before it was all sent */
};

/* Keeps a reference; from now on the instance is this function's. */
void instance_take_function(struct instance *instance, struct function *function);
/* The channel of contract handler; takes `fd`. */
int instance_open_adapter(struct instance *instance, int fd, struct error *err);
/* Timer: not ready in time. */
void instance_start_timed_out(void *data);
void instance_move(struct instance *instance, enum instance_state to);
/* So many at once, as the adapter says that it can. */
void instance_set_places(struct instance *instance, uint32_t adapters);
/* See struct output_options. */
bool instance_run_shared_log(void *data, const char *text, size_t len);
/* Events of the channels while busy, and of stdout. */
void instance_run_sent(struct instance *instance);
/* See struct invocation. */
struct blob *instance_run_room(struct instance *instance, size_t len);
void instance_run_frame(struct instance *instance, const struct frame_header *header,
                        const char *meta, const char *body);
/* `execution_id`: as in the frame's meta; NULL: not known. */
void instance_run_too_large(struct instance *instance, const char *execution_id);
void instance_run_closed(struct instance *instance, bool control, const struct error *why);
/* Status and error for a program that ended when it should not have. */
void instance_describe_exit(struct execution *execution, const struct frame_header *header,
                            const char *meta, const char *when);
/* A failure is a lack of memory when the kernel has killed since `before`. */
void instance_check_memory(struct instance *instance, struct execution *execution,
                           const struct runtime_usage *before, const struct runtime_usage *after);
