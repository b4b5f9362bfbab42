/* oci/layer.h: entries, whiteouts and digests of image layers (image-spec, layer.md). */
#include "oci/layer.h"

#include "archive_maker.h"
#include "base/cleanup.h"
#include "base/file.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char *folder;
static int root;
static struct buffer layer;
static bool has_lower;
static struct layer_result result;
static struct tree_writer_limits limits;

static void set_up(void)
{
    char template[] = "/tmp/faas-test-layer.XXXXXX";
    cr_assert_not_null(mkdtemp(template));
    folder = strdup(template);
    root = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    buffer_init(&layer, ARCHIVE_MAX);
    limits = (struct tree_writer_limits){
        .max_bytes = 1 << 20, .max_files = 1000, .max_path_bytes = 4095, .max_depth = 128};
}

static void tear_down(void)
{
    struct error err = {0};
    close(root);
    cr_assert_eq(remove_tree(folder, &err), 0, "%s", err.message);
    free(folder);
    buffer_deinit(&layer);
}

TestSuite(layer, .init = set_up, .fini = tear_down);

static void add(struct tar_entry entry)
{
    tar_add(&layer, entry);
}

static int apply_with(const struct layer_options *options, const struct buffer *bytes,
                      struct error *err)
{
    struct byte_stream *stream = byte_stream_from_memory(bytes->data, bytes->len);
    struct tree_writer writer;
    *err = (struct error){0};
    tree_writer_init(&writer, root, TREE_WRITER_LAYER, &limits);
    int status = layer_apply(stream, &writer, options, &result, err);
    tree_writer_deinit(&writer);
    byte_stream_close(&stream);
    return status;
}

/* Applies what was added, as the next layer. */
static void apply(void)
{
    struct error err;
    const struct layer_options options = {.has_lower = has_lower};
    tar_end(&layer);
    cr_assert_eq(apply_with(&options, &layer, &err), 0, "%s", err.message);
    has_lower = true;
    buffer_clear(&layer);
}

static void assert_refused(enum error_code code, const char *why)
{
    struct error err;
    const struct layer_options options = {.has_lower = has_lower};
    cr_assert_eq(apply_with(&options, &layer, &err), -1);
    cr_assert_eq(err.code, code, "%s", err.message);
    cr_assert_not_null(strstr(err.message, why), "%s", err.message);
}

static mode_t mode_of(const char *name)
{
    struct stat status;
    return fstatat(root, name, &status, AT_SYMLINK_NOFOLLOW) == 0 ? status.st_mode : 0;
}

static void assert_content(const char *name, const char *expected)
{
    autofree char *path = string_printf("%s/%s", folder, name);
    struct buffer content = BUFFER_INIT(1 << 20);
    struct error err = {0};
    cr_assert_eq(buffer_read_file(&content, path, &err), 0, "%s", err.message);
    cr_assert_str_eq(content.data ? content.data : "", expected);
    buffer_deinit(&content);
}

static void assert_absent(const char *name)
{
    cr_assert_eq(mode_of(name), 0u, "%s is there", name);
}

/* ---- entries ---- */

Test(layer, a_layer_replaces_what_lower_ones_have)
{
    add((struct tar_entry){.name = "file", .data = "old"});
    add((struct tar_entry){.name = "dir/a", .data = "a"});
    add((struct tar_entry){.name = "other/b", .data = "b"});
    add((struct tar_entry){.name = "link", .type = '2', .link = "file"});
    apply();
    add((struct tar_entry){.name = "file", .data = "new"});
    add((struct tar_entry){.name = "dir", .data = "now a file"});
    add((struct tar_entry){.name = "link/", .type = '5'});
    add((struct tar_entry){.name = "other/", .type = '5'});
    apply();
    assert_content("file", "new");
    assert_content("dir", "now a file");
    assert_content("other/b", "b");
    cr_assert(S_ISDIR(mode_of("link")));
}

/* Another image's tree may hold the same file. */
Test(layer, a_replaced_file_keeps_its_content_under_its_other_names)
{
    add((struct tar_entry){.name = "a", .data = "old", .mode = 0644});
    add((struct tar_entry){.name = "b", .type = '1', .link = "a"});
    apply();
    add((struct tar_entry){.name = "a", .data = "new", .mode = 0755});
    apply();
    assert_content("a", "new");
    assert_content("b", "old");
    cr_assert_eq(mode_of("b"), S_IFREG | 0644);
}

