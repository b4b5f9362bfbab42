/* /v1/executions: one record, and lists of them.
 *
 * What is queued, running or just finished is in memory; the rest is in the store, which sees every earlier
 * write before a read. A list merges both: memory knows better. */
#include "base/cleanup.h"
#include "controller/controller.h"
#include "controller/handlers.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define LIST_MAX 1000
#define LIST_TRIES 5
#define LIST_DEFAULT 50

#define LACK_MAX 512

/* What a queued one waits for when that is a worker that it may run on; NULL otherwise. */
static const char *waiting_for(const struct controller *controller, const struct execution *record,
                               char text[LACK_MAX])
{
    const struct function_entry *function =
        record->status == EXECUTION_QUEUED ? registry_find(&controller->registry, record->function)
                                           : NULL;
    if (!function || !function->current ||
        placement_possible(&controller->dispatch.placement, function->current))
        return NULL;
    placement_explain(&controller->dispatch.placement, function->current, text, LACK_MAX);
    return text;
}

static void respond_record(const struct controller *controller, struct http_request *request,
                           const struct execution *record)
{
    struct json_answer answer;
    struct execution shown = *record; /* borrows */
    char text[LACK_MAX];
    if (json_answer_begin(&answer, request) < 0)
        return;
    shown.waiting_for = waiting_for(controller, record, text);
    execution_write(answer.writer, &shown);
    json_answer_respond(&answer, request, 200);
}

/* ---- one ---- */

struct execution_read {
    struct controller *controller;
    struct http_request *request;
};

static void respond_not_found(struct http_request *request)
{
    struct error err = {0};
    error_set(&err, ERROR_NOT_FOUND,
              "there is no execution %.80s (records are kept for a while only)",
              http_request_param(request, "id"));
    http_respond_error(request, &err);
}

/* The log so far of one that runs. Borrowed: the record must not be freed. */
static struct execution running_view(const struct live_execution *execution)
{
    struct execution view = execution->record;
    if (!view.logs && execution->log.len > 0) {
        view.logs = execution->log.data;
        view.logs_len = execution->log.len;
    }
    return view;
}

/* Of one that is here, and not final in the store. Memory knows better of all but its callback; an end that is not written yet
 * does not count, because a controller that dies now has it done again. Borrowed from both. */
static struct execution unwritten_view(const struct live_execution *live,
                                       const struct execution *stored)
{
    struct execution view = running_view(live);
    if (execution_status_final(view.status)) {
        view = *stored;
        view.status = EXECUTION_RUNNING;
    }
    view.callback = stored->callback;
    return view;
}

static void execution_came(void *data, const struct execution *execution, const struct error *err)
{
    struct execution_read *read = data;
    read->controller->pending_reads--;
    const struct live_execution *live =
        execution ? executions_find(read->controller, execution->id) : NULL;
    if (err) {
        http_respond_error(read->request, err);
    } else if (live && !execution_status_final(execution->status)) {
        struct execution view = unwritten_view(live, execution);
        respond_record(read->controller, read->request, &view);
    } else if (execution) {
        respond_record(read->controller, read->request, execution);
    } else {
        respond_not_found(read->request);
    }
    free(read);
}

void serve_get_execution(struct http_request *request, void *data)
{
    struct controller *controller = data;
    struct error err = {0};
    const char *id = http_request_param(request, "id");
    const struct live_execution *live = executions_find(controller, id);
    /* What is final here is so when the store has it: the end may not be written yet, or another controller may have taken it over. The
     * store knows of callbacks, too. */
    if (live && live->record.async &&
        (live->record.delivery.has_callback || execution_status_final(live->record.status))) {
        executions_flush(controller);
        live = NULL;
    }
    if (live) {
        struct execution view = running_view(live);
        respond_record(controller, request, &view);
        return;
    }
    struct execution_read *read = time_id_valid(id) ? malloc(sizeof(*read)) : NULL;
    if (!read) {
        if (!time_id_valid(id)) {
            respond_not_found(request);
        } else {
            error_set(&err, ERROR_INTERNAL, "out of memory");
            http_respond_error(request, &err);
        }
        return;
    }
    *read = (struct execution_read){controller, request};
    controller->pending_reads++;
    store_get_execution(controller->store, id, execution_came, read);
}

/* ---- list ---- */

struct execution_list {
    struct controller *controller;
    struct http_request *request;
    struct execution_query query; /* its strings are the request's */
    uint64_t handed_over;         /* to the store, when it was asked */
    int tries;
    const struct live_execution **live; /* owned; newest first */
    size_t live_count;
};

static bool matches(const struct execution_query *query, const struct execution *record)
{
    return (!query->function || strcmp(query->function, record->function) == 0) &&
           (query->status < 0 || query->status == (int)record->status) &&
           (!query->cursor || strcmp(record->id, query->cursor) < 0);
}

static int newest_first(const void *a, const void *b)
{
    const struct live_execution *const *left = a, *const *right = b;
    return strcmp((*right)->record.id, (*left)->record.id);
}

