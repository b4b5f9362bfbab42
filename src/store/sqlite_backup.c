/* Backup of an SQLite database that may be in use, and restore of one that is not.
 *
 * A backup is one read transaction, in which SQLite's backup interface copies every page: consistent, and no writer
 * waits for it. Large results, which lie beside the database, come into the copy's rows. Both write beside their target
 * and put it in place by a rename, so that what is there is whole. */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/text.h"
#include "store/sqlite.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void close_database(sqlite3 *const *db)
{
    sqlite3_close(*db);
}
#define auto_database __attribute__((__cleanup__(close_database))) sqlite3

static int check_path(const char *path, struct error *err)
{
    if (path[0] == '/')
        return 0;
    return error_set(err, ERROR_INVALID_REQUEST,
                     "the database's path must be absolute (sqlite:///path/to/file), not \"%s\"",
                     path);
}

static int open_existing(const char *path, sqlite3 **ret, struct error *err)
{
    if (sqlite3_open_v2(path, ret, SQLITE_OPEN_READWRITE, NULL) == SQLITE_OK) {
        sqlite3_busy_timeout(*ret, 5000);
        return 0;
    }
    sqlite_fail(*ret, err, "opening it");
    return error_wrap(err, "database %s", path);
}

/* Every page, in one go. */
static int copy_pages(sqlite3 *from, sqlite3 *to, struct error *err)
{
    sqlite3_backup *backup = sqlite3_backup_init(to, "main", from, "main");
    int outcome = backup ? sqlite3_backup_step(backup, -1) : SQLITE_ERROR;
    sqlite3_backup_finish(backup);
    if (outcome != SQLITE_DONE)
        return sqlite_fail(to, err, "writing the copy");
    /* One file that is complete by itself. */
    if (sqlite3_exec(to, "PRAGMA journal_mode = DELETE", NULL, NULL, NULL) != SQLITE_OK)
        return sqlite_fail(to, err, "writing the copy");
    return 0;
}

static int sync_path(const char *path, int flags, struct error *err)
{
    autoclose int fd = open(path, flags | O_CLOEXEC);
    if (fd >= 0 && fsync(fd) == 0)
        return 0;
    return error_set_errno(err, ERROR_UNAVAILABLE, errno, "writing %s to the disk", path);
}

int sqlite_sync_folder_of(const char *path, struct error *err)
{
    autofree char *folder = strdup(path);
    if (!folder)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    char *slash = strrchr(folder, '/');
    if (slash)
        slash[slash == folder ? 1 : 0] = '\0';
    return sync_path(slash ? folder : ".", O_RDONLY | O_DIRECTORY, err);
}

static int copy_content(sqlite3 *from, int results, const char *path, struct error *err)
{
    auto_database *to = NULL;
    if (sqlite3_open_v2(path, &to, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL) != SQLITE_OK)
        return sqlite_fail(to, err, "writing the copy");
    if (copy_pages(from, to, err) < 0)
        return -1;
    return sqlite_large_take_in(to, results, err);
}

/* A copy of `from`, whose path is `source`, as the file `path`. */
static int copy_to(sqlite3 *from, const char *source, const char *path, struct error *err)
{
    autofree char *part = string_printf("%s.part", path);
    autoclose int results = -1;
    if (!part)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    if (sqlite_large_hold(source, &results, err) < 0)
        return -1;
    unlink(part);
    mode_t before = umask(077); /* code and payloads are nobody else's business */
    int outcome = copy_content(from, results, part, err);
    umask(before);
    if (outcome == 0)
        outcome = sync_path(part, O_RDONLY, err);
    if (outcome == 0 && rename(part, path) < 0)
        outcome = error_set_errno(err, ERROR_UNAVAILABLE, errno, "putting %s in its place", path);
    if (outcome < 0)
        unlink(part);
    return outcome < 0 ? -1 : sqlite_sync_folder_of(path, err);
}

int sqlite_backup(const char *path, const char *file, struct error *err)
{
    auto_database *db = NULL;
    if (check_path(path, err) < 0 || open_existing(path, &db, err) < 0)
        return -1;
    return copy_to(db, path, file, err);
}

/* ---- restore ---- */

