/* The store's delivery of asynchronous executions: owners and leases, claims, retries, dead letters, keys. A part of the
 * common suite: store_suite.h comes before. */
#pragma once

#define MINUTE_MS 60000

static char claimed[4096];
static char claimed_ids[64][TIME_ID_LEN + 1];
static size_t claimed_count;
static bool claimed_more;

/* "function#attempt payload;" for each; an interrupted one has a "!" before it. */
static void claim_came(void *data, struct store_claimed *items, size_t count, bool more,
                       const struct error *failure)
{
    (void)data;
    outcomes++;
    failures += failure != NULL;
    claimed[0] = '\0';
    claimed_more = more;
    claimed_count = count;
    for (size_t i = 0; i < count; i++) {
        const struct execution *execution = &items[i].execution;
        size_t used = strlen(claimed);
        snprintf(claimed + used, sizeof(claimed) - used, "%s%s#%lld %.*s;",
                 execution->delivery.interrupted ? "!" : "", execution->function,
                 (long long)execution->attempt, (int)items[i].payload_len, items[i].payload);
        if (i < ARRAY_LENGTH(claimed_ids))
            memcpy(claimed_ids[i], execution->id, sizeof(claimed_ids[i]));
        cr_expect_eq(execution->status, EXECUTION_QUEUED);
        cr_expect(execution->async);
    }
}

static const char *claim(const char *owner, const char *function, int limit, size_t max_bytes)
{
    int before = outcomes;
    store_claim_executions(store, owner, function, limit, max_bytes, claim_came, NULL);
    wait_for(before + 1);
    cr_assert_eq(failures, 0);
    return claimed;
}

static void join(const char *owner)
{
    cr_assert_eq(store_join(store, owner, MINUTE_MS, &err), 0, "%s", err.message);
}

static void start_attempt(const char *owner, const char *id, int64_t attempt)
{
    int before = outcomes;
    store_start_execution(store, owner, id, attempt, 0, 5, done, NULL);
    wait_for(before + 1);
    cr_assert_eq(failures, 0, "%s", err.message);
}

static void finish_of(const char *function, const char *owner, const char *id,
                      enum execution_status status, bool dead)
{
    struct execution execution = make_async(function);
    strcpy(execution.id, id);
    execution.status = status;
    execution.finished_at_ns = 7;
    execution.result = strdup("\"r\"");
    execution.result_len = 3;
    execution.delivery.dead_at_ns = dead ? clock_realtime_ns() : 0;
    int before = outcomes;
    store_finish_execution(store, owner, &execution, done, NULL);
    cr_expect_null(execution.function, "its content was not taken");
    wait_for(before + 1);
    cr_assert_eq(failures, 0, "%s", err.message);
}

static void finish(const char *owner, const char *id, enum execution_status status, bool dead)
{
    finish_of("f", owner, id, status, dead);
}

static char shown[256];

static void show_came(void *data, const struct execution *execution, const struct error *failure)
{
    done(data, failure);
    if (execution)
        snprintf(shown, sizeof(shown), "%s#%lld%s%s%s", execution_status_name(execution->status),
                 (long long)execution->attempt, execution->result ? " with result" : "",
                 execution->has_error ? " with error" : "",
                 execution->delivery.dead_at_ns ? " dead" : "");
    else
        strcpy(shown, "none");
}

static const char *show(const char *id)
{
    int before = outcomes;
    store_get_execution(store, id, show_came, NULL);
    wait_for(before + 1);
    return shown;
}

static bool has_payload(const char *id)
{
    int before = outcomes;
    store_get_payload(store, id, code_came, NULL);
    wait_for(before + 1);
    bool found = failures == 0;
    cr_expect(found || err.code == ERROR_NOT_FOUND);
    failures = 0;
    free(steal_pointer(&got));
    return found;
}

static uint64_t next_due_ns;

static char go_on_after[FUNCTION_NAME_MAX + 1];
static size_t backlog_count;

static void backlog_came(void *data, const char *const *functions, size_t count,
                         const char *next_after, uint64_t due_ns, const struct error *failure)
{
    done(data, failure);
    snprintf(go_on_after, sizeof(go_on_after), "%s", next_after ? next_after : "");
    backlog_count = count;
    if (count > 100)
        return;
    listed[0] = '\0';
    next_due_ns = due_ns;
    for (size_t i = 0; i < count; i++) {
        strcat(listed, functions[i]);
        strcat(listed, " ");
    }
}

