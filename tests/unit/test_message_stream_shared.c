/* Bodies of messages in memory that both ends have, with a test as the other side. */
#include "message_stream_fixture.h"

TestSuite(message_stream_shared, .init = set_up, .fini = tear_down);

/* ---- memory of both ends ---- */

static struct shared_memory *open_other(const struct shared_memory *own)
{
    struct buffer text = BUFFER_INIT(1000);
    struct json_writer *writer = json_writer_new(&text);
    shared_memory_offer(own, writer);
    cr_assert_eq(json_writer_finish(writer, NULL), 0);
    struct json *offer = json_parse(text.data, text.len, NULL, NULL);
    struct shared_memory *other = shared_memory_open(offer, NULL);
    cr_assert_not_null(other);
    json_free(offer);
    buffer_deinit(&text);
    return other;
}

/* The test's end; the stream has the other. */
static struct shared_memory *share(void)
{
    struct shared_memory *own = shared_memory_new(NULL);
    cr_assert_not_null(own);
    message_stream_share(stream, open_other(own));
    return own;
}

static void say_place(const char *head, uint64_t at, uint64_t len)
{
    char header[MESSAGE_HEADER_SIZE], place[MESSAGE_PLACE_SIZE];
    message_header_write(header, strlen(head), MESSAGE_PLACE_SIZE);
    message_header_mark_shared(header);
    message_place_write(place, at, len);
    write_all(header, sizeof(header));
    write_all(head, strlen(head));
    write_all(place, sizeof(place));
}

Test(message_stream_shared, a_body_in_shared_memory_is_told_like_any_other)
{
    static const size_t sizes[] = {0, 1, 300000, MAX_BODY};
    struct shared_memory *own = share();
    int count = 0;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct shared_place place;
        char *body = shared_memory_reserve(own, sizes[i] + 1, &place);
        memset(body, 's', sizes[i]);
        body[sizes[i]] = 'x'; /* is not its */
        say_place("{\"place\":1}", place.at, sizes[i]);
        run_until(&messages, ++count);
        cr_assert_str_eq(last_head, "{\"place\":1}");
        cr_assert_eq(last_len, sizes[i]);
        cr_assert_eq(strspn(last_body, "s"), sizes[i]);
        cr_assert_eq(last_body[sizes[i]], '\0');
        say("{}", 3);
        run_until(&messages, ++count);
        cr_assert_str_eq(last_body, "bbb");
    }
    struct shared_place again;
    cr_assert_not_null(shared_memory_reserve(own, 1, &again));
    cr_assert_eq(again.at, 0, "all of them are done");
    shared_memory_free(own);
}

Test(message_stream_shared, one_turn_copies_no_more_than_an_area_has)
{
    enum { COUNT = 60 };
    struct shared_memory *own = share();
    for (int i = 0; i < COUNT; i++)
        say_place("{}", 0, MAX_BODY);
    say("{after}", 1);
    uv_run(&loop, UV_RUN_NOWAIT);
    cr_expect_leq(messages, (int)(SHARED_AREA_SIZE / MAX_BODY) + 1, "%d in one turn", messages);
    run_until(&messages, COUNT + 1);
    cr_assert_str_eq(last_head, "{after}");
    shared_memory_free(own);
}

Test(message_stream_shared, what_was_left_for_the_next_turn_is_told_before_the_end)
{
    enum { COUNT = 60 };
    struct shared_memory *own = share();
    for (int i = 0; i < COUNT; i++)
        say_place("{}", 0, MAX_BODY);
    shutdown(peer, SHUT_WR);
    run_until(&closed, 1);
    cr_assert_eq(messages, COUNT);
    shared_memory_free(own);
}

Test(message_stream_shared, a_shared_body_that_is_too_large_is_cut)
{
    struct shared_memory *own = share();
    say_place("{}", 0, MAX_BODY + 1);
    run_until(&messages, 1);
    cr_assert_eq(cut, 1);
    cr_assert_eq(last_len, 0);
    cr_assert_eq(closed, 0);
    shared_memory_free(own);
}

Test(message_stream_shared, a_stream_may_be_freed_by_a_message_from_shared_memory)
{
    struct shared_memory *own = share();
    free_in_message = true;
    say_place("{}", 0, 300000);
    run_until(&messages, 1);
    cr_assert_null(stream);
    shared_memory_free(own);
}

