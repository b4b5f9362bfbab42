/* oci/image_store.h: what is taken in (root file systems, OCI layouts, docker archives) and what is refused. */
#include "image_store_fixture.h"

TestSuite(image_import, .init = fixture_set_up, .fini = fixture_tear_down);

/* ---- root file systems ---- */

Test(image_import, an_exported_root_file_system)
{
    struct image image, again;
    struct error err = {0};
    add((struct tar_entry){.name = ".dockerenv", .data = ""});
    add((struct tar_entry){.name = "bin/sh", .data = "shell", .mode = 04755});
    add((struct tar_entry){.name = "dev/console", .type = '3'});
    autofree char *path = tar_file("rootfs.tar");
    assert_imports_from(path, "tools", &image);
    cr_assert_str_eq(image.name, "tools:latest");
    cr_assert_str_eq(image.architecture, image_machine_architecture());
    cr_assert_str_eq(image.manifest_digest, "");
    cr_assert_eq(image.size_bytes, 5u);
    cr_assert_null(image.env[0]);
    cr_assert_null(image.cmd[0]);
    cr_assert_str_eq(image.user, "");
    assert_content(&image, "bin/sh", "shell");
    cr_assert_eq(mode_in(&image, "bin/sh"), S_IFREG | 0755);
    cr_assert_eq(mode_in(&image, "dev/console"), 0u);
    cr_assert_eq(image_store_get(store, "tools:latest", &again, &err), 0, "%s", err.message);
    cr_assert_str_eq(again.digest, image.digest);
    cr_assert_str_eq(again.rootfs, image.rootfs);
    image_deinit(&image);
    image_deinit(&again);
}

Test(image_import, a_packed_root_file_system_is_the_same_image)
{
    struct image plain, packed;
    struct buffer gz = BUFFER_INIT(ARCHIVE_MAX);
    add((struct tar_entry){.name = "a", .data = "a"});
    autofree char *path = tar_file("rootfs.tar");
    cr_assert_eq(buffer_read_file(&tar, path, NULL), 0);
    gzip(&gz, &tar);
    write_text(gz.data, gz.len, "%s/rootfs.tar.gz", folder);
    autofree char *packed_path = string_printf("%s/rootfs.tar.gz", folder);
    assert_imports_from(path, "plain", &plain);
    assert_imports_from(packed_path, "packed", &packed);
    cr_assert_str_eq(plain.digest, packed.digest);
    cr_assert_str_eq(plain.rootfs, packed.rootfs);
    cr_assert_eq(count_entries("chains"), 1);
    image_deinit(&plain);
    image_deinit(&packed);
    buffer_deinit(&gz);
}

Test(image_import, a_folder_is_copied)
{
    struct image image, again;
    autofree char *source = string_printf("%s/source", folder);
    autofree char *sub = string_printf("%s/etc", source);
    autofree char *link = string_printf("%s/link", source);
    autofree char *fifo = string_printf("%s/fifo", source);
    cr_assert_eq(make_directories(sub, 0700, NULL), 0);
    write_text("secret", 6, "%s/shadow", sub);
    cr_assert_eq(symlink("/etc/shadow", link), 0);
    cr_assert_eq(mkfifo(fifo, 0644), 0);
    assert_imports_from(source, "copy", &image);
    assert_content(&image, "etc/shadow", "secret");
    cr_assert(S_ISLNK(mode_in(&image, "link")));
    cr_assert_eq(mode_in(&image, "fifo"), 0u);
    cr_assert_eq(mode_in(&image, "etc"), S_IFDIR | 0755);
    assert_imports_from(source, "copy", &again);
    cr_assert_str_eq(image.digest, again.digest);
    image_deinit(&again);
    write_text("changed", 7, "%s/shadow", sub);
    assert_content(&image, "etc/shadow", "secret");
    assert_imports_from(source, "copy", &again);
    cr_assert_str_neq(image.digest, again.digest);
    image_deinit(&image);
    image_deinit(&again);
}

