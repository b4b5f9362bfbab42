/* What worker, faas-init and the language adapters say to each other inside an instance.
 *
 * faas-init is PID 1 of every container. The worker starts it with four descriptors (`runc run
 * --preserve-fds 4`):
 *
 *     3  control socket, worker <-> faas-init        (AF_UNIX, SOCK_STREAM)
 *     4  adapter socket, worker <-> language adapter (AF_UNIX, SOCK_STREAM);
 *        unused by contract `process`
 *     5  write end of the stdout pipe, 6 write end of the stderr pipe;
 *        the worker reads the other ends
 *
 * When 3 is not a socket (somebody ran the bundle by hand with plain `runc run`), faas-init serves
 * one invocation with its own stdin, stdout, stderr and FUNCTION_PAYLOAD, and exits with the
 * function's status.
 *
 * faas-init's command line, as it stands in config.json (so that a bundle by hand runs the same):
 *
 *     /.faas/init MODE [--code DIR] [--run DIR] -- ARGV...
 *
 *     exec     contract process: each invocation forks and executes ARGV with stdin from the
 *              payload file
 *     standby  contract process: the same, but ARGV is started ahead of each invocation and waits
 *              for its INVOKE (its fd 3: socket to faas-init), then becomes its main process
 *     zygote   contract process: ARGV is started once and forks a child for each invocation
 *              (its fd 3: socket to faas-init)
 *     handler  contract handler: ARGV is started once, loads the module and serves the adapter
 *              socket (its fd 3)
 *
 * --code is the working directory (default /app/function), --run the folder for the payload file
 * (default /run/faas, a small tmpfs); runtime `simple` gives others. The environment is the
 * function's. Everything in RUN_DIR is removed after each invocation: it belongs to one instance.
 *
 * What the worker writes there (runtime `simple`: the host's libexec folder in place of /.faas):
 *
 *     python  process   zygote -- python3 /.faas/python/adapter.py process main.py
 *     python  handler   handler -- python3 /.faas/python/adapter.py handler main.handler
 *     nodejs  process   standby -- node /.faas/nodejs/adapter.js process index.js
 *                       (or index.mjs: whichever the code has)
 *     nodejs  handler   handler -- node /.faas/nodejs/adapter.js handler index.handler
 *     go, native        exec -- ./bootstrap
 *
 * Frames: a 16-byte header, then `meta_len` bytes, then `body_len` bytes; all numbers
 * little-endian. Each side checks lengths against its limits before it takes memory, and ends the
 * connection on anything that does not fit: the other side is a stranger. init/frame.h reads them.
 *
 * contract `process`:
 *     worker -> init     INVOKE (value: timeout_ms, meta: execution id, body: payload)
 *     init -> zygote, standby   INVOKE (the same without body: the payload is in RUN_DIR/payload)
 *     zygote -> init     EXIT   (value: wait status; flag DIRTY: other processes are left. A second
 *                               EXIT follows when they are gone, which init sees to)
 *     init -> worker     EXIT   (value: wait status, flags, meta: message when it could not be
 *                               started)
 *     All processes of the invocation are dead when EXIT is sent, so everything they wrote is in
 *     the pipes. When the zygote itself ends during an invocation, EXIT (its status, DIRTY) comes
 *     before ADAPTER_EXIT.
 *
 * contract `handler`:
 *     worker -> adapter  INVOKE (as above)
 *     adapter -> worker  RESULT (body: JSON text)
 *                        or ERROR (body: {"type","message","stack":["...", ...]})
 *     The adapter has flushed stdout and stderr before it answers.
 *
 * start of life:
 *     init -> worker     READY  (exec: at once; zygote, standby: when it said READY to init;
 *                               handler: none)
 *     adapter -> worker  READY, or ERROR when the module could not be loaded (it then exits)
 *     init -> worker     ADAPTER_EXIT (value: wait status) whenever the zygote or adapter ends;
 *                        with flag NOT_STARTED and a message in meta when it could not be started
 *
 * An instance is done when its control socket closes: faas-init then ends everything in it. */
#pragma once

#include <stdint.h>

#define INSTANCE_FD_CONTROL 3
#define INSTANCE_FD_ADAPTER 4
#define INSTANCE_FD_STDOUT 5
#define INSTANCE_FD_STDERR 6
#define INSTANCE_FD_COUNT 4

enum frame_type {
    FRAME_INVOKE = 1,
    FRAME_READY = 2,
    FRAME_EXIT = 3,
    FRAME_RESULT = 4,
    FRAME_ERROR = 5,
    FRAME_ADAPTER_EXIT = 6,
};

enum frame_flags {
    /* EXIT, ADAPTER_EXIT: the program could not be executed; meta says why */
    FRAME_FLAG_NOT_STARTED = 1,
    /* EXIT: something was left that could not be removed; destroy the instance */
    FRAME_FLAG_DIRTY = 2,
};

struct frame_header {
    uint16_t type;
    uint16_t flags;
    uint32_t meta_len;
    uint32_t body_len;
    uint32_t value;
} __attribute__((packed));

_Static_assert(sizeof(struct frame_header) == 16, "the header is 16 bytes on the wire");

#define FRAME_META_MAX 4096
/* A payload above this is not put into FUNCTION_PAYLOAD: the kernel caps one string at 128 KiB. */
#define PAYLOAD_ENV_MAX (96 * 1024)
