/* Code that is compiled when it is deployed: see builds.h. */
#include "controller/builds.h"

#include "base/cleanup.h"
#include "base/log.h"
#include "base/text.h"
#include "controller/controller.h"
#include "controller/refresh.h"
#include "controller/worker_message.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void builds_init(struct builds *builds)
{
    list_init(&builds->waiting);
    list_init(&builds->running);
    list_init(&builds->ending);
}

static void free_build(struct controller *controller, struct build *build)
{
    if (build->session)
        build->session->build = NULL;
    list_remove(&build->link);
    version_unref(&controller->registry, build->version);
    free(build);
}

void builds_deinit(struct controller *controller)
{
    struct list *const lists[] = {&controller->builds.waiting, &controller->builds.running};
    for (size_t i = 0; i < ARRAY_LENGTH(lists); i++)
        list_for_each(link, lists[i]) free(list_entry(link, struct build, link));
}

int builds_add(struct controller *controller, struct function_version *version, struct error *err)
{
    struct build *build = calloc(1, sizeof(*build));
    if (!build)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    random_id(build->id);
    build->version = version_ref(version);
    list_append(&controller->builds.waiting, &build->link);
    controller_dispatch(controller);
    return 0;
}

int builds_resume(struct controller *controller, struct error *err)
{
    if (controller->delivery.shared) {
        builds_claim(controller);
        return 0;
    }
    for (size_t i = 0; i < controller->registry.sorted_count; i++) {
        struct function_version *newest = controller->registry.sorted[i]->newest;
        if (newest->record.state == FUNCTION_BUILDING && builds_add(controller, newest, err) < 0)
            return -1;
    }
    return 0;
}

/* The version's new state is on its way into the store. */
struct build_end {
    struct controller *controller;
    struct function_version *version; /* a reference */
    enum function_state state;
    struct list link;
};

/* ---- builds of controllers that are gone ---- */

static bool is_under_way(const struct builds *builds, const struct function_version *version)
{
    const struct list *const lists[] = {&builds->waiting, &builds->running};
    for (size_t i = 0; i < ARRAY_LENGTH(lists); i++) {
        list_for_each(link, lists[i])
        {
            if (list_entry(link, struct build, link)->version == version)
                return true;
        }
    }
    list_for_each(link, &builds->ending)
    {
        if (list_entry(link, struct build_end, link)->version == version)
            return true;
    }
    return false;
}

/* A function that this controller is to build the newest version of, once that is known here. */
struct build_claim {
    struct controller *controller;
    char name[FUNCTION_NAME_MAX + 1];
};

static void known(void *data, const struct error *err)
{
    struct build_claim *claim = data;
    struct controller *controller = claim->controller;
    const struct function_entry *function = registry_find(&controller->registry, claim->name);
    struct function_version *version = function ? function->newest : NULL;
    struct error failure = {0};
    if (!err && version && version->record.state == FUNCTION_BUILDING &&
        !controller->delivery.stopped && !is_under_way(&controller->builds, version)) {
        if (builds_add(controller, version, &failure) < 0)
            log_error("a build cannot be taken over", LOG_STR("function", claim->name),
                      LOG_ERR(&failure));
        else
            log_info("build taken over from a controller that is gone",
                     LOG_STR("function", claim->name),
                     LOG_INT("version", version->record.spec.version));
    }
    free(claim);
}

static void claimed(void *data, const char *const *functions, size_t count, const struct error *err)
{
    struct controller *controller = data;
    if (err)
        log_warn("unfinished builds cannot be read", LOG_ERR(err));
    for (size_t i = 0; i < count && !controller->delivery.stopped; i++) {
        const struct function_entry *function = registry_find(&controller->registry, functions[i]);
        if (function && is_under_way(&controller->builds, function->newest))
            continue;
        struct build_claim *claim = calloc(1, sizeof(*claim));
        if (!claim)
            return;
        claim->controller = controller;
        snprintf(claim->name, sizeof(claim->name), "%s", functions[i]);
        refresh_function(controller, claim->name, known, claim);
    }
}

void builds_claim(struct controller *controller)
{
    if (controller->delivery.shared && !controller->draining)
        store_claim_builds(controller->store, controller->delivery.owner, claimed, controller);
}

