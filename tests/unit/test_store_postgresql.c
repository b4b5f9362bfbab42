/* The store on PostgreSQL: the common suite on a private server, and what is PostgreSQL's own: migrations, secrets, lost
 * connections. */
#include "store/postgres.h"

#include "postgresql_server.h"
#include "store_suite.h"
#include "store_suite_delivery.h"
#include "store_suite_delivery_callbacks.h"

#include <criterion/hooks.h>
#include <sys/wait.h>

ReportHook(PRE_ALL)(struct criterion_test_set *tests)
{
    (void)tests;
    postgresql_start();
    postgresql_publish();
}

ReportHook(POST_ALL)(struct criterion_global_stats *stats)
{
    (void)stats;
    postgresql_stop();
}

static void open_database(void)
{
    postgresql_use();
    postgresql_url("suite", url, sizeof(url));
}

static void close_database(void)
{
}

static void age_code(void)
{
    postgresql_run("UPDATE suite.code SET put_at = now() - interval '2 hours'");
}

/* ---- opening ---- */

Test(store, is_brought_up_from_every_earlier_version)
{
    int newest = store_schema_version(url);
    cr_assert_geq(newest, 1);
    close_store();
    for (int version = 0; version <= newest; version++) {
        postgresql_url("suite", url, sizeof(url));
        cr_assert_eq(postgres_create_at_version(url, version, &err), 0, "%s", err.message);
        open_store();
        put_function("a", 1, FUNCTION_READY, "x");
        put_execution("a", EXECUTION_SUCCEEDED);
        cr_expect_str_eq(list_functions(), "a/1=ready ");
        close_store();
    }
}

Test(store, a_newer_schema_is_refused)
{
    close_store();
    postgresql_run("INSERT INTO suite.schema_migrations VALUES (4000, 0)");
    cr_expect_null(store_open(&loop, url, &err));
    cr_expect(strstr(err.message, "4000"), "%s", err.message);
    cr_expect(strstr(err.message, "newer faas-controller"), "%s", err.message);
}

Test(store, another_encoding_is_refused)
{
    char other[300];
    postgresql_run("DROP DATABASE IF EXISTS latin");
    postgresql_run("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0");
    snprintf(other, sizeof(other), "postgresql://tester:%s@/latin?host=%s", POSTGRESQL_PASSWORD,
             postgresql.folder);
    cr_expect_null(store_open(&loop, other, &err));
    cr_expect(strstr(err.message, "UTF8, not LATIN1"), "%s", err.message);
}

Test(store, no_error_says_the_password)
{
    static const char *const bad[] = {"postgresql://user:%s@localhost:notaport/db",
                                      "postgresql://user:%s@x@/db?host=/none",
                                      "postgresql://user:12/%s@localhost/db",
                                      "postgresql://user:%s@/db?nonsense=1",
                                      "postgresql://user:%s@/db?host=/nonexistent/none",
                                      "postgresql://user:%s%%zz@/db",
                                      "postgres:/user:%s@/db",
                                      "%s"};
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
        char text[256];
        struct error failure = {0};
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(text, sizeof(text), bad[i], "hidden-word");
#pragma GCC diagnostic pop
        cr_expect_null(store_open(&loop, text, &failure), "%s", text);
        cr_expect(failure.message[0]);
        cr_expect_null(strstr(failure.message, "hidden-word"), "%s", failure.message);
    }
    char wrong[300];
    snprintf(wrong, sizeof(wrong), "postgresql://tester:hidden-word@/postgres?host=%s",
             postgresql.folder);
    cr_expect_null(store_open(&loop, wrong, &err));
    cr_expect(strstr(err.message, "authentication"), "%s", err.message);
    cr_expect_null(strstr(err.message, "hidden-word"), "%s", err.message);
}

Test(store, two_controllers_can_start_on_an_empty_database_at_once)
{
    pid_t children[4];
    close_store();
    postgresql_url("suite", url, sizeof(url));
    for (size_t i = 0; i < ARRAY_LENGTH(children); i++)
        if ((children[i] = fork()) == 0) {
            uv_loop_t own;
            uv_loop_init(&own);
            _exit(store_open(&own, url, &err) ? 0 : 1);
        }
    for (size_t i = 0; i < ARRAY_LENGTH(children); i++) {
        int status = -1;
        waitpid(children[i], &status, 0);
        cr_expect_eq(status, 0);
    }
}

/* ---- several controllers ---- */

/* Ends every session of the store: as a server that restarts does. */
static void end_sessions(void)
{
    postgresql_run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                   " WHERE application_name = 'faas-controller'");
}