static const char *backlog(uint64_t now_ns)
{
    int before = outcomes;
    store_read_backlog(store, now_ns, NULL, backlog_came, NULL);
    wait_for(before + 1);
    cr_assert_eq(failures, 0, "%s", err.message);
    return listed;
}

static int64_t free_count;

static void count_free_came(void *data, int64_t count, const struct error *failure)
{
    done(data, failure);
    free_count = count;
}

Test(store, a_backlog_of_many_functions_is_read_page_by_page)
{
    for (int i = 0; i < STORE_BACKLOG_MAX + 3; i++) {
        char name[16];
        snprintf(name, sizeof(name), "f%04d", i);
        struct function_record record = make_record(name, 1, FUNCTION_READY);
        store_add_function(store, &record, NULL, 0, NULL, NULL);
        function_record_deinit(&record);
        accept_free(name, "1");
    }
    backlog(0);
    cr_expect_eq(backlog_count, STORE_BACKLOG_MAX);
    cr_expect_str_eq(go_on_after, "f0999");
    int before = outcomes;
    store_read_backlog(store, 0, go_on_after, backlog_came, NULL);
    wait_for(before + 1);
    cr_expect_str_eq(listed, "f1000 f1001 f1002 ");
    cr_expect_str_eq(go_on_after, "");
    before = outcomes;
    store_count_free(store, 1000000, count_free_came, NULL);
    wait_for(before + 1);
    cr_expect_eq(free_count, STORE_BACKLOG_MAX + 3);
    store_count_free(store, 10, count_free_came, NULL);
    wait_for(before + 2);
    cr_expect_eq(free_count, 10);
    int64_t now = 0;
    cr_assert_eq(store_count_free_now(store, 5, &now, &err), 0);
    cr_expect_eq(now, 5);
}

/* ---- claims ---- */

Test(store, what_waits_is_claimed_once_by_priority_and_age)
{
    struct store_acceptance acceptance = {0};
    join("one");
    accept_free("f", "[1]");
    accept_as("f", "[2]", PRIORITY_LOW, &acceptance);
    accept_as("f", "[3]", PRIORITY_HIGH, &acceptance);
    accept_free("f", "[4]");
    accept_free("g", "[5]");
    cr_expect_str_eq(claim("one", "f", 3, SIZE_MAX), "f#1 [3];f#1 [1];f#1 [4];");
    cr_expect(claimed_more);
    cr_expect_str_eq(claim("one", "f", 3, SIZE_MAX), "f#1 [2];");
    cr_expect_not(claimed_more);
    cr_expect_str_eq(claim("one", "f", 3, SIZE_MAX), "");
    cr_expect_str_eq(claim("one", "g", 3, SIZE_MAX), "g#1 [5];");
}

/* They share transactions, and with PostgreSQL statements; one in three has an owner, one a payload that is large, and one comes again. */
Test(store, many_that_are_accepted_at_once_are_all_there_as_they_are)
{
    struct store_acceptance free_one = {0}, owned = {.owner = "one"};
    char expected[4096] = "", payload[32];
    join("one");
    int before = outcomes;
    for (int i = 0; i < 30; i++) {
        const struct store_acceptance *acceptance = i % 3 == 2 ? &owned : &free_one;
        struct execution execution = make_async("f");
        int len = snprintf(payload, sizeof(payload), "[%d]", i);
        if (i % 3 != 2)
            snprintf(expected + strlen(expected), sizeof(expected) - strlen(expected), "f#1 %s;",
                     payload);
        struct execution again = make_async("f");
        strcpy(again.id, execution.id);
        store_accept_execution(store, &execution, strdup(payload), (size_t)len, acceptance,
                               accepted, NULL);
        if (i == 10)
            store_accept_execution(store, &again, strdup("again"), 5, acceptance, accepted, NULL);
        else
            execution_deinit(&again);
    }
    struct execution execution = make_async("g");
    store_accept_execution(store, &execution, calloc(1, 100000), 100000, &free_one, accepted, NULL);
    wait_for(before + 32);
    cr_assert_eq(failures, 0, "%s", err.message);
    cr_expect_str_eq(claim("two", "f", 64, SIZE_MAX), expected);
    cr_expect_eq(list_executions("f", -1, 100, NULL), 30);
    claim("two", "g", 1, SIZE_MAX);
    cr_expect_eq(claimed_count, 1);
}

