/* The code cache in a folder of its own, with a test as the source of the bytes. */
#include "worker/code_cache.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/loop.h"
#include "base/text.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static uv_loop_t loop;
static char directory[64];
static struct code_cache *cache;

/* What the source gives, and how often it was asked. */
static const char *content;
static bool unreachable;
static int fetches;

struct fetch {
    code_fetched_fn *done;
    void *data;
};

static void deliver(void *data)
{
    struct fetch *fetch = data;
    struct error err = {0};
    error_set(&err, ERROR_UNAVAILABLE, "nobody there");
    if (unreachable)
        fetch->done(fetch->data, NULL, 0, &err);
    else
        fetch->done(fetch->data, strdup(content), strlen(content), NULL);
    free(fetch);
}

static int fetch(void *source, const char *sha256, size_t max_bytes, code_fetched_fn *done,
                 void *data, struct error *err)
{
    struct fetch *pending = malloc(sizeof(*pending));
    (void)source;
    (void)max_bytes;
    cr_expect_eq(strlen(sha256), SHA256_HEX_LEN);
    *pending = (struct fetch){done, data};
    fetches++;
    return loop_defer(&loop, deliver, pending, err);
}

static struct code *got[8];
static struct error got_err;
static int answers;

static void on_code(void *data, struct code *code, const struct error *err)
{
    got[(size_t)data] = code;
    if (err)
        got_err = *err;
    answers++;
}

static void open_cache(uint64_t max_bytes)
{
    struct error err = {0};
    struct code_cache_options options = {.directory = directory, .max_bytes = max_bytes};
    cache = code_cache_new(&loop, &options, &err);
    cr_assert_not_null(cache, "%s", err.message);
}

static void set_up(void)
{
    strcpy(directory, "/tmp/test-code-cache-XXXXXX");
    cr_assert_not_null(mkdtemp(directory));
    uv_loop_init(&loop);
    open_cache(1 << 20);
}

static void tear_down(void)
{
    for (size_t i = 0; i < ARRAY_LENGTH(got); i++)
        code_unref(got[i]);
    code_cache_free(cache);
    loop_close(&loop);
    remove_tree(directory, NULL);
}

TestSuite(code_cache, .init = set_up, .fini = tear_down);

/* Asks for `text` as code. */
static void ask(size_t index, const char *text, const char *entry)
{
    char sha256[SHA256_HEX_LEN + 1];
    struct error err = {0};
    content = text;
    sha256_hex(text, strlen(text), sha256);
    cr_assert_eq(code_cache_get(cache, sha256, entry, fetch, NULL, on_code, (void *)index, &err), 0,
                 "%s", err.message);
}

static void get(size_t index, const char *text, const char *entry)
{
    ask(index, text, entry);
    uv_run(&loop, UV_RUN_DEFAULT);
}

static size_t folders(void)
{
    size_t count = 0;
    DIR *handle = opendir(directory);
    const struct dirent *entry;
    while ((entry = readdir(handle)))
        count += entry->d_name[0] != '.';
    closedir(handle);
    return count;
}

static void expect_file(const struct code *code, const char *name, const char *text)
{
    with_cleanup(buffer_deinit) struct buffer found = BUFFER_INIT(1 << 20);
    autofree char *path = string_printf("%s/%s", code_directory(code), name);
    cr_assert_eq(buffer_read_file(&found, path, NULL), 0, "%s", path);
    cr_expect_str_eq(found.data, text);
}

Test(code_cache, a_source_file_gets_the_entry_name)
{
    get(0, "print(1)", "main.py");
    cr_assert_not_null(got[0], "%s", got_err.message);
    expect_file(got[0], "main.py", "print(1)");
}

Test(code_cache, an_es_module_gets_its_extension)
{
    get(0, "import x from 'y';\n", "index.js");
    expect_file(got[0], "index.mjs", "import x from 'y';\n");
    get(1, "const x = 'import y';\n", "index.js");
    expect_file(got[1], "index.js", "const x = 'import y';\n");
}

