/* The store on SQLite: the common suite, and what is SQLite's own: the file, its lock, migrations. */
#include "store/call.h"
#include "store/sqlite.h"

#include "store_suite.h"
#include "store_suite_delivery.h"
#include "store_suite_delivery_callbacks.h"

#include <dirent.h>
#include <errno.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

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

/* ---- backup and restore ---- */

Test(store, a_backup_of_a_database_in_use_is_what_it_was_then)
{
    char file[128], copy_url[256];
    struct stat status;
    snprintf(file, sizeof(file), "%s/backup.db", folder);
    snprintf(copy_url, sizeof(copy_url), "sqlite://%s", file);
    put_function("a", 1, FUNCTION_READY, "x");
    accept_free("a", "[1]");
    cr_assert_eq(store_backup(url, file, &err), 0, "%s", err.message);
    put_function("b", 1, FUNCTION_READY, "y");
    cr_assert_eq(stat(file, &status), 0);
    cr_expect_eq(status.st_mode & 07777, 0600);
    close_store();

    snprintf(url, sizeof(url), "%s", copy_url);
    open_store();
    cr_expect_str_eq(list_functions(), "a/1=ready ");
    cr_expect(has_code("x"));
    join("one");
    cr_expect_str_eq(claim("one", "a", 9, SIZE_MAX), "a#1 [1];");
}

Test(store, a_restore_puts_the_backup_in_place_and_keeps_what_was_there)
{
    char file[128], replaced[256];
    snprintf(file, sizeof(file), "%s/backup.db", folder);
    snprintf(replaced, sizeof(replaced), "%s/test.db.replaced", folder);
    put_function("a", 1, FUNCTION_READY, "x");
    cr_assert_eq(store_backup(url, file, &err), 0, "%s", err.message);
    put_function("b", 1, FUNCTION_READY, "y");
    cr_expect_eq(store_restore(url, file, &err), -1, "it is in use");
    cr_expect(strstr(err.message, "stop the controller"), "%s", err.message);
    close_store();
    cr_assert_eq(store_restore(url, file, &err), 0, "%s", err.message);
    open_store();
    cr_expect_str_eq(list_functions(), "a/1=ready ");
    cr_expect(path_exists(replaced));
}

Test(store, what_is_no_backup_is_not_restored)
{
    char file[128], text[5000];
    snprintf(file, sizeof(file), "%s/backup.db", folder);
    put_function("a", 1, FUNCTION_READY, "x");
    close_store();
    cr_expect_eq(store_restore(url, file, &err), -1);
    cr_expect_eq(err.code, ERROR_NOT_FOUND);
    memset(text, 'x', sizeof(text));
    cr_assert_eq(write_file_atomic(file, text, sizeof(text), 0600, false, &err), 0);
    cr_expect_eq(store_restore(url, file, &err), -1);
    cr_expect(strstr(err.message, "not a database"), "%s", err.message);
    unlink(file);
    execute(file, "CREATE TABLE other (x)");
    cr_expect_eq(store_restore(url, file, &err), -1);
    cr_expect(strstr(err.message, "no backup"), "%s", err.message);
    execute(file, "CREATE TABLE schema_migrations (version, applied_at);"
                  "INSERT INTO schema_migrations VALUES (4000, 0)");
    cr_expect_eq(store_restore(url, file, &err), -1);
    cr_expect(strstr(err.message, "4000"), "%s", err.message);
    open_store();
    cr_expect_str_eq(list_functions(), "a/1=ready ", "what was there is untouched");
}

Test(store, a_backup_that_cannot_be_written_leaves_nothing)
{
    char file[128];
    snprintf(file, sizeof(file), "%s/none/backup.db", folder);
    cr_expect_eq(store_backup(url, file, &err), -1);
    cr_expect_eq(store_backup("postgresql://x", file, &err), -1);
    cr_expect(strstr(err.message, "pg_dump"), "%s", err.message);
}

/* ---- large results, beside the database ---- */

#define LARGE_BYTES ((size_t)6 * 1024 * 1024)

