/* Calls as jobs: see call.h. */
#include "store/call.h"

#include "base/log.h"

#include <stdlib.h>
#include <string.h>

void store_page_clear(struct store_engine_execution_page *page)
{
    for (size_t i = 0; i < page->count; i++)
        execution_deinit(&page->items[i]);
    free(page->items);
    memset(page, 0, sizeof(*page));
}

void store_claim_clear(struct store_engine_claim *claim)
{
    for (size_t i = 0; i < claim->count; i++) {
        execution_deinit(&claim->items[i].execution);
        free(claim->items[i].payload);
    }
    free(claim->items);
    memset(claim, 0, sizeof(*claim));
}

void store_backlog_clear(struct store_engine_backlog *backlog)
{
    for (size_t i = 0; i < backlog->count; i++)
        free(backlog->functions[i]);
    free(backlog->functions);
    free(backlog->next_after);
    memset(backlog, 0, sizeof(*backlog));
}

void store_callbacks_clear(struct store_engine_callbacks *callbacks)
{
    for (size_t i = 0; i < callbacks->count; i++) {
        struct store_callback *item = &callbacks->items[i];
        if (item->secret)
            explicit_bzero(item->secret, strlen(item->secret));
        free(item->secret);
        free(item->url);
        free(item->host);
    }
    free(callbacks->items);
    memset(callbacks, 0, sizeof(*callbacks));
}

void store_functions_clear(struct store_engine_functions *functions)
{
    for (size_t i = 0; i < functions->count; i++)
        function_record_deinit(&functions->items[i]);
    free(functions->items);
    memset(functions, 0, sizeof(*functions));
}

void call_free(struct call *call)
{
    free(call->name);
    free(call->value);
    function_record_deinit(&call->record);
    execution_deinit(&call->execution);
    free(call->owner);
    free(call->bytes);
    store_page_clear(&call->page);
    store_claim_clear(&call->claim);
    store_backlog_clear(&call->backlog);
    store_functions_clear(&call->functions);
    store_settings_clear(&call->settings);
    store_callbacks_clear(&call->callbacks);
    free(call->callback_url);
    free(call->callback_host);
    if (call->callback_secret)
        explicit_bzero(call->callback_secret, strlen(call->callback_secret));
    free(call->callback_secret);
    free(call);
}

/* The end of each call that only writes. */
void call_push_write(struct store *store, struct call *call, store_done_fn *done)
{
    call->done = done;
    call->job.patient = call->job.patient || !done;
    store_queue_push(store->queue, &call->job);
}

static void finish_done(struct store_job *job)
{
    struct call *call = call_of(job);
    if (call->done)
        call->done(call->data, job->failed ? &job->error : NULL);
    else if (job->failed)
        log_error("the store could not write", LOG_STR("call", call->what), LOG_ERR(&job->error));
    call_free(call);
}

/* A few hundred bytes that cannot be had end the program: no caller could do better. */
static void *must(void *pointer)
{
    if (!pointer)
        abort();
    return pointer;
}

char *call_copy_text(const char *text)
{
    return text ? must(strdup(text)) : NULL;
}

struct call *call_new(const char *what, store_run_fn *run, void *data)
{
    struct call *call = must(calloc(1, sizeof(*call)));
    execution_init(&call->execution);
    call->what = what;
    call->data = data;
    call->job.run = run;
    call->job.finish = finish_done;
    call->job.bytes = sizeof(*call);
    return call;
}

void call_finish_bytes(struct store_job *job)
{
    struct call *call = call_of(job);
    char *bytes = job->failed ? NULL : call->bytes;
    if (bytes)
        call->bytes = NULL;
    call->code_done(call->data, bytes, bytes ? call->bytes_len : 0,
                    job->failed ? &job->error : NULL);
    call_free(call);
}

void call_finish_count(struct store_job *job)
{
    struct call *call = call_of(job);
    call->count_done(call->data, call->number, job->failed ? &job->error : NULL);
    call_free(call);
}
