/* base/file.h: folders, atomic writes, locks, and removing trees that somebody else filled. */
#include "base/file.h"

#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/text.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char *folder;
static char *paths[64]; /* that in_folder() made */
static size_t path_count;

static void make_folder(void)
{
    char template[] = "/tmp/faas-test-file.XXXXXX";
    cr_assert_not_null(mkdtemp(template));
    folder = strdup(template);
}

static void remove_folder(void)
{
    struct error err = {0};
    cr_assert_eq(remove_tree(folder, &err), 0, "%s", err.message);
    free(folder);
    while (path_count > 0)
        free(paths[--path_count]);
}

TestSuite(file, .init = make_folder, .fini = remove_folder);

/* Path below the test's folder; valid until the test ends. */
static const char *in_folder(const char *name)
{
    cr_assert_lt(path_count, ARRAY_LENGTH(paths));
    return paths[path_count++] = string_printf("%s/%s", folder, name);
}

static mode_t mode_of(const char *path)
{
    struct stat status;
    return stat(path, &status) == 0 ? status.st_mode & 07777 : 0;
}

static void write_text(const char *path, const char *text)
{
    struct error err = {0};
    cr_assert_eq(write_file_atomic(path, text, strlen(text), 0644, false, &err), 0, "%s",
                 err.message);
}

Test(file, folders_are_made_with_their_mode_whatever_the_umask)
{
    umask(077);
    cr_assert_eq(make_directories(in_folder("a/b//c/"), 0755, NULL), 0);
    cr_assert_eq(mode_of(in_folder("a")), 0755);
    cr_assert_eq(mode_of(in_folder("a/b/c")), 0755);
    cr_assert_eq(chmod(in_folder("a"), 0700), 0);
    cr_assert_eq(make_directories(in_folder("a/b"), 0755, NULL), 0);
    cr_assert_eq(mode_of(in_folder("a")), 0700, "one that was there keeps its mode");
}

Test(file, a_file_in_the_way_of_a_folder_is_named)
{
    struct error err;
    write_text(in_folder("a"), "x");
    cr_assert_eq(make_directories(in_folder("a"), 0755, &err), -1);
    cr_assert_not_null(strstr(err.message, in_folder("a")));
    cr_assert_eq(make_directories(in_folder("a/b"), 0755, &err), -1);
}

Test(file, an_atomic_write_replaces_content_and_mode_and_leaves_no_other_file)
{
    with_cleanup(buffer_deinit) struct buffer content = BUFFER_INIT(100);
    umask(077);
    write_text(in_folder("f"), "old content");
    cr_assert_eq(write_file_atomic(in_folder("f"), "new", 3, 0640, true, NULL), 0);
    cr_assert_eq(buffer_read_file(&content, in_folder("f"), NULL), 0);
    cr_assert_str_eq(content.data, "new");
    cr_assert_eq(mode_of(in_folder("f")), 0640);
    cr_assert_eq(unlink(in_folder("f")), 0);
    cr_assert_eq(rmdir(folder), 0, "the temporary file is gone");
    cr_assert_eq(mkdir(folder, 0700), 0);
}

Test(file, a_failed_atomic_write_leaves_nothing)
{
    struct error err;
    cr_assert_eq(write_file_atomic(in_folder("no/f"), "x", 1, 0644, false, &err), -1);
    cr_assert_eq(err.code, ERROR_NOT_FOUND);
    mkdir(in_folder("d"), 0755);
    cr_assert_eq(write_file_atomic(in_folder("d"), "x", 1, 0644, false, &err), -1);
    cr_assert_eq(rmdir(in_folder("d")), 0);
    cr_assert_eq(rmdir(folder), 0);
    mkdir(folder, 0700);
}

Test(file, a_value_is_written_to_a_file_that_exists_only)
{
    struct error err;
    with_cleanup(buffer_deinit) struct buffer content = BUFFER_INIT(100);
    cr_assert_eq(write_file_value(in_folder("v"), "1", &err), -1);
    cr_assert_eq(err.code, ERROR_NOT_FOUND);
    write_text(in_folder("v"), "");
    cr_assert_eq(write_file_value(in_folder("v"), "42\n", &err), 0);
    buffer_read_file(&content, in_folder("v"), NULL);
    cr_assert_str_eq(content.data, "42\n");
    cr_assert_eq(write_file_value("/dev/full", "7", &err), -1);
    cr_assert_eq(err.sys_errno, ENOSPC);
    cr_assert_not_null(strstr(err.message, "\"7\" to /dev/full"), "%s", err.message);
}

Test(file, a_lock_excludes_others_until_its_descriptor_closes)
{
    struct error err;
    int first = -1, second = -1;
    cr_assert_eq(lock_file(in_folder("lock"), &first, &err), 0);
    cr_assert_eq(lock_file(in_folder("lock"), &second, &err), -1);
    cr_assert_eq(err.code, ERROR_CONFLICT);
    cr_assert_eq(second, -1);
    cr_assert_neq(fcntl(first, F_GETFD) & FD_CLOEXEC, 0);
    close(first);
    cr_assert_eq(lock_file(in_folder("lock"), &second, &err), 0);
    close(second);
}

