/* Memory between two ends; here both are in one process. */
#include "base/buffer.h"
#include "base/shared_memory.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIECE ((size_t)64 * 1024)

static struct shared_memory *maker, *opener;

static char *offer_text(const struct shared_memory *memory)
{
    struct buffer text = BUFFER_INIT(1000);
    struct json_writer *writer = json_writer_new(&text);
    size_t len;
    shared_memory_offer(memory, writer);
    cr_assert_eq(json_writer_finish(writer, NULL), 0);
    return buffer_take(&text, &len);
}

static struct shared_memory *open_text(const char *text, struct error *err)
{
    struct json *offer = json_parse(text, strlen(text), NULL, NULL);
    cr_assert_not_null(offer);
    struct shared_memory *memory = shared_memory_open(offer, err);
    json_free(offer);
    return memory;
}

static void set_up(void)
{
    struct error err = {0};
    maker = shared_memory_new(&err);
    cr_assert_not_null(maker, "%s", err.message);
    char *text = offer_text(maker);
    opener = open_text(text, &err);
    cr_assert_not_null(opener, "%s", err.message);
    free(text);
}

static void tear_down(void)
{
    shared_memory_free(maker);
    shared_memory_free(opener);
}

TestSuite(shared_memory, .init = set_up, .fini = tear_down);

Test(shared_memory, bodies_go_both_ways)
{
    struct shared_place there, back;
    strcpy(shared_memory_reserve(maker, 10, &there), "there");
    strcpy(shared_memory_reserve(opener, 10, &back), "back");
    cr_assert_str_eq(shared_memory_at(opener, &there), "there");
    cr_assert_str_eq(shared_memory_at(maker, &back), "back");
}

Test(shared_memory, an_area_that_is_full_takes_nothing_until_something_is_done)
{
    struct shared_place first, second, third;
    cr_assert_null(shared_memory_reserve(maker, SHARED_AREA_SIZE + 1, &first));
    cr_assert_null(shared_memory_reserve(maker, SIZE_MAX, &first));
    cr_assert_not_null(shared_memory_reserve(maker, SHARED_AREA_SIZE - PIECE, &first));
    cr_assert_not_null(shared_memory_reserve(maker, 10, &second));
    cr_assert_eq(second.at, SHARED_AREA_SIZE - PIECE);
    cr_assert_null(shared_memory_reserve(maker, 1, &third));
    shared_memory_done(opener, &second);
    cr_assert_null(shared_memory_reserve(maker, PIECE + 1, &third));
    cr_assert_not_null(shared_memory_reserve(maker, PIECE, &third));
    cr_assert_eq(third.at, second.at);
    shared_memory_done(opener, &first);
    cr_assert_not_null(shared_memory_reserve(maker, SHARED_AREA_SIZE - PIECE, &third));
    cr_assert_eq(third.at, 0);
}

/* The first of four stays: what is behind it is used again, whichever way it is given back. */
Test(shared_memory, places_are_given_back_in_any_order)
{
    static const int orders[][3] = {{1, 2, 3}, {3, 2, 1}, {2, 1, 3}, {2, 3, 1}, {3, 1, 2}};
    const size_t quarter = SHARED_AREA_SIZE / 4;
    struct shared_place places[4], whole;
    cr_assert_not_null(shared_memory_reserve(maker, quarter, &places[0]));
    for (size_t i = 0; i < sizeof(orders) / sizeof(orders[0]); i++) {
        for (int j = 1; j < 4; j++)
            cr_assert_not_null(shared_memory_reserve(maker, quarter - 5, &places[j]));
        cr_assert_null(shared_memory_reserve(maker, 1, &whole));
        for (int j = 0; j < 3; j++) {
            cr_assert_null(shared_memory_reserve(maker, 3 * quarter, &whole));
            shared_memory_done(opener, &places[orders[i][j]]);
        }
        cr_assert_not_null(shared_memory_reserve(maker, 3 * quarter, &whole), "order %zu", i);
        cr_assert_eq(whole.at, quarter);
        shared_memory_done(opener, &whole);
    }
}

