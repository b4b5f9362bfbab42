/* Messages over a socket pair, with a test as the other side. */
#include "message_stream_fixture.h"

TestSuite(message_stream, .init = set_up, .fini = tear_down);

Test(message_stream, messages_of_all_sizes_come_in_order)
{
    static const size_t sizes[] = {0, 1, 1000, 65000, 65536, 70000, MAX_BODY, 3};
    for (int i = 0; i < 8; i++) {
        char head[10];
        snprintf(head, sizeof(head), "{%d}", i);
        say(head, sizes[i]);
        run_until(&messages, i + 1);
        cr_assert_str_eq(last_head, head);
        cr_assert_eq(last_len, sizes[i]);
        cr_assert_eq(strspn(last_body, "b"), sizes[i]);
        cr_assert_eq(last_body[sizes[i]], '\0');
    }
    cr_assert_gt(settled, 0);
}

Test(message_stream, large_json_is_looked_at_while_it_comes)
{
    static char text[600000];
    memset(text, 'x', sizeof(text));
    text[0] = text[sizeof(text) - 1] = '"';
    say_body("{}", text, sizeof(text));
    run_until(&messages, 1);
    cr_expect_eq(seen_ahead, 1);
    say("{}", sizeof(text));
    say_body("{}", "\"small\"", 7);
    run_until(&messages, 3);
    cr_expect_eq(seen_ahead, 1, "what is no JSON, or small");
}

Test(message_stream, what_comes_together_is_told_before_it_settles)
{
    for (int i = 0; i < 5; i++)
        say("{}", 10);
    run_until(&messages, 5);
    cr_assert_eq(settled, 1);
}

Test(message_stream, what_waits_above_the_socket_is_read_while_answers_go_out)
{
    const size_t count = sizeof(held) / sizeof(held[0]);
    for (held_count = 0; held_count < count; held_count++) {
        message_header_write(held[held_count], 1, 0);
        held[held_count][MESSAGE_HEADER_SIZE] = 'h';
    }
    pair.stream.holds_bytes = answer_when_settled = true;
    say("from the socket", 0);
    for (int turn = 0; turn < 100; turn++)
        uv_run(&loop, UV_RUN_NOWAIT);
    cr_expect_eq(messages, (int)count + 1);
}

Test(message_stream, a_body_that_is_too_large_is_passed_over)
{
    say("{large}", MAX_BODY + 1);
    say("{next}", 2);
    run_until(&messages, 2);
    cr_assert_eq(cut, 1);
    cr_assert_str_eq(last_head, "{next}");
    cr_assert_eq(closed, 0);
}

Test(message_stream, a_header_that_cannot_be_ends_it)
{
    write_all("\xff\xff\xff\xff\0\0\0\0\0\0\0\0", MESSAGE_HEADER_SIZE);
    run_until(&closed, 1);
    cr_assert_eq(messages, 0);
}

Test(message_stream, an_end_in_the_middle_ends_it_once)
{
    say("{}", 1);
    write_all("\x02\0\0\0", 4);
    shutdown(peer, SHUT_WR);
    run_until(&closed, 1);
    cr_assert_eq(messages, 1);
    cr_assert_eq(message_stream_send(stream, "{}", 2, NULL, 0, NULL), -1);
    message_stream_push(stream);
}

Test(message_stream, it_may_be_freed_inside_of_a_message)
{
    free_in_message = true;
    say("{}", 1);
    say("{}", 100000);
    run_until(&messages, 1);
    cr_assert_null(stream);
    cr_assert_eq(closed, 0);
}

Test(message_stream, small_messages_of_one_turn_share_a_write)
{
    struct message_part part = {.bytes = "body", .len = 4};
    for (int i = 0; i < 10; i++) {
        cr_assert_eq(message_stream_send(stream, "{}", 2, &part, 1, NULL), 0);
        message_stream_push(stream);
    }
    cr_assert_eq(pair.sends, 1, "the first goes out at once, the others when the turn ends");
    free(read_sent(10 * (MESSAGE_HEADER_SIZE + 6)));
    cr_assert_eq(pair.sends, 2);
    cr_assert_eq(message_stream_queued(stream), 0);
    cr_assert_eq(message_stream_sent(stream), 10);
}

