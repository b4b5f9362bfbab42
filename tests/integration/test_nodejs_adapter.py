#!/usr/bin/env python3
"""The Node.js adapter: scripts from a standby process behave as `node index.js` does; handlers keep their contract."""

import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import unittest

from instance import (
    ADAPTER_EXIT, DIRTY, ERROR, INIT, LIBEXEC, NODE, NOT_STARTED, READY, RESULT, HungUp, InstanceTest, as_generic,
    read_frame, write_files,
)  # fmt: skip

ADAPTER = os.path.join(LIBEXEC, "nodejs", "adapter.js")
PAYLOAD = b'{"line": 1}\nline two \xc3\xa4\n'

# Each is run by `node index.js` (or index.mjs) and in a standby process (twice): all must be the same.
SCRIPTS = {
    "result": "console.log(JSON.stringify({payload: process.env.FUNCTION_PAYLOAD, id: process.env.EXECUTION_ID}))",
    "no newline": "process.stdout.write('text')",
    "nothing": "",
    "exit 3": "console.log('x'); process.exit(3)",
    "exitCode": "process.exitCode = 4",
    "killed by itself": "process.kill(process.pid, 'SIGKILL')",
    "exception": "function f() { throw new TypeError('bad') }\nf()",
    "exception that is no error": "throw 42",
    "rejection": "Promise.reject(new RangeError('no'))",
    "rejection in async": "(async () => { await null; throw new Error('late') })()",
    "syntax error": "console.log('a'",
    "missing module": "require('./not-there')",
    "module": "console.log(require('./helper').x, require('./data.json'))",
    "main": "console.log(require.main === module, module.id, module.parent, module.children, module.paths[0])\nconsole.log(__filename, __dirname, process.cwd(), process.argv, process.execArgv, process.argv0)",
    "globals": "console.log(Object.getOwnPropertyNames(globalThis).sort().join(), Object.keys(require.cache))",
    "listeners": "console.log(process.eventNames().sort(), process.listenerCount('uncaughtException'))",
    "standard input at once": "console.log(require('fs').readFileSync(0, 'utf8'))",
    "standard input by path": "console.log(require('fs').readFileSync('/dev/stdin', 'utf8'))",
    "standard input as stream": "process.stdin.setEncoding('utf8'); process.stdin.on('data', d => console.log(d)).on('end', () => console.log('end'))",
    "standard input by line": "require('readline').createInterface({input: process.stdin}).on('line', l => console.log('line', l))",
    "timers": "setImmediate(() => { console.log('immediate'); setTimeout(() => console.log('later'), 5) }); process.nextTick(() => console.log('tick')); Promise.resolve().then(() => console.log('then'))",
    "exit event": "process.on('exit', c => console.log('exit', c)); process.on('beforeExit', () => console.log('before'))",
    "caught": "process.on('uncaughtException', e => console.log('caught', e.message)); throw new Error('x')",
    "child": "console.log(require('child_process').execSync('cat; echo x', {input: 'in'}).toString())",
    "child with inherited streams": "require('child_process').spawn('sh', ['-c', 'cat; ls /proc/self/fd | wc -l'], {stdio: 'inherit'})",
    "fork": "if (process.argv[2]) process.send('child'); else require('child_process').fork(__filename, ['c']).on('message', m => console.log(m))",
    "worker thread": "const w = require('worker_threads'); if (w.isMainThread) new w.Worker(__filename).on('message', m => console.log(m)); else w.parentPort.postMessage('from worker')",
    "large output": "console.log('x'.repeat(1000000)); console.error('y'.repeat(1000000))",
    "binary output": "process.stdout.write(Buffer.from([...Array(256).keys()]))",
    "streams": "console.log(process.stdin.fd, process.stdin.constructor.name, process.stdout.fd, process.stdout.constructor.name, process.stdout.isTTY)",
    "import from CommonJS": "import('./esm.mjs').then(m => console.log(m.default))",
    "shebang": "#!/usr/bin/env node\nconsole.log('with shebang')",
    "strictness": "x = 1; console.log(x, this === module.exports)",
    "garbage": "let kept = []; for (let i = 0; i < 3e5; i++) { kept.push({i, text: 'x'.repeat(i % 99), list: new Array(40).fill(i)}); if (i % 5e4 === 0) kept = kept.slice(-1e4) } console.log(kept.length, kept.at(-1).text.length)",
    "large buffers": "let n = 0; for (let i = 0; i < 20; i++) { const b = Buffer.alloc(1e7, i); n += b[i] } console.log(n)",
    "hot loop": "const f = (a, b) => (a * 31 + b) | 0; let x = 1; for (let i = 0; i < 2e7; i++) x = f(x, i); console.log(x)",
    "deep recursion": "let n = 0; const f = () => { n++; f() }; try { f() } catch (e) { console.log(e.constructor.name, n > 1000) }",
    "web assembly": "const code = Uint8Array.from(atob('AGFzbQEAAAABBwFgAn9/AX8DAgEABwcBA2FkZAAACgkBBwAgACABags='), c => c.charCodeAt()); WebAssembly.instantiate(code).then(({instance}) => { let x = 0; for (let i = 0; i < 1e6; i++) x = instance.exports.add(x, i); console.log(x) })",
    "work on threads": "const c = require('crypto'), z = require('zlib'), fs = require('fs/promises'); Promise.all([new Promise(r => c.pbkdf2('a', 'b', 1000, 8, 'sha256', (e, k) => r(k.toString('hex')))), new Promise(r => c.scrypt('a', 'b', 8, (e, k) => r(k.toString('hex')))), new Promise(r => z.gzip('x'.repeat(1e6), (e, b) => r(z.gunzipSync(b).length))), fs.readFile(__filename, 'utf8').then(t => t.length), new Promise(r => c.generateKeyPair('ec', {namedCurve: 'P-256'}, e => r(e)))]).then(r => console.log(r))",
    "name lookup": "require('dns').lookup('localhost', {family: 4}, (e, a) => console.log(e, a))",
    "server and client": "const http = require('http'); const s = http.createServer((q, r) => r.end(q.url)).listen(0, '127.0.0.1', () => http.get({port: s.address().port, path: '/x'}, r => r.on('data', d => { console.log(d.toString()); s.close() }).on('close', () => console.log('closed'))))",
    "threads that wait for each other": "const {Worker, isMainThread, workerData} = require('worker_threads'); if (isMainThread) { const a = new Int32Array(new SharedArrayBuffer(8)); let left = 3; for (let i = 0; i < 3; i++) new Worker(__filename, {workerData: a}).on('exit', () => { if (!--left) console.log(a[0], a[1]) }) } else { if (Atomics.add(workerData, 0, 1) === 2) { Atomics.store(workerData, 1, 1); Atomics.notify(workerData, 1) } else Atomics.wait(workerData, 1, 0) }",
    "thread that is stopped": "const {Worker} = require('worker_threads'); const w = new Worker('for (;;);', {eval: true}); w.on('online', () => w.terminate().then(c => console.log(c)))",
    "signal that is handled": "process.on('SIGUSR2', s => { console.log(s); process.exit(5) }); process.kill(process.pid, 'SIGUSR2'); setTimeout(() => {}, 60000)",
    "signal that ends it": "process.kill(process.pid, 'SIGTERM'); setTimeout(() => {}, 60000)",
    "leaving in a promise": "(async () => { await null; console.log('x'); process.exit(7); console.log('y') })()",
    "abort": "process.abort()",
    "programs one after another": "const {exec} = require('child_process'); let n = 0; const next = () => exec('echo $((1 + ' + n + '))', (e, out) => { n = +out; n < 5 ? next() : console.log(n) }); next()",
    "process": "console.log(process.title, process.execPath, process.execArgv, process.umask(), process.cwd(), process.getuid(), process.version, process.exitCode, process.channel); process.chdir('/'); process.umask(0o27); console.log(process.cwd(), process.umask())",
    "times": "const t = performance.now(); setTimeout(() => { const d = performance.now() - t; console.log(d >= 49, Math.abs(performance.timeOrigin + performance.now() - Date.now()) < 1000) }, 50)",
    "warnings": "process.emitWarning('careful'); new Buffer(1)",
}  # fmt: skip
MODULES = {
    "module": "import fs, {readFileSync} from 'fs'; import d from './esm.mjs'; console.log(d, readFileSync(0, 'utf8'), import.meta.url, process.argv)",
    "await at the top": "await new Promise(r => setTimeout(r, 5)); console.log('done')",
    "exception": "throw new Error('x')",
    "rejection": "await Promise.reject(new Error('x'))",
    "never": "await new Promise(() => {})",
    "syntax error": "const a = ;",
    "missing module": "import './not-there.mjs'",
}  # fmt: skip
FILES = {"helper.js": "exports.x = __filename", "data.json": '{"a": 1}', "esm.mjs": "export default 'from a module'"}