Test(store, a_claim_ends_at_its_bytes_but_takes_one)
{
    join("one");
    for (int i = 0; i < 5; i++)
        accept_free("f", "\"12345678\"");
    cr_expect_str_eq(claim("one", "f", 5, 1), "f#1 \"12345678\";");
    cr_expect(claimed_more);
    claim("one", "f", 5, 25);
    cr_expect_eq(claimed_count, 2);
    claim("one", "f", 5, 1000);
    cr_expect_eq(claimed_count, 2);
    cr_expect_not(claimed_more);
}

Test(store, what_is_accepted_with_an_owner_is_not_free)
{
    struct store_acceptance acceptance = {.owner = "one"};
    join("one");
    accept_as("f", "1", PRIORITY_NORMAL, &acceptance);
    cr_expect_str_eq(claim("one", "f", 3, SIZE_MAX), "");
    cr_expect_str_eq(backlog(0), "");
}

Test(store, only_the_owner_changes_an_execution)
{
    char id[TIME_ID_LEN + 1];
    join("one");
    strcpy(id, accept_free("f", "1"));
    start_attempt("one", id, 5);
    cr_expect_str_eq(show(id), "queued#1", "nobody owns it yet");
    claim("one", "f", 1, SIZE_MAX);
    start_attempt("two", id, 5);
    finish("two", id, EXECUTION_SUCCEEDED, false);
    cr_expect_str_eq(show(id), "queued#1");
    start_attempt("one", id, 2);
    cr_expect_str_eq(show(id), "running#2");
    finish("one", id, EXECUTION_SUCCEEDED, false);
    cr_expect_str_eq(show(id), "succeeded#1 with result");
    cr_expect_not(has_payload(id));
    start_attempt("one", id, 9);
    finish("one", id, EXECUTION_FAILED, false);
    cr_expect_str_eq(show(id), "succeeded#1 with result", "a final one stays as it is");
}

/* ---- leases ---- */

Test(store, what_a_lost_owner_had_is_free_and_what_was_under_way_goes_first)
{
    char ids[3][TIME_ID_LEN + 1];
    join("one");
    for (int i = 0; i < 3; i++)
        strcpy(ids[i], accept_free("f", (char[]){(char)('1' + i), '\0'}));
    claim("one", "f", 10, SIZE_MAX);
    start_attempt("one", ids[2], 1);
    int before = outcomes;
    store_leave(store, "one", done, NULL);
    wait_for(before + 1);
    join("two");
    finish("one", ids[0], EXECUTION_SUCCEEDED, false);
    cr_expect_str_eq(show(ids[0]), "queued#1", "its lease has ended");
    cr_expect_str_eq(claim("two", "f", 10, SIZE_MAX), "!f#2 3;f#1 1;f#1 2;");
    start_attempt("two", ids[2], 2);
    cr_expect_str_eq(show(ids[2]), "running#2");
}

Test(store, interrupted_ones_can_be_claimed_before_all_else)
{
    char id[TIME_ID_LEN + 1];
    join("one");
    accept_free("f", "1");
    strcpy(id, accept_free("g", "2"));
    claim("one", "g", 1, SIZE_MAX);
    start_attempt("one", id, 1);
    int before = outcomes;
    store_leave(store, "one", done, NULL);
    wait_for(before + 1);
    join("two");
    cr_assert_eq(store_claim_interrupted(store, "two", claim_came, NULL, &err), 0);
    cr_expect_str_eq(claimed, "!g#2 2;");
    cr_expect_str_eq(backlog(0), "", "there is no function f");
}

/* ---- retries ---- */

Test(store, a_retry_waits_until_it_is_due)
{
    char id[TIME_ID_LEN + 1];
    put_function("f", 1, FUNCTION_READY, "x");
    join("one");
    strcpy(id, accept_free("f", "1"));
    claim("one", "f", 1, SIZE_MAX);
    start_attempt("one", id, 1);

    struct execution execution = make_async("f");
    strcpy(execution.id, id);
    execution.attempt = 2;
    execution.delivery.failures = 1;
    execution.has_error = true;
    execution.error = (struct execution_error){strdup("E"), strdup("m"), 3, NULL, NULL};
    store_retry_execution(store, "one", &execution, 5000, NULL, NULL);
    cr_expect_str_eq(claim("one", "f", 1, SIZE_MAX), "");
    cr_expect_str_eq(backlog(4999), "");
    cr_expect_eq(next_due_ns, 5000);
    cr_expect_str_eq(show(id), "queued#2 with error");
    cr_expect_str_eq(backlog(5000), "f ");
    cr_expect_eq(next_due_ns, 0);
    cr_expect_str_eq(claim("one", "f", 1, SIZE_MAX), "f#2 1;");
}

