/* Memory of a sealed size, and what whoever else opens it can do to it. */
#include "base/sealed_memory.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <unistd.h>

#define SIZE 65536UL

/* As another process opens it. */
static int open_again(int fd)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    int other = open(path, O_RDWR | O_CLOEXEC);
    cr_assert_geq(other, 0);
    return other;
}

static void expect_sealed(int other)
{
    cr_expect(sealed_memory_is(other));
    cr_expect_lt(ftruncate(other, 0), 0);
    cr_expect_lt(ftruncate(other, 2 * SIZE), 0);
    cr_expect_lt(fallocate(other, 0, 0, 2 * SIZE), 0);
    cr_expect_lt(fcntl(other, F_ADD_SEALS, F_SEAL_WRITE), 0, "nobody can take writing away");
}

Test(sealed_memory, both_sides_write_what_neither_can_cut)
{
    int fd = sealed_memory_new("test", SIZE, NULL);
    cr_assert_geq(fd, 0);
    int other = open_again(fd);
    expect_sealed(other);
    char *ours = sealed_memory_map(fd, SIZE, NULL), *theirs = sealed_memory_map(other, SIZE, NULL);
    cr_assert(ours && theirs);
    strcpy(ours, "here");
    strcpy(theirs + 100, "there");
    cr_expect_str_eq(theirs, "here");
    cr_expect_str_eq(ours + 100, "there");
}

Test(sealed_memory, what_is_only_shown_nobody_else_can_write_or_empty)
{
    struct error err = {0};
    void *mapping = NULL;
    int fd = sealed_memory_new_to_read("test", SIZE, &mapping, &err);
    cr_assert_geq(fd, 0, "%s", err.message);
    int other = open_again(fd);
    expect_sealed(other);
    strcpy(mapping, "shown");
    cr_expect_lt(write(other, "x", 1), 0);
    cr_expect_lt(fallocate(other, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, SIZE), 0);
    cr_expect_null(sealed_memory_map(other, SIZE, NULL));
    char *theirs = sealed_memory_map_to_read(other, SIZE, NULL);
    cr_assert_not_null(theirs);
    cr_expect_lt(mprotect(theirs, SIZE, PROT_READ | PROT_WRITE), 0);
    cr_expect_lt(madvise(theirs, SIZE, MADV_REMOVE), 0);
    cr_expect_str_eq(theirs, "shown");
}

Test(sealed_memory, memory_that_could_still_be_cut_is_none)
{
    int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    cr_expect_not(sealed_memory_is(fd));
    cr_assert_eq(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_SEAL), 0);
    cr_expect_not(sealed_memory_is(fd));
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    cr_expect_not(sealed_memory_is(null));
}

/* For this process only. */
static void set_overcommit(const char *mode)
{
    char path[] = "/tmp/faas-test-XXXXXX";
    int fd = mkstemp(path);
    cr_assert_eq(write(fd, mode, strlen(mode)), (ssize_t)strlen(mode));
    close(fd);
    cr_assert_eq(unshare(CLONE_NEWNS), 0);
    cr_assert_eq(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
    cr_assert_eq(mount(path, "/proc/sys/vm/overcommit_memory", NULL, MS_BIND, NULL), 0);
    unlink(path);
}

/* A page that nobody has touched yet would end whoever touches it when there is none left, as the other side can see to. */
Test(sealed_memory, where_memory_is_accounted_for_strictly_there_is_none)
{
    struct error err = {0};
    void *mapping = NULL;
    if (geteuid() != 0)
        cr_skip("needs root");
    set_overcommit("2\n");
    cr_expect_eq(sealed_memory_new("test", SIZE, &err), -1);
    cr_expect(strstr(err.message, "overcommit_memory"), "%s", err.message);
    cr_expect_eq(sealed_memory_new_to_read("test", SIZE, &mapping, &err), -1);
    cr_expect_null(mapping);
}

Test(sealed_memory, where_it_is_not_there_is_some)
{
    if (geteuid() != 0)
        cr_skip("needs root");
    set_overcommit("1\n");
    cr_expect_geq(sealed_memory_new("test", SIZE, NULL), 0);
}