Test(image_import, a_truncated_root_file_system_is_refused)
{
    add((struct tar_entry){.name = "bin/sh", .size = 5000});
    tar.len = 700;
    write_text(tar.data, tar.len, "%s/cut.tar", folder);
    autofree char *path = string_printf("%s/cut.tar", folder);
    assert_refused_with(path, NULL, ERROR_INVALID_REQUEST, "Truncated");
}

Test(image_import, what_is_no_image_is_refused)
{
    write_text("hello\n", 6, "%s/hello", folder);
    autofree char *path = string_printf("%s/hello", folder);
    assert_refused_with(path, NULL, ERROR_INVALID_REQUEST, "no image");
    assert_refused_with("/dev/null", NULL, ERROR_INVALID_REQUEST, "neither a file nor a folder");
}

/* ---- OCI layouts ---- */

Test(image_import, an_oci_layout_with_its_config)
{
    struct image image;
    struct made_image made = two_layers();
    made.run_config = "{\"Env\":[\"A=1\",\"B=\"],\"Entrypoint\":[\"/sh\",\"-c\"],\"Cmd\":[\"x\"],"
                      "\"User\":\"7:8\",\"WorkingDir\":\"/work\"}";
    finish_image(&made);
    write_only(&made);
    assert_imports_from(layout, "mine:1", &image);
    cr_assert_str_eq(image.name, "mine:1");
    cr_assert_str_eq(image.digest, made.config);
    cr_assert_str_eq(image.manifest_digest, made.manifest);
    cr_assert_str_eq(image.env[0], "A=1");
    cr_assert_str_eq(image.env[1], "B=");
    cr_assert_null(image.env[2]);
    cr_assert_str_eq(image.entrypoint[1], "-c");
    cr_assert_str_eq(image.cmd[0], "x");
    cr_assert_str_eq(image.user, "7:8");
    cr_assert_str_eq(image.working_directory, "/work");
    cr_assert_eq(image.created, 1704164645);
    cr_assert_gt(image.imported, 1704164645);
    cr_assert_eq(image.size_bytes, 7u);
    assert_content(&image, "base", "base");
    assert_content(&image, "top", "top");
    cr_assert_eq(inode(&image, "gone", NULL), 0u);
    image_deinit(&image);
}

Test(image_import, images_share_the_layers_they_have_in_common)
{
    struct image base, top;
    struct made_image made = two_layers(), below = made;
    below.layer_count = 1;
    finish_image(&below);
    write_only(&below);
    assert_imports_from(layout, "base", &base);
    finish_image(&made);
    write_only(&made);
    assert_imports_from(layout, "top", &top);
    cr_assert_eq(count_entries("chains"), 2);
    cr_assert_eq(inode(&base, "base", NULL), inode(&top, "base", NULL));
    assert_content(&base, "gone", "gone");
    cr_assert_eq(inode(&base, "top", NULL), 0u);
    image_deinit(&base);
    image_deinit(&top);
}

Test(image_import, layers_that_are_there_need_not_be_read)
{
    struct made_image made = two_layers();
    finish_image(&made);
    write_only(&made);
    assert_imports_from(layout, "first", NULL);
    for (size_t i = 0; i < 2; i++) {
        autofree char *blob = string_printf("%s/blobs/sha256/%s", layout, made.digests[i] + 7);
        cr_assert_eq(unlink(blob), 0);
    }
    assert_imports_from(layout, "second", NULL);
    cr_assert_eq(count_entries("chains"), 2);
}

Test(image_import, a_layer_that_replaces_a_shared_file_leaves_the_other_images_alone)
{
    struct image base, top;
    struct made_image made = {.layout = layout};
    add((struct tar_entry){.name = "a", .data = "one", .mode = 0644});
    add_layer(&made, &tar, false);
    finish_image(&made);
    write_only(&made);
    assert_imports_from(layout, "base", &base);
    add((struct tar_entry){.name = "a", .data = "two", .mode = 0755});
    add_layer(&made, &tar, false);
    finish_image(&made);
    write_only(&made);
    assert_imports_from(layout, "top", &top);
    assert_content(&base, "a", "one");
    cr_assert_eq(mode_in(&base, "a"), S_IFREG | 0644);
    assert_content(&top, "a", "two");
    image_deinit(&base);
    image_deinit(&top);
}

