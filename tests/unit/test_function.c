/* model/function.h: what users may say of a function, and what they are told when they may not. */
#include "model/function.h"

#include "base/cleanup.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#define autospec with_cleanup(function_spec_deinit) struct function_spec
#define autobuffer with_cleanup(buffer_deinit) struct buffer

static int read_request(const char *text, const char *name, struct function_spec *spec,
                        struct error *err)
{
    autojson *value = json_parse(text, strlen(text), NULL, err);
    cr_assert_not_null(value, "%s", text);
    return function_spec_read_request(value, name, 2.0, spec, err);
}

static void assert_accepted(const char *text)
{
    autospec spec;
    struct error err = {0};
    function_spec_init(&spec);
    cr_assert_eq(read_request(text, "f", &spec, &err), 0, "%s: %s", text, err.message);
}

static void assert_refused(const char *text, const char *field, const char *message)
{
    struct function_spec spec;
    struct error err = {0};
    cr_assert_eq(read_request(text, "f", &spec, &err), -1, "%s", text);
    cr_assert_str_eq(err.field, field);
    cr_assert_str_eq(err.message, message);
    cr_assert_eq(err.code, ERROR_INVALID_REQUEST);
    cr_assert_null(spec.name, "nothing is left to clean");
}

Test(function, the_contracts_defaults_hold)
{
    autospec spec;
    cr_assert_eq(read_request("{\"runtime\":\"python\"}", "hello", &spec, NULL), 0);
    cr_assert_str_eq(spec.name, "hello");
    cr_assert_eq(spec.runtime, RUNTIME_PYTHON);
    cr_assert_eq(spec.contract, CONTRACT_PROCESS);
    cr_assert_str_eq(spec.image, "faas-runtime-python:latest");
    cr_assert_null(spec.handler);
    cr_assert_eq(spec.memory_mb, 128);
    cr_assert_float_eq(spec.cpus, 1.0, 0);
    cr_assert_eq(spec.timeout_ms, 30000);
    cr_assert_eq(spec.tmp_mb, 64);
    cr_assert_eq(spec.pids, 64);
    cr_assert_eq(spec.io_bps, 0);
    cr_assert_eq(spec.io_iops, 0);
    cr_assert_eq(spec.network, NETWORK_BRIDGE);
    cr_assert(!spec.public);
    cr_assert_eq(spec.min_instances, 0);
    cr_assert_eq(spec.max_instances, 0);
    cr_assert_eq(spec.concurrency, 1);
    cr_assert_eq(spec.keep_alive_ms, -1, "the worker decides");
    cr_assert_eq(spec.retry.max_attempts, 1, "a function need not be made for being called twice");
    cr_assert_eq(spec.env.count, 0);
}

static const char full[] =
    "{\"name\":\"hello\",\"runtime\":\"nodejs\",\"image\":\"my/image:1.2@sha256:ab\","
    "\"contract\":\"handler\",\"handler\":\"lib/"
    "index.on_event\",\"env\":{\"A\":\"1\",\"_b2\":\"\"},"
    "\"labels\":{\"team/x\":\"core\"},\"memory_mb\":256,\"cpus\":0.5,\"timeout_ms\":900000,"
    "\"tmp_mb\":1,\"pids\":100,\"io_bps\":1048576,\"io_iops\":50,\"network\":\"none\",\"public\":"
    "true,"
    "\"rate_limit\":2.5,\"rate_burst\":7,\"max_concurrency\":30,"
    "\"min_instances\":2,\"max_instances\":20,\"keep_alive_ms\":0,"
    "\"retry\":{\"max_attempts\":5,\"backoff_ms\":200,\"max_age_ms\":60000},\"code\":\"QQ==\"}";