static int collect_live(struct execution_list *list)
{
    const struct string_map *all = &list->controller->executions.by_id;
    list->live = calloc(all->count + 1, sizeof(*list->live));
    if (!list->live)
        return -1;
    string_map_for_each(slot, all)
    {
        const struct live_execution *execution = slot->value;
        if (matches(&list->query, &execution->record))
            list->live[list->live_count++] = execution;
    }
    qsort(list->live, list->live_count, sizeof(*list->live), newest_first);
    return 0;
}

/* Merges by id, newest first; the store's idea of one that is in memory is old. Sets the last id written. */
static size_t write_merged(struct json_writer *writer, const struct execution_list *list,
                           const struct execution *stored, size_t stored_count, bool *ret_more,
                           const char **ret_last)
{
    size_t i = 0, j = 0, count = 0;
    char text[LACK_MAX];
    while (count < (size_t)list->query.limit && (i < list->live_count || j < stored_count)) {
        const struct execution *live = i < list->live_count ? &list->live[i]->record : NULL;
        const struct execution *old = j < stored_count ? &stored[j] : NULL;
        const struct execution *next = live;
        if (old && (!live || strcmp(old->id, live->id) > 0)) {
            j++;
            if (executions_find(list->controller, old->id))
                continue;
            next = old;
        } else {
            i++;
            if (old && strcmp(old->id, live->id) == 0)
                j++;
        }
        assert(next);                   /* the loop goes on while either list has one */
        struct execution shown = *next; /* borrows; lists are without results and logs */
        shown.result = NULL;
        shown.logs = NULL;
        shown.result_len = shown.logs_len = 0;
        shown.waiting_for = waiting_for(list->controller, next, text);
        execution_write(writer, &shown);
        *ret_last = next->id;
        count++;
    }
    *ret_more = i < list->live_count || j < stored_count;
    return count;
}

static void ask_store(struct execution_list *list);

/* What left memory for the store after the store was asked is in neither answer: ask again, though not for ever. */
static bool missed_some(const struct execution_list *list)
{
    return list->handed_over != list->controller->executions.handed_over &&
           list->tries < LIST_TRIES;
}

static void list_came(void *data, const struct execution *executions, size_t count,
                      const char *next_cursor, const struct error *err)
{
    struct execution_list *list = data;
    struct json_answer answer;
    bool more = false;
    const char *last = NULL;
    list->controller->pending_reads--;
    if (!err && missed_some(list)) {
        ask_store(list);
        return;
    }
    if (err) {
        http_respond_error(list->request, err);
    } else if (collect_live(list) < 0) {
        struct error failure = {0};
        error_set(&failure, ERROR_INTERNAL, "out of memory");
        http_respond_error(list->request, &failure);
    } else if (json_answer_begin(&answer, list->request) == 0) {
        json_object_begin(answer.writer);
        json_key(answer.writer, "executions");
        json_array_begin(answer.writer);
        write_merged(answer.writer, list, executions, count, &more, &last);
        json_array_end(answer.writer);
        if (more || next_cursor)
            json_member_string(answer.writer, "next_cursor", last ? last : next_cursor);
        json_object_end(answer.writer);
        json_answer_respond(&answer, list->request, 200);
    }
    free(list->live);
    free(list);
}

static void ask_store(struct execution_list *list)
{
    struct controller *controller = list->controller;
    executions_flush(controller);
    list->handed_over = controller->executions.handed_over;
    list->tries++;
    controller->pending_reads++;
    store_list_executions(controller->store, &list->query, list_came, list);
}

static int read_query(const struct http_request *request, struct execution_query *query,
                      struct error *err)
{
    const char *status = http_request_query(request, "status");
    enum execution_status parsed;
    query->function = http_request_query(request, "function");
    query->cursor = http_request_query(request, "cursor");
    query->status = -1;
    if (query_limit(request, LIST_MAX, LIST_DEFAULT, &query->limit, err) < 0)
        return -1;
    if (query->function && !function_name_valid(query->function))
        return error_set_field(err, ERROR_INVALID_REQUEST, "function",
                               "function must be a function's name, not \"%.80s\"",
                               query->function);
    if (query->cursor && !time_id_valid(query->cursor))
        return error_set_field(err, ERROR_INVALID_REQUEST, "cursor",
                               "cursor must be the next_cursor of an earlier answer, not \"%.80s\"",
                               query->cursor);
    if (!status)
        return 0;
    if (execution_status_parse(status, &parsed, err) < 0) {
        snprintf(err->field, sizeof(err->field), "status");
        return -1;
    }
    query->status = (int)parsed;
    return 0;
}

void serve_list_executions(struct http_request *request, void *data)
{
    struct controller *controller = data;
    struct error err = {0};
    struct execution_query query = {0};
    struct execution_list *list = NULL;
    if (read_query(request, &query, &err) == 0 && !(list = calloc(1, sizeof(*list))))
        error_set(&err, ERROR_INTERNAL, "out of memory");
    if (!list) {
        http_respond_error(request, &err);
        return;
    }
    *list = (struct execution_list){.controller = controller, .request = request, .query = query};
    ask_store(list);
}
