/* Who gets memory for large bodies, and when it is given back. */
#include "worker_fixture.h"

#include "base/blob.h"

#include <endian.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define BODY_MAX (1 << 20)

static struct instance *instance;
static struct function *function;
static struct invocation *last;
static int finished, gone;
static enum instance_after after;
static int area_fd = -1; /* as the adapter got it */
static char *area;

static void on_any(void *data, struct instance *which)
{
    (void)data;
    (void)which;
}

static void on_finished(void *data, struct instance *which, struct invocation *invocation,
                        enum instance_after how)
{
    (void)data;
    (void)which;
    (void)invocation;
    finished++;
    after = how;
}

static void on_gone(void *data, struct instance *which)
{
    (void)data;
    (void)which;
    gone++;
}

static void open_instance(bool share, int64_t memory_mb, uint32_t places)
{
    static const struct instance_events events = {
        .started = on_any, .ready = on_any, .finished = on_finished, .gone = on_gone};
    struct instance_limits limits = {.payload_max = BODY_MAX,
                                     .result_max = BODY_MAX,
                                     .log_max = 1000,
                                     .start_timeout_ms = 60000,
                                     .share_memory = share};
    struct error err = {0};
    fixture_open();
    function = fixture_function("alpha", memory_mb);
    function->spec.contract = CONTRACT_HANDLER;
    function->spec.concurrency = places;
    instance = instance_new(&loop, &fake_runtime, function, &limits, &events, NULL, &err);
    cr_assert_not_null(instance, "%s", err.message);
    settle();
    fake_say(&fakes[0], 1, FRAME_READY, places, "");
    settle();
    cr_assert_eq(instance_state(instance), INSTANCE_IDLE);
}

static void close_instance(void)
{
    instance_stop(instance);
    settle();
    cr_expect_eq(gone, 1);
    invocation_free(last);
    instance_free(instance);
    function_unref(function);
    if (area)
        munmap(area, BODY_MAX);
    if (area_fd >= 0)
        close(area_fd);
    fixture_close();
}

static char *room; /* what the next invocation's room() gives */
static int given_back;

static void give_back(void *data)
{
    free(data);
    given_back++;
}

static struct blob *on_room(void *data, struct invocation *invocation, size_t len)
{
    (void)data;
    cr_expect_eq(invocation, last);
    return room ? blob_new_lent(room, len, give_back, room) : NULL;
}

/* Gives it an invocation, and takes the frame as an adapter that asked for an area. */
static struct frame_header run(size_t payload_len)
{
    char *payload = malloc(payload_len + 1);
    struct frame_header header;
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec part = {&header, sizeof(header)};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes)};
    invocation_free(last);
    last = invocation_new("a", 1, "alpha", 1, NULL);
    last->timeout_ms = 60000;
    last->room = on_room;
    last->payload = memset(payload, '1', payload_len);
    last->payload_len = payload_len;
    instance_run(instance, last);
    settle();
    cr_assert_eq(recvmsg(fakes[0].fds[1], &message, MSG_DONTWAIT), (ssize_t)sizeof(header));
    struct cmsghdr *received = CMSG_FIRSTHDR(&message);
    if (received)
        memcpy(&area_fd, CMSG_DATA(received), sizeof(area_fd));
    return header;
}

/* What is left of the frame. */
static void skip(void)
{
    static char bytes[64 * 1024];
    do
        settle();
    while (recv(fakes[0].fds[1], bytes, sizeof(bytes), MSG_DONTWAIT) > 0);
}

static void answer(uint16_t flags, const void *body, uint32_t len)
{
    struct frame_header header = frame_header_make(FRAME_RESULT, flags, 0, 0, len);
    int before = finished;
    skip();
    cr_assert_eq(write(fakes[0].fds[1], &header, sizeof(header)), (ssize_t)sizeof(header));
    cr_assert_eq(write(fakes[0].fds[1], body, len), (ssize_t)len);
    settle();
    cr_assert_eq(finished, before + 1);
}

/* One that has an area, and has said so. */
static void open_with_area(void)
{
    open_instance(true, 128, 1);
    run(2);
    cr_expect_eq(area_fd, -1, "nobody has asked");
    answer(FRAME_FLAG_AREA, "1", 1);
    run(2);
    cr_assert_geq(area_fd, 0);
    area = mmap(NULL, BODY_MAX, PROT_READ | PROT_WRITE, MAP_SHARED, area_fd, 0);
    cr_assert_neq(area, MAP_FAILED);
    answer(FRAME_FLAG_AREA, "1", 1);
}

static long blocks(void)
{
    struct stat status;
    cr_assert_eq(fstat(area_fd, &status), 0);
    return (long)status.st_blocks;
}

