/* From a source to root file systems: the part of an import that happens before the store changes.
 *
 * Everything is made in the import's own scratch folder (on the store's file system) and verified there;
 * image_import_commit() then moves it into place. Chains that the store has are used, not made again. */
#pragma once

#include "oci/image_manifest.h"
#include "oci/image_records.h"
#include "oci/image_source.h"
#include "oci/image_store.h"

/* A chain that this import made: scratch/<index> becomes chains/<id>. */
struct image_import {
    const char *directory;             /* of the store; all pointers here are borrowed */
    const char *scratch;               /* a folder of this import's own */
    const struct image_limits *limits; /* none of them 0 */
    const struct image_mount_point *mount_points;
    size_t mount_point_count;
    struct image_choice choice;
    image_progress_fn *progress; /* may be NULL */
    void *progress_data;

    /* What came out; all owned. */
    struct buffer manifest; /* empty when there is none */
    struct buffer config;
    struct image_record record; /* without name and time of import */
    bool *made;                 /* [record.chain_count]: whether it waits in scratch */

    uint64_t bytes, files; /* written so far, of all layers */
    uint64_t budget;       /* of entries that may still be cloned */
};

/* Sets up what came out; the rest is the caller's to fill in. */
void image_import_init(struct image_import *import);
void image_import_deinit(struct image_import *import);
int image_import_run(struct image_import *import, const char *path, struct error *err);
/* Moves chains and documents into the store, durably. The caller then writes the record. */
int image_import_commit(struct image_import *import, struct error *err);
