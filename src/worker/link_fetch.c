/* Fetching definitions and code from a controller; see link.h. */
#include "worker/link_internal.h"

#include <stdlib.h>

#define FETCH_TRIES 6

struct fetch {
    struct link *link;
    char *url; /* owned */
    size_t max_bytes;
    int tries;
    struct http_call *call;
    struct loop_timer *retry;
    link_fetched_fn *done;
    void *data;
    struct fetch *next;
};

static void fetch_end(struct fetch *fetch, struct http_answer *answer, const struct error *err)
{
    struct fetch **at = &fetch->link->fetches;
    while (*at != fetch)
        at = &(*at)->next;
    *at = fetch->next;
    loop_timer_stop(fetch->retry);
    fetch->done(fetch->data, answer, err);
    free(fetch->url);
    free(fetch);
}

static void fetch_try(void *data);

static void on_fetched(void *data, struct http_answer *answer, const struct error *err)
{
    struct fetch *fetch = data;
    struct error refused = {0};
    fetch->call = NULL;
    if (!err && http_answer_check(answer, &refused) < 0)
        err = &refused;
    if (!err) {
        fetch_end(fetch, answer, NULL);
        return;
    }
    bool may_help =
        !answer || answer->status == 0 || answer->status >= 500 || answer->status == 429;
    if (may_help && err->code != ERROR_PAYLOAD_TOO_LARGE && ++fetch->tries < FETCH_TRIES) {
        fetch->retry = loop_timer_start(fetch->link->loop, link_backoff_ms((unsigned)fetch->tries),
                                        0, fetch_try, fetch, NULL);
        if (fetch->retry)
            return;
    }
    fetch_end(fetch, NULL, err);
}

static int fetch_start(struct fetch *fetch, struct error *err)
{
    struct http_call_options options = {
        .method = "GET",
        .url = fetch->url,
        .headers = fetch->link->headers,
        .timeout_ms = 60000,
        .max_response_bytes = fetch->max_bytes,
        .ca_file = fetch->link->options.ca_file,
    };
    fetch->call = http_call_start(fetch->link->client, &options, on_fetched, fetch, err);
    return fetch->call ? 0 : -1;
}

static void fetch_try(void *data)
{
    struct fetch *fetch = data;
    struct error err = {0};
    loop_timer_stop(fetch->retry);
    fetch->retry = NULL;
    if (fetch_start(fetch, &err) < 0)
        fetch_end(fetch, NULL, &err);
}

int link_fetch(struct link *link, const char *path, size_t max_bytes, link_fetched_fn *done,
               void *data, struct error *err)
{
    struct fetch *fetch = calloc(1, sizeof(*fetch));
    if (fetch)
        fetch->url = string_printf("%s%s", link->url, path);
    if (!fetch || !fetch->url) {
        free(fetch);
        return error_set(err, ERROR_INTERNAL, "out of memory");
    }
    fetch->link = link;
    fetch->max_bytes = max_bytes;
    fetch->done = done;
    fetch->data = data;
    if (fetch_start(fetch, err) < 0) {
        free(fetch->url);
        free(fetch);
        return -1;
    }
    fetch->next = link->fetches;
    link->fetches = fetch;
    return 0;
}

void link_end_fetches(struct link *link)
{
    struct error err = {0};
    error_set(&err, ERROR_UNAVAILABLE, "the worker is stopping");
    while (link->fetches) {
        if (link->fetches->call)
            http_call_cancel(link->fetches->call);
        fetch_end(link->fetches, NULL, &err);
    }
}
