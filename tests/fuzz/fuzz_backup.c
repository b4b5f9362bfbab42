/* A backup of the controller's database in which somebody has written, and the folder of large results beside it. Of the input the first byte says of
 * which type the name of the result's file is, and how its file lies there; eight bytes say how long the result is to be. Behind them are texts, each
 * ended by NUL: that name, the execution's status, error and metrics, a function's definition; the rest is what the file holds.
 *
 * What was restored can be backed up, restored again and opened, and the result is what the file held; what was refused leaves the
 * database that was there. */
#include "base/cleanup.h"
#include "base/loop.h"
#include "scratch.h"
#include "store/sqlite.h"
#include "store/store.h"

#include <stdint.h>

#define ID "00000000-0000-7000-8000-000000000001"
#define BLOCK ((size_t)4096)
#define TEXTS 5

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { NAME, STATUS, ERROR_TEXT, METRICS, SPEC };

struct input {
    uint8_t how;
    int64_t result_bytes;
    const char *texts[TEXTS];
    const uint8_t *content;
    size_t content_len;
};

static char folder[96], url[128], backup[128], beside[160], second[128];
static struct buffer template = {.max = 1 << 24}; /* an empty database */

static void require(bool condition)
{
    if (!condition)
        abort();
}

/* ---- what was written into the backup ---- */

static void bind_name(sqlite3_stmt *row, const struct input *input)
{
    const char *name = input->texts[NAME];
    if ((input->how & 3) == 1)
        sqlite3_bind_text(row, 1, name, -1, SQLITE_STATIC);
    else if ((input->how & 3) == 2)
        sqlite3_bind_blob(row, 1, name, (int)strlen(name), SQLITE_STATIC);
    else if ((input->how & 3) == 3)
        sqlite3_bind_int64(row, 1, input->result_bytes);
}

static void run(sqlite3 *db, const char *text, const struct input *input)
{
    sqlite3_stmt *row = NULL;
    require(sqlite3_prepare_v2(db, text, -1, &row, NULL) == SQLITE_OK);
    bind_name(row, input);
    sqlite3_bind_int64(row, 2, input->result_bytes);
    for (int i = STATUS; i < TEXTS; i++)
        sqlite3_bind_text(row, 2 + i, input->texts[i], -1, SQLITE_STATIC);
    require(sqlite3_step(row) == SQLITE_DONE);
    sqlite3_finalize(row);
}

static void write_backup(const struct input *input)
{
    sqlite3 *db = NULL;
    require(write_file_atomic(backup, template.data, template.len, 0600, false, NULL) == 0);
    require(sqlite3_open(backup, &db) == SQLITE_OK);
    run(db,
        "INSERT INTO executions (id, function, version, status, async, cold_start, attempt,"
        " created_at, started_at, finished_at, error, metrics, result_base64, result_file,"
        " result_file_bytes) VALUES ('" ID "', 'f', 1, ?3, 0, 0, 1, 1, 2, 3, nullif(?4, ''), ?5, 0,"
        " ?1, ?2)",
        input);
    run(db,
        "INSERT INTO functions (name, version, state, spec, created_at, updated_at)"
        " VALUES ('f', 1, 'ready', ?6, 1, 1)",
        input);
    sqlite3_close(db);
}

/* Under the name that the row has, where that can be one. */
static void write_content(const struct input *input)
{
    with_cleanup(buffer_deinit) struct buffer whole = BUFFER_INIT(1 << 24);
    static const char zeros[BLOCK];
    autofree char *path = string_printf("%s/%s", beside, input->texts[NAME]);
    size_t padding = input->how & 4 ? (BLOCK - input->content_len % BLOCK) % BLOCK : 0;
    if (input->how & 8)
        return;
    require(path && make_directories(beside, 0700, NULL) == 0);
    if (!input->texts[NAME][0] || strchr(input->texts[NAME], '/'))
        return;
    require(buffer_append(&whole, input->content, input->content_len, NULL) == 0 &&
            buffer_append(&whole, zeros, padding, NULL) == 0);
    write_file_atomic(path, whole.len ? whole.data : "", whole.len, 0600, false, NULL);
}

