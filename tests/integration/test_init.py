#!/usr/bin/env python3
"""faas-init as its worker sees it: once as a plain process (runtime `simple`) and once as PID 1."""

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import unittest

from instance import (
    ADAPTER_EXIT, BUILD, DIRTY, ERROR, EXIT, INIT, INVOKE, LOAD, NOT_STARTED, PYTHON, READY, RESULT,
    HungUp, InstanceTest, as_generic, cover, encode, load_body, read_exactly, read_frame, write_files,
)  # fmt: skip

UID = 54321  # nobody else's, so that limits on its number of processes concern a test alone


def python(source):
    return {"bootstrap": f"#!{PYTHON} -SE\nimport os, signal, sys, time\n{source}\n"}


def shell(source):
    return {"bootstrap": f"#!/bin/sh\n{source}\n"}


ECHO_KINDS = """
import hashlib
data = sys.stdin.buffer.read()
env = os.environb.get(b"FUNCTION_PAYLOAD")
file = open(os.environ["FUNCTION_PAYLOAD_FILE"], "rb").read()
print(len(data), hashlib.sha256(data).hexdigest(), file == data, env is not None, env in (None, data))
"""

# Escapes from its parent in every way: a session of its own, two forks, every signal ignored.
LEAVE_DAEMONS = """
for i in range(5):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for number in set(range(1, 65)) - {9, 19, 32, 33}:
                signal.signal(number, signal.SIG_IGN)
            print("up", flush=True)
            while True:
                time.sleep(1000)
        os._exit(0)
while "zombies are not waited for":
    try:
        os.wait()
    except ChildProcessError:
        break
print("main ends", flush=True)
"""

# A sibling of the main process instead of a child: clone(CLONE_PARENT | SIGCHLD).
LEAVE_SIBLING = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
number = {"x86_64": 56, "aarch64": 220}[os.uname().machine]
if libc.syscall(number, 0x8000 | 17, 0, 0, 0, 0) == 0:
    time.sleep(1000)
print("main ends")
"""


class Common(InstanceTest):
    """Run by both classes below; alone it is nothing."""

    options = {}

    def exec(self, files, env=None, argv=("./bootstrap",), **options):
        return self.ready("exec", list(argv), files, env=env, **{**self.options, **options})

    def assert_ends(self, instance):
        """All processes of the instance are gone, by themselves."""
        instance.process.wait(30)
        self.assertEqual(instance.others(), [])


class Invocations(Common):
    def test_payload_is_stdin_file_and_variable(self):
        instance = self.exec(python(ECHO_KINDS))
        for payload in (b"{}", b'{"a": "\xc3\xa4"}', b"", b"x" * (96 * 1024)):
            done = instance.invoke(payload)
            expected = f"{len(payload)} {hashlib.sha256(payload).hexdigest()} True True True\n"
            self.assertEqual(done.stdout.decode(), expected, done.stderr)
            self.assertEqual((done.exit_code, done.flags), (0, 0))

    def test_payload_over_96_kib_or_with_nul_is_not_in_the_environment(self):
        instance = self.exec(python(ECHO_KINDS))
        for payload in (b"x" * (96 * 1024 + 1), b"a\0b", os.urandom(6 << 20)):
            done = instance.invoke(payload)
            expected = f"{len(payload)} {hashlib.sha256(payload).hexdigest()} True False True\n"
            self.assertEqual(done.stdout.decode(), expected, done.stderr)

    def test_large_binary_output_comes_through_unchanged(self):
        payload = os.urandom(6 << 20)
        done = self.exec(shell("cat; cat $FUNCTION_PAYLOAD_FILE >&2")).invoke(payload)
        self.assertEqual(done.stdout, payload)
        self.assertEqual(done.stderr, payload)

    def test_exit_status_and_signal_are_told(self):
        instance = self.exec(shell('exit $(cat)'))
        self.assertEqual([instance.invoke(str(n).encode()).exit_code for n in (0, 1, 42, 255)], [0, 1, 42, 255])
        instance = self.exec(shell("kill -SEGV $$"))
        self.assertEqual(instance.invoke().signal, signal.SIGSEGV)

    def test_what_cannot_start_says_why(self):
        files = {"plain": "no program", "script": "#!/no/such/interpreter\n", "noexec": "#!/bin/sh\n"}
        cases = {
            "./missing": "cannot start ./missing: No such file or directory",
            "./script": "cannot start ./script: the file is there, but the interpreter or loader",
            "./plain": "cannot start ./plain: Exec format error",
            "./noexec": "cannot start ./noexec: Permission denied",
            "no-such-command": "cannot start no-such-command: No such file or directory",
        }
        for program, message in cases.items():
            with self.subTest(program):
                instance = self.exec(files, argv=[program])
                os.chmod(os.path.join(instance.code, "noexec"), 0o644)
                for _ in range(2):
                    done = instance.invoke()
                    self.assertEqual(done.flags, NOT_STARTED)
                    self.assertIn(message, done.message)
                    self.assertEqual(done.stdout + done.stderr, b"")

    def test_missing_code_folder_says_so(self):
        instance = self.exec(shell("true"))
        os.rename(instance.code, instance.code + "-away")
        done = instance.invoke()
        self.assertEqual((done.flags, "cannot enter" in done.message), (NOT_STARTED, True))

    def test_program_starts_clean(self):
        """Only the three standard descriptors, no signal blocked or ignored, a session of its own."""
        source = """
