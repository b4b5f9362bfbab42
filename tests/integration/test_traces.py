#!/usr/bin/env python3
"""Contract `process`: nothing of one invocation reaches the next. Each invocation says in what state it finds itself, and then
changes all of it. What the second and the third find must be what the first found.

/tmp is the function's to keep. What one process may do to another one of its uid (priorities, limits), seccomp refuses, which
tests/e2e/test_isolation.py shows."""

import json
import os
import shutil
import unittest

from instance import (
    LIBEXEC, LOAD, NODE, PYTHON, READY, InstanceTest, as_generic, cover, encode, load_body, read_frame,
    write_files,
)  # fmt: skip

# Reports on standard output, as JSON with sorted names.
PYTHON_SOURCE = r"""
import builtins, gc, json, locale, os, re, resource, signal, string, sys, threading, time

def own(name):
    with open(f"/proc/self/{name}") as file:
        return file.read()

def status(*names):
    return [line for line in own("status").splitlines() if line.split(":")[0] in names]

def descriptors():
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            found[fd] = re.sub(r"\[\d+\]", "[N]", os.readlink("/proc/self/fd/" + fd)), own("fdinfo/" + fd).split("\n")[1]
        except OSError:
            pass  # that of the listing
    return found

def processes():
    # Of this PID namespace, by parent: faas-init, zygote and this process itself.
    return len([name for name in os.listdir("/proc") if name.isdigit()]) if os.getppid() < 10 else None

def signals():
    return [str(signal.getsignal(number)) for number in range(1, 65)]

def modules():
    return [builtins.__dict__.get("left"), getattr(json, "left", None), sys.path, sys.argv, sorted(sys.__dict__), sys.getrecursionlimit(),
            gc.isenabled(), sys.gettrace(), threading.active_count(), locale.setlocale(locale.LC_ALL), time.tzname, os.environ.get("LEFT"),
            "left" in globals(), string.ascii_letters[:3], sys.getswitchinterval(), str(sys.stdout)]

def c_environment():
    with os.popen("env -u EXECUTION_ID -u FUNCTION_PAYLOAD | sort") as output:
        return output.read()

run = os.path.dirname(os.environ["FUNCTION_PAYLOAD_FILE"])
report = {
    "descriptors": descriptors(), "status": status("Umask", "SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt", "Name", "NoNewPrivs", "Threads"),
    "limits": own("limits"), "nice": os.getpriority(os.PRIO_PROCESS, 0), "affinity": sorted(os.sched_getaffinity(0)), "scheduler": os.sched_getscheduler(0),
    "oom": own("oom_score_adj"), "slack": own("timerslack_ns") if os.access("/proc/self/timerslack_ns", os.R_OK) else None,
    "personality": own("personality"), "cwd": os.getcwd(), "session": os.getsid(0) == os.getpid(), "group": os.getpgrp() == os.getpid(),
    "environment": {k: v for k, v in os.environ.items() if k not in ("EXECUTION_ID", "FUNCTION_PAYLOAD")}, "c_environment": c_environment(),
    "own": [os.environ["EXECUTION_ID"] == os.environ["FUNCTION_PAYLOAD"], sys.stdin.read() == os.environ["EXECUTION_ID"], open(os.environ["FUNCTION_PAYLOAD_FILE"]).read() == os.environ["EXECUTION_ID"]],
    "run": sorted(os.listdir(run)), "run_mode": oct(os.stat(run).st_mode), "processes": processes(), "signals": signals(), "modules": modules(),
    "timers": [signal.getitimer(n) for n in (0, 1, 2)], "usage": resource.getrusage(resource.RUSAGE_CHILDREN).ru_nvcsw < 1000,
}
sys.stdout.write(json.dumps(report, sort_keys=True))
sys.stdout.flush()

# ---- and now everything is changed ----
import ctypes, fcntl
libc = ctypes.CDLL(None)
libc.prctl(15, b"renamed", 0, 0, 0)
libc.prctl(29, 5000000, 0, 0, 0)
libc.personality(0x0040000)
os.umask(0)
left = builtins.left = json.left = True
os.environ["LEFT"] = os.environ["PATH"] = "left"
del os.environ["FUNCTION_PAYLOAD_FILE"]
libc.setenv(b"LEFT_C", b"left", 1)
sys.path.append("/left"); sys.argv.append("left"); sys.left = 1; sys.setrecursionlimit(500); gc.disable(); sys.setswitchinterval(1)
string.ascii_letters = "left"
os.environ["TZ"] = "Asia/Tokyo"; time.tzset()
os.nice(5)
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
for name in ("payload", "left", ".left"):
    try:
        os.remove(os.path.join(run, name))
    except OSError:
        pass
    os.mkdir(os.path.join(run, name))
os.chmod(run, 0o500)
os.chdir("/")
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
signal.setitimer(signal.ITIMER_REAL, 1000)
for fd in 1, 2:
    fcntl.fcntl(fd, fcntl.F_SETFL, os.O_NONBLOCK | os.O_APPEND | os.O_ASYNC)
    fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
for fd in range(20, 30):
    os.dup2(1, fd, inheritable=True)
threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
for i in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(1000)
        os._exit(0)
for kind in resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_CORE, resource.RLIMIT_STACK, resource.RLIMIT_CPU, resource.RLIMIT_NPROC:
    resource.setrlimit(kind, (30, 30))
os.closerange(0, 1)
os._exit(0)
"""

