/* A function as users describe it (contract, section 3): one version's full definition, without its
 * code.
 *
 * Used by the controller (checks what users send), the store (keeps it as JSON), the worker (runs
 * it) and the command (makes requests). One table reads and checks it, one function writes it. */
#pragma once

#include "base/json.h"
#include "model/destination.h"
#include "model/labels.h"

enum function_runtime { RUNTIME_PYTHON, RUNTIME_NODEJS, RUNTIME_GO, RUNTIME_NATIVE, RUNTIME_COUNT };
enum function_contract { CONTRACT_PROCESS, CONTRACT_HANDLER };
enum function_network { NETWORK_BRIDGE, NETWORK_NONE };
enum function_state { FUNCTION_BUILDING, FUNCTION_READY, FUNCTION_FAILED };

#define FUNCTION_NAME_MAX 63
#define FUNCTION_ENV_MAX 64
#define FUNCTION_ENV_BYTES_MAX 32768 /* all names and values together */
#define FUNCTION_LABELS_MAX 32
#define FUNCTION_MEMORY_MB_MIN 16
#define FUNCTION_MEMORY_MB_MAX 10240
#define FUNCTION_TIMEOUT_MS_MAX 900000
#define FUNCTION_INSTANCES_MAX 10000 /* of min_instances and max_instances */
#define FUNCTION_RATE_MIN 0.001      /* calls a second */
#define FUNCTION_RATE_MAX 1000000
#define FUNCTION_BURST_MAX 1000000
#define FUNCTION_CONCURRENCY_MAX 100000 /* of max_concurrency and reserved_concurrency */
#define FUNCTION_PLACES_MAX 100         /* of concurrency */
#define FUNCTION_KEEP_ALIVE_MS_MAX 86400000
#define FUNCTION_NETWORK_ALLOW_MAX 32
#define FUNCTION_NETWORK_KBPS_MIN 64
#define FUNCTION_NETWORK_KBPS_MAX 10000000
/* Slower, a start would take minutes, and whoever waits for the same page of an image with it. */
#define FUNCTION_IO_BPS_MIN 1048576
#define FUNCTION_IO_BPS_MAX 100000000000
#define FUNCTION_IO_IOPS_MIN 50
#define FUNCTION_IO_IOPS_MAX 10000000
#define FUNCTION_CALLBACK_SECRET_MIN 16
#define FUNCTION_CALLBACK_SECRET_MAX 256
#define FUNCTION_RETRY_ATTEMPTS_MAX 100
#define FUNCTION_RETRY_BACKOFF_MS_MAX 3600000
#define FUNCTION_RETRY_AGE_MS_MAX 604800000

/* A list of key/value pairs (env, labels). */
struct key_value {
    char *key;   /* owned */
    char *value; /* owned */
};
struct key_values {
    struct key_value *items; /* owned */
    size_t count;
};

/* How an asynchronous invocation goes on after the function's own failure. */
struct function_retry {
    int64_t max_attempts; /* that end with a failure; then it is a dead letter */
    int64_t backoff_ms; /* before the second attempt; doubled before each later one, with jitter */
    int64_t max_age_ms; /* none begins when it is older */
};

struct function_spec {
    char *name;      /* owned, as every char * here; NULL while not given */
    int64_t version; /* 0 until the controller numbers it */
    enum function_runtime runtime;
    char *image; /* never NULL once checked: the runtime's default */
    enum function_contract contract;
    char *handler; /* "main.handler"; NULL for process */
    struct key_values env;
    struct key_values labels;
    struct labels requires; /* of a worker that runs or compiles it */
    int64_t memory_mb;
    double cpus;
    int64_t timeout_ms;
    int64_t tmp_mb;
    int64_t pids;
    int64_t io_bps;  /* bytes a second from the disk, and as many to it; 0: no limit */
    int64_t io_iops; /* operations a second, likewise */
    enum function_network network;
    struct destinations network_allow; /* empty: everything that bridge reaches */
    int64_t network_kbps;              /* kilobits a second, each way; 0: no limit */
    bool public;
    int64_t min_instances;   /* kept ready, on all workers together */
    int64_t max_instances;   /* at the same time, on all workers together; 0: no bound of its own */
    int64_t concurrency;     /* calls that one instance takes at the same time; contract handler */
    double rate_limit;       /* calls that are accepted a second; 0: no limit */
    int64_t rate_burst;      /* so many at once after a pause; 0: those of a second, at least one */
    int64_t max_concurrency; /* calls at the same time, on all workers together; 0: no bound */
    int64_t
        reserved_concurrency; /* of all workers' places so many are its own, and it gets no more; 0: none */
    int64_t keep_alive_ms; /* of its idle instances; -1: the worker's policy decides */
    struct function_retry retry;
    char *callback_url;    /* told of the end of each asynchronous invocation; NULL: nobody is */
    char *callback_secret; /* signs what it is told; NULL: none. Only ever written to the store */
    char *code_sha256;     /* of the code as it was handed in; NULL until known */
    char *artifact_arch; /* that the artifact was compiled for ("x86_64"); NULL: it runs anywhere */
    char *artifact_sha256; /* of what the worker runs: the code, or what was compiled from it; NULL
                              until known */
};

void function_spec_init(struct function_spec *spec); /* the contract's defaults */
void function_spec_deinit(struct function_spec *spec);
int function_spec_copy(struct function_spec *to, const struct function_spec *from,
                       struct error *err);

/* Reads what a user sent: fields of the contract, unknown ones refused by name. "code" is checked
 * to be a string and left to the caller (json_get(value, "code")). `name` (from the path; may be
 * NULL) must agree with the body's. Then checks all rules that span fields (handler needs contract
 * "handler", contract "handler" needs python or nodejs, env names, image default). `machine_cpus`
 * bounds `cpus`. Both readers begin with function_spec_init(); after a failure there is nothing to
 * clean. */
int function_spec_read_request(const struct json *value, const char *name, double machine_cpus,
                               struct function_spec *spec, struct error *err);
/* Reads what function_spec_write() wrote (store, worker link): also version and the two digests.
 * Members that it does not know (the caller's, or a newer program's) are ignored. */
int function_spec_read(const struct json *value, struct function_spec *spec, struct error *err);
/* Members only, so that the caller can add more: between json_object_begin() and json_object_end().
 */
void function_spec_write_members(struct json_writer *writer, const struct function_spec *spec);
/* What is kept and never shown: for the store alone. */
void function_spec_write_secrets(struct json_writer *writer, const struct function_spec *spec);

/* What a rate must be, a function's or a token's. */
int function_check_rate(double rate_limit, int64_t rate_burst, struct error *err);
bool function_name_valid(const char *name);
const char *function_runtime_name(enum function_runtime runtime);
int function_runtime_parse(const char *text, enum function_runtime *ret, struct error *err);
const char *
function_runtime_default_image(enum function_runtime runtime); /* "faas-runtime-python:latest" */
const char *function_contract_name(enum function_contract contract);
const char *function_network_name(enum function_network network);
const char *function_state_name(enum function_state state);