/* ---- told where they lie ---- */

static struct shared_memory *share_and_tell(enum told told)
{
    drop_stream();
    close(peer);
    uv_run(&loop, UV_RUN_DEFAULT);
    open_stream(told);
    return share();
}

static struct shared_memory *share_in_place(void)
{
    return told_from = share_and_tell(IN_PLACE);
}

static void tell_one_in_place(size_t len)
{
    struct shared_place place;
    memset(shared_memory_reserve(told_from, len, &place), 's', len);
    say_place("{\"place\":1}", place.at, len);
    run_until(&messages, messages + 1);
    cr_assert_str_eq(last_head, "{\"place\":1}");
    cr_assert_eq(last_len, len);
    cr_assert(told_in_place, "it was copied");
    cr_assert_not(done_too_soon, "it was done before it was told");
    cr_assert_eq(strspn(last_body, "s"), len);
    cr_assert_eq(last_body[len], '\0');
    cr_assert_not_null(shared_memory_reserve(told_from, SHARED_AREA_SIZE, &place),
                       "it is not done");
    shared_memory_done(message_stream_shared(stream), &place);
}

Test(message_stream_shared, a_body_in_shared_memory_is_told_where_it_lies_to_who_only_passes_it_on)
{
    struct shared_memory *own = share_in_place();
    tell_one_in_place(300000);
    tell_one_in_place(MAX_BODY);
    shared_memory_free(own);
}

Test(message_stream_shared, a_small_body_can_be_told_where_it_lies_and_a_large_one_is_there)
{
    struct shared_memory *own = share_in_place();
    say("{}", 3);
    run_until(&messages, 1);
    cr_assert(told_in_place);
    cr_assert_str_eq(last_body, "bbb");
    say("{}", MAX_BODY);
    run_until(&messages, 2);
    cr_assert_not(told_in_place, "it lies alone, and is the caller's without a copy");
    cr_assert_eq(strspn(last_body, "b"), MAX_BODY);
    shared_memory_free(own);
}

Test(message_stream_shared, a_body_that_is_told_where_it_lies_stands_without_the_stream)
{
    struct shared_memory *own = share_in_place();
    struct shared_place place;
    free_in_message = true;
    memset(shared_memory_reserve(own, 300000, &place), 's', 300000);
    say_place("{}", place.at, place.len);
    run_until(&messages, 1);
    cr_assert_null(stream);
    cr_assert_eq(strspn(last_body, "s"), 300000);
    shared_memory_free(own);
}

Test(message_stream_shared, a_body_that_would_be_told_where_it_lies_is_cut_when_it_is_too_large)
{
    struct shared_memory *own = share_in_place();
    say_place("{}", 0, MAX_BODY + 1);
    run_until(&messages, 1);
    cr_assert_eq(cut, 1);
    cr_assert_eq(last_len, 0);
    shared_memory_free(own);
}

/* ---- held there ---- */

static struct shared_place tell_one(struct shared_memory *own, size_t len)
{
    struct shared_place place;
    memset(shared_memory_reserve(own, len, &place), 's', len);
    say_place("{}", place.at, len);
    run_until(&messages, messages + 1);
    cr_assert_eq(last_len, len);
    return place;
}

/* Whether the place is free: room for all the rest was taken before. */
static bool is_free(struct shared_memory *own, const struct shared_place *place)
{
    struct shared_place got;
    bool found = shared_memory_reserve(own, place->len, &got);
    if (found)
        shared_memory_cancel(own, &got);
    return found && got.at == place->at;
}

Test(message_stream_shared, a_body_that_is_held_stays_where_it_is)
{
    struct shared_memory *own = share_and_tell(HELD);
    does = HOLD;
    struct shared_place place = tell_one(own, MAX_BODY);
    cr_assert_eq(last_held->bytes, last_told);
    cr_assert_eq(last_held->len, MAX_BODY - 1);
    cr_assert_not(is_free(own, &place));
    blob_unref(last_held);
    cr_assert(is_free(own, &place));
    shared_memory_free(own);
}