/* ---- giving out ---- */

/* It was deleted, or another controller has built it meanwhile. */
static bool is_settled(const struct build *build)
{
    return !build->version->function->newest || build->version->record.state != FUNCTION_BUILDING;
}

static struct worker_session *choose_session(struct controller *controller,
                                             struct function_version *version)
{
    struct worker_session *best = NULL;
    list_for_each(link, &controller->sessions.all)
    {
        struct dispatch_worker *worker = list_entry(link, struct dispatch_worker, link);
        struct worker_session *session = (struct worker_session *)worker;
        if (session->lost || session->build || !worker->reachable || worker->draining ||
            !placement_fits(&controller->dispatch.placement, version, worker->place))
            continue;
        if (!best || worker->busy < best->dispatch.busy)
            best = session;
    }
    return best;
}

static void give(struct controller *controller, struct build *build, struct worker_session *session)
{
    const struct function_spec *spec = &build->version->record.spec;
    char head[256];
    snprintf(head, sizeof(head),
             "{\"kind\":\"build\",\"build_id\":\"%s\",\"function\":\"%s\",\"version\":%lld}",
             build->id, spec->name, (long long)spec->version);
    if (session_tell(session, head, NULL) < 0)
        return;
    build->session = session;
    build->stream_number = session->stream_number;
    build->attempts++;
    build->started_ns = clock_monotonic_ns();
    session->build = build;
    list_remove(&build->link);
    list_append(&controller->builds.running, &build->link);
    log_info("build given to a worker", LOG_STR("function", spec->name),
             LOG_INT("version", spec->version), LOG_STR("worker", session->name));
    session_flush(session);
}

void builds_dispatch(struct controller *controller)
{
    list_for_each(link, &controller->builds.waiting)
    {
        struct build *build = list_entry(link, struct build, link);
        struct worker_session *session;
        if (is_settled(build)) {
            free_build(controller, build);
            continue;
        }
        if ((session = choose_session(controller, build->version)))
            give(controller, build, session);
    }
}

/* ---- the end ---- */

static void not_stored(struct function_version *version, const struct error *err)
{
    struct function_record *record = &version->record;
    log_error("a build's outcome could not be written", LOG_STR("function", record->spec.name),
              LOG_ERR(err));
    if (record->state != FUNCTION_BUILDING)
        return; /* another controller has written one */
    record->state = FUNCTION_FAILED;
    free(record->build_output);
    record->build_output =
        string_printf("the outcome could not be stored; deploy it again: %s", err->message);
}

static void stored(void *data, const struct error *err)
{
    struct build_end *end = data;
    struct controller *controller = end->controller;
    struct function_version *version = end->version;
    const struct function_spec *spec = &version->record.spec;
    list_remove(&end->link);
    if (err && err->code == ERROR_NOT_FOUND) {
        log_info("a build's outcome is of no use any more", LOG_STR("function", spec->name),
                 LOG_INT("version", spec->version), LOG_ERR(err));
        version_unref(&controller->registry, version);
        free(end);
        return;
    }
    if (err) {
        not_stored(version, err);
    } else if (end->state == FUNCTION_READY) {
        registry_activate(&controller->registry, version);
        dispatch_take_turns(&controller->dispatch, version->function);
    } else {
        version->record.state = end->state;
    }
    log_info("build ended", LOG_STR("function", spec->name), LOG_INT("version", spec->version),
             LOG_STR("state", function_state_name(version->record.state)));
    version_unref(&controller->registry, version);
    free(end);
}

/* Writes the record as it shall be, and the artifact (free()d; or NULL); the version serves only when that is on the disk. */
static void write_outcome(struct controller *controller, struct build *build,
                          enum function_state state, char *artifact, size_t artifact_len)
{
    struct function_version *version = build->version;
    struct build_end *end = calloc(1, sizeof(*end));
    if (state == FUNCTION_READY)
        controller->metrics.builds_ok++;
    else
        controller->metrics.builds_failed++;
    if (end) {
        *end = (struct build_end){
            .controller = controller, .version = version_ref(version), .state = state};
        version->record.updated_at_ns = clock_realtime_ns();
        struct function_record record = version->record;
        record.state = state;
        list_append(&controller->builds.ending, &end->link);
        store_update_function(controller->store, &record, artifact, artifact_len, stored, end);
    } else {
        free(artifact);
        free(end);
    }
    free_build(controller, build);
}