static void assert_full(const struct function_spec *spec)
{
    cr_assert_str_eq(spec->name, "hello");
    cr_assert_eq(spec->runtime, RUNTIME_NODEJS);
    cr_assert_str_eq(spec->image, "my/image:1.2@sha256:ab");
    cr_assert_eq(spec->contract, CONTRACT_HANDLER);
    cr_assert_str_eq(spec->handler, "lib/index.on_event");
    cr_assert_eq(spec->env.count, 2);
    cr_assert_str_eq(spec->env.items[1].key, "_b2");
    cr_assert_str_eq(spec->env.items[1].value, "");
    cr_assert_str_eq(spec->labels.items[0].value, "core");
    cr_assert_eq(spec->memory_mb, 256);
    cr_assert_float_eq(spec->cpus, 0.5, 0);
    cr_assert_eq(spec->timeout_ms, 900000);
    cr_assert_eq(spec->tmp_mb, 1);
    cr_assert_eq(spec->pids, 100);
    cr_assert_eq(spec->io_bps, 1048576);
    cr_assert_eq(spec->io_iops, 50);
    cr_assert_eq(spec->network, NETWORK_NONE);
    cr_assert(spec->public);
    cr_assert_eq(spec->min_instances, 2);
    cr_assert_eq(spec->max_instances, 20);
    cr_assert_eq(spec->rate_limit, 2.5);
    cr_assert_eq(spec->rate_burst, 7);
    cr_assert_eq(spec->max_concurrency, 30);
    cr_assert_eq(spec->reserved_concurrency, 0);
    cr_assert_eq(spec->keep_alive_ms, 0);
    cr_assert_eq(spec->retry.max_attempts, 5);
    cr_assert_eq(spec->retry.backoff_ms, 200);
    cr_assert_eq(spec->retry.max_age_ms, 60000);
}

Test(function, every_field_is_read)
{
    autospec spec;
    struct error err = {0};
    cr_assert_eq(read_request(full, NULL, &spec, &err), 0, "%s", err.message);
    assert_full(&spec);
}

Test(function, a_copy_owns_its_own_strings)
{
    struct function_spec spec;
    autospec copy;
    cr_assert_eq(read_request(full, NULL, &spec, NULL), 0);
    cr_assert_eq(function_spec_copy(&copy, &spec, NULL), 0);
    function_spec_deinit(&spec);
    assert_full(&copy);
}

Test(function, what_is_written_is_read_back_with_version_and_digests)
{
    autospec spec, again;
    autobuffer text = BUFFER_INIT(10000);
    struct error err = {0};
    function_spec_init(&again);
    cr_assert_eq(read_request(full, NULL, &spec, NULL), 0);
    spec.version = 7;
    spec.code_sha256 = strdup("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef");
    struct json_writer *writer = json_writer_new(&text);
    json_object_begin(writer);
    function_spec_write_members(writer, &spec);
    json_member_string(writer, "state", "ready");
    json_object_end(writer);
    cr_assert_eq(json_writer_finish(writer, NULL), 0);

    autojson *value = json_parse(text.data, text.len, NULL, NULL);
    cr_assert_eq(function_spec_read(value, &again, &err), 0, "%s", err.message);
    assert_full(&again);
    cr_assert_eq(again.version, 7);
    cr_assert_str_eq(again.code_sha256, spec.code_sha256);
    cr_assert_null(again.artifact_sha256);
}

Test(function, users_cannot_set_what_the_platform_keeps)
{
    assert_refused(
        "{\"runtime\":\"go\",\"version\":3}", "/version",
        "unknown field \"version\"; known are cpus, name, runtime, image, contract, "
        "handler, env, labels, requires, memory_mb, timeout_ms, tmp_mb, pids, io_bps, io_iops, "
        "network, "
        "network_allow, network_kbps, public, min_instances, max_instances, concurrency, "
        "rate_limit, rate_burst, max_concurrency, reserved_concurrency, "
        "callback_url, callback_secret, keep_alive_ms, retry, code");
    assert_refused("{\"runtime\":\"go\",\"memory\":64}", "/memory",
                   "unknown field \"memory\"; did you mean \"memory_mb\"?");
}