Test(layer, hard_links_reach_into_lower_layers)
{
    add((struct tar_entry){.name = "a", .data = "lower"});
    add((struct tar_entry){.name = "place", .data = "x"});
    apply();
    add((struct tar_entry){.name = "b", .type = '1', .link = "a"});
    add((struct tar_entry){.name = "place", .type = '1', .link = "/a"});
    add((struct tar_entry){.name = "a", .type = '1', .link = "a"});
    apply();
    assert_content("a", "lower");
    assert_content("b", "lower");
    assert_content("place", "lower");
}

Test(layer, paths_through_links_stay_in_the_root)
{
    struct stat before, after;
    cr_assert_eq(stat("/tmp", &before), 0);
    add((struct tar_entry){.name = "usr/lib/", .type = '5'});
    add((struct tar_entry){.name = "lib", .type = '2', .link = "usr/lib"});
    add((struct tar_entry){.name = "abs", .type = '2', .link = "/usr/lib"});
    add((struct tar_entry){.name = "up", .type = '2', .link = "../../../../../.."});
    apply();
    add((struct tar_entry){.name = "lib/a", .data = "1"});
    add((struct tar_entry){.name = "abs/b", .data = "2"});
    add((struct tar_entry){.name = "up/c", .data = "3"});
    add((struct tar_entry){.name = "/d", .data = "4"});
    apply();
    assert_content("usr/lib/a", "1");
    assert_content("usr/lib/b", "2");
    assert_content("c", "3");
    assert_content("d", "4");
    cr_assert(S_ISLNK(mode_of("lib")));
    cr_assert_eq(stat("/tmp", &after), 0);
    cr_assert_eq(before.st_nlink, after.st_nlink);
}

Test(layer, a_link_that_leads_nowhere_makes_way_for_a_folder)
{
    add((struct tar_entry){.name = "run", .type = '2', .link = "/not/there"});
    apply();
    add((struct tar_entry){.name = "run/a", .data = "1"});
    apply();
    cr_assert(S_ISDIR(mode_of("run")));
    assert_content("run/a", "1");
}

Test(layer, a_path_that_goes_up_is_refused)
{
    add((struct tar_entry){.name = "a/../../b", .data = "1"});
    assert_refused(ERROR_INVALID_REQUEST, "\"..\"");
}

Test(layer, modes_lose_what_containers_must_not_have)
{
    add((struct tar_entry){.name = "su", .data = "1", .mode = 04755});
    add((struct tar_entry){.name = "open", .data = "1", .mode = 0666});
    add((struct tar_entry){.name = "shadow", .data = "1", .mode = 0600});
    add((struct tar_entry){.name = "tmp/", .type = '5', .mode = 01777});
    add((struct tar_entry){.name = "root/", .type = '5', .mode = 0700});
    apply();
    cr_assert_eq(mode_of("su"), S_IFREG | 0755);
    cr_assert_eq(mode_of("open"), S_IFREG | 0644);
    cr_assert_eq(mode_of("shadow"), S_IFREG | 0600);
    cr_assert_eq(mode_of("tmp"), S_IFDIR | 0755);
    cr_assert_eq(mode_of("root"), S_IFDIR | 0755);
}

Test(layer, devices_and_fifos_are_left_out)
{
    add((struct tar_entry){.name = "dev/null", .type = '3'});
    add((struct tar_entry){.name = "dev/sda", .type = '4'});
    add((struct tar_entry){.name = "fifo", .type = '6'});
    add((struct tar_entry){.name = "after", .data = "1"});
    apply();
    assert_absent("dev/null");
    assert_absent("dev/sda");
    assert_absent("fifo");
    assert_content("after", "1");
}

/* ---- whiteouts ---- */

static void apply_lower(void)
{
    add((struct tar_entry){.name = "a", .data = "a"});
    add((struct tar_entry){.name = "d/one", .data = "1"});
    add((struct tar_entry){.name = "d/two", .data = "2"});
    add((struct tar_entry){.name = "d/sub/three", .data = "3"});
    apply();
}

