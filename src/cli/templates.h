/* What `faas new` writes, for each runtime and contract. */
#pragma once

#include <stddef.h>

struct template_file {
    const char *name;
    const char *content;
    unsigned mode;
};

struct function_template {
    const char *runtime;
    const char *contract;
    const char *settings;          /* faas.json */
    struct template_file files[3]; /* ends with a NULL name */
};

extern const struct function_template function_templates[];
extern const size_t function_template_count;
