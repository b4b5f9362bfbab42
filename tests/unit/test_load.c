/* The body of a LOAD frame. */
#include "init/load.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static struct load load;

#define FINISH(text) finish(text, sizeof(text) - 1)

static const char *finish(const char *bytes, size_t len)
{
    load_begin(&load);
    load_add(&load, (const uint8_t *)bytes, len);
    return load_finish(&load);
}

Test(load, mode_arguments_and_environment)
{
    cr_assert_null(FINISH("exec\0./a\0b\0\0A=1\0B=\0"));
    cr_assert_str_eq(load.mode, "exec");
    cr_assert_str_eq(load.argv[0], "./a");
    cr_assert_str_eq(load.argv[1], "b");
    cr_assert_null(load.argv[2]);
    cr_assert_str_eq(load.environment[0], "A=1");
    cr_assert_str_eq(load.environment[1], "B=");
    cr_assert_null(load.environment[2]);
}

Test(load, environment_may_be_empty)
{
    cr_assert_null(FINISH("exec\0./a\0\0"));
    cr_assert_null(load.argv[1]);
    cr_assert_null(load.environment[0]);
}

Test(load, pieces_of_one_byte)
{
    static const char text[] = "exec\0./a\0\0A=1";

    load_begin(&load);
    for (size_t i = 0; i < sizeof(text); i++)
        load_add(&load, (const uint8_t *)text + i, 1);
    cr_assert_null(load_finish(&load));
    cr_assert_str_eq(load.environment[0], "A=1");
}

Test(load, what_is_malformed_is_named)
{
    const char *no_value = "a LOAD with an environment entry that is not NAME=value";
    const char *incomplete = "a LOAD without mode, arguments and the empty string after them";
    const char *no_end = "a LOAD whose last string has no end";

    cr_assert_str_eq(FINISH(""), no_end);
    cr_assert_str_eq(FINISH("exec\0./a\0\0A=1"), no_end);
    cr_assert_str_eq(FINISH("exec\0"), incomplete);
    cr_assert_str_eq(FINISH("exec\0\0"), incomplete);
    cr_assert_str_eq(FINISH("exec\0./a\0"), incomplete);
    cr_assert_str_eq(FINISH("\0./a\0\0"), incomplete);
    cr_assert_str_eq(FINISH("exec\0./a\0\0A\0"), no_value);
    cr_assert_str_eq(FINISH("exec\0./a\0\0=A\0"), no_value);
    cr_assert_str_eq(FINISH("exec\0./a\0\0\0"), no_value);
    cr_assert_str_eq(FINISH("exec\0./a\0\0A=1\0\0B=2\0"), no_value);
}

Test(load, limits_are_exact)
{
    static char body[LOAD_MAX + 1];
    size_t head = sizeof("exec\0a\0");

    memset(body, 'x', sizeof(body));
    memcpy(body, "exec\0a\0\0A=", 10);
    body[LOAD_MAX - 1] = '\0';
    cr_assert_null(finish(body, LOAD_MAX));
    body[LOAD_MAX] = '\0';
    cr_assert_str_eq(finish(body, LOAD_MAX + 1), "a LOAD with more than 256 KiB");
    for (size_t i = 3; i < LOAD_STRINGS_MAX + 1; i++)
        memcpy(body + head + (i - 3) * 3, "A=", 3);
    cr_assert_null(finish(body, head + (LOAD_STRINGS_MAX - 3) * 3));
    cr_assert_str_eq(finish(body, head + (LOAD_STRINGS_MAX - 2) * 3),
                     "a LOAD with more than 4096 strings");
}

Test(load, a_second_one_starts_anew)
{
    cr_assert_not_null(FINISH("exec\0"));
    cr_assert_null(FINISH("zygote\0b\0\0"));
    cr_assert_str_eq(load.mode, "zygote");
}