Test(function, numbers_are_held_to_the_contracts_ranges)
{
    assert_refused("{\"runtime\":\"go\",\"memory_mb\":4}", "/memory_mb",
                   "memory_mb must be 16 to 10240, not 4");
    assert_refused("{\"runtime\":\"go\",\"memory_mb\":10241}", "/memory_mb",
                   "memory_mb must be 16 to 10240, not 10241");
    assert_refused("{\"runtime\":\"go\",\"timeout_ms\":0}", "/timeout_ms",
                   "timeout_ms must be 1 to 900000, not 0");
    assert_refused("{\"runtime\":\"go\",\"timeout_ms\":900001}", "/timeout_ms",
                   "timeout_ms must be 1 to 900000, not 900001");
    assert_refused("{\"runtime\":\"go\",\"cpus\":0.01}", "/cpus",
                   "cpus must be 0.05 to 2, not 0.01");
    assert_refused("{\"runtime\":\"go\",\"cpus\":2.5}", "/cpus", "cpus must be 0.05 to 2, not 2.5");
    assert_refused("{\"runtime\":\"go\",\"cpus\":\"1\"}", "/cpus",
                   "cpus must be 0.05 to 2, not \"1\"");
    assert_refused("{\"runtime\":\"go\",\"pids\":0}", "/pids", "pids must be 1 to 4096, not 0");
    assert_refused("{\"runtime\":\"go\",\"io_bps\":1048575}", "/io_bps",
                   "io_bps must be 0 (no limit) or 1048576 to 100000000000, not 1048575");
    assert_refused("{\"runtime\":\"go\",\"io_bps\":100000000001}", "/io_bps",
                   "io_bps must be 0 to 100000000000, not 100000000001");
    assert_refused("{\"runtime\":\"go\",\"io_iops\":49}", "/io_iops",
                   "io_iops must be 0 (no limit) or 50 to 10000000, not 49");
    assert_refused("{\"runtime\":\"go\",\"io_iops\":-1}", "/io_iops",
                   "io_iops must be 0 to 10000000, not -1");
    assert_accepted("{\"runtime\":\"go\",\"io_bps\":100000000000,\"io_iops\":10000000}");
    assert_refused("{\"runtime\":\"go\",\"tmp_mb\":-1}", "/tmp_mb",
                   "tmp_mb must be 1 to 10240, not -1");
    assert_refused("{\"runtime\":\"go\",\"min_instances\":-1}", "/min_instances",
                   "min_instances must be 0 to 10000, not -1");
    assert_refused("{\"runtime\":\"python\",\"concurrency\":101}", "/concurrency",
                   "concurrency must be 1 to 100, not 101");
    assert_refused("{\"runtime\":\"python\",\"concurrency\":0}", "/concurrency",
                   "concurrency must be 1 to 100, not 0");
    assert_refused("{\"runtime\":\"go\",\"max_instances\":10001}", "/max_instances",
                   "max_instances must be 0 to 10000, not 10001");
    assert_refused("{\"runtime\":\"go\",\"keep_alive_ms\":-1}", "/keep_alive_ms",
                   "keep_alive_ms must be 0 to 86400000, not -1");
    assert_refused("{\"runtime\":\"go\",\"min_instances\":3,\"max_instances\":2}", "/min_instances",
                   "min_instances must be at most max_instances, which is 2 (0 would be no bound), "
                   "not 3");
    assert_accepted("{\"runtime\":\"go\",\"min_instances\":3}");
    assert_refused("{\"runtime\":\"go\",\"rate_limit\":0.0001}", "/rate_limit",
                   "rate_limit must be 0 (no limit) or 0.001 to 1000000 a second, not 0.0001");
    assert_refused("{\"runtime\":\"go\",\"rate_burst\":5}", "/rate_burst",
                   "rate_burst needs rate_limit; without one leave it out");
    assert_refused("{\"runtime\":\"go\",\"max_concurrency\":5,\"reserved_concurrency\":6}",
                   "/max_concurrency",
                   "reserved_concurrency is a bound already: leave max_concurrency out");
    assert_accepted("{\"runtime\":\"go\",\"reserved_concurrency\":6,\"rate_limit\":0.001}");
    assert_refused("{\"runtime\":\"go\",\"retry\":{\"max_attempts\":0}}", "/retry/max_attempts",
                   "retry: max_attempts must be 1 to 100, not 0");
    assert_refused("{\"runtime\":\"go\",\"retry\":{\"backoff\":1}}", "/retry/backoff",
                   "retry: unknown field \"backoff\"; did you mean \"backoff_ms\"?");
    assert_refused("{\"runtime\":\"go\",\"retry\":3}", "/retry",
                   "retry: it must be a JSON object, not 3");
    assert_accepted("{\"runtime\":\"go\",\"min_instances\":3,\"max_instances\":3}");
    assert_accepted("{\"runtime\":\"go\",\"concurrency\":1}");
    assert_refused(
        "{\"runtime\":\"python\",\"concurrency\":2}", "/concurrency",
        "concurrency above 1 needs contract handler: with contract process each call has "
        "a process of its own; set 1 or leave it out, not 2");
    assert_accepted("{\"runtime\":\"python\",\"contract\":\"handler\",\"handler\":\"main.f\","
                    "\"concurrency\":100}");
    assert_refused("{\"runtime\":\"python\",\"contract\":\"handler\",\"handler\":\"main.f\","
                   "\"concurrency\":2,\"keep_alive_ms\":0}",
                   "/concurrency",
                   "concurrency above 1 does not go with keep_alive_ms 0, which gives each call an "
                   "instance of its own; set 1 or leave it out, not 2");
    assert_accepted("{\"runtime\":\"go\",\"memory_mb\":16,\"timeout_ms\":1,\"cpus\":0.05}");
    assert_accepted("{\"runtime\":\"go\",\"memory_mb\":10240,\"cpus\":2}");
}

