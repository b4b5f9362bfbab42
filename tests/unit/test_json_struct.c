/* base/json.h: structs by table, and errors that name the field. */
#include "base/json.h"

#include "base/cleanup.h"

#include <criterion/criterion.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

struct sample {
    char *name;
    int64_t size;
    double share;
    bool open;
    char custom[128];
};

static int read_custom(void *object, const struct json *value, const char *pointer,
                       struct error *err)
{
    struct sample *sample = object;
    if (json_type(value) != JSON_ARRAY)
        return error_set_field(err, ERROR_INVALID_REQUEST, pointer, "custom must be an array");
    strcpy(sample->custom, pointer);
    return 0;
}

static const struct json_field fields[] = {
    {"name", JSON_FIELD_STRING, offsetof(struct sample, name), .min = 2, .max = 5,
     .required = true},
    {"size_mb", JSON_FIELD_INT64, offsetof(struct sample, size), .min = 16, .max = 10240},
    {"share", JSON_FIELD_DOUBLE, offsetof(struct sample, share), .min = 0.05, .max = 2},
    {"open", JSON_FIELD_BOOL, offsetof(struct sample, open), .required = false},
    {"custom", JSON_FIELD_CUSTOM, .read = read_custom},
};

static int read_sample(const char *text, struct sample *sample, struct error *err)
{
    autojson *value = json_parse(text, strlen(text), NULL, NULL);
    cr_assert_not_null(value, "%s", text);
    return json_read_struct(value, fields, ARRAY_LENGTH(fields), sample, err);
}

static void assert_refused(const char *text, const char *field, const char *message)
{
    struct sample sample = {0};
    struct error err = {0};
    cr_assert_eq(read_sample(text, &sample, &err), -1, "%s", text);
    cr_assert_str_eq(err.field, field);
    cr_assert_str_eq(err.message, message);
    cr_assert_eq(err.code, ERROR_INVALID_REQUEST);
    free(sample.name);
}

Test(json_struct, members_are_read_and_those_not_given_stay)
{
    struct sample sample = {.name = strdup("old"), .size = 77};
    struct error err = {0};
    cr_assert_eq(
        read_sample("{\"name\":\"new\",\"share\":2,\"open\":true,\"custom\":[]}", &sample, &err), 0,
        "%s", err.message);
    cr_assert_str_eq(sample.name, "new");
    cr_assert_eq(sample.size, 77);
    cr_assert_float_eq(sample.share, 2.0, 0);
    cr_assert(sample.open);
    cr_assert_str_eq(sample.custom, "/custom");
    free(sample.name);
}

Test(json_struct, numbers_out_of_range_or_of_another_type_are_named)
{
    assert_refused("{\"name\":\"ab\",\"size_mb\":4}", "/size_mb",
                   "size_mb must be 16 to 10240, not 4");
    assert_refused("{\"name\":\"ab\",\"size_mb\":\"big\"}", "/size_mb",
                   "size_mb must be 16 to 10240, not \"big\"");
    assert_refused("{\"name\":\"ab\",\"size_mb\":null}", "/size_mb",
                   "size_mb must be 16 to 10240, not null");
    assert_refused("{\"name\":\"ab\",\"size_mb\":20.5}", "/size_mb",
                   "size_mb must be 16 to 10240, a whole number, not 20.5");
    assert_refused("{\"name\":\"ab\",\"size_mb\":99999999999999999999}", "/size_mb",
                   "size_mb must be 16 to 10240, not 99999999999999999999");
    assert_refused("{\"name\":\"ab\",\"share\":0.01}", "/share",
                   "share must be 0.05 to 2, not 0.01");
    assert_refused("{\"name\":\"ab\",\"open\":1}", "/open", "open must be true or false, not 1");
}

Test(json_struct, strings_are_checked_for_length_and_nul)
{
    assert_refused("{\"name\":\"a\"}", "/name", "name must be 2 to 5 bytes long, not 1");
    assert_refused("{\"name\":\"abcdef\"}", "/name", "name must be 2 to 5 bytes long, not 6");
    assert_refused("{\"name\":5}", "/name", "name must be a string, not 5");
    assert_refused("{\"name\":\"a\\u0000b\"}", "/name", "name must not contain the NUL character");
}

Test(json_struct, unknown_members_are_refused_with_a_suggestion)
{
    assert_refused("{\"name\":\"ab\",\"size\":20}", "/size",
                   "unknown field \"size\"; did you mean \"size_mb\"?");
    assert_refused("{\"name\":\"ab\",\"x/y\":20}", "/x~1y",
                   "unknown field \"x/y\"; known are name, size_mb, share, open, custom");
}

Test(json_struct, a_required_member_must_be_there)
{
    assert_refused("{\"open\":true}", "/name", "name is required");
}

Test(json_struct, what_is_no_object_is_refused)
{
    assert_refused("[1]", "", "it must be a JSON object, not an array");
    assert_refused("\"x\"", "", "it must be a JSON object, not \"x\"");
}

Test(json_struct, custom_errors_pass_through)
{
    assert_refused("{\"name\":\"ab\",\"custom\":1}", "/custom", "custom must be an array");
}

Test(json_struct, text_of_our_own_programs_may_hold_more)
{
    struct sample sample = {0};
    autojson *value = json_parse("{\"name\":\"ab\",\"newer\":{}}", 24, NULL, NULL);
    cr_assert_eq(json_read_known(value, fields, ARRAY_LENGTH(fields), &sample, NULL), 0);
    cr_assert_str_eq(sample.name, "ab");
    free(sample.name);
}
