/* A table of names, each with the addresses that it has had lately, and who watches it. */
#include "worker/names.h"

#include "base/log.h"
#include "base/loop.h"
#include "worker/dns_query.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define TICK_MS 1000
#define REFRESH_MIN_NS 5000000000ull /* however short its time to live, and after a failure */
#define REFRESH_MAX_NS 60000000000ull
#define KEEP_NS 600000000000ull
#define NS_PER_S 1000000000ull

struct name {
    struct name *next;
    struct names *names;
    char *text; /* owned */
    size_t users;
    bool settled; /* was asked for once */
    struct dns_query *query;
    uint64_t due_ns;
    uint32_t addresses[NAME_ADDRESSES_MAX];
    uint64_t seen_ns[NAME_ADDRESSES_MAX];
    size_t count;
};

struct names {
    uv_loop_t *loop;
    struct name_servers servers;
    struct name *list; /* owned */
    struct names_watch *watches;
    struct loop_timer *tick; /* while there are names */
};

struct names_watch {
    struct names_watch *next;
    struct names *names;
    struct name **items; /* owned array of borrowed names */
    size_t count;
    bool told;                /* `changed` was called once */
    struct loop_timer *first; /* all was known already */
    void (*changed)(void *data);
    void *data;
};

static void ask(struct name *name);

/* ---- telling ---- */

static bool is_settled(const struct names_watch *watch)
{
    for (size_t i = 0; i < watch->count; i++)
        if (!watch->items[i]->settled)
            return false;
    return true;
}

static bool watches(const struct names_watch *watch, const struct name *name)
{
    for (size_t i = 0; i < watch->count; i++)
        if (watch->items[i] == name)
            return true;
    return false;
}

/* Who waits for the first time is told when all its names are settled; who has been told, when something changed. */
static void tell(struct name *name, bool changed)
{
    struct names_watch *next;

    for (struct names_watch *watch = name->names->watches; watch; watch = next) {
        next = watch->next;
        if (!watches(watch, name) || !is_settled(watch) || (watch->told && !changed))
            continue;
        watch->told = true;
        watch->changed(watch->data);
    }
}

/* ---- addresses ---- */

static bool add_address(struct name *name, uint32_t address, uint64_t now)
{
    size_t oldest = 0;

    for (size_t i = 0; i < name->count; i++) {
        if (name->addresses[i] == address) {
            name->seen_ns[i] = now;
            return false;
        }
        if (name->seen_ns[i] < name->seen_ns[oldest])
            oldest = i;
    }
    size_t at = name->count < NAME_ADDRESSES_MAX ? name->count++ : oldest;
    name->addresses[at] = address;
    name->seen_ns[at] = now;
    return true;
}

static bool drop_old_addresses(struct name *name, uint64_t now)
{
    size_t kept = 0;

    for (size_t i = 0; i < name->count; i++) {
        if (now - name->seen_ns[i] >= KEEP_NS)
            continue;
        name->addresses[kept] = name->addresses[i];
        name->seen_ns[kept++] = name->seen_ns[i];
    }
    bool dropped = kept < name->count;
    name->count = kept;
    return dropped;
}

static void on_answer(void *data, const struct dns_answer *answer, const struct error *err)
{
    struct name *name = data;
    uint64_t now = clock_monotonic_ns(), wait = REFRESH_MIN_NS;
    bool changed = false, first = !name->settled;

    name->query = NULL;
    name->settled = true;
    for (size_t i = 0; answer && i < answer->count; i++)
        changed = add_address(name, answer->addresses[i], now) || changed;
    changed = drop_old_addresses(name, now) || changed;
    if (answer) {
        wait = answer->ttl_s * NS_PER_S;
        wait = wait < REFRESH_MIN_NS   ? REFRESH_MIN_NS
               : wait > REFRESH_MAX_NS ? REFRESH_MAX_NS
                                       : wait;
    } else if (first) {
        log_warn("a name that a function may reach is not known", LOG_STR("name", name->text),
                 LOG_ERR(err));
    }
    name->due_ns = now + wait;
    tell(name, changed);
}

