/* oci/archive.h: what code archives may hold, what is refused, and that packing is reproducible. */
#include "oci/archive.h"

#include "archive_maker.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/text.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char *folder;
static char *destination;
static struct buffer archive;

static void set_up(void)
{
    char template[] = "/tmp/faas-test-archive.XXXXXX";
    cr_assert_not_null(mkdtemp(template));
    folder = strdup(template);
    destination = string_printf("%s/code", folder);
    buffer_init(&archive, ARCHIVE_MAX);
}

static void tear_down(void)
{
    struct error err = {0};
    cr_assert_eq(remove_tree(folder, &err), 0, "%s", err.message);
    free(folder);
    free(destination);
    buffer_deinit(&archive);
}

TestSuite(archive, .init = set_up, .fini = tear_down);

/* ---- helpers ---- */

static int extract_with(const struct archive_limits *limits, struct error *err)
{
    *err = (struct error){0};
    return archive_extract(archive.data, archive.len, destination, limits, NULL, err);
}

static int entries_in_folder(void)
{
    int count = 0;
    DIR *open_folder = opendir(folder);
    while (readdir(open_folder))
        count++;
    closedir(open_folder);
    return count - 2;
}

static void assert_extracts(void)
{
    struct error err;
    cr_assert_eq(extract_with(NULL, &err), 0, "%s", err.message);
    cr_assert_eq(entries_in_folder(), 1, "something is left beside the destination");
}

/* Refused with an error that has both words in it, and nothing is left. */
static void assert_refused(enum error_code code, const char *entry, const char *why)
{
    struct error err;
    cr_assert_eq(extract_with(NULL, &err), -1);
    cr_assert_eq(err.code, code, "%d: %s", err.code, err.message);
    cr_assert_not_null(strstr(err.message, entry), "%s", err.message);
    cr_assert_not_null(strstr(err.message, why), "%s", err.message);
    cr_assert_eq(entries_in_folder(), 0, "something is left");
}

static void add(struct tar_entry entry)
{
    tar_add(&archive, entry);
}

static void assert_tar_refused(const char *entry, const char *why)
{
    tar_end(&archive);
    assert_refused(ERROR_INVALID_REQUEST, entry, why);
}

static char *below(const char *name)
{
    return string_printf("%s/%s", destination, name);
}

static mode_t mode_of(const char *name)
{
    autofree char *path = below(name);
    struct stat status;
    return lstat(path, &status) == 0 ? status.st_mode : 0;
}

static void assert_content(const char *name, const char *expected)
{
    autofree char *path = below(name);
    struct buffer content = BUFFER_INIT(1 << 20);
    struct error err = {0};
    cr_assert_eq(buffer_read_file(&content, path, &err), 0, "%s", err.message);
    cr_assert_str_eq(content.data ? content.data : "", expected);
    buffer_deinit(&content);
}

/* ---- kinds ---- */

Test(archive, kinds_are_told_by_the_bytes)
{
    struct buffer packed = BUFFER_INIT(ARCHIVE_MAX), zip = BUFFER_INIT(ARCHIVE_MAX);
    const struct zip_entry entry = {.name = "a", .data = "b"};
    add((struct tar_entry){.name = "a", .data = "b"});
    tar_end(&archive);
    gzip(&packed, &archive);
    make_zip(&zip, &entry, 1);
    cr_assert_eq(archive_detect(archive.data, archive.len), ARCHIVE_KIND_TAR);
    cr_assert_eq(archive_detect(packed.data, packed.len), ARCHIVE_KIND_TAR_GZIP);
    cr_assert_eq(archive_detect(zip.data, zip.len), ARCHIVE_KIND_ZIP);
    cr_assert_eq(archive_detect("print('hello')\n", 15), ARCHIVE_KIND_FILE);
    cr_assert_eq(archive_detect("", 0), ARCHIVE_KIND_FILE);
    cr_assert_eq(archive_detect("\xfd"
                                "7zXZ\0",
                                6),
                 ARCHIVE_KIND_UNSUPPORTED);
    cr_assert_str_eq(archive_kind_name(ARCHIVE_KIND_TAR_GZIP), "tar.gz");
    buffer_deinit(&packed);
    buffer_deinit(&zip);
}

