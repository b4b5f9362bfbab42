/* The store on SQLite: the common suite, and what is SQLite's own: the file, its lock, migrations. */
#include "store/sqlite.h"

#include "store_suite.h"
#include "store_suite_delivery.h"

static char folder[64];

static void open_database(void)
{
    strcpy(folder, "/tmp/faas-test-store-XXXXXX");
    cr_assert(mkdtemp(folder));
    snprintf(url, sizeof(url), "sqlite://%s/test.db", folder);
}

static void close_database(void)
{
    cr_expect_eq(remove_tree(folder, NULL), 0);
}

static void age_code(void)
{
}

Test(store, bad_urls_say_what_would_be_right)
{
    static const char *const urls[] = {"", "mysql://x", "sqlite:/x", "sqlite://relative", "/path"};
    for (size_t i = 0; i < ARRAY_LENGTH(urls); i++) {
        cr_expect_null(store_open(&loop, urls[i], &err), "%s", urls[i]);
        cr_expect_eq(err.code, ERROR_INVALID_REQUEST);
        cr_expect(strstr(err.message, "sqlite:///"), "%s", err.message);
    }
    cr_expect_null(store_open(&loop, "sqlite:///nonexistent/folder/x.db", &err));
}

Test(store, a_database_that_is_open_elsewhere_is_refused)
{
    cr_expect_null(store_open(&loop, url, &err));
    cr_expect(strstr(err.message, "another controller"), "%s", err.message);
}

Test(store, a_file_that_is_no_database_is_refused)
{
    char path[128];
    close_store();
    snprintf(path, sizeof(path), "%s/test.db", folder);
    cr_assert_eq(remove_tree(folder, &err), 0);
    cr_assert_eq(make_directories(folder, 0700, &err), 0);
    char text[8192];
    memset(text, 'x', sizeof(text));
    cr_assert_eq(write_file_atomic(path, text, sizeof(text), 0600, false, &err), 0);
    cr_expect_null(store_open(&loop, url, &err));
    cr_expect(strstr(err.message, "not a database"), "%s", err.message);
}

Test(store, is_brought_up_from_every_earlier_version)
{
    char path[128];
    int newest = store_schema_version(url);
    cr_assert_geq(newest, 3);
    close_store();
    for (int version = 0; version <= newest; version++) {
        snprintf(path, sizeof(path), "%s/v%d.db", folder, version);
        cr_assert_eq(sqlite_create_at_version(path, version, &err), 0, "%s", err.message);
        snprintf(url, sizeof(url), "sqlite://%.200s", path);
        open_store();
        put_function("a", 1, FUNCTION_READY, "x");
        put_execution("a", EXECUTION_SUCCEEDED);
        cr_expect_str_eq(list_functions(), "a/1=ready ");
        close_store();
    }
}

static void execute(const char *path, const char *sql)
{
    sqlite3 *db = NULL;
    cr_assert_eq(sqlite3_open(path, &db), SQLITE_OK);
    cr_assert_eq(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK, "%s", sqlite3_errmsg(db));
    sqlite3_close(db);
}

Test(store, a_migration_keeps_what_is_there)
{
    char path[128];
    close_store();
    snprintf(path, sizeof(path), "%s/old.db", folder);
    snprintf(url, sizeof(url), "sqlite://%.200s", path);
    cr_assert_eq(sqlite_create_at_version(path, 2, &err), 0);
    execute(path, "INSERT INTO functions VALUES ('a', 5, 'ready', "
                  "'{\"name\":\"a\",\"version\":5,\"runtime\":\"python\",\"image\":\"i\"}',"
                  " 'c', 'c', NULL, 1, 2)");
    open_store();
    cr_expect_str_eq(list_functions(), "a/5=ready ");
    listed[0] = '\0';
    cr_assert_eq(store_load_last_versions(store, list_version, NULL, &err), 0);
    cr_expect_str_eq(listed, "a:5 ");
}

Test(store, a_newer_schema_is_refused)
{
    char path[128];
    close_store();
    snprintf(path, sizeof(path), "%s/test.db", folder);
    execute(path, "INSERT INTO schema_migrations VALUES (4000, 0)");
    cr_expect_null(store_open(&loop, url, &err));
    cr_expect(strstr(err.message, "4000"), "%s", err.message);
}