Test(function, choices_name_what_would_be_right)
{
    assert_refused("{}", "/runtime", "runtime is required");
    assert_refused("{\"runtime\":\"perl\"}", "/runtime",
                   "runtime must be python, nodejs, go or native, not \"perl\"");
    assert_refused("{\"runtime\":3}", "/runtime",
                   "runtime must be python, nodejs, go or native, not 3");
    assert_refused("{\"runtime\":\"go\",\"network\":\"host\"}", "/network",
                   "network must be bridge or none, not \"host\"");
    assert_refused("{\"runtime\":\"go\",\"contract\":true}", "/contract",
                   "contract must be process or handler, not true");
    assert_refused("{\"runtime\":\"go\",\"public\":\"yes\"}", "/public",
                   "public must be true or false, not \"yes\"");
    assert_refused("{\"runtime\":\"go\",\"code\":[1]}", "/code",
                   "code must be base64 text of a file or archive, not an array");
}

Test(function, names_follow_the_contract)
{
    cr_assert(function_name_valid("a"));
    cr_assert(function_name_valid("a-1"));
    cr_assert(function_name_valid("0--0"));
    char longest[65];
    memset(longest, 'x', 63);
    longest[63] = '\0';
    cr_assert(function_name_valid(longest));
    strcpy(longest + 63, "x");
    cr_assert(!function_name_valid(longest));
    static const char *const bad[] = {"",    "-a", "a-",  "A",           "a_b", "a.b",
                                      "a/b", "..", "a b", "caf\xC3\xA9", "a\n"};
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++)
        cr_assert(!function_name_valid(bad[i]), "%s", bad[i]);
}

