/* Memory between two ends; here both are in one process. */
#include "base/buffer.h"
#include "base/shared_memory.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

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

Test(shared_memory, an_area_that_is_full_takes_nothing_until_all_of_it_is_done)
{
    struct shared_place first, second, third;
    cr_assert_null(shared_memory_reserve(maker, SHARED_AREA_SIZE + 1, &first));
    cr_assert_null(shared_memory_reserve(maker, SIZE_MAX, &first));
    cr_assert_not_null(shared_memory_reserve(maker, SHARED_AREA_SIZE - 10, &first));
    cr_assert_not_null(shared_memory_reserve(maker, 10, &second));
    cr_assert_eq(second.at, SHARED_AREA_SIZE - 10);
    cr_assert_null(shared_memory_reserve(maker, 1, &third));
    shared_memory_done(opener);
    cr_assert_null(shared_memory_reserve(maker, 1, &third), "one is not done");
    shared_memory_done(opener);
    cr_assert_not_null(shared_memory_reserve(maker, 1, &third));
    cr_assert_eq(third.at, 0);
}

Test(shared_memory, it_stays_for_who_holds_it_longer)
{
    struct shared_place place;
    struct shared_memory *longer = shared_memory_ref(opener);
    memset(shared_memory_reserve(maker, 10, &place), 'l', 10);
    shared_memory_free(opener);
    opener = NULL;
    cr_assert_eq(*shared_memory_at(longer, &place), 'l');
    shared_memory_done(longer);
    shared_memory_free(longer);
    cr_assert_not_null(shared_memory_reserve(maker, SHARED_AREA_SIZE, &place));
}

Test(shared_memory, a_place_outside_is_refused)
{
    static const struct shared_place outside[] = {{0, SHARED_AREA_SIZE + 1},
                                                  {SHARED_AREA_SIZE, 1},
                                                  {1, SHARED_AREA_SIZE},
                                                  {UINT64_MAX, 2},
                                                  {2, UINT64_MAX}};
    for (size_t i = 0; i < sizeof(outside) / sizeof(outside[0]); i++)
        cr_assert_null(shared_memory_at(opener, &outside[i]), "number %zu", i);
    cr_assert_not_null(shared_memory_at(opener, &(struct shared_place){0, SHARED_AREA_SIZE}));
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
