/* Reads the JSON documents that describe an image: index, manifest and config of the OCI image-spec
 * (and their twins of docker's registry format), and manifest.json of docker's save format.
 *
 * All are a stranger's: sizes, depth and counts are capped, digests must be sha256 and well-formed,
 * and whatever names a file is checked where it is opened. */
#pragma once

#include "base/error.h"
#include "oci/layer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* This machine in image terms: "amd64", "arm64", …; what uname(2) says where there is no such name. */
const char *image_machine_architecture(void);
/* "sha256:" and 64 lower-case hexadecimal digits. */
bool image_digest_valid(const char *digest);

struct image_descriptor {
    char digest[DIGEST_LEN + 1];
    int64_t size;  /* bytes; never negative */
    bool is_index; /* by its media type; documents may still say otherwise */
};

/* Which one to take of several. */
struct image_choice {
    const char *reference; /* what the user asked for; NULL: nothing */
    const char
        *name; /* the normalised name under which it is imported; NULL: do not look at names */
};

/* Chooses from an image index by platform, then by reference, then by name. ERROR_INVALID_REQUEST with
 * what there is when none or several fit. */
int image_index_choose(const char *text, size_t len, const struct image_choice *choice,
                       struct image_descriptor *ret_descriptor, struct error *err);

struct image_manifest {
    bool is_index; /* the document turned out to be an index: use image_index_choose() */
    struct image_descriptor config;
    struct image_descriptor *layers; /* owned */
    size_t layer_count;
};

void image_manifest_deinit(struct image_manifest *manifest);
int image_manifest_read(const char *text, size_t len, size_t max_layers,
                        struct image_manifest *ret_manifest, struct error *err);

struct image_config {
    char *architecture; /* all owned; "" when not given */
    char *os;
    char *user;
    char *working_directory;
    char **env; /* NULL-terminated, never NULL, as the next three */
    char **entrypoint;
    char **cmd;
    char **diff_ids; /* checked digests */
    size_t diff_id_count;
    int64_t created; /* seconds since the epoch; 0: not known */
};

void image_config_deinit(struct image_config *config);
int image_config_read(const char *text, size_t len, size_t max_layers,
                      struct image_config *ret_config, struct error *err);
void image_strings_free(char **strings);

/* One image of docker's manifest.json: names of members of the archive. */
struct docker_manifest {
    char *config;  /* owned */
    char **layers; /* owned, NULL-terminated */
    size_t layer_count;
};

void docker_manifest_deinit(struct docker_manifest *manifest);
int docker_manifest_choose(const char *text, size_t len, const struct image_choice *choice,
                           size_t max_layers, struct docker_manifest *ret_manifest,
                           struct error *err);