Test(shared_memory, what_is_used_does_not_overlap)
{
    struct shared_place places[8];
    char *at[8];
    for (int i = 0; i < 8; i++) {
        at[i] = shared_memory_reserve(maker, PIECE + 1, &places[i]);
        memset(at[i], 'a' + i, PIECE + 1);
    }
    for (int i = 0; i < 8; i += 2)
        shared_memory_done(opener, &places[i]);
    for (int i = 0; i < 8; i += 2)
        memset(shared_memory_reserve(maker, 2 * PIECE, &places[i]), 'A', 2 * PIECE);
    for (int i = 1; i < 8; i += 2)
        for (size_t j = 0; j <= PIECE; j++)
            cr_assert_eq(at[i][j], 'a' + i);
}

Test(shared_memory, a_place_that_was_reserved_can_be_cancelled)
{
    struct shared_place first, second;
    cr_assert_not_null(shared_memory_reserve(maker, SHARED_AREA_SIZE, &first));
    cr_assert_null(shared_memory_reserve(maker, 1, &second));
    shared_memory_cancel(maker, &first);
    cr_assert_not_null(shared_memory_reserve(maker, SHARED_AREA_SIZE, &second));
}

Test(shared_memory, what_is_said_to_be_done_counts_for_one_place_only)
{
    struct shared_place first, second;
    cr_assert_not_null(shared_memory_reserve(maker, 10, &first));
    shared_memory_done(opener, &first);
    shared_memory_done(opener, &first);
    cr_assert_not_null(shared_memory_reserve(maker, 10, &first));
    cr_assert_not_null(shared_memory_reserve(maker, 10, &second));
    cr_assert_neq(first.at, second.at, "the second word was about the place before");
}

Test(shared_memory, it_stays_for_who_holds_it_longer)
{
    struct shared_place place;
    struct shared_memory *longer = shared_memory_ref(opener);
    memset(shared_memory_reserve(maker, 10, &place), 'l', 10);
    shared_memory_free(opener);
    opener = NULL;
    cr_assert_eq(*shared_memory_at(longer, &place), 'l');
    shared_memory_done(longer, &place);
    shared_memory_free(longer);
    cr_assert_not_null(shared_memory_reserve(maker, SHARED_AREA_SIZE, &place));
}

/* ---- bodies that are held ---- */

static struct blob *hold(const char *text, size_t len, struct shared_place *place)
{
    strcpy(shared_memory_reserve(maker, len, place), text);
    return shared_memory_hold(opener, place, strlen(text));
}

Test(shared_memory, what_is_held_stays_where_it_is_until_nobody_holds_it)
{
    struct shared_place place, other;
    struct blob *held = hold("held", SHARED_HELD_MAX, &place);
    cr_assert_eq(held->bytes, shared_memory_at(opener, &place), "it was copied");
    cr_assert_eq(held->len, 4);
    cr_assert(held->foreign);
    struct blob *again = blob_ref(held);
    blob_unref(held);
    cr_assert_not_null(shared_memory_reserve(maker, SHARED_AREA_SIZE / 2, &other));
    cr_assert_null(shared_memory_reserve(maker, 1, &other), "somebody holds it");
    blob_unref(again);
    cr_assert_not_null(shared_memory_reserve(maker, SHARED_HELD_MAX, &other));
    cr_assert_eq(other.at, place.at);
}

Test(shared_memory, what_is_held_stays_when_both_ends_are_gone)
{
    struct shared_place place;
    struct blob *held = hold("held", 1000, &place);
    tear_down();
    maker = opener = NULL;
    cr_assert_arr_eq(held->bytes, "held", 4);
    blob_unref(held);
}

