/* Unpacked code on disk: one folder for each archive, counted, bounded; see code_cache.h. */
#include "worker/code_cache.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/text.h"
#include "oci/archive.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define ENTRY_MAX 100

struct waiter {
    code_done_fn *done;
    void *data;
    struct waiter *next;
};

struct code {
    struct code_cache *cache;
    char *key;       /* owned: "<sha256>-<entry>", its folder's name */
    char *directory; /* owned */
    bool ready;
    unsigned references;
    uint64_t bytes;
    uint64_t used; /* order of last use */
    struct waiter *waiters;
    struct code *next;
};

struct code_cache {
    uv_loop_t *loop;
    struct code_cache_options options;
    char *directory; /* owned */
    struct code *codes;
    uint64_t bytes; /* of those that are ready */
    uint64_t clock;
    unsigned pending; /* callbacks that will still come here */
    bool freed;
};

/* Work on a pool thread: owns what it holds. */
struct job {
    struct code_cache *cache;
    struct code *code;
    char *bytes;
    size_t len;
    uint64_t unpacked;
    char *doomed; /* a folder to remove instead */
    struct error err;
    bool failed;
};

static void code_free(struct code *code)
{
    free(code->key);
    free(code->directory);
    while (code->waiters) {
        struct waiter *waiter = code->waiters;
        code->waiters = waiter->next;
        free(waiter);
    }
    free(code);
}

static void free_when_idle(struct code_cache *cache)
{
    if (!cache->freed || cache->pending > 0)
        return;
    while (cache->codes) {
        struct code *code = cache->codes;
        cache->codes = code->next;
        code_free(code);
    }
    free(cache->directory);
    free(cache);
}

static void unlink_code(struct code_cache *cache, struct code *code)
{
    struct code **at = &cache->codes;
    while (*at != code)
        at = &(*at)->next;
    *at = code->next;
}

static struct code *code_add(struct code_cache *cache, const char *key, struct error *err)
{
    struct code *code = calloc(1, sizeof(*code));
    if (code) {
        code->key = strdup(key);
        code->directory = string_printf("%s/%s", cache->directory, key);
    }
    if (!code || !code->key || !code->directory) {
        if (code)
            code_free(code);
        error_set(err, ERROR_INTERNAL, "out of memory");
        return NULL;
    }
    code->cache = cache;
    code->next = cache->codes;
    cache->codes = code;
    return code;
}

/* ---- looking through the folder at start ---- */

static bool key_valid(const char *name)
{
    if (strlen(name) < SHA256_HEX_LEN + 2 || name[SHA256_HEX_LEN] != '-')
        return false;
    return strspn(name, "0123456789abcdef") == SHA256_HEX_LEN;
}

static __thread uint64_t tree_bytes;

static int add_size(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)path;
    (void)type;
    (void)ftw;
    tree_bytes += (uint64_t)st->st_blocks * 512;
    return 0;
}

static int look_through(struct code_cache *cache, struct error *err)
{
    DIR *directory = opendir(cache->directory);
    if (!directory)
        return error_set_errno(err, ERROR_UNAVAILABLE, errno, "cannot read %s", cache->directory);
    const struct dirent *entry;
    int rc = 0;
    while (rc == 0 && (entry = readdir(directory))) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        autofree char *path = string_printf("%s/%s", cache->directory, entry->d_name);
        if (!path || !key_valid(entry->d_name)) {
            rc = path ? remove_tree(path, err) : error_set(err, ERROR_INTERNAL, "out of memory");
            continue;
        }
        struct code *code = code_add(cache, entry->d_name, err);
        if (!code) {
            rc = -1;
            break;
        }
        tree_bytes = 0;
        nftw(path, add_size, 16, FTW_PHYS | FTW_MOUNT);
        code->bytes = tree_bytes;
        code->ready = true;
        cache->bytes += code->bytes;
    }
    closedir(directory);
    return rc;
}

struct code_cache *code_cache_new(uv_loop_t *loop, const struct code_cache_options *options,
                                  struct error *err)
{
    struct code_cache *cache = calloc(1, sizeof(*cache));
    if (cache)
        cache->directory = strdup(options->directory);
    if (!cache || !cache->directory) {
        free(cache);
        error_set(err, ERROR_INTERNAL, "out of memory");
        return NULL;
    }
    cache->loop = loop;
    cache->options = *options;
    if (make_directories(cache->directory, 0711, err) < 0 || look_through(cache, err) < 0) {
        error_wrap(err, "code cache");
        code_cache_free(cache);
        return NULL;
    }
    return cache;
}

