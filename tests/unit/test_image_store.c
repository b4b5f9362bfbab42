/* oci/image_store.h: names, and how images are listed, shared, replaced, held and removed. */
#include "image_store_fixture.h"

#include <sys/wait.h>

TestSuite(image_store, .init = fixture_set_up, .fini = fixture_tear_down);

/* ---- names ---- */

Test(image_store, names_are_normalised_or_refused)
{
    static const char *const good[][2] = {
        {"python", "python:latest"},
        {"a/b.c-d_e:V1.0", "a/b.c-d_e:V1.0"},
        {"host:5000/a", "host:5000/a:latest"},
        {"host:5000/a/b:1", "host:5000/a/b:1"},
    };
    static const char *const bad[] = {
        "",    "/a", "a/",         "a//b", "../a", "a/../b",       "A",    "a:", "a:b:c", "a:-",
        "a b", ".a", "a@sha256:0", "a\n",  "-a",   "a:5000/b:x/y", "a:x/b"};
    char out[IMAGE_NAME_MAX + 1], longest[IMAGE_NAME_MAX + 2];
    struct error err = {0};
    for (size_t i = 0; i < ARRAY_LENGTH(good); i++) {
        cr_assert_eq(image_name_normalise(good[i][0], out, &err), 0, "%s", err.message);
        cr_assert_str_eq(out, good[i][1]);
    }
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++)
        cr_assert_eq(image_name_normalise(bad[i], out, &err), -1, "\"%s\" is taken", bad[i]);
    memset(longest, 'a', sizeof(longest));
    longest[IMAGE_NAME_MAX - 7] = '\0';
    cr_assert_eq(image_name_normalise(longest, out, &err), 0);
    longest[IMAGE_NAME_MAX - 7] = 'a';
    longest[IMAGE_NAME_MAX - 6] = '\0';
    cr_assert_eq(image_name_normalise(longest, out, &err), -1);
}

Test(image_store, an_image_that_is_not_there)
{
    struct error err = {0};
    struct image image;
    cr_assert_eq(image_store_get(store, "nothing", &image, &err), -1);
    cr_assert_eq(err.code, ERROR_NOT_FOUND);
    cr_assert_not_null(strstr(err.message, "\"nothing:latest\""), "%s", err.message);
    cr_assert_eq(image_store_remove(store, "nothing", &err), -1);
    cr_assert_eq(err.code, ERROR_NOT_FOUND);
    cr_assert_eq(image_store_import(store, "x", "/not/there.tar", NULL, NULL, &err), -1);
    cr_assert_eq(err.code, ERROR_NOT_FOUND);
}
/* ---- listing, replacing, removing, holding ---- */

static char *rootfs_tar(const char *name, const char *content)
{
    add((struct tar_entry){.name = "content", .data = content});
    return tar_file(name);
}

Test(image_store, images_are_listed_by_name)
{
    struct image_list list;
    struct error err = {0};
    autofree char *path = rootfs_tar("a.tar", "a");
    assert_imports_from(path, "b", NULL);
    assert_imports_from(path, "c:2", NULL);
    assert_imports_from(path, "a", NULL);
    cr_assert_eq(image_store_list(store, &list, &err), 0, "%s", err.message);
    cr_assert_eq(list.count, 3u);
    cr_assert_str_eq(list.images[0].name, "a:latest");
    cr_assert_str_eq(list.images[1].name, "b:latest");
    cr_assert_str_eq(list.images[2].name, "c:2");
    image_list_deinit(&list);
}

Test(image_store, importing_again_replaces)
{
    struct image first, second;
    autofree char *one = rootfs_tar("1.tar", "one"), *two = rootfs_tar("2.tar", "two");
    assert_imports_from(one, "a", &first);
    assert_imports_from(two, "a", &second);
    assert_content(&second, "content", "two");
    cr_assert_eq(inode(&first, "content", NULL), 0u, "the replaced image is still there");
    cr_assert_eq(count_entries("chains"), 1);
    cr_assert_eq(count_entries("blobs/sha256"), 1);
    image_deinit(&first);
    image_deinit(&second);
}

Test(image_store, removing_keeps_what_others_need)
{
    struct error err = {0};
    struct image base;
    struct made_image made = two_layers(), below = made;
    finish_image(&made);
    write_only(&made);
    assert_imports_from(layout, "top", NULL);
    below.layer_count = 1;
    finish_image(&below);
    write_only(&below);
    assert_imports_from(layout, "base", &base);
    cr_assert_eq(count_entries("chains"), 2);
    cr_assert_eq(image_store_remove(store, "top", &err), 0, "%s", err.message);
    cr_assert_eq(count_entries("chains"), 1);
    assert_content(&base, "base", "base");
    cr_assert_eq(image_store_remove(store, "base", &err), 0, "%s", err.message);
    cr_assert_eq(count_entries("chains"), 0);
    cr_assert_eq(count_entries("blobs/sha256"), 0);
    cr_assert_eq(count_entries("tmp"), 0);
    image_deinit(&base);
}

