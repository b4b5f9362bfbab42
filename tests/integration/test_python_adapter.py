#!/usr/bin/env python3
"""The Python adapter: scripts from a zygote behave as `python3 main.py` does; handlers keep their contract."""

import hashlib
import json
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import tempfile
import unittest

from instance import (
    ADAPTER_EXIT, AREA, DIRTY, ERROR, EXIT, IN_AREA, INIT, INVOKE, LIBEXEC, LOAD, PYTHON, READY, RESULT, HungUp, InstanceTest, as_generic,
    encode, load_body, read_frame, write_files,
)  # fmt: skip

ADAPTER = os.path.join(LIBEXEC, "python", "adapter.py")

# Each is run by `python3 main.py` and from a zygote (twice): output, log and status must be the same.
SCRIPTS = {
    "old platform's sample": """
import json, os
payload = json.loads(os.environ.get('FUNCTION_PAYLOAD', '{}'))
print(json.dumps({'result': 'success', 'payload': payload}))""",
    "no newline at the end": "print('text', end='')",
    "nothing": "",
    "exit 3": "import sys; print('x'); sys.exit(3)",
    "exit with a message": "import sys; sys.exit('a message')",
    "exit None": "import sys; sys.exit(None)",
    "exit 300": "import sys; sys.exit(300)",
    "exit -1": "raise SystemExit(-1)",
    "exit with an object": "raise SystemExit((1, 2))",
    "os._exit": "import os; print('lost'); os._exit(5)",
    "killed by itself": "import os, signal; os.kill(os.getpid(), signal.SIGUSR1)",
    "abort": "import os; os.abort()",
    "KeyboardInterrupt": "raise KeyboardInterrupt",
    "exception": "def f():\n    return 1 / 0\nf()",
    "chained exceptions": "try:\n    {}['a']\nexcept KeyError as e:\n    raise ValueError('again') from e",
    "exception in a handler of one": "try:\n    {}['a']\nexcept KeyError:\n    int('x')",
    "exception group": "raise ExceptionGroup('several', [ValueError('a'), TypeError('b')])",
    "exception with notes": "e = ValueError('a')\ne.add_note('note')\nraise e",
    "syntax error": "print('x'\nfoo bar",
    "indentation error": "if True:\nprint(1)",
    "syntax warning": "x = 1\nprint(x is 1)",
    "deprecation warnings": "import warnings\nprint('\\d')\nwarnings.warn('old', DeprecationWarning)",
    "own excepthook": "import sys\nsys.excepthook = lambda *a: print('hook', a[0].__name__, a[2].tb_lineno)\n1 / 0",
    "broken excepthook": "import sys\ndef hook(*a):\n    raise ValueError('in hook')\nsys.excepthook = hook\n1 / 0",
    "atexit": "import atexit\natexit.register(print, 'first')\natexit.register(print, 'second')\nprint('main')",
    "atexit that fails": "import atexit\natexit.register(lambda: 1 / 0)\nprint('main')",
    "atexit after exception": "import atexit\natexit.register(print, 'bye')\n1 / 0",
    "thread outlives main": """
import threading, time
def work():
    time.sleep(0.05)
    print('thread done')
threading.Thread(target=work).start()
print('main done')""",
    "daemon thread": "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\nprint('end')",
    "exception in thread": "import threading\ndef work():\n    1 / 0\nt = threading.Thread(target=work, name='t')\nt.start()\nt.join()",
    "threads as in a fresh process": """
import threading
print(threading.current_thread() is threading.main_thread(), threading.active_count(), threading.main_thread().name)
import os
print(threading.main_thread().native_id == os.getpid())""",
    "unclosed file": "import os\nf = os.fdopen(os.dup(1), 'w')\nf.write('buffered')",
    "finaliser": "class A:\n    def __del__(self):\n        print('deleted')\na = A()\na.me = a\nprint('end')",
    "finaliser in a module": "import helper",
    "weakref finaliser": "import weakref\nclass A: pass\na = A()\nweakref.finalize(a, print, 'finalised')\nprint('end')",
    "temporary folder": "import tempfile, os\nd = tempfile.TemporaryDirectory()\nprint(os.path.isdir(d.name))",
    "module's attributes": """
import sys
print(__name__, __file__, __spec__, __package__, __doc__, __cached__, type(__loader__).__name__, __annotations__)
print(sys.argv, sys.path[0], sorted(globals()))
print(sys.modules['__main__'].__dict__ is globals(), __builtins__)""",
    "docstring and annotations": "'doc'\nx: int = 1\nprint(__doc__, __annotations__)",
    "standard input as text": "print(input(), open(0).read())",
    "standard input as bytes": "import sys\nprint(sys.stdin.buffer.read())",
    "standard input by line": "import sys\nfor line in sys.stdin:\n    print(repr(line), sys.stdin.isatty(), sys.stdin.encoding, sys.stdin.errors)",
    "standard input of a child": "import subprocess\nsubprocess.run(['cat'])",
    "streams": "import sys\nfor s in sys.stdin, sys.stdout, sys.stderr:\n    print(s.name, s.encoding, s.errors, s.line_buffering, s.write_through, s.fileno())",
    "signals": """
import signal
for number in range(1, 32):
    print(number, signal.getsignal(number))
print(signal.pthread_sigmask(signal.SIG_BLOCK, []))""",
    "closed stdout": "import sys\nprint('a')\nsys.stdout.close()",
    "replaced stdout": "import sys, io\nsys.stdout = io.StringIO()\nprint('a')",
    "flush that fails": "import os\nprint('a')\nos.close(1)",
    "large output": "print('x' * 1000000)\nprint('y' * 100000)",
    "bytes out": "import sys\nsys.stdout.buffer.write(bytes(range(256)))",
    "unencodable output": "print('\\ud800')",
    "fork": "import os, sys\nprint('before')\npid = os.fork()\nif pid:\n    os.waitpid(pid, 0)\nprint('parent' if pid else 'child')",
    "subprocess": "import subprocess\nprint(subprocess.run(['sh', '-c', 'cat; echo a; exit 3'], capture_output=True))",
    "exec": "import os\nos.execvp('echo', ['echo', 'replaced'])",
    "pool of processes": """
import multiprocessing
def square(n): return n * n
if __name__ == '__main__':
    with multiprocessing.get_context('fork').Pool(2) as pool:
        print(pool.map(square, range(5)))""",
    "spawned process": """
import multiprocessing
def work(q): q.put(__name__)
if __name__ == '__main__':
    context = multiprocessing.get_context('spawn')
    q = context.Queue()
    p = context.Process(target=work, args=(q,))
    p.start()
    print(q.get())
    p.join()
    print(p.exitcode)""",
    "executors": """
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
def square(n): return n * n
print(list(ProcessPoolExecutor(2).map(square, range(4))), list(ThreadPoolExecutor(2).map(square, range(4))))""",
    "asyncio": "import asyncio\nasync def main():\n    await asyncio.sleep(0)\n    print('async')\nasyncio.run(main())",
    "pickle of a main class": "import pickle\nclass A: pass\nprint(type(pickle.loads(pickle.dumps(A()))) is A)",
    "source of a main function": "import inspect\ndef f():\n    return 1\nprint(inspect.getsource(f))",
    "import of main": "import __main__\nx = 1\nprint(__main__.x)",
    "type hints of main": "import typing\nclass A:\n    b: 'A'\nprint(typing.get_type_hints(A))",
    "recursion": "def f(n):\n    return f(n + 1)\ntry:\n    f(0)\nexcept RecursionError as e:\n    print(e)",
    "collector": "import gc\nprint(gc.isenabled(), gc.get_threshold())",
    "module of its own": "import sub.mod\nprint(sub.mod.VALUE)",
    "module that fails": "import broken",
    "module with syntax error": "import wrong",
    "module that is not there": "import not_there",
    "C library's output": "import ctypes\nctypes.CDLL(None).printf(b'from C')",
    "latin-1 source": b"# -*- coding: latin-1 -*-\nprint('\xe4')",
    "source with BOM": b"\xef\xbb\xbfprint('bom')",
    "future import does not leak in": "def f(x: int): pass\nprint(f.__annotations__)",
    "environment": "import os\nprint(sorted(k for k in os.environ if not k.startswith(('INSTANCE', 'ASAN'))), os.environ['FUNCTION_PAYLOAD'])",
    "logging": "import logging\nlogging.warning('careful')\nlogging.getLogger('a').error('bad')",
    "imports that speak": "import this\nimport asynchat",
    "imports of many kinds": """
import os, sys, xml.etree.ElementTree as tree
from concurrent import futures
from json import (
    loads, dumps)
import\tstring , textwrap
TEXT = '''
import not_there
import decimal
'''
print(tree.fromstring('<a>b</a>').text, futures.Future, loads('1'), dumps('a'), string.digits, textwrap.dedent(' a'))""",
    "breakpoint at end of input": "import os, sys\nprint(os.read(0, 100), os.read(0, 100))",
}  # fmt: skip
FILES = {
    "sub/__init__.py": "", "sub/mod.py": "VALUE = __name__", "broken.py": "def f():\n    1 / 0\nf()", "wrong.py": "x = (",
    "helper.py": "class A:\n    def __del__(self):\n        print('deleted')\na = A()",
}  # fmt: skip
ENV = {"PYTHONDONTWRITEBYTECODE": "1"}
PAYLOAD = b'{"line": 1}\nline two \xc3\xa4\n'