/* ---- what waits ---- */

Test(store, the_backlog_names_functions_and_what_waits_for_none_is_cancelled)
{
    char id[TIME_ID_LEN + 1];
    put_function("a", 1, FUNCTION_READY, "x");
    put_function("b", 1, FUNCTION_READY, "x");
    for (int i = 0; i < 3; i++) {
        accept_free("a", "1");
        accept_free("b", "1");
    }
    strcpy(id, accept_free("gone", "1"));
    cr_expect_str_eq(backlog(0), "a b ");
    cr_expect_str_eq(show(id), "cancelled#1 with error");
    store_delete_function(store, "b", NULL, NULL);
    cr_expect_str_eq(backlog(0), "a ");
    cr_expect_eq(list_executions("b", EXECUTION_CANCELLED, 10, NULL), 3);
}

/* ---- dead letters ---- */

static int list_dead(const char *function)
{
    struct execution_query query = {
        .function = function, .status = -1, .dead = true, .limit = 1000};
    int before = outcomes;
    store_list_executions(store, &query, page_came, NULL);
    wait_for(before + 1);
    cr_assert_eq(failures, 0, "%s", err.message);
    return page_count;
}

static void make_dead(const char *function, char id[TIME_ID_LEN + 1])
{
    strcpy(id, accept_free(function, "[7]"));
    claim("one", function, 1, SIZE_MAX);
    start_attempt("one", id, 1);
    finish_of(function, "one", id, EXECUTION_FAILED, true);
}

static int64_t counted;

static void count_came(void *data, int64_t count, const struct error *failure)
{
    done(data, failure);
    counted = count;
}

static int64_t redrive(const char *id, const char *function)
{
    int before = outcomes;
    store_redrive_dead(store, id, function, clock_realtime_ns(), count_came, NULL);
    wait_for(before + 1);
    cr_assert_eq(failures, 0, "%s", err.message);
    return counted;
}

static int64_t purge(const char *id, const char *function)
{
    int before = outcomes;
    store_purge_dead(store, id, function, count_came, NULL);
    wait_for(before + 1);
    cr_assert_eq(failures, 0, "%s", err.message);
    return counted;
}

Test(store, a_dead_letter_is_listed_and_can_be_queued_again)
{
    char id[TIME_ID_LEN + 1];
    join("one");
    make_dead("f", id);
    cr_expect_str_eq(show(id), "failed#1 with result dead");
    cr_expect(has_payload(id));
    cr_expect_eq(list_dead(NULL), 1);
    cr_expect_eq(list_dead("f"), 1);
    cr_expect_eq(list_dead("g"), 0);
    cr_expect_eq(redrive(id, NULL), 1);
    cr_expect_eq(list_dead(NULL), 0);
    cr_expect_str_eq(show(id), "queued#2");
    cr_expect_str_eq(claim("one", "f", 1, SIZE_MAX), "f#2 [7];");
    cr_expect_eq(redrive(id, NULL), 0);
}

Test(store, dead_letters_are_queued_again_by_function_and_all)
{
    char id[TIME_ID_LEN + 1];
    join("one");
    for (int i = 0; i < 3; i++)
        make_dead("f", id);
    make_dead("g", id);
    make_dead("h", id);
    cr_expect_eq(redrive(NULL, "f"), 3);
    cr_expect_eq(list_dead(NULL), 2);
    cr_expect_eq(redrive(NULL, NULL), 2);
    cr_expect_eq(list_dead(NULL), 0);
}

Test(store, what_is_queued_again_is_counted_once_when_another_call_fails_beside_it)
{
    char id[TIME_ID_LEN + 1];
    join("one");
    for (int i = 0; i < 3; i++)
        make_dead("f", id);
    int before = outcomes;
    /* Large enough that what follows gathers behind it and shares a transaction. */
    add_code("large", calloc(1, 8000000), 8000000, done);
    store_redrive_dead(store, NULL, "f", 1, count_came, NULL);
    store_get_code(store, "missing", code_came, NULL);
    wait_for(before + 3);
    cr_expect_eq(failures, 1, "only the one that asked for what is not there has failed");
    cr_expect_eq(counted, 3);
    failures = 0;
}

