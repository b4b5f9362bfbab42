"""A faas-worker of its own and a controller made of a few lines, speaking docs/worker-protocol.md, to drive it.

    with FakeController() as controller, Worker(controller) as worker:
        controller.deploy('hello', 'print(1)')
        controller.run('hello').value == 1
"""
import base64
import contextlib
import hashlib
import http.server
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import uuid

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
BUILD = os.path.abspath(os.environ.get("FAAS_BUILD_DIR", os.path.join(ROOT, "build")))
BIN = os.environ.get("FAAS_BIN", os.path.join(BUILD, "bin"))
IMAGE_DIR = os.environ.get("FAAS_TEST_IMAGE_DIR", os.path.join(BUILD, "test-images"))
TOKEN = "test-worker-token"
WAIT_S = 90  # a bound on hanging, not an expectation

DEFAULTS = {
    "contract": "process", "env": {}, "labels": {}, "memory_mb": 128, "cpus": 1.0, "timeout_ms": 30000,
    "tmp_mb": 64, "pids": 64, "network": "none", "public": False,
}  # fmt: skip


def message(head, body=b""):
    head = head if isinstance(head, bytes) else json.dumps(head).encode()
    return struct.pack("<IQ", len(head), len(body)) + head + body


def read_message(file):
    """(head, body), or None at the end of the stream."""
    header = file.read(12)
    if len(header) < 12:
        return None
    head_len, body_len = struct.unpack("<IQ", header)
    head, body = file.read(head_len), file.read(body_len)
    return (json.loads(head), body) if len(head) == head_len and len(body) == body_len else None


class Result:
    def __init__(self, head, body):
        self.head = head
        self.status = head["status"]
        self.text = body[: head["result_len"]]
        self.logs = body[head["result_len"] : head["result_len"] + head["logs_len"]].decode(errors="replace")
        self.error = head.get("error") or {}
        self.metrics = head["metrics"]
        self.cold_start = head["cold_start"]

    @property
    def value(self):
        if self.status != "succeeded":
            raise AssertionError(self)
        value = json.loads(self.text)
        return base64.b64decode(value) if self.head["result_base64"] else value

    def __repr__(self):
        return f"Result({self.head}, {self.text[:200]!r}, logs {self.logs[-500:]!r})"


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64