def without_variable_parts(output):
    """Process ids, addresses, and the stack frames of Node.js's own start, of which a standby process has other ones."""
    lines = re.sub(r"0x[0-9a-f]+", "ADDRESS", re.sub(r"\(node:\d+\)", "(node:PID)", output.decode())).split("\n")
    return [line for line in lines if not re.match(r"\s*(at|\d+:) .*node:internal/", line)]


@functools.cache
def has_io_uring():
    """Outside of containers, whose seccomp filter refuses it, newer versions have one, which no child can be given."""
    source = "for (const fd of fs.readdirSync('/proc/self/fd')) try { console.log(fs.readlinkSync('/proc/self/fd/' + fd)) } catch {}"
    return b"io_uring" in subprocess.run([NODE, "-e", source], capture_output=True, timeout=60, check=True).stdout


def requires_fork(test):
    @functools.wraps(test)
    def run(self):
        if has_io_uring():
            self.skipTest("this Node.js uses io_uring: processes stand by")
        test(self)

    return run


class Process(InstanceTest):
    def standby(self, script, files, env=None, **options):
        return self.ready("zygote", [NODE, ADAPTER, "process", script], files, env=env, **options)

    def direct(self, folder, script):
        env = {"PATH": os.environ["PATH"], "EXECUTION_ID": "exec-1", "FUNCTION_PAYLOAD": PAYLOAD.decode()}
        payload = os.path.join(folder, "..", "payload")
        with open(payload, "wb") as file:
            file.write(PAYLOAD)
        with open(payload, "rb") as file:
            return subprocess.run([NODE, script], cwd=folder, env=env, stdin=file, capture_output=True, timeout=60)

    def compare(self, script, source):
        instance = self.standby(script, {script: source, **FILES})
        expected = self.direct(instance.code, script)
        for _ in range(2):
            done = instance.invoke(PAYLOAD)
            status = done.exit_code if done.signal is None else -done.signal
            self.assertEqual(done.stdout, expected.stdout, done.stderr)
            self.assertEqual(without_variable_parts(done.stderr), without_variable_parts(expected.stderr))
            self.assertEqual((status, done.flags), (expected.returncode, 0))
        instance.close()

    def test_scripts_behave_as_without_standby(self):
        for name, source in SCRIPTS.items():
            with self.subTest(name):
                self.compare("index.js", source)

    def test_modules_behave_as_without_standby(self):
        for name, source in MODULES.items():
            with self.subTest(name):
                self.compare("index.mjs", source)

    def test_missing_script_is_an_error_each_time(self):
        instance = self.standby("index.js", {})
        for _ in range(2):
            done = instance.invoke()
            self.assertEqual(done.exit_code, 1)
            self.assertIn(b"Cannot find module", done.stderr)

    def test_invocations_do_not_see_each_other(self):
        source = "console.log(process.env.EXECUTION_ID, process.env.FUNCTION_PAYLOAD, process.env.LEFT); process.env.LEFT = 1"
        instance = self.standby("index.js", {"index.js": source})
        self.assertEqual(instance.invoke(b"1", "first").stdout, b"first 1 undefined\n")
        self.assertEqual(instance.invoke(b"x" * 100000, "second").stdout, b"second undefined undefined\n")
        self.assertEqual(instance.invoke(b"a\0b", "third").stdout, b"third undefined undefined\n")

    def test_leftovers_are_dead_when_exit_is_told(self):
        source = """
for (let i = 0; i < 3; i++)
  require('child_process').spawn('sh', ['-c', 'trap "" TERM HUP INT; setsid sleep 1000 & wait'], {detached: true, stdio: 'ignore'}).unref();
console.log('main ends')"""
        for pid1 in (False, True):
            with self.subTest(pid1=pid1):
                instance = self.standby("index.js", {"index.js": source}, pid1=pid1)
                for _ in range(3):
                    done = instance.invoke()
                    self.assertEqual((done.stdout, done.flags, done.exit_code), (b"main ends\n", 0, 0))
                    self.assertLessEqual(len(instance.others()), 2)  # the zygote, and the child that stands ready
                instance.close()

    def test_what_must_differ_between_processes_does(self):
        source = """
const c = require('crypto'), vm = require('vm');
console.log(JSON.stringify([Math.random(), Math.random(), c.randomUUID(), c.randomBytes(8).toString('hex'), c.randomInt(2 ** 47), process.pid]));
console.error(require('fs').readlinkSync('/proc/self'), Object.getOwnPropertyDescriptor(process, 'pid').writable)"""
        instance = self.standby("index.js", {"index.js": source})
        seen = []
        for _ in range(4):
            done = instance.invoke()
            values = json.loads(done.stdout)
            self.assertEqual(done.stderr.decode(), f"{values[-1]} false\n")
            seen.append(values)
        for column in zip(*seen):
            self.assertEqual(len(set(column)), len(seen), column)

    @requires_fork
    def test_processes_are_forked(self):
        instance = self.standby("index.js", {"index.js": "console.log(process.ppid)"})
        parents = {int(instance.invoke().stdout) for _ in range(3)}
        self.assertEqual(len(parents), 1)
        self.assertNotEqual(parents, {instance.init_pid()})

    @requires_fork
    def test_options_that_start_nothing_do_not_hinder_the_fork(self):
        source = "console.log(process.ppid, require('v8').getHeapStatistics().heap_size_limit < 400e6)"
        instance = self.standby("index.js", {"index.js": source}, env={"NODE_OPTIONS": "--max-old-space-size=100 --no-warnings"}, generic=False)
        seen = {instance.invoke().stdout for _ in range(3)}
        self.assertEqual(len(seen), 1)
        self.assertIn(b" true", seen.pop())

    def test_what_a_zygote_cannot_share_starts_with_each_process(self):
        source = "console.log(process.ppid === +process.env.INIT, global.early, process.env.FUNCTION_PAYLOAD)"
        files = {"index.js": source, "early.cjs": "global.early = process.pid"}
        instance = self.instance("zygote", [NODE, ADAPTER, "process", "index.js"], files, pid1=True, env={"NODE_OPTIONS": "--require ./early.cjs", "INIT": "1"})
        if not self.generic:
            instance.send(b"0")  # before it is said that there is no zygote
        self.assertEqual(instance.wait_ready().kind, READY)
        seen = set()
        for payload in (b"0", b"1", b"2"):
            done = instance.invoke(payload) if payload != b"0" or self.generic else instance.answer()
            words = done.stdout.split()
            self.assertEqual((words[0], words[2], done.exit_code), (b"true", payload, 0), done.stderr)
            seen.add(words[1])
        self.assertEqual(len(seen), 3)

    def test_without_the_addon_processes_stand_by(self):
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        adapter = shutil.copy(ADAPTER, folder)
        instance = self.ready("zygote", [NODE, adapter, "process", "index.js"], {"index.js": "console.log(process.ppid, process.env.EXECUTION_ID)"}, pid1=True)
        for number in range(3):
            self.assertEqual(instance.invoke(b"1", f"e{number}").stdout.decode(), f"1 e{number}\n")

    @requires_fork
    def test_zygote_that_is_killed_ends_the_instance(self):
        instance = self.standby("index.js", {"index.js": "process.kill(process.ppid, 'SIGKILL'); setTimeout(() => {}, 60000)"}, pid1=True)
        done = instance.invoke()
        self.assertEqual((done.flags, done.signal), (DIRTY, 9))
        self.assertEqual(read_frame(instance.control).kind, ADAPTER_EXIT)

    @requires_fork
    def test_signals_to_the_zygote_reach_nobody(self):
        source = """
console.log(process.ppid, require('inspector').url());
for (const name of ['SIGHUP', 'SIGINT', 'SIGQUIT', 'SIGTERM', 'SIGUSR1', 'SIGUSR2', 'SIGPIPE', 'SIGALRM', 'SIGCHLD', 'SIGWINCH'])
  process.kill(process.ppid, name);"""
        instance = self.standby("index.js", {"index.js": source})
        seen = set()
        for _ in range(4):
            done = instance.invoke()
            self.assertEqual((done.stderr, done.exit_code, done.flags), (b"", 0, 0))
            seen.add(done.stdout)
        self.assertEqual(len(seen), 1)
        self.assertIn(b" undefined\n", seen.pop())

    def test_module_package(self):
        instance = self.standby("index.js", {"index.js": "import fs from 'fs'; console.log(typeof fs.read, typeof require)", "package.json": '{"type": "module"}'})
        self.assertEqual(instance.invoke().stdout, b"function undefined\n")

    def test_large_payload(self):
        payload = os.urandom(6 << 20)
        source = "const d = require('fs').readFileSync(0); console.log(d.length, require('crypto').createHash('sha256').update(d).digest('hex'))"
        done = self.standby("index.js", {"index.js": source}).invoke(payload)
        self.assertEqual(done.stdout.decode(), f"{len(payload)} {hashlib.sha256(payload).hexdigest()}\n")

    def test_invocation_before_the_interpreter_is_up(self):
        instance = self.instance("zygote", [NODE, ADAPTER, "process", "index.js"], {"index.js": SCRIPTS["result"]})
        instance.send(b"[1]")
        self.assertEqual(instance.wait_ready().kind, READY)
        self.assertEqual(json.loads(instance.answer().stdout), {"payload": "[1]", "id": "exec-1"})

    def test_zygote_that_ends_at_once_is_told(self):
        frame = self.instance("zygote", [NODE, "--no-such-option"], {}).wait_ready()
        self.assertEqual((frame.kind, os.WEXITSTATUS(frame.value)), (ADAPTER_EXIT, 9))

    def test_leaving_loses_no_output(self):
        instance = self.standby("index.js", {"index.js": "console.log('x'.repeat(2e6)); process.exit(3)"})
        for _ in range(3):
            done = instance.invoke()
            self.assertEqual((len(done.stdout), done.exit_code), (2000001, 3))

    @requires_fork
    def test_child_that_was_killed_while_it_stood_ready_is_replaced(self):
        instance = self.standby("index.js", {"index.js": "console.log(process.ppid)"})
        zygote = int(instance.invoke().stdout)
        for _ in range(3):
            while not (ready := [pid for pid in instance.others() if pid != zygote]):  # it is forked after the answer
                pass
            os.kill(ready[0], 9)
            while ready[0] in instance.others():
                pass
            self.assertEqual(int(instance.invoke().stdout), zygote)

    def test_interpreter_that_is_missing_is_told(self):
        instance = self.instance("zygote", ["no-such-node", ADAPTER, "process", "index.js"], {})
        frame = instance.wait_ready()
        self.assertEqual((frame.kind, frame.flags), (ADAPTER_EXIT, NOT_STARTED))
        self.assertIn("cannot start no-such-node", frame.meta)

    def test_by_hand(self):
        instance = self.standby("index.js", {"index.js": SCRIPTS["result"]})
        command = [INIT, "zygote", "--code", instance.code, "--run", instance.run, "--", NODE, ADAPTER, "process", "index.js"]
        result = subprocess.run(command, input=b"[1]", capture_output=True, timeout=60)
        self.assertEqual(json.loads(result.stdout), {"payload": "[1]", "id": "by-hand"})


