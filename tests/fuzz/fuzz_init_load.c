/* The body of a LOAD, added in pieces whose sizes come from the input too: what it names lies within its bytes, and putting it
 * together again gives the same bytes. */
#include "init/load.h"

#include <assert.h>
#include <string.h>

static struct load load;

/* Compares one string with what comes next in `body`; where the one after it begins. */
static const char *expect(const char *at, const char *string)
{
    assert(strcmp(at, string) == 0);
    return at + strlen(string) + 1;
}

static void check(const char *body, size_t len)
{
    const char *at = expect(body, load.mode);

    assert(load.mode[0] != '\0' && load.argv[0]);
    for (char **argument = load.argv; *argument; argument++)
        at = expect(at, *argument);
    at = expect(at, "");
    for (char **entry = load.environment; *entry; entry++) {
        assert(strchr(*entry, '=') > *entry);
        at = expect(at, *entry);
    }
    assert(at == body + len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    size_t step = data[0] + 1U;
    data++;
    size--;
    load_begin(&load);
    for (size_t at = 0; at < size; at += step)
        load_add(&load, data + at, size - at < step ? size - at : step);
    if (!load_finish(&load))
        check((const char *)data, size);
    return 0;
}
