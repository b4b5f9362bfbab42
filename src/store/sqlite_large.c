/* Large results beside an SQLite database: see sqlite_large.h.
 *
 * A file is written and synced before the row that names it, and removed after the row: an end at any moment leaves at
 * most a file that no row names, which the next opening removes. Triggers of this connection tell which files rows let
 * go of, so that no statement that removes records has to know of them. */
#include "store/sqlite_large.h"

#include "base/cleanup.h"
#include "base/text.h"
#include "store/sqlite.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

/* Names that are kept for a removal; what is beyond goes with the next opening. */
#define NAMES_MAX ((size_t)4 * 1024 * 1024)
/* Of one execution: a second one is written only when the first could not be removed. */
#define FILES_MAX 1000
/* Files have whole blocks, zeros behind the result; the row has its length. */
#define BLOCK_BYTES ((size_t)4096)
#define PIECE_BYTES ((size_t)512 * 1024)

/* Of the database file `path`; malloc'd. */
static char *name_folder(const char *path, struct error *err)
{
    char *folder = string_printf("%s" SQLITE_LARGE_SUFFIX, path);
    if (!folder)
        error_set(err, ERROR_INTERNAL, "out of memory");
    return folder;
}

/* ---- names ---- */

/* Names begin with their execution's id, and are no way out of the folder. */
static bool is_ours(const char *name)
{
    return name && strlen(name) > TIME_ID_LEN + 1 && name[TIME_ID_LEN] == '.' && !strchr(name, '/');
}

/* ---- lists of them, each with its NUL ---- */

static int add_name(struct buffer *names, const char *name, struct error *err)
{
    return buffer_append(names, name, strlen(name) + 1, err);
}

/* Those that are gone already are no matter; the next opening tries again with what cannot be removed. */
static void remove_files(int folder, struct buffer *names)
{
    for (size_t at = 0; at < names->len; at += strlen(names->data + at) + 1)
        unlinkat(folder, names->data + at, 0);
    buffer_clear(names);
}

/* ---- opening ---- */

/* What the triggers call. (A row that INSERT OR REPLACE replaces is not told of: no id is put twice, and if one were, the
 * next opening would remove its file.) */
static void let_go(sqlite3_context *context, int count, sqlite3_value **values)
{
    struct sqlite_large *large = sqlite3_user_data(context);
    const char *name = (const char *)sqlite3_value_text(values[0]);
    (void)count;
    if (is_ours(name))
        sqlite_large_let_go(large, name);
}

static int watch_rows(struct sqlite_large *large, sqlite3 *db, struct error *err)
{
    static const char triggers[] =
        "CREATE TEMP TRIGGER result_files_gone AFTER DELETE ON main.executions"
        " WHEN old.result_file IS NOT NULL BEGIN SELECT faas_let_go(old.result_file); END;"
        "CREATE TEMP TRIGGER result_files_replaced AFTER UPDATE OF result_file ON main.executions"
        " WHEN old.result_file IS NOT NULL AND old.result_file IS NOT new.result_file"
        " BEGIN SELECT faas_let_go(old.result_file); END;";
    if (sqlite3_create_function(db, "faas_let_go", 1, SQLITE_UTF8, large, let_go, NULL, NULL) !=
            SQLITE_OK ||
        sqlite3_exec(db, triggers, NULL, NULL, NULL) != SQLITE_OK)
        return sqlite_fail(db, err, "watching the records");
    return 0;
}

/* -1: not known. */
static int is_named(sqlite3_stmt *statement, const char *name)
{
    sqlite3_bind_text(statement, 1, name, TIME_ID_LEN, SQLITE_STATIC);
    sqlite3_bind_text(statement, 2, name, -1, SQLITE_STATIC);
    int outcome = sqlite3_step(statement);
    sqlite3_reset(statement);
    return outcome == SQLITE_ROW ? 1 : outcome == SQLITE_DONE ? 0 : -1;
}

static int sweep_entries(DIR *entries, sqlite3_stmt *statement, sqlite3 *db, struct error *err)
{
    for (struct dirent *entry; (entry = readdir(entries));) {
        int named = is_ours(entry->d_name) ? is_named(statement, entry->d_name) : 1;
        if (named < 0)
            return sqlite_fail(db, err, "looking for results that no record names");
        if (named == 0)
            unlinkat(dirfd(entries), entry->d_name, 0);
    }
    return 0;
}

