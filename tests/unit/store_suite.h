/* The store, through its interface: every call, order, durability, bounds. Each engine's test program includes this and
 * defines
 *
 *     open_database()    makes an empty database and sets `url`
 *     close_database()   removes it
 *     age_code()         makes all code an hour old */
#pragma once

#include "store/store.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/loop.h"
#include "base/text.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

static uv_loop_t loop;
static struct store *store;
static struct error err;
static char url[256];
static int outcomes, failures;

static void open_database(void);
static void close_database(void);
static void age_code(void);

static void open_store(void)
{
    store = store_open(&loop, url, &err);
    cr_assert(store, "%s", err.message);
}

static void close_store(void)
{
    store_close(store);
    store = NULL;
    uv_run(&loop, UV_RUN_DEFAULT); /* its handle closes */
}

static void setup(void)
{
    open_database();
    cr_assert_eq(uv_loop_init(&loop), 0);
    outcomes = failures = 0;
    open_store();
}

static void teardown(void)
{
    if (store)
        close_store();
    cr_expect_eq(uv_loop_close(&loop), 0, "a handle is left in the loop");
    close_database();
}

TestSuite(store, .init = setup, .fini = teardown, .timeout = 60);

/* ---- helpers ---- */

static void done(void *data, const struct error *failure)
{
    (void)data;
    outcomes++;
    if (failure) {
        failures++;
        err = *failure;
    }
}

static void wait_for(int count)
{
    while (outcomes < count)
        uv_run(&loop, UV_RUN_ONCE);
}

static struct function_record make_record(const char *name, int64_t version,
                                          enum function_state state)
{
    struct function_record record = {.state = state, .created_at_ns = 1000, .updated_at_ns = 2000};
    function_spec_init(&record.spec);
    record.spec.name = strdup(name);
    record.spec.version = version;
    record.spec.image = strdup("image:latest");
    record.spec.memory_mb = 64 + version;
    return record;
}

/* Adds a version, or changes the one that there is. */
static void put_function(const char *name, int64_t version, enum function_state state,
                         const char *code)
{
    struct function_record record = make_record(name, version, state);
    char digest[SHA256_HEX_LEN + 1];
    sha256_hex(code, strlen(code), digest);
    record.spec.code_sha256 = strdup(digest);
    int before = outcomes;
    store_update_function(store, &record, NULL, 0, done, NULL);
    wait_for(before + 1);
    if (failures == 1 && err.code == ERROR_NOT_FOUND) {
        failures = 0;
        store_add_function(store, &record, strdup(code), strlen(code), done, NULL);
        wait_for(before + 2);
    }
    function_record_deinit(&record);
    cr_assert_eq(failures, 0, "%s", err.message);
}

/* Bytes, which become the store's, by a name of the test's own: as the code of a function that is made for it. */
static void add_code(const char *digest, char *bytes, size_t len, store_done_fn *fn)
{
    static int count;
    char name[32];
    snprintf(name, sizeof(name), "code-%d", count++);
    struct function_record record = make_record(name, 1, FUNCTION_READY);
    record.spec.code_sha256 = strdup(digest);
    store_add_function(store, &record, bytes, len, fn, NULL);
    function_record_deinit(&record);
}

static char *got;
static size_t got_len;
static bool came;

static void code_came(void *data, char *bytes, size_t len, const struct error *failure)
{
    done(data, failure);
    came = true;
    free(got);
    got = bytes;
    got_len = len;
}

static bool has_code(const char *code)
{
    char digest[SHA256_HEX_LEN + 1];
    sha256_hex(code, strlen(code), digest);
    came = false;
    failures = 0;
    store_get_code(store, digest, code_came, NULL);
    while (!came)
        uv_run(&loop, UV_RUN_ONCE);
    bool found = failures == 0 && got_len == strlen(code) && memcmp(got, code, got_len) == 0;
    cr_expect(found || err.code == ERROR_NOT_FOUND, "%s", err.message);
    failures = 0;
    free(steal_pointer(&got));
    return found;
}

static char listed[4096];

static void list_function(void *data, struct function_record *record)
{
    (void)data;
    size_t len = strlen(listed);
    snprintf(listed + len, sizeof(listed) - len, "%s/%lld=%s ", record->spec.name,
             (long long)record->spec.version, function_state_name(record->state));
}

