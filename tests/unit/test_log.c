/* base/log.h: the form of log lines, and that nobody's text can break it. */
#include "base/log.h"

#include "base/cleanup.h"
#include "base/json.h"
#include "base/text.h"
#include "capture.h"

#include <string.h>

static struct buffer logged(enum log_format format, const char *message, const char *value)
{
    log_init("test", LOG_LEVEL_INFO, format);
    struct capture capture = capture_start(STDERR_FILENO);
    log_info(message, LOG_STR("key", value), LOG_INT("count", -7));
    return capture_stop(&capture);
}

#define autobuffer with_cleanup(buffer_deinit) struct buffer

Test(log, a_text_line_has_time_level_program_message_and_fields)
{
    autobuffer line = logged(LOG_FORMAT_TEXT, "instance ready", "ab12");
    cr_assert_eq(line.data[4], '-');
    cr_assert_str_eq(line.data + 24, " INFO test instance ready key=ab12 count=-7\n");
}

Test(log, a_json_line_is_one_object)
{
    autobuffer line = logged(LOG_FORMAT_JSON, "it is \"ready\"", "a=b\n");
    cr_assert_eq(line.data[line.len - 1], '\n');
    autojson *object = json_parse(line.data, line.len, NULL, NULL);
    cr_assert_not_null(object);
    cr_assert_eq(strlen(json_get_string(object, "ts")), 24);
    cr_assert_str_eq(json_get_string(object, "level"), "info");
    cr_assert_str_eq(json_get_string(object, "program"), "test");
    cr_assert_str_eq(json_get_string(object, "msg"), "it is \"ready\"");
    cr_assert_str_eq(json_get_string(object, "key"), "a=b\n");
    cr_assert_eq(json_get_int(object, "count", 0), -7);
}

Test(log, text_values_that_could_be_mistaken_are_quoted)
{
    static const char *const rows[][2] = {{"", "key=\"\" "},
                                          {"two words", "key=\"two words\" "},
                                          {"a=b", "key=\"a=b\" "},
                                          {"say \"x\"\\", "key=\"say \\\"x\\\"\\\\\" "},
                                          {"caf\xC3\xA9", "key=caf\xC3\xA9 "}};
    for (size_t i = 0; i < ARRAY_LENGTH(rows); i++) {
        autobuffer line = logged(LOG_FORMAT_TEXT, "m", rows[i][0]);
        cr_assert_not_null(strstr(line.data, rows[i][1]), "%s", line.data);
    }
}

Test(log, a_tenants_text_can_neither_forge_a_line_nor_steer_a_terminal)
{
    const char *evil = "x\n2026-01-31T12:00:00.123Z ERROR \033[2J\x7f \xC2\x9B \xFF\r";
    for (int format = LOG_FORMAT_TEXT; format <= LOG_FORMAT_JSON; format++) {
        autobuffer line = logged((enum log_format)format, evil, evil);
        cr_assert_eq(strchr(line.data, '\n'), line.data + line.len - 1);
        cr_assert(utf8_valid(line.data, line.len));
        cr_assert_null(strpbrk(line.data, "\033\r\x7f"));
        cr_assert_null(strstr(line.data, "\xC2\x9B"));
        cr_assert_not_null(strstr(line.data, "\\u001b[2J"));
        cr_assert_not_null(strstr(line.data, "\xEF\xBF\xBD"));
    }
}

Test(log, a_line_is_cut_at_8_kib_and_stays_well_formed)
{
    static char text[20000];
    static const char *const units[] = {"a", "\n", "\"", "\xC3\xA9", "\xFF", "\x01"};
    for (size_t unit = 0; unit < ARRAY_LENGTH(units); unit++)
        for (size_t shift = 0; shift < 7; shift++) {
            memset(text, 'x', shift);
            size_t len = shift;
            while (len + 2 < sizeof(text)) {
                memcpy(text + len, units[unit], strlen(units[unit]));
                len += strlen(units[unit]);
            }
            text[len] = '\0';
            autobuffer line = logged(LOG_FORMAT_JSON, "long", text);
            cr_assert_leq(line.len, 8192);
            cr_assert_eq(line.data[line.len - 1], '\n');
            struct error err = {0};
            cr_assert_eq(json_check(line.data, line.len, NULL, &err), 0, "%s", err.message);
        }
}

Test(log, a_long_message_leaves_a_well_formed_line)
{
    static char text[20000];
    memset(text, 'm', sizeof(text) - 1);
    autobuffer line = logged(LOG_FORMAT_JSON, text, "v");
    cr_assert_leq(line.len, 8192);
    cr_assert_eq(json_check(line.data, line.len, NULL, NULL), 0);
}

Test(log, lines_below_the_level_are_not_written)
{
    log_init("test", LOG_LEVEL_WARN, LOG_FORMAT_TEXT);
    struct capture capture = capture_start(STDERR_FILENO);
    log_debug("no");
    log_info("no");
    log_warn("yes");
    log_error("yes");
    autobuffer lines = capture_stop(&capture);
    cr_assert_null(strstr(lines.data, " no"));
    cr_assert_not_null(strstr(lines.data, " WARN test yes\n"));
    cr_assert_not_null(strstr(lines.data, " ERROR test yes\n"));
    cr_assert(!log_enabled(LOG_LEVEL_INFO));
    cr_assert(log_enabled(LOG_LEVEL_WARN));
}

Test(log, a_missing_string_is_empty_and_an_error_is_told)
{
    struct error err;
    error_set(&err, ERROR_INTERNAL, "no memory");
    log_init("test", LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
    struct capture capture = capture_start(STDERR_FILENO);
    const char *missing = NULL;
    log_info("m", LOG_STR("key", missing), LOG_ERR(&err));
    autobuffer line = capture_stop(&capture);
    cr_assert_not_null(strstr(line.data, "key=\"\" error=\"no memory\"\n"), "%s", line.data);
}

Test(log, levels_and_formats_are_read_by_name)
{
    enum log_level level;
    enum log_format format;
    struct error err;
    cr_assert_eq(log_level_parse("warn", &level, &err), 0);
    cr_assert_eq(level, LOG_LEVEL_WARN);
    cr_assert_eq(log_format_parse("json", &format, &err), 0);
    cr_assert_eq(format, LOG_FORMAT_JSON);
    cr_assert_eq(log_level_parse("loud", &level, &err), -1);
    cr_assert_not_null(strstr(err.message, "debug, info, warn or error, not \"loud\""));
    cr_assert_eq(log_format_parse("xml", &format, &err), -1);
    cr_assert_not_null(strstr(err.message, "text or json, not \"xml\""));
}
