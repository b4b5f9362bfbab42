/* Idle histories by function; see idle_table.h. */
#include "worker/idle_table.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/string_map.h"
#include "base/text.h"
#include "model/function.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#define NS_PER_MS 1000000u
#define FILE_MAX ((size_t)4 * 1024 * 1024)
/* "56:65535 " for each bin and the one beyond. */
#define ROW_MAX ((IDLE_BINS + 1) * 9 + 1)

struct idle_entry {
    char function[FUNCTION_NAME_MAX + 1];
    struct idle_history history;
    uint64_t rests_ns; /* since when; 0: not known, or it runs */
    TAILQ_ENTRY(idle_entry) order;
};
TAILQ_HEAD(idle_entries, idle_entry);

struct idle_table {
    size_t max;
    struct string_map by_name;
    struct idle_entries order; /* heard of last: at the end; owned */
};

struct idle_table *idle_table_new(size_t max, struct error *err)
{
    struct idle_table *table = calloc(1, sizeof(*table));

    assert(max > 0);
    if (!table) {
        error_set(err, ERROR_INTERNAL, "out of memory");
        return NULL;
    }
    table->max = max;
    TAILQ_INIT(&table->order);
    return table;
}

static void remove_entry(struct idle_table *table, struct idle_entry *entry)
{
    string_map_remove(&table->by_name, entry->function);
    TAILQ_REMOVE(&table->order, entry, order);
    free(entry);
}

static void clear(struct idle_table *table)
{
    struct idle_entry *entry;

    while ((entry = TAILQ_FIRST(&table->order)))
        remove_entry(table, entry);
}

void idle_table_free(struct idle_table *table)
{
    if (!table)
        return;
    clear(table);
    string_map_deinit(&table->by_name);
    free(table);
}

static struct idle_entry *add_entry(struct idle_table *table, const char *function)
{
    struct idle_entry *entry = calloc(1, sizeof(*entry));

    if (!entry)
        return NULL;
    snprintf(entry->function, sizeof(entry->function), "%s", function);
    if (string_map_put(&table->by_name, entry->function, entry, NULL) < 0) {
        free(entry);
        return NULL;
    }
    TAILQ_INSERT_TAIL(&table->order, entry, order);
    if (table->by_name.count > table->max)
        remove_entry(table, TAILQ_FIRST(&table->order));
    return entry;
}

/* The function's entry, made when needed, as the one heard of last. */
static struct idle_entry *hear_of(struct idle_table *table, const char *function)
{
    struct idle_entry *entry = string_map_get(&table->by_name, function);

    if (!entry)
        return add_entry(table, function);
    TAILQ_REMOVE(&table->order, entry, order);
    TAILQ_INSERT_TAIL(&table->order, entry, order);
    return entry;
}

void idle_table_add(struct idle_table *table, const char *function, uint64_t idle_ms)
{
    struct idle_entry *entry = hear_of(table, function);

    if (entry)
        idle_history_add(&entry->history, idle_ms);
}

void idle_table_rests(struct idle_table *table, const char *function, uint64_t now_ns)
{
    struct idle_entry *entry = hear_of(table, function);

    if (entry)
        entry->rests_ns = now_ns;
}

void idle_table_called(struct idle_table *table, const char *function, uint64_t now_ns)
{
    struct idle_entry *entry = string_map_get(&table->by_name, function);

    if (!entry || entry->rests_ns == 0)
        return;
    uint64_t idle_ns = now_ns > entry->rests_ns ? now_ns - entry->rests_ns : 0;
    idle_history_add(&entry->history, idle_ns / NS_PER_MS);
    entry->rests_ns = 0;
}

struct idle_windows idle_table_windows(const struct idle_table *table, const char *function,
                                       uint64_t fixed_ms)
{
    static const struct idle_history nothing;
    const struct idle_entry *entry = string_map_get(&table->by_name, function);

    return idle_history_windows(entry ? &entry->history : &nothing, fixed_ms);
}

size_t idle_table_count(const struct idle_table *table)
{
    return table->by_name.count;
}

/* ---- the file ---- */