static void list_version(void *data, const char *name, int64_t version)
{
    (void)data;
    size_t len = strlen(listed);
    snprintf(listed + len, sizeof(listed) - len, "%s:%lld ", name, (long long)version);
}

static const char *list_functions(void)
{
    listed[0] = '\0';
    cr_assert_eq(store_load_functions(store, list_function, NULL, &err), 0, "%s", err.message);
    return listed;
}

static struct execution make_execution(const char *function, enum execution_status status)
{
    struct execution execution;
    execution_init(&execution);
    time_id(execution.id);
    execution.function = strdup(function);
    execution.version = 3;
    execution.status = status;
    execution.attempt = 1;
    execution.created_at_ns = clock_realtime_ns();
    return execution;
}

/* Ids are valid until the next call. */
static const char *put_execution(const char *function, enum execution_status status)
{
    static char id[TIME_ID_LEN + 1];
    struct execution execution = make_execution(function, status);
    memcpy(id, execution.id, sizeof(id));
    int before = outcomes;
    store_put_execution(store, &execution, done, NULL);
    cr_expect_null(execution.function, "its content was not taken");
    wait_for(before + 1);
    cr_assert_eq(failures, 0, "%s", err.message);
    return id;
}

static char accepted_id[TIME_ID_LEN + 1];

static void accepted(void *data, const char *id, const struct error *failure)
{
    done(data, failure);
    snprintf(accepted_id, sizeof(accepted_id), "%s", id ? id : "");
}

static struct execution make_async(const char *function)
{
    struct execution execution = make_execution(function, EXECUTION_QUEUED);
    execution.async = true;
    execution.delivery.aged_from_ns = execution.created_at_ns;
    return execution;
}

static const char *accept_as(const char *function, const char *payload, int64_t priority,
                             const struct store_acceptance *acceptance)
{
    struct execution execution = make_async(function);
    execution.delivery.priority = priority;
    int before = outcomes;
    store_accept_execution(store, &execution, strdup(payload), strlen(payload), acceptance,
                           accepted, NULL);
    cr_expect_null(execution.function, "its content was not taken");
    wait_for(before + 1);
    cr_assert_eq(failures, 0, "%s", err.message);
    return accepted_id;
}

static const char *accept_free(const char *function, const char *payload)
{
    struct store_acceptance acceptance = {0};
    return accept_as(function, payload, PRIORITY_NORMAL, &acceptance);
}

static int page_count;
static char page_ids[1000][TIME_ID_LEN + 1], page_cursor[TIME_ID_LEN + 1];

static void page_came(void *data, const struct execution *executions, size_t count,
                      const char *next_cursor, const struct error *failure)
{
    done(data, failure);
    page_count = (int)count;
    for (size_t i = 0; i < count; i++)
        memcpy(page_ids[i], executions[i].id, sizeof(page_ids[i]));
    snprintf(page_cursor, sizeof(page_cursor), "%s", next_cursor ? next_cursor : "");
}

static int list_executions(const char *function, int status, int limit, const char *cursor)
{
    struct execution_query query = {
        .function = function, .status = status, .limit = limit, .cursor = cursor};
    int before = outcomes;
    store_list_executions(store, &query, page_came, NULL);
    wait_for(before + 1);
    cr_assert_eq(failures, 0, "%s", err.message);
    return page_count;
}

static void expire_all(const struct store_retention *retention)
{
    int before = outcomes;
    store_expire_executions(store, retention, done, NULL);
    wait_for(before + 1);
    cr_assert_eq(failures, 0, "%s", err.message);
}

static void expire(uint64_t before_ns, int64_t keep)
{
    struct store_retention retention = {.before_ns = before_ns, .keep_count = keep};
    expire_all(&retention);
}

/* ---- functions ---- */