def without_addresses(output):
    return re.sub(r"0x[0-9a-f]+", "0x…", output.decode())


AS_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def escape_controls(body):
    """As the worker does it: no control character of compact JSON is outside of a string."""
    return re.sub(rb"[\x00-\x1f]", lambda match: json.dumps(match[0].decode())[1:-1].encode(), body)


def large_texts(chance):
    """Texts of JSON with strings of some 64 KiB and more, alone, nested, as keys, with and without what needs an escape."""
    yield from ('{"a":"%s","a":1,"b":"%s","a":"%s"}' % tuple(letter * 70_000 for letter in "xyz"),
                '["%s","NaN",1e400,"Infinity"]' % ("x" * 70_000), '"%s\\u0000"' % ("x" * 70_000),
                ' {"%s" :\n "%s"\t} ' % ("k" * 70_000, "v" * 70_000), '["%s",%s]' % ("x" * 70_000, "9" * 4000),
                '["%s",NaN]' % ("x" * 70_000), '[NaN,"%s"]' % ("x" * 70_000))  # fmt: skip
    for _ in range(150):
        value = random_value(chance, 4)
        yield json.dumps(value, ensure_ascii=chance.random() < 0.3, indent=chance.choice((None, None, 1)),
                         separators=chance.choice((None, (",", ":"))))  # fmt: skip


def random_value(chance, depth):
    if depth and chance.random() < 0.5:
        items = [random_value(chance, depth - 1) for _ in range(chance.choice((0, 1, 2, 3, 20 if depth > 2 else 4)))]
        return items if chance.random() < 0.5 else {random_string(chance, 0.02): item for item in items}
    if chance.random() < 0.5:
        return random_string(chance, 0.5)
    return chance.choice((None, True, 0, -1, 1 << 80, 0.1, -0.0, 1e300, 5e-324, [], {}))