fds = [fd for fd in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + fd)]
status = open("/proc/self/status").read()
masks = [line.split()[1] for line in status.splitlines() if line.startswith("SigBlk")]
print(sorted(fds), masks, os.getsid(0) == os.getpid(), os.getcwd(), signal.getsignal(signal.SIGHUP) is signal.SIG_DFL)
print(open("/proc/self/oom_score_adj").read())"""
        instance = self.exec(python(source))
        with open(f"/proc/{instance.init_pid()}/oom_score_adj") as file:
            before = file.read()
        lines = instance.invoke().stdout.decode().split("\n")
        self.assertEqual(lines[0], f"['0', '1', '2'] ['0000000000000000'] True {instance.code} True")
        self.assertEqual(lines[1], "1000")
        with open(f"/proc/{instance.init_pid()}/oom_score_adj") as file:
            self.assertEqual(file.read(), before)

    def test_one_invocation_leaves_no_environment_to_the_next(self):
        instance = self.exec(shell('echo "$EXECUTION_ID ${FUNCTION_PAYLOAD-unset}"'), {"EXECUTION_ID": "mine", "FUNCTION_PAYLOAD": "mine"})
        self.assertEqual(instance.invoke(b"1", "first").stdout, b"first 1\n")
        self.assertEqual(instance.invoke(b"2" * 100000, "second").stdout, b"second unset\n")
        self.assertEqual(instance.invoke(b"3", "third").stdout, b"third 3\n")

    def test_run_folder_is_emptied_between_invocations(self):
        instance = self.exec(shell("""
