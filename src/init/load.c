/* Takes a LOAD's body apart: one list of strings, in which the empty string that ends the arguments
 * becomes the NULL that ends argv. */
#include "init/load.h"

#include <stdbool.h>
#include <string.h>

void load_begin(struct load *load)
{
    load->len = 0;
}

void load_add(struct load *load, const uint8_t *bytes, size_t len)
{
    if (load->len <= sizeof(load->bytes) && len <= sizeof(load->bytes) - load->len)
        memcpy(load->bytes + load->len, bytes, len);
    load->len += len;
}

/* The strings, with NULL for each empty one and at the end; how many, or -1 when they are too many. */
static int split(struct load *load)
{
    char *at = load->bytes;
    int count = 0;

    while (at < load->bytes + load->len) {
        if (count == LOAD_STRINGS_MAX)
            return -1;
        load->strings[count++] = *at ? at : NULL;
        at += strlen(at) + 1;
    }
    load->strings[count] = NULL;
    return count;
}

static bool is_environment(char *const *entry, int count)
{
    for (int i = 0; i < count; i++)
        if (!entry[i] || entry[i][0] == '=' || !strchr(entry[i], '='))
            return false;
    return true;
}

const char *load_finish(struct load *load)
{
    int count, arguments = 0;

    if (load->len > sizeof(load->bytes))
        return "a LOAD with more than 256 KiB";
    if (load->len == 0 || load->bytes[load->len - 1] != '\0')
        return "a LOAD whose last string has no end";
    count = split(load);
    if (count < 0)
        return "a LOAD with more than 4096 strings";
    load->mode = load->strings[0];
    load->argv = load->strings + 1;
    while (arguments + 1 < count && load->argv[arguments])
        arguments++;
    load->environment = load->argv + arguments + 1;
    if (!load->mode || arguments == 0 || arguments + 1 == count)
        return "a LOAD without mode, arguments and the empty string after them";
    if (!is_environment(load->environment, count - arguments - 2))
        return "a LOAD with an environment entry that is not NAME=value";
    return NULL;
}