def random_string(chance, large):
    """Some with one character that is not plain, at any place of it."""
    size = chance.choice((65_534, 65_535, 65_536, 65_537, 90_000)) if chance.random() < large else chance.randrange(5)
    text = chance.choice("xé€😀") * size
    if chance.random() < 0.3:
        at = chance.randrange(size + 1)
        text = text[:at] + chance.choice('"\\/\n\t\0\x1f\x7f\u2028\ufeff') + text[at:]
    return text


class Process(InstanceTest):
    def zygote(self, source, files=FILES, env=None, **options):
        files = {"main.py": source, **files}
        return self.ready("zygote", [PYTHON, ADAPTER, "process", "main.py"], files, env=env, **options)

    def direct(self, folder):
        env = {"PATH": os.environ["PATH"], "EXECUTION_ID": "exec-1", "FUNCTION_PAYLOAD": PAYLOAD.decode(),
               "FUNCTION_PAYLOAD_FILE": "/run/faas/payload", **ENV}  # fmt: skip
        payload = os.path.join(folder, "..", "payload")
        with open(payload, "wb") as file:
            file.write(PAYLOAD)
        with open(payload, "rb") as file:
            return subprocess.run([PYTHON, "main.py"], cwd=folder, env=env, stdin=file, capture_output=True, timeout=60)

    def test_scripts_behave_as_without_a_zygote(self):
        for name, source in SCRIPTS.items():
            with self.subTest(name):
                instance = self.zygote(source, env=ENV)
                expected = self.direct(instance.code)
                for _ in range(2):
                    done = instance.invoke(PAYLOAD)
                    status = done.exit_code if done.signal is None else -done.signal
                    self.assertEqual(done.stdout, expected.stdout, done.stderr)
                    self.assertEqual(without_addresses(done.stderr), without_addresses(expected.stderr))
                    self.assertEqual((status, done.flags), (expected.returncode, 0))
                instance.close()

    def test_variables_of_the_interpreter_mean_what_they_mean_without_a_zygote(self):
        """The function's own folders are not where the zygote imports from, and are where a script does."""
        source = "import sys, json, wave\nprint(sys.path, json.__file__, wave.__file__, sys.flags.optimize)"
        files = {"lib/json.py": "print('own json')", "lib/mmap.py": "print('own mmap')", "lib/wave.py": "", "main.py": source}
        standard = subprocess.run([PYTHON, "-c", "import os; print(os.path.dirname(os.__file__), end='')"], capture_output=True, text=True).stdout
        for env in ({"PYTHONPATH": "lib"}, {"PYTHONPATH": "/none:lib:" + standard}, {"PYTHONSAFEPATH": "1"},
                    {"PYTHONSAFEPATH": "1", "PYTHONPATH": "lib"}, {"PYTHONOPTIMIZE": "1"}, {"PYTHONWARNINGS": "error"}):  # fmt: skip
            with self.subTest(env):
                instance = self.instance("zygote", [PYTHON, ADAPTER, "process", "main.py"], files, env=env, generic=False)
                self.assertEqual(instance.wait_ready().kind, READY)
                expected = subprocess.run([PYTHON, "main.py"], cwd=instance.code, env={"PATH": os.environ["PATH"], **env}, capture_output=True, timeout=60)
                for _ in range(2):
                    done = instance.invoke()
                    self.assertEqual((done.stdout, done.stderr), (expected.stdout, expected.stderr))

    def test_own_modules_win_over_preloaded_ones(self):
        """A file named like a module of the standard library is found first, as without a zygote."""
        for name in ("json", "random", "re", "tempfile", "warnings", "mmap", "enum"):
            with self.subTest(name):
                instance = self.zygote(f"import {name}\nprint({name}.MINE)", {f"{name}.py": "MINE = 1"})
                for _ in range(3):  # more is preloaded after the first
                    done = instance.invoke()
                    self.assertEqual(done.stdout, b"1\n", done.stderr)
                instance.close()

    def test_missing_script_is_an_error_each_time(self):
        instance = self.ready("zygote", [PYTHON, ADAPTER, "process", "main.py"], {})
        for _ in range(2):
            done = instance.invoke()
            self.assertEqual(done.exit_code, 1)
            self.assertIn(b"No such file or directory: '%s/main.py'" % instance.code.encode(), done.stderr)

    def test_invocations_do_not_see_each_other(self):
        source = """
import os, random, sys, json, string
print(os.environ['EXECUTION_ID'], os.environ.get('FUNCTION_PAYLOAD'), hasattr(json, 'left'), os.path.exists('x'), file=sys.stderr)
json.left = True
os.environ['LEFT'] = '1'
print(random.random(), os.getpid(), os.urandom(8))"""
        instance = self.zygote(source)
        outputs = set()
        for i in range(20):
            done = instance.invoke(b"%d" % i, f"exec-{i}")
            self.assertEqual(done.stderr.decode(), f"exec-{i} {i} False False\n")
            outputs.add(done.stdout.split()[0])
        self.assertEqual(len(outputs), 20)
        self.assertEqual(instance.invoke(b"x" * 100000, "last").stderr, b"last None False False\n")

    def test_only_standard_descriptors_are_open(self):
        source = """
import os
print(sorted(fd for fd in os.listdir('/proc/self/fd') if os.path.exists('/proc/self/fd/' + fd)))
print(open('/proc/self/oom_score_adj').read().strip(), os.getsid(0) == os.getpid(), os.access('/proc/self/mem', os.W_OK))"""
        self.assertEqual(self.zygote(source).invoke().stdout, b"['0', '1', '2']\n1000 True True\n")

    def test_leftovers_are_dead_when_exit_is_told(self):
        daemons = """
import os, signal, sys, time
for i in range(5):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for number in set(range(1, 65)) - {9, 19, 32, 33}:
                signal.signal(number, signal.SIG_IGN)
            time.sleep(1000)
        os._exit(0)
print('main ends')"""
        sibling = """
import ctypes, os, time
number = {'x86_64': 56, 'aarch64': 220}[os.uname().machine]
if ctypes.CDLL(None).syscall(number, 0x8000 | 17, 0, 0, 0, 0) == 0:
    time.sleep(1000)
print('main ends')"""
        for source in (daemons, sibling):
            for pid1 in (False, True):
                with self.subTest(source=source, pid1=pid1):
                    instance = self.zygote(source, pid1=pid1)
                    for _ in range(5):
                        done = instance.invoke()
                        self.assertEqual((done.stdout, done.flags, done.exit_code), (b"main ends\n", 0, 0))
                        # the zygote and the child that stands ready
                        self.assertLessEqual(len(instance.others()), 2)
                    instance.close()

    def test_function_cannot_reach_the_zygote(self):
        source = """
import ctypes, os, signal
zygote = os.getppid()
for number in set(range(1, 65)) - {9, 19, 32, 33}:
    if number in (1, 2, 15):
        os.kill(zygote, number)
for name in 'mem', 'environ', 'maps':
    try:
        print(name, open(f'/proc/{zygote}/{name}').read(1))
    except PermissionError:
        pass
print(ctypes.CDLL(None).ptrace(16, zygote, 0, 0))"""
        instance = self.zygote(source, pid1=True, uid=54321)
        for _ in range(2):
            done = instance.invoke()
            self.assertEqual((done.stdout, done.flags), (b"-1\n", 0), done.stderr)

    def test_function_that_kills_its_zygote_is_told(self):
        instance = self.zygote("import os, time\nos.kill(os.getppid(), 9)\ntime.sleep(1000)")
        done = instance.invoke()
        self.assertEqual((done.kind, done.flags), (EXIT, DIRTY))
        self.assertEqual(read_frame(instance.control).kind, ADAPTER_EXIT)
        self.assertEqual(instance.others(), [])

    def test_a_text_that_names_a_program_does_not_run_it_in_the_zygote(self):
        source = '"""Text\nimport unittest.__main__\nfrom json import __main__, loads\n"""\nprint(1)'
        instance = self.zygote(source)
        for _ in range(3):
            done = instance.invoke()
            self.assertEqual((done.kind, done.flags, done.stdout, done.stderr), (EXIT, 0, b"1\n", b""))

    def test_children_that_end_before_their_invocation_are_not_replaced_for_ever(self):
        """As the kernel ends each when the function's files have left no memory for it."""
        instance = self.zygote("print('hello')")
        self.assertEqual(instance.invoke().stdout, b"hello\n")
        zygote = min(instance.others())
        killed = set()
        while len(killed) < 200:
            try:
                with open(f"/proc/{zygote}/task/{zygote}/children") as file:
                    children = [int(pid) for pid in file.read().split()]
                for pid in children:
                    os.kill(pid, signal.SIGKILL)
                killed.update(children)
            except FileNotFoundError:
                break
            except ProcessLookupError:
                pass  # it was replaced meanwhile
        self.assertLess(len(killed), 200)
        self.assertEqual(read_frame(instance.control).kind, ADAPTER_EXIT)

    def test_large_payload(self):
        source = "import os, sys, hashlib\nd = sys.stdin.buffer.read()\nprint(len(d), 'FUNCTION_PAYLOAD' in os.environ, d == open(os.environ['FUNCTION_PAYLOAD_FILE'], 'rb').read())\nsys.stderr.write(hashlib.sha256(d).hexdigest())"
        payload = os.urandom(6 << 20)
        done = self.zygote(source).invoke(payload)
        self.assertEqual(done.stdout, b"%d False True\n" % len(payload))
        self.assertEqual(done.stderr.decode(), hashlib.sha256(payload).hexdigest())

    def test_many_invocations_keep_the_zygote_flat(self):
        instance = self.zygote("import json; print(json.dumps({'a': list(range(1000))}))")

        def footprint():
            zygote = min(instance.others())
            with open(f"/proc/{zygote}/statm") as file:
                return len(os.listdir(f"/proc/{zygote}/fd")), int(file.read().split()[1])

        for _ in range(20):
            instance.invoke()
        before = footprint()
        for _ in range(200):
            self.assertEqual(instance.invoke().exit_code, 0)
        after = footprint()
        self.assertEqual(after[0], before[0])
        self.assertLess(after[1], before[1] + 50)

    def test_by_hand(self):
        instance = self.zygote(SCRIPTS["old platform's sample"])
        command = [INIT, "zygote", "--code", instance.code, "--run", instance.run, "--", PYTHON, ADAPTER, "process", "main.py"]
        result = subprocess.run(command, input=b"[1]", capture_output=True, timeout=60)
        self.assertEqual(json.loads(result.stdout), {"result": "success", "payload": [1]})