Test(image_import, an_image_without_layers_is_an_empty_root)
{
    struct image image;
    struct made_image made = {.layout = layout};
    finish_image(&made);
    write_only(&made);
    assert_imports_from(layout, "scratch", &image);
    cr_assert_eq(image.size_bytes, 0u);
    cr_assert_eq(mode_in(&image, "proc"), S_IFDIR | 0755);
    image_deinit(&image);
}

/* ---- what does not agree ---- */

Test(image_import, a_damaged_layer_is_refused)
{
    struct made_image made = two_layers();
    finish_image(&made);
    write_only(&made);
    add((struct tar_entry){.name = "evil", .data = "evil"});
    put_zeros(&tar, made.sizes[1] - tar.len);
    write_text(tar.data, tar.len, "%s/blobs/sha256/%s", layout, made.digests[1] + 7);
    assert_refused("layer 2 of 2: it is damaged");
}

Test(image_import, a_layer_of_another_size_is_refused)
{
    struct made_image made = two_layers();
    made.sizes[0]++;
    finish_image(&made);
    write_only(&made);
    assert_refused("layer 1 of 2: it has");
}

Test(image_import, a_wrong_diff_id_is_refused)
{
    struct made_image made = two_layers();
    made.diff_ids[1][20] = made.diff_ids[1][20] == 'a' ? 'b' : 'a';
    finish_image(&made);
    write_only(&made);
    assert_refused("layer 2 of 2: unpacked, its digest is");
}

Test(image_import, a_missing_layer_is_refused)
{
    struct made_image made = two_layers();
    finish_image(&made);
    write_only(&made);
    autofree char *blob = string_printf("%s/blobs/sha256/%s", layout, made.digests[1] + 7);
    cr_assert_eq(unlink(blob), 0);
    assert_refused("is not in it");
}

Test(image_import, a_damaged_manifest_or_config_is_refused)
{
    struct made_image made = two_layers();
    finish_image(&made);
    write_only(&made);
    write_text("{}", 2, "%s/blobs/sha256/%s", layout, made.config + 7);
    assert_refused("the image config sha256:");
    write_text("{}", 2, "%s/blobs/sha256/%s", layout, made.manifest + 7);
    assert_refused("the image manifest sha256:");
    write_text("[[[[", 4, "%s/index.json", layout);
    assert_refused("the image index");
}

Test(image_import, more_layers_than_diff_ids_are_refused)
{
    struct made_image made = two_layers(), fewer = made;
    struct buffer config = BUFFER_INIT(1 << 20), manifest = BUFFER_INIT(1 << 20);
    fewer.layer_count = 1;
    config_json(&fewer, &config);
    add_blob(layout, config.data, config.len, made.config);
    buffer_printf(&manifest, NULL,
                  "{\"schemaVersion\":2,\"config\":{\"digest\":\"%s\",\"size\":%zu},\"layers\":["
                  "{\"digest\":\"%s\",\"size\":1},{\"digest\":\"%s\",\"size\":1}]}",
                  made.config, config.len, made.digests[0], made.digests[1]);
    add_blob(layout, manifest.data, manifest.len, made.manifest);
    made.manifest_len = manifest.len;
    write_only(&made);
    assert_refused("has 2 layers, its config 1");
    buffer_deinit(&config);
    buffer_deinit(&manifest);
}

Test(image_import, a_digest_that_is_a_path_is_refused)
{
    static const char index[] = "{\"schemaVersion\":2,\"manifests\":[{\"size\":5,\"digest\":"
                                "\"sha256:../../../../../../../../../../../../../etc/passwd\"}]}";
    write_text(index, strlen(index), "%s/index.json", layout);
    assert_refused("64 hexadecimal digits");
}

