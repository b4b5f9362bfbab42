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
 *     nodejs  process   zygote -- node /.faas/nodejs/adapter.js process index.js
 *                       (or index.mjs: whichever the code has)
 *     nodejs  handler   handler -- node /.faas/nodejs/adapter.js handler index.handler
 *     go, native        exec -- ./bootstrap
 *
 * A generic instance belongs to no function yet. The worker starts it ahead, attaches a function's
 * code at --code later and hands it to that function, once and for good, with a LOAD frame:
 *
 *     /.faas/init generic [--code DIR] [--run DIR] [-- KEEPER...]
 *
 *     python  KEEPER is  python3 /.faas/python/adapter.py generic
 *     nodejs  KEEPER is  node /.faas/nodejs/adapter.js generic
 *     go, native         none: what is executed needs no process ahead
 *
 * KEEPER is started at once (its fd 3: the adapter socket, its fd 4: socket to faas-init) and waits
 * with its interpreter up and the usual modules imported.
 *
 * LOAD: the order is the worker's: code mount and cgroup limits first, then the frame. Its body is
 * strings, each ended by NUL: MODE (exec, standby, zygote, handler), ARGV (at least one, none of
 * them empty), one empty string, then the whole new environment, "NAME=value" each, to the end of
 * the body. At most LOAD_MAX bytes, LOAD_STRINGS_MAX strings; no meta. It may come once, to a
 * generic instance that said READY; anything else ends the connection. INVOKE may follow without
 * waiting for the READY that answers LOAD.
 * From then on the instance is what `init MODE -- ARGV...` would be, with that environment and
 * nothing of the old one, and answers as at the start of its life. The keeper becomes the zygote,
 * the first standby or the handler's process; before any of the function's code runs, it has
 * closed what that role does not have, and the role's socket is where the role has it. (What it was
 * started with still shows in /proc/PID/cmdline and environ.) Mode exec ends it first. When it cannot be used (it died, or
 * it could not be started, which the worker need not know), ARGV is started as usual.
 *
 * What LOAD cannot do: a keeper has read some variables when it started. A function may be loaded
 * into an instance with a keeper only if each of these names is in its environment as it was in
 * that of `init generic`, or missing in both. Modes without a keeper have no such names.
 *
 *     both     LD_*, GLIBC_TUNABLES, MALLOC_*      read by the loader and the C library
 *              LANG, LC_*, LOCPATH                 the locale is set when the interpreter starts
 *              PATH, HOME                          find the interpreter, and its module folders
 *     python   PYTHON*
 *     nodejs   NODE_* but NODE_ENV and NODE_TLS_REJECT_UNAUTHORIZED, UV_* but UV_THREADPOOL_SIZE,
 *              OPENSSL_*, ICU_*
 *     late is well: TZ, SSL_CERT_FILE, SSL_CERT_DIR, LANGUAGE, TMPDIR, *_PROXY, RES_OPTIONS, every
 *              FUNCTION_* and whatever else only the function's own code looks at. (OPENSSL_* too
 *              for python: the keeper does not load that library.)
 *
 * Frames: a 16-byte header, then `meta_len` bytes, then `body_len` bytes; all numbers
 * little-endian. Each side checks lengths against its limits before it takes memory, and ends the
 * connection on anything that does not fit: the other side is a stranger. init/frame.h reads them.
 *
 * contract `process`:
 *     worker -> init     INVOKE (value: timeout_ms, meta: execution id, body: payload)
 *     init -> zygote, standby   INVOKE (the same without body: the payload is in RUN_DIR/payload)
 *     A process of mode zygote that cannot be forked says READY with flag STANDS_BY: the mode is then
 *     standby, with that process as the first, until one says READY without.
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
 *     adapter -> worker  RESULT (body: JSON text; control characters in its strings may stand as they are)
 *                        or ERROR (body: {"type","message","stack":["...", ...]})
 *     The adapter has flushed stdout and stderr before it answers.
 *
 * contract `handler`, several calls at once: the environment has FUNCTION_CONCURRENCY, a number above
 * 1, when the function allows it. An adapter that can says in its READY how many calls it takes at
 * the same time (value; 0, what adapters say that know nothing of it, is 1), and then
 *     worker -> adapter  INVOKE without waiting for the answer to the one before, never more than that
 *     adapter -> worker  RESULT, ERROR (meta: the execution id of the INVOKE), in any order; an answer
 *                        without meta is to the only call there is
 *                        LOG (meta: likewise, body: text), before its call's answer
 *     An answer to a call that the worker has given up (time limit, cancelled) is passed over, and so
 *     is LOG of a call that it does not know. Any other answer to what was not asked ends the instance.
 *     Neither EXECUTION_ID nor FUNCTION_PAYLOAD is in the adapter's environment then.
 *
 * contract `handler`, one call at a time: large bodies need not go through the socket, but through memory that both sides have mapped.
 *     adapter -> worker  RESULT with flag AREA (no such memory yet): the adapter can take an area, and reads the first bytes of what
 *                        comes next with recvmsg(2)
 *     worker -> adapter  the next INVOKE, with a memfd (SCM_RIGHTS) at its first byte, or without: then there will be none.
 *                        The file's size is the area's, and sealed
 *     adapter -> worker  RESULT with flag AREA (there was one): it is mapped, so from now on
 *     worker -> adapter  INVOKE with flag IN_AREA (body: u32 length, and then, if it likes, further u32, ascending, the last of them the
 *                        length): the payload is that much of the area, from its begin, and stays there until the adapter answers. Each
 *                        number says that so much of it is there, so that the adapter begins with it while the worker writes on
 *     adapter -> worker  RESULT with flag IN_AREA (body: the same): so is the result, until the next INVOKE, and the worker takes it while
 *                        the adapter writes on
 *     That is the only descriptor that goes either way; those from an instance are refused, or end it.
 *     Bodies may go over the socket at any time still. IN_AREA without an area that was passed, with another body, or with
 *     a length that the area does not have, ends the instance. Neither side may rely on what is there: the worker copies
 *     a result before it looks at it. An area belongs to one instance; what of a body is left in it, only the same function can see.
 *
 * start of life:
 *     init -> worker     READY  (exec: at once; zygote, standby: when it said READY to init;
 *                               handler: none; generic: when the keeper said READY to init or
 *                               ended, or at once without one)
 *     worker -> init     LOAD   (to a generic instance: body as above); answered as if the mode
 *                               had been started: READY from init or the adapter, or ERROR from
 *                               the adapter
 *     init -> keeper     LOAD   (the same, with the environment that the role has; not for exec)
 *     adapter -> worker  READY (value: see above), or ERROR when the module could not be loaded (it then exits)
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
    FRAME_LOAD = 7,
    FRAME_LOG = 8,
};