Test(shared_memory, no_more_than_half_is_held_and_the_rest_is_not_done)
{
    struct shared_place first, second, third;
    struct blob *held = hold("first", SHARED_HELD_MAX - 10, &first);
    cr_assert(shared_memory_may_hold(opener, 10));
    cr_assert_not(shared_memory_may_hold(opener, 11));
    cr_assert_not(shared_memory_may_hold(opener, SIZE_MAX));
    cr_assert_null(hold("second", 11, &second));
    cr_assert_not_null(shared_memory_reserve(maker, SHARED_AREA_SIZE / 2 - PIECE, &third));
    cr_assert_null(shared_memory_reserve(maker, 1, &third), "the second is done");
    blob_unref(held);
    held = shared_memory_hold(opener, &second, second.len);
    cr_assert_not_null(held, "what was given back still counts");
    blob_unref(held);
    cr_assert(shared_memory_may_hold(opener, SHARED_HELD_MAX));
}

static void *let_go(void *held)
{
    blob_unref(held);
    return NULL;
}

Test(shared_memory, what_is_held_is_given_back_from_any_thread)
{
    struct shared_place place;
    pthread_t thread;
    struct blob *held = hold("held", SHARED_HELD_MAX, &place);
    cr_assert_eq(pthread_create(&thread, NULL, let_go, held), 0);
    pthread_join(thread, NULL);
    cr_assert_not_null(shared_memory_reserve(maker, SHARED_AREA_SIZE, &place));
}

Test(shared_memory, a_place_outside_is_refused)
{
    static const struct shared_place outside[] = {{0, SHARED_AREA_SIZE + 1},
                                                  {2 * SHARED_AREA_SIZE, 1},
                                                  {2 * SHARED_AREA_SIZE, 0},
                                                  {2 * SHARED_AREA_SIZE - PIECE, PIECE + 1},
                                                  {SHARED_AREA_SIZE + 1, 1},
                                                  {PIECE, SHARED_AREA_SIZE},
                                                  {1, 1},
                                                  {PIECE - 1, 1},
                                                  {UINT64_MAX, 2},
                                                  {PIECE, UINT64_MAX}};
    for (size_t i = 0; i < sizeof(outside) / sizeof(outside[0]); i++)
        cr_assert_null(shared_memory_at(opener, &outside[i]), "number %zu", i);
    cr_assert_not_null(shared_memory_at(opener, &(struct shared_place){0, SHARED_AREA_SIZE}));
    struct shared_place shown = {SHARED_AREA_SIZE, SHARED_AREA_SIZE};
    cr_assert_not_null(shared_memory_at(opener, &shown));
    cr_assert_null(shared_memory_at(maker, &shown), "the opener shows nothing");
}

Test(shared_memory, what_was_withdrawn_cannot_be_opened)
{
    struct error err = {0};
    char *text = offer_text(maker);
    shared_memory_withdraw(maker);
    cr_assert_null(open_text(text, &err));
    cr_assert_eq(err.code, ERROR_NOT_FOUND);
    free(text);
}

static void expect_refused(int fd, const char *proof, const char *words)
{
    char text[200];
    struct error err = {0};
    snprintf(text, sizeof(text), "{\"pid\": %d, \"fd\": %d, \"proof\": \"%s\"}", getpid(), fd,
             proof);
    cr_assert_null(open_text(text, &err));
    cr_assert(strstr(err.message, words), "%s", err.message);
}