/* ---- what came of it ---- */

static void found(void *data, const struct execution *execution, const struct error *err)
{
    const struct input *input = data;
    require(execution || err);
    if (!execution)
        return;
    bool has_file = (input->how & 3) == 1 || (input->how & 3) == 2;
    require(has_file == (execution->result != NULL));
    if (!has_file)
        return;
    size_t len = execution->result_len, most = input->content_len;
    require(len == (size_t)input->result_bytes && len <= most + BLOCK);
    require(memcmp(execution->result, input->content, len < most ? len : most) == 0);
}

static void listed(void *data, const struct execution *executions, size_t count, const char *next,
                   const struct error *err)
{
    (void)data;
    (void)next;
    require(err || (count == 1 && strcmp(executions[0].id, ID) == 0));
}

static void take_function(void *data, struct function_record *record)
{
    (void)data;
    require(record->spec.image && function_name_valid(record->spec.name));
    function_record_deinit(record);
}

static void look_at(struct input *input)
{
    static const struct execution_query query = {.status = -1, .limit = 10};
    uv_loop_t loop;
    struct error err = {0};
    require(uv_loop_init(&loop) == 0);
    struct store *store = store_open(&loop, url, &err);
    require(store != NULL);
    if (store_load_functions(store, take_function, NULL, &err) < 0)
        require(err.message[0]);
    store_get_execution(store, ID, found, input);
    store_list_executions(store, &query, listed, NULL);
    store_close(store);
    loop_close(&loop);
}

static void restore(struct input *input)
{
    struct error err = {0};
    if (store_restore(url, backup, &err) < 0) {
        require(err.code != ERROR_NONE && err.message[0]);
        return;
    }
    if (input->how & 3) {
        require(store_backup(url, second, &err) == 0);
        require(store_restore(url, second, &err) == 0);
    }
    look_at(input);
}

/* ---- one input ---- */

static void set_up(void)
{
    uv_loop_t loop;
    snprintf(folder, sizeof(folder), "%s/run", scratch_folder());
    snprintf(url, sizeof(url), "sqlite://%s/db", folder);
    snprintf(backup, sizeof(backup), "%s/file", folder);
    snprintf(beside, sizeof(beside), "%s" SQLITE_LARGE_SUFFIX, backup);
    snprintf(second, sizeof(second), "%s/second", folder);
    require(uv_loop_init(&loop) == 0 && make_directories(folder, 0700, NULL) == 0);
    struct store *store = store_open(&loop, url, NULL);
    require(store != NULL);
    store_close(store);
    loop_close(&loop);
    require(store_backup(url, backup, NULL) == 0 && buffer_read_file(&template, backup, NULL) == 0);
    require(remove_tree(folder, NULL) == 0);
}

static bool read_input(const char *at, const char *end, struct input *ret)
{
    if (end - at < 9)
        return false;
    ret->how = (uint8_t)*at++;
    memcpy(&ret->result_bytes, at, sizeof(ret->result_bytes));
    at += sizeof(ret->result_bytes);
    for (size_t i = 0; i < TEXTS; i++) {
        const char *nul = memchr(at, '\0', (size_t)(end - at));
        if (!nul)
            return false;
        ret->texts[i] = at;
        at = nul + 1;
    }
    ret->content = (const uint8_t *)at;
    ret->content_len = (size_t)(end - at);
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {0};
    if (size > 65536 || !read_input((const char *)data, (const char *)data + size, &input))
        return 0;
    if (!folder[0])
        set_up();
    require(make_directories(folder, 0700, NULL) == 0);
    write_backup(&input);
    write_content(&input);
    restore(&input);
    require(remove_tree(folder, NULL) == 0);
    return 0;
}