class Handler(InstanceTest):
    def start(self, source, target="main.handler", files={}, env=None):
        instance = self.instance("handler", [PYTHON, ADAPTER, "handler", target], {"main.py": source, **files}, env=env)
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
import sys
calls = 0
print('loading')
def handler(event, context):
    global calls
    calls += 1
    print('out', calls)
    print('err', calls, file=sys.stderr)
    return {'event': event, 'calls': calls, 'ä': None}""")
        for calls in (1, 2, 3):
            done = instance.invoke(b'{"a": [1, 2.5, "\\u00e4"]}')
            self.assertEqual(json.loads(done.body), {"event": {"a": [1, 2.5, "ä"]}, "calls": calls, "ä": None})
            self.assertEqual(done.stdout, b"loading\n" * (calls == 1) + b"out %d\n" % calls)
            self.assertEqual(done.stderr, b"err %d\n" % calls)

    def test_context(self):
        env = {"FUNCTION_NAME": "f", "FUNCTION_VERSION": "3", "FUNCTION_MEMORY_MB": "128"}
        instance = self.loaded("""
import os
def handler(event, context):
    return [context.function_name, context.function_version, context.memory_limit_mb, context.execution_id, context.aws_request_id,
            os.environ['EXECUTION_ID'], os.environ.get('FUNCTION_PAYLOAD'), context.get_remaining_time_in_millis()]""", env=env)
        values = json.loads(instance.invoke(b"[1]", "exec-7", 5000).body)
        self.assertEqual(values[:7], ["f", "3", 128, "exec-7", "exec-7", "exec-7", "[1]"])
        self.assertTrue(0 < values[7] <= 5000)
        large = b'"%s"' % (b"x" * 100000)
        self.assertIsNone(json.loads(instance.invoke(large).body)[6])

    def test_coroutines_share_one_loop(self):
        instance = self.loaded("""
