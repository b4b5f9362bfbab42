/* Which execution goes to which worker: see dispatch.h. */
#include "controller/dispatch.h"

#include "controller/admission.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A worker that asks looks at so many functions for one that it is warm for. */
#define WARM_SEARCH 16
/* A function at the head of the list is passed over at most so often for a warm one. */
#define PATIENCE 8
/* A function has at most so many times as many under way as places are free, and as many bytes waiting as are left to others. */
#define SHARE 8

void dispatch_init(struct dispatch *dispatch, const struct dispatch_limits *limits)
{
    *dispatch = (struct dispatch){.limits = *limits};
    list_init(&dispatch->functions);
    list_init(&dispatch->reserved);
    list_init(&dispatch->unplaced);
    list_init(&dispatch->waiting);
}

/* ---- queues ---- */

int dispatch_check_room(const struct dispatch *dispatch, const struct function_entry *function,
                        size_t payload_len, struct error *err)
{
    const struct dispatch_limits *limits = &dispatch->limits;
    /* Asynchronous ones in memory are few, and must not take the room of those that clients wait for. */
    size_t waiting =
        function->queue_length > function->window ? function->queue_length - function->window : 0;
    if (waiting >= limits->length_per_function)
        return error_set(err, ERROR_THROTTLED,
                         "%zu invocations of %s wait for a worker already, which is the most that "
                         "may; try again later",
                         waiting, function->name);
    if (dispatch->length >= limits->length)
        return error_set(err, ERROR_THROTTLED,
                         "%zu invocations wait for a worker already, which is the most that may; "
                         "try again later",
                         dispatch->length);
    if (dispatch->payload_bytes + payload_len > limits->payload_bytes)
        return error_set(err, ERROR_THROTTLED,
                         "the payloads that wait for a worker take %zu bytes already, and %zu is "
                         "the most that they may; try again later",
                         dispatch->payload_bytes, limits->payload_bytes);
    if (function->queue_bytes > 0 &&
        function->queue_bytes + payload_len >
            SHARE * (limits->payload_bytes - dispatch->payload_bytes - payload_len))
        return error_set(
            err, ERROR_THROTTLED,
            "the payloads of %s that wait for a worker take %zu bytes already, and what "
            "is left of %zu is for other functions; try again later",
            function->name, function->queue_bytes, limits->payload_bytes);
    return 0;
}

static struct list *turns_of(struct dispatch *dispatch, const struct function_entry *function)
{
    return function->reserved > 0 ? &dispatch->reserved : &dispatch->functions;
}

/* One that was set aside, at its bound or for want of a worker, may have a turn again. */
void dispatch_take_turns(struct dispatch *dispatch, struct function_entry *function)
{
    if (function->unplaced) {
        function->unplaced = false;
        list_remove(&function->waiting_link);
    }
    if (function->queue_length > 0 && list_empty(&function->waiting_link))
        list_append(turns_of(dispatch, function), &function->waiting_link);
}

static size_t payload_len(const struct live_execution *execution)
{
    return execution->payload ? execution->payload->len : 0;
}

static void count_in(struct dispatch *dispatch, struct live_execution *execution)
{
    struct function_entry *function = execution->version->function;
    if (function->queue_length++ == 0)
        function->passed_over = 0;
    dispatch_take_turns(dispatch, function); /* its first one may be another now */
    dispatch->length++;
    function->queue_bytes += payload_len(execution);
    dispatch->payload_bytes += payload_len(execution);
    if (!execution->record.async)
        list_append(&dispatch->waiting, &execution->wait_link);
}

/* 0: a client waits; else by the priority that it was accepted with. */
static int64_t rank(const struct live_execution *execution)
{
    return execution->record.async ? execution->record.delivery.priority : 0;
}

/* Behind all of its rank. Those behind it are asynchronous, of which a window waits in memory. */
static void insert_by_rank(struct list *queue, struct live_execution *execution)
{
    struct list *before = queue->previous;
    while (before != queue &&
           rank(list_entry(before, struct live_execution, queue_link)) > rank(execution))
        before = before->previous;
    list_prepend(before, &execution->queue_link);
}

void dispatch_enqueue(struct dispatch *dispatch, struct live_execution *execution)
{
    insert_by_rank(&execution->version->function->queue, execution);
    count_in(dispatch, execution);
}

void dispatch_enqueue_first(struct dispatch *dispatch, struct live_execution *execution)
{
    list_prepend(&execution->version->function->queue, &execution->queue_link);
    count_in(dispatch, execution);
}

void dispatch_remove(struct dispatch *dispatch, struct live_execution *execution)
{
    struct function_entry *function = execution->version->function;
    list_remove(&execution->queue_link);
    list_remove(&execution->wait_link);
    dispatch->length--;
    function->queue_bytes -= payload_len(execution);
    dispatch->payload_bytes -= payload_len(execution);
    if (--function->queue_length == 0)
        list_remove(&function->waiting_link);
    dispatch_take_turns(dispatch, function);
}