Test(archive, a_long_source_file_is_not_taken_for_a_tar)
{
    char source[2048];
    memset(source, 'x', sizeof(source));
    cr_assert_eq(archive_detect(source, sizeof(source)), ARCHIVE_KIND_FILE);
    memset(source, '7', sizeof(source)); /* digits where a checksum would be */
    cr_assert_eq(archive_detect(source, sizeof(source)), ARCHIVE_KIND_FILE);
}

Test(archive, a_single_file_is_no_archive)
{
    put(&archive, "print(1)\n", 9);
    assert_refused(ERROR_INVALID_REQUEST, "no archive", "zip");
}

Test(archive, other_archives_are_refused_by_kind)
{
    put(&archive, "BZh91AY&SY...", 13);
    assert_refused(ERROR_INVALID_REQUEST, "not supported", "zip");
}

/* ---- what is taken ---- */

Test(archive, tar_zip_and_packed_tar_unpack_the_same)
{
    const struct zip_entry entries[] = {{.name = "main.py", .data = "print(1)"},
                                        {.name = "lib/util.py", .data = "x = 1"}};
    for (int kind = 0; kind < 3; kind++) {
        buffer_clear(&archive);
        add((struct tar_entry){.name = "./main.py", .data = "print(1)"});
        add((struct tar_entry){.name = "./lib/", .type = '5'});
        add((struct tar_entry){.name = "./lib/util.py", .data = "x = 1"});
        tar_end(&archive);
        if (kind == 1) {
            struct buffer plain = archive;
            buffer_init(&archive, ARCHIVE_MAX);
            gzip(&archive, &plain);
            buffer_deinit(&plain);
        } else if (kind == 2) {
            buffer_clear(&archive);
            make_zip(&archive, entries, 2);
        }
        assert_extracts();
        assert_content("main.py", "print(1)");
        assert_content("lib/util.py", "x = 1");
        cr_assert_eq(remove_tree(destination, NULL), 0);
    }
}

Test(archive, modes_become_two_whatever_the_umask)
{
    umask(0077);
    add((struct tar_entry){.name = "secret", .data = "a", .mode = 0600});
    add((struct tar_entry){.name = "run", .data = "a", .mode = 0700});
    add((struct tar_entry){.name = "setuid", .data = "a", .mode = 06755});
    add((struct tar_entry){.name = "open", .data = "a", .mode = 0666});
    add((struct tar_entry){.name = "closed/", .type = '5', .mode = 01700});
    add((struct tar_entry){.name = "implied/deep/file", .data = "a"});
    tar_end(&archive);
    assert_extracts();
    cr_assert_eq(mode_of("secret"), S_IFREG | 0644);
    cr_assert_eq(mode_of("run"), S_IFREG | 0755);
    cr_assert_eq(mode_of("setuid"), S_IFREG | 0755);
    cr_assert_eq(mode_of("open"), S_IFREG | 0644);
    cr_assert_eq(mode_of("closed"), S_IFDIR | 0755);
    cr_assert_eq(mode_of("implied"), S_IFDIR | 0755);
    cr_assert_eq(mode_of("implied/deep"), S_IFDIR | 0755);
    cr_assert_eq(mode_of(""), S_IFDIR | 0755);
}

Test(archive, times_are_kept)
{
    struct stat status;
    autofree char *file = below("d/f"), *sub = below("d");
    add((struct tar_entry){.name = "d/", .type = '5', .mtime = 1000000});
    add((struct tar_entry){.name = "d/f", .data = "a", .mtime = 2000000});
    tar_end(&archive);
    assert_extracts();
    cr_assert_eq(stat(file, &status), 0);
    cr_assert_eq(status.st_mtim.tv_sec, 2000000);
    cr_assert_eq(stat(sub, &status), 0);
    cr_assert_eq(status.st_mtim.tv_sec, 1000000);
}

Test(archive, names_are_bytes)
{
    const struct zip_entry entry = {.name = "caf\xc3\xa9.py", .data = "zip", .flags = 0x800};
    add((struct tar_entry){.name = "caf\xc3\xa9", .data = "composed"});
    add((struct tar_entry){.name = "cafe\xcc\x81", .data = "decomposed"});
    add((struct tar_entry){.name = "\xff\xfe", .data = "not UTF-8"});
    tar_end(&archive);
    assert_extracts();
    assert_content("caf\xc3\xa9", "composed");
    assert_content("cafe\xcc\x81", "decomposed");
    assert_content("\xff\xfe", "not UTF-8");
    cr_assert_eq(remove_tree(destination, NULL), 0);
    buffer_clear(&archive);
    make_zip(&archive, &entry, 1);
    assert_extracts();
    assert_content("caf\xc3\xa9.py", "zip");
}