import asyncio
loops = set()
async def handler(event, context):
    await asyncio.sleep(0)
    loops.add(asyncio.get_running_loop())
    if event:
        raise LookupError('no ' + event)
    return len(loops)""")
        self.assertEqual([self.result(instance) for _ in range(3)], [1, 1, 1])
        self.assertEqual(self.error(instance, "luck")["type"], "LookupError")
        self.assertEqual(self.result(instance), 1)

    def test_exception_has_type_message_and_own_frames(self):
        instance = self.loaded("def inner():\n    raise ValueError('bad ä')\ndef handler(event, context):\n    inner()")
        error = self.error(instance)
        path = os.path.join(instance.code, "main.py")
        self.assertEqual(error["type"], "ValueError")
        self.assertEqual(error["message"], "bad ä")
        self.assertEqual(error["stack"], [f'File "{path}", line 4, in handler', f'File "{path}", line 2, in inner'])

    def test_every_exception_is_an_answer(self):
        cases = {
            "import sys; sys.exit(3)": ("SystemExit", "sys.exit(3)"), "raise KeyboardInterrupt": ("KeyboardInterrupt", ""),
            "def f(): f()\n    f()": ("RecursionError", "maximum recursion"), "raise GeneratorExit": ("GeneratorExit", ""),
            "class E(Exception):\n        def __str__(self): raise ValueError\n    raise E()": ("E", "could not be made"),
            "raise ValueError('\\ud800')": ("ValueError", "?"), "raise ValueError('x' * 10**7)": ("ValueError", "xxx"),
            "raise BaseException('base')": ("BaseException", "base"),
        }  # fmt: skip
        for body, (kind, message) in cases.items():
            with self.subTest(body):
                instance = self.loaded(f"def handler(event, context):\n    if not event: return 1\n    {body}")
                error = self.error(instance, 1)
                self.assertEqual(error["type"], kind)
                self.assertIn(message, error["message"])
                self.assertEqual(self.result(instance), 1)
                instance.close()

    def test_results_that_are_not_json(self):
        cases = {"{1, 2}": "TypeError", "float('nan')": "ValueError", "b'x'": "TypeError", "object()": "TypeError",
                 "'\\ud800'": "ValueError", "(lambda a: a.append(a) or a)([])": "ValueError"}  # fmt: skip
        for value, kind in cases.items():
            with self.subTest(value):
                instance = self.loaded(f"def handler(event, context):\n    return {value}")
                error = self.error(instance)
                self.assertEqual(error["type"], kind)
                self.assertIn("the result cannot be JSON", error["message"])
                instance.close()

    def test_payload_that_is_not_json_or_too_deep(self):
        instance = self.loaded("def handler(event, context):\n    return event")
        for payload, kind in ((b"{", "ValueError"), (b"\xff", "ValueError"), (b"[" * 100000, "RecursionError")):
            done = instance.invoke(payload)
            self.assertEqual((done.kind, json.loads(done.body)["type"]), (ERROR, kind))
        self.assertEqual(self.result(instance, 5), 5)

    def test_large_payload_and_result(self):
        instance = self.loaded("def handler(event, context):\n    return event * 2")
        text = "ä" * (3 << 20)
        self.assertEqual(self.result(instance, text), text * 2)

    def test_payloads_of_all_sizes_one_behind_the_other(self):
        instance = self.loaded("""
import hashlib
def handler(event, context):
    return [len(event), hashlib.sha256(event.encode()).hexdigest()]""")
        limit = 96 * 1024 - 2  # up to here it is in the environment, and read in another way
        for size in (5, limit + 1, limit + 1, limit, 3, 1 << 20, 3 << 20, 8192, 8190, 1 << 20, 1 << 20, 100_000, 0, 2 << 20):
            text = "".join(map(str, range(size // 5)))[:size].ljust(size, "x")
            with self.subTest(size=size):
                self.assertEqual(self.result(instance, text), [size, hashlib.sha256(text.encode()).hexdigest()])

    def test_end_in_the_middle_of_a_large_payload(self):
        instance = self.loaded("def handler(event, context):\n    return event")
        self.assertEqual(self.result(instance, "x" * 200_000), "x" * 200_000)
        whole = encode(INVOKE, 0, 1000, b"exec-2", b'"%s"' % (b"x" * 200_000))
        instance.adapter.sendall(whole[:100_000])
        instance.adapter.close()
        frame = read_frame(instance.control)
        self.assertEqual((frame.kind, frame.value), (ADAPTER_EXIT, 0))

    def test_small_payloads_and_results_are_what_json_makes_of_them(self):
        instance = self.loaded("""
