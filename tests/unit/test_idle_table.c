/* Idle histories by function: bounded, and kept through a file. */
#include "worker/idle_table.h"

#include "base/cleanup.h"
#include "base/file.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct idle_table *table;
static struct error err;

static void set_up(void)
{
    table = idle_table_new(100, &err);
    cr_assert_not_null(table);
}

static void tear_down(void)
{
    idle_table_free(table);
}

TestSuite(idle_table, .init = set_up, .fini = tear_down);

static void add(const char *function, uint64_t idle_ms, int times)
{
    for (int i = 0; i < times; i++)
        idle_table_add(table, function, idle_ms);
}

static bool learnt(const char *function)
{
    return idle_table_windows(table, function, 1000).learnt;
}

Test(idle_table, functions_have_histories_of_their_own)
{
    add("often", 100, 20);
    add("hourly", 3600000, 20);
    cr_expect_eq(idle_table_windows(table, "often", 1000).prewarm_ms, 0);
    cr_expect_gt(idle_table_windows(table, "hourly", 1000).prewarm_ms, 1800000);
    cr_expect_not(learnt("never"));
    cr_expect_eq(idle_table_windows(table, "never", 1234).keep_alive_ms, 1234);
}

Test(idle_table, an_idle_time_is_from_the_end_of_the_last_call_to_the_first_after_it)
{
    uint64_t now_ns = 5;

    idle_table_called(table, "hourly", now_ns);
    for (int i = 0; i < 20; i++) {
        idle_table_rests(table, "hourly", now_ns);
        now_ns += 3600000000000ull;
        idle_table_called(table, "hourly", now_ns);
        idle_table_called(table, "hourly", now_ns + 1); /* at the same time: tells nothing */
    }
    cr_expect(learnt("hourly"));
    cr_expect_gt(idle_table_windows(table, "hourly", 1000).prewarm_ms, 1800000);
    cr_expect_not(learnt("never"));
}

Test(idle_table, the_one_heard_of_longest_ago_makes_room)
{
    char name[16];

    add("first", 100, 20);
    add("second", 100, 20);
    for (int i = 0; i < 98; i++) {
        snprintf(name, sizeof(name), "f%d", i);
        add(name, 100, 1);
    }
    add("first", 100, 1);
    add("one-more", 100, 1);
    cr_expect_eq(idle_table_count(table), 100);
    cr_expect(learnt("first"));
    cr_expect_not(learnt("second"));
}

static char path[64];

static void save_and_load(size_t max)
{
    snprintf(path, sizeof(path), "/tmp/faas-idle-table-%d", (int)getpid());
    cr_assert_eq(idle_table_save(table, path, &err), 0, "%s", err.message);
    idle_table_free(table);
    table = idle_table_new(max, &err);
    cr_assert_eq(idle_table_load(table, path, &err), 0, "%s", err.message);
    unlink(path);
}

Test(idle_table, what_was_learnt_survives_in_a_file)
{
    add("hourly", 3600000, 400);
    add("hourly", 36000000, 100);
    add("often", 100, 5000);
    struct idle_windows hourly = idle_table_windows(table, "hourly", 1);
    save_and_load(100);
    struct idle_windows again = idle_table_windows(table, "hourly", 1);
    cr_expect(again.learnt);
    cr_expect_eq(again.prewarm_ms, hourly.prewarm_ms);
    cr_expect_eq(again.keep_alive_ms, hourly.keep_alive_ms);
    cr_expect(learnt("often"));
    add("hourly", 3600000, 1000);
    cr_expect(learnt("hourly"), "it goes on counting");
}

Test(idle_table, a_smaller_table_loads_those_heard_of_last)
{
    add("old", 100, 20);
    add("new", 100, 20);
    save_and_load(1);
    cr_expect_eq(idle_table_count(table), 1);
    cr_expect(learnt("new"));
}

Test(idle_table, no_file_is_no_error)
{
    cr_expect_eq(idle_table_load(table, "/tmp/there-is-no-such-file", &err), 0);
    cr_expect_eq(idle_table_count(table), 0);
}

static void refuses(const char *text)
{
    add("known", 100, 20);
    cr_expect_eq(idle_table_read(table, text, strlen(text), &err), -1, "%s", text);
    cr_expect_neq(err.message[0], '\0');
}

Test(idle_table, a_file_that_cannot_be_right_is_refused)
{
    refuses("");
    refuses("{");
    refuses("[]");
    refuses("{\"f\": 7}");
    refuses("{\"f\": \"x\"}");
    refuses("{\"f\": \"1\"}");
    refuses("{\"f\": \"1:\"}");
    refuses("{\"f\": \"1:2,\"}");
    refuses("{\"f\": \"58:2\"}");
    refuses("{\"f\": \"-1:2\"}");
    refuses("{\"f\": \"1:513\"}");
    refuses("{\"f\": \"1:300 2:300\"}");
    refuses("{\"f\": \"1:-1\"}");
    refuses("{\"../f\": \"1:1\"}");
    cr_expect_eq(idle_table_read(table, "{}", 2, &err), 0);
    cr_expect_eq(idle_table_read(table, "{\"f\": \"0:10 57:2\"}", 18, &err), 0);
    cr_expect(learnt("f"));
}