static struct live_execution *head_of(const struct function_entry *function)
{
    return list_entry(list_first(&function->queue), struct live_execution, queue_link);
}

/* Takes a function's first execution; its turn is over. */
static struct live_execution *take_head(struct dispatch *dispatch, struct function_entry *function)
{
    struct live_execution *execution = head_of(function);
    dispatch_remove(dispatch, execution);
    function->passed_over = 0;
    if (function->queue_length > 0) {
        list_remove(&function->waiting_link);
        dispatch_take_turns(dispatch, function);
    }
    return execution;
}

/* ---- choosing ---- */

static bool has_room(const struct dispatch_worker *worker)
{
    return worker->free_slots > 0 && (int64_t)worker->busy < worker->concurrency &&
           !worker->draining;
}

/* 2: a place in an instance, 1: the code, 0: neither. */
static int warmth(const struct dispatch_worker *worker, const char *key)
{
    const struct dispatch_warm *warm = string_map_get(&worker->warm, key);
    return warm ? (warm->places > 0 ? 2 : 1) : 0;
}

static struct dispatch_worker *choose_worker(const struct dispatch *dispatch, struct list *workers,
                                             struct function_version *version)
{
    struct dispatch_worker *best = NULL;
    int best_warmth = -1;
    list_for_each(link, workers)
    {
        struct dispatch_worker *worker = list_entry(link, struct dispatch_worker, link);
        if (!worker->reachable || !has_room(worker) ||
            !placement_fits(&dispatch->placement, version, worker->place))
            continue;
        int warm = warmth(worker, version->key);
        if (warm > best_warmth || (warm == best_warmth && worker->busy < best->busy)) {
            best = worker;
            best_warmth = warm;
        }
    }
    return best;
}

bool dispatch_at_bound(const struct live_execution *execution)
{
    const struct function_entry *function = execution->version->function;
    const struct function_spec *spec = &execution->version->record.spec;
    int64_t max = spec->max_instances * spec->concurrency;
    return (max > 0 && (int64_t)function->under_way >= max) ||
           (!execution->has_place && !admission_place_free(function));
}

bool dispatch_shared_full(const struct dispatch *dispatch)
{
    int64_t shared = dispatch->places - dispatch->places_reserved;
    return dispatch->places_reserved > 0 && (int64_t)dispatch->sharing >= (shared > 1 ? shared : 1);
}

/* It has so much under way that what is free is left to others, who may need it at once while calls of this one last for minutes. With one
 * function, a ninth of many places stays free; with more of this kind each has less, and something is free still. */
static bool has_its_share(const struct dispatch *dispatch, const struct function_entry *function)
{
    int64_t shared = dispatch->places - dispatch->places_reserved;
    int64_t available = shared - (int64_t)dispatch->sharing;
    return (int64_t)function->under_way >= SHARE * (available > 1 ? available : 1);
}

/* Those that nobody could run are looked at anew when the workers are others. */
static void review_unplaced(struct dispatch *dispatch)
{
    if (dispatch->placed == dispatch->placement.generation)
        return;
    dispatch->placed = dispatch->placement.generation;
    list_for_each(link, &dispatch->unplaced)
        dispatch_take_turns(dispatch, list_entry(link, struct function_entry, waiting_link));
}

/* Whether it can have a turn now, in this list; if not, it is set aside until dispatch_take_turns(), or goes to the list where
 * it belongs, because its reservation was made or given up since it came here. */
static bool has_turn(struct dispatch *dispatch, struct list *turns, struct function_entry *function)
{
    struct live_execution *head = head_of(function);
    bool misplaced = turns_of(dispatch, function) != turns;
    bool possible = placement_possible(&dispatch->placement, head->version);
    if (!misplaced && possible && !dispatch_at_bound(head))
        return true;
    list_remove(&function->waiting_link);
    if (misplaced) {
        dispatch_take_turns(dispatch, function);
    } else if (!possible) {
        list_append(&dispatch->unplaced, &function->waiting_link);
        function->unplaced = true;
    }
    return false;
}

/* The first in a list of turns that workers at these places may run. Those that have their share keep their turn: they are few, having much. */
static struct function_entry *first_in(struct dispatch *dispatch, struct list *turns,
                                       const uint64_t places[PLACEMENT_PLACES / 64])
{
    bool shared = turns == &dispatch->functions;
    list_for_each(link, turns)
    {
        struct function_entry *function = list_entry(link, struct function_entry, waiting_link);
        if (has_turn(dispatch, turns, function) && !(shared && has_its_share(dispatch, function)) &&
            placement_fits_any(&dispatch->placement, head_of(function)->version, places))
            return function;
    }
    return NULL;
}

/* The function whose turn it is: those with places of their own and the others take turns, too. */
static struct function_entry *first_function(struct dispatch *dispatch,
                                             const uint64_t places[PLACEMENT_PLACES / 64])
{
    review_unplaced(dispatch);
    struct function_entry *reserved = first_in(dispatch, &dispatch->reserved, places);
    struct function_entry *shared =
        dispatch_shared_full(dispatch) ? NULL : first_in(dispatch, &dispatch->functions, places);
    if (!reserved) /* the other look may have found one that belongs here */
        reserved = first_in(dispatch, &dispatch->reserved, places);
    if (!shared || !reserved)
        return shared ? shared : reserved;
    return dispatch->reserved_had_turn ? shared : reserved;
}