/* A pax header's names are UTF-8 by definition; libarchive would convert them. */
Test(archive, names_in_pax_headers_are_bytes_too)
{
    add((struct tar_entry){
        .name = "PaxHeaders/x", .type = 'x', .data = "15 path=e\xcc\x81\xff.p\n"});
    add((struct tar_entry){.name = "x", .data = "long"});
    tar_end(&archive);
    assert_extracts();
    assert_content("e\xcc\x81\xff.p", "long");
}

Test(archive, links_that_stay_inside_are_kept)
{
    char target[64] = "";
    autofree char *link = below("bin/tool");
    add((struct tar_entry){.name = "lib/tool.js", .data = "tool"});
    add((struct tar_entry){.name = "bin/tool", .type = '2', .link = "../lib/tool.js"});
    add((struct tar_entry){.name = "dangling", .type = '2', .link = "not/there"});
    add((struct tar_entry){.name = "here", .type = '2', .link = "."});
    add((struct tar_entry){.name = "copy", .type = '1', .link = "./lib/tool.js"});
    tar_end(&archive);
    assert_extracts();
    cr_assert_gt(readlink(link, target, sizeof(target) - 1), 0);
    cr_assert_str_eq(target, "../lib/tool.js");
    assert_content("bin/tool", "tool");
    assert_content("copy", "tool");
}

Test(archive, a_folder_may_be_listed_twice)
{
    add((struct tar_entry){.name = "d/", .type = '5'});
    add((struct tar_entry){.name = "d/a", .data = "a"});
    add((struct tar_entry){.name = "./d", .type = '5'});
    tar_end(&archive);
    assert_extracts();
    assert_content("d/a", "a");
}

Test(archive, totals_tell_what_was_unpacked)
{
    struct archive_totals totals;
    struct error err = {0};
    add((struct tar_entry){.name = "a/b", .data = "12345"});
    add((struct tar_entry){.name = "c", .size = 1000});
    tar_end(&archive);
    cr_assert_eq(archive_extract(archive.data, archive.len, destination, NULL, &totals, &err), 0,
                 "%s", err.message);
    cr_assert_eq(totals.bytes, 1005u);
    cr_assert_eq(totals.files, 3u);
}

Test(archive, a_destination_that_exists_is_left_alone)
{
    struct error err;
    cr_assert_eq(mkdir(destination, 0700), 0);
    add((struct tar_entry){.name = "a", .data = "a"});
    tar_end(&archive);
    cr_assert_eq(extract_with(NULL, &err), -1);
    cr_assert_eq(err.code, ERROR_CONFLICT);
    cr_assert_eq(mode_of("a"), 0u);
    cr_assert_eq(entries_in_folder(), 1);
}

/* ---- attacks ---- */

Test(archive, an_absolute_path_is_refused)
{
    add((struct tar_entry){.name = "/etc/evil", .data = "a"});
    assert_tar_refused("/etc/evil", "absolute");
}

Test(archive, a_path_that_goes_up_is_refused)
{
    add((struct tar_entry){.name = "ok/../../evil", .data = "a"});
    assert_tar_refused("ok/../../evil", "\"..\"");
}

Test(archive, a_zip_path_that_goes_up_is_refused)
{
    const struct zip_entry entry = {.name = "../evil", .data = "a"};
    make_zip(&archive, &entry, 1);
    assert_refused(ERROR_INVALID_REQUEST, "../evil", "\"..\"");
}

Test(archive, an_absolute_link_is_refused)
{
    add((struct tar_entry){.name = "passwd", .type = '2', .link = "/etc/passwd"});
    assert_tar_refused("passwd", "leads out");
}

Test(archive, a_link_that_leads_out_is_refused)
{
    add((struct tar_entry){.name = "a/b/out", .type = '2', .link = "../../../etc/passwd"});
    assert_tar_refused("a/b/out", "leads out");
}

Test(archive, a_zip_link_that_leads_out_is_refused)
{
    const struct zip_entry entry = {.name = "out", .data = "../x", .mode = 0120777};
    make_zip(&archive, &entry, 1);
    assert_refused(ERROR_INVALID_REQUEST, "out", "leads out");
}