Test(shared_memory, what_is_no_such_memory_is_refused)
{
    static const char proof[] = "0123456789abcdef0123456789abcdef";
    struct error err = {0};
    int plain = open("/proc/self/exe", O_RDONLY);
    int unsealed = memfd_create("unsealed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    cr_assert_eq(ftruncate(unsealed, 4096 + 2 * SHARED_AREA_SIZE), 0);
    int small = memfd_create("small", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    cr_assert_eq(fcntl(small, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), 0);
    expect_refused(plain, proof, "no memory that can be shared");
    expect_refused(unsealed, proof, "no memory that can be shared");
    expect_refused(small, proof, "no memory that can be shared");
    expect_refused(1 << 20, proof, "cannot open");
    cr_assert_null(open_text("{}", &err));
    cr_assert_null(open_text("{\"pid\": \"x\", \"fd\": []}", &err));
    cr_assert_null(open_text("[1]", &err));

    char *text = offer_text(maker);
    char *digit = strrchr(text, '"') - 1;
    *digit = *digit == '0' ? '1' : '0';
    cr_assert_null(open_text(text, &err));
    cr_assert(strstr(err.message, "not the memory that was offered"), "%s", err.message);
    free(text);
    close(plain);
    close(unsealed);
    close(small);
}

/* Opening has effects of its own with some files: a FIFO's reader sees a writer come and go, a watchdog begins to count. */
Test(shared_memory, what_is_no_such_memory_is_not_opened)
{
    char folder[] = "/tmp/faas-test-XXXXXX", path[64];
    cr_assert_not_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/fifo", folder);
    cr_assert_eq(mkfifo(path, 0600), 0);
    int reader = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    expect_refused(reader, "0123456789abcdef0123456789abcdef", "no memory that can be shared");
    struct pollfd seen = {.fd = reader, .events = POLLIN};
    cr_assert_eq(poll(&seen, 1, 0), 0, "a writer was there");
    close(reader);
    unlink(path);
    rmdir(folder);
}

/* ---- bodies that are made in place ---- */

static bool all_is_free(void)
{
    struct shared_place place;
    if (!shared_memory_reserve(opener, SHARED_AREA_SIZE, &place))
        return false;
    shared_memory_cancel(opener, &place);
    return true;
}

/* Makes one of 10 bytes and 5 more, and sends all of it. */
static struct blob *send_room(struct shared_place *place)
{
    struct blob *body = shared_memory_room(opener, 10, 5);
    cr_assert_not_null(body);
    cr_assert_eq(body->len, 10);
    strcpy((char *)body->bytes, "made here");
    cr_assert(shared_memory_is_room(opener, body->bytes, 15, place));
    cr_assert_eq(place->len, 15);
    shared_memory_room_sent(opener, place);
    return body;
}

Test(shared_memory, a_body_made_in_place_stays_while_it_is_held_though_the_receiver_is_done)
{
    struct shared_place place;
    struct blob *body = send_room(&place);
    cr_assert_str_eq(shared_memory_at(maker, &place), "made here");
    shared_memory_done(maker, &place);
    cr_assert_not(all_is_free());
    cr_assert_not(shared_memory_is_room(opener, body->bytes, 15, &place), "it is sent once");
    blob_unref(body);
    cr_assert(all_is_free());
}

Test(shared_memory, one_that_nobody_holds_stays_until_the_receiver_is_done)
{
    struct shared_place place;
    blob_unref(send_room(&place));
    cr_assert_not(all_is_free());
    shared_memory_done(maker, &place);
    cr_assert(all_is_free());
}

Test(shared_memory, one_that_was_not_sent_is_gone_with_its_holder)
{
    blob_unref(shared_memory_room(opener, 10, 5));
    cr_assert(all_is_free());
    struct blob *body = shared_memory_room(opener, 10, 5);
    shared_memory_free(opener);
    opener = NULL;
    memset((char *)body->bytes, 'x', 10);
    blob_unref(body);
}

Test(shared_memory, those_that_are_not_sent_have_half_of_it_at_most)
{
    struct shared_place place;
    cr_assert_null(shared_memory_room(opener, SHARED_AREA_SIZE / 2, 1));
    cr_assert_null(shared_memory_room(opener, SIZE_MAX, SIZE_MAX));
    struct blob *first = shared_memory_room(opener, SHARED_AREA_SIZE / 2 - 1, 1);
    cr_assert_not_null(first);
    cr_assert_null(shared_memory_room(opener, 1, 0));
    cr_assert_not_null(shared_memory_reserve(opener, SHARED_AREA_SIZE / 2, &place));
    shared_memory_cancel(opener, &place);
    cr_assert(shared_memory_is_room(opener, first->bytes, 1, &place));
    shared_memory_room_sent(opener, &place);
    struct blob *second = shared_memory_room(opener, 1, 0);
    cr_assert_not_null(second);
    blob_unref(first);
    blob_unref(second);
}

Test(shared_memory, what_is_no_body_made_in_place_is_not_taken_for_one)
{
    struct shared_place place;
    shared_memory_show(maker);
    const char *other = shared_memory_reserve(opener, 10, &place);
    struct blob *body = shared_memory_room(opener, 100000, 0),
                *theirs = shared_memory_room(maker, 10, 0);
    cr_assert_not(shared_memory_is_room(opener, other, 10, &place));
    cr_assert_not(shared_memory_is_room(opener, body->bytes + 1, 10, &place));
    cr_assert_not(shared_memory_is_room(opener, body->bytes + 65536, 10, &place));
    cr_assert_not(shared_memory_is_room(opener, body->bytes, 131073, &place), "it ends before");
    cr_assert_not(shared_memory_is_room(opener, theirs->bytes, 10, &place));
    cr_assert_not(shared_memory_is_room(opener, NULL, 10, &place));
    cr_assert_not(shared_memory_is_room(maker, body->bytes, 10, &place));
    cr_assert(shared_memory_is_room(opener, body->bytes, 131072, &place));
    blob_unref(body);
    blob_unref(theirs);
}

/* ---- bodies that are shown ---- */

static struct blob *make_shown(size_t len, char letter)
{
    struct blob *body = shared_memory_room(maker, len, 0);
    cr_assert_not_null(body);
    memset((char *)body->bytes, letter, len);
    return body;
}

static struct shared_place send_shown(const struct blob *body)
{
    struct shared_place place;
    cr_assert(shared_memory_is_room(maker, body->bytes, body->len, &place));
    cr_assert_eq(place.len, body->len);
    shared_memory_room_sent(maker, &place);
    return place;
}

Test(shared_memory, nothing_is_shown_before_the_other_end_can_read_it)
{
    cr_assert(shared_memory_is_shown(opener));
    cr_assert_null(shared_memory_room(maker, 10, 0));
    shared_memory_show(maker);
    blob_unref(make_shown(10, 's'));
}

Test(shared_memory, a_body_that_is_shown_is_read_where_it_was_made)
{
    shared_memory_show(maker);
    struct blob *body = make_shown(300000, 's');
    struct shared_place place = send_shown(body);
    const char *there = shared_memory_at(opener, &place);
    cr_assert_not_null(there);
    cr_assert_neq(there, body->bytes);
    cr_assert_arr_eq(there, body->bytes, 300000);
    shared_memory_done(opener, &place);
    blob_unref(body);
}

/* What the maker has checked and keeps for another attempt. */
Test(shared_memory, the_other_end_cannot_write_to_what_is_shown)
{
    char path[64];
    long long fd;
    char *text = offer_text(maker);
    shared_memory_show(maker);
    struct blob *body = make_shown(5000, 's');
    struct shared_place place = send_shown(body);
    void *page = (void *)shared_memory_at(opener, &place);
    cr_assert_neq(mprotect(page, 4096, PROT_READ | PROT_WRITE), 0);
    cr_assert_eq(sscanf(strstr(text, "shown_fd"), "shown_fd\":%lld", &fd), 1, "%s", text);
    snprintf(path, sizeof(path), "/proc/self/fd/%lld", fd);
    int writable = open(path, O_RDWR | O_CLOEXEC);
    cr_assert_geq(writable, 0);
    cr_assert_eq(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, writable, 0), MAP_FAILED);
    cr_assert_eq(pwrite(writable, "x", 1, 0), -1);
    cr_assert_eq(ftruncate(writable, 0), -1);
    cr_assert_neq(fallocate(writable, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096), 0);
    cr_assert_eq(body->bytes[0], 's');
    close(writable);
    blob_unref(body);
    free(text);
}

Test(shared_memory, a_place_that_is_shown_is_used_again_when_neither_end_needs_it)
{
    const char *first = NULL;
    shared_memory_show(maker);
    for (int kept_longer = 0; kept_longer < 2; kept_longer++) {
        struct blob *body = make_shown(SHARED_AREA_SIZE, 's');
        struct shared_place place = send_shown(body);
        cr_assert(!first || first == body->bytes, "other pages would have to be fetched");
        first = body->bytes;
        if (kept_longer)
            shared_memory_done(opener, &place);
        else
            blob_unref(body);
        cr_assert_null(shared_memory_room(maker, 1, 0), "one of them needs it");
        if (kept_longer)
            blob_unref(body);
        else
            shared_memory_done(opener, &place);
    }
    struct blob *untold = make_shown(SHARED_AREA_SIZE, 's');
    blob_ref(untold);
    blob_unref(untold);
    cr_assert_null(shared_memory_room(maker, 1, 0));
    blob_unref(untold);
    blob_unref(make_shown(1, 's'));
}

Test(shared_memory, what_is_shown_and_what_is_copied_do_not_take_from_each_other)
{
    struct shared_place place;
    shared_memory_show(maker);
    struct blob *body = make_shown(SHARED_AREA_SIZE, 's');
    char *bytes = shared_memory_reserve(maker, SHARED_AREA_SIZE, &place);
    cr_assert_not_null(bytes);
    memset(bytes, 'a', place.len);
    struct shared_place shown = send_shown(body);
    cr_assert_eq(*shared_memory_at(opener, &place), 'a');
    cr_assert_eq(*shared_memory_at(opener, &shown), 's');
    shared_memory_done(opener, &shown);
    cr_assert_null(shared_memory_reserve(maker, 1, &place), "the other one is done");
    blob_unref(body);
    cr_assert_null(shared_memory_room(maker, SHARED_AREA_SIZE, 1));
    cr_assert_null(shared_memory_room(maker, SIZE_MAX, SIZE_MAX));
}

/* After a connection has ended its memory is not used again, but who has a body there keeps it. */
Test(shared_memory, a_body_that_is_shown_stays_without_its_connection_and_is_nothing_to_the_next)
{
    struct shared_place place;
    struct shared_memory *next = shared_memory_new(NULL);
    shared_memory_show(maker);
    shared_memory_show(next);
    struct blob *body = make_shown(300000, 's');
    send_shown(body);
    shared_memory_free(maker);
    maker = NULL;
    cr_assert_eq(body->bytes[299999], 's');
    cr_assert_not(shared_memory_is_room(next, body->bytes, body->len, &place));
    blob_unref(body);
    shared_memory_free(next);
}

/* The rest of an offer is good without it. */
Test(shared_memory, without_what_is_shown_it_goes_on)
{
    struct shared_place shown = {SHARED_AREA_SIZE, 1}, place;
    char *text = offer_text(maker);
    char *number = strstr(text, "shown_fd") + strlen("shown_fd\":");
    for (; strspn(number, "0123456789") > 1; number++)
        *number = ' ';
    *number = '0';
    struct shared_memory *other = open_text(text, NULL);
    cr_assert_not_null(other);
    cr_assert_not(shared_memory_is_shown(other));
    cr_assert_null(shared_memory_at(other, &shown));
    strcpy(shared_memory_reserve(maker, 10, &place), "there");
    cr_assert_str_eq(shared_memory_at(other, &place), "there");
    shared_memory_free(other);
    free(text);
}
