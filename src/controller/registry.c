/* The functions, in memory: see registry.h. */
#include "controller/registry.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void registry_init(struct registry *registry,
                   void (*gone)(void *data, const struct function_version *version), void *data)
{
    *registry = (struct registry){.gone = gone, .data = data};
    list_init(&registry->kept);
}

static void free_version(struct function_version *version)
{
    function_record_deinit(&version->record);
    free(version->match);
    free(version);
}

void registry_deinit(struct registry *registry)
{
    string_map_for_each(slot, &registry->versions) free_version(slot->value);
    string_map_for_each(slot, &registry->functions) free(slot->value);
    string_map_deinit(&registry->versions);
    string_map_deinit(&registry->functions);
    free(registry->sorted);
    memset(registry, 0, sizeof(*registry));
}

/* ---- names ---- */

struct function_entry *registry_find(const struct registry *registry, const char *name)
{
    struct function_entry *entry = string_map_get(&registry->functions, name);
    return entry && entry->newest ? entry : NULL;
}

struct function_entry *registry_entry(struct registry *registry, const char *name,
                                      struct error *err)
{
    struct function_entry *entry = string_map_get(&registry->functions, name);
    if (entry)
        return entry;
    entry = calloc(1, sizeof(*entry));
    if (!entry) {
        error_set(err, ERROR_INTERNAL, "out of memory");
        return NULL;
    }
    snprintf(entry->name, sizeof(entry->name), "%s", name);
    list_init(&entry->queue);
    list_init(&entry->waiting_link);
    list_init(&entry->changes);
    list_init(&entry->kept_link);
    if (string_map_put(&registry->functions, entry->name, entry, err) < 0) {
        free(entry);
        return NULL;
    }
    return entry;
}