/* As text "a/up/.." is "a"; through the link it is the archive's parent. */
Test(archive, a_link_that_leads_out_through_another_link_is_refused)
{
    add((struct tar_entry){.name = "a/b/up", .type = '2', .link = "../.."});
    add((struct tar_entry){.name = "out", .type = '2', .link = "a/b/up/.."});
    assert_tar_refused("out", "leads out");
}

Test(archive, the_same_with_the_links_in_the_other_order)
{
    add((struct tar_entry){.name = "out", .type = '2', .link = "a/b/up/.."});
    add((struct tar_entry){.name = "a/b/up", .type = '2', .link = "../.."});
    assert_tar_refused("out", "leads out");
}

Test(archive, links_in_a_circle_are_refused)
{
    add((struct tar_entry){.name = "a", .type = '2', .link = "b"});
    add((struct tar_entry){.name = "b", .type = '2', .link = "a"});
    assert_tar_refused("a", "circle");
}

Test(archive, writing_through_a_link_is_refused)
{
    add((struct tar_entry){.name = "real/", .type = '5'});
    add((struct tar_entry){.name = "link", .type = '2', .link = "real"});
    add((struct tar_entry){.name = "link/file", .data = "a"});
    assert_tar_refused("link/file", "symbolic link");
}

Test(archive, making_folders_through_a_link_is_refused)
{
    add((struct tar_entry){.name = "link", .type = '2', .link = "nowhere"});
    add((struct tar_entry){.name = "link/a/b/file", .data = "a"});
    assert_tar_refused("link", "symbolic link");
}

Test(archive, a_file_in_place_of_a_link_is_refused)
{
    add((struct tar_entry){.name = "a", .type = '2', .link = "b"});
    add((struct tar_entry){.name = "a", .data = "a"});
    assert_tar_refused("a", "twice");
}

Test(archive, a_folder_in_place_of_a_link_is_refused)
{
    add((struct tar_entry){.name = "d/", .type = '5'});
    add((struct tar_entry){.name = "a", .type = '2', .link = "d"});
    add((struct tar_entry){.name = "a/", .type = '5'});
    assert_tar_refused("a", "twice");
}

Test(archive, the_same_file_twice_is_refused)
{
    const struct zip_entry entries[] = {{.name = "a", .data = "1"}, {.name = "./a", .data = "2"}};
    add((struct tar_entry){.name = "a", .data = "1"});
    add((struct tar_entry){.name = "./a", .data = "2"});
    assert_tar_refused("\"a\"", "twice");
    buffer_clear(&archive);
    make_zip(&archive, entries, 2);
    assert_refused(ERROR_INVALID_REQUEST, "a", "twice");
}

Test(archive, a_hard_link_to_outside_is_refused)
{
    add((struct tar_entry){.name = "a", .type = '1', .link = "/etc/passwd"});
    assert_tar_refused("/etc/passwd", "absolute");
    buffer_clear(&archive);
    add((struct tar_entry){.name = "a", .type = '1', .link = "../../etc/passwd"});
    assert_tar_refused("a", "\"..\"");
}

Test(archive, a_hard_link_through_a_link_is_refused)
{
    add((struct tar_entry){.name = "d/f", .data = "a"});
    add((struct tar_entry){.name = "l", .type = '2', .link = "d"});
    add((struct tar_entry){.name = "h", .type = '1', .link = "l/f"});
    assert_tar_refused("h", "no earlier file");
}

Test(archive, a_hard_link_to_a_link_or_folder_or_nothing_is_refused)
{
    static const char *const targets[] = {"link", "folder", "missing", "."};
    for (size_t i = 0; i < ARRAY_LENGTH(targets); i++) {
        buffer_clear(&archive);
        add((struct tar_entry){.name = "folder/", .type = '5'});
        add((struct tar_entry){.name = "link", .type = '2', .link = "folder"});
        add((struct tar_entry){.name = "h", .type = '1', .link = targets[i]});
        assert_tar_refused("h", "no earlier file");
    }
}

Test(archive, a_hard_link_is_never_written_through)
{
    add((struct tar_entry){.name = "a", .data = "first"});
    add((struct tar_entry){.name = "b", .type = '1', .link = "a"});
    add((struct tar_entry){.name = "b", .data = "second"});
    assert_tar_refused("b", "twice");
}

