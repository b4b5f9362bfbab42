/* Shared bytes: see blob.h. */
#include "base/blob.h"

#include <stdlib.h>

struct blob *blob_new_lent(const char *bytes, size_t len, void (*release)(void *data), void *data)
{
    struct blob *blob = malloc(sizeof(*blob));
    if (blob)
        *blob =
            (struct blob){.bytes = bytes, .len = len, .release = release, .data = data, .users = 1};
    return blob;
}

struct blob *blob_new(char *memory, size_t len)
{
    return blob_new_lent(memory, len, free, memory);
}

struct blob *blob_ref(struct blob *blob)
{
    __atomic_add_fetch(&blob->users, 1, __ATOMIC_RELAXED);
    return blob;
}

void blob_unref(struct blob *blob)
{
    if (!blob || __atomic_sub_fetch(&blob->users, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    blob->release(blob->data);
    free(blob);
}
