/* Frames over a socket pair, with a test as the instance. */
#include "json_ahead_fixture.h"

#include "base/blob.h"
#include "worker/body_area.h"
#include "worker/channel.h"

#include <criterion/criterion.h>
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define BODY_MAX 1000000

static uv_loop_t loop;
static struct channel *channel;
static int peer = -1;
static int frames, closed, too_large, seen_ahead;
static struct frame_header last;
static char last_meta[FRAME_META_MAX + 1];
static size_t body_sum;
static bool free_in_event;
static char *taken; /* the body, when take_in_event */
static size_t taken_len;
static bool take_in_event;
static char room[BODY_MAX]; /* what room() gives, when has_room */
static bool has_room, take_room;
static int given, given_back;

static void drop_channel(void)
{
    channel_free(channel);
    channel = NULL;
}

static void on_frame(void *data, const struct frame_header *header, const char *meta,
                     const char *body)
{
    (void)data;
    frames++;
    last = *header;
    seen_ahead += half_was_seen(channel_ahead(channel), body, header->body_len);
    strcpy(last_meta, meta);
    body_sum = 0;
    for (size_t i = 0; i < header->body_len; i++)
        body_sum += (unsigned char)body[i];
    if (take_in_event) {
        free(taken);
        taken = channel_take_body(channel, &taken_len);
    }
    if (take_room)
        blob_unref(channel_take_room(channel));
    if (free_in_event)
        drop_channel();
}

static void give_back(void *data)
{
    (void)data;
    given_back++;
}

static struct blob *on_room(void *data, size_t len)
{
    given += has_room;
    return has_room ? blob_new_lent(room, len, give_back, data) : NULL;
}

static void on_too_large(void *data, const struct frame_header *header, const char *meta)
{
    (void)data;
    (void)meta;
    (void)header;
    too_large++;
}

static void on_closed(void *data, const struct error *why)
{
    (void)data;
    cr_expect_gt(strlen(why->message), 0);
    closed++;
}

static void set_up(void)
{
    static const struct channel_events events = {
        .frame = on_frame, .too_large = on_too_large, .closed = on_closed, .room = on_room};
    int pair[2];
    struct error err = {0};
    uv_loop_init(&loop);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
    peer = pair[1];
    channel = channel_new(&loop, pair[0], FRAME_BIT(FRAME_READY) | FRAME_BIT(FRAME_RESULT),
                          BODY_MAX, &events, NULL, &err);
    cr_assert_not_null(channel, "%s", err.message);
}

static void tear_down(void)
{
    if (channel)
        drop_channel();
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_expect_eq(uv_loop_close(&loop), 0);
    if (peer >= 0)
        close(peer);
}

TestSuite(channel, .init = set_up, .fini = tear_down);

static void say(const void *bytes, size_t len)
{
    cr_assert_eq(write(peer, bytes, len), (ssize_t)len);
    uv_run(&loop, UV_RUN_NOWAIT);
}

static void say_header(enum frame_type type, uint32_t meta_len, uint32_t body_len)
{
    struct frame_header header = frame_header_make(type, 0, 42, meta_len, body_len);
    say(&header, sizeof(header));
}

Test(channel, a_frame_in_pieces_arrives_whole)
{
    struct frame_header header = frame_header_make(FRAME_RESULT, 0, 42, 2, 3);
    char bytes[sizeof(header) + 5];
    memcpy(bytes, &header, sizeof(header));
    memcpy(bytes + sizeof(header), "id\1\2\3", 5);
    for (size_t i = 0; i < sizeof(bytes); i++) {
        cr_assert_eq(frames, 0);
        say(bytes + i, 1);
    }
    cr_expect_eq(frames, 1);
    cr_expect_eq(last.value, 42);
    cr_expect_str_eq(last_meta, "id");
    cr_expect_eq(body_sum, 6);
}

Test(channel, several_frames_in_one_write_all_arrive)
{
    struct frame_header header = frame_header_make(FRAME_READY, 0, 0, 0, 0);
    char bytes[3 * sizeof(header)];
    for (int i = 0; i < 3; i++)
        memcpy(bytes + (size_t)i * sizeof(header), &header, sizeof(header));
    say(bytes, sizeof(bytes));
    cr_expect_eq(frames, 3);
}

Test(channel, a_body_over_the_cap_ends_it_before_it_is_read)
{
    say_header(FRAME_RESULT, 0, BODY_MAX + 1);
    cr_expect_eq(too_large, 1);
    cr_expect_eq(closed, 0);
    cr_expect_eq(frames, 0);
}