Test(archive, devices_fifos_and_unknown_types_are_refused)
{
    static const struct {
        char type;
        const char *name;
    } types[] = {{'3', "a device"}, {'4', "a device"}, {'6', "a fifo"}};
    for (size_t i = 0; i < ARRAY_LENGTH(types); i++) {
        buffer_clear(&archive);
        add((struct tar_entry){.name = "special", .type = types[i].type});
        assert_tar_refused("special", types[i].name);
    }
}

Test(archive, the_root_itself_must_be_a_folder)
{
    add((struct tar_entry){.name = "./", .type = '2', .link = "x"});
    assert_tar_refused("entry", "folder");
}

Test(archive, an_encrypted_zip_is_refused)
{
    const struct zip_entry entry = {.name = "secret", .data = "0123456789abcdef", .flags = 1};
    make_zip(&archive, &entry, 1);
    assert_refused(ERROR_INVALID_REQUEST, "secret", "encrypted");
}

Test(archive, a_zip_that_lies_about_sizes_is_refused)
{
    const struct zip_entry entry = {.name = "a", .data = "0123456789", .claimed = 5};
    make_zip(&archive, &entry, 1);
    assert_refused(ERROR_INVALID_REQUEST, "a", "damaged");
}

Test(archive, a_zip_with_a_wrong_checksum_is_refused)
{
    const struct zip_entry entry = {.name = "a", .data = "0123456789", .crc_error = 1};
    make_zip(&archive, &entry, 1);
    assert_refused(ERROR_INVALID_REQUEST, "a", "damaged");
}

Test(archive, a_name_cannot_forge_a_message)
{
    struct error err;
    add((struct tar_entry){.name = "/a\n\x1b[31mERROR", .data = "a"});
    tar_end(&archive);
    cr_assert_eq(extract_with(NULL, &err), -1);
    cr_assert_not_null(strstr(err.message, "/a\\x0a\\x1b[31mERROR"), "%s", err.message);
}

/* ---- damaged ---- */

Test(archive, a_truncated_tar_is_refused)
{
    add((struct tar_entry){.name = "a", .size = 5000});
    archive.len = 3000;
    assert_refused(ERROR_INVALID_REQUEST, "a", "damaged");
}

Test(archive, a_truncated_gzip_is_refused)
{
    struct buffer plain = BUFFER_INIT(ARCHIVE_MAX);
    tar_add(&plain, (struct tar_entry){.name = "a", .size = 5000});
    tar_end(&plain);
    gzip(&archive, &plain);
    archive.len = 3000;
    assert_refused(ERROR_INVALID_REQUEST, "a", "damaged");
    buffer_deinit(&plain);
}

Test(archive, a_truncated_zip_is_refused)
{
    const struct zip_entry entry = {.name = "a", .data = "0123456789"};
    make_zip(&archive, &entry, 1);
    archive.len -= 30;
    assert_refused(ERROR_INVALID_REQUEST, "archive", "damaged");
}

Test(archive, gzip_of_something_else_is_refused)
{
    struct buffer plain = BUFFER_INIT(ARCHIVE_MAX);
    put(&plain, "print(1)", 8);
    gzip(&archive, &plain);
    assert_refused(ERROR_INVALID_REQUEST, "archive", "another format");
    buffer_deinit(&plain);
}

Test(archive, a_second_header_that_is_damaged_is_refused)
{
    add((struct tar_entry){.name = "a", .data = "a"});
    size_t second = archive.len;
    add((struct tar_entry){.name = "b", .data = "b"});
    tar_end(&archive);
    archive.data[second] = 'c';
    assert_refused(ERROR_INVALID_REQUEST, "archive", "damaged");
}

Test(archive, an_empty_archive_is_refused)
{
    tar_end(&archive);
    assert_refused(ERROR_INVALID_REQUEST, "archive", "empty");
}

/* ---- limits ---- */

static void assert_over(struct archive_limits limits, enum error_code code, const char *why)
{
    struct error err;
    cr_assert_eq(extract_with(&limits, &err), -1);
    cr_assert_eq(err.code, code, "%s", err.message);
    cr_assert_not_null(strstr(err.message, why), "%s", err.message);
    cr_assert_eq(entries_in_folder(), 0);
}

