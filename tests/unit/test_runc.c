/* The runtime driver with real runc, and with programs that only pretend to be a runtime. */
#include "container_fixture.h"

#include "base/loop.h"

TestSuite(runc, .init = fixture_set_up, .fini = fixture_tear_down, .timeout = 120);

static int call_verb(enum oci_verb verb, const char *id, struct oci_outcome *ret, struct error *err)
{
    return oci_runtime_call(&fixture_runtime,
                            &(struct oci_call){.verb = verb, .id = id, .bundle = fixture_bundle},
                            ret, err);
}

static void must(enum oci_verb verb, const char *id)
{
    struct error err = {0};

    cr_assert_eq(call_verb(verb, id, NULL, &err), 0, "%s", err.message);
}

static struct oci_state state_of(const char *id)
{
    with_cleanup(oci_outcome_deinit) struct oci_outcome outcome = {0};
    struct error err = {0};

    cr_assert_eq(call_verb(OCI_STATE, id, &outcome, &err), 0, "%s", err.message);
    cr_assert_eq(outcome.state_count, 1);
    cr_expect_str_eq(outcome.states[0].id, id);
    return outcome.states[0];
}

static void wait_until_stopped(const char *id)
{
    while (state_of(id).status != OCI_STATUS_STOPPED)
        ;
}

/* Dead, or only waiting for the host's init to reap it. */
/* ---- real runc ---- */

Test(runc, a_container_goes_through_its_whole_life)
{
    struct error err = {0};

    fixture_write_script("while :; do busybox sleep 1000; done");
    must(OCI_CREATE, "life");
    cr_expect_eq(state_of("life").status, OCI_STATUS_CREATED);
    must(OCI_START, "life");
    cr_expect_eq(state_of("life").status, OCI_STATUS_RUNNING);
    cr_expect_gt(state_of("life").pid, 1);
    must(OCI_KILL, "life");
    wait_until_stopped("life");
    cr_expect_eq(state_of("life").pid, 0);
    must(OCI_DELETE, "life");
    cr_expect_eq(call_verb(OCI_STATE, "life", NULL, &err), -1);
    cr_expect_eq(err.code, ERROR_NOT_FOUND, "%s", err.message);
}

Test(runc, run_tells_the_pid_of_the_first_process)
{
    struct oci_outcome outcome = {0};
    struct error err = {0};

    fixture_write_script("exec busybox sleep 1000");
    cr_assert_eq(call_verb(OCI_RUN, "pid", &outcome, &err), 0, "%s", err.message);
    cr_expect_eq(outcome.pid, state_of("pid").pid);
}

Test(runc, the_containers_process_has_exactly_the_descriptors_given)
{
    /* Not by listing the folder, which opens one more. The shell keeps one of its own at 10. */
    fixture_write_script("for fd in 0 1 2 3 4 5 6 7 8 9 11 12 13 14 15 16; do [ -e /proc/$$/fd/$fd "
                         "] && echo $fd >&3; done");
    autofree char *open_fds = fixture_run_to_end("fds");

    cr_expect_str_eq(open_fds, "0\n1\n2\n3\n");
}

Test(runc, the_error_is_the_runtimes_own_words)
{
    const char *args[4];
    struct oci_runtime_spec spec = fixture_spec("true", args);
    struct error err = {0};

    args[0] = "/no/such/program";
    fixture_write_bundle(&spec);
    cr_expect_eq(call_verb(OCI_RUN, "words", NULL, &err), -1);
    cr_expect_eq(err.code, ERROR_UNAVAILABLE);
    cr_expect(strstr(err.message, "runc run words: ") && strstr(err.message, "/no/such/program"),
              "%s", err.message);
    cr_expect_null(strchr(err.message, '\n'));
}

Test(runc, a_missing_bundle_is_told)
{
    struct error err = {0};

    cr_expect_eq(call_verb(OCI_CREATE, "nobundle", NULL, &err), -1);
    cr_expect(strstr(err.message, fixture_bundle), "%s", err.message);
}

Test(runc, an_id_that_is_taken_is_a_conflict)
{
    struct error err = {0};

    fixture_write_script("exec busybox sleep 1000");
    must(OCI_RUN, "twin");
    cr_expect_eq(call_verb(OCI_RUN, "twin", NULL, &err), -1);
    cr_expect_eq(err.code, ERROR_CONFLICT, "%s", err.message);
}

