/* Which execution goes to which worker: queues, turns, bounds, warmth, load. */
#include "controller/dispatch.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct registry registry;
static struct dispatch dispatch;
static struct list workers;
static struct error err;

static void ignore_gone(void *data, const struct function_version *version)
{
    (void)data;
    (void)version;
}

static void setup(void)
{
    struct dispatch_limits limits = {
        .length = 100, .length_per_function = 10, .payload_bytes = 1000};
    registry_init(&registry, ignore_gone, NULL);
    dispatch_init(&dispatch, &limits);
    list_init(&workers);
}

static void teardown(void)
{
    registry_deinit(&registry);
    list_for_each(link, &workers)
    {
        struct dispatch_worker *worker = list_entry(link, struct dispatch_worker, link);
        placement_leave(&dispatch.placement, worker->place);
        dispatch_worker_deinit(worker);
        free(worker);
    }
}

TestSuite(dispatch, .init = setup, .fini = teardown);

static struct function_entry *function(const char *name)
{
    struct function_entry *entry = registry_find(&registry, name);
    if (entry)
        return entry;
    entry = registry_entry(&registry, name, NULL);
    struct function_record record = {.state = FUNCTION_READY};
    function_spec_init(&record.spec);
    record.spec.name = strdup(name);
    record.spec.version = 1;
    cr_assert_eq(registry_add_version(&registry, entry, &record, NULL), 0);
    return entry;
}

static struct blob one_byte = {.bytes = "1", .len = 1};

/* Numbered by attempt, so that tests can tell them apart. */
static struct live_execution *enqueue(const char *name, int number)
{
    struct live_execution *execution = calloc(1, sizeof(*execution));
    list_init(&execution->queue_link);
    list_init(&execution->wait_link);
    execution->version = function(name)->current;
    execution->record.attempt = number;
    execution->payload = &one_byte;
    dispatch_enqueue(&dispatch, execution);
    return execution;
}

static struct dispatch_worker *add_worker(int64_t slots)
{
    struct dispatch_worker *worker = calloc(1, sizeof(*worker));
    worker->free_slots = worker->concurrency = slots;
    worker->reachable = true;
    worker->place = placement_enter(&dispatch.placement);
    placement_set_standing(&dispatch.placement, worker->place, PLACEMENT_TAKES);
    list_append(&workers, &worker->link);
    dispatch.places += slots;
    return worker;
}

static void warm(struct dispatch_worker *worker, const char *key, int idle, int busy)
{
    dispatch_warm_begin(worker);
    for (int i = 0; i < idle; i++)
        dispatch_warm_set(worker, key, true);
    for (int i = 0; i < busy; i++)
        dispatch_warm_set(worker, key, false);
    dispatch_warm_end(worker);
}

/* What the caller of dispatch_next() does with the pair. 0: none. */
static int64_t next(struct dispatch_worker **ret_worker)
{
    struct dispatch_worker *worker = NULL;
    struct live_execution *execution = dispatch_next(&dispatch, &workers, &worker);
    if (!execution)
        return 0;
    int64_t number = execution->record.attempt;
    dispatch_begun(&dispatch, execution);
    worker->free_slots--;
    worker->busy++;
    if (ret_worker)
        *ret_worker = worker;
    free(execution);
    return number;
}

static int64_t next_for(struct dispatch_worker *worker)
{
    struct live_execution *execution = dispatch_next_for(&dispatch, worker);
    int64_t number = execution ? execution->record.attempt : 0;
    if (execution) {
        dispatch_begun(&dispatch, execution);
        worker->free_slots--;
        worker->busy++;
    }
    free(execution);
    return number;
}

/* One of the function's that a worker had has ended. */
static void ended(const char *name)
{
    struct function_entry *entry = function(name);
    struct live_execution execution = {.version = entry->current, .shares = entry->reserved == 0};
    dispatch_ended(&dispatch, &execution);
}

static void drop_all(void)
{
    add_worker(1000);
    while (next(NULL))
        ;
}

Test(dispatch, nothing_without_work_or_without_a_worker)
{
    cr_expect_eq(next(NULL), 0);
    enqueue("a", 1);
    cr_expect_eq(next(NULL), 0);
    drop_all();
    cr_expect_eq(dispatch.length, 0);
    cr_expect_eq(dispatch.payload_bytes, 0);
    cr_expect(list_empty(&dispatch.waiting));
}

