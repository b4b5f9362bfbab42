/* Changes of functions: see changes.h. */
#include "controller/changes.h"

#include "base/cleanup.h"
#include "base/log.h"
#include "controller/code_check.h"
#include "controller/controller.h"
#include "controller/refresh.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* So many definitions are checked at once: each may hold a few hundred megabytes for a moment. */
#define CHANGES_MAX 16
#define ANSWER_MAX (4 * 1024 * 1024)

enum change_kind { CHANGE_CREATE, CHANGE_PUT, CHANGE_DELETE };

struct change {
    struct controller *controller;
    struct http_request *request;
    enum change_kind kind;
    struct function_entry *function;
    struct list link; /* in function->changes */
    bool created;
    uint64_t time_ns; /* of the new version */
    /* the pool job's */
    char *body; /* owned */
    size_t body_len;
    char *name;    /* owned; from the path; NULL: in the body */
    char *scratch; /* owned */
    double machine_cpus;
    size_t code_max;
    struct archive_limits limits;
    struct function_spec spec;
    char *code; /* owned; NULL: none was given */
    size_t code_len;
    bool failed;
    struct error error;
};

static void start(struct change *change);

static void free_change(struct change *change)
{
    function_spec_deinit(&change->spec);
    free(change->body);
    free(change->name);
    free(change->scratch);
    free(change->code);
    free(change);
}

/* ---- what users see ---- */

static void write_time(struct json_writer *writer, const char *key, uint64_t time_ns)
{
    char text[25];
    clock_format_rfc3339(time_ns, text);
    json_member_string(writer, key, text);
}

void function_write(struct json_writer *writer, const struct function_entry *function,
                    const char *code_member, const char *code_base64)
{
    const struct function_record *record = &function->newest->record;
    json_object_begin(writer);
    function_spec_write_members(writer, &record->spec);
    json_member_string(writer, "state", function_state_name(record->state));
    json_key(writer, "ready_version");
    if (function->current)
        json_write_int(writer, function->current->record.spec.version);
    else
        json_write_null(writer);
    json_member_string(writer, "build_output", record->build_output);
    write_time(writer, "created_at", record->created_at_ns);
    write_time(writer, "updated_at", record->updated_at_ns);
    if (code_member)
        json_member_string(writer, code_member, code_base64);
    json_object_end(writer);
}

/* ---- the end of a change ---- */

static void next_change(struct function_entry *function)
{
    struct list *next = list_first(&function->changes);
    if (next)
        start(list_entry(next, struct change, link));
}

static void end_change(struct change *change)
{
    struct function_entry *function = change->function;
    change->controller->deploys--;
    list_remove(&change->link);
    free_change(change);
    if (function)
        next_change(function);
}

static void refuse(struct change *change, const struct error *err)
{
    http_respond_error(change->request, err);
    end_change(change);
}

static void answer_function(struct change *change, int status)
{
    struct error err = {0};
    with_cleanup(buffer_deinit) struct buffer body = BUFFER_INIT(ANSWER_MAX);
    struct json_writer *writer = json_writer_new(&body);
    if (!writer)
        error_set(&err, ERROR_INTERNAL, "out of memory");
    else
        function_write(writer, change->function, NULL, NULL);
    if (!writer || json_writer_finish(writer, &err) < 0) {
        refuse(change, &err);
        return;
    }
    http_respond_json(change->request, status, &body);
    end_change(change);
}

/* ---- create and update ---- */

static int spec_text(const struct function_spec *spec, struct buffer *out)
{
    struct json_writer *writer = json_writer_new(out);
    if (!writer)
        return -1;
    json_object_begin(writer);
    function_spec_write_members(writer, spec);
    function_spec_write_secrets(writer, spec);
    json_object_end(writer);
    return json_writer_finish(writer, NULL);
}

/* Whether the newest version is this definition with this code already. One that failed to build may be
 * tried again. */
static bool changes_nothing(const struct change *change)
{
    const struct function_version *newest = change->function->newest;
    if (!newest || newest->record.state == FUNCTION_FAILED)
        return false;
    struct function_spec same = change->spec; /* borrows everything */
    with_cleanup(buffer_deinit) struct buffer before = BUFFER_INIT(ANSWER_MAX);
    with_cleanup(buffer_deinit) struct buffer after = BUFFER_INIT(ANSWER_MAX);
    same.version = newest->record.spec.version;
    same.artifact_sha256 = newest->record.spec.artifact_sha256;
    same.artifact_arch = newest->record.spec.artifact_arch;
    return spec_text(&newest->record.spec, &before) == 0 && spec_text(&same, &after) == 0 &&
           before.len == after.len && memcmp(before.data, after.data, after.len) == 0;
}

