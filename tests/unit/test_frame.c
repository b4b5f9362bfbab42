/* The frame reader as worker and faas-init use it. */
#include "init/frame.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#define TYPES (FRAME_BIT(FRAME_INVOKE) | FRAME_BIT(FRAME_EXIT))

struct wire {
    uint8_t bytes[20000];
    size_t len;
};

static void put(struct wire *wire, enum frame_type type, uint16_t flags, uint32_t value,
                const char *meta, const char *body)
{
    struct frame_header header =
        frame_header_make(type, flags, value, (uint32_t)strlen(meta), (uint32_t)strlen(body));

    memcpy(wire->bytes + wire->len, &header, sizeof(header));
    wire->len += sizeof(header);
    memcpy(wire->bytes + wire->len, meta, strlen(meta));
    wire->len += strlen(meta);
    memcpy(wire->bytes + wire->len, body, strlen(body));
    wire->len += strlen(body);
}

/* Feeds all of it in pieces of `step` bytes; writes what was read as text: "H(meta)", "B(bytes)", "E", "!". */
static void read_all(struct frame_reader *reader, const struct wire *wire, size_t step, char *text)
{
    *text = '\0';
    for (size_t at = 0; at < wire->len; at += step) {
        const uint8_t *bytes = wire->bytes + at;
        size_t len = wire->len - at < step ? wire->len - at : step;
        enum frame_event event;

        while ((event = frame_reader_next(reader, &bytes, &len)) != FRAME_EVENT_MORE) {
            if (event == FRAME_EVENT_HEAD)
                sprintf(text + strlen(text), "H(%.64s)", reader->meta);
            else if (event == FRAME_EVENT_BODY)
                strncat(text, (const char *)reader->piece, reader->piece_len);
            else if (event == FRAME_EVENT_END)
                strcat(text, "E");
            if (event == FRAME_EVENT_INVALID) {
                strcat(text, "!");
                return;
            }
        }
    }
}

static const char *problem_with(const struct wire *wire)
{
    struct frame_reader reader;
    char text[30000];

    frame_reader_init(&reader, TYPES, 100);
    read_all(&reader, wire, wire->len, text);
    return reader.problem;
}

Test(frame, is_read_the_same_in_pieces_of_any_size)
{
    struct wire wire = {.len = 0};
    char text[1000];

    put(&wire, FRAME_INVOKE, 0, 1500, "exec-1", "{\"a\":1}");
    put(&wire, FRAME_EXIT, FRAME_FLAG_DIRTY, 256, "", "");
    put(&wire, FRAME_INVOKE, 0, 0, "", "[]");
    for (size_t step = 1; step <= wire.len; step++) {
        struct frame_reader reader;

        frame_reader_init(&reader, TYPES, 100);
        read_all(&reader, &wire, step, text);
        cr_assert_str_eq(text, "H(exec-1){\"a\":1}EH()EH()[]E", "in steps of %zu: %s", step, text);
        cr_assert_not(frame_reader_pending(&reader));
    }
}

Test(frame, header_fields_arrive)
{
    struct frame_reader reader;
    struct wire wire = {.len = 0};
    char text[100];

    put(&wire, FRAME_EXIT, FRAME_FLAG_NOT_STARTED | FRAME_FLAG_DIRTY, 0xfffffffe, "why", "");
    frame_reader_init(&reader, TYPES, 0);
    read_all(&reader, &wire, wire.len, text);
    cr_assert_eq(reader.header.type, FRAME_EXIT);
    cr_assert_eq(reader.header.flags, 3);
    cr_assert_eq(reader.header.value, 0xfffffffe);
    cr_assert_str_eq(reader.meta, "why");
}

Test(frame, type_that_is_not_expected_is_refused)
{
    struct wire wire = {.len = 0};

    put(&wire, FRAME_READY, 0, 0, "", "");
    cr_assert_str_eq(problem_with(&wire), "a frame of a type that is not expected here");
    wire.bytes[0] = 200;
    cr_assert_str_eq(problem_with(&wire), "a frame of a type that is not expected here");
}

Test(frame, flags_that_do_not_exist_are_refused)
{
    struct wire wire = {.len = 0};

    put(&wire, FRAME_EXIT, 32, 0, "", "");
    cr_assert_str_eq(problem_with(&wire), "a frame with flags that do not exist");
}

Test(frame, a_body_elsewhere_is_refused_where_there_is_no_memory_for_it)
{
    struct wire wire = {.len = 0};

    put(&wire, FRAME_INVOKE, FRAME_FLAG_IN_AREA, 0, "", "1234");
    cr_assert_str_eq(problem_with(&wire), "a frame with its body in memory that it does not have");
}