static bool held;

static void renewed(void *data, bool is_held, const struct error *failure)
{
    done(data, failure);
    held = is_held;
}

static bool renew(const char *owner, int64_t lease_ms)
{
    int before = outcomes;
    store_renew(store, owner, lease_ms, true, renewed, NULL);
    wait_for(before + 1);
    cr_assert_eq(failures, 0, "%s", err.message);
    return held;
}

Test(store, what_an_owner_had_whose_lease_has_ended_goes_to_another)
{
    char id[TIME_ID_LEN + 1];
    join("one");
    join("two");
    strcpy(id, accept_free("f", "1"));
    claim("one", "f", 1, SIZE_MAX);
    start_attempt("one", id, 1);
    cr_expect(renew("one", MINUTE_MS));
    cr_expect(renew("two", MINUTE_MS));
    cr_expect_str_eq(claim("two", "f", 1, SIZE_MAX), "");
    cr_expect(renew("one", -1)); /* over at once */
    cr_expect(renew("two", MINUTE_MS));
    cr_expect_str_eq(claim("two", "f", 1, SIZE_MAX), "!f#2 1;");
    cr_expect_not(renew("one", MINUTE_MS));
    finish("one", id, EXECUTION_SUCCEEDED, false);
    cr_expect_str_eq(show(id), "queued#2");
}

static char news[256];
static int news_count;

static void news_came(void *data, enum store_news kind, const char *function)
{
    static const char *const kinds[] = {[STORE_NEWS_SETTINGS] = "settings",
                                        [STORE_NEWS_WAITING] = "waiting",
                                        [STORE_NEWS_ANYTHING] = "anything"};
    size_t used = strlen(news);
    (void)data;
    news_count++;
    snprintf(news + used, sizeof(news) - used, "%s ",
             kind == STORE_NEWS_FUNCTION ? function : kinds[kind]);
}

static void wait_for_news(const char *what)
{
    while (!strstr(news, what))
        uv_run(&loop, UV_RUN_ONCE);
    news[0] = '\0';
}

Test(store, others_are_told_of_changes)
{
    cr_assert_eq(store_watch(store, news_came, NULL, &err), 0);
    wait_for_news("anything");
    put_function("a", 1, FUNCTION_READY, "x");
    wait_for_news("a ");
    store_delete_function(store, "a", NULL, NULL);
    wait_for_news("a ");
    struct store *other = store_open(&loop, url, &err);
    struct store_acceptance acceptance = {0};
    struct execution execution = make_async("f");
    cr_assert(other, "%s", err.message);
    store_accept_execution(other, &execution, strdup("1"), 1, &acceptance, accepted, NULL);
    wait_for_news("waiting");
    store_add_setting(other, "x", "1", NULL, NULL);
    wait_for_news("settings");
    store_close(other);
    end_sessions();
    wait_for_news("anything");
}

/* Claims until nothing is left and writes what it got. */
static void claim_all(const char *owner, int out)
{
    cr_assert_eq(uv_loop_init(&loop), 0);
    outcomes = failures = 0;
    open_store();
    do {
        claim(owner, "f", 7, SIZE_MAX);
        if (write(out, claimed_ids, claimed_count * sizeof(claimed_ids[0])) < 0)
            _exit(1);
    } while (claimed_count > 0);
    _exit(0);
}

Test(store, claims_at_the_same_time_never_get_the_same)
{
    enum { COUNT = 300, CLAIMERS = 3 };
    static char ids[COUNT + 1][TIME_ID_LEN + 1];
    int pipe_fds[2];
    size_t have = 0;
    ssize_t part;
    for (int i = 0; i < COUNT; i++)
        accept_free("f", "1");
    close_store();
    cr_assert_eq(pipe(pipe_fds), 0);
    for (int i = 0; i < CLAIMERS; i++)
        if (fork() == 0)
            claim_all((char[]){(char)('a' + i), '\0'}, pipe_fds[1]);
    close(pipe_fds[1]);
    while ((part = read(pipe_fds[0], (char *)ids + have, sizeof(ids) - have)) > 0)
        have += (size_t)part;
    close(pipe_fds[0]);
    while (wait(NULL) > 0)
        ;
    cr_expect_eq(have, COUNT * sizeof(ids[0]));
    qsort(ids, COUNT, sizeof(ids[0]), (int (*)(const void *, const void *))strcmp);
    for (int i = 1; i < COUNT; i++)
        cr_expect_str_neq(ids[i - 1], ids[i]);
}

/* ---- locks ---- */

