"""What a worker does with what a controller gives it, in real containers and with runtime simple; needs root and the images."""
import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import unittest
import uuid

from processes import runs
from worker import BIN, IMAGE_DIR, WAIT_S, FakeController, Worker, have_images, message


def archive(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for path, content in files.items():
            data = content.encode()
            entry = tarfile.TarInfo(path)
            entry.size = len(data)
            entry.mode = 0o755 if path.endswith("bootstrap") else 0o644
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def fresh_poll(controller):
    """What the worker says now: an answer of no importance makes it poll again."""
    before = len(controller.states)
    controller.assign({"kind": "cancel", "execution_id": "nobody-has-it"})
    controller.wait_for(lambda: len(controller.states) > before)
    return controller.states[-1]


def wait_states(controller, name, *states):
    """Waits until the function's instances are in these states; returns their ids."""
    deadline = time.monotonic() + WAIT_S
    while True:
        found = [i for i in fresh_poll(controller)["instances"] if i.get("function") == name]
        if sorted(i["state"] for i in found) == sorted(states):
            return [i["id"] for i in found]
        if time.monotonic() > deadline:
            raise AssertionError(f"{name} should have instances {states}, and has {found}")
        time.sleep(0.02)


def wait_for(ready):
    deadline = time.monotonic() + WAIT_S
    while not ready():
        if time.monotonic() > deadline:
            raise AssertionError("it never was so")
        time.sleep(0.05)


def wait_log(worker, text, seconds=WAIT_S):
    deadline = time.monotonic() + seconds
    while text not in worker.log():
        if time.monotonic() > deadline:
            raise AssertionError(f"the worker never said {text!r}")
        time.sleep(0.02)


class WorkerTest(unittest.TestCase):
    settings = {}

    @classmethod
    def setUpClass(cls):
        cls.controller = FakeController()
        cls.worker = Worker(cls.controller, **cls.settings).start()

    @classmethod
    def tearDownClass(cls):
        cls.worker.__exit__(None, None, None)
        cls.controller.__exit__()

    def setUp(self):
        self.name = "f-" + self.id().rsplit(".", 1)[1].lower().replace("_", "-")[:50].strip("-")

    def deploy(self, code, **members):
        self.controller.deploy(self.name, code, **members)

    def run_function(self, payload=b"{}", **members):
        return self.controller.run(self.name, payload, **members)

    def run_code(self, code, payload=b"{}", **members):
        self.deploy(code, **members)
        return self.run_function(payload)

    def assertFailed(self, result, kind, status="failed"):
        self.assertEqual((result.status, result.error.get("type")), (status, kind), result)

    def instances(self):
        return [i for i in self.controller.states[-1]["instances"] if i.get("function") == self.name]


class ContractCases:
    """The contract's promises that both runtimes keep."""

    def test_python_process_prints_json(self):
        result = self.run_code("import os, json\nprint('to the log')\n"
                               "print(json.dumps({'got': json.loads(os.environ['FUNCTION_PAYLOAD'])}))", b'{"a": 1}')  # fmt: skip
        self.assertEqual((result.status, result.value), ("succeeded", {"got": {"a": 1}}), result)
        self.assertIn("to the log", result.logs)
        self.assertTrue(result.cold_start)

    def test_second_invocation_is_warm(self):
        self.run_code("print(1)")
        result = self.run_function()
        self.assertFalse(result.cold_start)
        self.assertEqual(result.metrics["start_time"], 0)

    def test_text_and_bytes(self):
        self.assertEqual(self.run_code("print('plain text')").value, "plain text\n")
        self.deploy("import sys\nsys.stdout.buffer.write(b'\\xff\\x00\\xfe')", version=2)
        result = self.run_function(version=2)
        self.assertTrue(result.head["result_base64"])
        self.assertEqual(result.value, b"\xff\x00\xfe")

    def test_exit_status_and_stderr(self):
        result = self.run_code("import sys\nprint('why', file=sys.stderr)\nsys.exit(3)")
        self.assertFailed(result, "Function.ExitStatus")
        self.assertEqual(result.error["exit_code"], 3)
        self.assertIn("why", result.logs)

    def test_signal(self):
        result = self.run_code("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)")
        self.assertFailed(result, "Function.Signal")
        self.assertEqual(result.error["signal"], "SIGSEGV")

    def test_timeout_ends_the_whole_instance(self):
        self.deploy("import time, sys\nprint('began', file=sys.stderr, flush=True)\ntime.sleep(60)", timeout_ms=1000)
        result = self.run_function()
        self.assertFailed(result, "Function.TimedOut", "timed_out")
        self.assertIn("began", result.logs)
        self.assertGreaterEqual(result.metrics["duration"], 1_000_000_000)
        self.controller.deploy(self.name, "print('fine')", version=2)
        self.assertEqual(self.run_function(version=2).value, "fine\n")

    def test_large_payload_and_result(self):
        payload = json.dumps("x" * (6 * 1024 * 1024 - 2)).encode()
        result = self.run_code("import sys\nsys.stdout.write(sys.stdin.read())", payload)
        self.assertEqual(result.status, "succeeded", result)
        self.assertEqual(result.text, payload)

    def test_endless_output_is_ended(self):
        self.assertFailed(self.run_code("while True: print('x' * 100000)"), "Function.ResultTooLarge")

    def test_endless_log_keeps_its_tail(self):
        result = self.run_code("import sys\nfor i in range(60000): print('line', i, file=sys.stderr)\nprint(1)")
        self.assertEqual(result.value, 1)
        self.assertIn("line 59999", result.logs)
        self.assertNotIn("line 10\n", result.logs)
        self.assertIn("were cut", result.logs[:200])
        self.assertLess(len(result.logs), 257 * 1024)

    def test_python_handler(self):
        self.deploy("calls = 0\ndef handler(event, context):\n    global calls\n    calls += 1\n    print('called')\n"
                    "    return {'calls': calls, 'event': event, 'id': context.execution_id}",
                    contract="handler", handler="main.handler")  # fmt: skip
        first, second = self.run_function(b'{"n": 1}'), self.run_function(b'{"n": 2}')
        self.assertEqual(first.value["calls"], 1, first)
        self.assertEqual((second.value["calls"], second.value["event"]), (2, {"n": 2}))
        self.assertEqual(second.value["id"], second.head["execution_id"])
        self.assertEqual(second.logs, "called\n")

    def test_handler_exception(self):
        result = self.run_code("def handler(event, context):\n    return 1 / 0", contract="handler", handler="main.handler")
        self.assertFailed(result, "ZeroDivisionError")
        self.assertIn("division by zero", result.error["message"])
        self.assertTrue(result.error["stack"])
        self.assertEqual(self.run_function().cold_start, False)

    def test_handler_that_cannot_be_loaded(self):
        result = self.run_code("print('loading')\nimport nonsense_module", contract="handler", handler="main.handler")
        self.assertEqual(result.status, "failed", result)
        self.assertIn("nonsense_module", result.error["message"])
        self.assertIn("loading", result.logs)

    def test_handler_that_ends_its_process(self):
        result = self.run_code("import os\ndef handler(event, context):\n    os._exit(7)", contract="handler", handler="main.handler")
        self.assertFailed(result, "Function.ExitStatus")
        self.assertEqual(result.error["exit_code"], 7)

    def test_handler_result_over_the_limit(self):
        result = self.run_code("def handler(event, context):\n    return 'x' * (7 * 1024 * 1024)", contract="handler", handler="main.handler")
        self.assertFailed(result, "Function.ResultTooLarge")

    def test_nodejs(self):
        result = self.run_code("console.log(JSON.stringify({node: JSON.parse(process.env.FUNCTION_PAYLOAD)}))", b'{"a": 1}', runtime="nodejs")
        self.assertEqual(result.value, {"node": {"a": 1}}, result)

    def test_nodejs_module_file(self):
        result = self.run_code("import os from 'node:os';\nconsole.log(typeof os.cpus)", runtime="nodejs")
        self.assertEqual(result.value, "function\n", result)

    def test_nodejs_handler(self):
        result = self.run_code("exports.handler = async (event, context) => ({got: event})", b"[1]", runtime="nodejs",
                               contract="handler", handler="index.handler")  # fmt: skip
        self.assertEqual(result.value, {"got": [1]}, result)

    def test_native_executable_from_an_archive(self):
        code = archive({"bootstrap": "#!/bin/sh\ncat data/file; echo \"$FUNCTION_NAME\" >&2", "data/file": '{"from": "archive"}'})
        result = self.run_code(code, runtime="native")
        self.assertEqual(result.value, {"from": "archive"}, result)
        self.assertEqual(result.logs.strip(), self.name)

    def test_live_log(self):
        self.deploy("import time, sys\nprint('early', file=sys.stderr, flush=True)\ntime.sleep(1)\nprint(1)")
        execution = self.controller.invoke(self.name)
        self.controller.wait_for(lambda: any(head["execution_id"] == execution and b"early" in body
                                             for head, body in self.controller.logs))  # fmt: skip
        self.assertIn("early", self.controller.result(execution).logs)

    def test_entry_file_missing(self):
        result = self.run_code(archive({"other.py": "print(1)"}))
        self.assertFailed(result, "Function.NotStarted")
        self.assertIn("main.py", result.error["message"])
        self.assertIn("other.py", result.error["message"])

    def test_archive_that_leads_out_is_refused(self):
        result = self.run_code(archive({"../evil": "x", "main.py": "print(1)"}))
        self.assertFailed(result, "Function.NotStarted")

    def test_code_that_is_not_what_was_promised(self):
        definition = self.controller.deploy(self.name, "print(1)")
        self.controller.code[definition["artifact_sha256"]] = b"print('forged')"
        result = self.run_function()
        self.assertFailed(result, "Platform.CodeUnavailable", "lost")

    def test_unknown_version(self):
        self.assertFailed(self.controller.run(self.name, version=99), "Platform.CodeUnavailable", "lost")

    def test_code_is_fetched_once(self):
        self.deploy("import time\ntime.sleep(0.2)\nprint('x')  # only here")
        before = self.controller.code_requests
        for result in [self.controller.result(e) for e in [self.controller.invoke(self.name) for _ in range(4)]]:
            self.assertEqual(result.status, "succeeded", result)
        self.assertEqual(self.controller.code_requests, before + 1)

    def test_cancel(self):
        self.deploy("import time\ntime.sleep(60)")
        execution = self.controller.invoke(self.name)
        self.controller.wait_for(lambda: any(execution in state["running"] for state in self.controller.states[-4:]))
        self.controller.assign({"kind": "cancel", "execution_id": execution})
        self.assertEqual(self.controller.result(execution).status, "cancelled")

    def test_forget_removes_idle_instances(self):
        self.run_code("print(1)")
        before = len(self.controller.states)
        self.controller.assign({"kind": "forget", "function": self.name, "version": 1})
        self.controller.wait_for(lambda: len(self.controller.states) > before and not self.instances())
        self.assertTrue(self.run_function().cold_start)


@unittest.skipUnless(have_images(), "the runtime images have not been built")
class Container(ContractCases, WorkerTest):
    settings = {"concurrency": 64}

    def test_out_of_memory_is_told_from_a_crash(self):
        self.deploy("x = []\nwhile True: x.append(bytearray(1 << 20))", memory_mb=64)
        self.assertFailed(self.run_function(), "Function.OutOfMemory", "out_of_memory")
        self.assertFailed(self.run_function(), "Function.OutOfMemory", "out_of_memory")

    def test_handler_out_of_memory(self):
        result = self.run_code("def handler(event, context):\n    x = []\n    while True: x.append(bytearray(1 << 20))",
                               contract="handler", handler="main.handler", memory_mb=64)  # fmt: skip
        self.assertFailed(result, "Function.OutOfMemory", "out_of_memory")

    def test_metrics(self):
        result = self.run_code("import time\nt = time.process_time()\nwhile time.process_time() < t + 0.2: pass\nx = bytearray(50 << 20)")
        self.assertGreater(result.metrics["cpu_time"], 190_000_000)
        self.assertGreater(result.metrics["duration"], 190_000_000)
        self.assertGreater(result.metrics["memory_peak"], 50 << 20)
        self.assertGreater(result.metrics["start_time"], 1_000_000)
        self.deploy("print(1)", version=2)
        self.assertLess(self.run_function(version=2).metrics["memory_peak"], 50 << 20)

    def test_isolation(self):
        result = self.run_code(
            "import os, json\n"
            "def can(f):\n"
            "    try: f(); return True\n"
            "    except OSError: return False\n"
            "print(json.dumps({'uid': os.getuid(), 'caps': [l.split()[1] for l in open('/proc/self/status') if l.startswith('Cap')],\n"
            "  'root': can(lambda: open('/x', 'w')), 'code': can(lambda: open('/app/function/x', 'w')),\n"
            "  'tmp': can(lambda: open('/tmp/x', 'w')), 'nets': sorted(os.listdir('/proc/sys/net/ipv4/conf')),\n"
            "  'stderr': can(lambda: open('/dev/stderr', 'w')), 'init': can(lambda: os.listdir('/proc/1/fd')), 'cwd': os.getcwd(),\n"
            "  'environment': {k: v for k, v in os.environ.items() if k.startswith('FUNCTION_')}}))")  # fmt: skip
        value = result.value
        self.assertEqual(value["uid"], 1000)
        self.assertEqual(set(value["caps"]), {"0000000000000000"})
        self.assertEqual((value["root"], value["code"], value["tmp"], value["stderr"], value["init"]), (False, False, True, True, False), value)
        self.assertEqual(value["nets"], ["all", "default", "lo"])
        self.assertEqual(value["cwd"], "/app/function")
        self.assertEqual(value["environment"]["FUNCTION_NAME"], self.name)
        self.assertEqual(value["environment"]["FUNCTION_MEMORY_MB"], "128")

    def test_pids_limit_harms_only_itself(self):
        result = self.run_code("import os, time\nn = 0\ntry:\n    while n < 1000:\n        if os.fork() == 0: time.sleep(30); os._exit(0)\n"
                               "        n += 1\nexcept OSError: pass\nprint(n)", pids=20)  # fmt: skip
        self.assertEqual(result.status, "succeeded", result)
        self.assertLessEqual(result.value, 20)
        self.assertEqual(self.run_function().value, result.value)

    def test_bridge_counts_bytes(self):
        result = self.run_code("import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
                               "s.sendto(b'x' * 1000, ('10.88.64.77', 9))\nprint(1)", network="bridge")  # fmt: skip
        self.assertEqual(result.status, "succeeded", result)

    def test_missing_image(self):
        result = self.run_code("print(1)", image="no-such-image:latest")
        self.assertFailed(result, "Platform.NotFound", "lost")
        self.assertIn("no-such-image", result.error["message"])

    def test_sixty_four_at_once(self):
        self.deploy("import json, sys\nprint(json.dumps({'n': json.loads(sys.stdin.read())}))", memory_mb=64)
        executions = [(n, self.controller.invoke(self.name, str(n).encode())) for n in range(64)]
        for n, execution in executions:
            result = self.controller.result(execution)
            self.assertEqual((result.status, result.text), ("succeeded", json.dumps({"n": n}).encode()), result)

    def test_go_is_compiled(self):
        self.controller.deploy(self.name, 'package main\nimport ("fmt"; "os")\nfunc main() { fmt.Printf("{\\"go\\": %s}\\n", os.Getenv("FUNCTION_PAYLOAD")) }', runtime="go")
        ok, output, artifact = self.controller.build(self.name)
        self.assertTrue(ok, output)
        self.controller.deploy(self.name, artifact, version=2, runtime="go")
        self.assertEqual(self.run_function(b"[7]", version=2).value, {"go": [7]})

    def test_go_compiler_errors_reach_the_user(self):
        self.controller.deploy(self.name, "package main\nfunc main() { undefined_thing() }", runtime="go")
        ok, output, artifact = self.controller.build(self.name)
        self.assertFalse(ok)
        self.assertIn("undefined: undefined_thing", output)
        self.assertEqual(artifact, b"")

    def test_go_vendored_module(self):
        code = archive({
            "go.mod": "module example.com/f\n\ngo 1.22\n\nrequire example.com/dep v1.0.0\n",
            "main.go": 'package main\n\nimport (\n\t"fmt"\n\n\t"example.com/dep"\n)\n\nfunc main() { fmt.Println(dep.Answer()) }\n',
            "vendor/modules.txt": "# example.com/dep v1.0.0\n## explicit\nexample.com/dep\n",
            "vendor/example.com/dep/dep.go": "package dep\n\nfunc Answer() int { return 42 }\n",
        })
        self.controller.deploy(self.name, code, runtime="go")
        ok, output, artifact = self.controller.build(self.name)
        self.assertTrue(ok, output)
        self.controller.deploy(self.name, artifact, version=2, runtime="go")
        self.assertEqual(self.run_function(version=2).value, 42)


@unittest.skipUnless(have_images(), "the runtime images have not been built")
class WithoutPool(ContractCases, WorkerTest):
    """Each container is started for its function."""

    settings = {"concurrency": 64, "pool_size": 0}


@unittest.skipUnless(have_images(), "the runtime images have not been built")
class Frozen(ContractCases, WorkerTest):
    """The same contract when every instance is frozen as soon as it is idle."""

    settings = {"concurrency": 64, "freeze_after_ms": 0}

    def test_what_goes_on_between_calls_stands_still(self):
        """A thread that ticks each millisecond tells its longest pause."""
        self.deploy("import threading, time\nticks, pause = 0, 0\ndef tick():\n    global ticks, pause\n    last = time.monotonic()\n"
                    "    while True:\n        time.sleep(0.001)\n        now = time.monotonic()\n        ticks, pause, last = ticks + 1, max(pause, now - last), now\n"
                    "threading.Thread(target=tick, daemon=True).start()\ndef handler(event, context):\n    before = ticks\n"
                    "    while ticks < before + 2: time.sleep(0.01)\n    return pause",
                    contract="handler", handler="main.handler")  # fmt: skip
        self.assertGreater(self.run_function().value, 0, "it runs while there is a call")
        wait_states(self.controller, self.name, "frozen")
        time.sleep(0.5)
        second = self.run_function()
        self.assertGreaterEqual(second.value, 0.5, "half a second is missing")
        self.assertFalse(second.cold_start)
        self.assertEqual(second.metrics["start_time"], 0)

    def test_limits_hold_for_an_instance_that_was_frozen(self):
        self.deploy("import time\ndef handler(event, context):\n    x = bytearray(event['mb'] << 20)\n    time.sleep(event['s'])\n    return 'done'",
                    contract="handler", handler="main.handler", memory_mb=64, timeout_ms=2000)  # fmt: skip
        first = self.run_function(b'{"mb": 30, "s": 0}')
        self.assertEqual(first.value, "done")
        self.assertGreater(first.metrics["memory_peak"], 30 << 20)
        time.sleep(2.1)  # longer than the time limit: frozen time is nobody's
        second = self.run_function(b'{"mb": 1, "s": 0}')
        self.assertEqual(second.value, "done")
        self.assertFalse(second.cold_start)
        self.assertLess(second.metrics["memory_peak"], 30 << 20)
        self.assertFailed(self.run_function(b'{"mb": 1, "s": 60}'), "Function.TimedOut", "timed_out")
        self.assertEqual(self.run_function(b'{"mb": 1, "s": 0}').value, "done")
        self.assertFailed(self.run_function(b'{"mb": 200, "s": 0}'), "Function.OutOfMemory", "out_of_memory")


class Simple(ContractCases, WorkerTest):
    settings = {"runtime_type": "simple", "concurrency": 8}

    def setUp(self):
        if "nodejs" in self._testMethodName and not shutil.which("node"):
            self.skipTest("no Node.js on this host")
        super().setUp()

    def test_it_says_so_loudly(self):
        self.assertIn("WITHOUT ANY ISOLATION", self.worker.log())

    def test_processes_that_are_left_running_end(self):
        result = self.run_code("import subprocess, os\np = subprocess.Popen(['setsid', 'sleep', '1000'])\nprint(p.pid)")
        pid = result.value
        self.assertFalse(os.path.exists(f"/proc/{pid}"), pid)

    def test_timeout_ends_the_tree(self):
        with tempfile.NamedTemporaryFile("r") as told:
            self.deploy("import subprocess, time, os\np = subprocess.Popen(['setsid', 'sleep', '1000'])\n"
                        f"open({told.name!r}, 'w').write(str(p.pid))\ntime.sleep(100)", timeout_ms=3000)  # fmt: skip
            self.assertFailed(self.run_function(), "Function.TimedOut", "timed_out")
            self.controller.wait_for(lambda: not self.instances())
            pid = told.read()
        self.assertTrue(pid)
        wait_for(lambda: not runs(pid))


@unittest.skipUnless(have_images(), "the runtime images have not been built")
class Life(unittest.TestCase):
    """Starts, stops, and what breaks in between."""

    def test_keep_alive_zero_is_one_container_for_each(self):
        with FakeController() as controller, Worker(controller, keep_alive_ms=0) as worker:
            controller.deploy("f", "import os\nopen('/tmp/x', 'x')\nprint(1)")
            for _ in range(3):
                result = controller.run("f")
                self.assertEqual((result.status, result.cold_start), ("succeeded", True), result)
            self.assertEqual(worker.stop(), 0)
            self.assertEqual(worker.leftovers(), [])

    def test_keep_alive_ends_idle_instances(self):
        with FakeController() as controller, Worker(controller, keep_alive_ms=200) as worker:
            controller.deploy("f", "print(1)")
            controller.run("f")
            wait_log(worker, "keep-alive is over")
            self.assertTrue(controller.run("f").cold_start)

    def test_frozen_instances_leave_nothing_behind(self):
        for number in (signal.SIGTERM, signal.SIGKILL):
            with FakeController() as controller, Worker(controller, freeze_after_ms=0) as worker:
                controller.deploy("f", "print(1)", network="bridge")
                self.assertEqual(controller.run("f").value, 1)
                wait_states(controller, "f", "frozen")
                if number == signal.SIGKILL:
                    worker.kill()
                    worker.start()
                    self.assertEqual(controller.run("f").value, 1)
                self.assertEqual(worker.stop(), 0)
                self.assertEqual(worker.leftovers(), [])

    def test_kept_instances_are_ready_before_the_first_call_and_after_the_keep_alive(self):
        with FakeController() as controller, Worker(controller, keep_alive_ms=100, freeze_after_ms=-1) as worker:
            controller.deploy("f", "print(1)")
            controller.deploy("other", "print(2)")
            controller.assign({"kind": "keep", "function": "f", "version": 1, "count": 2})
            wait_states(controller, "f", "idle", "idle")
            self.assertEqual(controller.states[-1]["kept"], [{"function": "f", "version": 1, "count": 2}])
            self.assertEqual(controller.run("other").value, 2)
            wait_log(worker, "keep-alive is over")  # of the other
            wait_states(controller, "f", "idle", "idle")
            self.assertFalse(controller.run("f").cold_start)
            controller.assign({"kind": "keep", "function": "f", "version": 1, "count": 0})
            wait_states(controller, "f")
            self.assertEqual(controller.states[-1]["kept"], [])
            controller.assign({"kind": "keep", "function": "nobody-knows-it", "version": 1, "count": 1})
            wait_log(worker, "instances cannot be kept ready")
            self.assertEqual(fresh_poll(controller)["kept"], [])
            self.assertEqual(worker.stop(), 0)
            self.assertEqual(worker.leftovers(), [])

    def test_a_kept_instance_that_is_killed_is_replaced(self):
        with FakeController() as controller, Worker(controller, freeze_after_ms=-1) as worker:
            controller.deploy("f", "print(1)")
            controller.assign({"kind": "keep", "function": "f", "version": 1, "count": 1})
            first = wait_states(controller, "f", "idle")
            subprocess.run(["runc", "--root", f"/run/faas/{worker.name}/runc", "kill", first[0], "KILL"], check=True)
            wait_log(worker, "instance ended")
            self.assertNotEqual(wait_states(controller, "f", "idle"), first)
            self.assertFalse(controller.run("f").cold_start)

    def test_what_was_learnt_of_idle_times_survives_the_worker(self):
        def count(path):
            with open(path, encoding="utf-8") as file:
                return sum(int(item.split(":")[1]) for item in json.load(file)["f"].split())

        with tempfile.TemporaryDirectory(prefix="faas-worker-test-") as data_dir:
            with FakeController() as controller, Worker(controller, data_dir) as worker:
                controller.deploy("f", "print(1)")
                for _ in range(5):
                    controller.run("f")
                self.assertEqual(worker.stop(), 0)
                path = os.path.join(data_dir, "worker", "idle-times.json")
                self.assertEqual(count(path), 4)
                worker.start()
                controller.run("f")
                controller.run("f")
                self.assertEqual(worker.stop(), 0)
                self.assertEqual(count(path), 5)
                with open(path, "w", encoding="utf-8") as file:
                    file.write('{"f": "what is this"}')
                worker.start()
                self.assertIn("they are learnt anew", worker.log())
                self.assertEqual(controller.run("f").value, 1)

    def test_memory_bounds_instances_and_evicts_idle_ones(self):
        with FakeController() as controller, Worker(controller, memory_mb=256) as worker:
            for name in ("a", "b", "c"):
                controller.deploy(name, "import time\ntime.sleep(0.1)\nprint(1)", memory_mb=128)
            executions = [controller.invoke(name) for name in ("a", "b", "c") * 3]
            for execution in executions:
                self.assertEqual(controller.result(execution).status, "succeeded")
            self.assertIn("room is needed", worker.log())
            controller.deploy("big", "print(1)", memory_mb=512)
            result = controller.run("big")
            self.assertEqual((result.status, result.error["type"]), ("lost", "Platform.NoCapacity"), result)

    def test_drain_finishes_what_runs_and_leaves_nothing(self):
        with FakeController() as controller, Worker(controller) as worker:
            controller.deploy("f", "import time\ntime.sleep(1.5)\nprint('done')")
            execution = controller.invoke("f")
            controller.wait_for(lambda: any(execution in state["running"] for state in controller.states[-4:]))
            self.assertEqual(worker.stop(), 0)
            self.assertEqual(controller.results[execution].value, "done\n")
            self.assertEqual(worker.leftovers(), [])

    def test_a_drained_worker_makes_nothing_ready_until_it_is_resumed(self):
        with FakeController() as controller, Worker(controller) as worker:
            def instances(state):
                return [i for i in controller.states[-1]["instances"] if i["state"] == state]

            controller.deploy("f", "print(1)")
            controller.deploy("kept", "print(2)")
            controller.run("f")
            controller.wait_for(lambda: instances("warm") and not instances("creating"))
            controller.tell({"kind": "drain", "drained": True})
            controller.wait_for(lambda: controller.states[-1]["drained"] and not instances("creating"))
            ready = {i["id"] for i in instances("warm")}
            controller.tell({"kind": "keep", "function": "kept", "version": 1, "count": 2})
            for _ in range(4):  # what crossed is run, with what is there and without
                controller.tell({"kind": "forget", "function": "f", "version": 1})
                self.assertEqual(controller.run("f").value, 1)
            controller.wait_for(lambda: controller.states[-1]["kept"] and not instances("creating"))
            self.assertLess({i["id"] for i in instances("warm")}, ready)
            self.assertNotIn("kept", [i.get("function") for i in controller.states[-1]["instances"]])
            self.assertFalse(controller.states[-1]["draining"])
            controller.tell({"kind": "drain", "drained": False})
            controller.wait_for(lambda: sum(i.get("function") == "kept" for i in instances("idle") + instances("frozen")) == 2)
            controller.wait_for(lambda: {i["id"] for i in instances("warm")} - ready)
            self.assertFalse(controller.states[-1]["drained"])
            self.assertEqual(worker.stop(), 0)
            self.assertEqual(worker.leftovers(), [])

    def test_what_crosses_the_word_that_it_stops_is_run(self):
        with FakeController() as controller, Worker(controller) as worker:
            controller.deploy("f", "print('crossed')")
            controller.run("f")
            controller.acknowledges = False
            worker.process.send_signal(signal.SIGTERM)
            controller.wait_for(lambda: controller.states[-1]["draining"])
            controller.tell({"kind": "invoke", "execution_id": "late", "attempt": 1, "function": "f", "version": 1, "timeout_ms": 30000}, b"{}")
            self.assertEqual(controller.result("late").value, "crossed\n")
            self.assertIsNone(worker.process.poll(), "more may be on its way")
            controller.acknowledges = True
            controller.tell({"kind": "ack", "messages": controller.taken})
            self.assertEqual(worker.process.wait(60), 0)
            self.assertEqual(worker.leftovers(), [])

    def test_second_signal_stops_at_once(self):
        with FakeController() as controller, Worker(controller) as worker:
            controller.deploy("f", "import time\ntime.sleep(300)")
            execution = controller.invoke("f", timeout_ms=400000)
            controller.wait_for(lambda: any(execution in state["running"] for state in controller.states[-4:]))
            worker.process.send_signal(signal.SIGTERM)
            controller.wait_for(lambda: controller.states[-1]["draining"])
            self.assertEqual(worker.stop(signal.SIGTERM), 0)
            self.assertEqual(controller.results[execution].status, "lost")
            self.assertEqual(worker.leftovers(), [])

    def test_killed_worker_is_cleaned_up_after(self):
        with FakeController() as controller, tempfile.TemporaryDirectory() as data:
            with Worker(controller, data_dir=data) as worker:
                controller.deploy("f", "import time\nprint(time.sleep(1))")
                controller.run("f")
                controller.deploy("g", "import time\ntime.sleep(300)", network="bridge")
                execution = controller.invoke("g", timeout_ms=400000)
                controller.wait_for(lambda: any(execution in state["running"] for state in controller.states[-4:]))
                worker.kill()
                self.assertNotEqual(worker.leftovers(), [])
                before = controller.code_requests
                worker.start()
                self.assertEqual(controller.run("f").status, "succeeded")
                self.assertEqual(controller.code_requests, before, "the code cache survives")
                self.assertNotIn(execution, controller.states[-1]["running"])
                self.assertEqual(worker.stop(), 0)
                self.assertEqual(worker.leftovers(), [])

    def test_results_wait_for_the_controller(self):
        with FakeController() as controller, Worker(controller):
            controller.deploy("f", "import time\ntime.sleep(1)\nprint('kept')")
            controller.run("f")
            execution = controller.invoke("f")
            controller.wait_for(lambda: any(execution in state["running"] for state in controller.states[-4:]))
            controller.down()
            time.sleep(1.5)  # the result comes about while nobody is there
            controller.up()
            self.assertEqual(controller.result(execution).value, "kept\n")
            self.assertEqual(controller.run("f").status, "succeeded")

    def test_superseded_session_ends(self):
        with FakeController() as controller, Worker(controller) as worker:
            controller.conflict = True
            controller.assign({"kind": "forget", "function": "x", "version": 1})
            self.assertEqual(worker.process.wait(60), 0)
            self.assertIn("another worker with this name", worker.log())

    def test_one_worker_a_name(self):
        with FakeController() as controller, Worker(controller) as worker:
            second = subprocess.run([os.path.join(BIN, "faas-worker")], env=worker.environment, capture_output=True, text=True, timeout=60)
            self.assertNotEqual(second.returncode, 0)
            self.assertIn("WORKER_NAME", second.stderr)

    def test_it_leaks_no_descriptors(self):
        with FakeController() as controller, Worker(controller, keep_alive_ms=0, pool_size=2) as worker:
            controller.deploy("f", "import os\nprint(len(os.listdir('/proc/self/fd')))")
            first = controller.run("f")
            controller.run("f")

            def count():
                return len(os.listdir(f"/proc/{worker.process.pid}/fd"))

            def at_rest():
                """Only generic instances are there, of Python all: two for functions without a network and one for those with."""
                found = fresh_poll(controller)["instances"]
                return all(i["state"] == "warm" for i in found) and sum("python" in i["image"] for i in found) == 3

            def settled():
                wait_for(at_rest)
                since, last = time.monotonic(), count()
                while time.monotonic() - since < 1:
                    time.sleep(0.05)
                    if count() != last:
                        since, last = time.monotonic(), count()
                return last

            before = settled()
            for _ in range(10):
                self.assertEqual(controller.run("f").value, first.value)
            wait_for(lambda: at_rest() and count() <= before + 2)


class Connection(unittest.TestCase):
    """The stream to the controller: cut, silent, broken."""

    def setUp(self):
        self.stack = contextlib.ExitStack()
        self.addCleanup(self.stack.close)
        self.controller = self.stack.enter_context(FakeController())
        self.worker = self.stack.enter_context(Worker(self.controller, runtime_type="simple", concurrency=64))
        self.controller.deploy("f", "import sys\nprint(sys.stdin.read())")

    def wait_streams(self, count):
        states = len(self.controller.states)
        self.controller.wait_for(lambda: self.controller.streams >= count and self.controller.stream and len(self.controller.states) > states)

    def test_a_result_is_said_until_it_is_acknowledged(self):
        self.controller.acknowledges = False
        execution = self.controller.invoke("f", b"1")
        for _ in range(3):
            self.assertEqual(self.controller.result(execution).value, 1)
            with self.controller.lock:
                del self.controller.results[execution]
            self.controller.cut()
        self.controller.acknowledges = True
        self.assertEqual(self.controller.result(execution).value, 1)
        self.assertEqual(self.controller.run("f", b"2").value, 2)
        with self.controller.lock:
            del self.controller.results[execution]
        self.controller.cut()
        self.assertEqual(self.controller.run("f", b"3").value, 3)
        self.assertNotIn(execution, self.controller.results)

    def test_a_cut_while_it_runs(self):
        go = os.path.join(self.worker.data_dir, "go")
        self.controller.deploy("slow", f"import os, time, sys\nwhile not os.path.exists({go!r}): time.sleep(0.01)\nprint(sys.stdin.read())")
        execution = self.controller.invoke("slow", b'"kept"')
        self.controller.wait_for(lambda: any(execution in state["running"] for state in self.controller.states[-2:]))
        self.controller.cut()
        self.wait_streams(2)
        self.assertIn(execution, self.controller.states[-1]["running"])
        open(go, "w").close()
        self.assertEqual(self.controller.result(execution).value, "kept")

    def test_an_assignment_may_be_cut_at_any_byte(self):
        head = {"kind": "invoke", "execution_id": str(uuid.uuid4()), "attempt": 1, "function": "f", "version": 1, "timeout_ms": 30000}
        frame = message(head, b'"%s"' % (b"x" * 100_000))
        for count, cut in enumerate((1, 11, 12, 13, 60, len(frame) - 100_000, len(frame) // 2, len(frame) - 1), 2):
            with self.controller.lock:
                self.controller.stream.wfile.write(frame[:cut])
            self.controller.cut()
            self.wait_streams(count)
            self.assertEqual(self.controller.states[-1]["running"], [])
        with self.controller.lock:
            for byte in frame[:200]:
                self.controller.stream.wfile.write(bytes([byte]))
            self.controller.stream.wfile.write(frame[200:])
        self.assertEqual(len(self.controller.result(head["execution_id"]).value), 100_000)

    def test_a_controller_that_falls_silent_is_left(self):
        self.controller.acknowledges = False
        self.wait_streams(2)
        self.controller.acknowledges = True
        self.assertEqual(self.controller.run("f", b"1").value, 1)

    def test_what_cannot_be_read_ends_the_connection_only(self):
        with self.controller.lock:
            self.controller.stream.wfile.write(b"\xff" * 12)
        self.wait_streams(2)
        for head in (b"{", b"[1]", b'{"kind": 1}', b'{"kind": "x"}', b'{"kind": "ack", "messages": -1}', b'{"kind": "ack", "messages": 99999}'):
            with self.controller.lock:
                self.controller.stream.wfile.write(message(head))
        self.assertEqual(self.controller.run("f", b"1").value, 1)
        self.assertEqual(self.controller.streams, 2)

    def test_a_refusal_is_tried_again(self):
        self.controller.tell({"kind": "refused", "message": "not with that name"})
        self.wait_streams(2)
        self.assertIn("not with that name", self.worker.log())
        self.assertEqual(self.controller.run("f", b"1").value, 1)

    def test_many_in_one_write(self):
        heads = [{"kind": "invoke", "execution_id": str(uuid.uuid4()), "attempt": 1, "function": "f", "version": 1, "timeout_ms": 30000}
                 for _ in range(50)]  # fmt: skip
        with self.controller.lock:
            self.controller.stream.wfile.write(b"".join(message(head, b"%d" % n) for n, head in enumerate(heads)))
        for n, head in enumerate(heads):
            self.assertEqual(self.controller.result(head["execution_id"]).value, n)


@unittest.skipUnless(have_images(), "the runtime images have not been built")
class BrokenRuntime(unittest.TestCase):
    """WORKER_OCI_RUNTIME is a script that fails in its own way."""

    def wrapper(self, script):
        file = tempfile.NamedTemporaryFile("w", suffix=".sh", delete=False)
        file.write("#!/bin/bash\n" + script + '\nexec runc "$@"\n')
        file.close()
        os.chmod(file.name, 0o755)
        self.addCleanup(os.unlink, file.name)
        return file.name

    def refused(self, **settings):
        with FakeController() as controller:
            worker = Worker(controller, **settings)
            process = subprocess.run([os.path.join(BIN, "faas-worker")], env=worker.environment, capture_output=True, text=True, timeout=60)
            shutil.rmtree(worker.data_dir)
            return process

    def test_no_such_program(self):
        process = self.refused(oci_runtime="/no/such/runc")
        self.assertNotEqual(process.returncode, 0)
        self.assertIn("/no/such/runc", process.stderr)
        self.assertIn("WORKER_OCI_RUNTIME", process.stderr)

    def test_contradicting_settings(self):
        process = self.refused(use_container="false", runtime_type="container")
        self.assertNotEqual(process.returncode, 0)
        self.assertIn("contradict", process.stderr)

    def test_run_that_fails_carries_its_words(self):
        script = self.wrapper('b=; v=; for a in "$@"; do [ "$p" = --bundle ] && b=$a; [ "$a" = run ] && v=run; p=$a; done\n'
                              'if [ "$v" = run ] && [ -e "$0.fail" ]; then rm "$b/config.json"; fi')  # fmt: skip
        with FakeController() as controller, Worker(controller, oci_runtime=script, pool_size=0) as worker:
            open(script + ".fail", "w").close()
            controller.deploy("f", "print(1)")
            result = controller.run("f")
            self.assertEqual(result.status, "lost", result)
            self.assertTrue(result.error["type"].startswith("Platform."), result)
            self.assertIn("config.json", result.error["message"])
            os.unlink(script + ".fail")
            self.assertEqual(controller.run("f").status, "succeeded")
            self.assertEqual(worker.stop(), 0)
            self.assertEqual(worker.leftovers(), [])

    def test_run_that_hangs_is_given_up(self):
        script = self.wrapper('for a in "$@"; do if [ "$a" = run ] && [ -e "$0.hang" ]; then exec sleep 1000; fi; done')
        with FakeController() as controller, Worker(controller, oci_runtime=script, start_timeout_ms=5000, pool_size=0) as worker:
            controller.deploy("fine", "print(1)")
            self.assertEqual(controller.run("fine").status, "succeeded")
            open(script + ".hang", "w").close()
            controller.deploy("f", "print(1)")
            execution = controller.invoke("f")
            self.assertEqual(controller.run("fine").status, "succeeded", "others go on")
            result = controller.result(execution)
            self.assertEqual((result.status, result.error["type"]), ("lost", "Platform.StartTimedOut"), result)
            os.unlink(script + ".hang")
            self.assertEqual(controller.run("f").status, "succeeded")
            self.assertEqual(worker.stop(), 0)
            self.assertEqual(worker.leftovers(), [])

    def test_delete_that_fails_is_tried_again(self):
        script = self.wrapper('for a in "$@"; do if [ "$a" = delete ] && [ -e "$0.fail" ]; then echo "not today" >&2; exit 1; fi; done')
        with FakeController() as controller, Worker(controller, oci_runtime=script, keep_alive_ms=0) as worker:
            controller.deploy("f", "print(1)")
            open(script + ".fail", "w").close()
            self.assertEqual(controller.run("f").status, "succeeded")
            wait_log(worker, "trying again")
            self.assertIn("not today", worker.log())
            os.unlink(script + ".fail")
            self.assertEqual(controller.run("f").status, "succeeded")
            self.assertEqual(worker.stop(), 0)
            self.assertEqual(worker.leftovers(), [])


if __name__ == "__main__":
    if os.geteuid() != 0:
        print("needs root")
        sys.exit(77)
    unittest.main(verbosity=2)