/* A compiler's words quote what it read, and may be cut within a character; what is stored must be UTF-8. */
static char *copy_output(const char *output, size_t len)
{
    char *copy = strndup(output, len);
    size_t left = copy ? strlen(copy) : 0;
    for (char *at = copy; left > 0;) {
        size_t width = utf8_width(at, left);
        if (width == 0)
            *at = '?';
        at += width ? width : 1;
        left -= width ? width : 1;
    }
    return copy;
}

static void fail(struct controller *controller, struct build *build, const char *output, size_t len)
{
    struct function_record *record = &build->version->record;
    free(record->build_output);
    record->build_output = copy_output(output, len);
    write_outcome(controller, build, FUNCTION_FAILED, NULL, 0);
}

void builds_worker_lost(struct controller *controller, struct worker_session *session)
{
    static const char message[] = "the workers that compiled this were lost; deploy it again";
    struct build *build = session->build;
    if (!build)
        return;
    session->build = NULL;
    build->session = NULL;
    if (is_settled(build)) {
        free_build(controller, build);
        return;
    }
    if (build->attempts >= BUILD_ATTEMPTS) {
        fail(controller, build, message, strlen(message));
        return;
    }
    list_remove(&build->link);
    list_append(&controller->builds.waiting, &build->link);
}

void builds_match(struct controller *controller, struct worker_session *session,
                  const struct json *named)
{
    const struct build *build = session->build;
    if (!build || !named || build->stream_number == session->stream_number)
        return;
    json_foreach (i, item, named) {
        const char *id = json_string(item, NULL);
        if (id && strcmp(id, build->id) == 0)
            return;
    }
    builds_worker_lost(controller, session);
    builds_dispatch(controller);
}

static struct build *find_running(struct controller *controller, const char *id)
{
    list_for_each(link, &controller->builds.running)
    {
        struct build *build = list_entry(link, struct build, link);
        if (strcmp(build->id, id) == 0)
            return build;
    }
    return NULL;
}

/* What it compiles for: the worker's own. NULL when it does not say. */
static char *build_arch(const struct build *build)
{
    const char *arch = json_get_string(build->session->described, "arch");
    return arch && strlen(arch) <= 63 ? strdup(arch) : NULL;
}

static void succeed(struct controller *controller, struct build *build,
                    const struct worker_message *message)
{
    static const char no_memory[] = "out of memory for the compiled program";
    struct function_record *record = &build->version->record;
    char hash[SHA256_HEX_LEN + 1];
    char *bytes = malloc(message->artifact_len);
    sha256_hex(message->artifact, message->artifact_len, hash);
    char *digest = strdup(hash);
    char *arch = build_arch(build);
    if (!bytes || !digest) {
        free(bytes);
        free(digest);
        free(arch);
        fail(controller, build, no_memory, strlen(no_memory));
        return;
    }
    memcpy(bytes, message->artifact, message->artifact_len);
    free(record->spec.artifact_sha256);
    record->spec.artifact_sha256 = digest;
    free(record->spec.artifact_arch);
    record->spec.artifact_arch = arch;
    free(record->build_output);
    record->build_output =
        message->output_len ? copy_output(message->output, message->output_len) : NULL;
    write_outcome(controller, build, FUNCTION_READY, bytes, message->artifact_len);
}

void builds_result(struct controller *controller, const struct worker_message *message)
{
    static const char silent[] = "the compiler said nothing";
    struct build *build = find_running(controller, message->id);
    if (!build)
        return;
    session_heard(build->session);
    if (is_settled(build))
        free_build(controller, build);
    else if (message->ok)
        succeed(controller, build, message);
    else if (message->output_len > 0)
        fail(controller, build, message->output,
             message->output_len < BUILD_OUTPUT_MAX ? message->output_len : BUILD_OUTPUT_MAX);
    else
        fail(controller, build, silent, strlen(silent));
}
