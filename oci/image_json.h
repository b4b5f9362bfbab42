/* What the readers of image documents share; for image_manifest.c and image_choice.c only. */
#pragma once

#include "base/json.h"
#include "oci/image_manifest.h"

/* A guard only: what an import may read is capped by its own limits. */
#define IMAGE_JSON_MAX_BYTES (64u * 1024 * 1024)

/* An object or array; `what` names the document in errors. */
struct json *image_json_parse(const char *text, size_t len, const char *what, struct error *err);
/* A string without NULs inside; NULL when it is none. */
const char *image_json_string(const struct json *value);
int image_json_digest(const struct json *value, const char *what, char out[DIGEST_LEN + 1],
                      struct error *err);
int image_json_descriptor(const struct json *value, const char *what,
                          struct image_descriptor *ret_descriptor, struct error *err);
/* A list of strings; absent and null are an empty one. *ret_strings is the caller's, also on failure. */
int image_json_strings(const struct json *value, const char *what, char ***ret_strings,
                       struct error *err);