class Text(str): pass
class Pairs(dict): pass
made = {'text': Text('ä'), 'pairs': Pairs({1: (1, 2), None: True, 2.5: '\\t\\x7f\\u2028'}), 'again': [[1]] * 2}
def handler(event, context):
    return made if event == 'made' else [repr(event), made['again']]""")
        payloads = (b' 1 ', b'\n{"a": [1, 2.5e3, "\\u00e4", null]}\n', "\ufeff[1]".encode(), "[1]".encode("utf-16"), b"1 2", b"[NaN, -Infinity]", b'""', b"",
                    '"ä\U0001f600"'.encode(), b'{"a": 1, "a": 2}', b"\x00", b"[1,]", b'"a\nb"', b"1\x00")  # fmt: skip
        for payload in payloads:
            with self.subTest(payload=payload):
                done = instance.invoke(payload)
                try:
                    expected = [repr(json.loads(payload)), [[1], [1]]]
                except ValueError as error:
                    self.assertEqual((done.kind, json.loads(done.body)["message"]), (ERROR, f"the payload is not JSON: {error}"))
                    continue
                self.assertEqual((done.kind, json.loads(done.body)), (RESULT, expected))
        done = instance.invoke(b'"made"')
        made = {"text": "ä", "pairs": {1: (1, 2), None: True, 2.5: "\t\x7f\u2028"}, "again": [[1]] * 2}
        self.assertEqual(done.body.decode(), json.dumps(made, ensure_ascii=False, separators=(",", ":")))

    def test_environment_of_each_call_is_the_whole_process_s(self):
        instance = self.loaded("""
import ctypes, os, subprocess
getenv = ctypes.CDLL(None).getenv
getenv.restype = ctypes.c_char_p
NAMES = 'EXECUTION_ID', 'FUNCTION_PAYLOAD'
def handler(event, context):
    assert os.environ['EXECUTION_ID'] == context.execution_id
    child = subprocess.run(['env'], capture_output=True).stdout.decode().splitlines()
    views = [[os.environ.get(name) for name in NAMES], [(getenv(name.encode()) or b'none').decode() for name in NAMES],
             sorted(line for line in child if line.startswith(NAMES))]
    if event == [1]: os.environ.update(EXECUTION_ID='mine', FUNCTION_PAYLOAD='mine')
    if event == [2]: del os.environ['EXECUTION_ID'], os.environ['FUNCTION_PAYLOAD']
    if event == [3]: os.putenv('EXECUTION_ID', 'mine'); os.unsetenv('FUNCTION_PAYLOAD')
    return views""")  # fmt: skip
        for payload in (b"[1]", b"[2]", b"[3]", b'"' + b"long" * 10_000 + b'"', b"[4]", b'"' + b"x" * 100_000 + b'"', b"[5]"):
            with self.subTest(payload=payload[:9]):
                done = instance.invoke(payload)
                self.assertEqual(done.kind, RESULT, done.body)
                python, c, child = json.loads(done.body)
                small = payload.decode() if len(payload) < 96 * 1024 else None
                self.assertEqual(python, [python[0], small])
                self.assertEqual(c, [python[0], small or "none"])
                self.assertEqual(child, [f"EXECUTION_ID={python[0]}"] + [f"FUNCTION_PAYLOAD={small}"] * bool(small))

    def test_environment_of_earlier_calls_takes_no_memory(self):
        instance = self.loaded("""
def handler(event, context):
    with open('/proc/self/statm') as file:
        return int(file.read().split()[1]) * 4096""")
        sizes = [self.result(instance, f"{n:090000}") for n in range(400)]
        self.assertLess(sizes[-1] - sizes[50], 4 << 20, "bytes; the payloads since then have 31 MB together")

    def test_memory_of_a_large_payload_is_there_for_the_next(self):
        instance = self.loaded("""