Test(function, the_name_is_in_the_path_or_the_body_and_must_agree)
{
    struct function_spec spec;
    struct error err = {0};
    assert_accepted("{\"name\":\"f\",\"runtime\":\"go\"}");
    assert_refused("{\"name\":\"g\",\"runtime\":\"go\"}", "/name",
                   "name must be \"f\" as in the URL, or left out, not \"g\"");
    cr_assert_eq(read_request("{\"runtime\":\"go\"}", NULL, &spec, &err), -1);
    cr_assert_str_eq(err.message, "name is required");
    cr_assert_eq(read_request("{\"runtime\":\"go\"}", "A_B", &spec, &err), -1);
    cr_assert_str_eq(err.message, "name must be 1 to 63 of a-z, 0-9 and -, beginning and ending "
                                  "with a letter or digit, not \"A_B\"");
    cr_assert_str_eq(err.field, "/name");
}

Test(function, variables_of_the_platform_cannot_be_set)
{
    static const char *const reserved[] = {"FUNCTION_NAME", "FUNCTION_PAYLOAD", "FUNCTION_X",
                                           "EXECUTION_ID"};
    for (size_t i = 0; i < ARRAY_LENGTH(reserved); i++) {
        char text[100], field[60], message[200];
        snprintf(text, sizeof(text), "{\"runtime\":\"go\",\"env\":{\"%s\":\"x\"}}", reserved[i]);
        snprintf(field, sizeof(field), "/env/%s", reserved[i]);
        snprintf(message, sizeof(message),
                 "env must not set %s: names beginning with FUNCTION_ and EXECUTION_ID are set by "
                 "the platform; choose another name",
                 reserved[i]);
        assert_refused(text, field, message);
    }
    assert_accepted("{\"runtime\":\"go\",\"env\":{\"FUNCTION\":\"x\",\"EXECUTION_ID2\":\"y\"}}");
}

Test(function, env_names_and_values_are_checked)
{
    assert_refused("{\"runtime\":\"go\",\"env\":[]}", "/env",
                   "env must be an object of names and string values, not an array");
    assert_refused("{\"runtime\":\"go\",\"env\":{\"A\":4}}", "/env/A",
                   "env of A must be a string, not a number");
    assert_refused("{\"runtime\":\"go\",\"env\":{\"A\":\"x\\u0000y\"}}", "/env/A",
                   "env of A must not contain the NUL character");
    static const char *const bad[] = {"", "1A", "A=B", "A-B", "A B", "A.B", "\xC3\xA9"};
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
        struct function_spec spec;
        struct error err = {0};
        char text[100];
        snprintf(text, sizeof(text), "{\"runtime\":\"go\",\"env\":{\"%s\":\"x\"}}", bad[i]);
        cr_assert_eq(read_request(text, "f", &spec, &err), -1, "%s", text);
        cr_assert_not_null(strstr(err.message, "an env name must be letters"), "%s", err.message);
    }
}

Test(function, env_is_limited_in_number_and_bytes)
{
    autobuffer text = BUFFER_INIT(100000);
    struct function_spec spec;
    struct error err = {0};
    buffer_append_string(&text, "{\"runtime\":\"go\",\"env\":{", NULL);
    for (int i = 0; i < 65; i++)
        buffer_printf(&text, NULL, "%s\"A%d\":\"\"", i ? "," : "", i);
    buffer_append_string(&text, "}}", NULL);
    cr_assert_eq(read_request(text.data, "f", &spec, &err), -1);
    cr_assert_str_eq(err.message, "env must have at most 64 members, not 65");

    /* "A=" and the NUL are 3 bytes: 32,765 more fit. */
    for (int len = 32765; len <= 32766; len++) {
        buffer_clear(&text);
        buffer_printf(&text, NULL, "{\"runtime\":\"go\",\"env\":{\"A\":\"%*s\"}}", len, "x");
        int result = read_request(text.data, "f", &spec, &err);
        cr_assert_eq(result, len == 32765 ? 0 : -1, "%d", len);
        if (result == 0)
            function_spec_deinit(&spec);
    }
    cr_assert_str_eq(err.message,
                     "env must be at most 32768 bytes in all (names and values), not 32769");
}