Test(store, functions_come_back_as_they_were_with_the_newest_ready_and_a_newer_one)
{
    put_function("a", 1, FUNCTION_READY, "1");
    put_function("a", 2, FUNCTION_READY, "2");
    put_function("a", 3, FUNCTION_FAILED, "3");
    put_function("a", 4, FUNCTION_BUILDING, "4");
    put_function("b", 1, FUNCTION_BUILDING, "1");
    cr_expect_str_eq(list_functions(), "a/2=ready a/4=building b/1=building ");
    put_function("a", 4, FUNCTION_READY, "4");
    close_store();
    open_store();
    cr_expect_str_eq(list_functions(), "a/4=ready b/1=building ");
}

static void check_record(void *data, struct function_record *record)
{
    (void)data;
    cr_expect_eq(record->spec.memory_mb, 65);
    cr_expect_str_eq(record->spec.image, "image:latest");
    cr_expect_str_eq(record->build_output, "line 1: \"no\"\n\xc3\xa4");
    cr_expect_eq(record->created_at_ns, 1000);
    cr_expect_eq(record->updated_at_ns, 2000);
    listed[0] = 'x';
}

Test(store, every_member_of_a_function_survives)
{
    struct function_record record = make_record("a", 1, FUNCTION_FAILED);
    record.build_output = strdup("line 1: \"no\"\n\xc3\xa4");
    store_add_function(store, &record, NULL, 0, done, NULL);
    function_record_deinit(&record);
    wait_for(1);
    listed[0] = '\0';
    cr_assert_eq(store_load_functions(store, check_record, NULL, &err), 0);
    cr_expect_eq(listed[0], 'x', "it did not come back");
}

static int add_function(const char *name, int64_t version, uint64_t updated_at_ns)
{
    struct function_record record = make_record(name, version, FUNCTION_READY);
    record.updated_at_ns = updated_at_ns;
    int before = outcomes;
    failures = 0;
    store_add_function(store, &record, NULL, 0, done, NULL);
    function_record_deinit(&record);
    wait_for(before + 1);
    int failed = failures;
    failures = 0;
    return failed;
}

Test(store, a_number_is_given_once)
{
    cr_expect_eq(add_function("a", 1, 10), 0);
    cr_expect_eq(add_function("a", 1, 10), 0, "the same again: its commit was lost");
    cr_expect_eq(add_function("a", 1, 11), 1);
    cr_expect_eq(err.code, ERROR_CONFLICT);
    cr_expect_eq(add_function("a", 3, 10), 0);
    cr_expect_eq(add_function("a", 2, 10), 1, "numbers go up");
    store_delete_function(store, "a", NULL, NULL);
    cr_expect_eq(add_function("a", 3, 12), 1, "a deleted one's neither");
    cr_expect_eq(add_function("a", 4, 12), 0);
    cr_expect_str_eq(list_functions(), "a/4=ready ");
}

/* Code of its own comes with it. */
static int add_function_with_code(const char *name, int64_t version, uint64_t updated_at_ns,
                                  const char *code)
{
    struct function_record record = make_record(name, version, FUNCTION_READY);
    char digest[SHA256_HEX_LEN + 1];
    sha256_hex(code, strlen(code), digest);
    record.spec.code_sha256 = strdup(digest);
    record.updated_at_ns = updated_at_ns;
    int before = outcomes;
    failures = 0;
    store_add_function(store, &record, strdup(code), strlen(code), done, NULL);
    function_record_deinit(&record);
    wait_for(before + 1);
    int failed = failures;
    failures = 0;
    return failed;
}

Test(store, a_function_and_its_code_are_written_together_or_not_at_all)
{
    cr_expect_eq(add_function_with_code("a", 1, 10, "first"), 0);
    cr_expect(has_code("first"));
    cr_expect_eq(add_function_with_code("a", 1, 11, "second"), 1);
    cr_expect_eq(err.code, ERROR_CONFLICT);
    cr_expect_not(has_code("second"), "code of a version that was refused");
}

static int64_t came_last_version;

static void functions_came(void *data, struct function_record *records, size_t count,
                           int64_t last_version, const struct error *failure)
{
    done(data, failure);
    listed[0] = '\0';
    came_last_version = last_version;
    for (size_t i = 0; i < count; i++)
        list_function(NULL, &records[i]);
}

static const char *read_functions(const char *name)
{
    int before = outcomes;
    store_read_functions(store, name, functions_came, NULL);
    wait_for(before + 1);
    cr_assert_eq(failures, 0, "%s", err.message);
    return listed;
}