NODE_SOURCE = r"""
const fs = require('fs'), os = require('os'), path = require('path');
const own = (name) => fs.readFileSync('/proc/self/' + name, 'utf8');
const run = path.dirname(process.env.FUNCTION_PAYLOAD_FILE);
const { EXECUTION_ID: id, FUNCTION_PAYLOAD: payload, ...env } = process.env;
const cEnvironment = require('child_process').execSync('env -u EXECUTION_ID -u FUNCTION_PAYLOAD | sort').toString();
const report = {
  descriptors: fs.readdirSync('/proc/self/fd').map((fd) => { try { return fs.readlinkSync('/proc/self/fd/' + fd).replace(/\[\d+\]/g, '[N]') } catch { return '' } }).sort(),
  status: own('status').split('\n').filter((line) => /^(Umask|SigPnd|ShdPnd|SigBlk|SigIgn|SigCgt|Name|NoNewPrivs):/.test(line)),
  limits: own('limits'), nice: os.getPriority(), oom: own('oom_score_adj'), personality: own('personality'), cwd: process.cwd(),
  environment: env, cEnvironment, own: [payload === id, fs.readFileSync(0, 'utf8') === id, fs.readFileSync(process.env.FUNCTION_PAYLOAD_FILE, 'utf8') === id],
  run: fs.readdirSync(run), runMode: fs.statSync(run).mode, umask: process.umask(),
  processes: process.ppid < 10 ? fs.readdirSync('/proc').filter((name) => /^\d+$/.test(name)).length : null,
  modules: [globalThis.left, JSON.left, Array.prototype.left, path.left, Object.keys(require.cache), process.argv, process.execArgv, process.title, process.exitCode,
    process.eventNames().sort().map(String), new Date(0).getTimezoneOffset(), module.paths, require('module').globalPaths, Error.stackTraceLimit],
};
process.stdout.write(JSON.stringify(report), () => {
  globalThis.left = JSON.left = Array.prototype.left = path.left = 'left';
  Error.stackTraceLimit = 1;
  process.env.LEFT = process.env.PATH = 'left';
  process.env.TZ = 'Asia/Tokyo';
  delete process.env.FUNCTION_PAYLOAD_FILE;
  process.title = 'renamed';
  process.umask(0);
  os.setPriority(7);
  for (const name of ['payload', 'left', '.left']) { fs.rmSync(path.join(run, name), { force: true }); fs.mkdirSync(path.join(run, name)); }
  fs.chmodSync(run, 0o500);
  process.chdir('/');
  for (const name of ['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGUSR2']) process.on(name, () => {});
  process.on('exit', () => {});
  fs.writeFileSync('/proc/self/oom_score_adj', '1000');
  for (let i = 0; i < 3; i++)
    require('child_process').spawn('/bin/sh', ['-c', 'trap "" TERM; sleep 1000'], { detached: true, stdio: 'inherit', env: { PATH: '/bin:/usr/bin' } }).unref();
  new (require('worker_threads').Worker)('setInterval(() => {}, 1000)', { eval: true });
  setInterval(() => {}, 1000);
  fs.closeSync(0);
  process.kill(process.pid, 'SIGKILL');
});
"""