static void cancel_queued(struct controller *controller, struct function_entry *function)
{
    list_for_each(link, &function->queue)
    {
        struct live_execution *execution = list_entry(link, struct live_execution, queue_link);
        dispatch_remove(&controller->dispatch, execution);
        executions_fail(controller, execution, EXECUTION_CANCELLED, "Platform.FunctionDeleted",
                        "function %s was deleted before this could run", function->name);
    }
}

/* The new version is on the disk. */
static void version_stored(void *data, const struct error *err)
{
    struct change *change = data;
    struct controller *controller = change->controller;
    struct function_entry *function = change->function;
    struct error failure = {0};
    struct function_record record = {0};

    if (err) {
        failure = *err;
        error_wrap(&failure, "function %s could not be written", function->name);
        refuse(change, &failure);
        return;
    }
    record.spec = change->spec;
    memset(&change->spec, 0, sizeof(change->spec));
    record.state = record.spec.artifact_sha256 ? FUNCTION_READY : FUNCTION_BUILDING;
    record.updated_at_ns = change->time_ns;
    record.created_at_ns = change->created ? change->time_ns : function->created_at_ns;
    if (registry_add_version(&controller->registry, function, &record, &failure) < 0 ||
        (function->newest->record.state == FUNCTION_BUILDING &&
         builds_add(controller, function->newest, &failure) < 0)) {
        function_record_deinit(&record);
        refuse(change, &failure);
        return;
    }
    /* Others are to know whose it is. */
    if (function->newest->record.state == FUNCTION_BUILDING)
        builds_claim(controller);
    dispatch_take_turns(&controller->dispatch, function); /* its bound may be another now */
    log_info("function deployed", LOG_STR("function", function->name),
             LOG_INT("version", function->last_version),
             LOG_STR("state", function_state_name(function->newest->record.state)));
    answer_function(change, change->created ? 201 : 200);
}

/* A secret that was not sent again is the newest version's. */
static int take_over_callback(struct change *change, struct error *err)
{
    struct function_spec *spec = &change->spec;
    const struct function_version *newest = change->function->newest;
    const char *before = newest ? newest->record.spec.callback_secret : NULL;
    if (!spec->callback_secret && before && !(spec->callback_secret = strdup(before)))
        return error_set(err, ERROR_INTERNAL, "out of memory");
    if (!spec->callback_url)
        return 0;
    return callback_check(change->controller, spec->callback_url, spec, "/callback_url", err);
}

/* Code that was not sent again is the newest version's; what was compiled from the same code is used again. */
static int take_over(struct change *change, struct error *err)
{
    struct function_spec *spec = &change->spec;
    const struct function_version *newest = change->function->newest;
    const struct function_spec *before = newest ? &newest->record.spec : NULL;

    if (!spec->code_sha256) {
        if (!before)
            return error_set_field(
                err, ERROR_INVALID_REQUEST, "/code",
                "code is required: base64 of a source file or of a .zip, .tar or "
                ".tar.gz archive");
        if (before->runtime != spec->runtime)
            return error_set_field(err, ERROR_INVALID_REQUEST, "/code",
                                   "code is required when the runtime changes (from %s to %s)",
                                   function_runtime_name(before->runtime),
                                   function_runtime_name(spec->runtime));
        spec->code_sha256 = strdup(before->code_sha256 ? before->code_sha256 : "");
    }
    if (!spec->code_sha256)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    const char *artifact = NULL;
    if (spec->runtime != RUNTIME_GO)
        artifact = spec->code_sha256;
    else if (before && before->runtime == RUNTIME_GO && before->code_sha256 &&
             before->artifact_sha256 && newest->record.state == FUNCTION_READY &&
             strcmp(before->code_sha256, spec->code_sha256) == 0 &&
             strcmp(before->image, spec->image) == 0)
        artifact = before->artifact_sha256;
    if (artifact && !(spec->artifact_sha256 = strdup(artifact)))
        return error_set(err, ERROR_INTERNAL, "out of memory");
    const char *arch = artifact && spec->runtime == RUNTIME_GO ? before->artifact_arch : NULL;
    if (arch && !(spec->artifact_arch = strdup(arch)))
        return error_set(err, ERROR_INTERNAL, "out of memory");
    return 0;
}

