/* Messages over a socket pair, with a test as the other side. */
#include "json_ahead_fixture.h"

#include "base/blob.h"
#include "base/buffer.h"
#include "base/message_stream.h"
#include "base/shared_memory.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_BODY 1000000

struct pair_stream {
    struct byte_stream stream; /* first member */
    size_t sends;
};

static uv_loop_t loop;
static struct pair_stream pair;
static struct message_stream *stream;
static int peer = -1;
static int messages, closed, settled, cut, seen_ahead;
static char last_head[100];
static char *last_body; /* taken */
static size_t last_len;
static bool free_in_message, answer_when_settled;
static struct shared_memory *told_from; /* NULL: no message tells a body where it lies */
static bool told_in_place, done_too_soon;
static enum { TAKE, HOLD, OWN } does; /* with a body */
static struct blob *last_held;        /* owned */
static const char *last_told;
/* Above the socket, as TLS has what is left of a record; handed out a message at a time. */
static char held[64][MESSAGE_HEADER_SIZE + 1];
static size_t held_count;

static ssize_t pair_receive(struct byte_stream *base, void *to, size_t max)
{
    ssize_t got = recv(base->fd, to, max, MSG_DONTWAIT);
    if (got >= 0 || held_count == 0)
        return got;
    cr_assert_geq(max, sizeof(held[0]));
    memcpy(to, held[--held_count], sizeof(held[0]));
    return sizeof(held[0]);
}

