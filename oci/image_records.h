/* The store's own index (index.json in its folder): which names there are and what each needs. Read
 * without a lock (it is replaced atomically), written by whoever holds the store's lock. */
#pragma once

#include "oci/layer.h"

#include <stdbool.h>

struct image_record {
    char *name;                    /* owned, normalised */
    char config[DIGEST_LEN + 1];   /* digest of the config: the image ID */
    char manifest[DIGEST_LEN + 1]; /* "" when it has none */
    char **chains; /* owned, NULL-terminated, 64 hexadecimal digits each; the last is the rootfs */
    size_t chain_count; /* at least 1 */
    int64_t size_bytes;
    int64_t imported; /* seconds since the epoch */
};

struct image_records {
    struct image_record *items; /* owned; sorted by name */
    size_t count;
};

void image_record_deinit(struct image_record *record);
void image_records_deinit(struct image_records *records);
/* An index that is not there is one without images. */
int image_records_load(const char *path, struct image_records *ret_records, struct error *err);
int image_records_save(const char *path, const struct image_records *records, struct error *err);
/* NULL when there is none of that name; borrowed. */
struct image_record *image_records_find(const struct image_records *records, const char *name);
/* Adds or replaces; takes the record's content. */
int image_records_put(struct image_records *records, struct image_record *record,
                      struct error *err);
/* false when there was none. */
bool image_records_drop(struct image_records *records, const char *name);
