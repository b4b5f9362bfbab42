/* See image_records.h. */
#include "oci/image_records.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "oci/image_json.h"

#include <errno.h>
#include <string.h>

#define INDEX_MAX_BYTES (16u * 1024 * 1024)
#define INDEX_VERSION 1

void image_record_deinit(struct image_record *record)
{
    free(record->name);
    image_strings_free(record->chains);
    *record = (struct image_record){0};
}

void image_records_deinit(struct image_records *records)
{
    for (size_t i = 0; i < records->count; i++)
        image_record_deinit(&records->items[i]);
    free(records->items);
    *records = (struct image_records){0};
}

static bool is_chain(const char *text)
{
    return strlen(text) == SHA256_HEX_LEN && strspn(text, "0123456789abcdef") == SHA256_HEX_LEN;
}

/* Chains become paths, so they are checked even in a file of our own. */
static int read_record(const struct json *value, struct image_record *record, struct error *err)
{
    const char *name = image_json_string(json_get(value, "name"));
    const char *manifest = image_json_string(json_get(value, "manifest"));
    record->name = name ? strdup(name) : NULL;
    if (!record->name ||
        image_json_digest(json_get(value, "config"), "an image", record->config, err) < 0)
        return error_set(err, ERROR_INTERNAL, "an image has no name or digest");
    if (manifest && image_digest_valid(manifest))
        memcpy(record->manifest, manifest, sizeof(record->manifest));
    if (image_json_strings(json_get(value, "chains"), "an image's \"chains\"", &record->chains,
                           err) < 0)
        return -1;
    record->chain_count = json_count(json_get(value, "chains"));
    if (record->chain_count == 0)
        return error_set(err, ERROR_INTERNAL, "an image has no chains");
    for (size_t i = 0; i < record->chain_count; i++) {
        if (!is_chain(record->chains[i]))
            return error_set(err, ERROR_INTERNAL, "an image has a malformed chain");
    }
    record->size_bytes = json_get_int(value, "size", 0);
    record->imported = json_get_int(value, "imported", 0);
    return 0;
}

static int read_index(const struct json *root, struct image_records *records, struct error *err)
{
    const struct json *images = json_get(root, "images");
    if (json_get_int(root, "version", 0) != INDEX_VERSION || !images ||
        json_type(images) != JSON_ARRAY)
        return error_set(err, ERROR_INTERNAL, "it is of another version or no index");
    records->items = calloc(json_count(images) + 1, sizeof(*records->items));
    if (!records->items)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    json_foreach (i, image, images) {
        if (read_record(image, &records->items[records->count++], err) < 0)
            return -1;
    }
    return 0;
}

int image_records_load(const char *path, struct image_records *ret_records, struct error *err)
{
    with_cleanup(buffer_deinit) struct buffer text = BUFFER_INIT(INDEX_MAX_BYTES);
    with_cleanup(image_records_deinit) struct image_records records = {0};
    struct error why = {0};
    if (buffer_read_file(&text, path, &why) < 0) {
        if (why.sys_errno != ENOENT) {
            if (err)
                *err = why;
            return error_wrap(err, "the image store's index");
        }
        *ret_records = records;
        return 0;
    }
    autojson *root = image_json_parse(text.data ? text.data : "", text.len, "index", err);
    if (!root || read_index(root, &records, err) < 0) {
        if (err)
            err->code = ERROR_INTERNAL; /* it is our own file, no input */
        return error_wrap(err, "the image store's index %s is damaged", path);
    }
    *ret_records = records;
    records = (struct image_records){0};
    return 0;
}

static void write_record(struct json_writer *writer, const struct image_record *record)
{
    json_object_begin(writer);
    json_member_string(writer, "name", record->name);
    json_member_string(writer, "config", record->config);
    json_member_string(writer, "manifest", record->manifest);
    json_key(writer, "chains");
    json_array_begin(writer);
    for (size_t i = 0; i < record->chain_count; i++)
        json_write_string(writer, record->chains[i]);
    json_array_end(writer);
    json_member_int(writer, "size", record->size_bytes);
    json_member_int(writer, "imported", record->imported);
    json_object_end(writer);
}

int image_records_save(const char *path, const struct image_records *records, struct error *err)
{
    with_cleanup(buffer_deinit) struct buffer text = BUFFER_INIT(INDEX_MAX_BYTES);
    struct json_writer *writer = json_writer_new(&text);
    if (!writer)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    json_object_begin(writer);
    json_member_int(writer, "version", INDEX_VERSION);
    json_key(writer, "images");
    json_array_begin(writer);
    for (size_t i = 0; i < records->count; i++)
        write_record(writer, &records->items[i]);
    json_array_end(writer);
    json_object_end(writer);
    if (json_writer_finish(writer, err) < 0)
        return error_wrap(err, "writing the image store's index");
    return write_file_atomic(path, text.data, text.len, 0644, true, err);
}

struct image_record *image_records_find(const struct image_records *records, const char *name)
{
    for (size_t i = 0; i < records->count; i++) {
        if (strcmp(records->items[i].name, name) == 0)
            return &records->items[i];
    }
    return NULL;
}

int image_records_put(struct image_records *records, struct image_record *record, struct error *err)
{
    image_records_drop(records, record->name);
    void *items = reallocarray(records->items, records->count + 1, sizeof(*records->items));
    if (!items)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    records->items = items;
    size_t place = 0;
    while (place < records->count && strcmp(records->items[place].name, record->name) < 0)
        place++;
    memmove(&records->items[place + 1], &records->items[place],
            (records->count - place) * sizeof(*records->items));
    records->items[place] = *record;
    records->count++;
    *record = (struct image_record){0};
    return 0;
}

bool image_records_drop(struct image_records *records, const char *name)
{
    struct image_record *record = image_records_find(records, name);
    if (!record)
        return false;
    size_t place = (size_t)(record - records->items);
    image_record_deinit(record);
    records->count--;
    memmove(record, record + 1, (records->count - place) * sizeof(*record));
    return true;
}