/* Files in the folder of results. */
static int count_files(void)
{
    char path[128];
    int count = 0;
    snprintf(path, sizeof(path), "%s/test.db" SQLITE_LARGE_SUFFIX, folder);
    DIR *entries = opendir(path);
    cr_assert(entries);
    for (struct dirent *entry; (entry = readdir(entries));)
        count += entry->d_name[0] != '.';
    closedir(entries);
    return count;
}

static size_t large_bytes = LARGE_BYTES;
static bool on_page; /* it begins where a page does */

static bool is_text = true; /* JSON, as results are */

/* No two pages of it are the same. */
static char *make_large(char seed)
{
    size_t room = (large_bytes / 4096 + 2) * 4096;
    char *bytes = on_page ? aligned_alloc(4096, room) : malloc(room);
    for (size_t i = 0; i < room; i++)
        bytes[i] = i < large_bytes ? (char)('0' + (i + (i >> 12) + (size_t)seed) % 41) : 'x';
    bytes[0] = bytes[large_bytes - 1] = is_text ? '"' : 'x';
    return bytes;
}

static const char *put_large(char seed)
{
    static char id[TIME_ID_LEN + 1];
    struct execution execution = make_execution("f", EXECUTION_SUCCEEDED);
    memcpy(id, execution.id, sizeof(id));
    execution.result = make_large(seed);
    execution.result_len = large_bytes;
    int before = outcomes;
    store_put_execution(store, &execution, done, NULL);
    wait_for(before + 1);
    cr_assert_eq(failures, 0, "%s", err.message);
    return id;
}

static void large_came(void *data, const struct execution *execution, const struct error *failure)
{
    char *expected = make_large(*(const char *)data);
    done(NULL, failure);
    came = execution && execution->result_len == large_bytes &&
           memcmp(execution->result, expected, large_bytes) == 0 &&
           execution->result[large_bytes] == '\0';
    free(expected);
}

static bool has_large(const char *id, char seed)
{
    int before = outcomes;
    came = false;
    store_get_execution(store, id, large_came, &seed);
    wait_for(before + 1);
    return came;
}

Test(store, a_large_result_lies_beside_the_database_and_outlives_a_restart)
{
    const char *id = put_large(1);
    cr_expect_eq(count_files(), 1);
    cr_expect(has_large(id, 1));
    close_store();
    open_store();
    cr_expect(has_large(id, 1));
    cr_expect_eq(count_files(), 1);
}

Test(store, a_large_result_of_any_length_is_read_as_it_was_written_wherever_it_lay)
{
    static const size_t sizes[] = {256 * 1024 + 1, 512 * 1024, 512 * 1024 + 4095, 1200000};
    for (size_t i = 0; i < 2 * sizeof(sizes) / sizeof(sizes[0]); i++) {
        on_page = i % 2;
        large_bytes = sizes[i / 2];
        cr_expect(has_large(put_large(1), 1), "%zu bytes, %s a page", large_bytes,
                  on_page ? "from the begin of" : "anywhere in");
    }
    cr_expect_eq(count_files(), 8);
}

static char *came_error;

static void changed_came(void *data, const struct execution *execution, const struct error *failure)
{
    (void)data;
    done(NULL, failure);
    cr_assert(execution && execution->has_error);
    cr_expect_null(execution->result);
    cr_expect_eq(execution->status, EXECUTION_SUCCEEDED);
    came_error = strdup(execution->error.type);
}

/* As a worker can do to one that lies in its memory. */
Test(store, a_large_result_that_was_changed_until_it_was_written_is_told_as_an_error)
{
    is_text = false;
    const char *id = put_large(1);
    int before = outcomes;
    store_get_execution(store, id, changed_came, NULL);
    wait_for(before + 1);
    cr_assert_eq(failures, 0, "%s", err.message);
    cr_expect_str_eq(came_error, "Platform.ResultChanged");
    free(came_error);
}