Test(channel, a_large_result_is_looked_at_while_it_comes)
{
    static char text[600000];
    memset(text, 'x', sizeof(text));
    text[0] = text[sizeof(text) - 1] = '"';
    say_header(FRAME_RESULT, 0, sizeof(text));
    for (size_t at = 0; at < sizeof(text); at += 50000)
        say(text + at, 50000);
    while (frames < 1)
        uv_run(&loop, UV_RUN_ONCE);
    cr_expect_eq(seen_ahead, 1);
    say_header(FRAME_RESULT, 0, 7);
    say("\"small\"", 7);
    cr_expect_eq(frames, 2);
    cr_expect_eq(seen_ahead, 1);
}

/* Whatever the pieces, and with the next frame in the last one. */
Test(channel, a_large_body_can_be_taken)
{
    static const size_t pieces[] = {1, 1000, 16 * 1024, 40000, 70000};
    struct frame_header header = frame_header_make(FRAME_RESULT, 0, 42, 0, BODY_MAX);
    struct frame_header next = frame_header_make(FRAME_READY, 0, 0, 0, 0);
    size_t len = sizeof(header) + BODY_MAX + sizeof(next);
    char *bytes = malloc(len);
    memcpy(bytes, &header, sizeof(header));
    for (size_t i = 0; i < BODY_MAX; i++)
        bytes[sizeof(header) + i] = (char)(i * 7);
    memcpy(bytes + len - sizeof(next), &next, sizeof(next));
    for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
        take_in_event = true;
        for (size_t at = 0; at < len; at += pieces[i])
            say(bytes + at, len - at < pieces[i] ? len - at : pieces[i]);
        while (frames < 2 * (int)(i + 1))
            uv_run(&loop, UV_RUN_ONCE);
        cr_assert_eq(taken_len, 0, "the frame behind it has no body");
        take_in_event = false;
        cr_assert_eq(closed, 0);
    }
    free(taken);
    take_in_event = true;
    taken = NULL;
    say(bytes, 100000);
    for (size_t at = 100000; at < len - sizeof(next); at += 50000)
        say(bytes + at, len - sizeof(next) - at < 50000 ? len - sizeof(next) - at : 50000);
    while (!taken)
        uv_run(&loop, UV_RUN_ONCE);
    cr_assert_eq(taken_len, BODY_MAX);
    cr_assert_eq(memcmp(taken, bytes + sizeof(header), BODY_MAX), 0);
    free(taken);
    free(bytes);
}

Test(channel, a_frame_that_is_not_expected_ends_it)
{
    say_header(FRAME_EXIT, 0, 0);
    cr_expect_eq(closed, 1);
    cr_expect_eq(frames, 0);
}

Test(channel, end_of_file_is_told_once)
{
    close(peer);
    peer = -1;
    uv_run(&loop, UV_RUN_NOWAIT);
    uv_run(&loop, UV_RUN_NOWAIT);
    cr_expect_eq(closed, 1);
}

Test(channel, it_may_be_freed_inside_of_an_event)
{
    struct frame_header header = frame_header_make(FRAME_READY, 0, 0, 0, 0);
    char bytes[2 * sizeof(header)];
    memcpy(bytes, &header, sizeof(header));
    memcpy(bytes + sizeof(header), &header, sizeof(header));
    free_in_event = true;
    say(bytes, sizeof(bytes));
    cr_expect_eq(frames, 1, "no event after the channel was freed");
}

Test(channel, a_large_body_is_sent_while_the_peer_reads)
{
    struct error err = {0};
    size_t len = 3000000, got = 0;
    char *body = malloc(len), *read_back = malloc(len + 100);
    for (size_t i = 0; i < len; i++)
        body[i] = (char)(i * 7);
    cr_assert_eq(channel_send(channel, FRAME_INVOKE, 5, "id", body, len, &err), 0, "%s",
                 err.message);
    cr_expect(channel_sending(channel));
    cr_expect_lt(channel_send(channel, FRAME_INVOKE, 5, "id", body, len, &err), 0);
    size_t total = sizeof(struct frame_header) + 2 + len;
    while (got < total) {
        ssize_t now = read(peer, read_back + got, total - got);
        if (now > 0)
            got += (size_t)now;
        uv_run(&loop, UV_RUN_NOWAIT);
    }
    cr_expect_not(channel_sending(channel));
    cr_expect_eq(memcmp(read_back + sizeof(struct frame_header) + 2, body, len), 0);
    free(body);
    free(read_back);
}

