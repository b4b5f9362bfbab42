/* The functions, in memory: finding one by name costs the same with ten and with 100,000.
 *
 * A function has a version that serves (`current`) and a newest one, which is the same unless it is
 * being built or could not be. A version is counted: the function holds references, and so does
 * every execution, so that an update or a delete takes nothing from under an invocation. When the
 * last reference goes, `gone` is called, and then it is freed.
 *
 * A name that was used stays as an entry without versions when its function is deleted: its numbers
 * go on, so that (name, version) means one thing for ever, here, in records and at the workers.
 * Loop thread only. */
#pragma once

#include "base/list.h"
#include "base/string_map.h"
#include "controller/placement.h"
#include "controller/rate_limit.h"
#include "store/store.h"

#define VERSION_KEY_MAX (FUNCTION_NAME_MAX + 22)

struct function_version {
    struct function_entry *function;
    char key[VERSION_KEY_MAX]; /* "hello/3" */
    struct function_record record;
    unsigned references;
    struct placement_match *match; /* placement's; owned */
};

struct function_entry {
    char name[FUNCTION_NAME_MAX + 1];
    struct function_version *current; /* a reference; NULL: none is ready */
    struct function_version *newest;  /* a reference; NULL: there is no such function (now) */
    int64_t last_version;
    size_t live_versions; /* in memory */
    uint64_t created_at_ns;
    struct list queue; /* of struct live_execution, by queue_link; dispatch's */
    size_t queue_length;
    size_t queue_bytes;       /* of their payloads */
    struct list waiting_link; /* dispatch's: in the list of functions whose turn will come */
    size_t under_way;         /* dispatch's: executions that workers have */
    /* What the version that serves lets in; see admission.h. */
    struct rate rate;
    int64_t concurrency;   /* calls at the same time; 0: no bound */
    int64_t reserved;      /* places of its own; 0: none */
    size_t places;         /* admission's: calls that count as being at the same time */
    unsigned passed_over;  /* dispatch's */
    bool unplaced;         /* dispatch's: no worker in contact may run its first one */
    size_t window;         /* delivery's: asynchronous ones that wait in memory */
    bool stored;           /* delivery's: more of them may wait in the store only */
    bool claiming;         /* delivery's: they are being asked for */
    struct list changes;   /* of struct change; the first is under way */
    struct list kept_link; /* in the registry's list `kept` */
    bool kept_short;       /* keeps': fewer are kept than it asks for */
};

struct registry {
    struct string_map functions;    /* name -> struct function_entry, owned */
    struct string_map versions;     /* key -> struct function_version, not a reference */
    struct function_entry **sorted; /* those that exist, by name */
    size_t sorted_count, sorted_capacity;
    /* Those whose current version has min_instances; keeps.c takes them off when they no longer have. */
    struct list kept;
    int64_t reserved;  /* places, of all functions together */
    bool kept_changed; /* since keeps.c has looked */
    void (*gone)(void *data, const struct function_version *version);
    void *data;
};

void registry_init(struct registry *registry,
                   void (*gone)(void *data, const struct function_version *version), void *data);
/* Frees everything, whatever refers to it; `gone` is not called. */
void registry_deinit(struct registry *registry);
/* Blocking, at start-up. */
int registry_load(struct registry *registry, struct store *store, struct error *err);

/* NULL when there is no such function. */
struct function_entry *registry_find(const struct registry *registry, const char *name);
/* The entry of a name, made when needed. */
struct function_entry *registry_entry(struct registry *registry, const char *name,
                                      struct error *err);
/* NULL when nothing uses that version any more. */
struct function_version *registry_find_version(const struct registry *registry, const char *name,
                                               int64_t version);

/* Takes the record's content, whose spec.version is above entry->last_version; the version becomes
 * the newest, and current when its state is ready. -1 only when out of memory. */
int registry_add_version(struct registry *registry, struct function_entry *entry,
                         struct function_record *record, struct error *err);
/* A version that was built serves from now on (unless a newer one does already). */
void registry_activate(struct registry *registry, struct function_version *version);
/* What the store has of a function, in order of versions, when another controller may have changed it: takes up what is
 * not known here. The caller deletes what the store has no more. -1 only when out of memory. */
int registry_merge(struct registry *registry, struct function_entry *entry,
                   struct function_record *records, size_t count, int64_t last_version,
                   struct error *err);
/* The function is no more; its versions live as long as they are referred to. */
void registry_delete(struct registry *registry, struct function_entry *entry);

struct function_version *version_ref(struct function_version *version);
/* Accepts NULL. */
void version_unref(struct registry *registry, struct function_version *version);

/* Index of the first function in name order that comes after `cursor` (NULL: of the first). */
size_t registry_seek(const struct registry *registry, const char *cursor);