Test(image_import, a_blob_that_is_a_link_out_of_the_layout_is_refused)
{
    struct made_image made = two_layers();
    finish_image(&made);
    write_only(&made);
    autofree char *blob = string_printf("%s/blobs/sha256/%s", layout, made.digests[0] + 7);
    cr_assert_eq(unlink(blob), 0);
    cr_assert_eq(symlink("/etc/passwd", blob), 0);
    assert_refused("cannot open");
}

Test(image_import, another_machines_image_is_refused)
{
    struct made_image made = {.layout = layout, .architecture = "pdp11"};
    const char *name = NULL;
    const struct made_image *images[] = {&made};
    finish_image(&made);
    write_index(layout, images, &name, 1);
    assert_refused("linux/pdp11");
}

/* ---- several images ---- */

Test(image_import, one_of_several_by_platform_name_or_reference)
{
    struct image image;
    struct made_image one = two_layers(), two = one, other = one;
    const struct made_image *images[] = {&one, &two, &other};
    const char *names[] = {"one", "two", "other"};
    struct image_import_options options = {.reference = "two"};
    struct error err = {0};
    two.layer_count = 1;
    other.architecture = "pdp11";
    finish_image(&one);
    finish_image(&two);
    finish_image(&other);
    write_index(layout, images, names, 3);
    assert_refused("say which one by its reference: one");
    cr_assert_eq(image_store_import(store, "x", layout, &options, &image, &err), 0, "%s",
                 err.message);
    cr_assert_str_eq(image.digest, two.config);
    image_deinit(&image);
    assert_imports_from(layout, "x:one", &image);
    cr_assert_str_eq(image.digest, one.config);
    image_deinit(&image);
    options.reference = "other";
    assert_refused_with(layout, &options, ERROR_INVALID_REQUEST, "no image called \"other\"");
    write_index(layout, images + 1, names + 1, 2);
    assert_imports_from(layout, "only", &image);
    cr_assert_str_eq(image.digest, two.config);
    image_deinit(&image);
}

Test(image_import, an_index_in_an_index)
{
    struct image image;
    struct made_image made = two_layers(), list = {.layout = layout};
    const char *name = NULL;
    const struct made_image *inner = &made, *outer = &list;
    struct buffer index = BUFFER_INIT(1 << 20);
    autofree char *path = string_printf("%s/index.json", layout);
    finish_image(&made);
    write_index(layout, &inner, &name, 1);
    cr_assert_eq(buffer_read_file(&index, path, NULL), 0);
    add_blob(layout, index.data, index.len, list.manifest);
    list.manifest_len = index.len;
    write_index(layout, &outer, &name, 1);
    assert_imports_from(layout, "nested", &image);
    cr_assert_str_eq(image.manifest_digest, made.manifest);
    image_deinit(&image);
    buffer_deinit(&index);
}

/* ---- docker archives ---- */

static void add_config_member(const struct made_image *made, const char *name)
{
    struct buffer config = BUFFER_INIT(1 << 20);
    config_json(made, &config);
    add((struct tar_entry){.name = name, .data = config.data, .size = config.len});
    buffer_deinit(&config);
}

/* The old form: the second image's layer is a link to the first's. */
Test(image_import, a_docker_archive_with_linked_layers)
{
    struct image image;
    struct made_image made = {.layout = layout};
    struct buffer layer = BUFFER_INIT(ARCHIVE_MAX), before = BUFFER_INIT(ARCHIVE_MAX);
    struct image_import_options options = {.reference = "b:1"};
    struct error err = {0};
    tar_add(&layer, (struct tar_entry){.name = "file", .data = "content"});
    put(&before, layer.data, layer.len);
    add_layer(&made, &layer, false);
    tar_end(&before);
    add((struct tar_entry){.name = "one.tar", .data = before.data, .size = before.len});
    add((struct tar_entry){.name = "two.tar", .type = '2', .link = "./x/../one.tar"});
    add_config_member(&made, "c.json");
    add((struct tar_entry){
        .name = "manifest.json",
        .data = "[{\"Config\":\"c.json\",\"RepoTags\":[\"a:1\"],\"Layers\":[\"one.tar\"]},"
                "{\"Config\":\"c.json\",\"RepoTags\":[\"b:1\"],\"Layers\":[\"two.tar\"]}]"});
    autofree char *path = tar_file("docker.tar");
    cr_assert_eq(image_store_import(store, "b", path, &options, &image, &err), 0, "%s",
                 err.message);
    assert_content(&image, "file", "content");
    image_deinit(&image);
    assert_imports_from(path, "a:1", NULL);
    assert_refused_with(path, NULL, ERROR_INVALID_REQUEST, "a:1, b:1");
    buffer_deinit(&layer);
    buffer_deinit(&before);
}

