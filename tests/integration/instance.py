"""Drives one faas-init as the worker does: sockets, pipes and frames of src/init/protocol.h.

    with Instance("exec", ["./bootstrap"], {"bootstrap": "#!/bin/sh\\ncat"}) as instance:
        done = instance.invoke(b'{"a": 1}')
        done.stdout, done.stderr, done.exit_code, done.flags, done.message

With generic=True the instance is started without function, and the function comes with a LOAD frame: whoever uses it must
not find a difference. as_generic() makes such a class of tests of an ordinary one.
"""

import ctypes
import mmap
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
import unittest

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
BUILD = os.path.abspath(os.environ.get("FAAS_BUILD_DIR", os.path.join(ROOT, "build")))
LIBEXEC = os.path.join(BUILD, "libexec")
INIT = os.environ.get("FAAS_INIT", os.path.join(LIBEXEC, "init"))
PYTHON = os.environ.get("FAAS_TEST_PYTHON", "/usr/bin/python3")
NODE = os.environ.get("FAAS_TEST_NODE", "node")

INVOKE, READY, EXIT, RESULT, ERROR, ADAPTER_EXIT, LOAD, LOG = 1, 2, 3, 4, 5, 6, 7, 8
NOT_STARTED, DIRTY, AREA, IN_AREA = 1, 2, 8, 16
WAIT_S = 60  # a bound on hanging, not an expectation


class Frame:
    def __init__(self, kind, flags, value, meta, body):
        self.kind, self.flags, self.value, self.meta, self.body = kind, flags, value, meta, body


class HungUp(Exception):
    pass


def encode(kind, flags=0, value=0, meta=b"", body=b""):
    return struct.pack("<HHIII", kind, flags, len(meta), len(body), value) + meta + body


def load_body(mode, argv, env):
    strings = [mode, *argv, "", *(f"{name}={value}" for name, value in env.items())]
    return b"".join(os.fsencode(string) + b"\0" for string in strings)


def read_exactly(sock, size):
    parts = []
    while size:
        try:
            data = sock.recv(min(size, 1 << 20))
        except ConnectionResetError:
            raise HungUp from None
        if not data:
            raise HungUp
        parts.append(data)
        size -= len(data)
    return b"".join(parts)


def read_frame(sock):
    sock.settimeout(WAIT_S)
    kind, flags, meta_len, body_len, value = struct.unpack("<HHIII", read_exactly(sock, 16))
    return Frame(kind, flags, value, read_exactly(sock, meta_len).decode(), read_exactly(sock, body_len))


class Pipe:
    """Collects what comes, so that no writer ever waits."""

    def __init__(self):
        self.read_fd, self.write_fd = os.pipe()
        os.set_blocking(self.read_fd, False)
        self.data = bytearray()
        self.lock = threading.Lock()

    def drain(self):
        with self.lock:
            while True:
                try:
                    data = os.read(self.read_fd, 1 << 16)
                except (BlockingIOError, OSError):
                    return
                if not data:
                    return
                self.data += data

    def take(self):
        self.drain()
        with self.lock:
            data, self.data = bytes(self.data), bytearray()
        return data


def become_pid1():
    """Returns in the first process of a new PID namespace, with a /proc of its own. (unshare(1) does the same, but
    keeps the sockets open, whose end is what is waited for here.)"""
    libc = ctypes.CDLL(None)
    new_namespace, new_pids, private, recursive, die_with_parent = 0x20000, 0x20000000, 1 << 18, 16384, 1
    if libc.unshare(new_namespace | new_pids) != 0:
        os._exit(126)
    child = os.fork()
    if child:
        os.closerange(0, 4096)
        status = os.waitpid(child, 0)[1]
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    libc.prctl(die_with_parent, signal.SIGKILL)
    libc.mount(b"none", b"/", None, private | recursive, None)
    if libc.mount(b"proc", b"/proc", b"proc", 0, None) != 0:
        os._exit(126)


