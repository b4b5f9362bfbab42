/* Logs: of one execution, of a function's latest ones, and as they are written. */
#include "controller/controller.h"
#include "controller/handlers.h"

#include <stdlib.h>
#include <string.h>

#define LATEST_MAX 100
#define LATEST_DEFAULT 10
#define LOGS_MAX ((size_t)128 * 1024 * 1024)

/* A read of several executions' logs, one after the other, oldest first. */
struct log_read {
    struct controller *controller;
    struct http_request *request;
    bool plain;
    bool single;                  /* one execution by id: its absence is an error */
    char (*ids)[TIME_ID_LEN + 1]; /* owned */
    size_t count, next;
    struct buffer out; /* the lines so far */
};

static void read_next(struct log_read *read);

static void free_read(struct log_read *read)
{
    read->controller->pending_reads--;
    buffer_deinit(&read->out);
    free(read->ids);
    free(read);
}

static void end_with_error(struct log_read *read, const struct error *err)
{
    http_respond_error(read->request, err);
    free_read(read);
}

static struct log_read *new_read(struct controller *controller, struct http_request *request,
                                 size_t max_count)
{
    struct error err = {0};
    const char *accept = http_request_header(request, "Accept");
    struct log_read *read = calloc(1, sizeof(*read));
    if (read)
        read->ids = calloc(max_count, sizeof(*read->ids));
    if (!read || !read->ids) {
        free(read);
        error_set(&err, ERROR_INTERNAL, "out of memory");
        http_respond_error(request, &err);
        return NULL;
    }
    controller->pending_reads++;
    read->controller = controller;
    read->request = request;
    read->plain = accept && strncmp(accept, "text/plain", 10) == 0;
    buffer_init(&read->out, LOGS_MAX);
    return read;
}

/* ---- the answer ---- */

static void end_plain(struct log_read *read)
{
    size_t len = 0;
    char *text = buffer_take(&read->out, &len);
    http_respond(read->request, 200, "text/plain; charset=utf-8", text, len, NULL, 0);
    free_read(read);
}

static void end_read(struct log_read *read)
{
    struct error err = {0};
    struct buffer body = BUFFER_INIT(LOGS_MAX + 1024);
    if (read->plain) {
        end_plain(read);
        return;
    }
    if (read->out.len > 0)
        read->out.len--; /* the comma behind the last line */
    if (buffer_append_string(&body, "{\"logs\":[", &err) < 0 ||
        buffer_append(&body, read->out.data ? read->out.data : "", read->out.len, &err) < 0 ||
        buffer_append_string(&body, "]}", &err) < 0) {
        buffer_deinit(&body);
        end_with_error(read, &err);
        return;
    }
    http_respond_json(read->request, 200, &body);
    free_read(read);
}

static int add_log(struct log_read *read, const struct execution *record, const char *text,
                   size_t len, struct error *err)
{
    if (len == 0)
        return 0;
    if (read->plain)
        return buffer_append(&read->out, text, len, err);
    return log_write_lines(&read->out, record->id,
                           record->finished_at_ns ? record->finished_at_ns : record->created_at_ns,
                           text, len, ',', err);
}

/* ---- one after the other ---- */

static void log_came(void *data, const struct execution *record, const struct error *err)
{
    struct log_read *read = data;
    struct error failure = {0};
    if (!err && !record && read->single) {
        error_set(&failure, ERROR_NOT_FOUND,
                  "there is no execution %.80s (records are kept for a while only)",
                  http_request_param(read->request, "id"));
        err = &failure;
    }
    if (!err && record && add_log(read, record, record->logs, record->logs_len, &failure) < 0)
        err = &failure;
    if (err)
        end_with_error(read, err);
    else
        read_next(read);
}

static void read_next(struct log_read *read)
{
    struct error err = {0};
    while (read->next < read->count) {
        const char *id = read->ids[read->next++];
        const struct live_execution *live = executions_find(read->controller, id);
        if (!live) {
            store_get_execution(read->controller->store, id, log_came, read);
            return;
        }
        bool whole = live->record.logs != NULL;
        if (add_log(read, &live->record, whole ? live->record.logs : live->log.data,
                    whole ? live->record.logs_len : live->log.len, &err) < 0) {
            end_with_error(read, &err);
            return;
        }
    }
    end_read(read);
}

static void add_id(struct log_read *read, const char *id)
{
    memcpy(read->ids[read->count++], id, sizeof(read->ids[0]));
}

void serve_execution_logs(struct http_request *request, void *data)
{
    const char *id = http_request_param(request, "id");
    struct error err = {0};
    if (!time_id_valid(id)) {
        error_set(&err, ERROR_NOT_FOUND, "there is no execution %.80s", id);
        http_respond_error(request, &err);
        return;
    }
    struct log_read *read = new_read(data, request, 1);
    if (!read)
        return;
    read->single = true;
    add_id(read, id);
    read_next(read);
}

/* ---- a function's ---- */

static int oldest_first(const void *a, const void *b)
{
    return strcmp(a, b);
}

static void latest_came(void *data, const struct execution *executions, size_t count,
                        const char *next_cursor, const struct error *err)
{
    struct log_read *read = data;
    (void)next_cursor;
    if (err) {
        end_with_error(read, err);
        return;
    }
    for (size_t i = 0; i < count; i++)
        if (!executions_find(read->controller, executions[i].id))
            add_id(read, executions[i].id);
    qsort(read->ids, read->count, sizeof(read->ids[0]), oldest_first);
    read_next(read);
}

/* Those in memory that have begun. */
static void add_live(struct log_read *read, const char *function, size_t max)
{
    string_map_for_each(slot, &read->controller->executions.by_id)
    {
        const struct live_execution *execution = slot->value;
        if (read->count < max && execution->record.status != EXECUTION_QUEUED &&
            strcmp(execution->record.function, function) == 0)
            add_id(read, execution->record.id);
    }
}

static void read_latest(struct controller *controller, struct http_request *request,
                        const char *name)
{
    struct error err = {0};
    struct execution_query query = {.function = name, .status = -1};
    if (query_limit(request, LATEST_MAX, LATEST_DEFAULT, &query.limit, &err) < 0) {
        http_respond_error(request, &err);
        return;
    }
    struct log_read *read = new_read(controller, request, (size_t)query.limit * 2);
    if (!read)
        return;
    executions_flush(controller);
    add_live(read, name, (size_t)query.limit);
    store_list_executions(controller->store, &query, latest_came, read);
}

void serve_function_logs(struct http_request *request, void *data)
{
    struct controller *controller = data;
    struct error err = {0};
    const char *name = http_request_param(request, "name");
    const char *follow = http_request_query(request, "follow");
    if (!registry_find(&controller->registry, name))
        error_set(&err, ERROR_NOT_FOUND, "there is no function %.80s", name);
    else if (follow && strcmp(follow, "true") != 0 && strcmp(follow, "false") != 0)
        error_set_field(&err, ERROR_INVALID_REQUEST, "follow",
                        "follow must be true or false, not \"%.40s\"", follow);
    else if (follow && follow[0] == 't') {
        log_follow(controller, request, name);
        return;
    } else {
        read_latest(controller, request, name);
        return;
    }
    http_respond_error(request, &err);
}