static void start_put(struct change *change)
{
    struct controller *controller = change->controller;
    struct function_entry *function = change->function;
    struct error err = {0};

    change->created = !function->newest;
    if (change->kind == CHANGE_CREATE && function->newest) {
        error_set_field(&err, ERROR_CONFLICT, "/name",
                        "there is a function %s already (PUT /v1/functions/%s updates it)",
                        function->name, function->name);
        refuse(change, &err);
        return;
    }
    if (take_over_callback(change, &err) < 0 || take_over(change, &err) < 0) {
        refuse(change, &err);
        return;
    }
    if (changes_nothing(change)) {
        answer_function(change, 200);
        return;
    }
    struct function_record record = {0};
    change->spec.version = function->last_version + 1;
    record.spec = change->spec; /* the store copies it */
    record.state = change->spec.artifact_sha256 ? FUNCTION_READY : FUNCTION_BUILDING;
    change->time_ns = clock_realtime_ns();
    record.updated_at_ns = change->time_ns;
    record.created_at_ns = change->created ? change->time_ns : function->created_at_ns;
    store_add_function(controller->store, &record, steal_pointer(&change->code), change->code_len,
                       version_stored, change);
}

/* ---- delete ---- */

void changes_forget_function(struct controller *controller, struct function_entry *function)
{
    cancel_queued(controller, function);
    registry_delete(&controller->registry, function);
}

static void deleted(void *data, const struct error *err)
{
    struct change *change = data;
    struct controller *controller = change->controller;
    struct function_entry *function = change->function;
    if (err) {
        struct error failure = *err;
        error_wrap(&failure, "function %s could not be deleted", function->name);
        refuse(change, &failure);
        return;
    }
    changes_forget_function(controller, function);
    log_info("function deleted", LOG_STR("function", function->name));
    http_respond(change->request, 204, NULL, NULL, 0, NULL, 0);
    end_change(change);
}

static void start_delete(struct change *change)
{
    struct error err = {0};
    if (!change->function->newest) {
        error_set(&err, ERROR_NOT_FOUND, "there is no function %s", change->function->name);
        refuse(change, &err);
        return;
    }
    store_delete_function(change->controller->store, change->function->name, deleted, change);
}

/* ---- the beginning ---- */

static void start_now(struct change *change)
{
    if (change->kind == CHANGE_DELETE)
        start_delete(change);
    else
        start_put(change);
}

static void refreshed(void *data, const struct error *err)
{
    struct change *change = data;
    if (err)
        refuse(change, err);
    else
        start_now(change);
}

/* Another controller may have changed the function. */
static void start(struct change *change)
{
    if (change->controller->delivery.shared)
        refresh_function(change->controller, change->function->name, refreshed, change);
    else
        start_now(change);
}

static void enqueue(struct change *change, struct function_entry *function)
{
    bool first = list_empty(&function->changes);
    change->function = function;
    list_append(&function->changes, &change->link);
    if (first)
        start(change);
}

static struct change *new_change(struct controller *controller, struct http_request *request,
                                 enum change_kind kind, const char *name)
{
    struct error err = {0};
    struct change *change = NULL;
    if (drain_refuses(controller))
        error_set(&err, ERROR_NO_CAPACITY, "the controller is stopping");
    else if (name && !function_name_valid(name))
        error_set_field(
            &err, ERROR_INVALID_REQUEST, "/name",
            "a function's name is 1 to %d characters of a-z, 0-9 and -, not at its ends, "
            "not \"%.80s\"",
            FUNCTION_NAME_MAX, name);
    else if (kind != CHANGE_DELETE && controller->deploys >= CHANGES_MAX)
        error_set(&err, ERROR_THROTTLED, "%d functions are being deployed; try again later",
                  CHANGES_MAX);
    else if (!(change = calloc(1, sizeof(*change))))
        error_set(&err, ERROR_INTERNAL, "out of memory");
    if (!change) {
        http_respond_error(request, &err);
        return NULL;
    }
    controller->deploys++;
    change->controller = controller;
    change->request = request;
    change->kind = kind;
    change->name = name ? strdup(name) : NULL;
    list_init(&change->link);
    return change;
}