void dispatch_begun(struct dispatch *dispatch, struct live_execution *execution)
{
    execution->version->function->under_way++;
    execution->shares = execution->version->function->reserved == 0;
    dispatch->sharing += execution->shares;
    dispatch->reserved_had_turn = !execution->shares;
}

void dispatch_ended(struct dispatch *dispatch, struct live_execution *execution)
{
    execution->version->function->under_way--;
    dispatch->sharing -= execution->shares;
    execution->shares = false;
    dispatch_take_turns(dispatch, execution->version->function);
}

static void add_place(uint64_t places[PLACEMENT_PLACES / 64], const struct dispatch_worker *worker)
{
    places[worker->place / 64] |= UINT64_C(1) << (worker->place % 64);
}

/* The places of workers that can take one and can be told so. False: of none. */
static bool find_room(struct list *workers, uint64_t places[PLACEMENT_PLACES / 64])
{
    bool any = false;
    list_for_each(link, workers)
    {
        const struct dispatch_worker *worker = list_entry(link, struct dispatch_worker, link);
        if (!worker->reachable || !has_room(worker))
            continue;
        add_place(places, worker);
        any = true;
    }
    return any;
}

/* A function whose workers are all busy lets the next have its turn. */
struct live_execution *dispatch_next(struct dispatch *dispatch, struct list *workers,
                                     struct dispatch_worker **ret_worker)
{
    uint64_t room[PLACEMENT_PLACES / 64] = {0};
    if (dispatch->length == 0 || !find_room(workers, room))
        return NULL;
    struct function_entry *function = first_function(dispatch, room);
    if (!function)
        return NULL;
    *ret_worker = choose_worker(dispatch, workers, head_of(function)->version);
    return take_head(dispatch, function);
}

struct live_execution *dispatch_next_for(struct dispatch *dispatch, struct dispatch_worker *worker)
{
    uint64_t place[PLACEMENT_PLACES / 64] = {0};
    if (dispatch->length == 0 || !has_room(worker))
        return NULL;
    add_place(place, worker);
    struct function_entry *head = first_function(dispatch, place);
    if (!head)
        return NULL;
    int looked_at = 0;
    if (head->reserved == 0 && head->passed_over < PATIENCE) {
        list_for_each(link, &dispatch->functions)
        {
            struct function_entry *function = list_entry(link, struct function_entry, waiting_link);
            if (looked_at++ == WARM_SEARCH)
                break;
            const struct live_execution *execution = head_of(function);
            if (dispatch_at_bound(execution) || has_its_share(dispatch, function) ||
                warmth(worker, execution->version->key) < 2 ||
                !placement_fits(&dispatch->placement, execution->version, worker->place))
                continue;
            if (function != head)
                head->passed_over++;
            return take_head(dispatch, function);
        }
    }
    return take_head(dispatch, head);
}

/* ---- what a worker is warm for ---- */

static struct dispatch_warm *warm_entry(struct dispatch_worker *worker, const char *key)
{
    struct dispatch_warm *warm = string_map_get(&worker->warm, key);
    if (warm)
        return warm;
    warm = calloc(1, sizeof(*warm));
    if (!warm)
        return NULL;
    snprintf(warm->key, sizeof(warm->key), "%s", key);
    if (string_map_put(&worker->warm, warm->key, warm, NULL) < 0) {
        free(warm);
        return NULL;
    }
    return warm;
}

void dispatch_warm_begin(struct dispatch_worker *worker)
{
    string_map_for_each(slot, &worker->warm)
    {
        struct dispatch_warm *warm = slot->value;
        warm->places = 0;
        warm->seen = 0;
    }
}

void dispatch_warm_set(struct dispatch_worker *worker, const char *key, int64_t free_places)
{
    struct dispatch_warm *warm = warm_entry(worker, key);
    if (!warm)
        return;
    warm->seen++;
    if (free_places > 0)
        warm->places += free_places < FUNCTION_PLACES_MAX ? free_places : FUNCTION_PLACES_MAX;
}

static bool is_unseen(const void *value)
{
    return ((const struct dispatch_warm *)value)->seen == 0;
}

void dispatch_warm_end(struct dispatch_worker *worker)
{
    string_map_sweep(&worker->warm, is_unseen, free);
}

void dispatch_warm_adjust(struct dispatch_worker *worker, const char *key, int by)
{
    struct dispatch_warm *warm = warm_entry(worker, key);
    if (warm && (by > 0 || warm->places > 0))
        warm->places += by;
}

void dispatch_worker_deinit(struct dispatch_worker *worker)
{
    string_map_for_each(slot, &worker->warm) free(slot->value);
    string_map_deinit(&worker->warm);
}