class Handler(InstanceTest):
    def start(self, source, target="index.handler", files={}, env=None, script="index.js"):
        instance = self.instance("handler", [NODE, ADAPTER, "handler", target], {script: source, **files}, env=env)
        self.first = instance.wait_ready()
        return instance

    def loaded(self, *args, **kwargs):
        instance = self.start(*args, **kwargs)
        self.assertEqual(self.first.kind, READY, self.first.body)
        return instance

    def result(self, instance, event=None):
        done = instance.invoke(json.dumps(event).encode())
        self.assertEqual(done.kind, RESULT, done.body)
        return json.loads(done.body)

    def error(self, instance, event=None):
        done = instance.invoke(json.dumps(event).encode())
        self.assertEqual(done.kind, ERROR, done.body)
        error = json.loads(done.body)
        self.assertEqual(sorted(error), ["message", "stack", "type"])
        return error

    def load_error(self, *args, **kwargs):
        instance = self.start(*args, **kwargs)
        self.assertEqual(self.first.kind, ERROR)
        self.assertEqual(read_frame(instance.control).kind, ADAPTER_EXIT)
        return json.loads(self.first.body)

    def test_result_logs_and_state(self):
        instance = self.loaded("""
let calls = 0;
console.log('loading');
exports.handler = async (event, context) => {
  console.log('out', ++calls);
  console.error('err', calls);
  await new Promise((resolve) => setTimeout(resolve, 1));
  return { event, calls };
}""")
        for calls in (1, 2, 3):
            done = instance.invoke(b'{"a": [1, 2.5, "\\u00e4"]}')
            self.assertEqual(json.loads(done.body), {"event": {"a": [1, 2.5, "ä"]}, "calls": calls})
            self.assertEqual(done.stdout, b"loading\n" * (calls == 1) + b"out %d\n" % calls)
            self.assertEqual(done.stderr, b"err %d\n" % calls)

    def test_a_large_log_is_complete_before_the_answer(self):
        instance = self.loaded("exports.handler = () => { for (let i = 0; i < 2000; i++) console.log('x'.repeat(999)) }")
        for _ in range(3):
            self.assertEqual(len(instance.invoke().stdout), 2000000)

    def test_context(self):
        env = {"FUNCTION_NAME": "f", "FUNCTION_VERSION": "3", "FUNCTION_MEMORY_MB": "128"}
        instance = self.loaded("""
exports.handler = (event, c) => [c.function_name, c.function_version, c.memory_limit_mb, c.execution_id, c.aws_request_id,
  process.env.EXECUTION_ID, process.env.FUNCTION_PAYLOAD ?? null, c.get_remaining_time_in_millis()]""", env=env)
        values = json.loads(instance.invoke(b"[1]", "exec-7", 5000).body)
        self.assertEqual(values[:7], ["f", "3", 128, "exec-7", "exec-7", "exec-7", "[1]"])
        self.assertTrue(0 < values[7] <= 5000)
        self.assertIsNone(json.loads(instance.invoke(b'"%s"' % (b"x" * 100000)).body)[6])

    def test_kinds_of_modules(self):
        cases = [
            ({"index.js": "exports.handler = () => 1"}, 1),
            ({"index.js": "module.exports = { handler: () => 2 }"}, 2),
            ({"index.mjs": "export const handler = () => 3"}, 3),
            ({"index.mjs": "export default { handler: () => 4 }"}, 4),
            ({"index.js": "export const handler = () => 5", "package.json": '{"type": "module"}'}, 5),
            ({"index.cjs": "exports.handler = () => 6", "package.json": '{"type": "module"}'}, 6),
            ({"index.mjs": "const x = await Promise.resolve(7); export const handler = () => x"}, 7),
            ({"index/index.js": "exports.handler = () => 8"}, 8),
        ]
        for files, expected in cases:
            with self.subTest(files):
                instance = self.loaded("", script="unused.txt", files=files)
                self.assertEqual(self.result(instance), expected)
                instance.close()
        instance = self.loaded("", target="src/app.run", files={"src/app.js": "exports.run = () => require('./b'); ", "src/b.js": "module.exports = 9"})
        self.assertEqual(self.result(instance), 9)

    def test_thrown_and_rejected(self):
        instance = self.loaded("""
class OwnError extends Error { constructor(m) { super(m); this.name = 'OwnError' } }
const inner = () => { throw new OwnError('bad ä') };
exports.handler = (event) => {
  if (event === 1) inner();
  if (event === 2) return Promise.reject(new RangeError('async'));
  if (event === 3) throw 'a string';
  if (event === 4) throw null;
  if (event === 5) throw { message: 'object' };
  if (event === 6) throw Object.create(null);
  if (event === 7) { const e = new Error('x'.repeat(1e7)); throw e }
  if (event === 8) { const f = () => f(); f() }
  if (event === 9) throw new Error('\\ud800');
  return 'fine';
}""")
        error = self.error(instance, 1)
        self.assertEqual((error["type"], error["message"]), ("OwnError", "bad ä"))
        self.assertEqual(len(error["stack"]), 2)
        self.assertIn(f"inner ({instance.code}/index.js:3:", error["stack"][0])
        expected = {2: ("RangeError", "async"), 3: ("Error", "a string"), 4: ("Error", "null"), 5: ("Object", "object"),
                    6: ("Error", ""), 7: ("Error", "xxx"), 8: ("RangeError", "call stack"), 9: ("Error", "\ufffd")}  # fmt: skip
        for event, (kind, message) in expected.items():
            with self.subTest(event):
                error = self.error(instance, event)
                self.assertEqual(error["type"], kind)
                self.assertIn(message, error["message"])
        self.assertEqual(self.result(instance), "fine")

    def test_what_nobody_catches_is_answered_and_ends_the_process(self):
        for source in ("setTimeout(() => { throw new TypeError('late') }, 1)", "Promise.reject(new TypeError('late'))"):
            with self.subTest(source):
                instance = self.loaded(f"exports.handler = () => {{ {source}; return new Promise(() => {{}}) }}")
                error = self.error(instance)
                self.assertEqual((error["type"], error["message"]), ("TypeError", "late"))
                frame = read_frame(instance.control)
                self.assertEqual((frame.kind, os.WEXITSTATUS(frame.value)), (ADAPTER_EXIT, 1))
                instance.close()

    def test_what_the_function_catches_itself_is_its_own(self):
        instance = self.loaded("process.on('unhandledRejection', () => {}); exports.handler = async () => { Promise.reject(new Error('x')); await new Promise((r) => setTimeout(r, 5)); return 'on' }")
        self.assertEqual([self.result(instance) for _ in range(2)], ["on", "on"])

    def test_leaving_the_process_is_told(self):
        instance = self.loaded("exports.handler = () => process.exit(9)")
        instance.send(b"{}")
        self.assertRaises(HungUp, read_frame, instance.adapter)
        frame = read_frame(instance.control)
        self.assertEqual((frame.kind, os.WEXITSTATUS(frame.value)), (ADAPTER_EXIT, 9))

    def test_results_that_are_not_json(self):
        instance = self.loaded("exports.handler = (e) => { if (e === 1) return 10n; const a = []; a.push(a); if (e === 2) return a; if (e === 3) return { toJSON() { throw new Error('own') } } }")
        for event in (1, 2, 3):
            error = self.error(instance, event)
            self.assertEqual(error["type"], "TypeError")
            self.assertIn("the result cannot be JSON", error["message"])
        self.assertIsNone(self.result(instance))

    def test_payload_that_is_not_json_or_deep(self):
        instance = self.loaded("exports.handler = (event) => event")
        for payload in (b"{", b""):
            done = instance.invoke(payload)
            self.assertEqual((done.kind, json.loads(done.body)["type"]), (ERROR, "SyntaxError"))
        done = instance.invoke(b"[" * 100000 + b"]" * 100000)
        self.assertIn(done.kind, (RESULT, ERROR))
        self.assertEqual(self.result(instance, 5), 5)

    def test_large_payload_and_result(self):
        instance = self.loaded("exports.handler = (event) => event + event")
        text = "ä" * (3 << 20)
        for _ in range(2):
            self.assertEqual(self.result(instance, text), text * 2)

    def test_environment_of_each_call_is_the_whole_process_s(self):
        instance = self.loaded("""
exports.handler = (event, context) => {
  const names = ['EXECUTION_ID', 'FUNCTION_PAYLOAD'];
  const child = require('child_process').execFileSync('env').toString().split('\\n');
  const view = [context.execution_id, ...names.map((name) => process.env[name] ?? null), child.filter((line) => names.includes(line.split('=')[0])).sort()];
  if (event[0] === 1) for (const name of names) process.env[name] = 'mine';
  if (event[0] === 2) for (const name of names) delete process.env[name];
  return view;
};""")
        for payload in (b"[1]", b"[2]", b'"' + b"long" * 10_000 + b'"', b"[4]", b'"' + b"x" * 100_000 + b'"', b"[5]", '"\u00e4"'.encode()):
            with self.subTest(payload=payload[:9]):
                done = instance.invoke(payload)
                self.assertEqual(done.kind, RESULT, done.body)
                execution, own, value, child = json.loads(done.body)
                small = payload.decode() if len(payload) < 96 * 1024 else None
                self.assertEqual((own, value), (execution, small))
                self.assertEqual(child, [f"EXECUTION_ID={execution}"] + [f"FUNCTION_PAYLOAD={small}"] * bool(small))

    def test_environment_of_earlier_calls_takes_no_memory(self):
        instance = self.loaded("""
require('v8').setFlagsFromString('--expose_gc');
const collect = require('vm').runInNewContext('gc');
exports.handler = () => { collect(); return process.memoryUsage().rss };""")
        sizes = [json.loads(instance.invoke(b'"%090000d"' % n).body) for n in range(600)]
        self.assertLess(sizes[-1] - sizes[200], 16 << 20, "bytes; the payloads since then have 36 MB together")

    def test_what_cannot_be_loaded_says_why(self):
        error = self.load_error("exports.handler = () => {")
        self.assertEqual(error["type"], "SyntaxError")
        self.assertIn("index.js:1", error["stack"][0])
        error = self.load_error("require('./not-there')")
        self.assertEqual(error["type"], "Error")
        self.assertIn("Cannot find module './not-there'", error["message"])
        error = self.load_error("null.x")
        self.assertEqual((error["type"], len(error["stack"])), ("TypeError", 1))
        for target in ("index.missing", "missing.handler", "index", ".handler", "index.", "index.value", "../index.handler"):
            with self.subTest(target):
                error = self.load_error("exports.value = 1", target=target)
                self.assertEqual(error["type"], "Function.HandlerNotFound")
                self.assertIn("the handler is", error["message"])

    def test_children_do_not_get_the_socket(self):
        instance = self.loaded("exports.handler = () => require('child_process').execSync('ls /proc/self/fd').toString().split('\\n').length - 1")
        self.assertEqual(self.result(instance), 4)  # three, and the one that ls lists with

    def test_by_hand(self):
        instance = self.loaded("exports.handler = async (e, c) => { if (!e) throw new TypeError('zero'); return [e, c.execution_id] }")
        command = [INIT, "handler", "--code", instance.code, "--run", instance.run, "--", NODE, ADAPTER, "handler", "index.handler"]
        result = subprocess.run(command, input=b"1", capture_output=True, timeout=60)
        self.assertEqual((result.returncode, json.loads(result.stdout)), (0, [1, "by-hand"]))
        result = subprocess.run(command, input=b"0", capture_output=True, timeout=60)
        self.assertEqual(result.returncode, 1)
        self.assertIn(b"TypeError: zero", result.stderr)


ProcessGeneric, HandlerGeneric = as_generic(Process), as_generic(Handler)

if __name__ == "__main__":
    if not shutil.which(NODE):
        print("skipped: there is no node on this machine")
        raise SystemExit(77)
    unittest.main()