Test(function, labels_are_checked)
{
    assert_accepted("{\"runtime\":\"go\",\"labels\":{\"a.b/c-d_e\":\"any \xC3\xA9 text\"}}");
    assert_refused("{\"runtime\":\"go\",\"labels\":{\"a\":null}}", "/labels/a",
                   "labels of a must be a string, not null");
    assert_refused("{\"runtime\":\"go\",\"labels\":{\"-a\":\"\"}}", "/labels/-a",
                   "a label's name must be 1 to 63 letters, digits and . _ / -, beginning with a "
                   "letter or digit, not \"-a\"");
}

static int read_handler(const char *handler)
{
    char text[400];
    struct function_spec spec;
    snprintf(text, sizeof(text),
             "{\"runtime\":\"python\",\"contract\":\"handler\",\"handler\":\"%s\"}", handler);
    int result = read_request(text, "f", &spec, NULL);
    if (result == 0)
        function_spec_deinit(&spec);
    return result;
}

Test(function, a_handler_stays_inside_the_code)
{
    static const char *const good[] = {"main.handler", "a.b.c", "src/app-1.on_event", "x._y",
                                       "index.$f"};
    static const char *const bad[] = {
        "",         "main",   ".handler", "main.", "../x.handler",  "a..handler",
        "/etc/x.h", "a//b.c", "a/../b.c", "./a.b", "a.b/c",         "a b.c",
        "a.1c",     "a.b-c",  "a\\\\b.c", "a.b()", "main.h\xC3\xA9"};
    for (size_t i = 0; i < ARRAY_LENGTH(good); i++)
        cr_assert_eq(read_handler(good[i]), 0, "%s", good[i]);
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++)
        cr_assert_eq(read_handler(bad[i]), -1, "%s", bad[i]);
}

Test(function, handler_contract_and_runtime_must_fit)
{
    assert_refused("{\"runtime\":\"python\",\"handler\":\"main.handler\"}", "/handler",
                   "handler needs \"contract\": \"handler\"; with contract process leave it out");
    assert_refused("{\"runtime\":\"nodejs\",\"contract\":\"handler\"}", "/handler",
                   "handler is required with contract handler: MODULE.FUNCTION such as "
                   "\"index.handler\"");
    assert_refused("{\"runtime\":\"go\",\"contract\":\"handler\",\"handler\":\"main.h\"}",
                   "/contract",
                   "contract handler needs runtime python or nodejs, not go; use contract process");
}

Test(function, image_names_are_checked)
{
    static const char *const bad[] = {"/etc", "../x", "a/../b", "a//b", "a b", "-a", "a\\u000a"};
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
        char text[100];
        struct function_spec spec;
        struct error err = {0};
        snprintf(text, sizeof(text), "{\"runtime\":\"native\",\"image\":\"%s\"}", bad[i]);
        cr_assert_eq(read_request(text, "f", &spec, &err), -1, "%s", bad[i]);
        cr_assert_str_eq(err.field, "/image");
    }
}

Test(function, every_failure_in_the_middle_leaves_nothing_behind)
{
    assert_refused("{\"name\":\"f\",\"image\":\"x\",\"env\":{\"A\":\"1\",\"B\":2},"
                   "\"runtime\":\"go\"}",
                   "/env/B", "env of B must be a string, not a number");
}