/* What an end between a file and its row left. A backup under way puts it off to the next opening. */
static int sweep(struct sqlite_large *large, sqlite3 *db, struct error *err)
{
    sqlite3_stmt *statement = NULL;
    DIR *entries = opendir(large->path);
    if (!entries)
        return error_set_errno(err, ERROR_UNAVAILABLE, errno, "opening %s", large->path);
    int outcome = 0;
    if (flock(dirfd(entries), LOCK_EX | LOCK_NB) == 0) {
        outcome =
            sqlite3_prepare_v2(db, "SELECT 1 FROM executions WHERE id = ?1 AND result_file = ?2",
                               -1, &statement, NULL) == SQLITE_OK
                ? sweep_entries(entries, statement, db, err)
                : sqlite_fail(db, err, "looking for results that no record names");
        sqlite3_finalize(statement);
    }
    closedir(entries);
    return outcome;
}

/* Makes it when there is none. */
static int open_folder(struct sqlite_large *large, struct error *err)
{
    if (mkdir(large->path, 0700) == 0 ? sqlite_sync_folder_of(large->path, err) < 0
                                      : errno != EEXIST)
        return error_set_errno(err, ERROR_UNAVAILABLE, errno, "making %s", large->path);
    int folder = open(large->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0)
        return error_set_errno(err, ERROR_UNAVAILABLE, errno, "opening %s", large->path);
    if (large->folder >= 0)
        close(large->folder);
    large->folder = folder;
    return 0;
}

int sqlite_large_open(struct sqlite_large *large, const char *path, sqlite3 *db, struct error *err)
{
    large->written = large->let_go = large->gone = BUFFER_INIT(NAMES_MAX);
    large->path = name_folder(path, err);
    if (!large->path || open_folder(large, err) < 0 || sweep(large, db, err) < 0)
        return -1;
    return watch_rows(large, db, err);
}

void sqlite_large_close(struct sqlite_large *large)
{
    if (large->folder >= 0)
        close(large->folder);
    free(large->path);
    buffer_deinit(&large->written);
    buffer_deinit(&large->let_go);
    buffer_deinit(&large->gone);
}

/* ---- writing ---- */

/* A name that no other file has; the descriptor. */
static int make_file(struct sqlite_large *large, const char *id, char name[SQLITE_LARGE_NAME_SIZE])
{
    int fd = -1;
    for (int i = 0; fd < 0 && i < FILES_MAX; i++) {
        snprintf(name, SQLITE_LARGE_NAME_SIZE, "%s.%d", id, i);
        fd = openat(large->folder, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd < 0 && errno != EEXIST)
            return -1;
    }
    return fd;
}

static size_t padded(size_t len)
{
    return (len + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES;
}

/* A file system that takes only other blocks past its cache gets the rest through that. */
static int write_piece(int fd, const char *bytes, size_t len)
{
    while (len > 0) {
        ssize_t count = write(fd, bytes, len);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0 && errno == EINVAL && fcntl(fd, F_GETFL) & O_DIRECT &&
            fcntl(fd, F_SETFL, 0) == 0)
            continue;
        if (count < 0)
            return -1;
        bytes += count;
        len -= (size_t)count;
    }
    return 0;
}

/* What of `bytes` can be written from where it lies: all of its whole blocks, or none. */
static size_t whole_blocks(const char *bytes, size_t len)
{
    return (uintptr_t)bytes % BLOCK_BYTES == 0 ? len / BLOCK_BYTES * BLOCK_BYTES : 0;
}

/* Past the system's cache: 1,536 fresh pages for 6 MiB take it 3 to 16 ms of the processor, which this takes 1 of. That
 * wants whole blocks from an aligned address: the first `direct` bytes go from where they lie, the others piece by piece through one that is. */