class Done:
    def __init__(self, frame, stdout, stderr):
        self.flags, self.status, self.message = frame.flags, frame.value, frame.meta
        self.kind, self.body = frame.kind, frame.body
        self.stdout, self.stderr = stdout, stderr

    @property
    def exit_code(self):
        return os.WEXITSTATUS(self.status) if os.WIFEXITED(self.status) else None

    @property
    def signal(self):
        return os.WTERMSIG(self.status) if os.WIFSIGNALED(self.status) else None


class Instance:
    def __init__(self, mode, argv, files, env=None, pid1=False, uid=None, generic=False, load=True, own_env=None):
        self.mode = mode
        self.generic = generic
        self.folder = tempfile.mkdtemp(prefix="faas-test-")
        os.chmod(self.folder, 0o755)
        self.code = os.path.join(self.folder, "code")
        self.run = os.path.join(self.folder, "run")
        write_files(self.code, {} if generic else files)
        os.mkdir(self.run)
        if uid:
            os.chown(self.run, uid, uid)
        self.control, control = socket.socketpair()
        self.adapter, adapter = socket.socketpair()
        self.out, self.err = Pipe(), Pipe()
        if uid:
            os.fchown(self.out.write_fd, uid, uid)
            os.fchown(self.err.write_fd, uid, uid)
        self.marker = f"INSTANCE_MARKER={os.path.basename(self.folder)}"
        passed_on = {name: os.environ[name] for name in ("PATH", "ASAN_OPTIONS") if name in os.environ}
        own = {**dict([self.marker.split("=")]), **passed_on, **(own_env or {})}  # the generic one's
        self.env = {**own, **(env or {})}
        command = self._command(mode, argv, uid)
        self.process = self._start(command, own if generic else self.env, pid1, control, adapter)
        control.close()
        adapter.close()
        for pipe in (self.out, self.err):
            os.close(pipe.write_fd)
        self.closed = False
        self.pump_stop = threading.Event()
        self.pump = threading.Thread(target=self._pump, daemon=True)
        self.pump.start()
        if generic and load:
            self._load(mode, argv, files)

    def _load(self, mode, argv, files):
        """As the worker does it: once the instance is up, code first, then the frame."""
        assert read_frame(self.control).kind == READY, self.log()
        write_files(self.code, files)
        self.control.sendall(encode(LOAD, body=load_body(mode, argv, self.env)))

    def _command(self, mode, argv, uid):
        init = INIT
        if uid:  # the build's folder may not be everybody's to enter
            init = shutil.copy(INIT, os.path.join(self.folder, "init"))
        command = [init, mode, "--code", self.code, "--run", self.run, "--", *argv]
        if self.generic:
            adapter = len(argv) > 1 and os.path.basename(argv[1]).startswith("adapter.")
            keeper = ["--", *argv[:2], "generic"] if adapter else []
            command = [init, "generic", "--code", self.code, "--run", self.run, *keeper]
        if uid:
            command = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups",
                       "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", *command]  # fmt: skip
        return command

    def _start(self, command, env, pid1, control, adapter):
        numbers = [control.fileno(), adapter.fileno(), self.out.write_fd, self.err.write_fd]

        def place():
            high = [os.dup2(fd, 100 + i) for i, fd in enumerate(numbers)]
            for i, fd in enumerate(high):
                os.dup2(fd, 3 + i, inheritable=True)
                os.close(fd)
            os.closerange(7, 100)
            if pid1:
                become_pid1()

        with open(os.path.join(self.folder, "log"), "wb") as log:
            return subprocess.Popen(command, env=env, close_fds=False, preexec_fn=place,
                                    stdin=subprocess.DEVNULL, stdout=log, stderr=log)  # fmt: skip

    def _pump(self):
        while not self.pump_stop.is_set():
            select.select([self.out.read_fd, self.err.read_fd], [], [], 0.05)
            self.out.drain()
            self.err.drain()
            time.sleep(0.001)

    def wait_ready(self):
        sock = self.adapter if self.mode == "handler" else self.control
        return read_frame(sock)

    def send(self, payload, execution_id="exec-1", timeout_ms=30000):
        sock = self.adapter if self.mode == "handler" else self.control
        sock.settimeout(WAIT_S)
        sock.sendall(encode(INVOKE, 0, timeout_ms, execution_id.encode(), payload))

    def send_in_area(self, area, payload):
        """Once the adapter has it."""
        area[: len(payload)] = payload
        self.say_in_area(len(payload))

    def say_in_area(self, *numbers, more=0):
        """`more`: so many numbers are still to come."""
        said = b"".join(number.to_bytes(4, "little") for number in numbers)
        frame = encode(INVOKE, IN_AREA, 30000, b"exec-1", said + bytes(4 * more))
        self.adapter.sendall(frame[: len(frame) - 4 * more])

    def say_number(self, number):
        self.adapter.sendall(number.to_bytes(4, "little"))

    def pass_area(self, size):
        """With an invocation whose payload is 1: (the area, the adapter's answer)."""
        fd = os.memfd_create("area")
        try:
            os.ftruncate(fd, size)
            socket.send_fds(self.adapter, [encode(INVOKE, 0, 30000, b"exec-1", b"1")], [fd])
            return mmap.mmap(fd, size), self.answer()
        finally:
            os.close(fd)

    def invoke(self, payload=b"{}", execution_id="exec-1", timeout_ms=30000):
        self.send(payload, execution_id, timeout_ms)
        return self.answer()

    def answer(self):
        frame = read_frame(self.adapter if self.mode == "handler" else self.control)
        return Done(frame, self.out.take(), self.err.take())

    def others(self):
        """Processes of the instance besides faas-init (and the program that made its namespace)."""
        return [pid for pid in processes_with(self.marker) if pid not in (self.init_pid(), self.process.pid)]

    def log(self):
        """What faas-init itself had to say."""
        with open(os.path.join(self.folder, "log")) as file:
            return file.read()

    def hang_up(self):
        self.control.close()
        self.adapter.close()

    def init_pid(self):
        """The process id of faas-init as seen from here."""
        pid = self.process.pid
        while True:
            with open(f"/proc/{pid}/comm") as file:
                if file.read().strip() == "faas-init":
                    return pid
            with open(f"/proc/{pid}/task/{pid}/children") as file:
                children = file.read().split()
            if children:
                pid = int(children[0])

    def close(self):
        """The worker hangs up; everything has to end by itself."""
        if self.closed:
            return
        self.closed = True
        self.hang_up()
        try:
            self.process.wait(WAIT_S)
        finally:
            if self.process.poll() is None:
                self.process.kill()
            self.pump_stop.set()
            self.pump.join()
            os.close(self.out.read_fd)
            os.close(self.err.read_fd)
            if "Sanitizer" in self.log() or "runtime error" in self.log():
                raise AssertionError(self.log())
            shutil.rmtree(self.folder)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def write_files(folder, files):
    os.makedirs(folder, exist_ok=True)
    for name, content in files.items():
        path = os.path.join(folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        os.chmod(path, 0o755)


def processes_with(marker):
    """Ids of processes, of whatever namespace, that were started with `marker` in their environment."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/environ", "rb") as file:
                if marker.encode() in file.read():
                    found.append(int(name))
        except OSError:
            pass  # it ended meanwhile
    return found


class InstanceTest(unittest.TestCase):
    """Base: instances that a test makes are closed at its end."""

    generic = False

    def instance(self, *args, **kwargs):
        instance = Instance(*args, **{"generic": self.generic, **kwargs})
        self.addCleanup(instance.close)
        return instance

    def ready(self, *args, **kwargs):
        instance = self.instance(*args, **kwargs)
        frame = instance.wait_ready()
        self.assertEqual(frame.kind, READY, frame.body)
        return instance


def cover(test, instance, files):
    """Attaches a folder with `files` and one named `data` where the instance's code is, as the worker attaches code."""
    source = os.path.join(instance.folder, "attached")
    write_files(source, {"data": "covered", **files})
    namespace = f"/proc/{instance.init_pid()}/ns/mnt"
    test.addCleanup(subprocess.run, ["umount", "-q", "-l", instance.code], check=False)
    subprocess.run(["nsenter", f"--mount={namespace}", "mount", "--bind", source, instance.code], check=True)


def as_generic(case):
    """The same tests, with the function loaded into a generic instance."""
    return type(case.__name__ + "Generic", (case,), {"generic": True})