Test(channel, sending_to_a_peer_that_is_gone_fails)
{
    struct error err = {0};
    close(peer);
    peer = -1;
    cr_expect_lt(channel_send(channel, FRAME_INVOKE, 5, "id", "x", 1, &err), 0);
    cr_expect(channel_sending(channel), "so that the invocation may be tried elsewhere");
}

/* By the kernel, which is then kept from it, as one before Linux 6.16 is. */
Test(channel, a_descriptor_is_refused_and_one_that_comes_nevertheless_ends_it)
{
    static const int passes = 1;
    struct frame_header frame = frame_header_make(FRAME_READY, 0, 0, 0, 0);
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {.header = {.cmsg_level = SOL_SOCKET,
                            .cmsg_type = SCM_RIGHTS,
                            .cmsg_len = CMSG_LEN(sizeof(int))}};
    struct iovec part = {&frame, sizeof(frame)};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes)};
    int our_fd = -1;
    memcpy(CMSG_DATA(&control.header), &peer, sizeof(peer));
    cr_assert_eq(uv_fileno((uv_handle_t *)channel, &our_fd), 0); /* its first member */
    if (sendmsg(peer, &message, MSG_NOSIGNAL) < 0) {
        cr_assert_eq(errno, EPERM);
        say(&frame, sizeof(frame));
        cr_expect_eq(frames, 1);
        cr_assert_eq(
            setsockopt(our_fd, SOL_SOCKET, 83 /* SO_PASSRIGHTS */, &passes, sizeof(passes)), 0);
        cr_assert_eq(sendmsg(peer, &message, MSG_NOSIGNAL), (ssize_t)sizeof(frame));
    }
    int before = frames;
    uv_run(&loop, UV_RUN_NOWAIT);
    cr_expect_eq(closed, 1);
    cr_expect_eq(frames, before);
}

/* ---- memory of both sides ---- */

#define AREA_SIZE (BODY_MAX / 4096 * 4096 + 4096UL)

static char *theirs; /* the area as the peer has it */

/* Takes a frame with the area's descriptor, and maps it. */
static void receive_area(void)
{
    char bytes[1000];
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    int fd = -1;
    struct iovec part = {bytes, sizeof(bytes)};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes)};
    cr_assert_gt(recvmsg(peer, &message, MSG_CMSG_CLOEXEC), 0);
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    cr_assert(header && header->cmsg_type == SCM_RIGHTS);
    memcpy(&fd, CMSG_DATA(header), sizeof(fd));
    theirs = mmap(NULL, AREA_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    cr_assert_neq(theirs, MAP_FAILED);
    close(fd);
}

static void pass_area(void)
{
    struct error err = {0};
    struct body_area *area = body_area_new(AREA_SIZE, &err);
    cr_assert_not_null(area, "%s", err.message);
    channel_pass_area(channel, area);
    cr_assert_eq(channel_send(channel, FRAME_INVOKE, 5, "id", "{}", 2, &err), 0);
    cr_expect_eq(body_area_fd(area), -1, "the worker keeps no descriptor");
    receive_area();
}

static void say_in_area(enum frame_type type, uint32_t len)
{
    struct frame_header header = frame_header_make(type, FRAME_FLAG_IN_AREA, 0, 0, sizeof(len));
    char bytes[sizeof(header) + sizeof(len)];
    len = htole32(len);
    memcpy(bytes, &header, sizeof(header));
    memcpy(bytes + sizeof(header), &len, sizeof(len));
    say(bytes, sizeof(bytes));
}

Test(channel, a_result_in_the_area_is_the_frames_body)
{
    pass_area();
    memset(theirs, 'x', BODY_MAX);
    theirs[0] = theirs[BODY_MAX - 1] = '"';
    say_in_area(FRAME_RESULT, BODY_MAX);
    cr_expect_eq(frames, 1);
    cr_expect_eq(last.body_len, BODY_MAX);
    cr_expect_eq(body_sum, 2UL * '"' + (BODY_MAX - 2UL) * 'x');
    cr_expect_eq(seen_ahead, 1);
    say_in_area(FRAME_RESULT, 2);
    cr_expect_eq(frames, 2);
    cr_expect_eq(body_sum, (size_t)'"' + 'x');
    say_in_area(FRAME_RESULT, 0);
    cr_expect_eq(frames, 3);
    cr_expect_eq(closed + too_large, 0);
}

static void say_number(uint32_t number)
{
    number = htole32(number);
    say(&number, sizeof(number));
}