static int write_from(int fd, const char *bytes, size_t len, size_t direct)
{
    autofree char *piece = aligned_alloc(BLOCK_BYTES, PIECE_BYTES);
    if (!piece)
        return -1;
    fcntl(fd, F_SETFL, O_DIRECT); /* where the file system cannot, it goes through the cache */
    if (write_piece(fd, bytes, direct) < 0)
        return -1;
    for (size_t at = direct; at < len; at += PIECE_BYTES) {
        size_t count = len - at < PIECE_BYTES ? len - at : PIECE_BYTES;
        memcpy(piece, bytes + at, count);
        memset(piece + count, 0, padded(count) - count);
        if (write_piece(fd, piece, padded(count)) < 0)
            return -1;
    }
    return fdatasync(fd);
}

/* A file system or disk that checks what it has been given fails when that changes meanwhile, as a worker can change its results: no other
 * record must wait for that, so a copy is written then. */
static int write_whole(int fd, const char *bytes, size_t len)
{
    size_t direct = whole_blocks(bytes, len);
    if (write_from(fd, bytes, len, direct) == 0)
        return 0;
    bool may_have_changed = errno == EIO || errno == EILSEQ || errno == EFAULT;
    if (direct == 0 || !may_have_changed || lseek(fd, 0, SEEK_SET) < 0)
        return -1;
    return write_from(fd, bytes, len, 0);
}

int sqlite_large_write(struct sqlite_large *large, const char *id, const char *bytes, size_t len,
                       char name[SQLITE_LARGE_NAME_SIZE], struct error *err)
{
    autoclose int fd = make_file(large, id, name);
    if (fd < 0 && errno == ENOENT) { /* somebody removed the folder: no call must wait for that */
        if (open_folder(large, err) < 0)
            return -1;
        fd = make_file(large, id, name);
    }
    if (fd < 0)
        return error_set_errno(err, ERROR_UNAVAILABLE, errno, "making a file in %s", large->path);
    if (write_whole(fd, bytes, len) < 0) {
        error_set_errno(err, ERROR_UNAVAILABLE, errno, "writing %zu bytes to %s/%s", len,
                        large->path, name);
        unlinkat(large->folder, name, 0);
        return -1;
    }
    if (add_name(&large->written, name, err) == 0)
        return 0;
    unlinkat(large->folder, name, 0);
    return -1;
}

int sqlite_large_sync(struct sqlite_large *large, struct error *err)
{
    if (large->written.len == 0 || fsync(large->folder) == 0)
        return 0;
    return error_set_errno(err, ERROR_UNAVAILABLE, errno, "writing %s to the disk", large->path);
}

void sqlite_large_let_go(struct sqlite_large *large, const char *name)
{
    add_name(&large->let_go, name, NULL);
}

/* Not while a backup reads: its rows name files that the database's may not name any more. */
static void remove_gone(struct sqlite_large *large)
{
    if (large->gone.len == 0 || flock(large->folder, LOCK_EX | LOCK_NB) < 0)
        return;
    remove_files(large->folder, &large->gone);
    flock(large->folder, LOCK_UN);
}

void sqlite_large_committed(struct sqlite_large *large)
{
    buffer_clear(&large->written);
    if (large->let_go.len > 0)
        buffer_append(&large->gone, large->let_go.data, large->let_go.len, NULL);
    buffer_clear(&large->let_go);
    remove_gone(large);
}

void sqlite_large_rolled_back(struct sqlite_large *large)
{
    buffer_clear(&large->let_go);
    remove_files(large->folder, &large->written);
}

/* ---- reading ---- */

static int read_whole(int fd, char *bytes, size_t len)
{
    while (len > 0) {
        errno = ENODATA; /* should it end before */
        ssize_t count = read(fd, bytes, len);
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            return -1;
        bytes += count;
        len -= (size_t)count;
    }
    return 0;
}