/* Where the next bytes past the cache lie that cannot be written; NULL: all can. */
static _Atomic(const char *) unwritable;

/* In place of the C library's. */
ssize_t write(int fd, const void *bytes, size_t len)
{
    const char *refused = unwritable;
    if (refused && bytes == refused) {
        errno = EIO;
        return -1;
    }
    return syscall(SYS_write, fd, bytes, len);
}

/* A file system with checksums does that when a worker changes its result meanwhile. Other records must not wait until it stops. */
Test(store, a_large_result_that_cannot_be_written_from_where_it_lies_is_written_from_a_copy)
{
    on_page = true;
    struct execution execution = make_execution("f", EXECUTION_SUCCEEDED);
    char id[TIME_ID_LEN + 1];
    memcpy(id, execution.id, sizeof(id));
    execution.result = make_large(1);
    execution.result_len = large_bytes;
    unwritable = execution.result;
    store_put_execution(store, &execution, done, NULL);
    wait_for(outcomes + 1);
    cr_assert_eq(failures, 0, "%s", err.message);
    cr_expect(has_large(id, 1));
    cr_expect_eq(count_files(), 1);
}

Test(store, a_large_result_goes_with_its_record)
{
    put_large(1);
    put_large(2);
    expire(0, 1);
    cr_expect_eq(count_files(), 1);
    expire(UINT64_MAX / 2, 1000);
    cr_expect_eq(count_files(), 0);
}

static const char *finish_large(char seed, bool dead)
{
    static char id[TIME_ID_LEN + 1];
    struct store_acceptance acceptance = {.owner = "one"};
    strcpy(id, accept_as("f", "1", PRIORITY_NORMAL, &acceptance));
    start_attempt("one", id, 1);
    struct execution execution = make_async("f");
    strcpy(execution.id, id);
    execution.status = dead ? EXECUTION_FAILED : EXECUTION_SUCCEEDED;
    execution.delivery.dead_at_ns = dead ? clock_realtime_ns() : 0;
    execution.result = make_large(seed);
    execution.result_len = LARGE_BYTES;
    int before = outcomes;
    store_finish_execution(store, "one", &execution, done, NULL);
    wait_for(before + 1);
    cr_assert_eq(failures, 0, "%s", err.message);
    return id;
}

Test(store, a_large_result_of_a_dead_letter_goes_when_that_is_queued_again_or_removed)
{
    join("one");
    const char *id = finish_large(1, true);
    cr_expect(has_large(id, 1));
    cr_expect_eq(count_files(), 1);
    cr_expect_eq(redrive(id, NULL), 1);
    cr_expect_eq(count_files(), 0);
    finish_large(2, true);
    cr_expect_eq(count_files(), 1);
    cr_expect_eq(purge(NULL, NULL), 1);
    cr_expect_eq(count_files(), 0);
}

Test(store, a_large_result_of_a_lost_attempt_is_not_kept)
{
    join("one");
    const char *id = finish_large(1, false);
    struct execution late = make_async("f");
    strcpy(late.id, id);
    late.status = EXECUTION_SUCCEEDED;
    late.result = make_large(2);
    late.result_len = LARGE_BYTES;
    int before = outcomes;
    store_finish_execution(store, "one", &late, done, NULL);
    wait_for(before + 1);
    cr_expect_eq(failures, 0, "%s", err.message);
    cr_expect_eq(count_files(), 1);
    cr_expect(has_large(id, 1));
}

Test(store, what_no_record_names_is_removed_at_the_next_opening)
{
    char path[256];
    char id[TIME_ID_LEN + 1];
    strcpy(id, put_large(1));
    close_store();
    snprintf(path, sizeof(path), "%s/test.db" SQLITE_LARGE_SUFFIX "/%s.7", folder, id);
    cr_assert_eq(write_file_atomic(path, "[1]", 3, 0600, false, &err), 0);
    open_store();
    cr_expect_not(path_exists(path));
    cr_expect_eq(count_files(), 1);
    cr_expect(has_large(id, 1));
}

