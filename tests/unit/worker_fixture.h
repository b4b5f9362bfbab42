/* A runtime whose instances are a few lines of this process: each says READY and answers an INVOKE when it is told to. For
 * tests of what sits above the runtime. */
#pragma once

#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/text.h"
#include "init/frame.h"
#include "worker/instance.h"
#include "worker/instance_spec.h"
#include "worker/invocation.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define FAKES_MAX 32

/* One instance as the runtime has it. */
struct runtime_instance {
    int fds[INSTANCE_FD_COUNT];
    char function[64];
    bool started, stopped;
    bool generic;  /* was started without a function */
    bool outdated; /* its image was replaced */
    bool frozen;
    int freezes;    /* how often it was */
    unsigned parts; /* weight; 0: as it started */
    int weighings;
    runtime_started_fn *on_started;
    runtime_stopped_fn *on_stopped;
    void *started_data, *stopped_data;
};

static struct runtime_instance fakes[FAKES_MAX];
static size_t fake_count;
static bool fake_starts_fail;
static bool fake_starts_hang;                 /* started, they never say READY */
static enum error_code fake_specialise_error; /* 0: it works */
static bool fake_loads_end;                   /* a loaded one ends instead of becoming ready */
static uint64_t fake_oom_kills;
static uint64_t fake_cpu_ns;
static bool fake_thaws_fail;

static uv_loop_t loop;
static char fixture_directory[64];
static struct code_cache *fixture_cache;
static struct code *fixture_code;

static void fake_close(struct runtime_instance *fake)
{
    for (int i = 0; i < INSTANCE_FD_COUNT; i++) {
        if (fake->fds[i] >= 0)
            close(fake->fds[i]);
        fake->fds[i] = -1;
    }
}

static void fake_say_of(struct runtime_instance *fake, int socket, enum frame_type type,
                        uint32_t value, const char *meta, const char *body)
{
    struct frame_header header =
        frame_header_make(type, 0, value, (uint32_t)strlen(meta), (uint32_t)strlen(body));
    cr_assert_eq(write(fake->fds[socket], &header, sizeof(header)), (ssize_t)sizeof(header));
    cr_assert_eq(write(fake->fds[socket], meta, strlen(meta)), (ssize_t)strlen(meta));
    cr_assert_eq(write(fake->fds[socket], body, strlen(body)), (ssize_t)strlen(body));
}

static void fake_say(struct runtime_instance *fake, int socket, enum frame_type type,
                     uint32_t value, const char *body)
{
    fake_say_of(fake, socket, type, value, "", body);
}

static void fake_started(void *data)
{
    struct runtime_instance *fake = data;
    struct error err = {0};
    if (fake->stopped)
        return;
    fake->started = true;
    error_set(&err, ERROR_UNAVAILABLE, "the fake was told to fail");
    fake->on_started(fake->started_data, fake_starts_fail ? &err : NULL);
    if (!fake_starts_fail && !fake_starts_hang && !fake->stopped)
        fake_say(fake, 0, FRAME_READY, 0, "");
}

static struct runtime_instance *fake_start(struct runtime *runtime,
                                           const struct runtime_start *start,
                                           runtime_started_fn *started, void *data,
                                           struct error *err)
{
    struct runtime_instance *fake = &fakes[fake_count++];
    (void)runtime;
    cr_assert_leq(fake_count, FAKES_MAX);
    fake->generic = !start->code_dir;
    cr_assert_eq(fake->generic, !start->spec->name);
    snprintf(fake->function, sizeof(fake->function), "%s",
             fake->generic ? start->spec->image : start->spec->name);
    memcpy(fake->fds, start->fds, sizeof(fake->fds));
    fake->on_started = started;
    fake->started_data = data;
    loop_defer(&loop, fake_started, fake, err);
    return fake;
}

/* Takes the LOAD. */
static void fake_loaded(void *data)
{
    struct runtime_instance *fake = data;
    struct frame_header header;
    char body[4096];
    if (fake->stopped)
        return;
    cr_assert_eq(recv(fake->fds[0], &header, sizeof(header), MSG_DONTWAIT),
                 (ssize_t)sizeof(header));
    cr_assert_eq(header.type, FRAME_LOAD);
    cr_assert_eq(recv(fake->fds[0], body, sizeof(body), MSG_DONTWAIT), (ssize_t)header.body_len);
    if (fake_loads_end)
        fake_close(fake);
    else
        fake_say(fake, 0, FRAME_READY, 0, "");
}

static int fake_specialise(struct runtime_instance *fake, const struct runtime_load *load,
                           const char ***ret_environment, struct error *err)
{
    static const char *const environment[] = {"A=1", NULL};
    cr_assert(fake->generic && fake->started && !fake->stopped);
    if (fake->outdated || fake_specialise_error)
        return error_set(err, fake->outdated ? ERROR_CONFLICT : fake_specialise_error,
                         "the fake was told to refuse");
    fake->generic = false;
    snprintf(fake->function, sizeof(fake->function), "%s", load->spec->name);
    *ret_environment = instance_strings_join(environment, NULL);
    return loop_defer(&loop, fake_loaded, fake, err);
}