static int check_pages(sqlite3 *db, struct error *err)
{
    sqlite3_stmt *statement = NULL;
    char verdict[200] = "";
    if (sqlite3_prepare_v2(db, "PRAGMA integrity_check(1)", -1, &statement, NULL) == SQLITE_OK &&
        sqlite3_step(statement) == SQLITE_ROW)
        snprintf(verdict, sizeof(verdict), "%s", (const char *)sqlite3_column_text(statement, 0));
    else
        sqlite_fail(db, err, "checking it");
    sqlite3_finalize(statement);
    if (!verdict[0] || strcmp(verdict, "ok") == 0)
        return verdict[0] ? 0 : -1;
    return error_set(err, ERROR_INVALID_REQUEST, "it is damaged: %s", verdict);
}

/* A backup of a controller's database, of a schema that this program knows. */
static int check_backup(const char *file, sqlite3 **ret, struct error *err)
{
    int version = 0;
    if (!path_exists(file))
        return error_set(err, ERROR_NOT_FOUND, "there is no file %s", file);
    if (open_existing(file, ret, err) < 0 || check_pages(*ret, err) < 0 ||
        sqlite_read_version(*ret, &version, err) < 0)
        return error_wrap(err, "the backup %s", file);
    if (version == 0)
        return error_set(err, ERROR_INVALID_REQUEST, "%s is no backup of a controller's database",
                         file);
    return sqlite_check_version(version, err);
}

/* Removes what an earlier restore set aside: all of it for a whole database, or else only what is in the way of what is
 * left of one that is lost, or whose setting aside was cut short. */
static int make_way(const char *from, const char *to, bool whole, struct error *err)
{
    return whole || path_exists(from) ? remove_tree(to, err) : 0;
}

static int move_aside(const char *from, const char *to, bool whole, struct error *err)
{
    (void)whole;
    if (rename(from, to) < 0 && errno != ENOENT)
        return error_set_errno(err, ERROR_UNAVAILABLE, errno, "setting %s aside", from);
    return 0;
}

typedef int aside_step_fn(const char *from, const char *to, bool whole, struct error *err);

static int for_each_part(const char *path, aside_step_fn *step, bool whole, struct error *err)
{
    static const char *const suffixes[] = {"", "-wal", "-shm", SQLITE_LARGE_SUFFIX};
    for (size_t i = 0; i < ARRAY_LENGTH(suffixes); i++) {
        autofree char *from = string_printf("%s%s", path, suffixes[i]);
        autofree char *to = string_printf("%s.replaced%s", path, suffixes[i]);
        if (!from || !to)
            return error_set(err, ERROR_INTERNAL, "out of memory");
        if (step(from, to, whole, err) < 0)
            return -1;
    }
    return 0;
}

/* What is there now stays beside it, so that a wrong restore can be undone. Without a database, too: a log that is left
 * of one would go into the restored one. The removals, which take long and can fail, come before the first move: a
 * controller that starts without its database removes all large results. */
static int set_aside(const char *path, struct error *err)
{
    bool whole = path_exists(path);
    return for_each_part(path, make_way, whole, err) < 0 ||
                   for_each_part(path, move_aside, whole, err) < 0
               ? -1
               : 0;
}

/* Whole beside its place first, so that an end at any moment leaves either the one or the other to be put there. */
static int replace(sqlite3 *backup, const char *file, const char *path, struct error *err)
{
    autofree char *restored = string_printf("%s.restored", path);
    if (!restored)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    if (copy_to(backup, file, restored, err) < 0 || set_aside(path, err) < 0)
        return -1;
    if (rename(restored, path) < 0)
        return error_set_errno(err, ERROR_UNAVAILABLE, errno, "putting %s in its place", path);
    return sqlite_sync_folder_of(path, err);
}

int sqlite_restore(const char *path, const char *file, struct error *err)
{
    auto_database *backup = NULL;
    autoclose int lock = -1;
    if (check_path(path, err) < 0 || check_backup(file, &backup, err) < 0)
        return -1;
    if (sqlite_lock(path, &lock, err) < 0)
        return error_wrap(err, "stop the controller first");
    return replace(backup, file, path, err);
}