Test(dispatch, one_functions_executions_go_in_order)
{
    add_worker(5);
    for (int i = 1; i <= 5; i++)
        enqueue("a", i);
    for (int i = 1; i <= 5; i++)
        cr_expect_eq(next(NULL), i);
}

Test(dispatch, functions_take_turns)
{
    add_worker(10);
    for (int i = 1; i <= 3; i++)
        enqueue("a", i);
    enqueue("b", 11);
    enqueue("c", 21);
    enqueue("c", 22);
    static const int64_t expected[] = {1, 11, 21, 2, 22, 3, 0};
    for (size_t i = 0; i < 7; i++)
        cr_expect_eq(next(NULL), expected[i], "step %zu", i);
}

Test(dispatch, one_that_comes_back_is_the_first_of_its_function)
{
    enqueue("a", 1);
    struct live_execution *again = enqueue("a", 2);
    dispatch_remove(&dispatch, again);
    dispatch_enqueue_first(&dispatch, again);
    add_worker(2);
    cr_expect_eq(next(NULL), 2);
    cr_expect_eq(next(NULL), 1);
}

Test(dispatch, one_that_is_removed_is_not_given_out)
{
    enqueue("a", 1);
    struct live_execution *gone = enqueue("a", 2);
    struct live_execution *alone = enqueue("b", 3);
    dispatch_remove(&dispatch, gone);
    dispatch_remove(&dispatch, alone);
    cr_expect_eq(dispatch.length, 1);
    free(gone);
    free(alone);
    add_worker(5);
    cr_expect_eq(next(NULL), 1);
    cr_expect_eq(next(NULL), 0);
}

Test(dispatch, a_worker_gets_no_more_than_its_free_slots_and_its_concurrency)
{
    struct dispatch_worker *worker = add_worker(2);
    for (int i = 1; i <= 5; i++)
        enqueue("a", i);
    cr_expect_eq(next(NULL), 1);
    cr_expect_eq(next_for(worker), 2);
    cr_expect_eq(next(NULL), 0);
    worker->free_slots = 3; /* it says so, but it has two of its two */
    cr_expect_eq(next(NULL), 0);
    cr_expect_eq(next_for(worker), 0);
    worker->busy = 1;
    cr_expect_eq(next(NULL), 3);
    drop_all();
}

static void bound(const char *name, int64_t max_instances)
{
    function(name)->current->record.spec.max_instances = max_instances;
}

Test(dispatch, a_function_has_no_more_under_way_than_its_max_instances)
{
    struct dispatch_worker *one = add_worker(5), *other = add_worker(5);
    bound("a", 2);
    for (int i = 1; i <= 4; i++)
        enqueue("a", i);
    enqueue("b", 11);
    cr_expect_eq(next(NULL), 1);
    cr_expect_eq(next(NULL), 11);
    cr_expect_eq(next(NULL), 2);
    cr_expect_eq(next(NULL), 0, "two are under way, on whichever worker");
    cr_expect_eq(next_for(one), 0);
    cr_expect_eq(next_for(other), 0);
    cr_expect_eq(dispatch.length, 2);
    ended("a");
    cr_expect_eq(next_for(other), 3);
    cr_expect_eq(next(NULL), 0);
    ended("a");
    ended("a");
    cr_expect_eq(next(NULL), 4);
}

Test(dispatch, each_of_its_instances_takes_as_many_as_its_concurrency)
{
    add_worker(9);
    bound("a", 2);
    function("a")->current->record.spec.concurrency = 2;
    for (int i = 1; i <= 5; i++)
        enqueue("a", i);
    for (int i = 1; i <= 4; i++)
        cr_expect_eq(next(NULL), i);
    cr_expect_eq(next(NULL), 0);
    for (int i = 1; i <= 4; i++)
        ended("a");
    cr_expect_eq(next(NULL), 5);
}