Test(image_import, members_outside_of_a_docker_archive_are_not_found)
{
    struct made_image made = {.layout = layout};
    add_config_member(&made, "c.json");
    add((struct tar_entry){.name = "manifest.json",
                           .data = "[{\"Config\":\"../../etc/passwd\",\"Layers\":[]}]"});
    autofree char *path = tar_file("docker.tar");
    assert_refused_with(path, NULL, ERROR_INVALID_REQUEST, "\"../../etc/passwd\" is not in it");
    add((struct tar_entry){.name = "c.json", .type = '2', .link = "d.json"});
    add((struct tar_entry){.name = "d.json", .type = '2', .link = "c.json"});
    add((struct tar_entry){.name = "manifest.json",
                           .data = "[{\"Config\":\"c.json\",\"Layers\":[]}]"});
    autofree char *circle = tar_file("circle.tar");
    assert_refused_with(circle, NULL, ERROR_INVALID_REQUEST, "\"c.json\" is not in it");
}

Test(image_import, a_docker_config_that_does_not_fit_its_name_is_refused)
{
    struct made_image made = {.layout = layout};
    char name[80];
    snprintf(name, sizeof(name), "%064d.json", 7);
    add_config_member(&made, name);
    struct buffer manifest = BUFFER_INIT(4096);
    buffer_printf(&manifest, NULL, "[{\"Config\":\"%s\",\"Layers\":[]}]", name);
    add((struct tar_entry){.name = "manifest.json", .data = manifest.data});
    autofree char *path = tar_file("docker.tar");
    assert_refused_with(path, NULL, ERROR_INVALID_REQUEST, "the image config is damaged");
    buffer_deinit(&manifest);
}

/* The layout folder as a tar: what is in it is small. */
static char *layout_tar(const struct made_image *made, const char *name)
{
    static const char *const fixed[] = {"oci-layout", "index.json"};
    char members[8][128];
    size_t count = 0;
    for (size_t i = 0; i < ARRAY_LENGTH(fixed); i++)
        snprintf(members[count++], 128, "%s", fixed[i]);
    snprintf(members[count++], 128, "blobs/sha256/%s", made->manifest + 7);
    snprintf(members[count++], 128, "blobs/sha256/%s", made->config + 7);
    for (size_t i = 0; i < made->layer_count; i++)
        snprintf(members[count++], 128, "blobs/sha256/%s", made->digests[i] + 7);
    for (size_t i = 0; i < count; i++) {
        struct buffer content = BUFFER_INIT(1 << 20);
        autofree char *path = string_printf("%s/%s", layout, members[i]);
        cr_assert_eq(buffer_read_file(&content, path, NULL), 0);
        add((struct tar_entry){.name = members[i], .data = content.data, .size = content.len});
        buffer_deinit(&content);
    }
    return tar_file(name);
}