Test(runc, kill_of_one_that_has_ended_is_not_found)
{
    struct error err = {0};

    fixture_write_script("true");
    must(OCI_RUN, "ended");
    wait_until_stopped("ended");
    cr_expect_eq(call_verb(OCI_KILL, "ended", NULL, &err), -1);
    cr_expect_eq(err.code, ERROR_NOT_FOUND, "%s", err.message);
}

Test(runc, delete_with_force_accepts_running_and_missing_ones)
{
    struct oci_call call = {.verb = OCI_DELETE, .id = "forced", .force = true};
    struct error err = {0};

    fixture_write_script("exec busybox sleep 1000");
    must(OCI_RUN, "forced");
    pid_t pid = state_of("forced").pid;
    cr_expect_eq(oci_runtime_call(&fixture_runtime, &call, NULL, &err), 0, "%s", err.message);
    wait_until_ended(pid);
    cr_expect_eq(oci_runtime_call(&fixture_runtime, &call, NULL, &err), 0, "%s", err.message);
}

Test(runc, delete_without_force_of_a_missing_one_is_not_found)
{
    struct error err = {0};

    cr_expect_eq(call_verb(OCI_DELETE, "nobody", NULL, &err), -1);
    cr_expect_eq(err.code, ERROR_NOT_FOUND, "%s", err.message);
}

Test(runc, list_shows_every_container)
{
    with_cleanup(oci_outcome_deinit) struct oci_outcome outcome = {0};
    struct error err = {0};

    cr_assert_eq(call_verb(OCI_LIST, NULL, &outcome, &err), 0, "%s", err.message);
    cr_expect_eq(outcome.state_count, 0);
    fixture_write_script("exec busybox sleep 1000");
    must(OCI_RUN, "one");
    must(OCI_CREATE, "two");
    cr_assert_eq(call_verb(OCI_LIST, NULL, &outcome, &err), 0, "%s", err.message);
    cr_assert_eq(outcome.state_count, 2);
    cr_expect_str_eq(outcome.states[0].id, "one");
    cr_expect_eq(outcome.states[0].status, OCI_STATUS_RUNNING);
    cr_expect_eq(outcome.states[1].status, OCI_STATUS_CREATED);
}

Test(runc, delete_all_also_removes_what_the_runtime_cannot_read)
{
    autofree char *broken = string_printf("mkdir -p %s/broken && echo '{' >%s/broken/state.json",
                                          fixture_root, fixture_root);
    autofree char *entry = string_printf("%s/broken", fixture_root);
    struct error err = {0};
    size_t count = 0;

    fixture_write_script("exec busybox sleep 1000");
    must(OCI_RUN, "left");
    pid_t pid = state_of("left").pid;
    fixture_shell(broken);
    cr_assert_eq(oci_runtime_delete_all(&fixture_runtime, &count, &err), 0, "%s", err.message);
    cr_expect_eq(count, 2);
    wait_until_ended(pid);
    cr_expect_not(path_exists(entry));
}

Test(runc, version_and_features_are_told)
{
    with_cleanup(oci_outcome_deinit) struct oci_outcome version = {0}, features = {0};
    struct error err = {0};

    cr_assert_eq(call_verb(OCI_VERSION, NULL, &version, &err), 0, "%s", err.message);
    cr_expect_eq(strncmp(version.text, "runc version ", 13), 0, "%s", version.text);
    cr_assert_eq(call_verb(OCI_FEATURES, NULL, &features, &err), 0, "%s", err.message);
    cr_expect(strstr(features.text, "ociVersionMin"));
}

/* ---- asynchronous ---- */

struct answer {
    bool called;
    pid_t pid;
    struct error err;
};

static void on_answer(void *data, const struct oci_outcome *outcome, const struct error *err)
{
    struct answer *answer = data;

    cr_assert_neq(outcome == NULL, err == NULL);
    answer->called = true;
    if (outcome)
        answer->pid = outcome->pid;
    if (err)
        answer->err = *err;
}

static struct answer start_and_wait(const struct oci_runtime *runtime, const struct oci_call *call)
{
    struct answer answer = {0};
    struct error err = {0};
    uv_loop_t loop;

    uv_loop_init(&loop);
    cr_assert_eq(oci_runtime_start(runtime, &loop, call, on_answer, &answer, &err), 0, "%s",
                 err.message);
    cr_expect_not(answer.called, "it is asynchronous");
    while (!answer.called)
        uv_run(&loop, UV_RUN_ONCE);
    loop_close(&loop);
    return answer;
}