Test(message_stream_shared, a_body_that_is_held_stays_without_the_stream)
{
    struct shared_memory *own = share_and_tell(HELD);
    does = HOLD;
    free_in_message = true;
    tell_one(own, MAX_BODY);
    cr_assert_null(stream);
    shared_memory_free(own);
    cr_assert_eq(last_held->bytes[MAX_BODY - 2], 's');
    blob_unref(last_held);
}

Test(message_stream_shared, a_body_that_could_be_held_and_is_not_is_done_after_the_call)
{
    struct shared_memory *own = share_and_tell(HELD);
    struct shared_place place = tell_one(own, MAX_BODY);
    cr_assert(is_free(own, &place));
    cr_assert_eq(strspn(last_body, "s"), MAX_BODY);
    cr_assert_eq(last_body[MAX_BODY], '\0');
    shared_memory_free(own);
}

Test(message_stream_shared, a_body_is_copied_when_others_are_held_that_take_half_of_the_memory)
{
    enum { COUNT = SHARED_HELD_MAX / MAX_BODY };
    struct shared_memory *own = share_and_tell(HELD);
    struct blob *kept[COUNT];
    does = HOLD;
    for (int i = 0; i < COUNT; i++) {
        tell_one(own, MAX_BODY);
        kept[i] = last_held;
        cr_assert_not_null(kept[i]);
    }
    for (int i = 0; i < 20; i++) {
        struct shared_place place = tell_one(own, MAX_BODY);
        cr_assert_null(last_held);
        cr_assert(is_free(own, &place));
        cr_assert_eq(strspn(last_body, "s"), MAX_BODY);
    }
    for (int i = 0; i < COUNT; i++)
        blob_unref(kept[i]);
    tell_one(own, MAX_BODY);
    cr_assert_not_null(last_held);
    blob_unref(last_held);
    shared_memory_free(own);
}

/* Where the other end can change it, only a copy may be looked at closely. */
Test(message_stream_shared, a_body_that_is_told_where_it_lies_can_be_copied_during_the_call)
{
    struct shared_memory *own = share_and_tell(HELD);
    does = OWN;
    struct shared_place place = tell_one(own, MAX_BODY);
    cr_assert(is_free(own, &place));
    memset(shared_memory_reserve(own, MAX_BODY, &place), 'x', MAX_BODY);
    cr_assert_eq(strspn(last_body, "s"), MAX_BODY);
    cr_assert_eq(last_body[MAX_BODY], '\0');
    shared_memory_free(own);
}

Test(message_stream_shared, a_body_that_could_be_held_is_cut_when_it_is_too_large)
{
    struct shared_memory *own = share_and_tell(HELD);
    say_place("{}", 0, MAX_BODY + 1);
    run_until(&messages, 1);
    cr_assert_eq(cut, 1);
    cr_assert_eq(last_len, 0);
    shared_memory_free(own);
}

Test(message_stream_shared, a_place_outside_of_the_memory_ends_the_stream)
{
    struct shared_memory *own = share();
    say_place("{}", SHARED_AREA_SIZE - 10, 11);
    run_until(&closed, 1);
    cr_assert_eq(messages, 0);
    shared_memory_free(own);
}

Test(message_stream_shared, a_place_without_shared_memory_ends_the_stream)
{
    say_place("{}", 0, 10);
    run_until(&closed, 1);
    cr_assert_eq(messages, 0);
}

Test(message_stream_shared, a_place_of_another_size_ends_the_stream)
{
    struct shared_memory *own = share();
    char header[MESSAGE_HEADER_SIZE];
    message_header_write(header, 2, MESSAGE_PLACE_SIZE + 1);
    message_header_mark_shared(header);
    write_all(header, sizeof(header));
    run_until(&closed, 1);
    cr_assert_eq(messages, 0);
    shared_memory_free(own);
}