static bool fake_is_outdated(struct runtime_instance *fake)
{
    return fake->outdated;
}

static void fake_stopped(void *data)
{
    struct runtime_instance *fake = data;
    fake->on_stopped(fake->stopped_data);
}

static void fake_stop(struct runtime_instance *fake, runtime_stopped_fn *stopped, void *data)
{
    cr_assert_not(fake->stopped);
    fake->stopped = true;
    fake->on_stopped = stopped;
    fake->stopped_data = data;
    fake_close(fake);
    loop_defer(&loop, fake_stopped, fake, NULL);
}

static int fake_usage(struct runtime_instance *fake, struct runtime_usage *ret, struct error *err)
{
    (void)fake;
    (void)err;
    *ret = (struct runtime_usage){.oom_kills = fake_oom_kills, .cpu_ns = fake_cpu_ns};
    return 0;
}

static void fake_reset_usage(struct runtime_instance *fake)
{
    (void)fake;
}

static int fake_freeze(struct runtime_instance *fake, bool frozen, struct error *err)
{
    if (!frozen && fake_thaws_fail)
        return error_set(err, ERROR_UNAVAILABLE, "the fake was told to stay frozen");
    fake->freezes += frozen && !fake->frozen;
    fake->frozen = frozen;
    return 0;
}

static int fake_weigh(struct runtime_instance *fake, unsigned parts)
{
    cr_assert(fake->started && !fake->stopped);
    fake->parts = parts;
    fake->weighings++;
    return 0;
}

static const struct runtime_ops fake_ops = {.name = "fake",
                                            .start = fake_start,
                                            .specialise = fake_specialise,
                                            .outdated = fake_is_outdated,
                                            .stop = fake_stop,
                                            .usage = fake_usage,
                                            .reset_usage = fake_reset_usage,
                                            .freeze = fake_freeze,
                                            .weigh = fake_weigh};
static struct runtime fake_runtime = {.ops = &fake_ops};

/* Runs the loop until nothing happens at once any more. */
static inline void settle(void)
{
    for (int i = 0; i < 30; i++)
        uv_run(&loop, UV_RUN_NOWAIT);
}

/* Contract process: writes `text` to stdout and ends with this wait status. */
static inline void fake_answer(struct runtime_instance *fake, const char *text, uint32_t status)
{
    cr_assert_not(fake->stopped);
    cr_assert_eq(write(fake->fds[2], text, strlen(text)), (ssize_t)strlen(text));
    fake_say(fake, 0, FRAME_EXIT, status, "");
    settle();
}

/* Whether an INVOKE waits to be read; reads it. */
static inline bool fake_was_asked(struct runtime_instance *fake)
{
    char bytes[4096];
    return recv(fake->fds[0], bytes, sizeof(bytes), MSG_DONTWAIT) > 0;
}

static inline size_t fakes_alive(void)
{
    size_t count = 0;
    for (size_t i = 0; i < fake_count; i++)
        count += !fakes[i].stopped;
    return count;
}

static int fixture_fetch(void *source, const char *sha256, size_t max_bytes, code_fetched_fn *done,
                         void *data, struct error *err)
{
    (void)source;
    (void)sha256;
    (void)max_bytes;
    (void)err;
    done(data, strdup("x"), 1, NULL);
    return 0;
}

static void fixture_got_code(void *data, struct code *code, const struct error *err)
{
    (void)data;
    (void)err;
    fixture_code = code;
}

static inline void fixture_open(void)
{
    struct error err = {0};
    char sha256[SHA256_HEX_LEN + 1];
    log_init("test", LOG_LEVEL_ERROR, LOG_FORMAT_TEXT);
    uv_loop_init(&loop);
    strcpy(fixture_directory, "/tmp/test-worker-XXXXXX");
    cr_assert_not_null(mkdtemp(fixture_directory));
    struct code_cache_options options = {.directory = fixture_directory, .max_bytes = 1 << 20};
    fixture_cache = code_cache_new(&loop, &options, &err);
    cr_assert_not_null(fixture_cache, "%s", err.message);
    sha256_hex("x", 1, sha256);
    cr_assert_eq(code_cache_get(fixture_cache, sha256, "main.py", fixture_fetch, NULL,
                                fixture_got_code, NULL, &err),
                 0, "%s", err.message);
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_assert_not_null(fixture_code);
}

static inline void fixture_close(void)
{
    code_unref(fixture_code);
    code_cache_free(fixture_cache);
    loop_close(&loop);
    remove_tree(fixture_directory, NULL);
}

static inline struct function *fixture_function(const char *name, int64_t memory_mb)
{
    struct function_spec spec;
    struct error err = {0};
    function_spec_init(&spec);
    spec.name = strdup(name);
    spec.image = strdup("an-image:latest");
    spec.version = 1;
    spec.memory_mb = memory_mb;
    static const char *const words[] = {"zygote", "--", "python3", NULL};
    const char **command = instance_strings_join(words, NULL);
    struct function *function = function_new(&spec, code_ref(fixture_code), command, &err);
    cr_assert_not_null(function, "%s", err.message);
    function_spec_deinit(&spec);
    return function;
}
