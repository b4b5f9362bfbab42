/* The store's callbacks: due with the end, claimed by one, fenced, gone with their execution. A part of the common suite:
 * store_suite_delivery.h comes before. */
#pragma once

static char told[1024];
static int64_t told_fence;

/* "url secret#attempt;" for each. */
static void callbacks_came(void *data, struct store_callback *items, size_t count, uint64_t due_ns,
                           const struct error *failure)
{
    done(data, failure);
    told[0] = '\0';
    next_due_ns = due_ns;
    for (size_t i = 0; i < count; i++) {
        size_t used = strlen(told);
        snprintf(told + used, sizeof(told) - used, "%s %s#%lld;", items[i].url, items[i].secret,
                 (long long)items[i].attempt);
        told_fence = items[i].fence;
    }
}

static const char *claim_callbacks(uint64_t now_ns, int per_host, const char *busy)
{
    struct store_callback_claim claim = {.now_ns = now_ns,
                                         .lease_until_ns = now_ns + 100,
                                         .limit = 10,
                                         .per_host = per_host,
                                         .busy = busy};
    int before = outcomes;
    store_claim_callbacks(store, &claim, callbacks_came, NULL);
    wait_for(before + 1);
    cr_assert_eq(failures, 0, "%s", err.message);
    return told;
}

static void finish_callback(const char *id, int64_t fence, const char *state, uint64_t due_ns)
{
    struct store_callback_outcome outcome = {.id = id,
                                             .fence = fence,
                                             .state = state,
                                             .due_at_ns = due_ns,
                                             .status = 500,
                                             .error = "why"};
    int before = outcomes;
    store_finish_callback(store, &outcome, done, NULL);
    wait_for(before + 1);
    cr_assert_eq(failures, 0, "%s", err.message);
}

static void callback_shown(void *data, const struct execution *execution,
                           const struct error *failure)
{
    const struct execution_callback *callback = execution ? execution->callback : NULL;
    done(data, failure);
    if (callback)
        snprintf(shown, sizeof(shown), "%s %s#%lld %lld %s", callback->url, callback->state,
                 (long long)callback->attempts, (long long)callback->status,
                 callback->error ? callback->error : "");
    else
        strcpy(shown, "none");
}

static const char *show_callback(const char *id)
{
    int before = outcomes;
    store_get_execution(store, id, callback_shown, NULL);
    wait_for(before + 1);
    return shown;
}

static void count_of_callbacks(void *data, int64_t count, const struct error *failure)
{
    done(data, failure);
    *(int64_t *)data = count;
}

static int64_t redrive_callback(const char *id, uint64_t now_ns)
{
    int64_t count = -1;
    int before = outcomes;
    store_redrive_callback(store, id, now_ns, count_of_callbacks, &count);
    wait_for(before + 1);
    return count;
}

static const char *accept_with_callback(const char *to, const char *host)
{
    struct store_acceptance acceptance = {
        .owner = "one", .callback_url = to, .callback_host = host, .callback_secret = "s"};
    return accept_as("f", "1", PRIORITY_NORMAL, &acceptance);
}

Test(store, a_callback_is_due_with_the_end_and_claimed_by_one)
{
    char id[TIME_ID_LEN + 1];
    join("one");
    strcpy(id, accept_with_callback("u", "h"));
    cr_expect_str_eq(show_callback(id), "u waiting#0 0 ");
    cr_expect_str_eq(claim_callbacks(1000, 9, " "), "", "it has not ended");
    cr_expect_eq(redrive_callback(id, 10), 0);
    finish("one", id, EXECUTION_SUCCEEDED, false);
    cr_expect_str_eq(claim_callbacks(6, 9, " "), "", "it ended at 7");
    cr_expect_eq(next_due_ns, 7);
    cr_expect_str_eq(claim_callbacks(1000, 9, " "), "u s#1;");
    cr_expect_str_eq(claim_callbacks(1099, 9, " "), "", "another has it");
    int64_t fence = told_fence;
    cr_expect_str_eq(claim_callbacks(1100, 9, " "), "u s#2;", "the lease has ended");
    finish_callback(id, fence, "delivered", 0);
    cr_expect_str_eq(show_callback(id), "u pending#2 0 ", "an old fence changes nothing");
    finish_callback(id, told_fence, "pending", 5000);
    cr_expect_str_eq(show_callback(id), "u pending#2 500 why");
    cr_expect_str_eq(claim_callbacks(4999, 9, " "), "");
    cr_expect_str_eq(claim_callbacks(5000, 9, " "), "u s#3;");
    finish_callback(id, told_fence, "failed", 0);
    cr_expect_str_eq(claim_callbacks(9000, 9, " "), "");
    cr_expect_eq(redrive_callback(id, 9000), 1);
    cr_expect_str_eq(claim_callbacks(9000, 9, " "), "u s#1;");
}

Test(store, callbacks_of_one_host_leave_room_for_those_of_others)
{
    char ids[4][TIME_ID_LEN + 1];
    join("one");
    for (int i = 0; i < 4; i++) {
        strcpy(ids[i], i < 3 ? accept_with_callback("a", "http://a:1")
                             : accept_with_callback("b", "http://b:1"));
        finish("one", ids[i], EXECUTION_FAILED, false);
    }
    cr_expect_str_eq(claim_callbacks(1000, 9, " http://a:1 http://c:1 "), "b s#1;");
    cr_expect_str_eq(claim_callbacks(1000, 2, " "), "a s#1;a s#1;");
    cr_expect_str_eq(claim_callbacks(1000, 2, " "), "a s#1;");
}

Test(store, a_callback_is_told_of_a_cancelled_one_and_goes_with_its_execution)
{
    char id[TIME_ID_LEN + 1];
    struct store_acceptance acceptance = {
        .callback_url = "u", .callback_host = "h", .callback_secret = "s"};
    strcpy(id, accept_as("none", "1", PRIORITY_NORMAL, &acceptance));
    backlog(1);
    cr_expect_str_eq(show(id), "cancelled#1 with error");
    cr_expect_str_eq(claim_callbacks(UINT64_MAX / 4, 9, " "), "u s#1;");
    struct store_retention retention = {.before_ns = clock_realtime_ns() + 1000000000ULL};
    expire_all(&retention);
    cr_expect_eq(redrive_callback(id, 1), 0);
}
