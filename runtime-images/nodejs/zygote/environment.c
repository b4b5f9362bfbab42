/* See environment.h. */
#include "environment.h"

#include <stdlib.h>
#include <string.h>

#define NAMES_MAX 4
#define VALUE_ROOM_MIN 256

struct variable {
    char *entry;           /* "NAME=value"; NULL: unused */
    size_t name_len, room; /* for the value, beside its NUL */
};

static struct variable variables[NAMES_MAX];

/* The one of that name, else an unused one, else NULL. */
static struct variable *find(const char *name, size_t len)
{
    for (size_t i = 0; i < NAMES_MAX; i++) {
        struct variable *variable = &variables[i];
        if (!variable->entry ||
            (variable->name_len == len && memcmp(variable->entry, name, len) == 0))
            return variable;
    }
    return NULL;
}

static int grow(struct variable *variable, const char *name, size_t name_len, size_t len)
{
    size_t room = variable->room > 0 ? variable->room : VALUE_ROOM_MIN;
    while (room < len)
        room *= 2;
    char *entry = calloc(1, name_len + 1 + room +
                                1); /* its last byte stays a NUL, also while a value is written */
    if (!entry)
        return -1;
    memcpy(entry, name, name_len);
    entry[name_len] = '=';
    *variable = (struct variable){.entry = entry, .name_len = name_len, .room = room};
    return 0;
}

int environment_set(const char *name, const char *value, size_t len)
{
    size_t name_len = strlen(name);
    struct variable *variable = find(name, name_len);
    if (!variable ||
        ((!variable->entry || len > variable->room) && grow(variable, name, name_len, len) != 0))
        return -1;
    memcpy(variable->entry + name_len + 1, value, len);
    variable->entry[name_len + 1 + len] = '\0';
    return putenv(variable->entry) == 0 ? 0 : -1;
}