import resource
def handler(event, context):
    return [resource.getrusage(resource.RUSAGE_SELF).ru_minflt, event]""", env={"FUNCTION_MEMORY_MB": "128"})  # fmt: skip
        faults = [self.result(instance, "x" * (6 << 20))[0] for _ in range(6)]
        self.assertLess(faults[5] - faults[3], 1536, "page faults of two calls; the payload has 1536 pages")

    def with_area(self, code, size=1 << 20, **options):
        """(instance, area): it has asked for one after a large payload, and was passed one."""
        instance = self.loaded(code, **options)
        done = instance.invoke(b'"%s"' % (b"x" * 300_000))
        self.assertEqual((done.kind, done.flags), (RESULT, AREA), done.stderr)
        area, done = instance.pass_area(size)
        self.assertEqual((done.kind, done.flags), (RESULT, AREA))
        self.addCleanup(area.close)
        return instance, area

    def result_in_area(self, area, done):
        self.assertEqual((done.kind, done.flags), (RESULT, IN_AREA))
        size, *there = struct.unpack(f"<{len(done.body) // 4}I", done.body)
        self.assertEqual((there, there[-1]), (sorted(there), size))
        self.assertEqual(len(there), -(-size // (768 * 1024)))
        return json.loads(area[:size])

    def test_large_bodies_go_through_memory_of_both_sides(self):
        instance, area = self.with_area("def handler(event, context):\n    return event", 6 << 20)
        for number, event in enumerate(("x" * ((6 << 20) - 2), "ä" * 300_000, ["y" * 300_000, {"a": 'q"' * 200_000}], list(range(60_000)))):
            with self.subTest(number=number):
                payload = json.dumps(event, ensure_ascii=False).encode()
                instance.send_in_area(area, payload)
                self.assertTrue(self.result_in_area(area, instance.answer()) == event, "another value")
                self.assertEqual(self.result(instance, number), number, "a small one between them")

    def test_a_payload_that_is_still_coming_is_awaited(self):
        instance, area = self.with_area("def handler(event, context):\n    return event", 6 << 20)
        events = ("x" * 4_000_000, 'quote " and so on' * 100_000, list(range(60_000)), "y" * 300_000, ["z" * 2_000_000, 1])
        for number, event in enumerate(events):
            with self.subTest(number=number):
                payload = json.dumps(event).encode()
                marks = [*range(0, len(payload), 200_000), len(payload)]
                area[: len(payload)] = b"?" * len(payload)  # which is no JSON
                instance.say_in_area(len(payload), more=len(marks) - 1)
                for begin, end in zip(marks, marks[1:]):
                    area[begin:end] = payload[begin:end]
                    instance.say_number(end)
                self.assertTrue(self.result_in_area(area, instance.answer()) == event, "another value")
                self.assertEqual(self.result(instance, number), number, "a small one between them")

    def test_a_payload_whose_numbers_do_not_lead_to_its_end_ends_it(self):
        for numbers in ((1 << 20, 500_000), (1 << 20, 500_000, 400_000)):
            with self.subTest(numbers=numbers):
                instance, area = self.with_area("def handler(event, context):\n    return event")
                area[:] = b"1" * (1 << 20)
                instance.say_in_area(*numbers)
                frame = read_frame(instance.control)
                self.assertEqual((frame.kind, frame.value), (ADAPTER_EXIT, 0))

    def test_a_result_without_room_in_that_memory_goes_over_the_socket(self):
        instance, area = self.with_area("def handler(event, context):\n    return 'y' * event if type(event) is int else event")
        for size, flags in ((256 * 1024 - 3, 0), (256 * 1024 - 2, IN_AREA), ((1 << 20) - 2, IN_AREA), ((1 << 20) - 1, 0), (5, 0)):
            with self.subTest(size=size):
                done = instance.invoke(b"%d" % size)
                self.assertEqual(done.flags, flags)
                body = area[: int.from_bytes(done.body[:4], "little")] if flags else done.body
                self.assertTrue(body == b'"%s"' % (b"y" * size))

    def test_a_result_that_ends_just_behind_a_step_is_told_to_its_end(self):
        instance, area = self.with_area("def handler(event, context):\n    return {'a': 'y' * event, 'b': 12} if type(event) is int else event", 2 << 20)
        around = len('{"a":"","b":12}')
        for steps in (1, 2):
            for behind in range(-1, 12):
                with self.subTest(steps=steps, behind=behind):
                    size = steps * 768 * 1024 + behind - around
                    self.assertTrue(self.result_in_area(area, instance.invoke(b"%d" % size)) == {"a": "y" * size, "b": 12})

    def test_an_adapter_that_is_passed_nothing_asks_no_more(self):
        instance = self.loaded("def handler(event, context):\n    return event")
        large = b'"%s"' % (b"x" * 300_000)
        self.assertEqual([instance.invoke(large).flags for _ in range(3)], [AREA, 0, 0])

    def test_a_small_payload_and_a_large_result_ask_too(self):
        instance = self.loaded("def handler(event, context):\n    return 'x' * event")
        self.assertEqual([instance.invoke(b"%d" % size).flags for size in (5, 300_000, 5)], [0, AREA, 0])

    def test_that_memory_is_taken_whatever_the_function_does_to_sockets(self):
        instance, area = self.with_area("""
import socket
socket.setdefaulttimeout(0.001)
def handler(event, context):
    return event""")
        instance.send_in_area(area, b'"%s"' % (b"x" * 300_000))
        self.assertEqual(self.result_in_area(area, instance.answer()), "x" * 300_000)

    def test_a_function_without_room_for_that_memory_goes_on_without(self):
        instance = self.loaded("""
import resource
def handler(event, context):
    if event == 1:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    else:
        size = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + (8 << 20), resource.RLIM_INFINITY))
    return event""")
        self.assertEqual(instance.invoke(b'"%s"' % (b"x" * 300_000)).flags, AREA)
        area, done = instance.pass_area(64 << 20)
        area.close()
        self.assertEqual((done.kind, done.flags), (RESULT, 0))
        self.assertEqual(self.result(instance, "x" * 300_000), "x" * 300_000)

    def test_a_payload_in_memory_that_there_is_not_ends_it(self):
        for size in (None, (1 << 20) + 1):
            with self.subTest(size=size):
                code = "def handler(event, context):\n    return event"
                instance = self.with_area(code)[0] if size else self.loaded(code)
                instance.adapter.sendall(encode(INVOKE, IN_AREA, 1000, b"exec-1", (size or 5).to_bytes(4, "little")))
                frame = read_frame(instance.control)
                self.assertEqual((frame.kind, frame.value), (ADAPTER_EXIT, 0))

    def test_large_strings_are_what_json_makes_of_them(self):
        instance = self.loaded("""
import hashlib
def handler(event, context):
    print(hashlib.sha256(repr(event).encode()).hexdigest())
    return event""")
        for number, text in enumerate(large_texts(random.Random(7))):
            with self.subTest(number=number, text=text[:80]):
                event = json.loads(text)
                done = instance.invoke(text.encode())
                self.assertEqual(done.stdout.decode().strip(), hashlib.sha256(repr(event).encode()).hexdigest())
                try:
                    expected = RESULT, AS_JSON.encode(event).encode()
                except ValueError:
                    expected = ERROR, None
                self.assertEqual(done.kind, expected[0])
                self.assertTrue(done.kind == ERROR or escape_controls(done.body) == expected[1], "another text")

    def test_large_strings_beside_what_is_not_json(self):
        instance = self.loaded("""
import json
class Own(str):
    pass
def circular(text):
    value = [text]
    value.append(value)
    return value