Test(store, functions_can_be_read_again)
{
    put_function("a", 1, FUNCTION_READY, "1");
    put_function("a", 2, FUNCTION_BUILDING, "2");
    put_function("b", 7, FUNCTION_READY, "1");
    cr_expect_str_eq(read_functions("a"), "a/1=ready a/2=building ");
    cr_expect_eq(came_last_version, 2);
    cr_expect_str_eq(read_functions(NULL), "a/1=ready a/2=building b/7=ready ");
    store_delete_function(store, "b", NULL, NULL);
    cr_expect_str_eq(read_functions("b"), "");
    cr_expect_eq(came_last_version, 7);
    cr_expect_str_eq(read_functions("never"), "");
    cr_expect_eq(came_last_version, 0);
}

Test(store, code_goes_with_the_last_function_that_uses_it)
{
    put_function("a", 1, FUNCTION_READY, "shared");
    put_function("a", 2, FUNCTION_READY, "second");
    put_function("b", 1, FUNCTION_READY, "shared");
    store_prune_versions(store, "a", 2, done, NULL);
    cr_expect(has_code("shared"), "another function uses it");
    store_delete_function(store, "b", done, NULL);
    cr_expect_not(has_code("shared"));
    cr_expect(has_code("second"));
    cr_expect_str_eq(list_functions(), "a/2=ready ");
    store_delete_function(store, "a", done, NULL);
    cr_expect_not(has_code("second"));
    cr_expect_str_eq(list_functions(), "");
}

/* What a build came to. */
static int update_artifact(const char *name, int64_t version, const char *digest, const char *bytes)
{
    struct function_record record = make_record(name, version, FUNCTION_READY);
    char code[SHA256_HEX_LEN + 1];
    sha256_hex("used", 4, code);
    record.spec.code_sha256 = strdup(code);
    record.spec.artifact_sha256 = digest ? strdup(digest) : NULL;
    int before = outcomes;
    failures = 0;
    store_update_function(store, &record, bytes ? strdup(bytes) : NULL, bytes ? strlen(bytes) : 0,
                          done, NULL);
    function_record_deinit(&record);
    wait_for(before + 1);
    int failed = failures;
    failures = 0;
    return failed;
}

Test(store, the_outcome_of_a_build_does_not_bring_a_deleted_function_back)
{
    put_function("a", 1, FUNCTION_BUILDING, "used");
    store_delete_function(store, "a", NULL, NULL);
    cr_expect_eq(update_artifact("a", 1, "built", "bytes"), 1);
    cr_expect_eq(err.code, ERROR_NOT_FOUND);
    cr_expect_str_eq(list_functions(), "");
    store_get_code(store, "built", code_came, NULL);
    wait_for(outcomes + 1);
    cr_expect_eq(err.code, ERROR_NOT_FOUND, "what was built is left");
    failures = 0;
    put_function("a", 2, FUNCTION_BUILDING, "used");
    cr_expect_eq(update_artifact("a", 1, "built", "bytes"), 1, "another version was built");
    cr_expect_str_eq(list_functions(), "a/2=building ");
}

Test(store, code_that_no_function_came_to_use_is_gone_after_the_next_start)
{
    put_function("a", 1, FUNCTION_READY, "used");
    cr_expect_eq(update_artifact("a", 1, "orphan", "x"), 0);
    cr_expect_eq(update_artifact("a", 1, NULL, NULL), 0);
    age_code();
    close_store();
    open_store();
    store_get_code(store, "orphan", code_came, NULL);
    wait_for(outcomes + 1);
    cr_expect_eq(err.code, ERROR_NOT_FOUND);
    failures = 0;
    cr_expect(has_code("used"));
}

Test(store, numbers_of_deleted_functions_are_remembered)
{
    put_function("a", 7, FUNCTION_READY, "1");
    put_function("b", 2, FUNCTION_READY, "1");
    store_delete_function(store, "a", done, NULL);
    close_store();
    open_store();
    listed[0] = '\0';
    cr_assert_eq(store_load_last_versions(store, list_version, NULL, &err), 0);
    cr_expect_str_eq(listed, "a:7 b:2 ");
}

