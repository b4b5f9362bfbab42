/* Functions of other controllers: see refresh.h. */
#include "controller/refresh.h"

#include "base/log.h"
#include "controller/changes.h"
#include "controller/controller.h"
#include "controller/tokens.h"

#include <stdlib.h>
#include <string.h>

struct refresh {
    struct controller *controller;
    char name[FUNCTION_NAME_MAX + 1];
    refresh_done_fn *done; /* NULL: nobody waits */
    void *data;
};

/* ---- one function ---- */

static int take_up(struct controller *controller, struct function_entry *entry,
                   struct function_record *records, size_t count, int64_t last_version,
                   struct error *err)
{
    if (count == 0 && entry->newest)
        changes_forget_function(controller, entry);
    if (registry_merge(&controller->registry, entry, records, count, last_version, err) < 0)
        return -1;
    dispatch_take_turns(&controller->dispatch, entry);
    if (count > 0)
        controller_dispatch(controller);
    return 0;
}

static void function_came(void *data, struct function_record *records, size_t count,
                          int64_t last_version, const struct error *err)
{
    struct refresh *refresh = data;
    struct controller *controller = refresh->controller;
    struct registry *registry = &controller->registry;
    struct error failure = {0};
    controller->pending_reads--;
    if (err) {
        failure = *err;
    } else if (count > 0 || registry_find(registry, refresh->name)) {
        struct function_entry *entry = registry_entry(registry, refresh->name, &failure);
        if (entry)
            take_up(controller, entry, records, count, last_version, &failure);
    }
    if (refresh->done)
        refresh->done(refresh->data, failure.code ? &failure : NULL);
    else if (failure.code)
        log_warn("a function that was changed elsewhere cannot be read",
                 LOG_STR("function", refresh->name), LOG_ERR(&failure));
    free(refresh);
}

void refresh_function(struct controller *controller, const char *name, refresh_done_fn *done,
                      void *data)
{
    struct refresh *refresh = calloc(1, sizeof(*refresh));
    if (!refresh) {
        struct error err = {0};
        error_set(&err, ERROR_INTERNAL, "out of memory");
        if (done)
            done(data, &err);
        return;
    }
    refresh->controller = controller;
    refresh->done = done;
    refresh->data = data;
    snprintf(refresh->name, sizeof(refresh->name), "%s", name);
    controller->pending_reads++;
    store_read_functions(controller->store, refresh->name, function_came, refresh);
}

/* ---- all of them, when news may have been missed ---- */

/* The records of one name stand together. */
static size_t count_of_name(const struct function_record *records, size_t count)
{
    size_t same = 1;
    while (same < count && strcmp(records[same].spec.name, records[0].spec.name) == 0)
        same++;
    return same;
}

static bool has_name(const struct function_record *records, size_t count, const char *name)
{
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(records[middle].spec.name, name);
        if (order == 0)
            return true;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return false;
}

static void forget_missing(struct controller *controller, const struct function_record *records,
                           size_t count)
{
    struct registry *registry = &controller->registry;
    for (size_t i = registry->sorted_count; i > 0; i--) {
        struct function_entry *entry = registry->sorted[i - 1];
        /* One that is being changed here may not have been stored when the list was made. */
        if (list_empty(&entry->changes) && !has_name(records, count, entry->name))
            changes_forget_function(controller, entry);
    }
}

static void all_came(void *data, struct function_record *records, size_t count,
                     int64_t last_version, const struct error *err)
{
    struct controller *controller = data;
    struct error failure = {0};
    (void)last_version;
    controller->pending_reads--;
    if (err) {
        log_warn("the functions cannot be read", LOG_ERR(err));
        return;
    }
    forget_missing(controller, records, count);
    for (size_t i = 0, same; i < count; i += same) {
        same = count_of_name(records + i, count - i);
        struct function_entry *entry =
            registry_entry(&controller->registry, records[i].spec.name, &failure);
        if (!entry)
            continue;
        registry_merge(&controller->registry, entry, records + i, same, 0, &failure);
        dispatch_take_turns(&controller->dispatch, entry);
    }
    if (failure.code)
        log_error("functions cannot be taken up", LOG_ERR(&failure));
    controller_dispatch(controller);
}

static void news_came(void *data, enum store_news news, const char *function)
{
    struct controller *controller = data;
    if (controller->delivery.stopped)
        return;
    if (news == STORE_NEWS_WAITING)
        delivery_look(controller);
    if (news == STORE_NEWS_FUNCTION && function_name_valid(function))
        refresh_function(controller, function, NULL, NULL);
    if (news == STORE_NEWS_ANYTHING) {
        controller->pending_reads++;
        store_read_functions(controller->store, NULL, all_came, controller);
    }
    if (news == STORE_NEWS_ANYTHING || news == STORE_NEWS_SETTINGS) {
        tokens_refresh(controller);
        worker_drains_refresh(controller);
    }
}

int refresh_start(struct controller *controller, struct error *err)
{
    return store_watch(controller->store, news_came, controller, err);
}

/* ---- requests for what is not known here ---- */

struct missing {
    struct controller *controller;
    struct http_request *request;
    void (*handler)(struct http_request *request, void *data);
};

static void missing_done(void *data, const struct error *err)
{
    struct missing *missing = data;
    struct controller *controller = missing->controller;
    if (err) {
        http_respond_error(missing->request, err);
    } else {
        controller->looked_up = true;
        missing->handler(missing->request, controller);
        controller->looked_up = false;
    }
    free(missing);
}

bool refresh_missing(struct controller *controller, struct http_request *request, const char *name,
                     void (*handler)(struct http_request *request, void *data))
{
    if (!controller->delivery.shared || controller->looked_up || drain_refuses(controller) ||
        !function_name_valid(name) || registry_find(&controller->registry, name))
        return false;
    struct missing *missing = malloc(sizeof(*missing));
    if (!missing)
        return false;
    *missing = (struct missing){controller, request, handler};
    refresh_function(controller, name, missing_done, missing);
    return true;
}
