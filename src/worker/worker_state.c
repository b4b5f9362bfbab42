/* What a worker tells its controllers about itself: images, slots, what runs, what is kept. */
#include "worker/worker_internal.h"

#include "base/cleanup.h"
#include "base/log.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static bool has_image(const struct worker *worker, const char *name)
{
    for (size_t i = 0; i < worker->image_list.count; i++)
        if (strcmp(worker->image_list.images[i].name, name) == 0)
            return true;
    return false;
}

/* The built-in runtimes whose images are here get a generic instance each, so that not even the first call starts one. */
static void prewarm(struct worker *worker)
{
    for (int runtime = 0; runtime < RUNTIME_COUNT && worker->pool; runtime++) {
        const char *image = function_runtime_default_image(runtime);
        struct function_spec like;
        function_spec_init(&like);
        like.runtime = runtime;
        like.image = strdup(image);
        if (like.image && has_image(worker, image) && !worker->stopping)
            pool_prewarm(worker->pool, &like);
        else if (like.image)
            pool_prewarm_no_more(worker->pool, &like);
        function_spec_deinit(&like);
    }
}

void worker_refresh_images(struct worker *worker)
{
    struct stat st;
    struct image_list list = {0};
    autofree char *path = string_printf("%s/index.json", worker->settings->image_dir);
    if (!worker->images || !path || stat(path, &st) < 0 ||
        (st.st_mtim.tv_sec == worker->images_changed.tv_sec &&
         st.st_mtim.tv_nsec == worker->images_changed.tv_nsec))
        return;
    struct error err = {0};
    if (image_store_list(worker->images, &list, &err) < 0) {
        log_warn("images cannot be listed", LOG_ERR(&err));
        return;
    }
    image_list_deinit(&worker->image_list);
    worker->image_list = list;
    worker->images_changed = st.st_mtim;
    prewarm(worker);
}

static void write_instance(void *data, const struct instance *instance)
{
    struct json_writer *writer = data;
    const struct function *function = instance_function(instance);
    json_object_begin(writer);
    json_member_string(writer, "id", instance_id(instance));
    if (function) {
        json_member_string(writer, "function", function->spec.name);
        json_member_int(writer, "version", function->spec.version);
    }
    json_member_string(writer, "image", instance_spec_of(instance)->image);
    json_member_string(writer, "state", instance_state_name(instance_state(instance)));
    if (instance_places(instance) > 1)
        json_member_int(writer, "free", (int64_t)instance_free_places(instance));
    json_object_end(writer);
}

static int64_t free_slots(const struct worker *worker)
{
    size_t links = worker->link_count ? worker->link_count : 1;
    size_t concurrency = (size_t)worker->settings->concurrency;
    if (worker->draining || worker->running >= concurrency)
        return 0;
    return (int64_t)((concurrency - worker->running + links - 1) / links);
}

/* States are said while the worker stops, too, with the runtime already closing. */
static const char *runtime_name(const struct worker *worker)
{
    return worker->kind == WORKER_RUNTIME_SIMPLE ? "simple" : "container";
}

void worker_describe(void *data, struct link *link, struct json_writer *writer)
{
    struct worker *worker = data;
    const struct worker_settings *settings = worker->settings;
    const struct invocation *invocation;
    worker_refresh_images(worker);
    json_member_string(writer, "runtime", runtime_name(worker));
    json_member_int(writer, "concurrency", settings->concurrency);
    json_member_int(writer, "memory_mb", settings->memory_mb);
    json_member_int(writer, "cpus", worker->cpus);
    json_member_string(writer, "arch", worker->system.machine);
    json_member_string(writer, "version", FAAS_VERSION);
    json_key(writer, "labels");
    json_array_begin(writer);
    for (size_t i = 0; i < worker->labels.count; i++)
        json_write_string(writer, worker->labels.items[i]);
    json_array_end(writer);
    json_key(writer, "unenforced");
    limit_set_write(writer, worker->without);
    json_key(writer, "images");
    json_array_begin(writer);
    for (size_t i = 0; i < worker->image_list.count; i++)
        json_write_string(writer, worker->image_list.images[i].name);
    json_array_end(writer);
    json_member_int(writer, "slots", free_slots(worker));
    json_member_bool(writer, "draining", worker->draining);
    json_member_bool(writer, "drained", worker->drained);
    json_key(writer, "running");
    json_array_begin(writer);
    TAILQ_FOREACH(invocation, &worker->all, all)
    {
        if (invocation->link == link)
            json_write_string(writer, invocation->execution.id);
    }
    link_write_pending(link, writer);
    json_array_end(writer);
    json_key(writer, "builds");
    json_array_begin(writer);
    if (worker->builds)
        builds_write(worker->builds, link, writer);
    link_write_pending_builds(link, writer);
    json_array_end(writer);
    json_key(writer, "instances");
    json_array_begin(writer);
    if (worker->pool)
        pool_each(worker->pool, write_instance, writer);
    json_array_end(writer);
    json_key(writer, "kept");
    json_array_begin(writer);
    if (worker->kept)
        kept_write(worker->kept, link, writer);
    json_array_end(writer);
}