static void ask(struct name *name)
{
    struct error err = {0};

    if (name->query)
        return;
    name->query = dns_query_start(name->names->loop, &name->names->servers, name->text, on_answer,
                                  name, &err);
    if (!name->query)
        name->due_ns = clock_monotonic_ns() + REFRESH_MIN_NS;
}

static void on_tick(void *data)
{
    struct names *names = data;
    uint64_t now = clock_monotonic_ns();

    for (struct name *name = names->list; name; name = name->next)
        if (now >= name->due_ns)
            ask(name);
}

/* ---- the table ---- */

struct names *names_new(uv_loop_t *loop, const struct name_servers *servers, struct error *err)
{
    struct names *names = calloc(1, sizeof(*names));

    if (!names) {
        error_set(err, ERROR_INTERNAL, "out of memory");
        return NULL;
    }
    names->loop = loop;
    names->servers = *servers;
    return names;
}

void names_free(struct names *names)
{
    assert(!names || (!names->list && !names->watches));
    free(names);
}

static struct name *find_or_add(struct names *names, const char *text)
{
    struct name *name = names->list;

    while (name && strcmp(name->text, text) != 0)
        name = name->next;
    if (name)
        return name;
    name = calloc(1, sizeof(*name));
    if (!name || !(name->text = strdup(text))) {
        free(name);
        return NULL;
    }
    name->names = names;
    name->next = names->list;
    names->list = name;
    ask(name);
    return name;
}

static void release(struct name *name)
{
    struct names *names = name->names;
    struct name **at = &names->list;

    if (--name->users > 0)
        return;
    while (*at != name)
        at = &(*at)->next;
    *at = name->next;
    if (name->query)
        dns_query_cancel(name->query);
    free(name->text);
    free(name);
    if (!names->list) {
        loop_timer_stop(names->tick);
        names->tick = NULL;
    }
}

/* ---- watches ---- */

static void on_first(void *data)
{
    struct names_watch *watch = data;

    loop_timer_stop(watch->first);
    watch->first = NULL;
    if (watch->told || !is_settled(watch))
        return;
    watch->told = true;
    watch->changed(watch->data);
}

static int fill(struct names_watch *watch, const struct destinations *list, struct error *err)
{
    struct names *names = watch->names;

    for (size_t i = 0; i < list->count; i++) {
        if (!list->items[i].name)
            continue;
        struct name *name = find_or_add(names, list->items[i].name);
        if (!name)
            return error_set(err, ERROR_INTERNAL, "out of memory");
        name->users++;
        watch->items[watch->count++] = name;
    }
    if (!names->tick && names->list)
        names->tick = loop_timer_start(names->loop, TICK_MS, TICK_MS, on_tick, names, err);
    watch->first = loop_timer_start(names->loop, 0, 0, on_first, watch, err);
    return watch->first && (names->tick || !names->list) ? 0 : -1;
}

struct names_watch *names_watch(struct names *names, const struct destinations *list,
                                void (*changed)(void *data), void *data, struct error *err)
{
    struct names_watch *watch = calloc(1, sizeof(*watch));

    if (!watch || !(watch->items = calloc(list->count + 1, sizeof(*watch->items)))) {
        free(watch);
        error_set(err, ERROR_INTERNAL, "out of memory");
        return NULL;
    }
    watch->names = names;
    watch->changed = changed;
    watch->data = data;
    watch->next = names->watches;
    names->watches = watch;
    if (fill(watch, list, err) == 0)
        return watch;
    names_unwatch(watch);
    return NULL;
}

void names_unwatch(struct names_watch *watch)
{
    if (!watch)
        return;
    struct names_watch **at = &watch->names->watches;
    while (*at != watch)
        at = &(*at)->next;
    *at = watch->next;
    for (size_t i = 0; i < watch->count; i++)
        release(watch->items[i]);
    loop_timer_stop(watch->first);
    free(watch->items);
    free(watch);
}

size_t names_addresses(const struct names_watch *watch, const char *text,
                       const uint32_t **ret_addresses)
{
    for (size_t i = 0; i < watch->count; i++) {
        const struct name *name = watch->items[i];
        if (strcmp(name->text, text) != 0)
            continue;
        *ret_addresses = name->addresses;
        return name->count;
    }
    return 0;
}