Test(code_cache, a_program_can_be_executed)
{
    struct stat st;
    get(0, "#!/bin/sh\n", "bootstrap");
    autofree char *path = string_printf("%s/bootstrap", code_directory(got[0]));
    cr_assert_eq(stat(path, &st), 0);
    cr_expect_eq(st.st_mode & 0777, 0755);
}

Test(code_cache, the_same_code_asked_for_at_once_is_fetched_once)
{
    for (size_t i = 0; i < 4; i++)
        ask(i, "print(1)", "main.py");
    cr_expect_eq(answers, 0, "never from inside of the call");
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_expect_eq(answers, 4);
    cr_expect_eq(fetches, 1);
    for (size_t i = 1; i < 4; i++)
        cr_expect_eq(got[i], got[0]);
    get(4, "print(1)", "main.py");
    cr_expect_eq(fetches, 1);
    cr_expect_eq(got[4], got[0]);
}

Test(code_cache, the_same_bytes_for_another_entry_are_another_code)
{
    get(0, "1", "main.py");
    get(1, "1", "index.js");
    cr_expect_neq(got[0], got[1]);
    expect_file(got[1], "index.js", "1");
}

Test(code_cache, bytes_with_another_digest_are_refused)
{
    ask(0, "print(1)", "main.py");
    content = "print(2)";
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_expect_null(got[0]);
    cr_expect_eq(got_err.code, ERROR_UNAVAILABLE);
    cr_expect_eq(folders(), 0);
    get(0, "print(1)", "main.py");
    cr_expect_not_null(got[0], "and asked for again");
}

Test(code_cache, a_failed_fetch_is_told_to_all_and_not_kept)
{
    unreachable = true;
    ask(0, "print(1)", "main.py");
    ask(1, "print(1)", "main.py");
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_expect_eq(answers, 2);
    cr_expect_null(got[0]);
    cr_expect_null(got[1]);
    unreachable = false;
    get(0, "print(1)", "main.py");
    cr_expect_not_null(got[0]);
}

Test(code_cache, it_survives_a_restart_and_clears_what_is_half_done)
{
    get(0, "print(1)", "main.py");
    code_unref(got[0]);
    got[0] = NULL;
    code_cache_free(cache);
    autofree char *half = string_printf("%s/.half-done", directory);
    cr_assert_eq(make_directories(half, 0755, NULL), 0);
    open_cache(1 << 20);
    cr_expect_not(path_exists(half));
    cr_expect_gt(code_cache_bytes(cache), 0);
    get(0, "print(1)", "main.py");
    cr_expect_eq(fetches, 1);
    expect_file(got[0], "main.py", "print(1)");
}

Test(code_cache, over_the_cap_the_least_recently_used_goes_but_nothing_in_use)
{
    static char texts[3][600001];
    for (int i = 0; i < 3; i++) {
        memset(texts[i], 'a' + i, 600000);
        get((size_t)i, texts[i], "main.py");
        cr_assert_not_null(got[i], "%s", got_err.message);
    }
    cr_expect_eq(folders(), 3, "all are in use");
    code_unref(got[1]);
    got[1] = NULL;
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_expect_eq(folders(), 2);
    cr_expect(path_exists(code_directory(got[0])));
    code_unref(got[0]);
    got[0] = NULL;
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_expect_eq(folders(), 1);
    cr_expect(path_exists(code_directory(got[2])));
    cr_expect_leq(code_cache_bytes(cache), 1 << 20);
}

Test(code_cache, names_that_lead_elsewhere_are_refused)
{
    char sha256[SHA256_HEX_LEN + 1];
    sha256_hex("", 0, sha256);
    cr_expect_lt(code_cache_get(cache, sha256, "../x", fetch, NULL, on_code, NULL, NULL), 0);
    cr_expect_lt(code_cache_get(cache, "../../x", "main.py", fetch, NULL, on_code, NULL, NULL), 0);
}

Test(code_cache, who_waits_when_it_is_freed_still_gets_an_answer)
{
    ask(0, "print(1)", "main.py");
    code_cache_free(cache);
    cache = NULL;
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_expect_eq(answers, 1);
    cr_expect_null(got[0]);
}
