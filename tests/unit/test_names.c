/* Names of allow-lists over time, with name servers and a clock of the test's own (CMakeLists.txt wraps both). */
#include "worker/names.h"

#include "base/cleanup.h"
#include "base/loop.h"
#include "worker/dns_query.h"

#include <criterion/criterion.h>
#include <stdarg.h>
#include <string.h>

#define SECOND 1000000000ull
#define FIRST 0xc6336409u /* 198.51.100.9 */
#define NEXT 0xc633640au

static uint64_t now_ns = 3600 * SECOND;
static struct query {
    dns_query_done_fn *done;
    void *data;
} asked;
static size_t questions;

uint64_t __wrap_clock_monotonic_ns(void);
uint64_t __wrap_clock_monotonic_ns(void)
{
    return now_ns;
}

struct dns_query *__wrap_dns_query_start(uv_loop_t *loop, const struct name_servers *servers,
                                         const char *name, dns_query_done_fn *done, void *data,
                                         struct error *err);
struct dns_query *__wrap_dns_query_start(uv_loop_t *loop, const struct name_servers *servers,
                                         const char *name, dns_query_done_fn *done, void *data,
                                         struct error *err)
{
    (void)loop, (void)servers, (void)name, (void)err;
    questions++;
    asked = (struct query){done, data};
    return (struct dns_query *)&asked;
}

void __wrap_dns_query_cancel(struct dns_query *query);
void __wrap_dns_query_cancel(struct dns_query *query)
{
    (void)query;
    asked = (struct query){0};
}

static uv_loop_t loop;
static struct names *names;
static struct names_watch *watch;
static unsigned changes;

static void on_changed(void *data)
{
    (void)data;
    changes++;
}

static void set_up(void)
{
    struct name_servers servers = {.count = 1, .addresses = {0xcb007135}};
    struct destination item = {0};
    struct destinations list = {.items = &item, .count = 1};
    struct error err = {0};

    uv_loop_init(&loop);
    names = names_new(&loop, &servers, &err);
    cr_assert_not_null(names, "%s", err.message);
    cr_assert_eq(destination_parse("db.example:443", &item, &err), 0, "%s", err.message);
    watch = names_watch(names, &list, on_changed, NULL, &err);
    cr_assert_not_null(watch, "%s", err.message);
    destination_deinit(&item);
}

static void tear_down(void)
{
    names_unwatch(watch);
    names_free(names);
    loop_close(&loop);
}

TestSuite(names, .init = set_up, .fini = tear_down, .timeout = 60);

/* The next question is answered with so many addresses; with none: there is no such name. */
static void answer(uint32_t ttl_s, size_t count, ...)
{
    struct dns_answer answer = {.count = count, .ttl_s = ttl_s};
    struct error none = {0};
    va_list addresses;

    while (!asked.done)
        uv_run(&loop, UV_RUN_ONCE);
    struct query query = asked;
    va_start(addresses, count);
    for (size_t i = 0; i < count; i++)
        answer.addresses[i] = va_arg(addresses, uint32_t);
    va_end(addresses);
    asked = (struct query){0};
    error_set(&none, ERROR_NOT_FOUND, "no such name");
    query.done(query.data, count ? &answer : NULL, count ? NULL : &none);
}

static size_t known(uint32_t first, uint32_t second)
{
    const uint32_t *addresses = NULL;
    size_t count = names_addresses(watch, "db.example", &addresses), found = 0;

    for (size_t i = 0; i < count; i++)
        found += addresses[i] == first || addresses[i] == second;
    cr_expect_eq(found, count, "one that was never told");
    return count;
}

Test(names, an_address_that_changes_is_reached_and_the_old_one_too_for_a_while)
{
    answer(5, 1, FIRST);
    cr_expect_eq(changes, 1);
    cr_expect_eq(known(FIRST, FIRST), 1);
    now_ns += 6 * SECOND;
    answer(5, 1, NEXT);
    cr_expect_eq(changes, 2);
    cr_expect_eq(known(FIRST, NEXT), 2);
}

Test(names, ten_minutes_after_it_was_last_told_an_address_is_gone)
{
    answer(60, 1, FIRST);
    now_ns += 599 * SECOND;
    answer(60, 1, NEXT);
    cr_expect_eq(known(FIRST, NEXT), 2);
    now_ns += 61 * SECOND;
    answer(60, 1, NEXT);
    cr_expect_eq(known(NEXT, NEXT), 1);
    cr_expect_eq(changes, 3);
}

Test(names, a_name_that_is_not_known_any_more_loses_its_addresses)
{
    answer(60, 1, FIRST);
    now_ns += 61 * SECOND;
    answer(60, 0);
    cr_expect_eq(known(FIRST, FIRST), 1, "a name server may be wrong for a moment");
    now_ns += 600 * SECOND;
    answer(60, 0);
    cr_expect_eq(known(FIRST, FIRST), 0);
    cr_expect_eq(changes, 2);
}

Test(names, it_is_asked_again_no_sooner_than_after_five_seconds_and_no_later_than_after_a_minute)
{
    answer(0, 1, FIRST);
    cr_assert_eq(questions, 1);
    now_ns += 4 * SECOND;
    uv_run(&loop, UV_RUN_ONCE);
    cr_expect_eq(questions, 1);
    now_ns += 2 * SECOND;
    answer(86400, 1, FIRST);
    cr_expect_eq(questions, 2);
    now_ns += 61 * SECOND;
    answer(60, 1, FIRST);
    cr_expect_eq(questions, 3);
    cr_expect_eq(changes, 1, "nothing has changed");
}