Test(runc, run_ends_although_the_container_keeps_running)
{
    fixture_write_script("exec busybox sleep 1000");
    struct answer answer = start_and_wait(
        &fixture_runtime,
        &(struct oci_call){.verb = OCI_RUN, .id = "async", .bundle = fixture_bundle});

    cr_expect_eq(answer.err.code, 0, "%s", answer.err.message);
    cr_expect_eq(answer.pid, state_of("async").pid);
}

Test(runc, asynchronous_errors_carry_the_words_too)
{
    struct answer answer =
        start_and_wait(&fixture_runtime, &(struct oci_call){.verb = OCI_STATE, .id = "nobody"});

    cr_expect_eq(answer.err.code, ERROR_NOT_FOUND);
    cr_expect(strstr(answer.err.message, "does not exist"), "%s", answer.err.message);
}

/* ---- another runtime ---- */

Test(runc, crun_works_or_says_why_not)
{
    struct oci_runtime crun;
    struct oci_outcome outcome = {0};
    struct error err = {0};

    if (oci_runtime_init(&crun, "crun", fixture_root, NULL) < 0)
        fixture_skip("crun is not installed");
    fixture_write_script("exec busybox sleep 1000");
    struct oci_call call = {.verb = OCI_RUN, .id = "other", .bundle = fixture_bundle};
    if (oci_runtime_call(&crun, &call, &outcome, &err) < 0)
        cr_expect(strstr(err.message, "hybrid"),
                  "only crun's refusal of hybrid hosts is expected: %s", err.message);
    else
        cr_expect_gt(outcome.pid, 1);
    call = (struct oci_call){.verb = OCI_DELETE, .id = "other", .force = true};
    cr_expect_eq(oci_runtime_call(&crun, &call, NULL, &err), 0, "%s", err.message);
    call = (struct oci_call){.verb = OCI_STATE, .id = "other"};
    cr_expect_eq(oci_runtime_call(&crun, &call, NULL, &err), -1);
    cr_expect_eq(err.code, ERROR_NOT_FOUND, "%s", err.message);
    oci_runtime_deinit(&crun);
}

/* A program that does what `script` says instead of being a runtime. */
static struct oci_runtime pretend(const char *script)
{
    struct oci_runtime runtime;
    struct error err = {0};
    autofree char *path = string_printf("%s/pretender", fixture_folder);
    autofree char *text = string_printf("#!/bin/sh\n%s\n", script);

    cr_assert_eq(write_file_atomic(path, text, strlen(text), 0755, false, &err), 0, "%s",
                 err.message);
    cr_assert_eq(oci_runtime_init(&runtime, path, fixture_root, &err), 0, "%s", err.message);
    return runtime;
}

static struct error failure_of(const char *script, enum oci_verb verb)
{
    with_cleanup(oci_runtime_deinit) struct oci_runtime runtime = pretend(script);
    struct error err = {0};
    struct oci_call call = {.verb = verb, .id = "x", .bundle = fixture_folder, .timeout_ms = 10000};

    cr_expect_eq(oci_runtime_call(&runtime, &call, NULL, &err), -1, "%s", script);
    return err;
}

Test(runc, a_runtime_that_hangs_is_killed_at_its_deadline)
{
    with_cleanup(oci_runtime_deinit) struct oci_runtime runtime = pretend("exec sleep 1000");
    struct oci_call call = {
        .verb = OCI_RUN, .id = "x", .bundle = fixture_folder, .timeout_ms = 100};
    struct answer answer = start_and_wait(&runtime, &call);
    struct error err = {0};

    cr_expect_eq(answer.err.code, ERROR_TIMED_OUT, "%s", answer.err.message);
    cr_expect_eq(oci_runtime_call(&runtime, &call, NULL, &err), -1);
    cr_expect_eq(err.code, ERROR_TIMED_OUT, "%s", err.message);
}

Test(runc, nonsense_from_a_runtime_is_an_error)
{
    static const struct {
        const char *script;
        enum oci_verb verb;
    } nonsense[] = {
        {"echo '[]'", OCI_STATE},
        {"echo '{\"id\":\"x\",\"pid\":-5}'", OCI_STATE},
        {"echo '{\"id\":\"x\",\"pid\":1e30}'", OCI_STATE},
        {"printf '['", OCI_LIST},
        {"yes '[' | head -c 200000", OCI_LIST},
        {"yes | head -c 40000000", OCI_LIST},
        {"echo no JSON", OCI_FEATURES},
        {"true", OCI_RUN}, /* no pid file */
        {"echo 1x >$8/pid", OCI_RUN},
    };

    for (size_t i = 0; i < ARRAY_LENGTH(nonsense); i++)
        cr_expect_neq(failure_of(nonsense[i].script, nonsense[i].verb).code, 0);
}