class Traces(InstanceTest):
    options = {}

    def check(self, mode, argv, files, env):
        instance = self.ready(mode, argv, files, env=env, **self.options)
        first = None
        for i in range(4):
            # Ids of one length, and payloads of which each is another's.
            done = instance.invoke(b"execution-%d" % i, f"execution-{i}")
            self.assertEqual(done.flags, 0, done.stderr)
            self.assertTrue(done.stdout, done.stderr)
            report = json.loads(done.stdout)
            self.assertEqual(report["own"], [True, True, True])
            first = first or report
            for name in first:
                self.assertEqual(report[name], first[name], name)
        return first

    def test_exec(self):
        files = {"bootstrap": f"#!{PYTHON} -SE\n{PYTHON_SOURCE}"}
        report = self.check("exec", ["./bootstrap"], files, {"OWN": "1"})
        self.assertEqual(sorted(report["descriptors"]), ["0", "1", "2"])

    def test_python(self):
        adapter = os.path.join(LIBEXEC, "python", "adapter.py")
        report = self.check("zygote", [PYTHON, adapter, "process", "main.py"], {"main.py": PYTHON_SOURCE}, {"OWN": "1", "TZ": "Europe/Berlin"})
        self.assertEqual(sorted(report["descriptors"]), ["0", "1", "2"])

    def test_nodejs(self):
        if not shutil.which(NODE):
            self.skipTest("there is no node on this machine")
        adapter = os.path.join(LIBEXEC, "nodejs", "adapter.js")
        self.check("zygote", [NODE, adapter, "process", "index.js"], {"index.js": NODE_SOURCE}, {"OWN": "1", "TZ": "Europe/Berlin"})


PYTHON_VIEW = r"""
import ctypes, gc, json, os, re, signal, sys, time
libc = ctypes.CDLL(None)
libc.getenv.restype = ctypes.c_char_p

def view():
    def own(name):
        with open(f"/proc/self/{name}") as file:
            return file.read()
    def descriptor(fd):
        try:
            return re.sub(r"\[\d+\]", "[N]", os.readlink("/proc/self/fd/" + fd))
        except OSError:
            return None
    return {
        "descriptors": {fd: descriptor(fd) for fd in os.listdir("/proc/self/fd") if descriptor(fd)}, "environment": dict(os.environ),
        "c_environment": sorted(libc.getenv(name.encode()).decode() for name in os.environ), "c_gone": libc.getenv(b"BEFORE"), "children": os.popen("env | sort").read(),
        "argv": [sys.argv, sys.orig_argv, sys.executable, sys.prefix, sys.flags], "path": sys.path, "modules": sorted(sys.modules), "importers": sorted(sys.path_importer_cache),
        "status": [line for line in own("status").splitlines() if re.match("Umask|Sig[PBIC]|Shd|Name|NoNew|Threads", line)], "limits": own("limits"),
        "oom": own("oom_score_adj"), "cwd": [os.getcwd(), os.readlink("/proc/self/cwd"), open("data").read()], "ids": [os.getppid() < 10 and os.getppid(), os.getsid(0) == os.getpid(), os.getpgrp() == os.getpid()],
        "signals": [str(signal.getsignal(n)) for n in range(1, 65)], "dumpable": libc.prctl(3, 0, 0, 0, 0), "gc": [gc.isenabled(), gc.get_threshold(), len(gc.callbacks)],
        "parent_death": [libc.prctl(2, ctypes.byref(death := ctypes.c_int(-1)), 0, 0, 0), death.value],
        "subreaper": [libc.prctl(37, ctypes.byref(reaper := ctypes.c_int(-1)), 0, 0, 0), reaper.value],
        "time": [time.tzname, time.localtime(0).tm_hour], "streams": [str(s) for s in (sys.stdin, sys.stdout, sys.stderr)], "encodings": [sys.getfilesystemencoding(), sys.stdout.encoding],
    }
"""
NODE_VIEW = r"""
const fs = require('fs'), os = require('os');
exports.view = () => {
  const own = (name) => fs.readFileSync('/proc/self/' + name, 'utf8');
  const link = (name) => { try { return fs.readlinkSync(name).replace(/\[\d+\]/g, '[N]') } catch { return '' } };
  return {
    descriptors: fs.readdirSync('/proc/self/fd').map((fd) => link('/proc/self/fd/' + fd)).filter((name) => !name.endsWith('/fd')).sort(), standard: [0, 1, 2].map((fd) => link('/proc/self/fd/' + fd)),
    environment: { ...process.env }, children: require('child_process').execSync('env | sort').toString(), before: process.env.BEFORE,
    argv: [process.argv, process.execArgv, process.argv0, process.execPath, process.title], cache: Object.keys(require.cache), paths: [require.main?.paths, require('module').globalPaths],
    status: own('status').split('\n').filter((line) => /^(Umask|Sig[PBIC]|Shd|Name|NoNew)/.test(line)), limits: own('limits'), oom: own('oom_score_adj'), umask: process.umask(),
    cwd: [process.cwd(), link('/proc/self/cwd'), fs.readFileSync('data', 'utf8')], ids: [process.ppid < 10 && process.ppid],
    events: process.eventNames().map(String).sort(), time: [new Date(0).getHours(), Intl.DateTimeFormat().resolvedOptions()],
    globals: Object.getOwnPropertyNames(globalThis).sort(), streams: ['stdin', 'stdout', 'stderr'].map((name) => [process[name].constructor.name, process[name].fd]),
    main: require.main?.filename, builtins: process.moduleLoadList.filter((name) => /^NativeModule (?!internal)/.test(name)).sort(),
  };
};
"""

CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBdjCCARugAwIBAgIUZq9cr/wNHQqe1UVY5/y1WLUgiRIwCgYIKoZIzj0EAwIw
DzENMAsGA1UEAwwEdGVzdDAgFw0yNjExMjUxOTA5NTJaGA8yMTI2MTEwMTE5MDk1
MlowDzENMAsGA1UEAwwEdGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABLcW
HzlmkgYk02Cyz73AfsIONRP79R6t9NC0Jvv2d9puKEA/V8NiOqL7lpxjqKjIMy0f
KAF85M2NDKEM1RHi3XmjUzBRMB0GA1UdDgQWBBTLKRjBI9e6lP05TdvYg3Ls/F5Y
BzAfBgNVHSMEGDAWgBTLKRjBI9e6lP05TdvYg3Ls/F5YBzAPBgNVHRMBAf8EBTAD
AQH/MAoGCCqGSM49BAMCA0kAMEYCIQCBI0tpSKVNWHLTvb8lFssIra/801v7Eg85
qwFn6o/sXAIhAPr3vpwKZl//+fCzWrQulHeHlNWK6985yn9ehgE4ou5q
-----END CERTIFICATE-----
"""


def score(pid):
    with open(f"/proc/{pid}/oom_score_adj") as file:
        return file.read().strip()


class Views(InstanceTest):
    """What a function finds in a generic instance is what it finds in one that was started for it."""

    def compare(self, mode, argv, files):
        views = []
        for generic in False, True:
            env = {"OWN": "1", "TZ": "Asia/Tokyo", "FUNCTION_NAME": "f", "LARGE": "x" * 100000}
            if generic:
                instance = self.instance(mode, argv, {}, generic=True, load=False, env={**env, "BEFORE": ""}, pid1=True)
                self.assertEqual(read_frame(instance.control).kind, READY)
                del instance.env["BEFORE"]
                cover(self, instance, files)
                instance.control.sendall(encode(LOAD, body=load_body(mode, argv, instance.env)))
            else:
                instance = self.instance(mode, argv, {"data": "covered", **files}, env=env, pid1=True)
            self.assertEqual(instance.wait_ready().kind, READY)
            done = instance.invoke(b"[1]", "the-execution")
            text = done.stdout if mode != "handler" else done.body
            views.append(json.loads(text.replace(os.path.basename(instance.folder).encode(), b"FOLDER") or b"{}"))
            self.assertTrue(views[-1], done.stderr)
        for name in views[0]:
            self.assertEqual(views[1][name], views[0][name], name)
        return views[0]

    def late(self, mode, argv, files, before, after):
        """What a script prints that is loaded with other variables than the instance was started with."""
        instance = self.instance(mode, argv, {}, generic=True, load=False, env=before)
        self.assertEqual(read_frame(instance.control).kind, READY)
        write_files(instance.code, files)
        environment = {name: value for name, value in instance.env.items() if name not in before}
        instance.control.sendall(encode(LOAD, body=load_body(mode, argv, {**environment, **after})))
        self.assertEqual(instance.wait_ready().kind, READY)
        return instance.invoke().stdout.decode()

    def test_python_heeds_late_variables(self):
        """Those that protocol.h lists."""
        adapter = os.path.join(LIBEXEC, "python", "adapter.py")
        tokyo, certificates = {"TZ": "Asia/Tokyo"}, {"SSL_CERT_FILE": "one.pem", "SSL_CERT_DIR": "/none"}
        zone = "import time; print(time.tzname[0], time.localtime(0).tm_hour, time.timezone)"
        store = "import ssl; print(ssl.create_default_context().cert_store_stats()['x509'])"
        for source, before, after, expected in (
            (zone, {}, tokyo, "JST 9 -32400\n"), (zone, tokyo, {"TZ": "UTC"}, "UTC 0 0\n"), (zone, {"TZ": "UTC"}, tokyo, "JST 9 -32400\n"),
            (store, {}, certificates, "1\n"), ("import sys; print([name for name in ('_ssl', '_hashlib') if name in sys.modules])", {}, {}, "[]\n"),
        ):  # fmt: skip
            with self.subTest(source=source, after=after):
                printed = self.late("zygote", [PYTHON, adapter, "process", "main.py"], {"main.py": source, "one.pem": CERTIFICATE}, before, after)
                self.assertEqual(printed, expected)

    def test_nodejs_heeds_late_variables(self):
        if not shutil.which(NODE):
            self.skipTest("there is no node on this machine")
        adapter = os.path.join(LIBEXEC, "nodejs", "adapter.js")
        tokyo = {"TZ": "Asia/Tokyo"}
        zone = "console.log(new Date(0).getHours(), Intl.DateTimeFormat().resolvedOptions().timeZone)"
        threads = """
