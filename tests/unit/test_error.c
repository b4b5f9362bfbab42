/* base/error.h: what an error says, and how each program shows it. */
#include "base/error.h"

#include "base/text.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

Test(error, setting_one_returns_minus_one_and_fills_it)
{
    struct error err = {.field = "/old", .sys_errno = 5};
    cr_assert_eq(error_set(&err, ERROR_NOT_FOUND, "function %s", "x"), -1);
    cr_assert_eq(err.code, ERROR_NOT_FOUND);
    cr_assert_str_eq(err.message, "function x");
    cr_assert_str_empty(err.field);
    cr_assert_eq(err.sys_errno, 0);
}

Test(error, a_caller_that_does_not_care_passes_null)
{
    cr_assert_eq(error_set(NULL, ERROR_INTERNAL, "x"), -1);
    cr_assert_eq(error_set_field(NULL, ERROR_INTERNAL, "/x", "x"), -1);
    cr_assert_eq(error_set_errno(NULL, ERROR_INTERNAL, 1, "x"), -1);
    cr_assert_eq(error_wrap(NULL, "x"), -1);
}

Test(error, wrapping_keeps_code_errno_and_field)
{
    struct error err;
    error_set_field(&err, ERROR_CONFLICT, "/name", "taken");
    err.sys_errno = 7;
    cr_assert_eq(error_wrap(&err, "function %d", 3), -1);
    cr_assert_str_eq(err.message, "function 3: taken");
    cr_assert_str_eq(err.field, "/name");
    cr_assert_eq(err.code, ERROR_CONFLICT);
    cr_assert_eq(err.sys_errno, 7);
}

Test(error, errno_is_told_in_words_and_left_as_it_was)
{
    struct error err;
    errno = EAGAIN;
    error_set_errno(&err, ERROR_INTERNAL, ENOENT, "open %s", "f");
    cr_assert_str_eq(err.message, "open f: No such file or directory");
    cr_assert_eq(err.sys_errno, ENOENT);
    cr_assert_eq(errno, EAGAIN);
}

Test(error, its_own_message_may_be_an_argument)
{
    struct error err;
    error_set(&err, ERROR_INTERNAL, "inner");
    error_set(&err, ERROR_UNAVAILABLE, "outer (%s)", err.message);
    cr_assert_str_eq(err.message, "outer (inner)");
}

Test(error, a_long_message_is_cut_at_a_whole_character)
{
    struct error err;
    char text[2001] = "";
    for (int i = 0; i < 1000; i++)
        memcpy(text + 2 * i, "\xC3\xA9", 2);
    for (int shift = 0; shift < 2; shift++) {
        error_set(&err, ERROR_INTERNAL, "%s%s", shift ? "x" : "", text);
        cr_assert_geq(strlen(err.message), sizeof(err.message) - 4);
        cr_assert(utf8_valid(err.message, strlen(err.message)));
    }
    error_wrap(&err, "%s", text);
    cr_assert(utf8_valid(err.message, strlen(err.message)));
}

Test(error, a_strangers_text_stays_one_line_without_control_characters)
{
    struct error err;
    error_set_field(&err, ERROR_INVALID_REQUEST, "/a\nb", "bad \"%s\"", "x\r\n\033[31m\x7f");
    cr_assert_str_eq(err.message, "bad \"x   [31m \"");
    cr_assert_str_eq(err.field, "/a b");
}

Test(error, every_code_has_its_row_and_is_found_by_its_type)
{
    for (int code = ERROR_NONE + 1; code < ERROR_CODE_COUNT; code++) {
        const struct error_code_info *info = error_code_info((enum error_code)code);
        cr_assert_not_null(info->type);
        cr_assert_geq(info->http_status, 400);
        cr_assert_gt(info->exit_status, 1, "1 says that the function failed");
        cr_assert_eq((int)error_code_from_type(info->type), code);
    }
    cr_assert_eq(error_code_from_type("nonsense"), ERROR_INTERNAL);
    cr_assert_eq(error_code_from_type(NULL), ERROR_INTERNAL);
    cr_assert_eq(error_code_info((enum error_code)99)->http_status, 500);
}

Test(error, the_contracts_types_have_the_contracts_statuses)
{
    static const struct {
        const char *type;
        int status;
    } rows[] = {{"invalid_request", 400}, {"unauthorized", 401}, {"forbidden", 403},
                {"not_found", 404},       {"conflict", 409},     {"payload_too_large", 413},
                {"throttled", 429},       {"not_ready", 409},    {"no_capacity", 503},
                {"internal", 500}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const struct error_code_info *info = error_code_info(error_code_from_type(rows[i].type));
        cr_assert_str_eq(info->type, rows[i].type);
        cr_assert_eq(info->http_status, rows[i].status, "%s", rows[i].type);
    }
}
