/* Large results beside an SQLite database, each in a file of its own.
 *
 * SQLite writes each page of 4 KiB of a row to its log, with a checksum, and again to the database: 4,600 writes for a
 * result of 6 MiB, which take a core from the calls under way. So a result of more than STORE_LARGE_BYTES goes with few
 * writes, past the system's cache, to a file in the folder "DATABASE-results", and its row has the file's name and
 * length. Readers know both: a result in its row, and one beside it.
 *
 * Life cycle: sqlite_large_open() with the database's connection; within a transaction any number of
 * sqlite_large_write(); before its commit sqlite_large_sync(); then sqlite_large_committed() or
 * sqlite_large_rolled_back(). A file goes when its row has gone or names another one, after the commit of that; while a
 * backup holds the folder (a shared lock on it), the removal waits for a later commit, or the next opening.
 *
 * Errors: ERROR_UNAVAILABLE for a disk that is full or fails, as the database's own. Thread: the connection's. */
#pragma once

#include "base/buffer.h"
#include "base/text.h"

#include <sqlite3.h>

#define SQLITE_LARGE_SUFFIX "-results"
#define SQLITE_LARGE_SINCE 6 /* the schema's version */
#define SQLITE_LARGE_NAME_SIZE (TIME_ID_LEN + 8)

struct sqlite_large {
    char *path; /* owned; of the folder; NULL: nothing is open */
    int folder; /* owned; -1 */
    struct buffer written, let_go,
        gone; /* names of files: of this transaction, the last of earlier ones */
};

/* `large` must be closed also when this fails. Removes what no row names. */
int sqlite_large_open(struct sqlite_large *large, const char *path, sqlite3 *db, struct error *err);
void sqlite_large_close(struct sqlite_large *large);

/* On the disk when it returns, but for its name in the folder. */
int sqlite_large_write(struct sqlite_large *large, const char *id, const char *bytes, size_t len,
                       char name[SQLITE_LARGE_NAME_SIZE], struct error *err);
/* No row came to name it: it goes with the commit. */
void sqlite_large_let_go(struct sqlite_large *large, const char *name);
int sqlite_large_sync(struct sqlite_large *large, struct error *err);
void sqlite_large_committed(struct sqlite_large *large);
void sqlite_large_rolled_back(struct sqlite_large *large);

/* malloc'd, with a NUL behind it. */
int sqlite_large_read(int folder, const char *name, size_t len, char **ret, struct error *err);

/* Keeps the files of the database `path` as they are while the descriptor is open; -1 in *ret_folder: it has none. Before
 * its rows are read. */
int sqlite_large_hold(const char *path, int *ret_folder, struct error *err);
/* Puts them into the rows of a copy. */
int sqlite_large_take_in(sqlite3 *copy, int folder, struct error *err);