Test(image_import, an_oci_archive_plain_and_packed)
{
    struct image image;
    struct buffer plain = BUFFER_INIT(ARCHIVE_MAX), gz = BUFFER_INIT(ARCHIVE_MAX);
    struct made_image made = two_layers();
    finish_image(&made);
    write_only(&made);
    autofree char *path = layout_tar(&made, "oci.tar");
    autofree char *packed = string_printf("%s/oci.tar.gz", folder);
    assert_imports_from(path, "plain", &image);
    cr_assert_str_eq(image.digest, made.config);
    image_deinit(&image);
    cr_assert_eq(buffer_read_file(&plain, path, NULL), 0);
    gzip(&gz, &plain);
    write_text(gz.data, gz.len, "%s", packed);
    assert_imports_from(packed, "packed", &image);
    cr_assert_str_eq(image.digest, made.config);
    assert_content(&image, "top", "top");
    image_deinit(&image);
    write_text(gz.data, gz.len / 2, "%s", packed);
    assert_refused_with(packed, NULL, ERROR_INVALID_REQUEST, "truncated gzip");
    buffer_deinit(&plain);
    buffer_deinit(&gz);
}

/* ---- mount points ---- */

Test(image_import, mount_points_are_made)
{
    struct image image;
    add((struct tar_entry){.name = "bin/sh", .data = "sh"});
    autofree char *path = tar_file("rootfs.tar");
    assert_imports_from(path, "a", &image);
    for (size_t i = 0; i < image_store_default_mount_point_count; i++) {
        const struct image_mount_point *point = &image_store_default_mount_points[i];
        cr_assert_eq(mode_in(&image, point->path),
                     point->is_file ? (S_IFREG | 0644) : (S_IFDIR | 0755), "%s", point->path);
    }
    image_deinit(&image);
}

Test(image_import, mount_points_never_lead_out_of_the_root)
{
    struct image image;
    struct stat status;
    autofree char *outside = string_printf("%s/outside", folder);
    autofree char *escaped = string_printf("%s/outside/faas", folder);
    cr_assert_eq(mkdir(outside, 0755), 0);
    add((struct tar_entry){.name = "run", .type = '2', .link = outside}); /* "/tmp/…/outside" */
    add((struct tar_entry){.name = "etc/resolv.conf", .type = '2', .link = "/etc/passwd"});
    add((struct tar_entry){.name = "var/tmp/", .type = '5'});
    add((struct tar_entry){.name = "tmp", .type = '2', .link = "../../../../../../../var/tmp"});
    add((struct tar_entry){.name = "app", .type = '2', .link = "nowhere"});
    autofree char *path = tar_file("rootfs.tar");
    assert_imports_from(path, "hostile", &image);
    cr_assert_eq(stat(escaped, &status), -1);
    cr_assert_eq(mode_in(&image, "run/faas"), S_IFDIR | 0755);
    cr_assert_eq(mode_in(&image, "etc/resolv.conf"), S_IFREG | 0644);
    cr_assert(S_ISLNK(mode_in(&image, "tmp")));
    cr_assert_eq(mode_in(&image, "app/function"), S_IFDIR | 0755);
    image_deinit(&image);
}

Test(image_import, a_file_where_a_folder_must_be_mounted_is_refused)
{
    add((struct tar_entry){.name = "proc", .data = "x"});
    add((struct tar_entry){.name = "bin/sh", .data = "sh"});
    autofree char *path = tar_file("rootfs.tar");
    assert_refused_with(path, NULL, ERROR_INVALID_REQUEST, "mount point /proc");
}

/* ---- limits ---- */

Test(image_import, limits_hold)
{
    struct made_image made = two_layers();
    finish_image(&made);
    write_only(&made);
    reopen_with((struct image_limits){.max_layers = 1});
    assert_refused_with(layout, NULL, ERROR_PAYLOAD_TOO_LARGE, "2 layers");
    reopen_with((struct image_limits){.max_bytes = 10});
    assert_refused_with(layout, NULL, ERROR_PAYLOAD_TOO_LARGE, "layer 2 of 2");
    reopen_with((struct image_limits){.max_files = 2});
    assert_refused_with(layout, NULL, ERROR_PAYLOAD_TOO_LARGE, "layer 2 of 2");
    reopen_with((struct image_limits){.max_manifest_bytes = 100});
    assert_refused_with(layout, NULL, ERROR_PAYLOAD_TOO_LARGE, "index.json");
    reopen_with((struct image_limits){.max_bytes = 11, .max_files = 3, .max_layers = 2});
    assert_imports_from(layout, "fits", NULL);
}