Test(archive, each_limit_holds_exactly)
{
    struct error err;
    add((struct tar_entry){.name = "a/bc", .size = 600});
    add((struct tar_entry){.name = "a/d", .size = 400});
    tar_end(&archive);
    const struct archive_limits exact = {.max_packed_bytes = archive.len,
                                         .max_unpacked_bytes = 1000,
                                         .max_files = 3,
                                         .max_path_bytes = 4,
                                         .max_depth = 2};
    cr_assert_eq(extract_with(&exact, &err), 0, "%s", err.message);
    cr_assert_eq(remove_tree(destination, NULL), 0);
    assert_over((struct archive_limits){.max_packed_bytes = archive.len - 1},
                ERROR_PAYLOAD_TOO_LARGE, "bytes");
    assert_over((struct archive_limits){.max_unpacked_bytes = 999}, ERROR_PAYLOAD_TOO_LARGE,
                "999 bytes");
    assert_over((struct archive_limits){.max_files = 2}, ERROR_PAYLOAD_TOO_LARGE, "2 files");
    assert_over((struct archive_limits){.max_path_bytes = 3}, ERROR_INVALID_REQUEST, "too long");
    assert_over((struct archive_limits){.max_depth = 1}, ERROR_INVALID_REQUEST, "too many folders");
}

Test(archive, folders_made_on_the_way_count_as_files)
{
    add((struct tar_entry){.name = "a/b/c/d/e/f", .data = "a"});
    tar_end(&archive);
    assert_over((struct archive_limits){.max_files = 5}, ERROR_PAYLOAD_TOO_LARGE, "5 files");
}

/* GNU's old sparse format: 4 bytes of data and a hole of half a gigabyte more than is allowed. */
Test(archive, a_hole_counts_as_if_it_were_written)
{
    unsigned char *head;
    unsigned sum = 0;
    add((struct tar_entry){.name = "sparse", .type = 'S', .data = "data"});
    tar_end(&archive);
    head = (unsigned char *)archive.data;
    memcpy(head + 257, "ustar  ", 8);
    snprintf((char *)head + 386, 12, "%011o", 0x3ffffffcu);
    snprintf((char *)head + 398, 12, "%011o", 4u);
    snprintf((char *)head + 483, 12, "%011o", 0x40000000u);
    memset(head + 148, ' ', 8);
    for (int i = 0; i < 512; i++)
        sum += head[i];
    snprintf((char *)head + 148, 8, "%06o", sum);
    assert_refused(ERROR_PAYLOAD_TOO_LARGE, "sparse", "536870912 bytes");
}

Test(archive, data_of_what_is_no_file_is_refused)
{
    const struct zip_entry entry = {.name = "d/", .data = "data", .mode = 0040755};
    make_zip(&archive, &entry, 1);
    assert_refused(ERROR_INVALID_REQUEST, "d", "data");
}

/* ---- one source file ---- */

Test(archive, a_source_file_becomes_a_folder_with_it)
{
    struct error err = {0};
    cr_assert_eq(archive_extract_file("x = 1", 5, "main.py", false, destination, &err), 0, "%s",
                 err.message);
    assert_content("main.py", "x = 1");
    cr_assert_eq(mode_of("main.py"), S_IFREG | 0644);
    cr_assert_eq(mode_of(""), S_IFDIR | 0755);
    cr_assert_eq(remove_tree(destination, NULL), 0);
    cr_assert_eq(archive_extract_file("", 0, "bootstrap", true, destination, &err), 0);
    cr_assert_eq(mode_of("bootstrap"), S_IFREG | 0755);
}

Test(archive, a_source_files_name_is_no_path)
{
    static const char *const names[] = {"", ".", "..", "../x", "a/b", "/x"};
    struct error err = {0};
    for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
        cr_assert_eq(archive_extract_file("a", 1, names[i], false, destination, &err), -1);
        cr_assert_eq(err.code, ERROR_INVALID_REQUEST);
    }
    cr_assert_eq(entries_in_folder(), 0);
}

/* ---- packing ---- */

static char *tree;

static void write_in_tree(const char *name, const char *content, mode_t mode)
{
    autofree char *path = string_printf("%s/%s", tree, name);
    struct error err = {0};
    cr_assert_eq(write_file_atomic(path, content, strlen(content), mode, false, &err), 0, "%s",
                 err.message);
}

