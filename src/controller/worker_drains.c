/* Marks of workers that are drained: see worker_drains.h. */
#include "controller/worker_drains.h"

#include "base/log.h"
#include "controller/controller.h"

#include <stdlib.h>
#include <string.h>

struct worker_drain {
    char name[SESSION_NAME_MAX + 1];
    bool seen; /* while all are read anew */
    struct list link;
};

void worker_drains_init(struct worker_drains *drains)
{
    *drains = (struct worker_drains){0};
    list_init(&drains->all);
}

void worker_drains_deinit(struct worker_drains *drains)
{
    string_map_deinit(&drains->by_name);
    list_for_each(link, &drains->all) free(list_entry(link, struct worker_drain, link));
    list_init(&drains->all);
}

bool worker_drains_has(const struct worker_drains *drains, const char *name)
{
    return drains->by_name.count > 0 && string_map_get(&drains->by_name, name);
}

static int add(struct worker_drains *drains, const char *name, struct error *err)
{
    struct worker_drain *drain = calloc(1, sizeof(*drain));
    if (!drain)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    snprintf(drain->name, sizeof(drain->name), "%s", name);
    if (string_map_put(&drains->by_name, drain->name, drain, err) < 0) {
        free(drain);
        return -1;
    }
    drain->seen = true;
    list_append(&drains->all, &drain->link);
    return 0;
}

int worker_drains_set(struct controller *controller, const char *name, bool drains,
                      struct error *err)
{
    struct worker_drains *all = &controller->worker_drains;
    struct worker_drain *drain = string_map_get(&all->by_name, name);
    if (drain)
        drain->seen = true;
    if ((drain != NULL) == drains)
        return 0;
    if (drains && add(all, name, err) < 0)
        return -1;
    if (!drains) {
        string_map_remove(&all->by_name, name);
        list_remove(&drain->link);
        free(drain);
    }
    log_info(drains ? "worker is drained" : "worker is given work again", LOG_STR("worker", name));
    sessions_drains_changed(controller);
    if (!drains) { /* what has waited for it */
        delivery_look(controller);
        controller_dispatch(controller);
    }
    return 0;
}

static void all_came(void *data, const struct store_setting *settings, size_t count,
                     const struct error *err)
{
    struct controller *controller = data;
    struct worker_drains *drains = &controller->worker_drains;
    struct error failure = {0};
    if (err) {
        log_warn("it cannot be read which workers are drained", LOG_ERR(err));
        return;
    }
    list_for_each(link, &drains->all) list_entry(link, struct worker_drain, link)->seen = false;
    for (size_t i = 0; i < count; i++) {
        const char *name = settings[i].name + strlen(WORKER_DRAIN_PREFIX);
        if (strlen(name) <= SESSION_NAME_MAX &&
            worker_drains_set(controller, name, true, &failure) < 0)
            log_error("a worker's drain cannot be kept", LOG_ERR(&failure));
    }
    list_for_each(link, &drains->all)
    {
        struct worker_drain *drain = list_entry(link, struct worker_drain, link);
        if (!drain->seen) {
            char name[sizeof(drain->name)];
            memcpy(name, drain->name, sizeof(name)); /* it goes with the mark */
            worker_drains_set(controller, name, false, NULL);
        }
    }
}

int worker_drains_load(struct controller *controller, struct error *err)
{
    if (store_load_settings(controller->store, WORKER_DRAIN_PREFIX, all_came, controller, err) < 0)
        return error_wrap(err, "reading which workers are drained");
    return 0;
}

void worker_drains_refresh(struct controller *controller)
{
    store_read_settings(controller->store, WORKER_DRAIN_PREFIX, all_came, controller);
}
