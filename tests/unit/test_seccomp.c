/* The system-call policy as the kernel enforces it: a program that makes the calls inside a real container, and the
 * interpreters of this host at work under it. */
#include "container_fixture.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/json.h"
#include "oci/seccomp.h"

TestSuite(seccomp_policy, .init = fixture_set_up, .fini = fixture_tear_down, .timeout = 120);

/* Each line: a call that succeeds, or fails otherwise, for an unprivileged process without a filter; its name and errno go to
 * descriptor 3. */
static const char probe_source[] =
    "#define _GNU_SOURCE\n"
    "#include <errno.h>\n#include <fcntl.h>\n#include <stdio.h>\n#include <unistd.h>\n#include "
    "<sys/syscall.h>\n"
    "#include <sys/socket.h>\n#include <sched.h>\n"
    "#define TRY(name, ...) do { errno = 0; long r = syscall(__VA_ARGS__); dprintf(3, \"%s "
    "%d\\n\", name, r < 0 ? errno : 0); } while (0)\n"
    "int main(void) {\n"
    "  int null = open(\"/dev/null\", O_RDWR); long buffer[64] = {0};\n"
    "  TRY(\"unshare-user\", SYS_unshare, CLONE_NEWUSER);\n"
    "  TRY(\"clone-user\", SYS_clone, CLONE_NEWUSER | 17, 0, 0, 0, 0);\n"
    "  TRY(\"clone3\", SYS_clone3, 0, 0);\n"
    "  TRY(\"setns\", SYS_setns, -1, 0);\n"
    "  TRY(\"mount\", SYS_mount, 0, 0, 0, 0, 0);\n"
    "  TRY(\"fsopen\", SYS_fsopen, 0, 0);\n"
    "  TRY(\"ptrace\", SYS_ptrace, 0, 0, 0, 0);\n"
    "  TRY(\"process_vm_readv\", SYS_process_vm_readv, getpid(), 0, 0, 0, 0, 0);\n"
    "  TRY(\"bpf\", SYS_bpf, 0, 0, 0);\n"
    "  TRY(\"perf_event_open\", SYS_perf_event_open, 0, 0, 0, 0, 0);\n"
    "  TRY(\"io_uring_setup\", SYS_io_uring_setup, 1, 0);\n"
    "  TRY(\"keyctl\", SYS_keyctl, 0, -3, 0);\n"
    "  TRY(\"add_key\", SYS_add_key, 0, 0, 0, 0, 0);\n"
    "  TRY(\"userfaultfd\", SYS_userfaultfd, 1);\n"
    "  TRY(\"name_to_handle_at\", SYS_name_to_handle_at, -100, \"/\", buffer, buffer, 0);\n"
    "  TRY(\"pidfd_getfd\", SYS_pidfd_getfd, -1, 0, 0);\n"
    "  TRY(\"kcmp\", SYS_kcmp, getpid(), getpid(), 0, 0, 0);\n"
    "  TRY(\"personality-no-aslr\", SYS_personality, 0x0040000);\n"
    "  TRY(\"prlimit-pid-1\", SYS_prlimit64, 1, 7, 0, buffer);\n"
    "  TRY(\"tiocsti\", SYS_ioctl, null, 0x5412, \"x\");\n"
    "  TRY(\"tiocsti-high-bits\", SYS_ioctl, null, 0x100005412L, \"x\");\n"
    "  TRY(\"socket-alg\", SYS_socket, 38, SOCK_SEQPACKET, 0);\n"
    "  TRY(\"socket-vsock\", SYS_socket, 40, SOCK_STREAM, 0);\n"
    "  TRY(\"socket-sctp\", SYS_socket, AF_INET, SOCK_STREAM, 132);\n"
    "  TRY(\"socket-ping\", SYS_socket, AF_INET, SOCK_DGRAM, 1);\n"
    "  TRY(\"socket-raw\", SYS_socket, AF_INET, SOCK_RAW, 6);\n"
    "  TRY(\"socket-packet\", SYS_socket, AF_PACKET, SOCK_RAW, 3);\n"
    "  TRY(\"socket-nl-generic\", SYS_socket, AF_NETLINK, SOCK_RAW, 16);\n"
    "  TRY(\"chroot\", SYS_chroot, \"/no/such\");\n"
    "  TRY(\"memfd_secret\", SYS_memfd_secret, 0);\n"
    "  TRY(\"madvise-remove\", SYS_madvise, 0, 0, 9);\n"
    "  TRY(\"madvise-remove-high-bits\", SYS_madvise, 0, 0, 0x100000009L);\n"
    "  TRY(\"fallocate-punch\", SYS_fallocate, -1, 3, 0L, 1L);\n"
    "  TRY(\"fallocate-punch-high-bits\", SYS_fallocate, -1, 0x100000003L, 0L, 1L);\n"
    "  TRY(\"+clone\", SYS_clone, 17, 0, 0, 0, 0);\n"
    "  TRY(\"+socket-tcp\", SYS_socket, AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);\n"
    "  TRY(\"+socket-udp6\", SYS_socket, AF_INET6, SOCK_DGRAM, 17);\n"
    "  TRY(\"+socket-unix\", SYS_socket, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);\n"
    "  TRY(\"+socket-nl-route\", SYS_socket, AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0);\n"
    "  TRY(\"+prlimit-self\", SYS_prlimit64, 0, 7, 0, buffer);\n"
    "  TRY(\"+personality-asks\", SYS_personality, 0xffffffffL);\n"
    "  TRY(\"+memfd\", SYS_memfd_create, \"m\", 0);\n"
    "  static const long advice[] = {0, 1, 2, 3, 4, 8, 10, 11, 16, 20};\n"
    "  for (int i = 0; i < 10; i++) TRY(\"+madvise\", SYS_madvise, 0, 0, advice[i]);\n"
    "  TRY(\"+fallocate\", SYS_fallocate, memfd_create(\"m\", 0), 0, 0L, 1L);\n"
    "  TRY(\"+fallocate-keep-size\", SYS_fallocate, memfd_create(\"m\", 0), 1, 0L, 1L);\n"
    "  return 0;\n"
    "}\n";