static void make_tree(void)
{
    tree = string_printf("%s/tree", folder);
    autofree char *sub = string_printf("%s/lib/.git", tree);
    autofree char *git = string_printf("%s/.git", tree);
    autofree char *link = string_printf("%s/link", tree);
    cr_assert_eq(make_directories(sub, 0755, NULL), 0);
    cr_assert_eq(make_directories(git, 0755, NULL), 0);
    write_in_tree("main.py", "print(1)", 0600);
    write_in_tree("lib/b", "bb", 0700);
    write_in_tree(".git/config", "secret", 0644);
    cr_assert_eq(symlink("lib/b", link), 0);
}

Test(archive, a_packed_folder_unpacks_to_the_same_without_git)
{
    struct error err = {0};
    make_tree();
    cr_assert_eq(archive_pack_directory(tree, ARCHIVE_MAX, &archive, &err), 0, "%s", err.message);
    cr_assert_eq(remove_tree(tree, NULL), 0);
    assert_extracts();
    assert_content("main.py", "print(1)");
    assert_content("link", "bb");
    cr_assert_eq(mode_of("main.py"), S_IFREG | 0644);
    cr_assert_eq(mode_of("lib/b"), S_IFREG | 0755);
    cr_assert(S_ISLNK(mode_of("link")));
    cr_assert_eq(mode_of(".git"), 0u);
    cr_assert_eq(mode_of("lib/.git"), 0u);
    free(tree);
}

Test(archive, packing_is_reproducible)
{
    struct error err = {0};
    struct buffer again = BUFFER_INIT(ARCHIVE_MAX);
    const struct timespec times[2] = {{.tv_sec = 1}, {.tv_sec = 2}};
    make_tree();
    autofree char *file = string_printf("%s/main.py", tree);
    cr_assert_eq(archive_pack_directory(tree, ARCHIVE_MAX, &archive, &err), 0, "%s", err.message);
    cr_assert_eq(utimensat(AT_FDCWD, file, times, 0), 0);
    cr_assert_eq(chmod(file, 0640), 0);
    cr_assert_eq(chown(file, 1234, 1234), 0);
    cr_assert_eq(archive_pack_directory(tree, ARCHIVE_MAX, &again, &err), 0, "%s", err.message);
    cr_assert_eq(archive.len, again.len);
    cr_assert_arr_eq(archive.data, again.data, again.len);
    buffer_deinit(&again);
    free(tree);
}

Test(archive, packing_over_the_cap_appends_nothing)
{
    struct error err = {0};
    make_tree();
    put(&archive, "before", 6);
    cr_assert_eq(archive_pack_directory(tree, 50, &archive, &err), -1);
    cr_assert_eq(err.code, ERROR_PAYLOAD_TOO_LARGE, "%s", err.message);
    cr_assert_str_eq(archive.data, "before");
    free(tree);
}

Test(archive, packing_follows_no_link_and_opens_no_fifo)
{
    struct error err = {0};
    make_tree();
    autofree char *fifo = string_printf("%s/fifo", tree);
    cr_assert_eq(archive_pack_directory("/nowhere/at/all", 1000, &archive, &err), -1);
    cr_assert_eq(err.code, ERROR_NOT_FOUND);
    cr_assert_eq(mkfifo(fifo, 0644), 0);
    cr_assert_eq(archive_pack_directory(tree, ARCHIVE_MAX, &archive, &err), -1);
    cr_assert_eq(err.code, ERROR_INVALID_REQUEST);
    cr_assert_not_null(strstr(err.message, "\"fifo\""), "%s", err.message);
    cr_assert_eq(archive_pack_file(fifo, "main.py", ARCHIVE_MAX, &archive, &err), -1);
    cr_assert_eq(err.code, ERROR_INVALID_REQUEST);
    free(tree);
}

Test(archive, one_file_is_packed_under_the_name_asked_for)
{
    struct error err = {0};
    make_tree();
    autofree char *file = string_printf("%s/lib/b", tree);
    cr_assert_eq(archive_pack_file(file, "bootstrap", ARCHIVE_MAX, &archive, &err), 0, "%s",
                 err.message);
    cr_assert_eq(remove_tree(tree, NULL), 0);
    assert_extracts();
    assert_content("bootstrap", "bb");
    cr_assert_eq(mode_of("bootstrap"), S_IFREG | 0755);
    free(tree);
}
