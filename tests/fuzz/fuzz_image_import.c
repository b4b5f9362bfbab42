/* Files from which images are imported: docker's archives, OCI layouts and root file systems, as a tar. The first byte says how the input is
 * read (bit 0: as the file itself, else as its members), and which image is asked for (bits 1 and 2).
 *
 * A member is its kind (tar's letter), its name, ended by NUL, a length of two bytes, and so many bytes of content; for a link the content
 * is where it leads. "@" as a name is "blobs/sha256/" and the content's digest. The linker puts the functions below in the place of
 * the digests': of each only two bits are kept, so that some of what a fuzzer has changed still fits.
 *
 * What was imported is in the store, beneath its folder and within the limits, and goes with its name; what was refused leaves nothing. */
#include "oci/image_store.h"

#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/text.h"
#include "scratch.h"
#include "tar_repair.h"

#include <stdint.h>
#include <sys/stat.h>

#define INPUT_MAX ((size_t)64 * 1024)
#define BYTES_MAX ((uint64_t)256 * 1024)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition)
{
    if (!condition)
        abort();
}

/* ---- digests ---- */

static void weaken(uint8_t digest[32])
{
    memset(digest, 0, 31);
    digest[31] &= 3;
}

void __real_sha256_final(struct sha256 *sha, uint8_t out[32]);
void __wrap_sha256_final(struct sha256 *sha, uint8_t out[32]);
void __wrap_sha256_final(struct sha256 *sha, uint8_t out[32])
{
    __real_sha256_final(sha, out);
    weaken(out);
}

void __real_sha256_hex(const void *data, size_t len, char out[SHA256_HEX_LEN + 1]);
void __wrap_sha256_hex(const void *data, size_t len, char out[SHA256_HEX_LEN + 1]);
void __wrap_sha256_hex(const void *data, size_t len, char out[SHA256_HEX_LEN + 1])
{
    uint8_t digest[32];
    struct sha256 sha;
    sha256_init(&sha);
    sha256_update(&sha, data, len);
    __wrap_sha256_final(&sha, digest);
    hex_encode(digest, sizeof(digest), out);
}

/* Chains are told apart by all of theirs. */
void __wrap_image_chain_id(const char *parent, const char *diff_id, char out[SHA256_HEX_LEN + 1]);
void __wrap_image_chain_id(const char *parent, const char *diff_id, char out[SHA256_HEX_LEN + 1])
{
    char both[256];
    snprintf(both, sizeof(both), "%s %s", parent ? parent : "", diff_id);
    __real_sha256_hex(both, strlen(both), out);
}

/* ---- the file ---- */

static void add_member(struct buffer *tar, char kind, const char *name, const uint8_t *content,
                       size_t len)
{
    static const char zeros[512];
    bool is_link = kind == '1' || kind == '2';
    char head[512] = "", blob[128] = "blobs/sha256/";
    if (strcmp(name, "@") == 0) {
        __wrap_sha256_hex(content, len, blob + strlen(blob));
        name = blob;
    }
    snprintf(head, 100, "%.99s", name);
    snprintf(head + 100, 8, "%07o", 0755);
    snprintf(head + 124, 12, "%011o", is_link ? 0 : (unsigned)len);
    head[156] = kind;
    memcpy(head + 257,
           "ustar\0"
           "00",
           8);
    if (is_link)
        memcpy(head + 157, content, len < 99 ? len : 99);
    require(buffer_append(tar, head, sizeof(head), NULL) == 0);
    if (!is_link)
        require(buffer_append(tar, content, len, NULL) == 0 &&
                buffer_append(tar, zeros, (512 - len % 512) % 512, NULL) == 0);
}

static void add_members(struct buffer *tar, const uint8_t *at, const uint8_t *end)
{
    static const char zeros[1024];
    while (end - at > 4) {
        char kind = (char)*at++;
        const uint8_t *nul = memchr(at, 0, (size_t)(end - at));
        if (!nul || end - nul < 3)
            break;
        const uint8_t *content = nul + 3;
        size_t len = (size_t)nul[1] | (size_t)nul[2] << 8, left = (size_t)(end - content);
        len = len < left ? len : left;
        add_member(tar, kind, (const char *)at, content, len);
        at = content + len;
    }
    require(buffer_append(tar, zeros, sizeof(zeros), NULL) == 0);
}

static void make_file(const char *path, const uint8_t *data, size_t size, bool whole)
{
    with_cleanup(buffer_deinit) struct buffer file = BUFFER_INIT(64 * INPUT_MAX);
    if (whole)
        require(buffer_append(&file, data, size, NULL) == 0);
    else
        add_members(&file, data, data + size);
    tar_repair((uint8_t *)file.data, file.len);
    require(write_file_atomic(path, file.len ? file.data : "", file.len, 0644, false, NULL) == 0);
}

/* ---- the store ---- */

/* Open for all inputs: nothing of one is left for the next. */
static struct image_store *images;

static void close_store(void)
{
    image_store_close(images);
}

static void open_store(const char *store)
{
    static const struct image_store_options options = {.limits = {.max_bytes = BYTES_MAX,
                                                                  .max_files = 100,
                                                                  .max_layers = 4,
                                                                  .max_manifest_bytes = 16384}};
    images = image_store_open(store, &options, NULL);
    require(images != NULL);
    atexit(close_store);
}

static void require_empty(const char *store, const char *folder)
{
    struct stat status;
    autofree char *path = string_printf("%s/%s", store, folder);
    require(path && stat(path, &status) == 0 && status.st_nlink == 2);
}

static void check_image(const struct image *image)
{
    struct image again = {0};
    struct stat status;
    int hold = -1;
    require(image_store_get(images, "fuzz:latest", &again, NULL) == 0);
    require(strcmp(again.digest, image->digest) == 0 && strcmp(again.rootfs, image->rootfs) == 0);
    require(strncmp(again.rootfs, scratch_folder(), strlen(scratch_folder())) == 0);
    require(stat(again.rootfs, &status) == 0 && S_ISDIR(status.st_mode));
    require(again.size_bytes <= BYTES_MAX + 200 * 4096 && again.env && again.entrypoint &&
            again.cmd);
    require(image_store_hold(images, &again, &hold, NULL) == 0);
    close(hold);
    image_deinit(&again);
}

static void import(const char *store, const char *file, const char *reference)
{
    const struct image_import_options wanted = {.reference = reference};
    struct image image = {0};
    struct error err = {0};
    if (image_store_import(images, "fuzz", file, &wanted, &image, &err) == 0) {
        check_image(&image);
        require(image_store_remove(images, "fuzz", &err) == 0);
    } else {
        require(err.code != ERROR_NONE && err.message[0]);
    }
    image_deinit(&image);
    require_empty(store, "tmp");
    require_empty(store, "chains");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const references[] = {NULL, "latest", "fuzz:latest", "other"};
    char store[128], file[128];
    struct stat status;
    if (size == 0 || size > INPUT_MAX)
        return 0;
    snprintf(store, sizeof(store), "%s/images", scratch_folder());
    snprintf(file, sizeof(file), "%s/file", scratch_folder());
    if (!images)
        open_store(store);
    make_file(file, data + 1, size - 1, data[0] & 1);
    import(store, file, references[data[0] >> 1 & 3]);
    unlink(file);
    require(stat(scratch_folder(), &status) == 0 && status.st_nlink == 3);
    return 0;
}