static void build_probe(void)
{
    autofree char *source = string_printf("%s/probe.c", fixture_folder);
    autofree char *compile = string_printf("cc -static -o %s/bin/probe %s", fixture_rootfs, source);
    struct error err = {0};

    cr_assert_eq(write_file_atomic(source, probe_source, strlen(probe_source), 0644, false, &err),
                 0, "%s", err.message);
    fixture_shell(compile);
}

static int expected_errno(const char *call)
{
    static const char *const no_such_call[] = {"clone3", "memfd_secret"};

    for (size_t i = 0; i < ARRAY_LENGTH(no_such_call); i++)
        if (strcmp(call, no_such_call[i]) == 0)
            return ENOSYS;
    return call[0] == '+' ? 0 : EPERM;
}

Test(seccomp_policy, the_kernel_refuses_what_the_policy_does_not_allow)
{
    char call[64];
    int answer = 0, consumed = 0;
    size_t count = 0;

    build_probe();
    fixture_write_script("exec probe");
    autofree char *output = fixture_run_to_end("probe");
    for (const char *at = output; sscanf(at, "%63s %d\n%n", call, &answer, &consumed) == 2;
         at += consumed) {
        /* The child of +clone goes on with the rest, so lines may come twice. */
        cr_expect_eq(answer, expected_errno(call), "%s: %s", call, strerror(answer));
        count++;
    }
    cr_expect_geq(count, 54, "%s", output);
}

/* ---- interpreters of this host, with its /usr in the container ---- */

static char *run_with_host_usr(const char *id, const char *script)
{
    static const char *const options[] = {"rbind", "ro", "nosuid", "nodev", NULL};
    static const char *const tmpfs[] = {"nosuid",   "nodev",    "size=32m",
                                        "uid=1000", "gid=1000", NULL};
    static const struct oci_mount mounts[] = {{"/usr", "bind", "/usr", options},
                                              {"/tmp", "tmpfs", "tmpfs", tmpfs}};
    const char *args[4];
    struct oci_runtime_spec spec = fixture_spec(script, args);

    spec.mounts = mounts;
    spec.mount_count = ARRAY_LENGTH(mounts);
    spec.memory_bytes = 512 << 20;
    fixture_write_bundle(&spec);
    return fixture_run_to_end(id);
}

Test(seccomp_policy, python_works_with_threads_processes_sockets_and_asyncio)
{
    if (!path_exists("/usr/bin/python3"))
        fixture_skip("no python3 on this host");
    autofree char *output = run_with_host_usr(
        "python",
        "exec /usr/bin/python3 -B - >&3 2>&1 <<'END'\n"
        "import asyncio, concurrent.futures, multiprocessing, os, platform, random, resource, "
        "select, signal, socket\n"
        "import ssl, sqlite3, subprocess, tempfile, threading, time\n"
        "assert subprocess.check_output(['/bin/busybox', 'echo', 'child']) == b'child\\n'\n"
        "t = threading.Thread(target=time.sleep, args=(0.01,)); t.start(); t.join()\n"
        "with concurrent.futures.ThreadPoolExecutor() as pool: assert sum(pool.map(abs, range(-9, "
        "9))) == 81\n"
        "with multiprocessing.Pool(2) as pool: assert pool.map(abs, [-1]) == [1]\n"
        "server = socket.create_server(('127.0.0.1', 0)); client = "
        "socket.create_connection(server.getsockname())\n"
        "server.accept()[0].sendall(b'x'); assert client.recv(1) == b'x'\n"
        "socket.getaddrinfo('127.0.0.1', 80); socket.if_nameindex()\n"
        "async def run():\n"
        "    p = await asyncio.create_subprocess_exec('/bin/busybox', 'true'); assert await "
        "p.wait() == 0\n"
        "    await asyncio.get_running_loop().run_in_executor(None, os.getpid)\n"
        "asyncio.run(run())\n"
        "with tempfile.TemporaryFile() as f: f.write(b'x')\n"
        "sqlite3.connect('/tmp/db').execute('create table t(x)')\n"
        "ssl.create_default_context(); platform.platform(); "
        "resource.getrlimit(resource.RLIMIT_NOFILE); os.cpu_count()\n"
        "os.mkfifo('/tmp/fifo'); signal.setitimer(signal.ITIMER_REAL, 10); os.getrandom(8); "
        "os.nice(1)\n"
        "print('all fine')\n"
        "END");
    cr_expect_str_eq(output, "all fine\n");
}

