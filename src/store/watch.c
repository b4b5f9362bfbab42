/* News from other controllers: from the engine's listener, which has a thread of its own, to the loop. News of the same
 * function that wait together are told once; when too many wait, "anything may have changed" takes their place. */
#include "store/call.h"

#include <stdlib.h>
#include <string.h>

#define NAMES_MAX 1000

struct store_watch {
    const struct store_engine *engine;
    void *listener;  /* the engine's */
    uv_async_t wake; /* its close callback frees the watch */
    uv_mutex_t lock;
    char *names[NAMES_MAX]; /* owned; under lock, as all below */
    size_t count;
    bool anything, settings, waiting;
    store_news_fn *news;
    void *data;
};

static void forget_names(struct store_watch *watch)
{
    while (watch->count > 0)
        free(watch->names[--watch->count]);
}

static void note_name(struct store_watch *watch, const char *name)
{
    if (watch->anything)
        return;
    for (size_t i = 0; i < watch->count; i++)
        if (strcmp(watch->names[i], name) == 0)
            return;
    char *copy = watch->count < NAMES_MAX ? strdup(name) : NULL;
    if (copy) {
        watch->names[watch->count++] = copy;
        return;
    }
    watch->anything = true;
    forget_names(watch);
}

/* On the listener's thread. */
static void heard(void *data, const char *channel, const char *payload)
{
    struct store_watch *watch = data;
    uv_mutex_lock(&watch->lock);
    if (channel && strcmp(channel, STORE_CHANNEL_FUNCTIONS) == 0)
        note_name(watch, payload);
    else if (channel && strcmp(channel, STORE_CHANNEL_SETTINGS) == 0)
        watch->settings = true;
    else
        watch->waiting = true;
    if (!channel) {
        watch->anything = true;
        forget_names(watch);
    }
    uv_mutex_unlock(&watch->lock);
    uv_async_send(&watch->wake);
}

static void on_wake(uv_async_t *wake)
{
    struct store_watch *watch = wake->data;
    char *names[NAMES_MAX];
    uv_mutex_lock(&watch->lock);
    size_t count = watch->count;
    bool anything = watch->anything, settings = watch->settings, waiting = watch->waiting;
    memcpy(names, watch->names, count * sizeof(names[0]));
    watch->count = 0;
    watch->anything = watch->settings = watch->waiting = false;
    uv_mutex_unlock(&watch->lock);
    if (anything)
        watch->news(watch->data, STORE_NEWS_ANYTHING, NULL);
    for (size_t i = 0; i < count; i++) {
        watch->news(watch->data, STORE_NEWS_FUNCTION, names[i]);
        free(names[i]);
    }
    if (settings)
        watch->news(watch->data, STORE_NEWS_SETTINGS, NULL);
    if (waiting)
        watch->news(watch->data, STORE_NEWS_WAITING, NULL);
}

static void closed(uv_handle_t *wake)
{
    struct store_watch *watch = wake->data;
    uv_mutex_destroy(&watch->lock);
    free(watch);
}

void store_watch_free(struct store_watch *watch)
{
    if (!watch)
        return;
    if (watch->listener)
        watch->engine->unlisten(watch->listener);
    forget_names(watch);
    uv_close((uv_handle_t *)&watch->wake, closed);
}

int store_watch(struct store *store, store_news_fn *news, void *data, struct error *err)
{
    if (!store->engine->listen)
        return 0;
    struct store_watch *watch = calloc(1, sizeof(*watch));
    if (!watch || uv_mutex_init(&watch->lock) < 0) {
        free(watch);
        return error_set(err, ERROR_INTERNAL, "out of memory");
    }
    if (uv_async_init(store_queue_loop(store->queue), &watch->wake, on_wake) < 0) {
        uv_mutex_destroy(&watch->lock);
        free(watch);
        return error_set(err, ERROR_INTERNAL, "the watch on the database cannot be made");
    }
    watch->engine = store->engine;
    watch->wake.data = watch;
    watch->news = news;
    watch->data = data;
    store->watch = watch;
    watch->listener = store->engine->listen(store->db, heard, watch, err);
    return watch->listener ? 0 : -1;
}
