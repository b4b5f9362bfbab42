/* Compiles a Go function in an instance of its own; see build.h. */
#include "worker/build.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/text.h"
#include "oci/archive.h"
#include "worker/instance_spec.h"
#include "worker/invocation.h"

#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>

#define BUILD_PIDS 512

/* The code folder is read-only: what has no go.mod is copied, to get one. So is the image's cache of
 * the compiled standard library, which the compiler wants to add to: it gets a folder of links.
 * Nothing but the executable goes to stdout. */
static const char script[] =
    "set -e\n"
    "if [ ! -f go.mod ]; then\n"
    "    mkdir /tmp/source\n"
    "    cp -R ./. /tmp/source\n"
    "    cd /tmp/source\n"
    "    printf 'module function\\n\\ngo 1.22\\n' >go.mod\n"
    "fi\n"
    "cache=$(go env GOCACHE)\n"
    "if [ -d \"$cache\" ]; then cp -Rs \"$cache\" /tmp/cache; fi\n"
    "export GOCACHE=/tmp/cache\n"
    "flags=\n"
    "if [ -d vendor ]; then flags=-mod=vendor; fi\n"
    "go build $flags -ldflags='-s -w' -o /tmp/bootstrap . >&2\n"
    "if [ ! -x /tmp/bootstrap ]; then\n"
    "    echo 'the code is no program: it needs package main with func main' >&2\n"
    "    exit 1\n"
    "fi\n"
    "exec cat /tmp/bootstrap\n";

struct build {
    uv_loop_t *loop;
    const struct build_options *options;
    struct function *function; /* that compiles */
    struct instance *instance;
    struct invocation *invocation;
    bool over; /* the outcome is known */
    bool ok;
    char *output; /* owned; the compiler's words, or why there are none */
    size_t output_len;
    struct buffer executable; /* from here on owned by the packing job */
    struct buffer artifact;
    struct error err;
    build_done_fn *done;
    void *data;
};

static void build_free(struct build *build)
{
    instance_free(build->instance);
    invocation_free(build->invocation);
    function_unref(build->function);
    buffer_deinit(&build->executable);
    buffer_deinit(&build->artifact);
    free(build->output);
    free(build);
}

static void finish(void *data)
{
    struct build *build = data;
    build->done(build->data, build->ok, build->output ? build->output : "", build->output_len,
                build->artifact.data, build->ok ? build->artifact.len : 0);
    build_free(build);
}

static void set_output(struct build *build, const char *text)
{
    free(build->output);
    build->output = strdup(text);
    build->output_len = build->output ? strlen(build->output) : 0;
}

/* ---- packing ---- */

static int pack(struct build *build, struct error *err)
{
    char id[RANDOM_ID_LEN + 1];
    random_id(id);
    autofree char *path = string_printf("%s/%s", build->options->directory, id);
    if (!path)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    if (make_directories(build->options->directory, 0700, err) < 0 ||
        write_file_atomic(path, build->executable.data, build->executable.len, 0755, false, err) <
            0)
        return -1;
    int rc = archive_pack_file(path, "bootstrap", build->options->artifact_max_bytes,
                               &build->artifact, err);
    remove_tree(path, NULL);
    return rc;
}

static void pack_work(void *data)
{
    struct build *build = data;
    build->ok = pack(build, &build->err) == 0;
}

static void pack_done(void *data)
{
    struct build *build = data;
    if (!build->ok)
        set_output(build, build->err.message);
    finish(build);
}

/* ---- the compiler's instance ---- */

/* stdout came as a JSON string of base64, as any function's that is no text. */
static int take_executable(struct build *build, const struct execution *execution,
                           struct error *err)
{
    if (!execution->result_base64 || execution->result_len < 2)
        return error_set(err, ERROR_INTERNAL, "the compiler gave no executable");
    return base64_decode(execution->result + 1, execution->result_len - 2, &build->executable, err);
}

