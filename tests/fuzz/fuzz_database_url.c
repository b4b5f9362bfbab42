/* The database's URL. One that is refused is never quoted, for it may hold a password; of one that is taken, the connection gets
 * the same text. The linker puts the functions below in the place of libpq's, so nothing is connected to. */
#include "base/cleanup.h"
#include "base/text.h"
#include "store/store.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* What is shorter may be part of the message by itself. */
#define SECRET_MIN 12

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
void *__wrap_PQconnectdbParams(const char *const *keywords, const char *const *values, int expand);

static const char *wanted;

void *__wrap_PQconnectdbParams(const char *const *keywords, const char *const *values, int expand)
{
    size_t found = 0;
    for (size_t i = 0; keywords[i]; i++)
        found += strcmp(keywords[i], "dbname") == 0 && strcmp(values[i], wanted) == 0;
    if (found != 1 || expand != 1)
        abort();
    return NULL;
}

static void try_postgresql(const char *location)
{
    uv_loop_t loop;
    struct error err = {0};
    autofree char *url = string_printf("postgresql://%s", location);
    if (!url || uv_loop_init(&loop))
        abort();
    wanted = url;
    if (store_open(&loop, url, &err) || !err.message[0])
        abort();
    if (strlen(location) >= SECRET_MIN && strstr(err.message, location))
        abort();
    if (uv_loop_close(&loop))
        abort();
}

/* Of another kind than the store knows. */
static void try_other(const char *url)
{
    struct error err = {0};
    const char *location = strstr(url, "://");
    if (store_schema_version(url) >= 0)
        return;
    if (store_backup(url, "/nonexistent/file", &err) == 0 || !err.message[0])
        abort();
    if (location && strlen(location) >= SECRET_MIN && strstr(err.message, location))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    autofree char *text = strndup((const char *)data, size);
    if (!text)
        return 0;
    try_postgresql(text);
    try_other(text);
    return 0;
}