Test(store, code_may_hold_any_bytes)
{
    char digest[] = "some-digest";
    size_t len = 3 * 1024 * 1024;
    char *bytes = malloc(len);
    for (size_t i = 0; i < len; i++)
        bytes[i] = (char)(i * 7);
    add_code(digest, bytes, len, done);
    store_get_code(store, digest, code_came, NULL);
    wait_for(2);
    cr_assert_eq(got_len, len);
    for (size_t i = 0; i < len; i++)
        cr_assert_eq(got[i], (char)(i * 7));
    free(steal_pointer(&got));
}

/* ---- executions ---- */

static void check_execution(void *data, const struct execution *execution,
                            const struct error *failure)
{
    done(data, failure);
    cr_assert(execution);
    cr_expect_str_eq(execution->id, data);
    cr_expect_str_eq(execution->function, "f");
    cr_expect_eq(execution->status, EXECUTION_FAILED);
    cr_expect_eq(execution->result_len, 7);
    cr_expect_arr_eq(execution->result, "{\"a\":1}", 7);
    cr_expect(execution->result_base64);
    cr_expect_eq(execution->logs_len, 5);
    cr_expect_arr_eq(execution->logs, "a\0\xff\nb", 5);
    cr_assert(execution->has_error);
    cr_expect_str_eq(execution->error.type, "E");
    cr_expect_eq(execution->error.exit_code, 3);
    cr_expect_str_eq(execution->error.stack, "[\"x\"]");
    cr_expect_str_eq(execution->worker, "w");
    cr_expect(execution->cold_start);
    cr_expect_eq(execution->attempt, 2);
    cr_expect_eq(execution->metrics.memory_peak, 1234567890123);
    cr_expect_eq(execution->finished_at_ns, 1700000000000000003);
}

Test(store, every_member_of_an_execution_survives)
{
    struct execution execution = make_execution("f", EXECUTION_FAILED);
    char id[TIME_ID_LEN + 1];
    memcpy(id, execution.id, sizeof(id));
    execution.result = strdup("{\"a\":1}");
    execution.result_len = 7;
    execution.result_base64 = true;
    execution.logs = memcpy(malloc(5), "a\0\xff\nb", 5);
    execution.logs_len = 5;
    execution.has_error = true;
    execution.error =
        (struct execution_error){strdup("E"), strdup("m"), 3, NULL, strdup("[\"x\"]")};
    execution.worker = strdup("w");
    execution.cold_start = true;
    execution.attempt = 2;
    execution.metrics.memory_peak = 1234567890123;
    execution.finished_at_ns = 1700000000000000003;
    store_put_execution(store, &execution, done, NULL);
    close_store();
    open_store();
    store_get_execution(store, id, check_execution, id);
    wait_for(2);
    cr_expect_eq(failures, 0);
}

static void expect_none(void *data, const struct execution *execution, const struct error *failure)
{
    done(data, failure);
    cr_expect_null(execution);
    cr_expect_null(failure);
}

Test(store, an_execution_that_is_not_there_is_no_error)
{
    store_get_execution(store, "0190a000-0000-7000-8000-000000000000", expect_none, NULL);
    wait_for(1);
}

Test(store, lists_are_newest_first_filtered_and_paged)
{
    char ids[10][TIME_ID_LEN + 1];
    for (int i = 0; i < 10; i++)
        strcpy(ids[i], put_execution(i % 2 ? "odd" : "even",
                                     i < 5 ? EXECUTION_SUCCEEDED : EXECUTION_FAILED));
    cr_expect_eq(list_executions(NULL, -1, 1000, NULL), 10);
    for (int i = 0; i < 10; i++)
        cr_expect_str_eq(page_ids[i], ids[9 - i]);
    cr_expect_str_empty(page_cursor);
    cr_expect_eq(list_executions("odd", -1, 1000, NULL), 5);
    cr_expect_eq(list_executions(NULL, EXECUTION_FAILED, 1000, NULL), 5);
    cr_expect_eq(list_executions("odd", EXECUTION_SUCCEEDED, 1000, NULL), 2);
    cr_expect_eq(list_executions("nobody", -1, 1000, NULL), 0);

    int seen = 0;
    char cursor[TIME_ID_LEN + 1] = "";
    do {
        int count = list_executions(NULL, -1, 3, cursor[0] ? cursor : NULL);
        for (int i = 0; i < count; i++, seen++)
            cr_expect_str_eq(page_ids[i], ids[9 - seen]);
        strcpy(cursor, page_cursor);
    } while (cursor[0]);
    cr_expect_eq(seen, 10);
}

