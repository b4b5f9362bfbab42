/* A function's definition as JSON: what function_spec_read() reads, and what users are shown. */
#include "model/function.h"

static void write_pairs(struct json_writer *writer, const char *key, const struct key_values *pairs)
{
    json_key(writer, key);
    json_object_begin(writer);
    for (size_t i = 0; i < pairs->count; i++)
        json_member_string(writer, pairs->items[i].key, pairs->items[i].value);
    json_object_end(writer);
}

/* Nothing when there is none, as for a string. */
static void write_destinations(struct json_writer *writer, const struct destinations *list)
{
    if (list->count == 0)
        return;
    json_key(writer, "network_allow");
    json_array_begin(writer);
    for (size_t i = 0; i < list->count; i++)
        json_write_string(writer, list->items[i].text);
    json_array_end(writer);
}

static void write_requires(struct json_writer *writer, const struct labels *requires)
{
    json_key(writer, "requires");
    json_array_begin(writer);
    for (size_t i = 0; i < requires->count; i++)
        json_write_string(writer, requires->items[i]);
    json_array_end(writer);
}

void function_spec_write_members(struct json_writer *writer, const struct function_spec *spec)
{
    json_member_string(writer, "name", spec->name);
    json_member_int(writer, "version", spec->version);
    json_member_string(writer, "runtime", function_runtime_name(spec->runtime));
    json_member_string(writer, "image", spec->image);
    json_member_string(writer, "contract", function_contract_name(spec->contract));
    json_member_string(writer, "handler", spec->handler);
    write_pairs(writer, "env", &spec->env);
    write_pairs(writer, "labels", &spec->labels);
    write_requires(writer, &spec->requires);
    json_member_int(writer, "memory_mb", spec->memory_mb);
    json_member_double(writer, "cpus", spec->cpus);
    json_member_int(writer, "timeout_ms", spec->timeout_ms);
    json_member_int(writer, "tmp_mb", spec->tmp_mb);
    json_member_int(writer, "pids", spec->pids);
    json_member_int(writer, "io_bps", spec->io_bps);
    json_member_int(writer, "io_iops", spec->io_iops);
    json_member_string(writer, "network", function_network_name(spec->network));
    write_destinations(writer, &spec->network_allow);
    json_member_int(writer, "network_kbps", spec->network_kbps);
    json_member_bool(writer, "public", spec->public);
    json_member_int(writer, "min_instances", spec->min_instances);
    json_member_int(writer, "max_instances", spec->max_instances);
    json_member_int(writer, "concurrency", spec->concurrency);
    json_member_double(writer, "rate_limit", spec->rate_limit);
    json_member_int(writer, "rate_burst", spec->rate_burst);
    json_member_int(writer, "max_concurrency", spec->max_concurrency);
    json_member_int(writer, "reserved_concurrency", spec->reserved_concurrency);
    if (spec->keep_alive_ms >= 0)
        json_member_int(writer, "keep_alive_ms", spec->keep_alive_ms);
    json_key(writer, "retry");
    json_object_begin(writer);
    json_member_int(writer, "max_attempts", spec->retry.max_attempts);
    json_member_int(writer, "backoff_ms", spec->retry.backoff_ms);
    json_member_int(writer, "max_age_ms", spec->retry.max_age_ms);
    json_object_end(writer);
    json_member_string(writer, "callback_url", spec->callback_url);
    json_member_string(writer, "code_sha256", spec->code_sha256);
    json_member_string(writer, "artifact_sha256", spec->artifact_sha256);
    json_member_string(writer, "artifact_arch", spec->artifact_arch);
}

void function_spec_write_secrets(struct json_writer *writer, const struct function_spec *spec)
{
    json_member_string(writer, "callback_secret", spec->callback_secret);
}