Test(dispatch, a_function_at_its_bound_holds_nobody_up)
{
    struct dispatch_worker *worker = add_worker(20);
    bound("a", 1);
    warm(worker, "a/1", 5, 0);
    enqueue("a", 1);
    enqueue("a", 2);
    cr_expect_eq(next_for(worker), 1);
    enqueue("b", 11);
    enqueue("a", 3);
    cr_expect_eq(next_for(worker), 11, "not the one that it is warm for");
    cr_expect_eq(next_for(worker), 0);
    enqueue("b", 12);
    cr_expect_eq(next(NULL), 12);
    ended("a");
    cr_expect_eq(next(NULL), 2);
    ended("a");
    cr_expect_eq(next(NULL), 3);
}

Test(dispatch, one_that_leaves_the_queue_of_a_function_at_its_bound_takes_nothing_with_it)
{
    add_worker(5);
    bound("a", 1);
    enqueue("a", 1);
    struct live_execution *gone = enqueue("a", 2);
    cr_expect_eq(next(NULL), 1);
    cr_expect_eq(next(NULL), 0);
    cr_expect(dispatch_at_bound(gone));
    dispatch_remove(&dispatch, gone);
    free(gone);
    cr_expect_eq(next(NULL), 0);
    enqueue("a", 3);
    cr_expect_eq(next(NULL), 0);
    ended("a");
    cr_expect_eq(next(NULL), 3);
}

static void reserve(const char *name, int64_t places)
{
    function(name)->reserved = places;
    function(name)->concurrency = places;
    dispatch.places_reserved += places;
}

Test(dispatch, places_that_are_reserved_are_left_free_by_the_others)
{
    add_worker(4);
    dispatch.places = 4;
    reserve("own", 2);
    for (int i = 1; i <= 5; i++)
        enqueue("a", i);
    enqueue("b", 11);
    cr_expect_eq(next(NULL), 1);
    cr_expect_eq(next(NULL), 11, "the others take turns");
    cr_expect_eq(next(NULL), 0, "two places are free, and reserved");
    enqueue("own", 21);
    enqueue("own", 22);
    cr_expect_eq(next(NULL), 21);
    cr_expect_eq(next(NULL), 22);
    ended("b");
    ended("own");
    list_entry(workers.next, struct dispatch_worker, link)->busy = 2;
    list_entry(workers.next, struct dispatch_worker, link)->free_slots = 2;
    cr_expect_eq(next(NULL), 2);
    cr_expect_eq(next(NULL), 0);
    reserve("own", -2);
    dispatch.places_reserved = 0;
    cr_expect_eq(next(NULL), 3, "nothing is reserved any more");
    drop_all();
}

Test(dispatch, one_place_is_left_to_the_others_however_much_is_reserved)
{
    struct dispatch_worker *worker = add_worker(1);
    dispatch.places = 1;
    reserve("own", 5);
    enqueue("own", 1);
    enqueue("own", 2);
    enqueue("own", 3);
    enqueue("a", 11);
    int64_t order[3];
    for (int i = 0; i < 3; i++) {
        order[i] = next_for(worker);
        worker->busy = 0;
        worker->free_slots = 1;
        ended(order[i] == 11 ? "a" : "own");
    }
    cr_expect(order[0] == 11 || order[1] == 11, "they take turns");
    drop_all();
}

Test(dispatch, a_reservation_that_comes_or_goes_while_calls_wait)
{
    add_worker(9);
    dispatch.places = 9;
    enqueue("a", 1);
    reserve("a", 1);
    cr_expect_eq(next(NULL), 1, "found although it waited among the others");
    enqueue("a", 2);
    function("a")->reserved = 0;
    function("a")->concurrency = 0;
    cr_expect_eq(next(NULL), 2);
    cr_expect_eq(dispatch.length, 0);
}

Test(dispatch, an_asynchronous_one_waits_for_a_place_of_its_functions)
{
    add_worker(9);
    function("a")->concurrency = 1;
    function("a")->places = 1; /* of a call that a client waits for */
    struct live_execution *async = enqueue("a", 1);
    async->record.async = true;
    async->record.delivery.priority = PRIORITY_NORMAL;
    enqueue("b", 11);
    cr_expect_eq(next(NULL), 11);
    cr_expect_eq(next(NULL), 0);
    cr_expect(dispatch_at_bound(async));
    struct live_execution *sync = enqueue("a", 2);
    sync->has_place = true;
    cr_expect_eq(next(NULL), 2, "it came later, and has a place");
    function("a")->places = 0;
    dispatch_take_turns(&dispatch, function("a"));
    cr_expect_eq(next(NULL), 1);
}