/* A result of 300,000 bytes in the area, with `numbers` of what is there. */
static void begin_in_area(uint32_t numbers)
{
    pass_area();
    memset(theirs, 'x', 300000);
    theirs[0] = theirs[299999] = '"';
    struct frame_header header = frame_header_make(FRAME_RESULT, FRAME_FLAG_IN_AREA, 0, 0,
                                                   FRAME_IN_AREA_LEN * (1 + numbers));
    say(&header, sizeof(header));
    say_number(300000);
}

Test(channel, a_result_in_the_area_is_taken_as_far_as_it_is_there)
{
    begin_in_area(4);
    say_number(100000);
    memset(theirs, 'y', 100000);
    say_number(100000);
    say_number(290000);
    memset(theirs, 'y', 290000);
    cr_expect_eq(frames, 0);
    say_number(300000);
    cr_expect_eq(frames, 1);
    cr_expect_eq(last.body_len, 300000);
    cr_expect_eq(body_sum, 2UL * '"' + 299998UL * 'x');
    cr_expect_eq(seen_ahead, 1);
    say_header(FRAME_RESULT, 0, 1);
    say("1", 1);
    cr_expect_eq(frames, 2);
    cr_expect_eq(body_sum, (size_t)'1');
}

Test(channel, numbers_that_come_byte_by_byte_are_taken)
{
    uint32_t number = htole32(300000);
    begin_in_area(1);
    for (size_t i = 0; i < sizeof(number); i++)
        say((char *)&number + i, 1);
    cr_expect_eq(frames, 1);
    cr_expect_eq(body_sum, 2UL * '"' + 299998UL * 'x');
}

Test(channel, a_number_below_the_one_before_ends_it)
{
    begin_in_area(3);
    say_number(100000);
    say_number(99999);
    cr_expect_eq(closed, 1);
    cr_expect_eq(frames, 0);
}

Test(channel, a_number_beyond_the_length_ends_it)
{
    begin_in_area(3);
    say_number(300001);
    cr_expect_eq(closed, 1);
    cr_expect_eq(frames, 0);
}

Test(channel, a_last_number_that_is_not_the_length_ends_it)
{
    begin_in_area(1);
    say_number(299999);
    cr_expect_eq(closed, 1);
    cr_expect_eq(frames, 0);
}

Test(channel, a_result_in_the_area_is_copied_to_where_there_is_room_for_it)
{
    has_room = take_room = true;
    room[300000] = 'z';
    begin_in_area(2);
    say_number(100000);
    cr_expect_eq(room[99999], 'x');
    cr_expect_eq(room[100000], '\0');
    memset(theirs, 'y', 100000);
    say_number(300000);
    cr_expect_eq(frames, 1);
    cr_expect_eq(body_sum, 2UL * '"' + 299998UL * 'x');
    cr_expect_eq(room[299999], '"');
    cr_expect_eq(room[300000], 'z', "nothing is written behind it");
    cr_expect_eq(seen_ahead, 1);
    cr_expect_eq(given_back, 1, "by whom it was taken");
    has_room = false;
    say_in_area(FRAME_RESULT, 300000);
    cr_expect_eq(frames, 2);
    has_room = true;
    say_in_area(FRAME_RESULT, 5);
    cr_expect_eq(given, 1, "small ones need none");
    cr_expect_eq(frames, 3);
}

Test(channel, room_that_nobody_took_is_given_back)
{
    has_room = true;
    begin_in_area(1);
    say_number(300000);
    say_in_area(FRAME_RESULT, 300000);
    cr_expect_eq(given, 2);
    cr_expect_eq(given_back, 1);
    drop_channel();
    cr_expect_eq(given_back, 2);
}

Test(channel, room_for_a_result_that_does_not_come_is_given_back)
{
    has_room = true;
    begin_in_area(3);
    say_number(100000);
    drop_channel();
    cr_expect_eq(given, 1);
    cr_expect_eq(given_back, 1);
}

Test(channel, what_is_written_to_the_area_later_does_not_change_a_body)
{
    pass_area();
    memset(theirs, 'x', 300000);
    take_in_event = true;
    say_in_area(FRAME_RESULT, 300000);
    memset(theirs, 'y', 300000);
    cr_assert_eq(taken_len, 300000);
    cr_expect_null(memchr(taken, 'y', taken_len));
    cr_expect_eq(taken[taken_len], '\0');
    free(taken);
}

Test(channel, a_result_in_an_area_that_was_not_passed_ends_it)
{
    say_in_area(FRAME_RESULT, 5);
    cr_expect_eq(closed, 1);
    cr_expect_eq(frames, 0);
}

Test(channel, a_result_over_the_cap_in_the_area_is_too_large)
{
    pass_area();
    say_in_area(FRAME_RESULT, BODY_MAX + 1);
    cr_expect_eq(too_large, 1);
    cr_expect_eq(closed + frames, 0);
}