Test(store, a_large_result_that_is_missing_or_cut_is_an_error_and_not_another_result)
{
    char path[256];
    const char *id = put_large(1);
    snprintf(path, sizeof(path), "%s/test.db" SQLITE_LARGE_SUFFIX "/%s.0", folder, id);
    cr_assert_eq(truncate(path, 1000), 0);
    cr_expect_not(has_large(id, 1));
    cr_expect_eq(failures, 1);
    cr_expect(strstr(err.message, "1000 bytes"), "%s", err.message);
    cr_assert_eq(unlink(path), 0);
    cr_expect_not(has_large(id, 1));
    cr_expect_eq(failures, 2);
    cr_expect(strstr(err.message, "No such file"), "%s", err.message);
    failures = 0;
    cr_expect_eq(list_executions(NULL, -1, 10, NULL), 1, "the record itself is there");
}

/* As a row of a backup may say that somebody has written in. */
Test(store, a_large_result_of_an_impossible_length_is_an_error_of_its_row)
{
    static const char name[] = "00000000-0000-7000-8000-000000000001.0";
    char path[256], *bytes = NULL;
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    cr_assert_eq(write_file_atomic(path, "", 0, 0600, false, &err), 0);
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    cr_expect_eq(sqlite_large_read(fd, name, 0, &bytes, &err), 0, "%s", err.message);
    cr_expect_str_eq(bytes, "");
    free(bytes);
    for (size_t len = SIZE_MAX - 5000; len >= SIZE_MAX - 5000; len++) {
        cr_assert_lt(sqlite_large_read(fd, name, len, &bytes, &err), 0);
        cr_assert(strstr(err.message, "has 0 bytes"), "%zu: %s", len, err.message);
    }
    close(fd);
}

Test(store, a_folder_of_large_results_that_was_removed_is_made_again)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/test.db" SQLITE_LARGE_SUFFIX, folder);
    cr_assert_eq(remove_tree(path, &err), 0);
    const char *id = put_large(1);
    cr_expect(has_large(id, 1));
    cr_expect_eq(count_files(), 1);
}

Test(store, a_backup_has_large_results_in_it)
{
    char file[128], id[TIME_ID_LEN + 1], replaced[256];
    snprintf(file, sizeof(file), "%s/backup.db", folder);
    strcpy(id, put_large(1));
    cr_assert_eq(store_backup(url, file, &err), 0, "%s", err.message);
    expire(UINT64_MAX / 2, 1000);
    cr_expect_eq(count_files(), 0);
    strcpy(replaced, put_large(2));
    close_store();
    cr_assert_eq(store_restore(url, file, &err), 0, "%s", err.message);
    open_store();
    cr_expect(has_large(id, 1));
    cr_expect_eq(count_files(), 0);
    expire(UINT64_MAX / 2, 1000);
    close_store();

    snprintf(url, sizeof(url), "sqlite://%s/test.db.replaced", folder);
    open_store();
    cr_expect(has_large(replaced, 2), "what was there before is kept with its results");
}

Test(store, a_backup_under_way_keeps_the_files_that_its_rows_name)
{
    char path[128];
    int held = -1;
    put_large(1);
    snprintf(path, sizeof(path), "%s/test.db", folder);
    cr_assert_eq(sqlite_large_hold(path, &held, &err), 0, "%s", err.message);
    expire(UINT64_MAX / 2, 1000);
    cr_expect_eq(count_files(), 1);
    close(held);
    put_execution("f", EXECUTION_SUCCEEDED);
    cr_expect_eq(count_files(), 0, "the next commit removes it");
}

Test(store, a_copied_database_without_its_large_results_is_no_backup)
{
    char file[128], text[400];
    snprintf(file, sizeof(file), "%s/copied.db", folder);
    put_large(1);
    snprintf(text, sizeof(text), "cp %s/test.db %s", folder, file);
    close_store();
    cr_assert_eq(system(text), 0);
    cr_expect_eq(store_restore(url, file, &err), -1);
    cr_expect(strstr(err.message, "large results are missing"), "%s", err.message);
    open_store();
}