/* Sends a body of two parts; where it is then said to be, or SIZE_MAX: in the socket. */
static uint64_t send_shared(struct shared_memory *own, size_t len)
{
    static const char borrowed[] = "bbbbbbbbbb";
    char *owned = malloc(len);
    memset(owned, 'o', len);
    struct message_part parts[] = {{.bytes = owned, .len = len - 10, .owned = owned},
                                   {.bytes = NULL, .len = 0},
                                   {.bytes = borrowed, .len = 10}};
    cr_assert_eq(message_stream_send(stream, "{\"a\":1}", 7, parts, 3, NULL), 0);
    message_stream_push(stream);
    char *header = read_sent(MESSAGE_HEADER_SIZE);
    struct shared_place place = {.at = SIZE_MAX};
    bool marked = message_header_unmark_shared(header);
    char *rest = read_sent(7 + (marked ? MESSAGE_PLACE_SIZE : len));
    cr_assert_arr_eq(rest, "{\"a\":1}", 7);
    if (marked)
        message_place_read(rest + 7, &place.at, &place.len);
    const char *body = marked ? shared_memory_at(own, &place) : rest + 7;
    cr_assert_arr_eq(body + len - 12, "oobbbbbbbbbb", 12);
    free(header);
    free(rest);
    return place.at;
}

Test(message_stream_shared, large_bodies_are_sent_through_shared_memory_while_it_has_room)
{
    struct shared_memory *own = share();
    cr_assert_eq(send_shared(own, MAX_BODY), SIZE_MAX, "the other end has not said that it has it");
    message_stream_share_sending(stream);
    cr_assert_eq(send_shared(own, 1000), SIZE_MAX, "small ones go by the socket");
    struct shared_place places[SHARED_AREA_SIZE / MAX_BODY];
    size_t fit = sizeof(places) / sizeof(places[0]);
    for (size_t i = 0; i < fit; i++) {
        places[i] = (struct shared_place){send_shared(own, MAX_BODY), MAX_BODY};
        cr_assert(i == 0 || places[i].at >= places[i - 1].at + MAX_BODY);
        cr_assert_neq(places[i].at, SIZE_MAX);
    }
    cr_assert_eq(send_shared(own, MAX_BODY), SIZE_MAX, "it is full");
    shared_memory_done(own, &places[fit / 2]);
    cr_assert_eq(send_shared(own, MAX_BODY), places[fit / 2].at);
    message_stream_share(stream, NULL);
    cr_assert_eq(send_shared(own, MAX_BODY), SIZE_MAX);
    cr_assert_eq(closed, 0);
    shared_memory_free(own);
}

/* ---- bodies that are made in that memory ---- */

/* Sends it with 10 more bytes behind; where it is then said to be, or SIZE_MAX. */
static uint64_t send_room(struct shared_memory *own, const struct blob *body, size_t behind)
{
    char *more = malloc(behind);
    memset(more, 'm', behind);
    struct message_part parts[] = {{.bytes = body->bytes, .len = body->len},
                                   {.bytes = more, .len = behind, .owned = more}};
    cr_assert_eq(message_stream_send(stream, "{}", 2, parts, 2, NULL), 0);
    message_stream_push(stream);
    char *header = read_sent(MESSAGE_HEADER_SIZE);
    struct shared_place place = {.at = SIZE_MAX};
    bool marked = message_header_unmark_shared(header);
    char *rest = read_sent(2 + (marked ? MESSAGE_PLACE_SIZE : body->len + behind));
    if (marked)
        message_place_read(rest + 2, &place.at, &place.len);
    const char *sent = marked ? shared_memory_at(own, &place) : rest + 2;
    cr_assert(!marked || place.len == body->len + behind);
    cr_assert_arr_eq(sent, body->bytes, body->len);
    cr_assert_eq(sent[body->len], 'm');
    cr_assert_eq(sent[body->len + behind - 1], 'm');
    free(header);
    free(rest);
    return place.at;
}

static struct blob *make_room(size_t len, size_t spare)
{
    struct blob *body = message_stream_room(stream, len, spare);
    if (body)
        memset((char *)body->bytes, 'r', len);
    return body;
}

static struct shared_memory *share_sending(void)
{
    struct shared_memory *own = share();
    message_stream_share_sending(stream);
    return own;
}

Test(message_stream_shared, a_body_that_was_made_in_shared_memory_is_sent_from_where_it_lies)
{
    struct shared_memory *own = share_sending();
    struct blob *first = make_room(300000, 10), *second = make_room(300000, 10);
    struct shared_place place = {0, 300010};
    const char *there = first->bytes;
    cr_assert_eq(send_room(own, first, 10), 0);
    cr_assert_eq(send_room(own, second, 10), (uint64_t)(second->bytes - first->bytes));
    shared_memory_done(own, &place);
    cr_assert_neq(send_shared(own, 300000), 0, "it is kept still");
    blob_unref(first);
    first = make_room(300000, 10);
    cr_assert_eq(first->bytes, there);
    blob_unref(first);
    blob_unref(second);
    shared_memory_free(own);
}