Test(channel, a_result_beyond_the_area_ends_it)
{
    struct error err = {0};
    struct body_area *area = body_area_new(4096, &err);
    channel_pass_area(channel, area);
    cr_assert_eq(channel_send(channel, FRAME_INVOKE, 5, "id", "{}", 2, &err), 0);
    say_in_area(FRAME_RESULT, 4097);
    cr_expect_eq(closed, 1);
    cr_expect_eq(frames + too_large, 0);
}

Test(channel, a_ready_in_the_area_ends_it)
{
    pass_area();
    say_in_area(FRAME_READY, 0);
    cr_expect_eq(closed, 1);
    cr_expect_eq(frames, 0);
}

/* The flags and the length of the frame that comes; `ret_len`: of its body in the frame. */
static uint16_t sent_flags(char *body, size_t max, size_t *ret_len)
{
    struct frame_header header;
    char meta[3] = "";
    cr_assert_eq(recv(peer, &header, sizeof(header), MSG_WAITALL), (ssize_t)sizeof(header));
    cr_assert_eq(recv(peer, meta, le32toh(header.meta_len), MSG_WAITALL), 2);
    cr_expect_str_eq(meta, "id");
    *ret_len = le32toh(header.body_len);
    ssize_t got = recv(peer, body, *ret_len < max ? *ret_len : max, 0);
    cr_assert_gt(got, 0);
    return le16toh(header.flags);
}

Test(channel, a_large_body_goes_through_the_area_once_the_peer_has_it)
{
    struct error err = {0};
    size_t len;
    uint32_t numbers[2];
    char *body = malloc(BODY_MAX);
    for (size_t i = 0; i < BODY_MAX; i++)
        body[i] = (char)(i * 7);
    channel_use_area(channel);
    cr_assert_eq(channel_send(channel, FRAME_INVOKE, 5, "id", "{}", 2, &err), 0);
    cr_expect_eq(sent_flags((char *)numbers, sizeof(numbers), &len), 0, "there is none yet");
    pass_area();
    channel_use_area(channel);
    cr_assert_eq(channel_send(channel, FRAME_INVOKE, 5, "id", body, BODY_MAX, &err), 0);
    cr_expect_not(channel_sending(channel));
    cr_expect_eq(sent_flags((char *)numbers, sizeof(numbers), &len), FRAME_FLAG_IN_AREA);
    cr_expect_eq(len, sizeof(numbers));
    cr_expect_eq(le32toh(numbers[0]), BODY_MAX);
    cr_expect_eq(le32toh(numbers[1]), BODY_MAX);
    cr_expect_eq(memcmp(theirs, body, BODY_MAX), 0);
    cr_assert_eq(channel_send(channel, FRAME_INVOKE, 5, "id", body, 1000, &err), 0);
    cr_expect_eq(sent_flags(body, BODY_MAX, &len), 0, "a small one");
    cr_expect_eq(len, 1000);
    free(body);
}

/* The peer reads nothing: what it is told waits, and the body is there nevertheless. */
Test(channel, numbers_that_the_socket_does_not_take_follow)
{
    struct error err = {0};
    static char body[BODY_MAX], filler[4096];
    uint32_t numbers[2];
    size_t len, filled = 0;
    int size = 4096, our_fd = -1;
    pass_area();
    channel_use_area(channel);
    cr_assert_eq(uv_fileno((uv_handle_t *)channel, &our_fd), 0); /* its first member */
    cr_assert_eq(setsockopt(our_fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)), 0);
    for (ssize_t put; (put = send(our_fd, filler, 1, MSG_DONTWAIT)) > 0;)
        filled += (size_t)put;
    memset(body, 'b', sizeof(body));
    cr_assert_eq(channel_send(channel, FRAME_INVOKE, 5, "id", body, BODY_MAX, &err), 0);
    cr_expect(channel_sending(channel));
    cr_expect_eq(theirs[BODY_MAX - 1], 'b');
    while (filled > 0) {
        ssize_t got = recv(peer, filler, filled < sizeof(filler) ? filled : sizeof(filler), 0);
        cr_assert_gt(got, 0);
        filled -= (size_t)got;
    }
    while (channel_sending(channel))
        uv_run(&loop, UV_RUN_ONCE);
    cr_expect_eq(sent_flags((char *)numbers, sizeof(numbers), &len), FRAME_FLAG_IN_AREA);
    cr_expect_eq(len, sizeof(numbers));
    cr_expect_eq(le32toh(numbers[1]), BODY_MAX);
}