/* A log with writes that are not in the backup, as an end by force leaves it: SQLite would bring them into whatever file
 * has the database's name. */
Test(store, a_restore_sets_aside_what_lies_beside_a_database_that_is_lost)
{
    char file[128], text[600], path[256];
    snprintf(file, sizeof(file), "%s/backup.db", folder);
    put_function("a", 1, FUNCTION_READY, "x");
    cr_assert_eq(store_backup(url, file, &err), 0, "%s", err.message);
    put_function("b", 1, FUNCTION_READY, "y");
    put_large(1);
    snprintf(text, sizeof(text), "cp %s/test.db-wal %s/wal", folder, folder);
    cr_assert_eq(system(text), 0);
    close_store();
    snprintf(text, sizeof(text),
             "cd %s && echo earlier >test.db.replaced && rm test.db && mv wal test.db-wal", folder);
    cr_assert_eq(system(text), 0);
    cr_assert_eq(store_restore(url, file, &err), 0, "%s", err.message);
    open_store();
    cr_expect_str_eq(list_functions(), "a/1=ready ");
    cr_expect_eq(count_files(), 0);
    for (size_t i = 0; i < 3; i++) {
        static const char *const kept[] = {"", "-wal", SQLITE_LARGE_SUFFIX};
        snprintf(path, sizeof(path), "%s/test.db.replaced%s", folder, kept[i]);
        cr_expect(path_exists(path), "%s", path);
    }
}

/* The folder of an earlier restore is in the way, and cannot be removed: something is mounted in it. */
Test(store, a_restore_that_cannot_set_aside_what_was_there_leaves_it)
{
    char file[128], path[256];
    char id[TIME_ID_LEN + 1];
    snprintf(file, sizeof(file), "%s/backup.db", folder);
    cr_assert_eq(store_backup(url, file, &err), 0, "%s", err.message);
    strcpy(id, put_large(1));
    close_store();
    snprintf(path, sizeof(path), "%s/test.db.replaced" SQLITE_LARGE_SUFFIX "/mount", folder);
    cr_assert_eq(make_directories(path, 0700, &err), 0);
    if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("none", path, "tmpfs", 0, NULL) < 0)
        cr_skip("this user may not mount");
    cr_expect_eq(store_restore(url, file, &err), -1);
    cr_assert_eq(umount(path), 0);
    open_store();
    cr_expect(has_large(id, 1));
    cr_expect_eq(count_files(), 1);
}

/* ---- a full disk ---- */

/* SQLite's own bound in the place of the disk's. */
static void set_pages_max(int pages)
{
    struct sqlite_store *database = store->db;
    char text[64];
    snprintf(text, sizeof(text), "PRAGMA max_page_count = %d", pages);
    cr_assert_eq(sqlite3_exec(database->db, text, NULL, NULL, NULL), SQLITE_OK);
}

static void finish_with_large_result(const char *id)
{
    struct execution execution = make_async("f");
    strcpy(execution.id, id);
    execution.status = EXECUTION_SUCCEEDED;
    execution.result_len = 256 * 1024;
    execution.result = malloc(execution.result_len);
    memset(execution.result, '1', execution.result_len);
    store_finish_execution(store, "one", &execution, done, NULL);
}

Test(store, what_has_happened_waits_for_a_full_disk_and_is_written_in_its_order)
{
    struct store_acceptance acceptance = {.owner = "one"};
    char first[TIME_ID_LEN + 1], second[TIME_ID_LEN + 1];
    join("one");
    strcpy(first, accept_as("f", "1", PRIORITY_NORMAL, &acceptance));
    strcpy(second, accept_as("f", "1", PRIORITY_NORMAL, &acceptance));
    start_attempt("one", first, 1);
    set_pages_max(1);
    int before = outcomes;
    finish_with_large_result(first);
    store_start_execution(store, "one", second, 1, 0, 5, NULL, NULL); /* small, and behind it */
    finish_with_large_result(second);
    cr_expect_str_eq(show(first), "running#1", "reads are answered");
    cr_expect_str_eq(show(second), "queued#1", "one overtook the other");
    cr_expect_eq(outcomes, before + 2, "it was given up");
    set_pages_max(1000000);
    wait_for(before + 4);
    cr_expect_eq(failures, 0, "%s", err.message);
    cr_expect_str_eq(show(first), "succeeded#1 with result");
    cr_expect_str_eq(show(second), "succeeded#1 with result");
}