enum frame_flags {
    /* EXIT, ADAPTER_EXIT: the program could not be executed; meta says why */
    FRAME_FLAG_NOT_STARTED = 1,
    /* EXIT: something was left that could not be removed; destroy the instance. RESULT, ERROR: the
     * adapter cannot be trusted any more; give it no further call */
    FRAME_FLAG_DIRTY = 2,
    /* READY of a zygote: it cannot be forked, and stands by for one invocation itself */
    FRAME_FLAG_STANDS_BY = 4,
    /* RESULT: the adapter would map memory for large bodies, or has mapped what came with INVOKE */
    FRAME_FLAG_AREA = 8,
    /* INVOKE, RESULT: the body is in that memory; what stands in the frame is its length */
    FRAME_FLAG_IN_AREA = 16,
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
#define FRAME_IN_AREA_LEN 4                        /* bytes of body of a frame with IN_AREA */
#define FRAME_IN_AREA_MAX (FRAME_IN_AREA_LEN * 65) /* of one that says more than the length */
#define LOAD_MAX (256 * 1024)                      /* bytes of a LOAD's body */
#define LOAD_STRINGS_MAX 4096                      /* mode, arguments and environment together */
/* A payload above this is not put into FUNCTION_PAYLOAD: the kernel caps one string at 128 KiB. */
#define PAYLOAD_ENV_MAX (96 * 1024)