cd ${FUNCTION_PAYLOAD_FILE%/*}
find . | sort | tr '\\n' ' '
mkdir -p a/b/c/d; touch a/b/c/d/file .hidden; chmod 000 a/b/c/d a/b; rm -f payload; mkdir payload; ln -s /etc link; chmod 000 ."""))
        for _ in range(3):
            done = instance.invoke()
            self.assertEqual(done.stdout, b". ./payload ", done.stderr)
        self.assertTrue(os.path.exists("/etc/passwd"))

    def test_pipe_flags_are_reset(self):
        source = """
import fcntl
for fd in 1, 2:
    print(fcntl.fcntl(fd, fcntl.F_GETFL) & ~os.O_ACCMODE & ~0o100000)
    fcntl.fcntl(fd, fcntl.F_SETFL, os.O_NONBLOCK | os.O_APPEND)"""
        instance = self.exec(python(source))
        self.assertEqual([instance.invoke().stdout for _ in range(2)], [b"0\n0\n"] * 2)

    def test_many_invocations_keep_descriptors_and_memory_flat(self):
        instance = self.exec(shell("(sleep 1000 &) & cat"))
        folder = f"/proc/{instance.init_pid()}"

        def footprint():
            with open(f"{folder}/statm") as file:
                return len(os.listdir(f"{folder}/fd")), int(file.read().split()[1])

        for i in range(20):
            instance.invoke()
        before = footprint()
        for i in range(300):
            self.assertEqual(instance.invoke(str(i).encode()).stdout, str(i).encode())
        descriptors, pages = footprint()
        # The last invocation's may still be being closed; 300 leaked ones, or pages, would show.
        self.assertLess(descriptors, before[0] + 5)
        self.assertLess(pages, before[1] + 100)
        self.assertEqual(instance.others(), [])


class Leftovers(Common):
    def check(self, instance, output):
        for _ in range(3):
            done = instance.invoke()
            self.assertEqual((done.exit_code, done.flags), (0, 0), done.stderr)
            self.assertEqual(done.stdout.count(b"main ends"), 1)
            self.assertEqual(instance.others(), [])

    def test_daemons_are_dead_when_exit_is_told(self):
        self.check(self.exec(python(LEAVE_DAEMONS)), b"main ends")

    def test_siblings_are_dead_when_exit_is_told(self):
        self.check(self.exec(python(LEAVE_SIBLING)), b"main ends")

    def test_stopped_and_deep_trees_are_dead(self):
        self.check(self.exec(python("""
for depth in range(30):
    if os.fork():
        break
    time.sleep(0)
if depth % 3 == 1:
    os.kill(os.getpid(), signal.SIGSTOP)
if depth:
    time.sleep(1000)
print("main ends")""")), b"main ends")

    def test_fork_bomb_ends_with_its_main_process(self):
        source = """
import resource
resource.setrlimit(resource.RLIMIT_NPROC, (60, 60))
def bomb():
    while True:
        try:
            os.fork()
        except OSError:
            pass
if os.fork() == 0:
    bomb()
while True:
    try:
        if os.fork() == 0:
            bomb()
    except OSError:
        break
print("main ends", flush=True)"""
        self.check(self.exec(python(source), uid=UID), b"main ends")

    def test_orphans_are_reaped_while_the_invocation_runs(self):
        source = """
read, write = os.pipe()
for i in range(200):
    if os.fork() == 0:
        if os.fork() == 0:
            os.write(write, os.getpid().to_bytes(4, "little"))
        os._exit(0)
    os.wait()
orphans = {int.from_bytes(os.read(read, 4), "little") for i in range(200)}
while any(os.path.exists(f"/proc/{pid}") for pid in orphans):
    time.sleep(0.001)
print("all reaped")"""
        self.assertEqual(self.exec(python(source)).invoke().stdout, b"all reaped\n")


class Endings(Common):
    def test_worker_hanging_up_ends_everything(self):
        instance = self.exec(python(LEAVE_DAEMONS + "time.sleep(1000)"))
        instance.send(b"{}")
        while instance.out.data.count(b"\n") < 6:
            instance.process.poll()
        self.assertGreater(len(instance.others()), 5)
        instance.hang_up()
        self.assert_ends(instance)

    def test_sigterm_ends_everything(self):
        instance = self.exec(shell("trap '' TERM; sleep 1000 & echo up; wait; sleep 1000"))
        instance.send(b"{}")
        while not instance.out.data:
            instance.process.poll()
        os.kill(instance.init_pid(), signal.SIGTERM)
        self.assertRaises(HungUp, read_frame, instance.control)
        self.assert_ends(instance)

    def test_bad_frames_end_the_instance(self):
        cases = {
            "type": encode(READY), "unknown type": encode(77), "flags": encode(INVOKE, 0x8000),
            "meta length": encode(INVOKE)[:4] + b"\xff\xff\xff\xff" + bytes(8),
            "body length": encode(INVOKE)[:8] + b"\xff\xff\xff\xff" + bytes(4),
            "nul in meta": encode(INVOKE, meta=b"a\0b"), "noise": os.urandom(100000),
        }  # fmt: skip
        for name, data in cases.items():
            with self.subTest(name):
                instance = self.exec(shell("true"))
                try:
                    instance.control.sendall(data)
                except BrokenPipeError:
                    pass
                self.assertRaises(HungUp, read_frame, instance.control)
                self.assert_ends(instance)
                self.assertIn("faas-init: the worker sent a frame ", instance.log())

    def test_half_a_frame_then_silence_then_hang_up_ends_it(self):
        for length in (1, 15, 17, 24, 1000):
            with self.subTest(length):
                instance = self.exec(shell("true"))
                instance.control.sendall(encode(INVOKE, meta=b"12345678", body=bytes(2000))[:length])
                instance.hang_up()
                self.assert_ends(instance)

    def test_frames_in_pieces_are_put_together(self):
        instance = self.exec(shell("cat"))
        frame = encode(INVOKE, 0, 1000, b"exec-1", b'{"slow": true}')
        for i in range(len(frame)):
            instance.control.sendall(frame[i : i + 1])
        self.assertEqual(instance.answer().stdout, b'{"slow": true}')

    def test_frame_during_an_invocation_ends_the_instance(self):
        instance = self.exec(shell("echo up; sleep 1000"))
        instance.control.sendall(encode(INVOKE, meta=b"1") + encode(INVOKE, meta=b"2"))
        self.assertRaises(HungUp, read_frame, instance.control)
        self.assert_ends(instance)


class Handler(Common):
    """The part of faas-init: the program has the adapter socket as descriptor 3."""

    def test_adapter_is_given_its_socket_and_its_end_is_told(self):
        source = "os.write(3, b'hello'); os.read(3, 1); print(sorted(os.listdir('/proc/self/fd'))[:4]); sys.exit(7)"
        instance = self.instance("handler", ["./bootstrap"], python(source), **self.options)
        self.assertEqual(read_exactly(instance.adapter, 5), b"hello")
        instance.adapter.sendall(b"x")
        frame = read_frame(instance.control)
        self.assertEqual((frame.kind, frame.flags, os.WEXITSTATUS(frame.value)), (ADAPTER_EXIT, 0, 7))
        self.assertRaises(HungUp, read_exactly, instance.adapter, 1)

    def test_what_an_adapter_leaves_is_dead_when_its_end_is_told(self):
        instance = self.instance("handler", ["./bootstrap"], python(LEAVE_DAEMONS), **self.options)
        self.assertEqual(read_frame(instance.control).kind, ADAPTER_EXIT)
        self.assertEqual(instance.others(), [])

    def test_adapter_that_cannot_start_is_told(self):
        for mode in ("handler", "zygote"):
            with self.subTest(mode):
                instance = self.instance(mode, ["./missing"], {}, **self.options)
                frame = read_frame(instance.control)
                self.assertEqual((frame.kind, frame.flags), (ADAPTER_EXIT, NOT_STARTED))
                self.assertEqual(frame.meta, "cannot start ./missing: No such file or directory")

    def test_hang_up_ends_the_adapter(self):
        source = "signal.signal(signal.SIGTERM, signal.SIG_IGN); os.write(3, b'x'); time.sleep(1000)"
        instance = self.instance("handler", ["./bootstrap"], python(source), **self.options)
        read_exactly(instance.adapter, 1)
        instance.hang_up()
        self.assert_ends(instance)


class Loading(Common):
    """A generic instance before it has a function, and the frame that gives it one."""

    STANDING = "os.write(4, b'\\2\\0' + bytes(14))"  # a keeper's READY

    def generic(self, keeper=None, files={}):
        """`keeper`: source of a program that is started as keeper; without one there is no program."""
        argv = ["adapter.none"] if keeper is None else [PYTHON, self.keeper_file(keeper)]
        return self.instance("exec", argv, files, generic=True, load=False, **self.options)

    def keeper_file(self, source):
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        write_files(folder, {"adapter.test": f"import os, sys, time\n{source}"})
        return os.path.join(folder, "adapter.test")

    def load(self, instance, mode="exec", argv=("./bootstrap",), env={}):
        instance.mode = mode
        instance.control.sendall(encode(LOAD, body=load_body(mode, argv, {**instance.env, **env})))

    def test_the_new_environment_is_the_whole_one(self):
        instance = self.generic()
        self.assertEqual(read_frame(instance.control).kind, READY)
        write_files(instance.code, shell("env | cut -d= -f1 | sort | tr '\\n' ' '"))
        instance.env = {"PATH": os.environ["PATH"], "ONLY": "this"}
        self.load(instance)
        self.assertEqual(read_frame(instance.control).kind, READY)
        self.assertEqual(instance.invoke().stdout, b"EXECUTION_ID FUNCTION_PAYLOAD FUNCTION_PAYLOAD_FILE ONLY PATH PWD ")

    def test_empty_environment(self):
        instance = self.generic()
        read_frame(instance.control)
        write_files(instance.code, python("print(sorted(entry.split('=')[0] for entry in open('/proc/self/environ').read()[:-1].split('\\0')))"))
        instance.env = {}
        self.load(instance)
        read_frame(instance.control)
        self.assertEqual(instance.invoke().stdout, b"['EXECUTION_ID', 'FUNCTION_PAYLOAD', 'FUNCTION_PAYLOAD_FILE']\n")

    def test_an_invocation_need_not_wait_for_ready(self):
        instance = self.generic()
        read_frame(instance.control)
        write_files(instance.code, shell("cat"))
        body = load_body("exec", ["./bootstrap"], instance.env)
        instance.control.sendall(encode(LOAD, body=body) + encode(INVOKE, body=b"[1]"))
        self.assertEqual(read_frame(instance.control).kind, READY)
        self.assertEqual(instance.answer().stdout, b"[1]")

    def test_load_comes_in_pieces(self):
        instance = self.generic()
        read_frame(instance.control)
        write_files(instance.code, shell('echo "${#LARGE}"'))
        body = load_body("exec", ["./bootstrap"], {**instance.env, "LARGE": "x" * 100000, "ÄÖ": "2" * 100000})
        frame = encode(LOAD, body=body)
        for at in range(0, len(frame), 7001):
            instance.control.sendall(frame[at : at + 7001])
        self.assertEqual(read_frame(instance.control).kind, READY)
        self.assertEqual(instance.invoke().stdout, b"100000\n")

    def test_bad_loads_end_the_instance(self):
        good = load_body("exec", ["./bootstrap"], {"A": "1"})
        cases = {
            "nothing": b"", "no end": good[:-1], "mode": load_body("run", ["true"], {}), "generic": load_body("generic", ["true"], {}),
            "no mode": b"\0true\0\0", "no arguments": b"exec\0\0", "no end of arguments": b"exec\0true\0", "only the mode": b"exec\0",
            "empty entry": good + b"\0", "entry without name": good + b"=x\0", "entry without value": good + b"NAME\0",
            "too many": b"exec\0true\0\0" + b"A=\0" * 4094, "too long": b"exec\0" + b"x" * (256 * 1024),
            "nul bytes": bytes(256 * 1024), "noise": os.urandom(200000),
        }  # fmt: skip
        for name, body in cases.items():
            with self.subTest(name):
                instance = self.generic()
                read_frame(instance.control)
                try:
                    instance.control.sendall(encode(LOAD, body=body))
                except BrokenPipeError:
                    pass
                self.assertRaises(HungUp, read_frame, instance.control)
                self.assert_ends(instance)
                self.assertIn("faas-init: the worker sent a", instance.log())

    def test_load_is_welcome_once_and_only_there(self):
        load = encode(LOAD, body=load_body("exec", ["true"], {}))
        invoke = encode(INVOKE)
        for name, first, then in (("twice", load, load), ("invoke before load", b"", invoke)):
            with self.subTest(name):
                instance = self.generic()
                read_frame(instance.control)
                instance.control.sendall(first + then)
                for _ in range(first.count(b"exec")):
                    self.assertEqual(read_frame(instance.control).kind, READY)
                self.assertRaises(HungUp, read_frame, instance.control)
                self.assert_ends(instance)
        instance = self.ready("exec", ["true"], {}, **self.options)
        instance.control.sendall(load)
        self.assertRaises(HungUp, read_frame, instance.control)

    def test_load_before_ready_ends_the_instance(self):
        instance = self.generic("time.sleep(1000)")
        self.load(instance)
        self.assertRaises(HungUp, read_frame, instance.control)
        self.assert_ends(instance)

    def test_ready_comes_when_the_keeper_is_up(self):
        instance = self.generic(f"os.write(2, b'up'); {self.STANDING}; time.sleep(1000)")
        self.assertEqual(read_frame(instance.control).kind, READY)
        self.assertEqual(instance.err.take(), b"up")

    def test_keeper_has_its_two_sockets_and_no_more(self):
        instance = self.generic(f"os.write(3, ' '.join(sorted(os.listdir('/proc/self/fd'))[:6]).encode()); {self.STANDING}; time.sleep(1000)")
        self.assertEqual(read_frame(instance.control).kind, READY)
        self.assertEqual(instance.adapter.recv(100), b"0 1 2 3 4 5")  # 5: the listing itself

    def test_keeper_is_dead_when_an_executed_function_is_ready(self):
        instance = self.generic(f"{self.STANDING}\nos.fork()\nwhile True: time.sleep(1000)")
        read_frame(instance.control)
        write_files(instance.code, shell("cat"))
        self.load(instance)
        self.assertEqual(read_frame(instance.control).kind, READY)
        self.assertEqual(instance.others(), [])
        self.assertEqual(instance.invoke().stdout, b"{}")

    def test_without_a_usable_keeper_the_mode_starts_as_usual(self):
        """It could not be started, it ended before or after READY, or it speaks nonsense."""
        keepers = {"ends": "sys.exit(1)", "ends later": f"{self.STANDING}; os.read(3, 1)", "nonsense": "os.write(4, b'x' * 100); time.sleep(1000)"}
        source = python(f"os.write(3, b'\\2\\0' + bytes(14)); os.read(3, 1000); os.write(3, b'\\3\\0' + bytes(14)); time.sleep(1000)")
        for name, keeper in keepers.items():
            with self.subTest(name):
                instance = self.generic(keeper)
                self.assertEqual(read_frame(instance.control).kind, READY)
                if name == "ends later":
                    keeper = instance.others()
                    instance.adapter.sendall(b"x")
                    while any(os.path.exists(f"/proc/{pid}") for pid in keeper):  # until it has been reaped
                        time.sleep(0.001)
                write_files(instance.code, source)
                self.load(instance, "zygote")
                self.assertEqual(read_frame(instance.control).kind, READY)
                self.assertEqual(instance.invoke().exit_code, 0)
        instance = self.instance("zygote", ["/missing", "adapter.none"], source, generic=True, load=False, **self.options)
        self.assertEqual(read_frame(instance.control).kind, READY)

    def test_a_keeper_that_does_not_know_its_role_is_told_as_its_end(self):
        for mode in "zygote", "handler":
            with self.subTest(mode):
                instance = self.generic(f"{self.STANDING}; os.read(4, 1); sys.exit(5)")
                read_frame(instance.control)
                self.load(instance, mode)
                frame = read_frame(instance.control)
                self.assertEqual((frame.kind, os.WEXITSTATUS(frame.value)), (ADAPTER_EXIT, 5))
                if mode == "handler":
                    self.assertRaises(HungUp, read_exactly, instance.adapter, 1)

    def test_a_mount_that_covers_the_code_folder_is_entered(self):
        for mode, argv in (("exec", ["./bootstrap"]), ("handler", ["./bootstrap"])):
            with self.subTest(mode):
                instance = self.generic()
                read_frame(instance.control)
                cover(self, instance, python("print(open('data').read(), os.getcwd()); sys.stdout.flush(); os.write(3, b'x') if 'EXECUTION_ID' not in os.environ else 0"))
                self.load(instance, mode)
                if mode == "exec":
                    self.assertEqual(read_frame(instance.control).kind, READY)
                    self.assertEqual(instance.invoke().stdout.decode(), f"covered {instance.code}\n")
                else:
                    read_exactly(instance.adapter, 1)
                    self.assertEqual(instance.out.take().decode(), f"covered {instance.code}\n")

    def test_hang_up_and_sigterm_end_a_generic_instance(self):
        for keeper in (None, f"{self.STANDING}; time.sleep(1000)"):
            for end in (lambda i: i.hang_up(), lambda i: os.kill(i.init_pid(), signal.SIGTERM)):
                with self.subTest(keeper):
                    instance = self.generic(keeper)
                    read_frame(instance.control)
                    end(instance)
                    self.assert_ends(instance)


class BadZygote(Common):
    """A zygote is started by faas-init and still not trusted."""

    def zygote(self, source):
        return self.instance("zygote", ["./bootstrap"], python(source), **self.options)

    def test_noise_from_a_zygote_ends_it(self):
        instance = self.zygote("os.write(3, b'\\xff' * 64); time.sleep(1000)")
        frame = read_frame(instance.control)
        self.assertEqual((frame.kind, os.WTERMSIG(frame.value)), (ADAPTER_EXIT, signal.SIGKILL))

    def test_zygote_that_ends_during_an_invocation(self):
        instance = self.zygote("""
os.write(3, b"\\x02\\0" + bytes(14))
os.read(3, 4096)
if os.fork() == 0:
    time.sleep(1000)
os.kill(os.getpid(), 9)""")
        self.assertEqual(instance.wait_ready().kind, READY)
        done = instance.invoke()
        self.assertEqual((done.kind, done.flags, done.signal), (EXIT, DIRTY, signal.SIGKILL))
        self.assertEqual(read_frame(instance.control).kind, ADAPTER_EXIT)
        self.assertEqual(instance.others(), [])
        done = instance.invoke()
        self.assertEqual(done.flags, NOT_STARTED | DIRTY)

    def test_exit_that_nobody_asked_for_is_ignored(self):
        instance = self.zygote("os.write(3, (b'\\x03\\0' + bytes(14)) * 3 + b'\\x02\\0' + bytes(14)); time.sleep(1000)")
        self.assertEqual(read_frame(instance.control).kind, READY)


class FallsBack(Common):
    """A zygote that cannot be forked stands by itself, until one can."""

    SOURCE = """
folder = os.path.dirname(os.environ["FUNCTION_PAYLOAD_FILE"]) + "/../starts"
os.makedirs(folder, exist_ok=True)
start = len(os.listdir(folder))
open(f"{folder}/{start}", "w").close()
forks = start == FORKS_AT
os.write(3, b"\\x02\\0" + bytes([0 if forks else 4]) + bytes(13))
while os.read(3, 4096):
    os.write(1, b"%d" % start)
    if not forks:
        sys.exit(7)
    os.write(3, b"\\x03\\0" + bytes(14))
"""

    def start(self, forks_at):
        return self.instance("zygote", ["./bootstrap"], python(self.SOURCE.replace("FORKS_AT", str(forks_at))), **self.options)

    def outcomes(self, instance, count):
        return [(done.stdout, done.exit_code, done.flags) for done in (instance.invoke() for _ in range(count))]

    def test_each_process_serves_one_invocation(self):
        instance = self.start(99)
        self.assertEqual(instance.wait_ready().kind, READY)
        self.assertEqual(self.outcomes(instance, 3), [(b"0", 7, 0), (b"1", 7, 0), (b"2", 7, 0)])

    def test_one_that_can_be_forked_is_a_zygote_again(self):
        instance = self.start(1)
        self.assertEqual(instance.wait_ready().kind, READY)
        self.assertEqual(self.outcomes(instance, 4), [(b"0", 7, 0), (b"1", 0, 0), (b"1", 0, 0), (b"1", 0, 0)])


class AsPid1(Common):
    options = {"pid1": True}

    def exec(self, source):
        instance = self.ready("exec", ["./bootstrap"], python(source), pid1=True, uid=UID)
        return instance

    def test_function_cannot_look_into_pid_1(self):
        source = """
import ctypes
for name in "fd", "environ", "mem", "maps", "exe", "cwd", "root", "io", "fd/3", "task/1/mem":
    path = "/proc/1/" + name
    try:
        os.readlink(path) if name in ("exe", "cwd", "root", "fd/3") else os.listdir(path) if name == "fd" else open(path).read(1)
        print("got", name)
    except PermissionError:
        pass
libc = ctypes.CDLL(None)
print(libc.ptrace(16, 1, 0, 0), libc.ptrace(0x4206, 1, 0, 0))
number = {"x86_64": (434, 438), "aarch64": (434, 438)}[os.uname().machine]
pidfd = libc.syscall(number[0], 1, 0)
print(libc.syscall(number[1], pidfd, 3, 0))"""
        self.assertEqual(self.exec(source).invoke().stdout, b"-1 -1\n-1\n")

    def test_function_cannot_end_pid_1(self):
        source = """
for number in set(range(1, 65)) - {32, 33}:
    os.kill(1, number)
if os.fork() == 0:
    time.sleep(1000)
os.kill(-1, signal.SIGKILL)
print("done")"""
        instance = self.exec(source)
        for _ in range(3):
            done = instance.invoke()
            self.assertEqual((done.stdout, done.exit_code, done.flags), (b"done\n", 0, 0))


class Standalone(unittest.TestCase):
    """By hand, without a worker."""

    def run_init(self, mode, files, argv=("./bootstrap",), env=None, stdin=b"", expect=None):
        with tempfile.TemporaryDirectory() as folder:
            write_files(folder, files)
            run = os.path.join(folder, "run")
            os.mkdir(run)
            write_files(run, {"keep": "not faas-init's"})
            result = subprocess.run([INIT, mode, "--code", folder, "--run", run, "--", *argv], input=stdin,
                                    capture_output=True, timeout=60, env={"PATH": os.environ["PATH"], **(env or {})})  # fmt: skip
            self.assertEqual(os.listdir(run), ["keep"])
        return result

    def test_payload_from_the_environment(self):
        result = self.run_init("exec", shell('cat; cat $FUNCTION_PAYLOAD_FILE; echo $FUNCTION_PAYLOAD'), env={"FUNCTION_PAYLOAD": "[1]"})
        self.assertEqual(result.stdout, b"[1][1][1]\n", result.stderr)

    def test_payload_from_stdin_and_none_at_all(self):
        self.assertEqual(self.run_init("exec", shell("echo $FUNCTION_PAYLOAD"), stdin=b"[2]").stdout, b"[2]\n")
        self.assertEqual(self.run_init("exec", shell("echo $FUNCTION_PAYLOAD; cat")).stdout, b"{}\n{}")

    def test_status_is_the_functions(self):
        self.assertEqual(self.run_init("exec", shell("exit 42")).returncode, 42)
        self.assertEqual(self.run_init("exec", shell("kill -TERM $$")).returncode, 128 + 15)
        result = self.run_init("exec", {}, argv=["./missing"])
        self.assertEqual((result.returncode, result.stderr), (127, b"faas-init: cannot start ./missing: No such file or directory\n"))

    def test_a_generic_one_says_that_it_has_no_function(self):
        for arguments in ([], ["--", "true"]):
            result = subprocess.run([INIT, "generic", "--run", "/", *arguments], stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
            self.assertEqual((result.returncode, result.stderr), (64, b"faas-init: a generic instance has no function until its worker loads one\n"))

    def test_wrong_usage_shows_the_right_one(self):
        for arguments in (["generic", "--"], [], ["exec"], ["exec", "--"], ["run", "--", "true"], ["exec", "--code"], ["exec", "--what", "x", "--", "true"]):
            with self.subTest(arguments):
                result = subprocess.run([INIT, *arguments], capture_output=True, timeout=60)
                self.assertEqual(result.returncode, 64)
                self.assertIn(b"usage: faas-init", result.stderr)




def as_pid1(case):
    """The same tests, with faas-init as the first process of a PID namespace."""
    return type(case.__name__ + "AsPid1", (case,), {"options": {"pid1": True}})


for case in (Invocations, Leftovers, Endings, Handler, BadZygote, FallsBack):
    for variant in (as_pid1(case), as_generic(case), as_generic(as_pid1(case))):
        globals()[variant.__name__] = variant
AsPid1Generic = as_generic(AsPid1)
LoadingAsPid1 = as_pid1(Loading)
del case, variant

if __name__ == "__main__":
    unittest.main()