Test(frame, a_body_elsewhere_has_numbers_in_the_frame_and_only_invoke_and_result_may_have_it)
{
    static const struct {
        enum frame_type type;
        const char *body, *problem;
    } cases[] = {
        {FRAME_INVOKE, "1234", NULL},
        {FRAME_INVOKE, "12345678", NULL},
        {FRAME_INVOKE, "", "a frame with its body elsewhere, and more than numbers in it"},
        {FRAME_INVOKE, "123", "a frame with its body elsewhere, and more than numbers in it"},
        {FRAME_INVOKE, "12345", "a frame with its body elsewhere, and more than numbers in it"},
        {FRAME_EXIT, "1234", "a frame with its body in memory that it does not have"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct wire wire = {.len = 0};
        struct frame_reader reader;
        char text[100];
        put(&wire, cases[i].type, FRAME_FLAG_IN_AREA, 0, "", cases[i].body);
        frame_reader_init(&reader, TYPES, 100);
        frame_reader_expect_area(&reader);
        read_all(&reader, &wire, wire.len, text);
        cr_expect_eq(!reader.problem, !cases[i].problem, "case %zu", i);
        if (cases[i].problem)
            cr_expect_str_eq(reader.problem, cases[i].problem);
    }
}

Test(frame, lengths_over_the_limits_are_refused_before_the_bytes_come)
{
    struct wire wire = {.len = 16};
    struct frame_header header = frame_header_make(FRAME_INVOKE, 0, 0, FRAME_META_MAX + 1, 0);

    memcpy(wire.bytes, &header, sizeof(header));
    cr_assert_str_eq(problem_with(&wire), "a frame with more than 4096 bytes of meta");
    header = frame_header_make(FRAME_INVOKE, 0, 0, 0, 101);
    memcpy(wire.bytes, &header, sizeof(header));
    cr_assert_str_eq(problem_with(&wire), "a frame with a body over the limit");
    header = frame_header_make(FRAME_INVOKE, 0, 0, FRAME_META_MAX, 100);
    memcpy(wire.bytes, &header, sizeof(header));
    cr_assert_null(problem_with(&wire));
}

Test(frame, nul_in_meta_is_refused)
{
    struct wire wire = {.len = 0};

    put(&wire, FRAME_INVOKE, 0, 0, "abc", "");
    wire.bytes[17] = '\0';
    cr_assert_str_eq(problem_with(&wire), "a frame with a NUL byte in its meta");
}

Test(frame, refusal_is_final)
{
    struct frame_reader reader;
    struct wire wire = {.len = 0};
    char text[100];

    put(&wire, FRAME_READY, 0, 0, "", "");
    put(&wire, FRAME_INVOKE, 0, 0, "x", "");
    frame_reader_init(&reader, TYPES, 100);
    read_all(&reader, &wire, wire.len, text);
    read_all(&reader, &wire, wire.len, text);
    cr_assert_str_eq(text, "!");
}

Test(frame, broken_off_frame_is_pending)
{
    struct wire wire = {.len = 0};
    char text[100];

    put(&wire, FRAME_INVOKE, 0, 0, "meta", "body");
    for (size_t len = 0; len < wire.len; len++) {
        struct wire part = wire;
        struct frame_reader reader;

        part.len = len;
        frame_reader_init(&reader, TYPES, 100);
        read_all(&reader, &part, 7, text);
        cr_assert_eq(frame_reader_pending(&reader) != 0, len > 0, "after %zu bytes", len);
    }
}

Test(frame, other_types_and_limits_hold_from_the_next_header_on)
{
    struct frame_reader reader;
    struct wire wire = {0};
    char text[1000];

    frame_reader_init(&reader, FRAME_BIT(FRAME_LOAD), 4);
    put(&wire, FRAME_LOAD, 0, 0, "", "load");
    read_all(&reader, &wire, 7, text);
    cr_assert_str_eq(text, "H()loadE", "%s", text);
    frame_reader_expect(&reader, FRAME_BIT(FRAME_INVOKE), 6);
    wire.len = 0;
    put(&wire, FRAME_INVOKE, 0, 0, "", "invoke");
    put(&wire, FRAME_LOAD, 0, 0, "", "load");
    read_all(&reader, &wire, 100, text);
    cr_assert_str_eq(text, "H()invokeE!", "%s", text);
    cr_assert_str_eq(reader.problem, "a frame of a type that is not expected here");
}