Test(store, what_somebody_waits_for_fails_at_once_on_a_full_disk)
{
    char *bytes = calloc(1, 1024 * 1024);
    set_pages_max(1);
    add_code("big", bytes, 1024 * 1024, done);
    wait_for(1);
    cr_expect_eq(failures, 1);
    cr_expect_eq(err.code, ERROR_UNAVAILABLE);
    cr_expect(strstr(err.message, "disk is full"), "%s", err.message);
}

Test(store, closing_with_a_full_disk_ends)
{
    struct store_acceptance acceptance = {.owner = "one"};
    join("one");
    char id[TIME_ID_LEN + 1];
    strcpy(id, accept_as("f", "1", PRIORITY_NORMAL, &acceptance));
    set_pages_max(1);
    int before = outcomes;
    finish_with_large_result(id);
    close_store();
    cr_expect_eq(outcomes, before + 1);
    cr_expect_eq(failures, 1);
    open_store();
    cr_expect_str_eq(show(id), "queued#1");
}

static void set_file_bytes_max(rlim_t bytes)
{
    struct rlimit limit;
    cr_assert_eq(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = bytes;
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

Test(store, a_large_result_waits_for_a_disk_that_does_not_take_it)
{
    struct store_acceptance acceptance = {.owner = "one"};
    char id[TIME_ID_LEN + 1];
    signal(SIGXFSZ, SIG_IGN);
    join("one");
    strcpy(id, accept_as("f", "1", PRIORITY_NORMAL, &acceptance));
    start_attempt("one", id, 1);
    set_file_bytes_max(LARGE_BYTES / 2);
    int before = outcomes;
    struct execution execution = make_async("f");
    strcpy(execution.id, id);
    execution.status = EXECUTION_SUCCEEDED;
    execution.result = make_large(1);
    execution.result_len = LARGE_BYTES;
    store_finish_execution(store, "one", &execution, done, NULL);
    cr_expect_str_eq(show(id), "running#1", "reads are answered");
    cr_expect_eq(outcomes, before + 1, "it was given up");
    cr_expect_eq(count_files(), 0, "the half that was written takes room");
    set_file_bytes_max(RLIM_INFINITY);
    wait_for(before + 2);
    cr_expect_eq(failures, 0, "%s", err.message);
    cr_expect(has_large(id, 1));
}

Test(store, a_large_result_whose_row_is_not_written_leaves_no_file)
{
    join("one");
    char id[TIME_ID_LEN + 1];
    struct store_acceptance acceptance = {.owner = "one"};
    strcpy(id, accept_as("f", "1", PRIORITY_NORMAL, &acceptance));
    set_pages_max(1);
    int before = outcomes;
    struct execution execution = make_async("f");
    strcpy(execution.id, id);
    execution.status = EXECUTION_SUCCEEDED;
    execution.logs = malloc(LARGE_BYTES);
    memset(execution.logs, 'l', LARGE_BYTES);
    execution.logs_len = LARGE_BYTES;
    execution.result = make_large(1);
    execution.result_len = LARGE_BYTES;
    store_finish_execution(store, "one", &execution, done, NULL);
    cr_expect_str_eq(show(id), "queued#1");
    cr_expect_eq(outcomes, before + 1, "it was given up");
    cr_expect_eq(count_files(), 0);
    set_pages_max(1000000);
    wait_for(before + 2);
    cr_expect_eq(failures, 0, "%s", err.message);
    cr_expect(has_large(id, 1));
    cr_expect_eq(count_files(), 1);
}