class FakeController:
    def __init__(self):
        self.lock = threading.Condition(threading.RLock())
        self.definitions, self.code = {}, {}
        self.queue, self.results, self.builds, self.logs, self.states = [], {}, {}, [], []
        self.outstanding = set()  # invocations that were given out
        self.taken = 0  # messages on the newest connection
        self.stream = None  # the newest connection's handler
        self.acknowledges = True
        self.streams = 0
        self.code_requests, self.definition_requests = 0, 0
        self.conflict = False
        self.port = None
        self.server = None
        self.up()

    # ---- being reachable ----

    def up(self):
        controller = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *args):
                pass

            def do_POST(self):
                controller.handle(self, self.rfile.read(int(self.headers.get("Content-Length") or 0)))

            def do_GET(self):
                controller.handle(self, b"")

            def answer(self, status, body=b"", kind="application/json"):
                with contextlib.suppress(OSError):
                    self.send_response(status)
                    self.send_header("Content-Type", kind)
                    if status != 204:
                        self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

        self.stopping = False
        self.connections = set()
        self.server = Server(("127.0.0.1", self.port or 0), Handler)
        real_get = self.server.get_request

        def get_request():
            connection, address = real_get()
            self.connections.add(connection)
            return connection, address

        self.server.get_request = get_request
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def down(self):
        with self.lock:
            self.stopping = True
            self.lock.notify_all()
        self.server.shutdown()
        self.server.server_close()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
                connection.close()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self):
        return self

    def __exit__(self, *args):
        if not self.stopping:
            self.down()

    # ---- the protocol ----

    def handle(self, request, body):
        if self.stopping:
            request.close_connection = True
            return
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            request.answer(401, b'{"error": {"type": "unauthorized", "message": "bad token"}, "request_id": "x"}')
            return
        path = request.path
        if path == "/v1/worker/stream":
            self.serve_stream(request)
        elif match := re.fullmatch(r"/v1/worker/functions/([a-z0-9-]+)/(\d+)", path):
            self.definition_requests += 1
            self.give(request, self.definitions.get((match[1], int(match[2]))), json.dumps)
        elif match := re.fullmatch(r"/v1/worker/code/([0-9a-f]{64})", path):
            self.code_requests += 1
            self.give(request, self.code.get(match[1]), bytes)
        else:
            self.give(request, None, bytes)

    @staticmethod
    def give(request, value, encode):
        if value is None:
            request.answer(404, b'{"error": {"type": "not_found", "message": "no such thing"}, "request_id": "x"}')
            return
        data = encode(value)
        request.answer(200, data.encode() if isinstance(data, str) else data)

    def serve_stream(self, request):
        request.close_connection = True
        request.wfile.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: faas-worker\r\n\r\n")
        with self.lock:
            self.stream, self.taken = request, 0
            self.streams += 1
        with contextlib.suppress(OSError):
            self.tell(self.welcome())
            while (item := self.read(request.rfile)) and self.stream is request:
                self.take(*item)
        with self.lock:
            if self.stream is request:
                self.stream = None

    def welcome(self):
        return {"kind": "welcome", "state_ms": 1000}

    def read(self, file):
        return read_message(file)

    def take(self, head, body):
        with self.lock:
            self.taken += 1
            if head["kind"] == "state":
                self.states.append(json.loads(body))
                if self.conflict:
                    self.tell({"kind": "superseded", "message": "newer"})
            elif head["kind"] == "result":
                self.results[head["execution_id"]] = Result(head, body)
                self.outstanding.discard(head["execution_id"])
            elif head["kind"] == "log":
                self.logs.append((head, body))
            elif head["kind"] == "build_result":
                self.builds[head["build_id"]] = (head["ok"], body[: head["output_len"]].decode(), body[head["output_len"] :])
            if self.acknowledges:
                self.tell({"kind": "ack", "messages": self.taken})
            self.give_out()
            self.lock.notify_all()

    def tell(self, head, body=b""):
        with self.lock:
            self.stream.wfile.write(message(head, body))

    def give_out(self):
        """What waits, as far as there are slots."""
        if not self.stream or not self.states:
            return
        said = self.states[-1]
        for item in list(self.queue):
            if item[0]["kind"] == "invoke":
                if said["draining"] or len(self.outstanding) >= said["concurrency"]:
                    continue
                self.outstanding.add(item[0]["execution_id"])
            self.queue.remove(item)
            self.tell(*item)

    def cut(self):
        """The connection ends, as by a failure in between."""
        with self.lock, contextlib.suppress(OSError, AttributeError):
            stream, self.stream = self.stream, None
            stream.connection.shutdown(socket.SHUT_RDWR)

    # ---- what tests do ----

    def deploy(self, name, code, version=1, runtime="python", **members):
        code = code.encode() if isinstance(code, str) else code
        sha256 = hashlib.sha256(code).hexdigest()
        definition = dict(DEFAULTS, name=name, version=version, runtime=runtime,
                          image=f"faas-runtime-{runtime}:latest", code_sha256=sha256, artifact_sha256=sha256)
        definition.update(members)
        with self.lock:
            self.definitions[name, version] = definition
            self.code[sha256] = code
        return definition

    def assign(self, head, body=b""):
        with self.lock:
            self.queue.append((head, body))
            with contextlib.suppress(OSError):
                self.give_out()
            self.lock.notify_all()

    def invoke(self, name, payload=b"{}", version=1, timeout_ms=None):
        execution_id = str(uuid.uuid4())
        timeout_ms = timeout_ms or self.definitions.get((name, version), DEFAULTS)["timeout_ms"]
        self.assign({"kind": "invoke", "execution_id": execution_id, "attempt": 1, "function": name,
                     "version": version, "timeout_ms": timeout_ms}, payload)  # fmt: skip
        return execution_id

    def wait_for(self, ready, timeout=WAIT_S):
        deadline = time.monotonic() + timeout
        with self.lock:
            while not (value := ready()):
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError("the worker did not do what was awaited")
                self.lock.wait(left)
            return value

    def result(self, execution_id):
        return self.wait_for(lambda: self.results.get(execution_id))

    def run(self, name, payload=b"{}", **members):
        return self.result(self.invoke(name, payload, **members))

    def build(self, name, version=1):
        build_id = str(uuid.uuid4())
        self.assign({"kind": "build", "build_id": build_id, "function": name, "version": version})
        return self.wait_for(lambda: self.builds.get(build_id), timeout=300)


