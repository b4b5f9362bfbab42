/* The body of a LOAD frame, put together from pieces and taken apart. Used by faas-init; depends on
 * nothing but protocol.h.
 *
 *     static struct load load;
 *     load_begin(&load);
 *     load_add(&load, bytes, len);            each piece
 *     problem = load_finish(&load);           NULL: mode, argv and environment may be used
 *
 * What it names points into its own memory, which therefore lives as long as argv and environment do.
 * It checks form only: what modes there are is faas-init's to know. */
#pragma once

#include "init/protocol.h"

#include <stddef.h>

struct load {
    char *mode;
    char **argv;        /* at least one, then NULL */
    char **environment; /* "NAME=value", then NULL */

    /* private */
    size_t len;
    char bytes[LOAD_MAX];
    char *strings[LOAD_STRINGS_MAX + 1];
};

void load_begin(struct load *load);
/* What is over LOAD_MAX is dropped, and load_finish() says so. */
void load_add(struct load *load, const uint8_t *bytes, size_t len);
/* NULL, or what is wrong with it as static text. */
const char *load_finish(struct load *load);
