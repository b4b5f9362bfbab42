/* oci/tree.h: trees cloned by links, and their limits. (Copies are tested with the image store.) */
#include "oci/tree.h"

#include "base/cleanup.h"
#include "base/file.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char *folder;
static int from = -1, to = -1;

static void set_up(void)
{
    char template[] = "/tmp/faas-test-tree.XXXXXX";
    cr_assert_not_null(mkdtemp(template));
    folder = strdup(template);
    int root = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    cr_assert_eq(mkdirat(root, "from", 0755), 0);
    cr_assert_eq(mkdirat(root, "to", 0755), 0);
    from = openat(root, "from", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    to = openat(root, "to", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    close(root);
}

static void tear_down(void)
{
    struct error err = {0};
    close(from);
    close(to);
    cr_assert_eq(remove_tree(folder, &err), 0, "%s", err.message);
    free(folder);
}

TestSuite(tree, .init = set_up, .fini = tear_down);

static void make_file(const char *name, const char *content)
{
    autoclose int fd = openat(from, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
    cr_assert_eq(write(fd, content, strlen(content)), (ssize_t)strlen(content));
}

static struct stat status_of(int at, const char *name)
{
    struct stat status;
    cr_assert_eq(fstatat(at, name, &status, AT_SYMLINK_NOFOLLOW), 0, "%s: %s", name,
                 strerror(errno));
    return status;
}

Test(tree, a_clone_shares_files_and_has_folders_of_its_own)
{
    uint64_t budget = 100;
    struct error err = {0};
    const struct timespec times[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
    make_file("file", "x");
    cr_assert_eq(mkdirat(from, "d", 0755), 0);
    make_file("d/file", "y");
    cr_assert_eq(symlinkat("file", from, "link"), 0);
    cr_assert_eq(utimensat(from, "d", times, 0), 0);
    umask(0077);
    cr_assert_eq(tree_clone(from, to, &budget, &err), 0, "%s", err.message);
    cr_assert_eq(budget, 96u);
    cr_assert_eq(status_of(from, "file").st_ino, status_of(to, "file").st_ino);
    cr_assert_eq(status_of(from, "d/file").st_ino, status_of(to, "d/file").st_ino);
    cr_assert_eq(status_of(from, "link").st_ino, status_of(to, "link").st_ino);
    cr_assert_neq(status_of(from, "d").st_ino, status_of(to, "d").st_ino);
    cr_assert_eq(status_of(to, "d").st_mode, S_IFDIR | 0755);
    cr_assert_eq(status_of(to, "d").st_mtim.tv_sec, 1000);
}

Test(tree, the_budget_holds)
{
    uint64_t budget = 1;
    struct error err = {0};
    make_file("a", "x");
    make_file("b", "x");
    cr_assert_eq(tree_clone(from, to, &budget, &err), -1);
    cr_assert_eq(err.code, ERROR_PAYLOAD_TOO_LARGE);
}

Test(tree, a_file_with_as_many_links_as_there_can_be_is_copied)
{
    uint64_t budget = 100000;
    struct error err = {0};
    char name[16], content[8] = "";
    const struct timespec times[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
    bool full = false;
    make_file("file", "shared");
    cr_assert_eq(utimensat(from, "file", times, 0), 0);
    for (int i = 0; i < 70000 && !full; i++) {
        snprintf(name, sizeof(name), "../%d", i);
        full = linkat(from, "file", from, name, 0) < 0;
    }
    if (!full)
        cr_skip_test("this file system has no such limit");
    cr_assert_eq(tree_clone(from, to, &budget, &err), 0, "%s", err.message);
    struct stat copy = status_of(to, "file");
    cr_assert_eq(copy.st_nlink, 1u);
    cr_assert_eq(copy.st_mode, S_IFREG | 0640);
    cr_assert_eq(copy.st_mtim.tv_sec, 1000);
    autoclose int fd = openat(to, "file", O_RDONLY | O_CLOEXEC);
    cr_assert_eq(read(fd, content, sizeof(content)), 6);
    cr_assert_str_eq(content, "shared");
}

/* Deeper than any path: made by moving down, as links in an archive could make it. */
Test(tree, too_deep_a_tree_is_refused_by_all)
{
    uint64_t budget = 100000, bytes;
    struct error err = {0};
    int at = dup(from);
    for (int i = 0; i <= TREE_MAX_DEPTH; i++) {
        cr_assert_eq(mkdirat(at, "d", 0755), 0);
        int below = openat(at, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        close(at);
        at = below;
    }
    close(at);
    cr_assert_eq(tree_measure(from, &bytes, &err), -1);
    cr_assert_eq(err.code, ERROR_INVALID_REQUEST);
    cr_assert_eq(tree_clone(from, to, &budget, &err), -1);
    cr_assert_eq(err.code, ERROR_INVALID_REQUEST, "%s", err.message);
}

Test(tree, a_tree_is_as_big_as_its_files)
{
    uint64_t bytes;
    struct error err = {0};
    make_file("a", "123");
    cr_assert_eq(mkdirat(from, "d", 0755), 0);
    make_file("d/b", "4567");
    cr_assert_eq(symlinkat("a", from, "d/link"), 0);
    cr_assert_eq(tree_measure(from, &bytes, &err), 0, "%s", err.message);
    cr_assert_eq(bytes, 7u);
}