Test(seccomp_policy, node_works_with_workers_children_and_sockets)
{
    if (!path_exists("/usr/bin/node"))
        fixture_skip("no node on this host");
    autofree char *output = run_with_host_usr(
        "node",
        "exec /usr/bin/node - >&3 2>&1 <<'END'\n"
        "const { Worker } = require('worker_threads'), cp = require('child_process'), net = "
        "require('net'), os = require('os');\n"
        "const fs = require('fs'), crypto = require('crypto'), dns = require('dns'), assert = "
        "require('assert');\n"
        "let hot = 0; for (let i = 0; i < 2e6; i++) hot += i % 7;\n"
        "assert(cp.execFileSync('/bin/busybox', ['echo', 'x']).toString() === 'x\\n');\n"
        "os.cpus(); os.networkInterfaces(); crypto.randomBytes(8); fs.writeFileSync('/tmp/a', "
        "'a'); fs.copyFileSync('/tmp/a', '/tmp/b');\n"
        "const worker = new Worker('require(\"worker_threads\").parentPort.postMessage(42)', { "
        "eval: true });\n"
        "worker.on('message', (m) => { assert(m === 42);\n"
        "  const server = net.createServer((s) => s.end('hi')).listen(0, '127.0.0.1', () => {\n"
        "    net.connect(server.address().port, '127.0.0.1').on('data', () => { server.close(); "
        "dns.lookup('localhost', () => {\n"
        "      fs.promises.readFile('/tmp/b').then(() => console.log('all fine')); }); }); }); "
        "});\n"
        "END");
    cr_expect_str_eq(output, "all fine\n");
}

/* ---- the page ---- */

#define PAGE TEST_SOURCE_DIR "/docs/seccomp.md"

static const char page_head[] =
    "# System calls of a function\n\n"
    "Every container runs under a seccomp filter that lists what is allowed, group by group with "
    "the "
    "reason. Whatever is not listed fails: with EPERM, or\n"
    "with ENOSYS where the C library then takes another way. \"by argument\": some forms of the "
    "call are "
    "allowed, as the reason says; `oci/seccomp.c` has them\n"
    "one by one. This page is made from that file by `./build.sh docs`.\n\n";

static void make_page(struct buffer *out)
{
    cr_assert_eq(buffer_append_string(out, page_head, NULL), 0);
    cr_assert_eq(oci_seccomp_markdown(out, NULL), 0);
}

Test(seccomp_page, is_what_the_filter_allows)
{
    with_cleanup(buffer_deinit) struct buffer made = BUFFER_INIT(1 << 20),
                                              there = BUFFER_INIT(1 << 20);
    struct error err = {0};

    make_page(&made);
    if (getenv("FAAS_WRITE_DOCS"))
        cr_assert_eq(write_file_atomic(PAGE, made.data, made.len, 0644, false, &err), 0, "%s",
                     err.message);
    cr_assert_eq(buffer_read_file(&there, PAGE, &err), 0, "%s", err.message);
    cr_expect(strcmp(there.data, made.data) == 0, "docs/seccomp.md: run ./build.sh docs");
}

/* Whether the page has the call as a word of its own. */
static bool page_has(const char *page, const char *call)
{
    size_t len = strlen(call);

    for (const char *at = page; (at = strstr(at, call)); at += len)
        if ((at[-1] == ' ') && (at[len] == ' ' || at[len] == '\n'))
            return true;
    return false;
}

Test(seccomp_page, has_every_call_of_the_filter)
{
    with_cleanup(buffer_deinit) struct buffer filter = BUFFER_INIT(1 << 20),
                                              page = BUFFER_INIT(1 << 20);
    struct json_writer *writer = json_writer_new(&filter);
    size_t count = 0;

    oci_seccomp_write(writer);
    cr_assert_eq(json_writer_finish(writer, NULL), 0);
    autojson *root = json_parse(filter.data, filter.len, NULL, NULL);
    cr_assert_eq(buffer_read_file(&page, PAGE, NULL), 0);
    json_foreach (i, rule, json_get(root, "syscalls"))
        json_foreach (j, name, json_get(rule, "names")) {
            cr_expect(page_has(page.data, json_string(name, NULL)), "%s", json_string(name, NULL));
            count++;
        }
    cr_expect_gt(count, 200);
}