def have_images():
    """Imports the runtime images once a build tree; False when they have not been built."""
    archives = os.path.join(BUILD, "images")
    if not os.path.isdir(archives):  # they are made once for all kinds of builds
        archives = os.path.join(ROOT, "build", "images")
    for runtime in ("python", "nodejs", "go", "native"):
        archive = os.path.join(archives, f"faas-runtime-{runtime}.tar")
        stamp = os.path.join(IMAGE_DIR, f".imported-{runtime}")
        if os.path.exists(stamp) and (not os.path.exists(archive) or os.path.getmtime(stamp) >= os.path.getmtime(archive)):
            continue
        if not os.path.exists(archive):
            return False
        os.makedirs(IMAGE_DIR, exist_ok=True)
        subprocess.run([os.path.join(BIN, "faas"), "image", "import", f"faas-runtime-{runtime}:latest", archive],
                       check=True, env=dict(os.environ, WORKER_IMAGE_DIR=IMAGE_DIR), stdout=subprocess.DEVNULL)  # fmt: skip
        open(stamp, "w").close()
    return True


class Worker:
    """Settings are keyword arguments without WORKER_: concurrency=4, keep_alive_ms=0."""

    def __init__(self, controller, data_dir=None, **settings):
        self.controller = controller
        self.name = settings.pop("name", f"test-{os.getpid()}")
        self.own_data_dir = data_dir is None
        self.data_dir = data_dir or tempfile.mkdtemp(prefix="faas-worker-test-")
        os.chmod(self.data_dir, 0o711)
        self.environment = dict(
            os.environ, WORKER_CONTROLLER_URL=controller.url, WORKER_TOKEN=TOKEN, WORKER_NAME=self.name,
            WORKER_DATA_DIR=self.data_dir, WORKER_IMAGE_DIR=IMAGE_DIR, LOG_LEVEL="debug",
            WORKER_START_TIMEOUT_MS="20000",
        )  # fmt: skip
        for key, value in settings.items():
            self.environment[f"WORKER_{key.upper()}"] = str(value)
        self.log_path = os.path.join(self.data_dir, "worker.log")
        self.process = None

    def start(self):
        before = len(self.controller.states)
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen([os.path.join(BIN, "faas-worker")], env=self.environment,
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log)  # fmt: skip
        deadline = time.monotonic() + WAIT_S
        while len(self.controller.states) == before:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the worker did not start:\n{self.log()}")
            time.sleep(0.01)
        return self

    def log(self):
        with open(self.log_path, errors="replace") as file:
            return file.read()

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.process.wait(WAIT_S)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def leftovers(self):
        """Names of whatever belongs to this worker and still exists."""
        found = []
        for top, folders, _ in os.walk("/sys/fs/cgroup"):
            found += [os.path.join(top, folder) for folder in folders if folder.startswith(f"faas-{self.name}")]
        with open("/proc/self/mountinfo") as mounts:
            found += [line for line in mounts if f"/run/faas/{self.name}/" in line or self.data_dir in line]
        for top, _, files in os.walk(f"/run/faas/{self.name}"):
            found += [top] + [os.path.join(top, name) for name in files]
        bundles = os.path.join(self.data_dir, "worker", "bundles")
        found += os.listdir(bundles) if os.path.isdir(bundles) else []
        return found

    def __enter__(self):
        return self.start()

    def __exit__(self, *args):
        if self.process and self.process.poll() is None:
            try:
                self.stop()
            except subprocess.TimeoutExpired:
                self.kill()
        log = self.log()
        if args[0]:
            sys.stderr.write(log[-6000:])
        if self.own_data_dir:
            shutil.rmtree(self.data_dir, ignore_errors=True)
        shutil.rmtree(f"/run/faas/{self.name}", ignore_errors=True)
        report = re.search(r"(Address|Leak|Thread)Sanitizer|runtime error:", log)
        assert not report, "a sanitizer complained:\n" + log[max(0, report.start() - 200) : report.start() + 4000]