static void accept_async(const char *function)
{
    struct store_acceptance acceptance = {0};
    struct execution execution = make_async(function);
    store_accept_execution(store, &execution, strdup("1"), 1, &acceptance, accepted, NULL);
}

Test(store, what_another_session_has_locked_fails_or_waits_and_all_else_goes_on)
{
    PGconn *other = postgresql_connect();
    PQclear(PQexec(other, "BEGIN; LOCK TABLE suite.settings IN ACCESS EXCLUSIVE MODE"));
    cr_assert_eq(PQtransactionStatus(other), PQTRANS_INTRANS);

    store_put_setting(store, "asked", "1", done, NULL);
    store_put_setting(store, "waits", "1", NULL, NULL);
    store_put_setting(store, "waits", "2", NULL, NULL);
    accept_async("f");
    accept_async("f");
    wait_for(3);
    cr_expect_eq(failures, 1, "only the one that somebody waits for and that needs the lock");
    cr_expect_eq(err.code, ERROR_UNAVAILABLE);
    cr_expect(strstr(err.message, "lock timeout"), "%s", err.message);
    cr_expect_eq(store_queue_length(store), 2);
    failures = 0;
    accept_async("f");
    wait_for(4);
    cr_expect_eq(failures, 0, "%s", err.message);

    PQclear(PQexec(other, "ROLLBACK"));
    PQfinish(other);
    while (store_queue_length(store) > 0)
        uv_run(&loop, UV_RUN_ONCE);
    autofree char *value = NULL;
    cr_assert_eq(store_get_setting(store, "waits", &value, &err), 0, "%s", err.message);
    cr_expect_str_eq(value, "2", "in their order");
    cr_expect_eq(list_executions("f", -1, 1000, NULL), 3);
}

/* Until a session waits for a lock. */
static void wait_for_waiter(PGconn *other)
{
    PGresult *result = NULL;
    do {
        PQclear(result);
        result = PQexec(other, "SELECT FROM pg_sleep(0.005), pg_locks WHERE NOT granted");
        cr_assert_eq(PQresultStatus(result), PGRES_TUPLES_OK, "%s", PQerrorMessage(other));
    } while (PQntuples(result) == 0);
    PQclear(result);
}

static void builds_came(void *data, const char *const *functions, size_t count,
                        const struct error *failure)
{
    (void)functions;
    cr_expect_eq(count, 0);
    done(data, failure);
}

Test(store, looking_for_builds_where_there_are_none_waits_for_nobodys_deployment)
{
    PGconn *other = postgresql_connect();
    put_function("a", 1, FUNCTION_READY, "x");
    join("one");
    PQclear(PQexec(other, "BEGIN; SELECT pg_advisory_xact_lock(" POSTGRES_FUNCTIONS_LOCK ")"));
    cr_assert_eq(PQtransactionStatus(other), PQTRANS_INTRANS);
    int before = outcomes;
    store_claim_builds(store, "one", builds_came, NULL);
    wait_for(before + 1);
    cr_expect_eq(failures, 0, "%s", err.message);
    PQfinish(other);
}

static void wait_for_lease(PGconn *other, const char *condition)
{
    char query[256];
    PGresult *result = NULL;
    snprintf(query, sizeof(query),
             "SELECT pg_sleep(0.005) FROM suite.controllers WHERE alive_until %s", condition);
    do {
        PQclear(result);
        result = PQexec(other, query);
        cr_assert_eq(PQresultStatus(result), PGRES_TUPLES_OK, "%s", PQerrorMessage(other));
    } while (PQntuples(result) == 0);
    PQclear(result);
}

Test(store, a_lease_is_renewed_while_others_wait_for_a_lock_one_after_the_other)
{
    PGconn *other = postgresql_connect();
    join("one");
    int before = outcomes;
    PQclear(PQexec(other, "SET search_path = suite; BEGIN;"
                          "LOCK TABLE settings IN ACCESS EXCLUSIVE MODE"));
    cr_assert_eq(PQtransactionStatus(other), PQTRANS_INTRANS);
    for (int i = 0; i < 4; i++)
        store_put_setting(store, "asked", "1", done, NULL);
    wait_for_waiter(other);
    store_renew(store, "one", 60 * (int64_t)MINUTE_MS, true, renewed, NULL);
    wait_for_lease(other, "> clock_timestamp() + interval '30 minutes'");
    PQclear(PQexec(other, "ROLLBACK"));
    PQfinish(other);
    wait_for(before + 5);
    cr_expect(held);
    cr_expect_leq(failures, 2, "it was renewed after the first, not after all of them");
}