Test(function, runtimes_have_names_and_images)
{
    for (int i = 0; i < RUNTIME_COUNT; i++) {
        enum function_runtime runtime = RUNTIME_COUNT;
        const char *name = function_runtime_name((enum function_runtime)i);
        cr_assert_eq(function_runtime_parse(name, &runtime, NULL), 0);
        cr_assert_eq((int)runtime, i);
        cr_assert_not_null(strstr(function_runtime_default_image(runtime), name));
    }
    cr_assert_str_eq(function_contract_name(CONTRACT_PROCESS), "process");
    cr_assert_str_eq(function_contract_name(CONTRACT_HANDLER), "handler");
    cr_assert_str_eq(function_network_name(NETWORK_BRIDGE), "bridge");
    cr_assert_str_eq(function_network_name(NETWORK_NONE), "none");
    cr_assert_str_eq(function_state_name(FUNCTION_BUILDING), "building");
    cr_assert_str_eq(function_state_name(FUNCTION_READY), "ready");
    cr_assert_str_eq(function_state_name(FUNCTION_FAILED), "failed");
}

Test(function, destinations_are_read_copied_and_written)
{
    struct function_spec spec;
    autospec copy, again;
    autobuffer text = BUFFER_INIT(10000);
    struct error err = {0};
    function_spec_init(&again);
    cr_assert_eq(read_request("{\"runtime\":\"go\",\"network_kbps\":1000,\"network_allow\":"
                              "[\"10.0.0.0/8:443\",\"Example.ORG:80-90/tcp\"]}",
                              "f", &spec, &err),
                 0, "%s", err.message);
    cr_assert_eq(function_spec_copy(&copy, &spec, NULL), 0);
    function_spec_deinit(&spec);
    struct json_writer *writer = json_writer_new(&text);
    json_object_begin(writer);
    function_spec_write_members(writer, &copy);
    json_object_end(writer);
    cr_assert_eq(json_writer_finish(writer, NULL), 0);
    autojson *value = json_parse(text.data, text.len, NULL, NULL);
    cr_assert_eq(function_spec_read(value, &again, &err), 0, "%s", err.message);
    cr_assert_eq(again.network_kbps, 1000);
    cr_assert_eq(again.network_allow.count, 2);
    cr_assert_str_eq(again.network_allow.items[0].text, "10.0.0.0/8:443");
    cr_assert_str_eq(again.network_allow.items[1].name, "example.org");
    cr_assert(destinations_have_names(&again.network_allow));
}

Test(function, a_network_policy_fits_its_network)
{
    assert_refused("{\"runtime\":\"go\",\"network\":\"none\",\"network_allow\":[\"10.0.0.1\"]}",
                   "/network_allow",
                   "network_allow needs network bridge; with network none leave it out");
    assert_refused("{\"runtime\":\"go\",\"network\":\"none\",\"network_kbps\":64}", "/network_kbps",
                   "network_kbps needs network bridge; with network none leave it out");
    assert_refused("{\"runtime\":\"go\",\"network_kbps\":63}", "/network_kbps",
                   "network_kbps must be 0 (no limit) or 64 to 10000000, not 63");
    assert_refused(
        "{\"runtime\":\"go\",\"network_allow\":[]}", "/network_allow",
        "network_allow must have 1 to 32 entries, not 0; leave it out to allow everything "
        "that bridge reaches, or set network to none");
    assert_refused("{\"runtime\":\"go\",\"network_allow\":\"10.0.0.1\"}", "/network_allow",
                   "network_allow must be a list of destinations, not \"10.0.0.1\"");
    assert_refused("{\"runtime\":\"go\",\"network_allow\":[\"10.0.0.1\",7]}", "/network_allow/1",
                   "an entry of network_allow must be a text, not 7");
    assert_refused("{\"runtime\":\"go\",\"network_allow\":[\"10.0.0.1/8\"]}", "/network_allow/0",
                   "network_allow: network \"10.0.0.1/8\" has bits set beyond its first 8");
}

Test(function, a_stored_digest_must_be_one)
{
    struct function_spec spec;
    struct error err = {0};
    const char *text = "{\"name\":\"f\",\"runtime\":\"go\",\"artifact_sha256\":\"../../etc\"}";
    autojson *value = json_parse(text, strlen(text), NULL, NULL);
    cr_assert_eq(function_spec_read(value, &spec, &err), -1);
    cr_assert_str_eq(err.field, "/artifact_sha256");
}
