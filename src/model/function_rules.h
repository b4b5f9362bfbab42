/* The checks of a function's fields that are more than a type and a range: private to this room.
 *
 * Each takes the value as the user wrote it and, on failure, sets an error with the field's pointer. */
#pragma once

#include "model/function.h"

int function_check_name(const char *name, struct error *err);
int function_check_image(const char *image, struct error *err);
int function_check_handler(const char *handler, struct error *err);
int function_check_sha256(const char *digest, const char *field, struct error *err);
int function_check_env(const struct key_values *env, struct error *err);
int function_check_labels(const struct key_values *labels, struct error *err);
/* Rules between fields; fills in the default image. */
int function_check_whole(struct function_spec *spec, struct error *err);