int sqlite_large_read(int folder, const char *name, size_t len, char **ret, struct error *err)
{
    if (!is_ours(name))
        return error_set(err, ERROR_INTERNAL, "a record names no file of a result");
    autoclose int fd = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    struct stat status;
    if (fd < 0 || fstat(fd, &status) < 0)
        return error_set_errno(err, ERROR_INTERNAL, errno, "opening the result's file %s", name);
    if (!S_ISREG(status.st_mode) || len > (size_t)status.st_size ||
        (size_t)status.st_size != padded(len))
        return error_set(err, ERROR_INTERNAL,
                         "the result's file %s has %lld bytes, which a result of %zu does not take",
                         name, (long long)status.st_size, len);
    autofree char *bytes = malloc(len + 1);
    if (!bytes)
        return error_set(err, ERROR_INTERNAL, "out of memory for a result of %zu bytes", len);
    if (read_whole(fd, bytes, len) < 0)
        return error_set_errno(err, ERROR_INTERNAL, errno, "reading the result's file %s", name);
    bytes[len] = '\0';
    *ret = steal_pointer(&bytes);
    return 0;
}

/* ---- copies ---- */

int sqlite_large_hold(const char *path, int *ret_folder, struct error *err)
{
    autofree char *name = name_folder(path, err);
    if (!name)
        return -1;
    autoclose int folder = open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0 && errno != ENOENT)
        return error_set_errno(err, ERROR_UNAVAILABLE, errno, "opening %s", name);
    while (folder >= 0 && flock(folder, LOCK_SH) < 0)
        if (errno != EINTR)
            return error_set_errno(err, ERROR_UNAVAILABLE, errno, "locking %s", name);
    *ret_folder = steal_fd(&folder);
    return 0;
}

static int take_in(sqlite3_stmt *row, sqlite3_stmt *update, int folder, struct error *err)
{
    autofree char *bytes = NULL;
    size_t len = (size_t)sqlite3_column_int64(row, 2);
    if (folder < 0)
        return error_set(err, ERROR_INVALID_REQUEST,
                         "its large results are missing: the folder that is named as the file is, "
                         "with " SQLITE_LARGE_SUFFIX " behind");
    if (sqlite_large_read(folder, (const char *)sqlite3_column_text(row, 1), len, &bytes, err) < 0)
        return -1;
    sqlite3_bind_int64(update, 1, sqlite3_column_int64(row, 0));
    sqlite3_bind_text64(update, 2, bytes, len, SQLITE_STATIC, SQLITE_UTF8);
    int outcome = sqlite3_step(update);
    sqlite3_reset(update);
    sqlite3_clear_bindings(update);
    return outcome == SQLITE_DONE
               ? 0
               : sqlite_fail(sqlite3_db_handle(update), err, "writing a large result");
}

/* The row ids stay as they are, so the walk may change what it goes through. */
static int take_all_in(sqlite3_stmt *rows, sqlite3_stmt *update, int folder, struct error *err)
{
    int outcome;
    while ((outcome = sqlite3_step(rows)) == SQLITE_ROW)
        if (take_in(rows, update, folder, err) < 0)
            return -1;
    return outcome == SQLITE_DONE
               ? 0
               : sqlite_fail(sqlite3_db_handle(rows), err, "reading the large results");
}

int sqlite_large_take_in(sqlite3 *copy, int folder, struct error *err)
{
    static const char walk[] = "SELECT rowid, result_file, result_file_bytes FROM executions WHERE "
                               "result_file IS NOT NULL";
    static const char change[] = "UPDATE executions SET result = ?2, result_file = NULL,"
                                 " result_file_bytes = NULL WHERE rowid = ?1";
    sqlite3_stmt *rows = NULL, *update = NULL;
    int version = 0, outcome = -1;
    if (sqlite_read_version(copy, &version, err) < 0)
        return -1;
    if (version < SQLITE_LARGE_SINCE)
        return 0;
    if (sqlite3_exec(copy, "BEGIN", NULL, NULL, NULL) != SQLITE_OK ||
        sqlite3_prepare_v2(copy, walk, -1, &rows, NULL) != SQLITE_OK ||
        sqlite3_prepare_v2(copy, change, -1, &update, NULL) != SQLITE_OK)
        sqlite_fail(copy, err, "reading the large results");
    else
        outcome = take_all_in(rows, update, folder, err);
    sqlite3_finalize(rows);
    sqlite3_finalize(update);
    if (outcome == 0 && sqlite3_exec(copy, "COMMIT", NULL, NULL, NULL) != SQLITE_OK)
        outcome = sqlite_fail(copy, err, "writing the large results");
    return outcome;
}