/* Gives out what can be; how many that were. */
static int give_all(void)
{
    int count = 0;
    while (next(NULL))
        count++;
    return count;
}

static void end_one(const char *name, struct dispatch_worker *worker)
{
    struct live_execution execution = {.version = function(name)->current, .shares = true};
    dispatch_ended(&dispatch, &execution);
    worker->free_slots++;
    worker->busy--;
}

Test(dispatch, one_function_does_not_get_the_last_of_many_places)
{
    struct dispatch_worker *worker = add_worker(64);
    for (int i = 0; i < 64; i++)
        enqueue("hog", 1);
    cr_expect_eq(give_all(), 57);
    cr_expect_eq(next_for(worker), 0, "nor when the worker asks");
    enqueue("other", 2);
    cr_expect_eq(next(NULL), 2);
    end_one("hog", worker);
    cr_expect_eq(give_all(), 0, "six are free, and it has 56");
    end_one("other", worker);
    cr_expect_eq(give_all(), 1);
    drop_all();
}

Test(dispatch, a_second_one_with_much_to_do_leaves_something_too)
{
    add_worker(64);
    for (int i = 0; i < 64; i++) {
        enqueue("hog", 1);
        enqueue("pig", 2);
    }
    cr_expect_eq(give_all(), 61);
    enqueue("other", 3);
    cr_expect_eq(next(NULL), 3);
    drop_all();
}

Test(dispatch, few_places_may_all_be_taken)
{
    add_worker(8);
    for (int i = 0; i < 10; i++)
        enqueue("only", 1);
    cr_expect_eq(give_all(), 8);
    drop_all();
}

Test(dispatch, a_warm_one_that_has_its_share_does_not_go_first)
{
    struct dispatch_worker *worker = add_worker(64);
    for (int i = 0; i < 64; i++)
        enqueue("hog", 1);
    give_all();
    enqueue("other", 2);
    warm(worker, "hog/1", 7, 57);
    cr_expect_eq(next_for(worker), 2);
    drop_all();
}

Test(dispatch, unreachable_and_draining_workers_get_nothing)
{
    struct dispatch_worker *unreachable = add_worker(5), *draining = add_worker(5);
    unreachable->reachable = false;
    draining->draining = true;
    enqueue("a", 1);
    cr_expect_eq(next(NULL), 0);
    cr_expect_eq(next_for(draining), 0);
    cr_expect_eq(next_for(unreachable), 1, "its request is being answered");
}

Test(dispatch, an_idle_instance_beats_the_code_beats_the_load)
{
    struct dispatch_worker *idle = add_worker(2), *code = add_worker(2), *free_one = add_worker(9);
    struct dispatch_worker *chosen = NULL;
    warm(idle, "a/1", 1, 0);
    warm(code, "a/1", 0, 1);
    idle->busy = 1;
    for (int i = 1; i <= 3; i++)
        enqueue("a", i);
    next(&chosen);
    cr_expect_eq(chosen, idle);
    next(&chosen);
    cr_expect_eq(chosen, code, "the other is full");
    code->busy = 2;
    next(&chosen);
    cr_expect_eq(chosen, free_one);
}

Test(dispatch, among_equals_the_least_loaded_is_chosen)
{
    struct dispatch_worker *workers_of[3] = {add_worker(9), add_worker(9), add_worker(9)};
    for (int i = 1; i <= 9; i++) {
        enqueue("a", i);
        next(NULL);
    }
    for (size_t i = 0; i < 3; i++)
        cr_expect_eq(workers_of[i]->busy, 3);
}

Test(dispatch, a_worker_that_asks_gets_what_it_is_warm_for_within_patience)
{
    struct dispatch_worker *worker = add_worker(100);
    int before_cold = 0;
    warm(worker, "warm/1", 100, 0);
    enqueue("cold", 1);
    for (int i = 0; i < 10; i++)
        enqueue("warm", 2);
    while (next_for(worker) == 2)
        before_cold++;
    cr_expect_gt(before_cold, 3);
    cr_expect_lt(before_cold, 10, "the cold one starves");
    drop_all();
}

