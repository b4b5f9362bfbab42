"""A faas-controller of its own and workers made of a few lines, speaking docs/worker-protocol.md, to drive it.

    with Controller() as controller, Worker(controller) as worker:
        controller.deploy('hello')
        controller.invoke('hello', {'a': 1})['result'] == {'a': 1}
"""
import base64
import contextlib
import datetime
import http.client
import json
import os
import shutil
import signal
import struct
import subprocess
import tempfile
import threading
import time
import urllib.parse
import uuid

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
BUILD = os.path.abspath(os.environ.get("FAAS_BUILD_DIR", os.path.join(ROOT, "build")))
BIN = os.environ.get("FAAS_BIN", os.path.join(BUILD, "bin"))
WAIT_S = 60  # a bound on hanging, not an expectation
MESSAGES = "application/vnd.faas.messages"
CODE = base64.b64encode(b"print(1)\n").decode()


def message(head, body=b""):
    head = head if isinstance(head, bytes) else json.dumps(head).encode()
    return struct.pack("<IQ", len(head), len(body)) + head + body


def messages(batch):
    at = 0
    while at < len(batch):
        head_len, body_len = struct.unpack_from("<IQ", batch, at)
        at += 12
        head = json.loads(batch[at : at + head_len])
        at += head_len
        yield head, batch[at : at + body_len]
        at += body_len


def wait_until(condition, what, seconds=WAIT_S):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError(f"in {seconds} s never: {what}")


def seconds_since(rfc3339):
    then = datetime.datetime.fromisoformat(rfc3339.replace("Z", "+00:00"))
    return (datetime.datetime.now(datetime.timezone.utc) - then).total_seconds()


def read(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


class Answer:
    def __init__(self, response):
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"{self.status} {self.body[:500]!r}"


class Controller:
    def __init__(self, **settings):
        self.folder = tempfile.mkdtemp(prefix="faas-controller-test-")
        self.data_dir = os.path.join(self.folder, "data")
        self.settings = {key: str(value) for key, value in settings.items()}
        self.process = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        if self.process and self.process.poll() is None:
            self.stop()
        shutil.rmtree(self.folder)

    def start(self, **settings):
        self.settings |= {key: str(value) for key, value in settings.items()}
        self.log = open(os.path.join(self.folder, "log"), "ab")
        environment = {"PATH": os.environ["PATH"], "CONTROLLER_LISTEN": "127.0.0.1:0", "CONTROLLER_DATA_DIR": self.data_dir,
                       "LOG_LEVEL": "debug"} | self.settings  # fmt: skip
        for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS"):
            if name in os.environ:
                environment[name] = os.environ[name]
        self.process = subprocess.Popen([os.path.join(BIN, "faas-controller")], env=environment, stdin=subprocess.DEVNULL,
                                        stdout=self.log, stderr=self.log)  # fmt: skip
        url_file = os.path.join(self.data_dir, "controller.url")
        wait_until(lambda: self.process.poll() is not None or self.pid_of_url_file(url_file), "the controller listens")
        if self.process.poll() is not None:
            self.log.close()
            raise AssertionError(f"the controller ended with {self.process.returncode}: {self.log_text()[-2000:]}")
        self.url, self.token = read(url_file).strip(), read(os.path.join(self.data_dir, "token")).strip()
        self.worker_token = self.settings.get("WORKER_TOKEN") or read(os.path.join(self.data_dir, "worker-token")).strip()

    def pid_of_url_file(self, path):
        """True when the file is this process's: an earlier one that was killed leaves its own."""
        with contextlib.suppress(OSError):
            started = os.stat(f"/proc/{self.process.pid}").st_ctime
            return os.stat(path).st_mtime >= started - 0.02 and read(path).endswith("\n")
        return False

    def log_text(self):
        return read(os.path.join(self.folder, "log"))

    def stop(self, signal_number=signal.SIGTERM):
        self.process.send_signal(signal_number)
        return self.wait()

    def kill(self):
        self.process.kill()
        self.wait()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self.data_dir, "controller.url"))

    def wait(self):
        status = self.process.wait(WAIT_S)
        self.log.close()
        text = self.log_text()
        assert "Sanitizer" not in text and "runtime error:" not in text, text[-6000:]
        return status

    def connect(self, timeout=WAIT_S):
        address = urllib.parse.urlsplit(self.url)
        return http.client.HTTPConnection(address.hostname, address.port, timeout=timeout)

    def request(self, method, path, body=None, token="", headers=None):
        with contextlib.closing(self.connect()) as connection:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # refused before it was all sent
                connection.request(method, path, *self.prepare(body, token, headers))
            return Answer(connection.getresponse())

    def prepare(self, body, token, headers):
        headers = dict(headers or {})
        token = self.token if token == "" else token
        if token is not None:
            headers["Authorization"] = "Bearer " + token
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body)
        return body, headers

    def deploy(self, name, **fields):
        answer = self.request("PUT", "/v1/functions/" + name, {"runtime": "python", "code": CODE} | fields)
        assert answer.status in (200, 201), answer
        return answer.json()

    def invoke(self, name, payload=None, **options):
        answer = self.request("POST", f"/v1/functions/{name}/invocations", payload, **options)
        assert answer.status == 200, answer
        return answer.json()

    def invoke_async(self, name, payload=None):
        answer = self.request("POST", f"/v1/functions/{name}/invocations?mode=async", payload)
        assert answer.status == 202, answer
        return answer.json()["id"]

    def execution(self, execution_id):
        return self.request("GET", "/v1/executions/" + execution_id).json()

    def wait_execution(self, execution_id, *statuses):
        statuses = statuses or ("succeeded", "failed", "timed_out", "out_of_memory", "lost", "cancelled")
        return wait_until(lambda: (e := self.execution(execution_id)).get("status") in statuses and e, f"execution is {statuses}")