Test(layer, a_whiteout_removes_a_file_or_a_tree)
{
    apply_lower();
    add((struct tar_entry){.name = ".wh.a", .data = ""});
    add((struct tar_entry){.name = "d/.wh.sub", .data = ""});
    add((struct tar_entry){.name = "d/.wh.missing", .data = ""});
    add((struct tar_entry){.name = "not/there/.wh.x", .data = ""});
    apply();
    assert_absent("a");
    assert_absent("d/sub");
    assert_absent(".wh.a");
    assert_absent("not");
    assert_content("d/one", "1");
}

Test(layer, a_whiteout_does_not_hide_the_same_layers_own_entry)
{
    apply_lower();
    add((struct tar_entry){.name = "a", .data = "own"});
    add((struct tar_entry){.name = ".wh.a", .data = ""});
    add((struct tar_entry){.name = "d/sub/own", .data = "own"});
    add((struct tar_entry){.name = "d/.wh.sub", .data = ""});
    apply();
    assert_content("a", "own");
    assert_content("d/sub/own", "own");
    assert_absent("d/sub/three");
}

Test(layer, an_opaque_folder_hides_lower_content_wherever_it_is_listed)
{
    for (int late = 0; late < 2; late++) {
        apply_lower();
        if (!late)
            add((struct tar_entry){.name = "d/.wh..wh..opq", .data = ""});
        add((struct tar_entry){.name = "d/", .type = '5'});
        add((struct tar_entry){.name = "d/new", .data = "new"});
        add((struct tar_entry){.name = "d/sub/own", .data = "own"});
        if (late)
            add((struct tar_entry){.name = "d/.wh..wh..opq", .data = ""});
        apply();
        assert_content("a", "a");
        assert_content("d/new", "new");
        assert_content("d/sub/own", "own");
        assert_absent("d/one");
        assert_absent("d/sub/three");
        assert_absent("d/.wh..wh..opq");
    }
}

Test(layer, an_opaque_root_hides_everything)
{
    apply_lower();
    add((struct tar_entry){.name = "new", .data = "new"});
    add((struct tar_entry){.name = ".wh..wh..opq", .data = ""});
    apply();
    assert_content("new", "new");
    assert_absent("a");
    assert_absent("d");
}

Test(layer, an_opaque_marker_for_what_is_not_there_is_fine)
{
    apply_lower();
    add((struct tar_entry){.name = "x/y/.wh..wh..opq", .data = ""});
    apply();
    assert_absent("x");
}

Test(layer, a_whiteout_removes_a_link_and_not_what_it_leads_to)
{
    add((struct tar_entry){.name = "real/a", .data = "a"});
    add((struct tar_entry){.name = "link", .type = '2', .link = "real"});
    apply();
    add((struct tar_entry){.name = ".wh.link", .data = ""});
    apply();
    assert_absent("link");
    assert_content("real/a", "a");
}

Test(layer, a_whiteout_of_the_folder_itself_or_its_parent_is_refused)
{
    static const char *const names[] = {"d/.wh...", "d/.wh..", "d/.wh."};
    apply_lower();
    for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
        buffer_clear(&layer);
        add((struct tar_entry){.name = names[i], .data = ""});
        tar_end(&layer);
        assert_refused(ERROR_INVALID_REQUEST, "hides no file name");
    }
}

/* As umoci lists them: the folder's replacement first, then what was in it. */
Test(layer, whiteouts_below_a_folder_that_became_something_else_are_ignored)
{
    apply_lower();
    add((struct tar_entry){.name = "other/one", .data = "other"});
    apply();
    add((struct tar_entry){.name = "d", .data = "a file"});
    add((struct tar_entry){.name = "d/.wh.one", .data = ""});
    add((struct tar_entry){.name = "d/sub/.wh.three", .data = ""});
    add((struct tar_entry){.name = "d/.wh..wh..opq", .data = ""});
    apply();
    assert_content("d", "a file");
    add((struct tar_entry){.name = "d", .type = '2', .link = "other"});
    add((struct tar_entry){.name = "d/.wh.one", .data = ""});
    add((struct tar_entry){.name = "d/.wh..wh..opq", .data = ""});
    apply();
    assert_content("other/one", "other");
}

Test(layer, storage_drivers_own_markers_are_ignored)
{
    apply_lower();
    add((struct tar_entry){.name = ".wh..wh.plnk/", .type = '5'});
    add((struct tar_entry){.name = "d/.wh..wh.aufs", .data = ""});
    apply();
    assert_absent(".wh..wh.plnk");
    assert_content("d/one", "1");
}

