/* Memory of worker and adapter, with a second mapping as the adapter. */
#include "worker/body_area.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define SIZE (1UL << 20)

static struct body_area *area;
static char *theirs;
static int their_fd = -1;

static void set_up(void)
{
    struct error err = {0};
    area = body_area_new(SIZE, &err);
    cr_assert_not_null(area, "%s", err.message);
    their_fd = dup(body_area_fd(area));
    theirs = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, their_fd, 0);
    cr_assert_neq(theirs, MAP_FAILED);
}

static void tear_down(void)
{
    body_area_free(area);
    munmap(theirs, SIZE);
    close(their_fd);
}

TestSuite(body_area, .init = set_up, .fini = tear_down);

static void put(const char *body, size_t len)
{
    cr_expect(body_area_make_room(area, len));
    body_area_put(area, body, 0, len / 2);
    body_area_put(area, body + len / 2, len / 2, len - len / 2);
}

static long blocks(void)
{
    struct stat status;
    cr_assert_eq(fstat(their_fd, &status), 0);
    return (long)status.st_blocks;
}

Test(body_area, what_one_side_puts_there_the_other_reads)
{
    char *body = malloc(SIZE), *back = malloc(SIZE);
    for (size_t i = 0; i < SIZE; i++)
        body[i] = (char)(i * 7);
    put(body, SIZE);
    cr_expect_eq(memcmp(theirs, body, SIZE), 0);
    theirs[SIZE - 1] = 'z';
    body_area_get(area, back, 0, SIZE - 1);
    body_area_get(area, back + SIZE - 1, SIZE - 1, 1);
    cr_expect_eq(memcmp(back, body, SIZE - 1), 0);
    cr_expect_eq(back[SIZE - 1], 'z');
    free(body);
    free(back);
}

Test(body_area, the_other_side_cannot_cut_or_seal_it)
{
    cr_expect_lt(ftruncate(their_fd, 4096), 0);
    cr_expect_lt(ftruncate(their_fd, 2 * SIZE), 0);
    cr_expect_lt(fcntl(their_fd, F_ADD_SEALS, F_SEAL_WRITE), 0);
}

Test(body_area, pages_that_the_other_side_takes_away_are_there_again)
{
    char body[8192], back[8192];
    memset(body, 'x', sizeof(body));
    put(body, sizeof(body));
    cr_expect_eq(madvise(theirs, SIZE, MADV_REMOVE), 0);
    body_area_get(area, back, 0, sizeof(back));
    cr_expect_eq(back[0], '\0');
    put(body, sizeof(body));
    cr_expect_eq(theirs[8191], 'x');
}

Test(body_area, emptied_it_has_no_pages_and_works_on)
{
    char *body = calloc(1, SIZE);
    cr_expect_eq(blocks(), 0);
    put(body, SIZE);
    cr_expect_eq(blocks(), (long)(SIZE / 512));
    body_area_empty(area);
    cr_expect_eq(blocks(), 0);
    body[SIZE - 1] = 'x';
    put(body, SIZE);
    cr_expect_eq(theirs[SIZE - 1], 'x');
    body_area_empty(NULL);
    free(body);
}

/* A process of the other side, with as many mappings as it may have. */
static pid_t map_often(void)
{
    int ready[2];
    char byte;
    cr_assert_eq(pipe(ready), 0);
    pid_t child = fork();
    cr_assert_geq(child, 0);
    if (child == 0) {
        for (int i = 0; i < 60000; i++)
            mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, their_fd, 0);
        close(ready[1]);
        for (;;)
            pause();
    }
    close(ready[1]);
    cr_assert_eq(read(ready[0], &byte, 1), 0);
    close(ready[0]);
    return child;
}

/* The kernel looks at each mapping before the pages go. */
Test(body_area, the_other_side_makes_emptying_it_slow_once_only)
{
    char *body = calloc(1, SIZE);
    pid_t children[3];
    for (int i = 0; i < 3; i++)
        children[i] = map_often();
    put(body, SIZE);
    body_area_empty(area);
    cr_expect_gt(blocks(), 0, "it went on although it was slow");
    put(body, SIZE);
    body_area_empty(area);
    cr_expect_eq(blocks(), (long)(SIZE / 512));
    for (int i = 0; i < 3; i++) {
        kill(children[i], SIGKILL);
        waitpid(children[i], NULL, 0);
    }
    free(body);
}

Test(body_area, it_is_a_sixteenth_of_a_functions_memory_at_most)
{
    cr_expect_eq(body_area_size(6UL << 20, 96), 6UL << 20);
    cr_expect_eq(body_area_size(6UL << 20, 95), 0UL);
    cr_expect_eq(body_area_size((1UL << 20) + 1, 128), (1UL << 20) + 4096);
    cr_expect_eq(body_area_size(BODY_AREA_MIN - 1, 10240), 0UL, "no body would be in it");
    cr_expect_eq(body_area_size(17UL << 20, 10240), 0UL);
}