/* ---- the pool job ---- */

static int decode_code(struct change *change, const struct json *code, struct error *err)
{
    char hash[SHA256_HEX_LEN + 1];
    size_t len = 0;
    const char *text = json_string(code, &len);
    with_cleanup(buffer_deinit) struct buffer bytes = BUFFER_INIT(change->code_max);
    if (base64_decode(text, len, &bytes, err) < 0) {
        if (err->code == ERROR_PAYLOAD_TOO_LARGE)
            error_set(err, ERROR_PAYLOAD_TOO_LARGE,
                      "code must be at most %zu bytes before base64 (setting "
                      "CONTROLLER_ARCHIVE_MAX_BYTES)",
                      change->code_max);
        snprintf(err->field, sizeof(err->field), "/code");
        return error_wrap(err, "code");
    }
    change->code = buffer_take(&bytes, &change->code_len);
    if (!change->code)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    sha256_hex(change->code, change->code_len, hash);
    change->spec.code_sha256 = strdup(hash);
    return change->spec.code_sha256 ? 0 : error_set(err, ERROR_INTERNAL, "out of memory");
}

static int check_request(struct change *change, struct error *err)
{
    struct json_limits limits = {.max_bytes = SIZE_MAX, .max_values = 10000};
    autojson *tree = json_parse(change->body, change->body_len, &limits, err);
    free(steal_pointer(&change->body));
    if (!tree)
        return error_wrap(err, "the body is no JSON that can be used");
    if (function_spec_read_request(tree, change->name, change->machine_cpus, &change->spec, err) <
        0)
        return -1;
    const struct json *code = json_get(tree, "code");
    if (!code)
        return 0;
    if (decode_code(change, code, err) < 0)
        return -1;
    return code_check(&change->spec, change->code, change->code_len, change->scratch,
                      &change->limits, err);
}

static void check_work(void *job)
{
    struct change *change = job;
    change->failed = check_request(change, &change->error) < 0;
}

static void checked(void *job)
{
    struct change *change = job;
    struct function_entry *function = NULL;
    if (change->controller->stopped && !change->failed) {
        error_set(&change->error, ERROR_NO_CAPACITY, "the controller is stopping");
        change->failed = true;
    }
    if (!change->failed && !(function = registry_entry(&change->controller->registry,
                                                       change->spec.name, &change->error)))
        change->failed = true;
    if (change->failed)
        refuse(change, &change->error);
    else
        enqueue(change, function);
}

static void check_and_start(struct controller *controller, struct change *change)
{
    const struct controller_config *config = &controller->config;
    struct error err = {0};
    change->body = http_request_take_body(change->request, &change->body_len);
    change->scratch = string_printf("%s/check", config->data_dir);
    change->machine_cpus = controller->machine_cpus;
    change->code_max = (size_t)config->archive_max_bytes;
    change->limits = (struct archive_limits){
        .max_packed_bytes = (uint64_t)config->archive_max_bytes,
        .max_unpacked_bytes = (uint64_t)config->archive_unpacked_max_mb * 1024 * 1024,
        .max_files = (uint64_t)config->archive_max_files};
    if (!change->body || !change->scratch)
        error_set(&err, ERROR_INTERNAL, "out of memory");
    else if (loop_work(&controller->loop, check_work, checked, change, &err) == 0)
        return;
    refuse(change, &err);
}

void changes_create(struct controller *controller, struct http_request *request)
{
    struct change *change = new_change(controller, request, CHANGE_CREATE, NULL);
    if (change)
        check_and_start(controller, change);
}

void changes_put(struct controller *controller, struct http_request *request, const char *name)
{
    struct change *change = new_change(controller, request, CHANGE_PUT, name);
    if (change)
        check_and_start(controller, change);
}

void changes_delete(struct controller *controller, struct http_request *request, const char *name)
{
    struct error err = {0};
    struct change *change = new_change(controller, request, CHANGE_DELETE, name);
    if (!change)
        return;
    struct function_entry *function = registry_find(&controller->registry, name);
    if (function) {
        enqueue(change, function);
        return;
    }
    error_set(&err, ERROR_NOT_FOUND, "there is no function %s", name);
    refuse(change, &err);
}