const fs = require('fs'), { pbkdf2 } = require('crypto');
const count = () => fs.readdirSync('/proc/self/task').length, before = count();
pbkdf2('a', 'b', 1, 64, 'sha512', () => console.log(count() - before));"""
        for source, before, after, expected in (
            (zone, {}, tokyo, "9 Asia/Tokyo\n"), (zone, tokyo, {"TZ": "UTC"}, "0 UTC\n"), (threads, {}, {"UV_THREADPOOL_SIZE": "9"}, "9\n"),
            ("console.log(process.env.NODE_ENV)", {}, {"NODE_ENV": "production"}, "production\n"),
        ):  # fmt: skip
            with self.subTest(source=source, after=after):
                printed = self.late("zygote", [NODE, adapter, "process", "index.js"], {"index.js": source}, before, after)
                self.assertEqual(printed, expected)

    def test_python_zygote_is_out_of_reach_and_the_last_to_go(self):
        """From outside: who may look into the processes (the owner of their files in /proc), and whom the kernel kills first."""
        adapter = os.path.join(LIBEXEC, "python", "adapter.py")
        for generic in False, True:
            with self.subTest(generic=generic):
                instance = self.ready("zygote", [PYTHON, adapter, "process", "main.py"], {"main.py": ""}, pid1=True, uid=54321, generic=generic)
                self.assertEqual(instance.invoke().exit_code, 0)
                init = instance.init_pid()
                with open(f"/proc/{init}/task/{init}/children") as file:
                    zygote, *more = file.read().split()
                self.assertEqual(more, [])
                self.assertEqual(os.stat(f"/proc/{zygote}/mem").st_uid, 0)
                self.assertEqual(os.stat(f"/proc/{init}/mem").st_uid, 0)
                self.assertEqual(score(zygote), score(init))
                while not (ready := [pid for pid in instance.others() if str(pid) != zygote and score(pid) == "1000"]):
                    pass
                self.assertEqual(os.stat(f"/proc/{ready[0]}/mem").st_uid, 54321)

    def test_exec(self):
        source = PYTHON_VIEW + "print(json.dumps(view()))"
        self.compare("exec", ["./bootstrap"], {"bootstrap": f"#!{PYTHON} -S\n{source}"})

    def python(self, kind, mode, target, end):
        adapter = os.path.join(LIBEXEC, "python", "adapter.py")
        return self.compare(mode, [PYTHON, adapter, kind, target], {"main.py": PYTHON_VIEW + end})

    def test_python_process(self):
        view = self.python("process", "zygote", "main.py", "print(json.dumps(view()))")
        self.assertEqual(sorted(view["descriptors"]), ["0", "1", "2"])

    def test_python_handler(self):
        view = self.python("handler", "handler", "main.handler", "handler = lambda event, context: view()")
        self.assertEqual(sorted(view["descriptors"]), ["0", "1", "2", "200"])

    def nodejs(self, kind, mode, target, end):
        if not shutil.which(NODE):
            self.skipTest("there is no node on this machine")
        adapter = os.path.join(LIBEXEC, "nodejs", "adapter.js")
        return self.compare(mode, [NODE, adapter, kind, target], {"index.js": NODE_VIEW + end})

    def test_nodejs_process(self):
        self.nodejs("process", "zygote", "index.js", "console.log(JSON.stringify(exports.view()))")

    def test_nodejs_handler(self):
        view = self.nodejs("handler", "handler", "index.handler", "exports.handler = exports.view")
        self.assertEqual(sum("socket:" in name for name in view["descriptors"]), 1)


def as_pid1(case):
    return type(case.__name__ + "AsPid1", (case,), {"options": {"pid1": True}})


TracesGeneric, TracesAsPid1, TracesGenericAsPid1 = as_generic(Traces), as_pid1(Traces), as_pid1(as_generic(Traces))

if __name__ == "__main__":
    unittest.main()
