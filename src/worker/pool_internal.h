/* What the files of the pool share: pool.c (interface, events of instances), pool_start.c (which instances are made for those who
 * wait, and who goes to make room), pool_generic.c (generic instances that are kept ready), pool_idle.c (what becomes of
 * idle instances, and which are made before anybody waits for them), pool_weight.c (what each counts when processors are shared out). */
#pragma once

#include "worker/eviction.h"
#include "worker/pool.h"

#include <sys/queue.h>

/* While calls come, starting instances takes one part of the processors in so many: all of them would make every call wait its turn several
 * times on its way. */
#define POOL_CALLS_PART 4

/* An instance and its place in the pool's lists. */
struct member {
    struct pool *pool;
    struct pool_slot *slot;    /* NULL: generic */
    struct generic_kind *kind; /* NULL: started for its slot */
    struct instance *instance;
    int64_t memory_mb; /* that it is counted with */
    bool starting;     /* the runtime is not done with starting it */
    bool rising;       /* is in the pool's list of those */
    uint64_t begun_ns; /* when that was begun */
    bool used;         /* has run an invocation */
    unsigned parts;    /* it counts as one part in so many; see pool_weight.c */
    uint64_t idle_since_ns;
    uint64_t uses;
    double worth;  /* see eviction.h */
    bool unfrozen; /* is in the pool's list of those */
    bool open;     /* is in its slot's list of those */
    TAILQ_ENTRY(member) all;
    TAILQ_ENTRY(member) rises; /* by begun_ns */
    TAILQ_ENTRY(member)
    idle; /* of its slot: last used first; or warm ones of its kind: newest first */
    TAILQ_ENTRY(member) opens;
    TAILQ_ENTRY(member) age; /* of all idle ones: longest idle first */
    TAILQ_ENTRY(member) to_freeze;
};
TAILQ_HEAD(member_list, member);

/* One function version: its idle instances, and who waits for one. */
struct pool_slot {
    struct function *function; /* a reference */
    struct generic_kind *kind; /* that it can be loaded into; NULL: none */
    struct member_list idle;
    struct member_list
        open; /* busy ones that had places left when they were last looked at: filled in this order */
    struct invocation_list waiting;
    size_t waiting_count;
    size_t creating;  /* instances that will become ready */
    size_t promised;  /* while schedule works: who waits and needs no more thought */
    size_t instances; /* not yet gone */
    size_t stopping;  /* of them */
    bool direct;      /* loading it failed: its instances are started */
    uint64_t
        service_ns;  /* how long its invocations take when nothing is in their way; 0: not known */
    uint64_t cpu_ns; /* the CPU time that they take then */
    uint64_t finished_ns;    /* when the last one ended */
    uint64_t warm_ns;        /* when an instance that it had was last given one; 0: never */
    uint64_t warm_before_ns; /* and the time before */
    uint64_t served_ns;      /* when an instance was last made for it; 0: never */
    unsigned parts;          /* each of its instances counts as one in so many */
    size_t most_at_work;     /* instances, of late */
    bool forgotten;
    size_t busy;   /* invocations that run */
    size_t places; /* of each of its instances; what its function says until one says what it has */
    size_t kept;   /* so many instances there shall be, idle or busy */
    uint64_t rests_ns; /* since when it has had nothing to do; 0: it has, or never had */
    bool prewarm;      /* an instance is to be made, for the call that is due */
    unsigned failures; /* of instances that ended before they were of use, in a row */
    uint64_t retry_ns; /* after failures: none is made before, unless somebody waits */
    TAILQ_ENTRY(pool_slot) slots;
};
TAILQ_HEAD(slot_list, pool_slot);

/* Generic instances that are alike: any function of this image, runtime and network can be loaded into one. */
struct generic_kind {
    struct function_spec spec; /* owned; nameless, with the limits that one waits under */
    const char **command;      /* owned */
    struct member_list warm;
    size_t warm_count;
    size_t creating;  /* not yet warm */
    size_t promised;  /* while schedule works: of them, spoken for */
    size_t instances; /* creating and warm */
    size_t slots;     /* that have it as theirs */
    size_t members;   /* not yet gone that were started as this kind */
    bool prewarmed;   /* one is kept even when nobody has asked for long */
    uint64_t used_ns; /* when it was last asked for; 0: never */
    unsigned failures;
    uint64_t retry_ns; /* after failures: not before */
    TAILQ_ENTRY(generic_kind) kinds;
};
TAILQ_HEAD(kind_list, generic_kind);

struct pool {
    uv_loop_t *loop;
    struct pool_options options;
    struct slot_list slots;
    struct kind_list kinds;
    size_t kind_count;
    struct member_list members;
    struct member_list idle;   /* by age */
    struct member_list rising; /* that are being started, until they are ready or warm */
    size_t count;
    int64_t memory_mb; /* of all members */
    size_t waiting;    /* invocations, in all slots */
    size_t starting;   /* for those who wait */
    size_t refilling;  /* the same of generic ones */
    size_t busy;       /* invocations that run, in all slots */
    uint64_t call_ns;  /* when the last one ended */
    size_t stopping;
    int64_t stopping_memory_mb;
    int64_t generic_memory_mb; /* of those that are generic still */
    uint64_t start_ns; /* what starting an instance takes of late, and loading a generic one */
    uint64_t load_ns;
    struct eviction eviction;
    struct member_list unfrozen; /* idle ones: longest idle first */
    struct loop_timer *look;     /* at what is idle */
    uint64_t look_ns;            /* when that fires */
    struct loop_timer *freeze;
    bool cannot_freeze;
    bool lacking; /* an instance may be missing that nobody waits for */
    size_t cpus;
    struct loop_timer
        *rethink;        /* when one who waits for a busy instance has waited for long enough */
    uint64_t rethink_ns; /* when that fires */
    struct loop_timer *refill;
    uint64_t refill_ns;        /* when that fires */
    uint64_t refill_due_ns;    /* not before, when nobody waits */
    uint64_t refill_latest_ns; /* not before, when somebody does */
    uint64_t rest_ns;          /* nor any other, while calls come */
    uint64_t rise_ns;          /* when the last generic one was begun */
    bool nothing_ahead;        /* see pool_make_ahead() */
    struct loop_timer *trim;
    struct loop_timer *weight;
    void (*stopped)(void *data);
    void *stopped_data;
    bool deferred;  /* `stopped` is on its way */
    bool scheduled; /* as is pool_schedule() */
};