static ssize_t pair_send(struct byte_stream *base, const void *from, size_t len)
{
    pair.sends++;
    return send(base->fd, from, len, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void pair_close(struct byte_stream *base)
{
    close(base->fd);
}

static void drop_stream(void)
{
    message_stream_free(stream);
    stream = NULL;
}

/* What is there of the body is read last: it must stand until the end of the call. */
static void see_in_place(struct message_in *in)
{
    struct shared_place place;
    const char *from;
    last_body = message_take_room(in, &from);
    told_in_place = from == in->message.body;
    done_too_soon = shared_memory_reserve(told_from, SHARED_AREA_SIZE, &place);
    if (free_in_message)
        drop_stream();
    if (from)
        memcpy(last_body, from, in->message.body_len);
}

static void on_message(void *data, struct message_in *in)
{
    (void)data;
    messages++;
    seen_ahead += half_was_seen(in->message.ahead, in->message.body, in->message.body_len);
    cut += in->cut;
    last_len = in->message.body_len;
    snprintf(last_head, sizeof(last_head), "%.*s", (int)in->message.head_len, in->message.head);
    free(last_body);
    last_body = NULL;
    last_told = in->message.body;
    if (told_from) {
        see_in_place(in);
        return;
    }
    if (does == HOLD && (last_held = message_hold(in, in->message.body_len - 1))) {
        if (free_in_message)
            drop_stream();
        return;
    }
    if (does == OWN)
        cr_assert_eq(message_own_body(in, NULL), 0);
    last_body = message_take_body(in);
    if (free_in_message)
        drop_stream();
}

static void on_settled(void *data)
{
    (void)data;
    settled++;
    if (answer_when_settled) {
        cr_expect_eq(message_stream_send(stream, "{}", 2, NULL, 0, NULL), 0);
        message_stream_push(stream);
    }
}

static void on_closed(void *data, const struct error *why)
{
    (void)data;
    cr_expect_gt(strlen(why->message), 0);
    closed++;
}

enum told { COPIED, IN_PLACE, HELD };

static void open_stream(enum told told)
{
    struct message_stream_options options = {.max_body = MAX_BODY,
                                             .max_queued = 4 * MAX_BODY,
                                             .json_bodies = true,
                                             .shared_in_place = told == IN_PLACE,
                                             .shared_held = told == HELD,
                                             .message = on_message,
                                             .settled = on_settled,
                                             .closed = on_closed};
    int ends[2];
    struct error err = {0};
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    pair = (struct pair_stream){
        .stream = {.receive = pair_receive, .send = pair_send, .close = pair_close, .fd = ends[0]}};
    peer = ends[1];
    stream = message_stream_new(&loop, &pair.stream, &options, &err);
    cr_assert_not_null(stream, "%s", err.message);
}

static void set_up(void)
{
    messages = closed = settled = cut = seen_ahead = 0;
    last_body = NULL;
    free_in_message = answer_when_settled = false;
    told_from = NULL;
    last_held = NULL;
    does = TAKE;
    held_count = 0;
    uv_loop_init(&loop);
    open_stream(COPIED);
}

static void tear_down(void)
{
    drop_stream();
    close(peer);
    free(last_body);
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_expect_eq(uv_loop_close(&loop), 0);
}

TestSuite(message_stream, .init = set_up, .fini = tear_down);

static void write_all(const char *bytes, size_t len)
{
    while (len > 0) {
        ssize_t written = send(peer, bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (written < 0) {
            cr_assert_eq(errno, EAGAIN);
            uv_run(&loop, UV_RUN_NOWAIT);
            continue;
        }
        bytes += written;
        len -= (size_t)written;
    }
}

static void say_body(const char *head, const char *body, size_t body_len)
{
    char header[MESSAGE_HEADER_SIZE];
    message_header_write(header, strlen(head), body_len);
    write_all(header, sizeof(header));
    write_all(head, strlen(head));
    write_all(body, body_len);
}

static void say(const char *head, size_t body_len)
{
    char *body = malloc(body_len + 1);
    memset(body, 'b', body_len);
    say_body(head, body, body_len);
    free(body);
}

static void run_until(const int *counter, int count)
{
    while (*counter < count)
        uv_run(&loop, UV_RUN_ONCE);
}

/* Everything that the stream sends until `len` bytes are here. */
static char *read_sent(size_t len)
{
    char *bytes = malloc(len + 1);
    size_t have = 0;
    while (have < len) {
        ssize_t got = recv(peer, bytes + have, len - have, MSG_DONTWAIT);
        if (got > 0)
            have += (size_t)got;
        else
            uv_run(&loop, UV_RUN_NOWAIT);
    }
    return bytes;
}

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

Test(message_stream, a_body_in_shared_memory_is_told_like_any_other)
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

Test(message_stream, one_turn_copies_no_more_than_an_area_has)
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

Test(message_stream, what_was_left_for_the_next_turn_is_told_before_the_end)
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

Test(message_stream, a_shared_body_that_is_too_large_is_cut)
{
    struct shared_memory *own = share();
    say_place("{}", 0, MAX_BODY + 1);
    run_until(&messages, 1);
    cr_assert_eq(cut, 1);
    cr_assert_eq(last_len, 0);
    cr_assert_eq(closed, 0);
    shared_memory_free(own);
}

Test(message_stream, a_stream_may_be_freed_by_a_message_from_shared_memory)
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

Test(message_stream, a_body_in_shared_memory_is_told_where_it_lies_to_who_only_passes_it_on)
{
    struct shared_memory *own = share_in_place();
    tell_one_in_place(300000);
    tell_one_in_place(MAX_BODY);
    shared_memory_free(own);
}

Test(message_stream, a_small_body_can_be_told_where_it_lies_and_a_large_one_is_there)
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

Test(message_stream, a_body_that_is_told_where_it_lies_stands_without_the_stream)
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

Test(message_stream, a_body_that_would_be_told_where_it_lies_is_cut_when_it_is_too_large)
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

Test(message_stream, a_body_that_is_held_stays_where_it_is)
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

Test(message_stream, a_body_that_is_held_stays_without_the_stream)
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

Test(message_stream, a_body_that_could_be_held_and_is_not_is_done_after_the_call)
{
    struct shared_memory *own = share_and_tell(HELD);
    struct shared_place place = tell_one(own, MAX_BODY);
    cr_assert(is_free(own, &place));
    cr_assert_eq(strspn(last_body, "s"), MAX_BODY);
    cr_assert_eq(last_body[MAX_BODY], '\0');
    shared_memory_free(own);
}

Test(message_stream, a_body_is_copied_when_others_are_held_that_take_half_of_the_memory)
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
Test(message_stream, a_body_that_is_told_where_it_lies_can_be_copied_during_the_call)
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

Test(message_stream, a_body_that_could_be_held_is_cut_when_it_is_too_large)
{
    struct shared_memory *own = share_and_tell(HELD);
    say_place("{}", 0, MAX_BODY + 1);
    run_until(&messages, 1);
    cr_assert_eq(cut, 1);
    cr_assert_eq(last_len, 0);
    shared_memory_free(own);
}

Test(message_stream, a_place_outside_of_the_memory_ends_the_stream)
{
    struct shared_memory *own = share();
    say_place("{}", SHARED_AREA_SIZE - 10, 11);
    run_until(&closed, 1);
    cr_assert_eq(messages, 0);
    shared_memory_free(own);
}

Test(message_stream, a_place_without_shared_memory_ends_the_stream)
{
    say_place("{}", 0, 10);
    run_until(&closed, 1);
    cr_assert_eq(messages, 0);
}

Test(message_stream, a_place_of_another_size_ends_the_stream)
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

Test(message_stream, large_bodies_are_sent_through_shared_memory_while_it_has_room)
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

Test(message_stream, a_body_that_was_made_in_shared_memory_is_sent_from_where_it_lies)
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

Test(message_stream, what_does_not_fit_behind_such_a_body_has_it_copied)
{
    struct shared_memory *own = share_sending();
    struct blob *body = make_room(300000, 10);
    cr_assert_gt(send_room(own, body, 300000), 0);
    cr_assert_eq(send_room(own, body, 10), 0, "it was not sent from there yet");
    blob_unref(body);
    shared_memory_free(own);
}

Test(message_stream, such_a_body_goes_with_another_connection_when_its_own_is_gone)
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

Test(message_stream, there_is_no_room_for_small_bodies_nor_before_the_other_end_has_the_memory)
{
    cr_assert_null(make_room(300000, 0));
    struct shared_memory *own = share();
    cr_assert_null(make_room(300000, 0));
    message_stream_share_sending(stream);
    cr_assert_null(make_room(1000, 0));
    shared_memory_free(own);
}

/* ---- what one end shows ---- */

Test(message_stream, a_body_that_is_shown_is_sent_from_where_it_was_received)
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

Test(message_stream, a_body_that_the_other_end_shows_is_told_where_it_lies)
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
