/* The idle histories (idle_history.h) of the functions that this worker has run lately, by name, so that they outlive
 * instances and versions; and the worker itself, by a file.
 *
 * Bounded: the function that was heard of longest ago makes room. About 250 bytes a function. Loop thread only; load and save
 * block. */
#pragma once

#include "base/error.h"
#include "worker/idle_history.h"

#include <stddef.h>

struct idle_table;

struct idle_table *idle_table_new(size_t max, struct error *err);
void idle_table_free(struct idle_table *table); /* accepts NULL */

/* A call of the function came so long after its last one had ended. Not counted when there is no memory for it. */
void idle_table_add(struct idle_table *table, const char *function, uint64_t idle_ms);
/* The same from both ends, on the monotonic clock: nothing of the function runs any more; a call came. Only the first call after
 * the end of the last one tells an idle time. */
void idle_table_rests(struct idle_table *table, const char *function, uint64_t now_ns);
void idle_table_called(struct idle_table *table, const char *function, uint64_t now_ns);
/* Of a function that is not known: the fixed keep-alive. */
struct idle_windows idle_table_windows(const struct idle_table *table, const char *function,
                                       uint64_t fixed_ms);
size_t idle_table_count(const struct idle_table *table);

/* A JSON object: {"hello": "17:30 18:2"}, bins and their counts, the function heard of last at the end. The file's text is
 * checked like a stranger's; what cannot be right is an error, and nothing of it is taken over. 0 when there is no file. */
int idle_table_load(struct idle_table *table, const char *path, struct error *err);
int idle_table_save(const struct idle_table *table, const char *path, struct error *err);
/* With what is in DATA_DIR/worker/idle-times.json, if it can be read: what a worker has learnt is of use to its successor, but no loss that anything would
 * fail for. NULL only when out of memory. */
struct idle_table *idle_table_open(const char *data_dir, size_t max, struct error *err);
/* Saves and frees it. */
void idle_table_close(struct idle_table *table, const char *data_dir);
/* What idle_table_load() does with the file's text. */
int idle_table_read(struct idle_table *table, const char *text, size_t len, struct error *err);