Test(image_store, a_held_image_stays_until_it_is_let_go)
{
    struct error err = {0};
    struct image image;
    int hold = -1, second = -1;
    autofree char *path = rootfs_tar("a.tar", "held");
    assert_imports_from(path, "a", &image);
    cr_assert_eq(image_store_hold(store, &image, &hold, &err), 0, "%s", err.message);
    cr_assert_eq(image_store_hold(store, &image, &second, &err), 0, "%s", err.message);
    cr_assert_eq(image_store_remove(store, "a", &err), 0, "%s", err.message);
    cr_assert_eq(image_store_get(store, "a", &image, &err), -1);
    assert_content(&image, "content", "held");
    close(second);
    reopen_with((struct image_limits){0});
    assert_content(&image, "content", "held");
    close(hold);
    reopen_with((struct image_limits){0});
    cr_assert_eq(count_entries("chains"), 0);
    cr_assert_eq(image_store_hold(store, &image, &hold, &err), -1);
    cr_assert_eq(err.code, ERROR_NOT_FOUND);
    image_deinit(&image);
}

/* ---- interrupted, damaged, at the same time ---- */

Test(image_store, opening_removes_what_an_interrupted_import_left)
{
    struct image image;
    autofree char *path = rootfs_tar("a.tar", "a");
    autofree char *scratch = string_printf("%s/tmp/dead/0/deep", store_path);
    autofree char *chain = string_printf("%s/chains/%064d/bin", store_path, 1);
    autofree char *half_index = string_printf("%s/index.json.abcdef", store_path);
    assert_imports_from(path, "a", &image);
    cr_assert_eq(make_directories(scratch, 0755, NULL), 0);
    cr_assert_eq(make_directories(chain, 0755, NULL), 0);
    write_text("{", 1, "%s", half_index);
    reopen_with((struct image_limits){0});
    cr_assert_eq(count_entries("tmp"), 0);
    cr_assert_eq(count_entries("chains"), 1);
    cr_assert_not(path_exists(half_index));
    assert_content(&image, "content", "a");
    image_deinit(&image);
}

Test(image_store, a_damaged_index_loses_no_image)
{
    static const char *const damaged[] = {
        "",
        "{\"version\":1,",
        "{\"version\":2,\"images\":[]}",
        "{\"version\":1,\"images\":[{\"name\":\"a\"}]}",
        "{\"version\":1,\"images\":[{\"name\":\"a\",\"config\":\"sha256:"
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\","
        "\"chains\":[\"../../etc\"]}]}",
    };
    struct error err = {0};
    struct image image;
    autofree char *path = rootfs_tar("a.tar", "a");
    autofree char *index = string_printf("%s/index.json", store_path);
    struct buffer good = BUFFER_INIT(1 << 20);
    assert_imports_from(path, "a", NULL);
    cr_assert_eq(buffer_read_file(&good, index, NULL), 0);
    for (size_t i = 0; i < ARRAY_LENGTH(damaged); i++) {
        write_text(damaged[i], strlen(damaged[i]), "%s", index);
        reopen_with((struct image_limits){0});
        cr_assert_eq(image_store_get(store, "a", &image, &err), -1);
        cr_assert_eq(err.code, ERROR_INTERNAL, "%s", err.message);
        cr_assert_eq(image_store_import(store, "b", path, NULL, NULL, &err), -1);
        cr_assert_eq(count_entries("chains"), 1);
    }
    write_text(good.data, good.len, "%s", index);
    cr_assert_eq(image_store_get(store, "a", &image, &err), 0, "%s", err.message);
    image_deinit(&image);
    buffer_deinit(&good);
}

/* In a child of its own: imports under its name, several times. */
static void import_in_child(int number, const char *path)
{
    char name[16];
    struct image_store *own = image_store_open(store_path, NULL, NULL);
    snprintf(name, sizeof(name), "child%d", number);
    for (int i = 0; i < 5; i++) {
        if (!own || image_store_import(own, name, path, NULL, NULL, NULL) < 0)
            _exit(1);
    }
    _exit(0);
}

Test(image_store, several_processes_import_at_once)
{
    struct error err = {0};
    struct image_list list;
    pid_t children[4];
    char *paths[4];
    for (int i = 0; i < 4; i++) {
        char name[16];
        snprintf(name, sizeof(name), "%d.tar", i / 2); /* pairs of the same content */
        paths[i] = rootfs_tar(name, i / 2 ? "one" : "two");
        children[i] = fork();
        if (children[i] == 0)
            import_in_child(i, paths[i]);
        cr_assert_gt(children[i], 0);
    }
    for (int i = 0; i < 4; i++) {
        int status;
        cr_assert_eq(waitpid(children[i], &status, 0), children[i]);
        cr_assert_eq(status, 0);
        free(paths[i]);
    }
    cr_assert_eq(image_store_list(store, &list, &err), 0, "%s", err.message);
    cr_assert_eq(list.count, 4u);
    cr_assert_eq(count_entries("chains"), 2);
    cr_assert_eq(count_entries("tmp"), 0);
    image_list_deinit(&list);
}

static unsigned progress_calls;

static void on_progress(void *data, const char *step, uint64_t done, uint64_t total)
{
    cr_assert_eq(data, &progress_calls);
    cr_assert_not_null(strstr(step, "layer"));
    cr_assert_leq(done, total);
    progress_calls++;
}

Test(image_store, progress_names_the_layer)
{
    struct error err = {0};
    struct made_image made = two_layers();
    const struct image_import_options options = {.progress = on_progress,
                                                 .progress_data = &progress_calls};
    finish_image(&made);
    write_only(&made);
    cr_assert_eq(image_store_import(store, "a", layout, &options, NULL, &err), 0, "%s",
                 err.message);
    cr_assert_geq(progress_calls, 2u);
}