def handler(event, context):
    text = "x" * 100_000
    return eval(event, globals() | {"text": text})""")
        for value, kind in {"[text, float('nan')]": "ValueError", "{'a': text, 'b': {1}}": "TypeError", "circular(text)": "ValueError",
                            "[text, '\\ud800']": "ValueError", "text + '\\ud800'": "ValueError",
                            "{'\\ud800': text}": "ValueError", "{(): text}": "TypeError"}.items():  # fmt: skip
            with self.subTest(value):
                error = self.error(instance, value)
                self.assertEqual(error["type"], kind)
                self.assertIn("the result cannot be JSON", error["message"])
        text = "x" * 100_000
        for value, expected in {"{1: text, None: [text]}": {"1": text, "null": [text]},
                                "(text, Own(text))": [text, text], "{Own(text): Own(text)}": {text: text}}.items():  # fmt: skip
            with self.subTest(value):
                self.assertEqual(self.result(instance, value), expected)

    def test_what_cannot_be_loaded_says_why(self):
        error = self.load_error("def handler(:\n    pass")
        self.assertEqual(error["type"], "SyntaxError")
        self.assertIn("line 1", error["message"])
        error = self.load_error("import not_there")
        self.assertEqual((error["type"], error["message"]), ("ModuleNotFoundError", "No module named 'not_there'"))
        error = self.load_error("1 / 0")
        self.assertEqual((error["type"], len(error["stack"])), ("ZeroDivisionError", 1))
        error = self.load_error("import sys; sys.exit(1)")
        self.assertEqual(error["type"], "SystemExit")
        for target in ("main.missing", "missing.handler", "main", "", "main.value", ".handler", "main."):
            with self.subTest(target):
                error = self.load_error("value = 1", target=target or "x")
                self.assertEqual(error["type"], "Function.HandlerNotFound")
                self.assertIn("the handler is", error["message"])

    def test_handlers_in_packages_and_folders(self):
        files = {"pkg/__init__.py": "", "pkg/mod.py": "from . import other\ndef run(e, c): return other.X", "pkg/other.py": "X = 7"}
        for target in ("pkg.mod.run", "pkg/mod.run"):
            self.assertEqual(self.result(self.loaded("", target=target, files=files)), 7)

    def test_own_modules_win(self):
        instance = self.loaded("import json\ndef handler(e, c): return json.MINE", files={"json.py": "MINE = 1"})
        self.assertEqual(self.result(instance), 1)

    def test_own_modules_win_whatever_awaiting_needs(self):
        for module in ("asyncio", "threading", "inspect"):
            with self.subTest(module):
                instance = self.loaded(f"import {module} as mine\nasync def handler(e, c): return mine.MINE", files={f"{module}.py": "MINE = 1"})
                self.assertEqual(self.result(instance), 1)

    def test_streams_and_socket_are_safe_from_careless_code(self):
        instance = self.loaded("""
import os, sys, subprocess, multiprocessing
def child(): print('child', flush=True)
def handler(event, context):
    for fd in range(3, 20):
        try:
            os.write(fd, b'noise')
        except OSError:
            pass
    listed = subprocess.run(['ls', '/proc/self/fd'], capture_output=True, close_fds=False).stdout.split()
    p = multiprocessing.get_context('fork').Process(target=child)
    p.start()
    p.join()
    if os.fork() == 0:
        return 'twice'  # a child that returns to the adapter must not answer
    os.wait()
    sys.stdout = None
    return [len(listed), p.exitcode]""")
        for _ in range(2):
            self.assertEqual(self.result(instance), [4, 0])

    def test_leaving_the_process_is_told(self):
        instance = self.loaded("import os\ndef handler(e, c): os._exit(9)")
        instance.send(b"{}")
        self.assertRaises(HungUp, read_frame, instance.adapter)
        frame = read_frame(instance.control)
        self.assertEqual((frame.kind, os.WEXITSTATUS(frame.value)), (ADAPTER_EXIT, 9))

    def test_by_hand(self):
        instance = self.loaded("import os\ndef handler(e, c): return [e, c.execution_id, 1 / e]")
        command = [INIT, "handler", "--code", instance.code, "--run", instance.run, "--", PYTHON, ADAPTER, "handler", "main.handler"]
        result = subprocess.run(command, input=b"1", capture_output=True, timeout=60)
        self.assertEqual((result.returncode, json.loads(result.stdout)), (0, [1, "by-hand", 1.0]))
        result = subprocess.run(command, input=b"0", capture_output=True, timeout=60)
        self.assertEqual(result.returncode, 1)
        self.assertIn(b"ZeroDivisionError", result.stderr)
        self.assertNotIn(b"adapter.py", result.stderr)


class Keeper(InstanceTest):
    def test_one_that_cannot_work_is_silent_and_the_function_starts_as_usual(self):
        """Here it may not fork; what it said would stand in the function's log."""
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        write_files(folder, {"sitecustomize.py": "import os, sys\nif sys.argv[-1:] == ['generic']:\n    del os.fork"})
        env = {"PYTHONPATH": folder}
        for mode, kind, target, expected in (("zygote", "process", "main.py", b""), ("handler", "handler", "main.handler", b"1")):
            with self.subTest(mode):
                argv = [PYTHON, ADAPTER, kind, target]
                instance = self.instance(mode, argv, {}, env=env, generic=True, load=False, own_env=env)
                self.assertEqual(read_frame(instance.control).kind, READY)
                self.assertEqual(instance.others(), [])
                write_files(instance.code, {"main.py": "handler = lambda event, context: 1"})
                instance.control.sendall(encode(LOAD, body=load_body(mode, argv, instance.env)))
                self.assertEqual(instance.wait_ready().kind, READY)
                done = instance.invoke()
                self.assertEqual((done.body, done.stdout, done.stderr), (expected, b"", b""))


ProcessGeneric, HandlerGeneric = as_generic(Process), as_generic(Handler)

if __name__ == "__main__":
    unittest.main()