Test(store, what_an_operator_cancels_is_written_after_all)
{
    PGconn *other = postgresql_connect();
    PQclear(PQexec(other, "BEGIN; LOCK TABLE suite.settings IN ACCESS EXCLUSIVE MODE"));
    store_put_setting(store, "a", "1", NULL, NULL);
    wait_for_waiter(other);
    PQclear(PQexec(other, "SELECT pg_cancel_backend(pid) FROM pg_locks WHERE NOT granted; COMMIT"));
    cr_assert_eq(PQtransactionStatus(other), PQTRANS_IDLE, "%s", PQerrorMessage(other));
    PQfinish(other);
    while (store_queue_length(store) > 0)
        uv_run(&loop, UV_RUN_ONCE);
    autofree char *value = NULL;
    cr_assert_eq(store_get_setting(store, "a", &value, &err), 0, "%s", err.message);
    cr_assert(value, "it was given up");
    cr_expect_str_eq(value, "1");
}

/* The store has locked the functions and waits for the table; the other has the table and waits for the functions. */
Test(store, a_transaction_that_fails_for_anothers_sake_is_run_again)
{
    PGconn *other = postgresql_connect();
    put_function("a", 1, FUNCTION_READY, "x");
    PQclear(PQexec(other, "SET deadlock_timeout = '2s'; BEGIN;"
                          "LOCK TABLE suite.functions IN SHARE MODE"));
    cr_assert_eq(PQtransactionStatus(other), PQTRANS_INTRANS);
    int before = outcomes;
    store_delete_function(store, "a", done, NULL);
    wait_for_waiter(other);
    PQclear(PQexec(other, "SELECT pg_advisory_xact_lock(" POSTGRES_FUNCTIONS_LOCK "); COMMIT"));
    PQfinish(other);
    wait_for(before + 1);
    cr_expect_eq(failures, 0, "%s", err.message);
}

/* ---- lost connections ---- */

Test(store, calls_go_on_after_the_connection_broke)
{
    put_function("a", 1, FUNCTION_READY, "x");
    for (int round = 0; round < 5; round++) {
        end_sessions();
        accept_free("f", "1");
        end_sessions();
        cr_expect_eq(list_executions("f", -1, 1000, NULL), round + 1);
    }
    cr_expect(has_code("x"));
}

Test(store, a_batch_whose_connection_breaks_is_written_once)
{
    for (int i = 0; i < 3000; i++) {
        struct execution execution = make_execution("f", EXECUTION_QUEUED);
        store_put_execution(store, &execution, done, NULL);
        if (i % 500 == 250)
            end_sessions();
    }
    wait_for(3000);
    cr_expect_eq(failures, 0, "%s", err.message);
    int count = 0;
    char cursor[TIME_ID_LEN + 1] = "";
    do {
        count += list_executions("f", -1, 1000, cursor[0] ? cursor : NULL);
        strcpy(cursor, page_cursor);
    } while (cursor[0]);
    cr_expect_eq(count, 3000);
}

Test(store, while_the_server_is_away_callers_are_told_and_records_wait, .timeout = 120)
{
    close_store();
    postgresql_start(); /* one of this test's own */
    postgresql_url("suite", url, sizeof(url));
    open_store();
    put_execution("f", EXECUTION_SUCCEEDED);
    postgresql_halt(SIGQUIT);

    struct execution waits = make_execution("f", EXECUTION_SUCCEEDED);
    struct execution asked = make_execution("f", EXECUTION_QUEUED);
    store_put_execution(store, &waits, done, NULL);
    store_put_execution(store, &asked, done, NULL);
    int before = outcomes;
    wait_for(before + 1);
    cr_expect_eq(failures, 1, "only the one that somebody waits for has failed");
    cr_expect_eq(err.code, ERROR_UNAVAILABLE);
    cr_expect_null(strstr(err.message, POSTGRESQL_PASSWORD));
    cr_expect_eq(store_queue_length(store), 1);

    postgresql_launch();
    wait_for(before + 2);
    cr_expect_eq(failures, 1);
    failures = 0;
    cr_expect_eq(list_executions("f", -1, 1000, NULL), 2);
    close_store();
    postgresql_stop();
}

Test(store, closing_does_not_wait_for_a_server_that_is_away, .timeout = 120)
{
    close_store();
    postgresql_start();
    postgresql_url("suite", url, sizeof(url));
    open_store();
    postgresql_halt(SIGQUIT);
    store_put_setting(store, "a", "1", NULL, NULL);
    close_store();
    postgresql_stop();
}