static void take_outcome(struct build *build, struct execution *execution)
{
    struct error err = {0};
    build->over = true;
    build->output = steal_pointer(&execution->logs);
    build->output_len = build->output ? execution->logs_len : 0;
    if (execution->status == EXECUTION_SUCCEEDED) {
        build->ok = take_executable(build, execution, &err) == 0;
        if (!build->ok)
            set_output(build, err.message);
        return;
    }
    bool compiler_failed = execution->status == EXECUTION_FAILED && build->output_len > 0 &&
                           execution->error.exit_code > 0;
    if (!compiler_failed) {
        autofree char *text =
            string_printf("the code could not be compiled: %s",
                          execution->error.message ? execution->error.message : "unknown reason");
        set_output(build, text ? text : "the code could not be compiled");
    }
}

static void on_started(void *data, struct instance *instance)
{
    (void)data;
    (void)instance;
}

static void on_ready(void *data, struct instance *instance)
{
    struct build *build = data;
    instance_run(instance, build->invocation);
}

static void on_broken(void *data, struct instance *instance, struct execution *failure)
{
    take_outcome(data, failure);
    instance_stop(instance);
}

static void on_finished(void *data, struct instance *instance, struct invocation *invocation,
                        enum instance_after after)
{
    (void)after;
    take_outcome(data, &invocation->execution);
    instance_stop(instance);
}

static void on_gone(void *data, struct instance *instance)
{
    struct build *build = data;
    (void)instance;
    if (build->ok && loop_work(build->loop, pack_work, pack_done, build, &build->err) == 0)
        return;
    if (build->ok)
        set_output(build, build->err.message);
    build->ok = false;
    finish(build);
}

/* What compiles: a function of contract process with the source as its code. */
static struct function *make_compiler(const struct build_options *options,
                                      const struct function *source, struct error *err)
{
    static const char *const command[] = {"exec", "--", "/bin/sh", "-c", script, NULL};
    struct function_spec spec;
    if (function_spec_copy(&spec, &source->spec, err) < 0)
        return NULL;
    for (size_t i = 0; i < spec.env.count; i++) {
        free(spec.env.items[i].key);
        free(spec.env.items[i].value);
    }
    spec.env.count = 0;
    spec.contract = CONTRACT_PROCESS;
    spec.network = NETWORK_NONE;
    spec.memory_mb = options->memory_mb;
    spec.tmp_mb = options->memory_mb / 2;
    spec.cpus = get_nprocs();
    spec.pids = BUILD_PIDS;
    spec.timeout_ms = (int64_t)options->timeout_ms;
    const char **packed = instance_strings_join(command, NULL);
    struct function *function = NULL;
    if (packed)
        function = function_new(&spec, code_ref(source->code), packed, err);
    else
        error_set(err, ERROR_INTERNAL, "out of memory");
    function_spec_deinit(&spec);
    return function;
}

struct build *build_start(uv_loop_t *loop, const struct build_options *options,
                          struct function *source, build_done_fn *done, void *data,
                          struct error *err)
{
    static const struct instance_events events = {.started = on_started,
                                                  .ready = on_ready,
                                                  .broken = on_broken,
                                                  .finished = on_finished,
                                                  .gone = on_gone};
    struct instance_limits limits = {.result_max = options->executable_max_bytes,
                                     .log_max = options->log_max_bytes,
                                     .start_timeout_ms = options->start_timeout_ms};
    struct build *build = calloc(1, sizeof(*build));
    if (!build) {
        error_set(err, ERROR_INTERNAL, "out of memory");
        return NULL;
    }
    build->loop = loop;
    build->options = options;
    build->done = done;
    build->data = data;
    buffer_init(&build->executable, options->executable_max_bytes);
    buffer_init(&build->artifact, options->artifact_max_bytes);
    char id[TIME_ID_LEN + 1];
    time_id(id);
    build->invocation = invocation_new(id, 1, source->spec.name, source->spec.version, err);
    build->function = build->invocation ? make_compiler(options, source, err) : NULL;
    if (build->function) {
        build->invocation->timeout_ms = options->timeout_ms;
        build->instance =
            instance_new(loop, options->runtime, build->function, &limits, &events, build, err);
    }
    if (!build->instance) {
        build_free(build);
        return NULL;
    }
    return build;
}

void build_cancel(struct build *build)
{
    static const char why[] = "the build was cancelled";
    if (build->over)
        return;
    if (instance_state(build->instance) == INSTANCE_BUSY) {
        instance_abort_all(build->instance, EXECUTION_CANCELLED, "Function.Cancelled", why);
        return;
    }
    build->over = true;
    set_output(build, why);
    instance_stop(build->instance);
}
