/* Bytes that several hold and nobody changes any more: what goes to a client and into the store at the same time is not copied for it.
 *
 * Life cycle: blob_new() takes memory, blob_new_lent() bytes that are somebody else's; blob_ref() and blob_unref() count who holds it, from any
 * thread; the last one frees it, or calls `release` in its own thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct blob {
    const char *bytes;
    size_t len;
    void (*release)(void *data);
    void *data;
    /* Another process can change the bytes at any moment: they can be passed on, but what was found out about them need not hold any more. */
    bool foreign;
    unsigned users; /* atomic */
};

/* Takes `memory` (malloc'd, `len` bytes), unless it returns NULL: out of memory. */
struct blob *blob_new(char *memory, size_t len);
/* The bytes stand until `release` is called; it is not when this returns NULL: out of memory. */
struct blob *blob_new_lent(const char *bytes, size_t len, void (*release)(void *data), void *data);
/* The same blob, once more. */
struct blob *blob_ref(struct blob *blob);
/* Accepts NULL. */
void blob_unref(struct blob *blob);