Test(message_stream, bodies_are_sent_from_where_they_are)
{
    char *owned = malloc(300000), *borrowed = malloc(200000);
    memset(owned, 'o', 300000);
    memset(borrowed, 'b', 200000);
    struct message_part parts[] = {{.bytes = owned, .len = 300000, .owned = owned},
                                   {.bytes = "", .len = 0},
                                   {.bytes = borrowed, .len = 200000}};
    cr_assert_eq(message_stream_send(stream, "{\"a\":1}", 7, parts, 3, NULL), 0);
    message_stream_push(stream);
    cr_assert_gt(message_stream_queued(stream), 0, "the socket cannot take it all");
    cr_assert_eq(message_stream_sent(stream), 0);
    char *sent = read_sent(MESSAGE_HEADER_SIZE + 7 + 500000);
    char header[MESSAGE_HEADER_SIZE];
    message_header_write(header, 7, 500000);
    cr_assert_arr_eq(sent, header, MESSAGE_HEADER_SIZE);
    cr_assert_arr_eq(sent + MESSAGE_HEADER_SIZE, "{\"a\":1}ooo", 10);
    cr_assert_arr_eq(sent + MESSAGE_HEADER_SIZE + 7 + 299999, "obb", 3);
    cr_assert_eq(message_stream_sent(stream), 1);
    free(sent);
    free(borrowed);
}

Test(message_stream, more_than_may_wait_is_refused)
{
    char *body = calloc(1, 3 * MAX_BODY);
    struct message_part part = {.bytes = body, .len = 3 * MAX_BODY};
    struct error err = {0};
    cr_assert_eq(message_stream_send(stream, "{}", 2, &part, 1, &err), 0);
    cr_assert_eq(message_stream_send(stream, "{}", 2, &part, 1, &err), -1);
    cr_assert_eq(err.code, ERROR_PAYLOAD_TOO_LARGE);
    part = (struct message_part){.bytes = body, .len = SIZE_MAX};
    cr_assert_eq(message_stream_send(stream, "{}", 2, &part, 1, &err), -1);
    drop_stream();
    free(body);
}

Test(message_stream, what_was_not_sent_is_freed_with_it)
{
    char *owned = malloc(MAX_BODY);
    struct message_part part = {.bytes = owned, .len = MAX_BODY, .owned = owned};
    cr_assert_eq(message_stream_send(stream, "{}", 2, &part, 1, NULL), 0);
    message_stream_push(stream);
    drop_stream();
}

static void count_one(void *data)
{
    ++*(int *)data;
}

Test(message_stream, a_body_that_is_shared_is_given_back_when_it_was_sent)
{
    static const char bytes[MAX_BODY];
    static const size_t sizes[] = {10, MAX_BODY};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        int given_back = 0;
        struct blob *blob = blob_new_lent(bytes, sizes[i], count_one, &given_back);
        struct message_part part = {.bytes = bytes, .len = sizes[i], .shared = blob};
        cr_assert_eq(message_stream_send(stream, "{}", 2, &part, 1, NULL), 0);
        message_stream_push(stream);
        if (sizes[i] == MAX_BODY)
            cr_assert_eq(given_back, 0, "it waits to be sent");
        free(read_sent(MESSAGE_HEADER_SIZE + 2 + sizes[i]));
        run_until(&given_back, 1);
    }
}

Test(message_stream, a_body_that_is_shared_is_given_back_when_it_cannot_be_sent)
{
    static const char bytes[3 * MAX_BODY];
    int given_back = 0;
    for (int i = 0; i < 2; i++) {
        struct message_part part = {
            .bytes = bytes,
            .len = sizeof(bytes),
            .shared = blob_new_lent(bytes, sizeof(bytes), count_one, &given_back)};
        cr_assert_eq(message_stream_send(stream, "{}", 2, &part, 1, NULL), i == 0 ? 0 : -1);
        cr_assert_eq(given_back, i);
    }
    drop_stream();
    cr_assert_eq(given_back, 2);
}