size_t registry_seek(const struct registry *registry, const char *cursor)
{
    size_t low = 0, high = registry->sorted_count;
    while (cursor && low < high) {
        size_t middle = low + (high - low) / 2;
        if (strcmp(registry->sorted[middle]->name, cursor) <= 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static int sorted_insert(struct registry *registry, struct function_entry *entry, struct error *err)
{
    if (registry->sorted_count == registry->sorted_capacity) {
        size_t capacity = registry->sorted_capacity ? registry->sorted_capacity * 2 : 64;
        struct function_entry **grown =
            realloc(registry->sorted, capacity * sizeof(struct function_entry *));
        if (!grown)
            return error_set(err, ERROR_INTERNAL, "out of memory for %zu functions", capacity);
        registry->sorted = grown;
        registry->sorted_capacity = capacity;
    }
    size_t at = registry_seek(registry, entry->name);
    memmove(&registry->sorted[at + 1], &registry->sorted[at],
            (registry->sorted_count - at) * sizeof(registry->sorted[0]));
    registry->sorted[at] = entry;
    registry->sorted_count++;
    return 0;
}

static void sorted_remove(struct registry *registry, const struct function_entry *entry)
{
    size_t at = registry_seek(registry, entry->name) - 1;
    assert(registry->sorted[at] == entry);
    memmove(&registry->sorted[at], &registry->sorted[at + 1],
            (registry->sorted_count - at - 1) * sizeof(registry->sorted[0]));
    registry->sorted_count--;
}

/* ---- versions ---- */

static void make_key(char key[VERSION_KEY_MAX], const char *name, int64_t version)
{
    snprintf(key, VERSION_KEY_MAX, "%.*s/%lld", FUNCTION_NAME_MAX, name, (long long)version);
}

struct function_version *registry_find_version(const struct registry *registry, const char *name,
                                               int64_t version)
{
    char key[VERSION_KEY_MAX];
    make_key(key, name, version);
    return string_map_get(&registry->versions, key);
}

struct function_version *version_ref(struct function_version *version)
{
    version->references++;
    return version;
}

void version_unref(struct registry *registry, struct function_version *version)
{
    if (!version)
        return;
    assert(version->references > 0);
    if (--version->references > 0)
        return;
    string_map_remove(&registry->versions, version->key);
    version->function->live_versions--;
    registry->gone(registry->data, version);
    free_version(version);
}

/* Puts a reference of `version` (may be NULL) in a place that may hold one already. */
static void replace(struct registry *registry, struct function_version **place,
                    struct function_version *version)
{
    struct function_version *before = *place;
    *place = version ? version_ref(version) : NULL;
    version_unref(registry, before);
}

/* The limits of the version that serves hold for calls of all versions. */
static void take_limits(struct registry *registry, struct function_entry *entry)
{
    static const struct function_spec none;
    const struct function_spec *spec = entry->current ? &entry->current->record.spec : &none;
    registry->reserved += spec->reserved_concurrency - entry->reserved;
    entry->reserved = spec->reserved_concurrency;
    entry->concurrency = entry->reserved ? entry->reserved : spec->max_concurrency;
    rate_set(&entry->rate, spec->rate_limit, (uint64_t)spec->rate_burst);
}

static void make_current(struct registry *registry, struct function_entry *entry,
                         struct function_version *version)
{
    replace(registry, &entry->current, version);
    take_limits(registry, entry);
    registry->kept_changed |= !list_empty(&entry->kept_link);
    if (!version || version->record.spec.min_instances == 0 || !list_empty(&entry->kept_link))
        return;
    list_append(&registry->kept, &entry->kept_link);
    registry->kept_changed = true;
}

int registry_add_version(struct registry *registry, struct function_entry *entry,
                         struct function_record *record, struct error *err)
{
    struct function_version *version = calloc(1, sizeof(*version));
    if (!version)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    assert(!entry->newest || record->spec.version > entry->newest->record.spec.version);
    make_key(version->key, entry->name, record->spec.version);
    if (string_map_put(&registry->versions, version->key, version, err) < 0) {
        free(version);
        return -1;
    }
    if (!entry->newest && sorted_insert(registry, entry, err) < 0) {
        string_map_remove(&registry->versions, version->key);
        free(version);
        return -1;
    }
    version->function = entry;
    entry->live_versions++;
    version->record = *record;
    memset(record, 0, sizeof(*record));
    version_ref(version); /* until both places are set */
    if (version->record.spec.version > entry->last_version)
        entry->last_version = version->record.spec.version;
    entry->created_at_ns = version->record.created_at_ns;
    replace(registry, &entry->newest, version);
    if (version->record.state == FUNCTION_READY)
        make_current(registry, entry, version);
    version_unref(registry, version);
    return 0;
}

void registry_activate(struct registry *registry, struct function_version *version)
{
    struct function_entry *entry = version->function;
    version->record.state = FUNCTION_READY;
    if (entry->newest &&
        (!entry->current || entry->current->record.spec.version < version->record.spec.version))
        make_current(registry, entry, version);
}

/* The outcome of a build that another controller has seen to. */
static void take_build_outcome(struct registry *registry, struct function_version *version,
                               struct function_record *record)
{
    struct function_record *known = &version->record;
    if (known->state != FUNCTION_BUILDING || record->state == FUNCTION_BUILDING)
        return;
    free(known->build_output);
    known->build_output = record->build_output;
    record->build_output = NULL;
    free(known->spec.artifact_sha256);
    known->spec.artifact_sha256 = record->spec.artifact_sha256;
    record->spec.artifact_sha256 = NULL;
    free(known->spec.artifact_arch);
    known->spec.artifact_arch = record->spec.artifact_arch;
    record->spec.artifact_arch = NULL;
    if (record->state == FUNCTION_READY)
        registry_activate(registry, version);
    else
        known->state = record->state;
}

int registry_merge(struct registry *registry, struct function_entry *entry,
                   struct function_record *records, size_t count, int64_t last_version,
                   struct error *err)
{
    for (size_t i = 0; i < count; i++) {
        int64_t number = records[i].spec.version;
        struct function_version *known = registry_find_version(registry, entry->name, number);
        bool newer = !entry->newest || number > entry->newest->record.spec.version;
        if (known && entry->newest)
            take_build_outcome(registry, known, &records[i]);
        else if (!known && newer && registry_add_version(registry, entry, &records[i], err) < 0)
            return -1;
    }
    if (entry->last_version < last_version)
        entry->last_version = last_version;
    return 0;
}

void registry_delete(struct registry *registry, struct function_entry *entry)
{
    if (!entry->newest)
        return;
    sorted_remove(registry, entry);
    make_current(registry, entry, NULL);
    replace(registry, &entry->newest, NULL);
}

/* ---- start-up ---- */

struct load {
    struct registry *registry;
    bool failed;
    struct error error;
};

static void load_last_version(void *data, const char *name, int64_t version)
{
    struct load *load = data;
    struct function_entry *entry = registry_entry(load->registry, name, &load->error);
    if (!entry)
        load->failed = true;
    else if (entry->last_version < version)
        entry->last_version = version;
}

static void load_function(void *data, struct function_record *record)
{
    struct load *load = data;
    struct function_entry *entry = registry_entry(load->registry, record->spec.name, &load->error);
    if (!entry || registry_add_version(load->registry, entry, record, &load->error) < 0)
        load->failed = true;
}

int registry_load(struct registry *registry, struct store *store, struct error *err)
{
    struct load load = {.registry = registry};
    if (store_load_functions(store, load_function, &load, err) < 0 ||
        store_load_last_versions(store, load_last_version, &load, err) < 0)
        return error_wrap(err, "reading the functions");
    if (load.failed) {
        if (err)
            *err = load.error;
        return -1;
    }
    return 0;
}