static void write_row(struct json_writer *writer, const struct idle_entry *entry)
{
    const struct idle_history *history = &entry->history;
    char text[ROW_MAX] = "";
    size_t len = 0;

    for (size_t i = 0; i <= IDLE_BINS; i++) {
        unsigned count = i < IDLE_BINS ? history->bins[i] : history->beyond;
        if (count > 0)
            len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%zu:%u", len ? " " : "", i,
                                    count);
    }
    json_member_string(writer, entry->function, text);
}

int idle_table_save(const struct idle_table *table, const char *path, struct error *err)
{
    with_cleanup(buffer_deinit) struct buffer text = BUFFER_INIT(FILE_MAX);
    struct json_writer *writer = json_writer_new(&text);
    const struct idle_entry *entry;

    if (!writer)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    json_object_begin(writer);
    TAILQ_FOREACH(entry, &table->order, order)
    {
        write_row(writer, entry);
    }
    json_object_end(writer);
    if (json_writer_finish(writer, err) < 0)
        return error_wrap(err, "writing %s", path);
    return write_file_atomic(path, text.data, text.len, 0644, false, err);
}

/* "17:30 18:2" */
static int read_row(const char *text, struct idle_history *history)
{
    while (*text) {
        char *end;
        unsigned long bin = strtoul(text, &end, 10);
        if (end == text || *end != ':' || bin > IDLE_BINS)
            return -1;
        text = end + 1;
        unsigned long count = strtoul(text, &end, 10);
        if (end == text || (*end && *end != ' ') ||
            count > (unsigned long)(IDLE_COUNT_MAX - history->count))
            return -1;
        *(bin < IDLE_BINS ? &history->bins[bin] : &history->beyond) += (uint16_t)count;
        history->count += (uint16_t)count;
        text = end + (*end == ' ');
    }
    return 0;
}

static int read_entry(struct idle_table *table, const char *function, const char *text,
                      struct error *err)
{
    struct idle_history history = {0};

    if (!function_name_valid(function) || !text || read_row(text, &history) < 0)
        return error_set(err, ERROR_INVALID_REQUEST, "the idle times of \"%.64s\" are \"%.64s\"",
                         function, text ? text : "");
    struct idle_entry *entry = add_entry(table, function);
    if (!entry)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    entry->history = history;
    return 0;
}

int idle_table_read(struct idle_table *table, const char *text, size_t len, struct error *err)
{
    autojson *root = json_parse(text, len, &(struct json_limits){.max_bytes = FILE_MAX}, err);

    if (!root)
        return -1;
    if (json_type(root) != JSON_OBJECT)
        return error_set(err, ERROR_INVALID_REQUEST, "idle times must be a JSON object");
    clear(table);
    json_foreach (i, row, root) {
        if (read_entry(table, json_key_at(root, i), json_string(row, NULL), err) < 0) {
            clear(table);
            return -1;
        }
    }
    return 0;
}

int idle_table_load(struct idle_table *table, const char *path, struct error *err)
{
    with_cleanup(buffer_deinit) struct buffer text = BUFFER_INIT(FILE_MAX);

    if (!path_exists(path))
        return 0;
    if (buffer_read_file(&text, path, err) < 0)
        return -1;
    return idle_table_read(table, text.data ? text.data : "", text.len, err) < 0
               ? error_wrap(err, "%s", path)
               : 0;
}

static char *file_in(const char *data_dir)
{
    return string_printf("%s/worker/idle-times.json", data_dir);
}

struct idle_table *idle_table_open(const char *data_dir, size_t max, struct error *err)
{
    struct idle_table *table = idle_table_new(max, err);
    autofree char *path = file_in(data_dir);
    struct error why = {0};

    if (table && path && idle_table_load(table, path, &why) < 0)
        log_warn("idle times of functions cannot be read; they are learnt anew", LOG_ERR(&why));
    return table;
}

void idle_table_close(struct idle_table *table, const char *data_dir)
{
    autofree char *path = file_in(data_dir);
    struct error err = {0};

    if (path && idle_table_save(table, path, &err) < 0)
        log_warn("idle times of functions cannot be saved", LOG_ERR(&err));
    idle_table_free(table);
}