class Worker:
    """Polls in one thread, runs each invocation in a thread of its own by `run(assignment, payload)`, which returns the members
    of the result's head and the result and log, or None for no answer at all. The default echoes the payload."""

    def __init__(self, controller, name="w1", slots=4, run=None, build=None, instances=None):
        self.controller, self.name, self.concurrency = controller, name, slots
        self.session = uuid.uuid4().hex
        self.run = run or (lambda head, payload: ({"status": "succeeded"}, payload, b""))
        self.build = build
        self.instances = instances or []
        self.kept = {}  # (function, version) -> count
        self.memory_mb = 1000
        self.lock = threading.Lock()
        self.running = {}
        self.seen = []  # every assignment's head
        self.draining = self.over = False
        self.polls = 0
        self.superseded = threading.Event()
        self.thread = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def start(self):
        self.over = False
        self.thread = threading.Thread(target=self.poll_forever, daemon=True)
        self.thread.start()
        wait_until(lambda: self.polls > 0, "the worker has polled")

    def stop(self):
        """Falls silent at once, like a process that was killed."""
        self.over = True
        self.thread.join(WAIT_S)

    def poll_body(self, wait_ms=200):
        with self.lock:
            running = list(self.running)
        return {"worker": self.name, "session": self.session, "runtime": "simple", "concurrency": self.concurrency,
                "memory_mb": self.memory_mb, "cpus": 2, "arch": "x86_64", "version": "0", "images": [], "draining": self.draining,
                "slots": max(0, self.concurrency - len(running)), "wait_ms": wait_ms, "running": running,
                "instances": self.instances,
                "kept": [{"function": f, "version": v, "count": n} for (f, v), n in self.kept.items() if n]}  # fmt: skip

    def call(self, method, path, body=None, connection=None):
        if not connection:
            with contextlib.closing(self.controller.connect()) as own:
                return self.call(method, path, body, own)
        connection.request(method, path, *self.controller.prepare(body, self.controller.worker_token, None))
        return Answer(connection.getresponse())

    def poll_forever(self):
        while not self.over:
            with contextlib.suppress(OSError, http.client.HTTPException):
                with contextlib.closing(self.controller.connect()) as connection:
                    self.poll_on(connection)
            time.sleep(0.02)

    def poll_on(self, connection):
        while not self.over:
            answer = self.call("POST", "/v1/worker/poll", self.poll_body(), connection)
            self.polls += 1
            if answer.status == 409:
                self.superseded.set()
                self.over = True
            elif answer.status == 200 and not self.over:
                self.take(answer.body)

    def take(self, batch):
        for head, body in messages(batch):
            self.seen.append(head)
            if head["kind"] == "invoke":
                with self.lock:
                    self.running[head["execution_id"]] = head
                threading.Thread(target=self.run_one, args=(head, body), daemon=True).start()
            elif head["kind"] == "keep":
                self.kept[head["function"], head["version"]] = head["count"]
            elif head["kind"] == "build" and self.build:
                threading.Thread(target=self.build_one, args=(head,), daemon=True).start()

    def run_one(self, head, payload):
        outcome = self.run(head, payload)
        if outcome is not None and not self.over:
            with contextlib.suppress(OSError, http.client.HTTPException):  # of a controller that was killed
                self.send_result(head, *outcome)

    def send_result(self, head, members, result=b"", log=b""):
        members = {"kind": "result", "execution_id": head["execution_id"], "attempt": head["attempt"], "cold_start": False,
                   "result_base64": False, "result_len": len(result), "logs_len": len(log),
                   "metrics": {"duration": 1500000, "memory_peak": 1000, "network_in": 0, "network_out": 0, "cpu_time": 1000,
                               "start_time": 0}} | members  # fmt: skip
        with self.lock:
            self.running.pop(head["execution_id"], None)
        self.post(message(members, result + log))

    def send_log(self, head, offset, text):
        self.post(message({"kind": "log", "execution_id": head["execution_id"], "attempt": head["attempt"], "offset": offset}, text))

    def post(self, batch):
        answer = self.call("POST", "/v1/worker/results", batch)
        if answer.status == 200:
            self.take(answer.body)
        return answer

    def build_one(self, head):
        ok, output, artifact = self.build(head)
        self.post(message({"kind": "build_result", "build_id": head["build_id"], "ok": ok, "output_len": len(output)}, output + artifact))

    def wait_seen(self, kind, count=1, **members):
        def found():
            matching = [h for h in self.seen if h["kind"] == kind and all(h.get(k) == v for k, v in members.items())]
            return matching if len(matching) >= count else None

        return wait_until(found, f"{count} of {kind} {members} (seen: {self.seen[-5:]})")
