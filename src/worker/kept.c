/* What is to be kept ready; see kept.h. */
#include "worker/kept.h"

#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

/* An instance is a process: nobody keeps more versions than this. */
#define ENTRIES_MAX 8192
#define COUNT_MAX 8192

struct entry {
    struct kept *kept;
    struct link *link; /* who asked; borrowed */
    char name[FUNCTION_NAME_MAX + 1];
    int64_t version;
    size_t count;
    struct function *function; /* a reference; NULL until it is fetched */
    bool fetching;
    bool dropped; /* to be freed when the fetch is over */
    TAILQ_ENTRY(entry) all;
};
TAILQ_HEAD(entries, entry);

struct kept {
    struct kept_options options;
    struct entries entries;
    size_t entry_count;
};

struct kept *kept_new(const struct kept_options *options, struct error *err)
{
    struct kept *kept = calloc(1, sizeof(*kept));
    if (!kept) {
        error_set(err, ERROR_INTERNAL, "out of memory");
        return NULL;
    }
    kept->options = *options;
    TAILQ_INIT(&kept->entries);
    return kept;
}

static void entry_free(struct entry *entry)
{
    TAILQ_REMOVE(&entry->kept->entries, entry, all);
    entry->kept->entry_count--;
    function_unref(entry->function);
    free(entry);
}

void kept_free(struct kept *kept)
{
    struct entry *entry;
    if (!kept)
        return;
    while ((entry = TAILQ_FIRST(&kept->entries)))
        entry_free(entry);
    free(kept);
}

static bool is_of(const struct entry *entry, const char *name, int64_t version)
{
    return !entry->dropped && entry->version == version && strcmp(entry->name, name) == 0;
}

static struct entry *entry_find(const struct kept *kept, const struct link *link, const char *name,
                                int64_t version)
{
    struct entry *entry;
    TAILQ_FOREACH(entry, &kept->entries, all)
    {
        if (entry->link == link && is_of(entry, name, version))
            return entry;
    }
    return NULL;
}

static struct entry *entry_new(struct kept *kept, struct link *link, const char *name,
                               int64_t version)
{
    struct entry *entry = kept->entry_count < ENTRIES_MAX ? calloc(1, sizeof(*entry)) : NULL;
    if (!entry)
        return NULL;
    entry->kept = kept;
    entry->link = link;
    entry->version = version;
    snprintf(entry->name, sizeof(entry->name), "%s", name);
    TAILQ_INSERT_TAIL(&kept->entries, entry, all);
    kept->entry_count++;
    return entry;
}

static void entry_drop(struct entry *entry)
{
    entry->dropped = true;
    if (!entry->fetching)
        entry_free(entry);
}

/* The most that anybody asks for. */
static void apply(struct kept *kept, struct function *function)
{
    const struct entry *entry;
    size_t most = 0;
    TAILQ_FOREACH(entry, &kept->entries, all)
    {
        if (is_of(entry, function->spec.name, function->spec.version) && entry->count > most)
            most = entry->count;
    }
    kept->options.keep(kept->options.data, function, most);
}

static void on_function(void *data, struct function *function, const struct error *err)
{
    struct entry *entry = data;
    struct kept *kept = entry->kept;
    entry->fetching = false;
    entry->function = function;
    if (!function && !entry->dropped)
        log_warn("instances cannot be kept ready", LOG_STR("function", entry->name),
                 LOG_INT("version", entry->version), LOG_ERR(err));
    if (!function || entry->dropped)
        entry_drop(entry);
    else
        apply(kept, function);
}

static void fetch(struct entry *entry)
{
    struct error err = {0};
    struct functions *functions = entry->kept->options.functions;
    struct function *function = functions_find(functions, entry->name, entry->version);
    if (function) {
        on_function(entry, function, NULL);
        return;
    }
    entry->fetching = functions_get(functions, entry->link, entry->name, entry->version,
                                    on_function, entry, &err) == 0;
    if (!entry->fetching)
        on_function(entry, NULL, &err);
}

static void take_none(struct kept *kept, struct entry *entry)
{
    struct function *function = entry->function ? function_ref(entry->function) : NULL;
    entry_drop(entry);
    if (function)
        apply(kept, function);
    function_unref(function);
}

void kept_take(struct kept *kept, struct link *link, const struct json *head)
{
    const char *name = json_get_string(head, "function");
    int64_t version = json_get_int(head, "version", 0);
    int64_t count = json_get_int(head, "count", -1);
    if (!name || !function_name_valid(name) || count < 0 || count > COUNT_MAX) {
        log_error("assignment to keep what cannot be kept", LOG_INT("count", count));
        return;
    }
    struct entry *entry = entry_find(kept, link, name, version);
    if (count == 0) {
        if (entry)
            take_none(kept, entry);
        return;
    }
    if (!entry && !(entry = entry_new(kept, link, name, version)))
        return;
    entry->count = (size_t)count;
    if (entry->function)
        apply(kept, entry->function);
    else if (!entry->fetching)
        fetch(entry);
}

void kept_forget(struct kept *kept, const char *function, int64_t version)
{
    struct entry *entry, *next;
    for (entry = TAILQ_FIRST(&kept->entries); entry; entry = next) {
        next = TAILQ_NEXT(entry, all);
        if (is_of(entry, function, version))
            entry_drop(entry);
    }
}

void kept_write(const struct kept *kept, const struct link *link, struct json_writer *writer)
{
    const struct entry *entry;
    TAILQ_FOREACH(entry, &kept->entries, all)
    {
        if (entry->link != link || entry->dropped)
            continue;
        json_object_begin(writer);
        json_member_string(writer, "function", entry->name);
        json_member_int(writer, "version", entry->version);
        json_member_int(writer, "count", (int64_t)entry->count);
        json_object_end(writer);
    }
}