Test(message_stream_shared, what_does_not_fit_behind_such_a_body_has_it_copied)
{
    struct shared_memory *own = share_sending();
    struct blob *body = make_room(300000, 10);
    cr_assert_gt(send_room(own, body, 300000), 0);
    cr_assert_eq(send_room(own, body, 10), 0, "it was not sent from there yet");
    blob_unref(body);
    shared_memory_free(own);
}

Test(message_stream_shared, such_a_body_goes_with_another_connection_when_its_own_is_gone)
{
    struct shared_memory *before = share_sending();
    struct blob *sent = make_room(300000, 10), *unsent = make_room(300000, 10);
    cr_assert_eq(send_room(before, sent, 10), 0);
    struct shared_memory *own = share_sending();
    cr_assert_eq(send_room(own, unsent, 10), 0);
    cr_assert_neq(send_room(own, sent, 10), SIZE_MAX);
    message_stream_share(stream, NULL);
    cr_assert_eq(send_room(own, sent, 10), SIZE_MAX);
    blob_unref(sent);
    blob_unref(unsent);
    shared_memory_free(before);
    shared_memory_free(own);
}

Test(message_stream_shared,
     there_is_no_room_for_small_bodies_nor_before_the_other_end_has_the_memory)
{
    cr_assert_null(make_room(300000, 0));
    struct shared_memory *own = share();
    cr_assert_null(make_room(300000, 0));
    message_stream_share_sending(stream);
    cr_assert_null(make_room(1000, 0));
    shared_memory_free(own);
}

/* ---- what one end shows ---- */

Test(message_stream_shared, a_body_that_is_shown_is_sent_from_where_it_was_received)
{
    struct shared_memory *own = shared_memory_new(NULL), *other = open_other(own);
    message_stream_share(stream, own);
    message_stream_share_sending(stream);
    cr_assert_null(make_room(MAX_BODY, 0), "the other end cannot read it");
    shared_memory_show(own);
    for (int i = 0; i < 50; i++) { /* more than there is room for at once */
        struct blob *body = make_room(MAX_BODY, 0);
        const char *bytes = body->bytes;
        struct message_part part = {.bytes = bytes, .len = MAX_BODY, .shared = body};
        cr_assert_eq(message_stream_send(stream, "{}", 2, &part, 1, NULL), 0);
        message_stream_push(stream);
        char *sent = read_sent(MESSAGE_HEADER_SIZE + 2 + MESSAGE_PLACE_SIZE);
        struct shared_place place;
        message_place_read(sent + MESSAGE_HEADER_SIZE + 2, &place.at, &place.len);
        cr_assert(message_header_unmark_shared(sent));
        cr_assert_eq(place.at, SHARED_AREA_SIZE);
        cr_assert_arr_eq(shared_memory_at(other, &place), bytes, MAX_BODY);
        shared_memory_done(other, &place);
        free(sent);
    }
    shared_memory_free(other);
}

Test(message_stream_shared, a_body_that_the_other_end_shows_is_told_where_it_lies)
{
    struct shared_memory *own = share_in_place();
    struct shared_place place;
    shared_memory_show(own);
    struct blob *body = shared_memory_room(own, SHARED_AREA_SIZE, 0);
    memset((char *)body->bytes, 's', 300000);
    cr_assert(shared_memory_is_room(own, body->bytes, 300000, &place));
    shared_memory_room_sent(own, &place);
    blob_unref(body);
    cr_assert_null(shared_memory_room(own, 1, 0));
    say_place("{\"place\":1}", place.at, place.len);
    run_until(&messages, 1);
    cr_assert(told_in_place);
    cr_assert_eq(last_len, 300000);
    cr_assert_eq(strspn(last_body, "s"), 300000);
    body = shared_memory_room(own, 1, 0);
    cr_assert_not_null(body, "it is not done");
    blob_unref(body);
    shared_memory_free(own);
}