Test(store, retention_by_count_keeps_the_newest_and_what_is_not_final)
{
    accept_free("waits", "1");
    for (int i = 0; i < 1700; i++) { /* several batches */
        struct execution execution = make_execution("f", EXECUTION_SUCCEEDED);
        store_put_execution(store, &execution, NULL, NULL);
    }
    expire(0, 10);
    cr_expect_eq(list_executions("f", -1, 1000, NULL), 10);
    cr_expect_eq(list_executions("waits", -1, 1000, NULL), 1);
    expire(0, 0);
    cr_expect_eq(list_executions("f", -1, 1000, NULL), 10, "0 means no bound");
}

Test(store, retention_by_age)
{
    put_execution("f", EXECUTION_SUCCEEDED);
    expire(clock_realtime_ns() - 3600ULL * 1000000000, 0);
    cr_expect_eq(list_executions(NULL, -1, 10, NULL), 1);
    expire(clock_realtime_ns() + 1000000000, 0);
    cr_expect_eq(list_executions(NULL, -1, 10, NULL), 0);
}

/* ---- settings ---- */

Test(store, settings_are_set_changed_and_deleted)
{
    char *value = NULL;
    store_put_setting(store, "a", "1", done, NULL);
    store_put_setting(store, "a", "2", done, NULL);
    store_put_setting(store, "b", "x", done, NULL);
    store_put_setting(store, "b", NULL, done, NULL);
    wait_for(4);
    cr_assert_eq(store_get_setting(store, "a", &value, &err), 0);
    cr_expect_str_eq(value, "2");
    free(value);
    cr_assert_eq(store_get_setting(store, "b", &value, &err), 0);
    cr_expect_null(value);
}

static char listed_settings[256];

static void settings_came(void *data, const struct store_setting *settings, size_t count,
                          const struct error *failure)
{
    (void)data;
    cr_expect_null(failure);
    listed_settings[0] = '\0';
    for (size_t i = 0; i < count; i++)
        snprintf(listed_settings + strlen(listed_settings),
                 sizeof(listed_settings) - strlen(listed_settings), "%s=%s ", settings[i].name,
                 settings[i].value);
    outcomes++;
}

Test(store, settings_with_a_prefix_are_listed)
{
    store_put_setting(store, "b/2", "two", done, NULL);
    store_put_setting(store, "b/1", "one", done, NULL);
    store_put_setting(store, "b", "x", done, NULL);
    store_put_setting(store, "c/1", "x", done, NULL);
    store_read_settings(store, "b/", settings_came, NULL);
    wait_for(5);
    cr_expect_str_eq(listed_settings, "b/1=one b/2=two ");
    cr_assert_eq(store_load_settings(store, "nothing/", settings_came, NULL, &err), 0);
    cr_expect_str_eq(listed_settings, "");
}

Test(store, a_setting_that_has_a_value_is_not_added)
{
    store_add_setting(store, "a", "1", done, NULL);
    wait_for(1);
    cr_expect_eq(failures, 0);
    store_add_setting(store, "a", "2", done, NULL);
    wait_for(2);
    cr_expect_eq(failures, 1);
    cr_expect_eq(err.code, ERROR_CONFLICT);
    store_read_settings(store, "a", settings_came, NULL);
    wait_for(3);
    cr_expect_str_eq(listed_settings, "a=1 ");
}

Test(store, the_first_to_claim_a_setting_has_it)
{
    char *value = NULL;
    cr_assert_eq(store_claim_setting(store, "a", "first", &value, &err), 0);
    cr_expect_str_eq(value, "first");
    free(value);
    cr_assert_eq(store_claim_setting(store, "a", "second", &value, &err), 0);
    cr_expect_str_eq(value, "first");
    free(value);
}

/* ---- the queue ---- */