Test(dispatch, another_version_is_not_warm)
{
    struct dispatch_worker *old = add_worker(5), *other = add_worker(5);
    struct dispatch_worker *chosen = NULL;
    warm(old, "a/0", 3, 0);
    old->busy = 1;
    enqueue("a", 1);
    next(&chosen);
    cr_expect_eq(chosen, other);
}

Test(dispatch, what_is_known_of_instances_follows_assignments_and_reports)
{
    struct dispatch_worker *worker = add_worker(5);
    dispatch_warm_adjust(worker, "a/1", 1);
    const struct dispatch_warm *known = string_map_get(&worker->warm, "a/1");
    cr_assert(known);
    cr_expect_eq(known->places, 1);
    dispatch_warm_adjust(worker, "a/1", -1);
    dispatch_warm_adjust(worker, "a/1", -1);
    cr_expect_eq(known->places, 0, "never below none");
    warm(worker, "b/1", 2, 1);
    cr_expect_null(string_map_get(&worker->warm, "a/1"), "the worker does not name it any more");
    known = string_map_get(&worker->warm, "b/1");
    cr_expect_eq(known->places, 2);
    char key[16];
    dispatch_warm_begin(worker);
    for (int i = 0; i < 300; i++) {
        snprintf(key, sizeof(key), "f%d/1", i);
        dispatch_warm_set(worker, key, true);
    }
    dispatch_warm_end(worker);
    dispatch_warm_begin(worker);
    dispatch_warm_set(worker, "f7/1", false);
    dispatch_warm_end(worker);
    cr_expect_eq(worker->warm.count, 1);
}

Test(dispatch, each_bound_is_told_apart)
{
    for (int i = 0; i < 10; i++)
        enqueue("a", i + 1);
    cr_expect_eq(dispatch_check_room(&dispatch, function("b"), 1, &err), 0);
    cr_expect_eq(dispatch_check_room(&dispatch, function("a"), 1, &err), -1);
    cr_expect_eq(err.code, ERROR_THROTTLED);
    cr_expect(strstr(err.message, "of a wait"), "%s", err.message);
    cr_expect_eq(dispatch_check_room(&dispatch, function("b"), 991, &err), -1);
    cr_expect(strstr(err.message, "bytes"), "%s", err.message);
    dispatch.limits.length = 10;
    cr_expect_eq(dispatch_check_room(&dispatch, function("b"), 1, &err), -1);
    drop_all();
}

Test(dispatch, the_payloads_of_one_function_leave_room_for_those_of_others)
{
    dispatch.limits.payload_bytes = 90;
    dispatch.limits.length_per_function = 100;
    int accepted = 0;
    while (dispatch_check_room(&dispatch, function("hog"), 1, &err) == 0)
        enqueue("hog", ++accepted);
    cr_expect_eq(accepted, 80);
    cr_expect_eq(err.code, ERROR_THROTTLED);
    cr_expect(strstr(err.message, "of hog"), "%s", err.message);
    cr_expect_eq(dispatch_check_room(&dispatch, function("other"), 10, &err), 0);
    drop_all();
    cr_expect_eq(dispatch_check_room(&dispatch, function("hog"), 90, &err), 0, "a large one alone");
}

Test(dispatch, synchronous_ones_wait_in_order_of_acceptance_across_functions)
{
    struct live_execution *first = enqueue("a", 1);
    struct live_execution *later = calloc(1, sizeof(*later));
    list_init(&later->queue_link);
    list_init(&later->wait_link);
    later->version = function("a")->current;
    later->record.async = true;
    later->record.attempt = 9;
    dispatch_enqueue(&dispatch, later);
    struct live_execution *second = enqueue("b", 2);
    cr_expect_eq(list_first(&dispatch.waiting), &first->wait_link);
    dispatch_remove(&dispatch, first);
    free(first);
    cr_expect_eq(list_first(&dispatch.waiting), &second->wait_link);
    drop_all();
    cr_expect(list_empty(&dispatch.waiting));
}

/* ---- labels ---- */