void code_cache_free(struct code_cache *cache)
{
    if (!cache)
        return;
    cache->freed = true;
    free_when_idle(cache);
}

/* ---- removing ---- */

static void remove_work(void *data)
{
    struct job *job = data;
    if (remove_tree(job->doomed, &job->err) < 0)
        log_warn("code could not be removed", LOG_STR("path", job->doomed), LOG_ERR(&job->err));
}

static void job_free(struct job *job)
{
    struct code_cache *cache = job->cache;
    free(job->bytes);
    free(job->doomed);
    free(job);
    cache->pending--;
    free_when_idle(cache);
}

static void remove_done(void *data)
{
    job_free(data);
}

/* Out of the way by one rename, then removed on a pool thread. */
static void evict_one(struct code_cache *cache, struct code *code)
{
    struct job *job = calloc(1, sizeof(*job));
    char id[RANDOM_ID_LEN + 1];
    random_id(id);
    cache->bytes -= code->bytes;
    unlink_code(cache, code);
    if (job) {
        job->cache = cache;
        job->doomed = string_printf("%s/.gone-%s", cache->directory, id);
    }
    if (job && job->doomed && rename(code->directory, job->doomed) == 0 &&
        loop_work(cache->loop, remove_work, remove_done, job, NULL) == 0) {
        cache->pending++;
    } else if (job) {
        free(job->doomed);
        free(job);
    }
    log_debug("code evicted", LOG_STR("code", code->key));
    code_free(code);
}

static void evict(struct code_cache *cache)
{
    if (cache->freed)
        return;
    while (cache->bytes > cache->options.max_bytes) {
        struct code *oldest = NULL;
        for (struct code *code = cache->codes; code; code = code->next) {
            if (code->ready && code->references == 0 && (!oldest || code->used < oldest->used))
                oldest = code;
        }
        if (!oldest)
            return;
        evict_one(cache, oldest);
    }
}

/* ---- getting ---- */

/* Tells everybody who waits; on failure the code is forgotten. */
static void settle(struct code *code, const struct error *err)
{
    struct code_cache *cache = code->cache;
    struct waiter *waiters = steal_pointer(&code->waiters);
    code->references++; /* ours, so that no callback can make it go */
    while (waiters) {
        struct waiter *waiter = waiters;
        waiters = waiter->next;
        waiter->done(waiter->data, err ? NULL : code_ref(code), err);
        free(waiter);
    }
    if (err) {
        unlink_code(cache, code);
        code_free(code);
        return;
    }
    code_unref(code);
    evict(cache);
}

/* Node takes a file for an ES module by its name: a line that begins with import or export decides.
 */
static bool looks_like_es_module(const char *text, size_t len)
{
    const char *end = text + len;
    for (const char *line = text; line < end;) {
        const char *newline = memchr(line, '\n', (size_t)(end - line));
        size_t line_len = (size_t)((newline ? newline : end) - line);
        if (line_len > 7 && (strncmp(line, "export ", 7) == 0 || strncmp(line, "import ", 7) == 0 ||
                             strncmp(line, "import{", 7) == 0))
            return true;
        line = newline ? newline + 1 : end;
    }
    return false;
}

static int extract_single_file(struct job *job)
{
    char name[ENTRY_MAX + 2];
    snprintf(name, sizeof(name), "%s", job->code->key + SHA256_HEX_LEN + 1);
    size_t len = strlen(name);
    if (len > 3 && strcmp(name + len - 3, ".js") == 0 && looks_like_es_module(job->bytes, job->len))
        memcpy(name + len - 3, ".mjs", sizeof(".mjs"));
    job->unpacked = job->len;
    return archive_extract_file(job->bytes, job->len, name, strcmp(name, "bootstrap") == 0,
                                job->code->directory, &job->err);
}

static int extract(struct job *job)
{
    const struct code_cache_options *options = &job->cache->options;
    char digest[SHA256_HEX_LEN + 1];
    sha256_hex(job->bytes, job->len, digest);
    if (strncmp(digest, job->code->key, SHA256_HEX_LEN) != 0)
        return error_set(&job->err, ERROR_UNAVAILABLE,
                         "the code that came has SHA-256 %s, not %.64s", digest, job->code->key);
    if (archive_detect(job->bytes, job->len) == ARCHIVE_KIND_FILE)
        return extract_single_file(job);
    struct archive_limits limits = {.max_packed_bytes = options->archive_max_bytes,
                                    .max_unpacked_bytes = options->unpacked_max_bytes,
                                    .max_files = options->archive_max_files};
    struct archive_totals totals = {0};
    int rc =
        archive_extract(job->bytes, job->len, job->code->directory, &limits, &totals, &job->err);
    job->unpacked = totals.bytes + totals.files * 4096;
    return rc;
}