Test(file, the_program_knows_its_folder)
{
    autofree char *directory = program_directory();
    cr_assert_not_null(directory);
    autofree char *self = string_printf("%s/test_file", directory);
    cr_assert(path_exists(self), "%s", self);
}

Test(file, removing_what_is_not_there_is_fine)
{
    cr_assert_eq(remove_tree(in_folder("none"), NULL), 0);
    cr_assert_eq(remove_tree(in_folder("none/below"), NULL), 0);
    write_text(in_folder("f"), "x");
    cr_assert_eq(remove_tree(in_folder("f/below"), NULL), 0);
    cr_assert_eq(remove_tree(in_folder("f"), NULL), 0);
    cr_assert(!path_exists(in_folder("f")));
}

Test(file, removing_refuses_what_names_no_entry)
{
    cr_assert_eq(remove_tree("/", NULL), -1);
    cr_assert_eq(remove_tree("", NULL), -1);
    cr_assert_eq(remove_tree(".", NULL), -1);
    cr_assert_eq(remove_tree(in_folder(".."), NULL), -1);
    cr_assert(path_exists(folder));
}

Test(file, removing_never_follows_symbolic_links)
{
    cr_assert_eq(make_directories(in_folder("outside/d"), 0755, NULL), 0);
    write_text(in_folder("outside/d/kept"), "x");
    cr_assert_eq(make_directories(in_folder("tree/sub"), 0755, NULL), 0);
    cr_assert_eq(symlink(in_folder("outside"), in_folder("tree/sub/link")), 0);
    cr_assert_eq(symlink(in_folder("outside/d/kept"), in_folder("tree/file")), 0);
    cr_assert_eq(symlink("..", in_folder("tree/up")), 0);
    cr_assert_eq(symlink(in_folder("outside"), in_folder("top")), 0);
    cr_assert_eq(remove_tree(in_folder("tree/"), NULL), 0);
    cr_assert_eq(remove_tree(in_folder("top"), NULL), 0);
    cr_assert(!path_exists(in_folder("tree")));
    cr_assert(path_exists(in_folder("outside/d/kept")));
}

Test(file, removing_takes_folders_without_permissions_fifos_and_many_files)
{
    cr_assert_eq(make_directories(in_folder("tree/a/b/c"), 0755, NULL), 0);
    cr_assert_eq(mkfifo(in_folder("tree/a/fifo"), 0600), 0);
    for (int i = 0; i < 500; i++) {
        autofree char *name = string_printf("%s/tree/a/b/f%d", folder, i);
        write_text(name, "");
    }
    chmod(in_folder("tree/a/b"), 0);
    if (geteuid() != 0)
        chmod(in_folder("tree/a/b"), 0700);
    cr_assert_eq(remove_tree(in_folder("tree"), NULL), 0);
    cr_assert(!path_exists(in_folder("tree")));
}

/* Deeper than PATH_MAX, and than the descriptors that the process may open. */
Test(file, removing_a_very_deep_tree_needs_few_descriptors)
{
    char name[101];
    memset(name, 'd', 100);
    name[100] = '\0';
    cr_assert_eq(mkdir(in_folder("tree"), 0755), 0);
    autoclose int fd = open(in_folder("tree"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (int depth = 0; depth < 2000; depth++) {
        cr_assert_eq(mkdirat(fd, name, 0755), 0);
        int next = openat(fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        close(fd);
        fd = next;
    }
    struct rlimit few = {.rlim_cur = 64, .rlim_max = 64};
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
    struct error err = {0};
    cr_assert_eq(remove_tree(in_folder("tree"), &err), 0, "%s", err.message);
    cr_assert(!path_exists(in_folder("tree")));
}

/* In a mount namespace of its own, so that nothing is left mounted. Exit status 0: as it should be, 77: cannot mount. */
static void remove_with_mount(void)
{
    struct error err = {0};
    make_directories(in_folder("data"), 0755, NULL);
    write_text(in_folder("data/kept"), "x");
    make_directories(in_folder("tree/mounted"), 0755, NULL);
    if (unshare(CLONE_NEWNS) < 0 || mount("", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount(in_folder("data"), in_folder("tree/mounted"), NULL, MS_BIND, NULL) < 0)
        _exit(77);
    bool refused = remove_tree(in_folder("tree"), &err) < 0 && strstr(err.message, "mounted");
    bool refused_top = remove_tree(in_folder("tree/mounted"), &err) < 0;
    _exit(refused && refused_top && path_exists(in_folder("data/kept")) ? 0 : 1);
}

Test(file, removing_never_enters_another_mount_even_of_the_same_device)
{
    int status;
    pid_t child = fork();
    if (child == 0)
        remove_with_mount();
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77)
        cr_skip_test("mounting needs root");
    cr_assert_eq(WEXITSTATUS(status), 0);
}