static void label(struct dispatch_worker *worker, const char *list)
{
    struct labels labels = {0};
    cr_assert_eq(labels_parse(list, &labels, &err), 0, "%s", err.message);
    placement_set_labels(&dispatch.placement, worker->place, &labels);
}

static void require(const char *name, const char *label)
{
    cr_assert_eq(labels_add(&function(name)->current->record.spec.requires, label, &err), 0);
}

Test(dispatch, a_function_goes_to_a_worker_that_has_what_it_requires)
{
    struct dispatch_worker *plain = add_worker(9), *both = add_worker(9), *chosen = NULL;
    label(plain, "zone=b,gpu-less");
    label(both, "gpu=a100,zone=a");
    both->busy = 5; /* more loaded, and not warm */
    warm(plain, "a/1", 3, 0);
    require("a", "gpu");
    require("a", "zone=a");
    enqueue("a", 1);
    enqueue("a", 2);
    cr_expect_eq(next_for(plain), 0);
    cr_expect_eq(next(&chosen), 1);
    cr_expect_eq(chosen, both);
    cr_expect_eq(next_for(both), 2);
}

Test(dispatch, one_whose_workers_are_busy_or_missing_holds_nobody_up)
{
    struct dispatch_worker *plain = add_worker(9), *gpu = add_worker(1), *chosen = NULL;
    label(gpu, "gpu");
    require("g", "gpu");
    require("n", "nobody");
    plain->busy = 5;
    enqueue("n", 31);
    for (int i = 1; i <= 3; i++)
        enqueue("g", i);
    enqueue("b", 11);
    enqueue("b", 12);
    cr_expect_eq(next(&chosen), 1);
    cr_expect_eq(chosen, gpu);
    cr_expect_eq(next(&chosen), 11);
    cr_expect_eq(chosen, plain);
    cr_expect_eq(next_for(plain), 12);
    cr_expect_eq(next(NULL), 0);
    cr_expect_eq(dispatch.length, 3);
    gpu->busy = 0;
    gpu->free_slots = 1;
    cr_expect_eq(next_for(gpu), 2);
    label(gpu, "gpu,nobody");
    gpu->free_slots = gpu->concurrency = 9;
    int64_t first = next(NULL);
    cr_expect_eq(first + next(NULL), 31 + 3, "each has its turn again");
}

Test(dispatch, what_waits_for_a_label_is_found_when_its_worker_is_heard_again)
{
    struct dispatch_worker *gpu = add_worker(9);
    label(gpu, "gpu");
    placement_set_standing(&dispatch.placement, gpu->place, PLACEMENT_GONE);
    gpu->reachable = false;
    add_worker(9);
    require("g", "gpu");
    enqueue("g", 1);
    struct live_execution *gone = enqueue("g", 2);
    cr_expect_eq(next(NULL), 0);
    cr_expect_not(placement_possible(&dispatch.placement, function("g")->current));
    dispatch_remove(&dispatch, gone);
    free(gone);
    cr_expect_eq(next(NULL), 0);
    placement_set_standing(&dispatch.placement, gpu->place, PLACEMENT_TAKES);
    gpu->reachable = true;
    cr_expect_eq(next(NULL), 1);
}

Test(dispatch, what_is_missing_is_said)
{
    char text[512];
    struct dispatch_worker *one = add_worker(1), *other = add_worker(1);
    label(one, "gpu");
    label(other, "zone=a");
    require("g", "zone=a");
    require("g", "tpu=v4");
    placement_explain(&dispatch.placement, function("g")->current, text, sizeof(text));
    cr_expect_str_eq(text, "no worker in contact has the label tpu=v4, which function g requires");
    require("h", "gpu");
    require("h", "zone=a");
    placement_explain(&dispatch.placement, function("h")->current, text, sizeof(text));
    cr_expect_str_eq(text,
                     "no worker in contact has all labels that function h requires: gpu, zone=a");
    function("i")->current->record.spec.artifact_arch = strdup("aarch64");
    placement_explain(&dispatch.placement, function("i")->current, text, sizeof(text));
    cr_expect_str_eq(text,
                     "no worker in contact has the label arch=aarch64, which function i requires");
    cr_expect_not(placement_possible(&dispatch.placement, function("i")->current));
}