Test(store, calls_back_on_the_loop_in_order_and_never_from_inside_the_call)
{
    for (int i = 0; i < 100; i++)
        store_put_setting(store, "a", "1", done, NULL);
    cr_expect_eq(outcomes, 0);
    cr_expect_eq(store_queue_length(store), 100);
    wait_for(100);
    cr_expect_eq(store_queue_length(store), 0);
}

Test(store, one_callers_failure_is_not_anothers)
{
    char *value = NULL;
    store_put_setting(store, "before", "1", done, NULL);
    store_get_code(store, "missing", code_came, NULL);
    store_put_setting(store, "after", "2", done, NULL);
    wait_for(3);
    cr_expect_eq(failures, 1);
    cr_expect_eq(err.code, ERROR_NOT_FOUND);
    cr_assert_eq(store_get_setting(store, "before", &value, &err), 0);
    cr_expect_str_eq(value, "1");
    free(value);
    cr_assert_eq(store_get_setting(store, "after", &value, &err), 0);
    cr_expect_str_eq(value, "2");
    free(value);
}

Test(store, a_call_over_the_queues_bound_fails_and_the_others_are_done)
{
    /* It is refused for the size that it claims, before its bytes are looked at. */
    size_t too_much = 2UL * 1024 * 1024 * 1024;
    add_code("small", strdup("x"), 1, done);
    add_code("huge", strdup("x"), too_much, done);
    wait_for(2);
    cr_expect_eq(failures, 1);
    cr_expect_eq(err.code, ERROR_THROTTLED);
    store_get_code(store, "small", code_came, NULL);
    wait_for(3);
    cr_expect_eq(got_len, 1);
    free(steal_pointer(&got));
}

Test(store, closing_finishes_what_is_queued)
{
    for (int i = 0; i < 500; i++)
        store_put_setting(store, "a", i == 499 ? "last" : "x", done, NULL);
    close_store();
    cr_expect_eq(outcomes, 500);
    open_store();
    char *value = NULL;
    cr_assert_eq(store_get_setting(store, "a", &value, &err), 0);
    cr_expect_str_eq(value, "last");
    free(value);
}

/* ---- crashes ---- */

/* Writes executions for ever and tells each that it was told is on the disk. */
static void write_for_ever(int out)
{
    cr_assert_eq(uv_loop_init(&loop), 0);
    open_store();
    for (;;) {
        struct execution batch[20];
        char ids[20][TIME_ID_LEN + 1];
        int before = outcomes;
        struct store_acceptance acceptance = {0};
        for (int i = 0; i < 20; i++) {
            batch[i] = make_async("f");
            memcpy(ids[i], batch[i].id, sizeof(ids[i]));
            store_accept_execution(store, &batch[i], strdup("{}"), 2, &acceptance, accepted, NULL);
        }
        wait_for(before + 20);
        if (failures || write(out, ids, sizeof(ids)) != sizeof(ids))
            _exit(1);
    }
}

Test(store, whatever_was_acknowledged_survives_a_kill)
{
    int pipe_fds[2];
    close_store();
    cr_assert_eq(pipe(pipe_fds), 0);
    pid_t child = fork();
    if (child == 0) {
        close(pipe_fds[0]);
        write_for_ever(pipe_fds[1]);
    }
    close(pipe_fds[1]);
    char ids[400][TIME_ID_LEN + 1];
    size_t have = 0;
    while (have < sizeof(ids)) {
        ssize_t got_bytes = read(pipe_fds[0], (char *)ids + have, sizeof(ids) - have);
        cr_assert_gt(got_bytes, 0, "the child ended by itself");
        have += (size_t)got_bytes;
    }
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    close(pipe_fds[0]);

    open_store();
    int missing = 0;
    char cursor[TIME_ID_LEN + 1];
    for (size_t i = 0; i < 400; i++) {
        memcpy(cursor, ids[i], sizeof(cursor));
        cursor[TIME_ID_LEN - 1]++; /* sorts right behind it */
        list_executions("f", EXECUTION_QUEUED, 1, cursor);
        missing += page_count != 1 || strcmp(page_ids[0], ids[i]) != 0;
    }
    cr_expect_eq(missing, 0);
}
