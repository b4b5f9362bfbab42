/* Ranges of host ids: no two for different instances, whoever has them; and what is left of a worker that died. */
#include "worker/id_ranges.h"
#include "worker/instance_spec.h"

#include "base/file.h"
#include "base/text.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char folder[64], path[80];

static void set_up(void)
{
    strcpy(folder, "/tmp/faas-test-ids-XXXXXX");
    cr_assert(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/ids", folder);
}

static void tear_down(void)
{
    remove_tree(folder, NULL);
}

TestSuite(id_ranges, .init = set_up, .fini = tear_down);

static struct id_ranges open_as(const char *owner)
{
    struct id_ranges ranges;
    struct error err = {0};

    cr_assert_eq(id_ranges_open(&ranges, path, owner, &err), 0, "%s", err.message);
    return ranges;
}

static int take(struct id_ranges *ranges)
{
    struct error err = {0};
    int range = id_ranges_take(ranges, &err);

    cr_assert_geq(range, 1, "%s", err.message);
    return range;
}

Test(id_ranges, two_workers_never_have_the_same)
{
    struct id_ranges one = open_as("one"), two = open_as("two");
    struct id_ranges *holders[INSTANCE_ID_SLOTS] = {0};

    for (int i = 0; i < 100; i++) {
        struct id_ranges *holder = i % 2 ? &two : &one;
        int range = take(holder);
        cr_assert_null(holders[range], "%d is given twice", range);
        holders[range] = holder;
    }
    for (int range = 1; range < (int)INSTANCE_ID_SLOTS; range++)
        if (holders[range])
            id_ranges_give(holders[range], range);
    id_ranges_close(&one);
    id_ranges_close(&two);
}

Test(id_ranges, what_is_given_back_can_be_taken_by_the_other)
{
    struct id_ranges one = open_as("one"), two = open_as("two");
    int range = take(&one);

    cr_expect_neq(take(&two), range);
    id_ranges_give(&one, range);
    cr_expect_eq(take(&two), range);
    id_ranges_close(&one);
    id_ranges_close(&two);
}

Test(id_ranges, when_all_are_in_use_it_says_so_and_goes_on_afterwards)
{
    struct id_ranges ranges = open_as("one");
    struct error err = {0};

    for (unsigned i = 1; i < INSTANCE_ID_SLOTS; i++)
        take(&ranges);
    cr_expect_eq(id_ranges_take(&ranges, &err), -1);
    cr_expect_eq(err.code, ERROR_NO_CAPACITY);
    cr_expect(strstr(err.message, "16383"), "%s", err.message);
    id_ranges_give(&ranges, 77);
    cr_expect_eq(take(&ranges), 77);
    id_ranges_close(&ranges);
}

/* A worker that takes three ranges and dies. */
static void die_with_three(const char *owner)
{
    pid_t pid = fork();
    int status = 0;

    if (pid == 0) {
        struct id_ranges ranges = open_as(owner);
        for (int i = 0; i < 3; i++)
            take(&ranges);
        _exit(0);
    }
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert_eq(status, 0);
}

Test(id_ranges, those_of_a_worker_that_died_are_its_successors_and_nobody_elses)
{
    die_with_three("one");
    struct id_ranges other = open_as("two");
    cr_expect_eq(take(&other), 4, "its containers may be alive");
    struct id_ranges successor = open_as("one");
    cr_expect_eq(take(&successor), 1);
    id_ranges_close(&other);
    id_ranges_close(&successor);
}

Test(id_ranges, the_file_goes_with_the_last_one_and_nothing_marked)
{
    struct id_ranges one = open_as("one"), two = open_as("two");
    struct stat status;
    int range = take(&one);

    cr_assert_eq(stat(path, &status), 0);
    cr_expect_eq(status.st_mode & 07777, 0600);
    id_ranges_close(&two);
    cr_expect(path_exists(path), "the other one uses it");
    id_ranges_give(&one, range);
    id_ranges_close(&one);
    cr_expect_not(path_exists(path));
    die_with_three("one");
    two = open_as("two");
    id_ranges_close(&two);
    cr_expect(path_exists(path), "something is marked");
    one = open_as("one");
    id_ranges_close(&one);
    cr_expect_not(path_exists(path));
}

Test(id_ranges, a_file_that_cannot_be_had_is_named)
{
    struct id_ranges ranges;
    struct error err = {0};

    cr_expect_eq(id_ranges_open(&ranges, "/nonexistent/ids", "one", &err), -1);
    cr_expect(strstr(err.message, "/nonexistent/ids"), "%s", err.message);
    cr_assert_eq(symlink("/etc/passwd", path), 0);
    cr_expect_eq(id_ranges_open(&ranges, path, "one", &err), -1);
}