static void extract_work(void *data)
{
    struct job *job = data;
    job->failed = extract(job) < 0;
}

static void extract_done(void *data)
{
    struct job *job = data;
    struct code *code = job->code;
    if (!job->failed) {
        code->ready = true;
        code->bytes = job->unpacked;
        code->used = ++job->cache->clock;
        job->cache->bytes += code->bytes;
    }
    settle(code, job->failed ? &job->err : NULL);
    job_free(job);
}

static void on_fetched(void *data, char *bytes, size_t len, const struct error *err)
{
    struct job *job = data;
    job->bytes = bytes;
    job->len = len;
    if (err)
        job->err = *err;
    else if (job->cache->freed)
        error_set(&job->err, ERROR_UNAVAILABLE, "the worker is stopping");
    else if (loop_work(job->cache->loop, extract_work, extract_done, job, &job->err) == 0)
        return;
    settle(job->code, &job->err);
    job_free(job);
}

static int start_fetch(struct code *code, code_fetch_fn *fetch, void *source, struct error *err)
{
    struct job *job = calloc(1, sizeof(*job));
    if (!job)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    char sha256[SHA256_HEX_LEN + 1];
    snprintf(sha256, sizeof(sha256), "%.64s", code->key);
    job->cache = code->cache;
    job->code = code;
    if (fetch(source, sha256, code->cache->options.archive_max_bytes, on_fetched, job, err) < 0) {
        free(job);
        return -1;
    }
    code->cache->pending++;
    return 0;
}

static void deferred_settle(void *data)
{
    struct code *code = data;
    struct code_cache *cache = code->cache;
    settle(code, NULL);
    code_unref(code);
    cache->pending--;
    free_when_idle(cache);
}

static int add_waiter(struct code *code, code_done_fn *done, void *data, struct error *err)
{
    struct waiter *waiter = calloc(1, sizeof(*waiter));
    if (!waiter)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    waiter->done = done;
    waiter->data = data;
    waiter->next = code->waiters;
    code->waiters = waiter;
    return 0;
}

static struct code *find(struct code_cache *cache, const char *key)
{
    for (struct code *code = cache->codes; code; code = code->next) {
        if (strcmp(code->key, key) == 0)
            return code;
    }
    return NULL;
}

static void drop_waiter(struct code *code)
{
    struct waiter *waiter = code->waiters;
    code->waiters = waiter->next;
    free(waiter);
}

int code_cache_get(struct code_cache *cache, const char *sha256, const char *entry,
                   code_fetch_fn *fetch, void *source, code_done_fn *done, void *data,
                   struct error *err)
{
    char key[SHA256_HEX_LEN + 1 + ENTRY_MAX + 1];
    snprintf(key, sizeof(key), "%s-%s", sha256, entry);
    if (strlen(entry) > ENTRY_MAX || strchr(entry, '/') || !key_valid(key))
        return error_set(err, ERROR_INTERNAL, "bad digest \"%s\" or entry \"%s\" of code", sha256,
                         entry);
    struct code *code = find(cache, key);
    bool known = code != NULL;
    if (!code)
        code = code_add(cache, key, err);
    if (!code)
        return -1;
    int rc = add_waiter(code, done, data, err);
    if (rc == 0 && known && !code->ready)
        return 0; /* its download is under way */
    if (rc == 0 && known) {
        code->used = ++cache->clock;
        rc = loop_defer(cache->loop, deferred_settle, code, err);
        if (rc == 0) {
            code_ref(code);
            cache->pending++;
        }
    } else if (rc == 0) {
        rc = start_fetch(code, fetch, source, err);
    }
    if (rc < 0 && code->waiters)
        drop_waiter(code);
    if (rc < 0 && !known) {
        unlink_code(cache, code);
        code_free(code);
    }
    return rc;
}

const char *code_directory(const struct code *code)
{
    return code->directory;
}

struct code *code_ref(struct code *code)
{
    code->references++;
    return code;
}

void code_unref(struct code *code)
{
    if (!code)
        return;
    assert(code->references > 0);
    code->references--;
    if (code->references == 0)
        evict(code->cache);
}

uint64_t code_cache_bytes(const struct code_cache *cache)
{
    return cache->bytes;
}
