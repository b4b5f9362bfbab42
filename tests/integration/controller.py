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
import socket
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
CODE = base64.b64encode(b"print(1)\n").decode()


def message(head, body=b""):
    head = head if isinstance(head, bytes) else json.dumps(head).encode()
    return struct.pack("<IQ", len(head), len(body)) + head + body


def read_exactly(connection, size):
    parts = []
    while size > 0:
        part = connection.recv(min(size, 1 << 20))
        if not part:
            raise ConnectionError("the stream has ended")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def read_message(connection):
    head_len, body_len = struct.unpack("<IQ", read_exactly(connection, 12))
    return json.loads(read_exactly(connection, head_len)), read_exactly(connection, body_len)


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
        try:
            self.start()
        except BaseException:
            shutil.rmtree(self.folder)  # one that refuses to start leaves nothing either
            raise
        return self

    def __exit__(self, *_):
        if self.process and self.process.poll() is None:
            self.stop()
        shutil.rmtree(self.folder)

    def use_token(self, token):
        """Before the start: the one that another controller on its database accepts."""
        os.makedirs(self.data_dir, exist_ok=True)
        with open(os.path.join(self.data_dir, "token"), "w", encoding="utf-8", opener=lambda p, f: os.open(p, f, 0o600)) as file:
            file.write(token + "\n")

    def start(self, **settings):
        self.settings |= {key: str(value) for key, value in settings.items()}
        self.log = open(os.path.join(self.folder, "log"), "ab")
        environment = {"PATH": os.environ["PATH"], "CONTROLLER_LISTEN": "127.0.0.1:0", "CONTROLLER_DATA_DIR": self.data_dir,
                       "LOG_LEVEL": "debug"} | self.settings  # fmt: skip
        for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS"):
            if name in os.environ:
                environment[name] = os.environ[name]
        url_file = os.path.join(self.data_dir, "controller.url")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(url_file)  # of an earlier one that was killed
        self.spawn(environment)
        wait_until(lambda: self.process.poll() is not None or self.is_whole(url_file), "the controller listens")
        if self.process.poll() is not None:
            self.log.close()
            raise AssertionError(f"the controller ended with {self.process.returncode}: {self.log_text()[-2000:]}")
        self.url, self.token = read(url_file).strip(), read(os.path.join(self.data_dir, "token")).strip()
        self.worker_token = self.settings.get("WORKER_TOKEN") or read(os.path.join(self.data_dir, "worker-token")).strip()

    def spawn(self, environment):
        self.process = subprocess.Popen([os.path.join(BIN, "faas-controller")], env=environment, stdin=subprocess.DEVNULL,
                                        stdout=self.log, stderr=self.log)  # fmt: skip

    @staticmethod
    def is_whole(path):
        with contextlib.suppress(FileNotFoundError):
            return read(path).endswith("\n")
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
    """Keeps a stream in one thread and says its state ten times a second in another, runs each invocation in a thread of its own by
    `run(assignment, payload)`, which returns the members of the result's head and the result and log, or None for no answer at
    all. The default echoes the payload."""

    def __init__(self, controller, name="w1", slots=4, run=None, build=None, instances=None, labels=None, wait=True):
        self.controller, self.name, self.concurrency = controller, name, slots
        self.session = uuid.uuid4().hex
        self.run = run or (lambda head, payload: ({"status": "succeeded"}, payload, b""))
        self.build = build
        self.instances = instances or []
        self.kept = {}  # (function, version) -> count
        self.memory_mb = 1000
        self.labels = ["arch=x86_64", "os=linux", "name=" + name] + (labels or [])
        self.lock = threading.RLock()  # of what is sent: a state never overtakes a result
        self.running = {}
        self.seen = []  # every assignment's head
        self.draining = self.over = False
        self.silent = False  # says no state
        self.wait = wait  # for its first state to be taken
        self.drained = False
        self.stream = None
        self.connections = 0
        self.sent = self.acknowledged = 0  # messages on this connection
        self.states = 0  # that were taken
        self.superseded, self.refused = threading.Event(), None
        self.threads = []

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def start(self):
        self.over = False
        states = self.states
        self.threads = [threading.Thread(target=target, daemon=True) for target in (self.keep_connected, self.say_states)]
        for thread in self.threads:
            thread.start()
        if self.wait:
            wait_until(lambda: self.states > states, "the worker's state is taken")

    def stop(self):
        """Falls silent at once, like a process that was killed."""
        self.over = True
        self.cut()
        for thread in self.threads:
            thread.join(WAIT_S)

    def cut(self):
        with contextlib.suppress(OSError, AttributeError):
            self.stream.shutdown(socket.SHUT_RDWR)

    def state(self):
        with self.lock:
            running = list(self.running)
        return {"worker": self.name, "session": self.session, "runtime": "simple", "concurrency": self.concurrency,
                "memory_mb": self.memory_mb, "cpus": 2, "arch": "x86_64", "version": "0", "images": [], "labels": self.labels, "draining": self.draining,
                "drained": self.drained,
                "slots": max(0, self.concurrency - len(running)), "running": running, "instances": self.instances,
                "kept": [{"function": f, "version": v, "count": n} for (f, v), n in self.kept.items() if n]}  # fmt: skip

    def call(self, method, path, body=None):
        with contextlib.closing(self.controller.connect()) as connection:
            connection.request(method, path, *self.controller.prepare(body, self.controller.worker_token, None))
            return Answer(connection.getresponse())

    def open_stream(self):
        """A connection that has left HTTP, with nothing said on it."""
        address = urllib.parse.urlsplit(self.controller.url)
        connection = socket.create_connection((address.hostname, address.port), timeout=WAIT_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall((f"GET /v1/worker/stream HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: faas-worker\r\n"
                            f"Authorization: Bearer {self.controller.worker_token}\r\n\r\n").encode())  # fmt: skip
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += read_exactly(connection, 1)
        if not head.startswith(b"HTTP/1.1 101 "):
            raise ConnectionError(head)
        return connection

    def keep_connected(self):
        while not self.over:
            with contextlib.suppress(OSError), contextlib.closing(self.open_stream()) as stream:
                with self.lock:
                    self.stream, self.sent, self.acknowledged = stream, 0, 0
                    self.connections += 1
                    self.say_state()
                while not self.over:
                    self.take(*self.read(stream))
            self.stream = None
            time.sleep(0.02)

    def read(self, stream):
        return read_message(stream)

    def say_state(self):
        self.post(message({"kind": "state"}, json.dumps(self.state()).encode()))

    def say_states(self):
        while not self.over:
            time.sleep(0.1)
            with contextlib.suppress(OSError), self.lock:
                if self.stream and not self.silent:
                    self.say_state()

    def take(self, head, body):
        if head["kind"] == "ack":
            self.acknowledged = head["messages"]
            self.states += 1
            return
        if head["kind"] == "superseded":
            self.superseded.set()
            self.over = True
        elif head["kind"] == "refused":
            self.refused = head["message"]
            raise ConnectionError(head)
        if self.over or head["kind"] == "welcome":
            return
        self.seen.append(head)
        if head["kind"] == "invoke":
            with self.lock:
                self.running[head["execution_id"]] = head
            threading.Thread(target=self.run_one, args=(head, body), daemon=True).start()
        elif head["kind"] == "keep":
            self.kept[head["function"], head["version"]] = head["count"]
        elif head["kind"] == "drain":
            self.drained = head["drained"]
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
        """One or more messages, on the stream that there is."""
        with self.lock:
            self.stream.sendall(batch)
            self.sent += 1

    def build_one(self, head):
        ok, output, artifact = self.build(head)
        self.post(message({"kind": "build_result", "build_id": head["build_id"], "ok": ok, "output_len": len(output)}, output + artifact))

    def wait_seen(self, kind, count=1, **members):
        def found():
            matching = [h for h in self.seen if h["kind"] == kind and all(h.get(k) == v for k, v in members.items())]
            return matching if len(matching) >= count else None

        return wait_until(found, f"{count} of {kind} {members} (seen: {self.seen[-5:]})")