/* ---- bytes ---- */

static void digest(const struct buffer *bytes, char out[DIGEST_LEN + 1])
{
    strcpy(out, "sha256:");
    sha256_hex(bytes->data, bytes->len, out + 7);
}

Test(layer, digests_are_of_all_bytes)
{
    struct error err;
    const struct layer_options options = {0};
    struct buffer packed = BUFFER_INIT(ARCHIVE_MAX);
    char plain_digest[DIGEST_LEN + 1], packed_digest[DIGEST_LEN + 1];
    add((struct tar_entry){.name = "a", .size = 300000});
    tar_end(&layer);
    put_zeros(&layer, 20000); /* blocking, as tar pads to 20 blocks */
    gzip(&packed, &layer);
    put(&packed, "behind the end", 14);
    digest(&layer, plain_digest);
    digest(&packed, packed_digest);
    cr_assert_eq(apply_with(&options, &layer, &err), 0, "%s", err.message);
    cr_assert_str_eq(result.diff_id, plain_digest);
    cr_assert_str_eq(result.digest, plain_digest);
    cr_assert_eq(result.packed_bytes, layer.len);
    cr_assert_eq(apply_with(&options, &packed, &err), 0, "%s", err.message);
    cr_assert_str_eq(result.diff_id, plain_digest);
    cr_assert_str_eq(result.digest, packed_digest);
    cr_assert_eq(result.packed_bytes, packed.len);
    buffer_deinit(&packed);
}

Test(layer, a_short_last_block_is_completed_only_when_asked)
{
    struct error err;
    const struct layer_options lenient = {.complete_last_block = true};
    add((struct tar_entry){.name = "a", .data = "abc"});
    layer.len = 515;
    assert_refused(ERROR_INVALID_REQUEST, "Truncated");
    cr_assert_eq(apply_with(&lenient, &layer, &err), 0, "%s", err.message);
    assert_content("a", "abc");
    buffer_clear(&layer);
    add((struct tar_entry){.name = "b", .size = 2000});
    layer.len = 1200; /* whole blocks are missing */
    cr_assert_eq(apply_with(&lenient, &layer, &err), -1);
    cr_assert_eq(err.code, ERROR_INVALID_REQUEST);
}

Test(layer, what_is_no_layer_is_refused)
{
    put(&layer, "hello", 5);
    assert_refused(ERROR_INVALID_REQUEST, "another format");
    buffer_clear(&layer);
    put(&layer, "\x1f\x8b\x08\0broken", 10);
    assert_refused(ERROR_INVALID_REQUEST, "damaged");
    buffer_clear(&layer);
    put(&layer, "", 0);
    assert_refused(ERROR_INVALID_REQUEST, "empty");
}

Test(layer, limits_hold)
{
    add((struct tar_entry){.name = "a", .size = 600});
    add((struct tar_entry){.name = "b", .size = 600});
    tar_end(&layer);
    limits.max_bytes = 1199;
    assert_refused(ERROR_PAYLOAD_TOO_LARGE, "1199 bytes");
    limits.max_bytes = 1200;
    limits.max_files = 1;
    assert_refused(ERROR_PAYLOAD_TOO_LARGE, "more than 1 files");
}

/* Data of an entry that is left out costs time, not space: it is capped too. */
Test(layer, what_is_skipped_has_an_end)
{
    struct error err;
    const struct layer_options options = {.max_tar_bytes = 100000};
    add((struct tar_entry){.name = ".wh.a", .size = 200000});
    tar_end(&layer);
    cr_assert_eq(apply_with(&options, &layer, &err), -1);
    cr_assert_eq(err.code, ERROR_PAYLOAD_TOO_LARGE, "%s", err.message);
}

static uint64_t last_progress;

static void on_progress(void *data, uint64_t packed_bytes)
{
    (void)data;
    cr_assert_geq(packed_bytes, last_progress);
    last_progress = packed_bytes;
}

Test(layer, progress_ends_at_the_last_byte)
{
    struct error err;
    const struct layer_options options = {.progress = on_progress};
    add((struct tar_entry){.name = "a", .size = 1000000});
    tar_end(&layer);
    cr_assert_eq(apply_with(&options, &layer, &err), 0, "%s", err.message);
    cr_assert_eq(last_progress, layer.len);
}