Test(store, dead_letters_are_purged_by_id_by_function_and_all)
{
    char id[TIME_ID_LEN + 1], last[TIME_ID_LEN + 1];
    join("one");
    make_dead("f", id);
    make_dead("f", last);
    make_dead("g", last);
    make_dead("h", last);
    put_execution("f", EXECUTION_FAILED);
    cr_expect_eq(purge(id, NULL), 1);
    cr_expect_eq(purge(id, NULL), 0);
    cr_expect_eq(purge(NULL, "f"), 1);
    cr_expect_eq(purge(NULL, NULL), 2);
    cr_expect_eq(list_dead(NULL), 0);
    cr_expect_eq(list_executions(NULL, -1, 10, NULL), 1, "others stay");
}

Test(store, retention_takes_dead_letters_by_their_own_age)
{
    char id[TIME_ID_LEN + 1];
    uint64_t later_ns = clock_realtime_ns() + 3600ULL * 1000000000;
    join("one");
    make_dead("f", id);
    expire(later_ns, 0);
    cr_expect_eq(list_dead(NULL), 1);
    struct store_retention retention = {.before_ns = later_ns, .dead_before_ns = later_ns};
    expire_all(&retention);
    cr_expect_eq(list_dead(NULL), 0);
}

/* ---- idempotency keys ---- */

Test(store, a_key_gives_the_same_execution_until_it_ends)
{
    char first[TIME_ID_LEN + 1];
    struct store_acceptance acceptance = {.key = "k", .key_until_ns = 100, .now_ns = 10};
    strcpy(first, accept_as("f", "1", PRIORITY_NORMAL, &acceptance));
    cr_expect_str_eq(accept_as("f", "2", PRIORITY_NORMAL, &acceptance), first);
    cr_expect_str_neq(accept_as("g", "3", PRIORITY_NORMAL, &acceptance), first);
    cr_expect_eq(list_executions("f", -1, 10, NULL), 1);
    acceptance.now_ns = 100;
    cr_expect_str_neq(accept_as("f", "4", PRIORITY_NORMAL, &acceptance), first);
    cr_expect_eq(list_executions("f", -1, 10, NULL), 2);
}

Test(store, two_with_one_key_in_one_batch_are_one)
{
    struct store_acceptance acceptance = {.key = "k", .key_until_ns = 100, .now_ns = 10};
    for (int i = 0; i < 10; i++) {
        struct execution execution = make_async("f");
        store_accept_execution(store, &execution, strdup("1"), 1, &acceptance, accepted, NULL);
    }
    wait_for(10);
    cr_expect_eq(failures, 0);
    cr_expect_eq(list_executions("f", -1, 10, NULL), 1);
    cr_expect_str_eq(accepted_id, page_ids[0]);
}

Test(store, retention_takes_keys_that_have_ended)
{
    char first[TIME_ID_LEN + 1];
    struct store_acceptance acceptance = {.key = "k", .key_until_ns = 100, .now_ns = 10};
    struct store_retention retention = {.now_ns = 100};
    strcpy(first, accept_as("f", "1", PRIORITY_NORMAL, &acceptance));
    expire_all(&retention);
    cr_expect_str_eq(accept_as("f", "1", PRIORITY_NORMAL, &acceptance), first);
    retention.now_ns = 101;
    expire_all(&retention);
    cr_expect_str_neq(accept_as("f", "1", PRIORITY_NORMAL, &acceptance), first);
}

Test(store, an_acceptance_whose_outcome_nobody_knows_is_withdrawn)
{
    char first[TIME_ID_LEN + 1];
    struct store_acceptance acceptance = {.key = "k", .key_until_ns = 100, .now_ns = 10};
    strcpy(first, accept_as("f", "1", PRIORITY_NORMAL, &acceptance));
    store_withdraw_execution(store, first, "f", "k", NULL, NULL);
    cr_expect_str_eq(show(first), "none");
    cr_expect_str_neq(accept_as("f", "1", PRIORITY_NORMAL, &acceptance), first);
    char begun[TIME_ID_LEN + 1];
    join("one");
    strcpy(begun, accept_free("g", "1"));
    claim("one", "g", 1, SIZE_MAX);
    start_attempt("one", begun, 1);
    store_withdraw_execution(store, begun, "g", NULL, NULL, NULL);
    cr_expect_str_eq(show(begun), "running#1", "what has begun goes on");
}
