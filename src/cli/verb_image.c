/* faas image import, list, rm: the image store of this machine, without a controller. */
#include "base/cleanup.h"
#include "base/loop.h"
#include "base/text.h"
#include "cli/output.h"
#include "cli/verbs.h"
#include "oci/image_store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define DEFAULT_IMAGE_DIR "/var/lib/faas/images"

static struct image_store *open_store(const struct cli *cli, struct error *err)
{
    const char *directory = cli_option(cli, "image-dir");
    if (!directory)
        directory = getenv("WORKER_IMAGE_DIR");
    return image_store_open(directory && directory[0] ? directory : DEFAULT_IMAGE_DIR, NULL, err);
}

static void show_progress(void *data, const char *step, uint64_t done, uint64_t total)
{
    char done_text[32];
    (void)data;
    format_bytes(done, done_text, sizeof(done_text));
    if (total)
        fprintf(stderr, "\r\033[K%s: %s, %u %%", step, done_text, (unsigned)(done * 100 / total));
    else
        fprintf(stderr, "\r\033[K%s: %s", step, done_text);
}

static void write_image(struct json_writer *writer, const struct image *image)
{
    char created[25];
    json_object_begin(writer);
    json_member_string(writer, "name", image->name);
    json_member_string(writer, "digest", image->digest);
    json_member_string(writer, "rootfs", image->rootfs);
    json_member_string(writer, "architecture", image->architecture);
    json_member_int(writer, "size", (int64_t)image->size_bytes);
    clock_format_rfc3339((uint64_t)image->imported * 1000000000ULL, created);
    json_member_string(writer, "imported_at", created);
    json_object_end(writer);
}

static void print_image_json(const struct image *image)
{
    struct buffer out = BUFFER_INIT(64 * 1024);
    struct json_writer *writer = json_writer_new(&out);
    write_image(writer, image);
    if (json_writer_finish(writer, NULL) == 0)
        printf("%s\n", out.data);
    buffer_deinit(&out);
}

static int run_import(struct cli *cli)
{
    struct error err = {0};
    struct image image = {0};
    bool terminal = isatty(STDERR_FILENO);
    struct image_import_options options = {.reference = cli_option(cli, "reference"),
                                           .progress =
                                               terminal && !cli_json(cli) ? show_progress : NULL};
    struct image_store *store = open_store(cli, &err);
    int result = store ? image_store_import(store, cli->arguments[0], cli->arguments[1], &options,
                                            &image, &err)
                       : -1;

    if (options.progress)
        fprintf(stderr, "\r\033[K");
    image_store_close(store);
    if (result)
        return cli_fail(cli, &err);
    if (cli_json(cli)) {
        print_image_json(&image);
    } else {
        char size[32];
        format_bytes(image.size_bytes, size, sizeof(size));
        printf("%s: %s, %.19s\n", image.name, size, image.digest);
    }
    image_deinit(&image);
    return 0;
}

static void print_images(const struct image_list *list)
{
    static const char *const titles[] = {"IMAGE", "DIGEST", "SIZE", "ARCHITECTURE", "IMPORTED"};
    struct table table;
    table_init(&table, titles, ARRAY_LENGTH(titles));
    for (size_t i = 0; i < list->count; i++) {
        const struct image *image = &list->images[i];
        char text[64], imported[25];
        table_add(&table, image->name);
        snprintf(text, sizeof(text), "%.19s", image->digest);
        table_add(&table, text);
        format_bytes(image->size_bytes, text, sizeof(text));
        table_add(&table, text);
        table_add(&table, image->architecture);
        clock_format_rfc3339((uint64_t)image->imported * 1000000000ULL, imported);
        format_age(imported, text, sizeof(text));
        table_add(&table, text);
    }
    table_finish(&table);
}

static int run_image_list(struct cli *cli)
{
    struct error err = {0};
    struct image_list list = {0};
    struct image_store *store = open_store(cli, &err);
    int result = store ? image_store_list(store, &list, &err) : -1;

    image_store_close(store);
    if (result)
        return cli_fail(cli, &err);
    if (cli_json(cli))
        for (size_t i = 0; i < list.count; i++)
            print_image_json(&list.images[i]);
    else
        print_images(&list);
    image_list_deinit(&list);
    return 0;
}

static int run_image_rm(struct cli *cli)
{
    struct error err = {0};
    struct image_store *store = open_store(cli, &err);
    int result = store ? image_store_remove(store, cli->arguments[0], &err) : -1;

    image_store_close(store);
    if (result)
        return cli_fail(cli, &err);
    if (!cli_json(cli))
        printf("%s is removed\n", cli->arguments[0]);
    return 0;
}

static const struct cli_option import_options[] = {
    {"reference", 0, "REF", "which image, when FILE holds several", NULL},
    {"image-dir", 0, "DIR",
     "the store (default " DEFAULT_IMAGE_DIR "; environment: WORKER_IMAGE_DIR)", NULL},
};
static const struct cli_option store_options[] = {
    {"image-dir", 0, "DIR",
     "the store (default " DEFAULT_IMAGE_DIR "; environment: WORKER_IMAGE_DIR)", NULL},
};

const struct cli_verb cli_verb_image_import = {
    .name = "image import",
    .arguments = "NAME FILE|DIR",
    .summary = "import an image into this machine's store",
    .description = "FILE is an exported root file system (tar, as of `docker export`), a `docker "
                   "save` archive, or an OCI image layout\n"
                   "(folder or tar). Layers may be packed with gzip or zstd; digests are verified.",
    .example = "faas image import my-python:latest my-python.tar\nfaas deploy hello --image "
               "my-python:latest",
    .options = import_options,
    .option_count = ARRAY_LENGTH(import_options),
    .min_arguments = 2,
    .max_arguments = 2,
    .run = run_import,
};
const struct cli_verb cli_verb_image_list = {
    .name = "image list",
    .arguments = "",
    .summary = "list the images of this machine",
    .example = "faas image list",
    .options = store_options,
    .option_count = ARRAY_LENGTH(store_options),
    .run = run_image_list,
};
const struct cli_verb cli_verb_image_rm = {
    .name = "image rm",
    .arguments = "NAME",
    .summary = "remove an image from this machine",
    .description = "Containers that use it keep their files until they end.",
    .example = "faas image rm my-python:latest",
    .options = store_options,
    .option_count = ARRAY_LENGTH(store_options),
    .min_arguments = 1,
    .max_arguments = 1,
    .run = run_image_rm,
};