Test(instance_area,
     one_that_asked_gets_it_with_the_next_invocation_and_payloads_in_it_once_it_has_it)
{
    open_with_area();
    struct frame_header header = run(BODY_MAX);
    cr_expect_eq(le16toh(header.flags), FRAME_FLAG_IN_AREA);
    cr_expect_eq(le32toh(header.body_len), 2 * FRAME_IN_AREA_LEN);
    cr_expect_eq(area[BODY_MAX - 1], '1');
    area[0] = area[300000 - 1] = '"';
    area[1] = '2';
    uint32_t len = htole32(300000);
    answer(FRAME_FLAG_IN_AREA, &len, sizeof(len));
    cr_expect_eq(after, INSTANCE_USABLE);
    cr_expect_eq(last->execution.status, EXECUTION_SUCCEEDED);
    cr_expect_eq(last->execution.result_len, 300000);
    cr_expect_eq(last->execution.result[1], '2');
    area[1] = '3';
    cr_expect_eq(last->execution.result[1], '2');
    header = run(100);
    cr_expect_eq(le16toh(header.flags), 0);
    answer(0, "1", 1);
    close_instance();
}

static void expect_room(const char *text, enum execution_status status, bool stays)
{
    uint32_t len = htole32(300000);
    room = malloc(300000);
    run(BODY_MAX);
    given_back = 0; /* that of the one before */
    memset(area, 'x', 300000);
    memcpy(area, text, 2);
    area[299999] = '"';
    answer(FRAME_FLAG_IN_AREA, &len, sizeof(len));
    cr_expect_eq(last->execution.status, status);
    cr_expect_eq(last->execution.result == room, stays);
    cr_expect_eq(given_back, !stays);
    if (status == EXECUTION_SUCCEEDED)
        cr_expect_eq(last->execution.result[last->execution.result_len - 1], '"');
}

Test(instance_area, a_result_goes_to_where_the_invocation_has_room_for_it)
{
    open_with_area();
    expect_room("\"x", EXECUTION_SUCCEEDED, true);
    cr_expect_eq(last->execution.result_len, 300000);
    expect_room("\"\t", EXECUTION_SUCCEEDED, false);
    cr_expect_eq(last->execution.result_len, 300001, "the tab is two characters now");
    expect_room("xx", EXECUTION_FAILED, false);
    close_instance();
}

Test(instance_area, room_for_a_result_is_given_back_when_it_does_not_come)
{
    open_with_area();
    room = malloc(300000);
    run(BODY_MAX);
    skip();
    struct frame_header header = frame_header_make(FRAME_RESULT, FRAME_FLAG_IN_AREA, 0, 0, 8);
    uint32_t len = htole32(300000);
    cr_assert_eq(write(fakes[0].fds[1], &header, sizeof(header)), (ssize_t)sizeof(header));
    cr_assert_eq(write(fakes[0].fds[1], &len, sizeof(len)), (ssize_t)sizeof(len));
    settle();
    instance_abort(last, EXECUTION_TIMED_OUT, "Function.TimedOut", "too long");
    cr_expect_null(last->execution.result);
    close_instance();
    cr_expect_eq(given_back, 1);
}

Test(instance_area, its_pages_are_given_back_when_it_is_frozen)
{
    struct error err = {0};
    open_with_area();
    run(BODY_MAX);
    answer(0, "1", 1);
    cr_expect_eq(blocks(), BODY_MAX / 512);
    cr_assert_eq(instance_freeze(instance, &err), 0);
    cr_expect_eq(blocks(), 0);
    run(BODY_MAX);
    cr_expect_eq(area[BODY_MAX - 1], '1');
    answer(0, "1", 1);
    close_instance();
}

Test(instance_area, one_that_has_not_said_that_it_has_it_gets_payloads_over_the_socket)
{
    open_instance(true, 128, 1);
    run(2);
    answer(FRAME_FLAG_AREA, "1", 1);
    run(2);
    cr_assert_geq(area_fd, 0);
    answer(0, "1", 1);
    struct frame_header header = run(300000);
    cr_expect_eq(le16toh(header.flags), 0);
    cr_expect_eq(le32toh(header.body_len), 300000);
    answer(0, "1", 1);
    close_instance();
}

static void expect_none(void)
{
    for (int i = 0; i < 3; i++) {
        run(2);
        answer(FRAME_FLAG_AREA, "1", 1);
    }
    cr_expect_eq(area_fd, -1);
    close_instance();
}

Test(instance_area, a_function_with_little_memory_gets_none)
{
    open_instance(true, 15, 1);
    expect_none();
}

Test(instance_area, several_calls_at_once_get_none)
{
    open_instance(true, 128, 2);
    expect_none();
}

Test(instance_area, a_worker_may_be_told_to_give_none)
{
    open_instance(false, 128, 1);
    expect_none();
}

Test(instance_area, a_length_that_it_does_not_have_ends_it)
{
    open_with_area();
    run(BODY_MAX);
    uint32_t len = htole32(UINT32_MAX);
    answer(FRAME_FLAG_IN_AREA, &len, sizeof(len));
    cr_expect_eq(last->execution.status, EXECUTION_FAILED);
    cr_expect_eq(after, INSTANCE_SPENT);
    close_instance();
}

Test(instance_area, what_is_not_json_in_it_is_a_failed_call)
{
    open_with_area();
    run(BODY_MAX);
    memset(area, '{', BODY_MAX);
    uint32_t len = htole32(BODY_MAX);
    answer(FRAME_FLAG_IN_AREA, &len, sizeof(len));
    cr_expect_str_eq(last->execution.error.type, "Function.InvalidResult");
    cr_expect_eq(after, INSTANCE_USABLE);
    close_instance();
}