/* ---- pool.c ---- */

extern const struct instance_events pool_instance_events;
/* Counts a new member and puts it into the lists, as its slot's or its kind's. */
void pool_member_add(struct member *member, int64_t memory_mb);
/* A generic member becomes its slot's. */
void pool_member_give(struct member *member, struct pool_slot *slot);
/* Not while it is busy or in a list of idle or warm ones. */
void pool_member_stop(struct member *member);
/* An idle or frozen one. */
void pool_evict(struct member *member, const char *why);
struct invocation *pool_wait_take(struct pool *pool, struct pool_slot *slot);
void pool_slot_drop_if_empty(struct pool *pool, struct pool_slot *slot);
/* When it is stopping, and nothing is left or on its way. */
void pool_tell_stopped(struct pool *pool);
void pool_fail_lost(struct invocation *invocation, const char *type, const struct error *why);

/* ---- pool_start.c ---- */

/* Starts what is needed and possible: for those who wait, then generic ones. */
void pool_schedule(struct pool *pool);
/* Soon, because it may finish invocations. Not in a pool that stops: it has nothing to start. */
void pool_schedule_later(struct pool *pool);
/* A member is being started; the runtime is done with that; it has become ready or warm. Either will not be if it is not yet. */
void pool_start_begun(struct member *member);
void pool_start_over(struct member *member);
void pool_start_risen(struct member *member);
/* Whether one more may be started now for the slot, NULL: for nobody yet. If not, it is asked about again in time. */
bool pool_may_start(struct pool *pool, const struct pool_slot *slot);
/* Learns from an invocation that has ended, and from an instance that has become ready. */
void pool_note_service(struct pool_slot *slot, const struct execution_metrics *metrics);
void pool_note_ready(struct pool *pool, const struct member *member);

/* ---- pool_weight.c ---- */

/* The slot has more at work, or may have. */
void pool_weight_changed(struct pool *pool, struct pool_slot *slot);
/* A member of a slot has been started, or given to it: it weighs what the others do. */
void pool_weight_joined(struct member *member);
/* What the pool's timer calls: what was at work before the last time counts no more. */
void pool_weight_look(struct pool *pool);
void pool_weight_stop(struct pool *pool);

/* ---- pool_generic.c ---- */

/* The kind that the function can be loaded into; made if need be. NULL: none. */
struct generic_kind *pool_kind_for(struct pool *pool, const struct function_spec *function);
void pool_kinds_free(struct pool *pool);
/* An instance of a function of that kind is needed. */
void pool_generic_asked(struct pool *pool, struct generic_kind *kind);
/* A warm one, which is the caller's to load, put back or stop; NULL: there is none. */
struct member *pool_generic_take(struct generic_kind *kind);
void pool_generic_put(struct member *member);
/* The warm one that is missed least; NULL: there is none. */
struct member *pool_generic_dispensable(struct pool *pool);
void pool_generic_evict(struct member *member, const char *why);
/* A start failed: not again for a while. */
void pool_generic_failed(struct generic_kind *kind, const char *why);
/* A warm one ended by itself; it is the caller's to stop. */
void pool_generic_ended(struct member *member);
/* Starts generic ones as far as they are wanted and nobody waits. */
void pool_generic_refill(struct pool *pool);

/* ---- pool_idle.c ---- */

/* How long the slot's idle instances are kept where nothing better is known. 0: none is used twice. */
uint64_t pool_fixed_keep_alive_ms(const struct pool *pool, const struct pool_slot *slot);
/* A member has nothing to do, or has again: the lists of idle ones. */
void pool_idle_add(struct member *member);
void pool_idle_remove(struct member *member);
/* A member is about to be given an invocation that came at `received_ns`. */
void pool_idle_used(struct member *member, uint64_t received_ns);
/* The member's invocation is over, and it is not given another at once. */
void pool_idle_finished(struct pool *pool, struct pool_slot *slot);
/* An instance of the slot became ready, or will not, or ended by itself while it was idle. */
void pool_idle_ready(struct pool_slot *slot);
void pool_idle_failed(struct pool *pool, struct pool_slot *slot);
void pool_idle_ended(struct member *member);
/* Whether it must stand though it has no instance and nobody waits: some are to be kept, or a call is due. */
bool pool_idle_needs_slot(const struct pool *pool, const struct pool_slot *slot);
/* The idle one that is worth least; NULL: there is none. Those that are to be kept ready only with `kept`. */
struct member *pool_idle_dispensable(const struct pool *pool, bool kept);
/* How many instances the slot lacks that nobody waits for. */
size_t pool_idle_lack(const struct pool *pool, const struct pool_slot *slot, uint64_t now_ns);
/* Lets those go whose time is over and says which calls are due; looks again, by a timer, when there is a reason to. */
void pool_idle_look(struct pool *pool, uint64_t now_ns);
void pool_idle_stop(struct pool *pool);