Test(runc, a_silent_failure_still_names_the_verb_and_the_status)
{
    struct error err = failure_of("exit 3", OCI_START);

    cr_expect_eq(err.code, ERROR_UNAVAILABLE);
    cr_expect(strstr(err.message, "pretender start x") && strstr(err.message, "3"), "%s",
              err.message);
}

Test(runc, a_runtime_without_features_is_unavailable)
{
    struct error err = failure_of("echo 'No help topic for features' >&2; exit 3", OCI_FEATURES);

    cr_expect_eq(err.code, ERROR_UNAVAILABLE);
    cr_expect(strstr(err.message, "No help topic"), "%s", err.message);
}

/* ---- what is checked before anything runs ---- */

Test(runc, bad_calls_are_refused)
{
    static const char *const ids[] = {"", ".", "../x", "-rf", "a/b", "a b", NULL};
    struct error err = {0};
    int fds[17] = {0};

    for (size_t i = 0; i < ARRAY_LENGTH(ids); i++) {
        cr_expect_eq(call_verb(OCI_STATE, ids[i], NULL, &err), -1);
        cr_expect_eq(err.code, ERROR_INVALID_REQUEST, "%s", err.message);
    }
    struct oci_call call = {
        .verb = OCI_RUN, .id = "x", .bundle = fixture_bundle, .fds = fds, .fd_count = 17};
    cr_expect_eq(oci_runtime_call(&fixture_runtime, &call, NULL, &err), -1);
    cr_expect_eq(err.code, ERROR_INVALID_REQUEST, "%s", err.message);
}

Test(runc, a_missing_runtime_is_told_by_name)
{
    struct oci_runtime runtime;
    struct error err = {0};

    cr_expect_eq(oci_runtime_init(&runtime, "no-such-runtime", fixture_root, &err), -1);
    cr_expect_eq(err.code, ERROR_NOT_FOUND);
    cr_expect(strstr(err.message, "no-such-runtime"), "%s", err.message);
    cr_expect_eq(oci_runtime_init(&runtime, "/no/such/runtime", fixture_root, &err), -1);
    cr_expect_eq(err.code, ERROR_NOT_FOUND);
}

/* ---- parsers ---- */

static void expect_words(const char *log, const char *words)
{
    char out[64];

    oci_parse_log(log, strlen(log), out, sizeof(out));
    cr_expect_str_eq(out, words);
}

Test(runc_output, the_last_error_of_a_log_counts)
{
    expect_words("", "");
    expect_words("\n \n", "");
    expect_words("{\"level\":\"error\",\"msg\":\"first\"}\n{\"level\":\"error\",\"msg\":\"second\"}"
                 "\n{\"level\":\"warning\",\"msg\":\"w\"}\n",
                 "second");
    expect_words("{\"level\":\"info\",\"msg\":\"only\"}\n", "only");
    expect_words("plain text\nmore\n", "more");
    expect_words("{\"level\":\"fatal\",\"msg\":\"a\\nb\\u001b[31m\"}", "a b [31m");
}

Test(runc_output, a_long_log_line_is_cut)
{
    char text[300], out[16];

    memset(text, 'x', sizeof(text));
    oci_parse_log(text, sizeof(text), out, sizeof(out));
    cr_expect_str_eq(out, "xxxxxxxxxxxxxxx");
}

Test(runc_output, an_empty_list_may_be_null_or_nothing)
{
    static const char *const texts[] = {"", "\n", "null", "[]"};
    struct oci_state *states = NULL;
    size_t count = 1;

    for (size_t i = 0; i < ARRAY_LENGTH(texts); i++) {
        cr_expect_eq(oci_parse_list(texts[i], strlen(texts[i]), &states, &count, NULL), 0, "%s",
                     texts[i]);
        cr_expect_eq(count, 0);
        cr_expect_null(states);
    }
}

Test(runc_output, a_stopped_container_has_no_pid)
{
    static const char text[] = "{\"id\":\"x\",\"pid\":77,\"status\":\"stopped\"}";
    struct oci_state state;

    cr_assert_eq(oci_parse_state(text, strlen(text), &state, NULL), 0);
    cr_expect_eq(state.pid, 0);
    cr_expect_eq(state.status, OCI_STATUS_STOPPED);
}
