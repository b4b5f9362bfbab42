"""Runs Python functions inside an instance; the other side is src/init/protocol.h.

    python3 adapter.py process main.py          a zygote: forks a child for each invocation
    python3 adapter.py handler main.handler     loads the module once, calls the handler once per invocation
    python3 adapter.py generic                  becomes one of the two when it is told which (a LOAD frame)

Descriptor 3 is a socket: to faas-init (process) or to the worker (handler). When it is not (somebody
runs the bundle by hand), one invocation is served with the standard streams. A generic one has the worker's
socket as 3 and faas-init's as 4, and keeps the one that its role has, as 3.

A script must find what `python3 main.py` would give it, and a handler's module what an import in a
fresh interpreter would: so this file imports little before it is known that it does not shadow a
module of the function's own, and hides what it has of its own (socket, modules, stack frames).
"""

import sys

FRESH_MODULES = frozenset(sys.modules)  # what every interpreter has after its start

import _signal
import atexit
import gc
import itertools
import os
import stat
import time
from _frozen_importlib_external import SourceFileLoader  # the interpreter's own; importlib would cost

FRAME_INVOKE, FRAME_READY, FRAME_EXIT, FRAME_RESULT, FRAME_ERROR, FRAME_LOAD = 1, 2, 3, 4, 5, 7
FLAG_DIRTY = 2
HEADER_BYTES = 16
META_MAX = 4096
PIECE_BYTES = 8192
BODY_MAX = 64 << 20
PAYLOAD_ENV_MAX = 96 * 1024
SOCKET = 3
KEEPER_SOCKET = 4

# Imported before there is an invocation: what most functions use, and what this file uses itself.
PRELOAD = ("json", "re")
# Not imported ahead, whatever a script names: what has its effect when it is imported.
NEVER_AHEAD = frozenset(("this", "antigravity", "readline", "rlcompleter", "idlelib", "test", "turtle", "turtledemo"))


# ---- frames ----


class HungUp(Exception):
    """The other side closed the connection, or does not speak the protocol."""


class FrameReader:
    """Takes what has come in one piece; what a frame lacks then goes straight to where it belongs."""

    def __init__(self, fd):
        self.fd = fd
        self.left = b""  # that came after the last frame

    def read_frame(self, expected):
        """(meta, value, body)"""
        data = self.left
        while len(data) < HEADER_BYTES:
            data += self.read_piece()
        kind, meta_len, body_len, value = decode_header(data)
        if kind != expected or meta_len > META_MAX or body_len > BODY_MAX:
            raise HungUp
        body_at = HEADER_BYTES + meta_len
        while len(data) < body_at:
            data += self.read_piece()
        end = body_at + body_len
        self.left = data[end:]
        body = data[body_at:end] if len(data) >= end else self.read_rest(data[body_at:], body_len)
        return data[HEADER_BYTES:body_at], value, body

    def read_invoke(self):
        """(execution id, timeout in ms, body)"""
        meta, value, body = self.read_frame(FRAME_INVOKE)
        return meta.decode("utf-8", "replace"), value, body

    def read_piece(self):
        piece = os.read(self.fd, PIECE_BYTES)
        if not piece:
            raise HungUp
        return piece

    def read_rest(self, start, size):
        body = bytearray(size)
        body[: len(start)] = start
        view = memoryview(body)[len(start) :]
        while view:
            got = os.readv(self.fd, [view])
            if got == 0:
                raise HungUp
            view = view[got:]
        return body


def decode_header(data):
    """(type, meta length, body length, value)"""
    number = int.from_bytes
    return number(data[0:2], "little"), number(data[4:8], "little"), number(data[8:12], "little"), number(data[12:16], "little")


def encode_header(kind, flags, value, body_len):
    return b"".join((
        kind.to_bytes(2, "little"), flags.to_bytes(2, "little"), bytes(4),
        body_len.to_bytes(4, "little"), value.to_bytes(4, "little"),
    ))  # fmt: skip


def send_frame(fd, kind, flags=0, value=0, body=b""):
    header = encode_header(kind, flags, value, len(body))
    sent = os.writev(fd, [header, body])
    view = memoryview(body)[max(sent - HEADER_BYTES, 0) :]
    while view:
        view = view[os.write(fd, view) :]


def is_socket(fd):
    try:
        return stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError:
        return False


# ---- modules ----


def preload(names):
    """Imports ahead of need, while the function's folder is not in sys.path."""
    for name in names:
        try:
            __import__(name)
        except ImportError:
            pass  # a smaller Python than usual; the function will say so if it matters


def imports_of(source):
    """What a script imports at its outermost level: (module, names taken from it). Lines of a text that look like it do no
    harm."""
    import re

    for match in re.finditer(rb"^(?:from[ \t]+([\w.]+)[ \t]+)?import[ \t]+([\w., \t]+)", source, re.MULTILINE):
        parts = [part.split()[0].decode() for part in match[2].split(b",") if part.strip()]
        if match[1]:
            yield match[1].decode(), parts
        else:
            yield from ((part, ()) for part in parts)


def import_ahead(source):
    """Imports what a script will, as far as it is the standard library's and says nothing when it is imported, while the
    function's folder is not in sys.path."""
    import warnings

    if not source or "PYTHONPATH" in os.environ:  # there the function's folders are in sys.path already
        return
    own = own_modules()
    standard = getattr(sys, "stdlib_module_names", frozenset()) - NEVER_AHEAD
    for module, names in imports_of(source):
        top = module.partition(".")[0]
        if top in standard and top not in own:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("error")
                    __import__(module, fromlist=names)
            except Exception:
                pass  # the script will see it for itself


def own_modules():
    try:
        return frozenset(entry.split(".", 1)[0] for entry in os.listdir())
    except OSError:
        return frozenset()


def enter_folder():
    """Puts the function's folder where a script's folder is. When its code has modules that are named
    like ones imported here, the fresh interpreter's set of modules is restored, so that imports
    find what they would find without this adapter."""
    sys.path.insert(0, os.getcwd())
    if any(name in sys.modules and name not in FRESH_MODULES for name in own_modules()):
        for name in set(sys.modules) - FRESH_MODULES:
            del sys.modules[name]


def modules_since(count):
    """Those imported since there were `count`. Older ones are not touched: in a forked child the first
    touch of each copies a page."""
    return list(itertools.islice(reversed(sys.modules.values()), max(0, len(sys.modules) - count)))


# ---- the C library, by the light way: importing ctypes costs every start 2 ms ----

PR_SET_DUMPABLE = 4
PR_SET_CHILD_SUBREAPER = 36


class CLibrary:
    """Found once, while no folder of the function is in sys.path."""

    def __init__(self):
        try:
            import _ctypes

            self.call = _ctypes.call_cdeclfunction
            self.prctl_address = _ctypes.dlsym(_ctypes.dlopen(None, 0), "prctl")
        except (ImportError, AttributeError, OSError):
            self.call = None  # an interpreter without it; what is called is a second line of defence

    def prctl(self, option, value):
        return self.call(self.prctl_address, (option, value, 0, 0, 0)) if self.call else -1


# ---- contract process ----

# What almost every script does, done by a child before it has one: a page that it shares with the zygote is copied when it
# is first written to, and every use of an object writes to it. An invocation would wait for two hundred such copies.
REHEARSAL = compile("""
import json, os
json.dumps(json.loads('{"a": [1, 2.5, "text", true, null]}'))
os.environ.get("FUNCTION_PAYLOAD", "{}")
class Class:
    def method(self, *arguments, **named):
        return f"{arguments} {named}"
try:
    Class().method(1, a=2).missing
except AttributeError as error:
    str(error)
print(end="")
""", "rehearsal", "exec")  # fmt: skip


class Zygote:
    """Forks one child per invocation, ahead of it: the child stands ready and reads the invocation
    from the socket by itself, while this process sleeps until a child ends. It is the reaper of
    all orphans below it, so "no child left" means that nothing of the invocation is."""

    WAITING, RUNNING, HUNG_UP = 0, 1, 2

    def __init__(self):
        import mmap
        import warnings

        self.warnings = warnings
        self.library = CLibrary()
        self.script = None
        self.hidden = False
        self.ready_said = False
        self.child = None  # that stands ready; 0 in itself
        self.state = mmap.mmap(-1, 1)  # shared with it
        self.code = None
        self.source = b""  # while there is something in it to import ahead
        preload(PRELOAD)

    def hide(self):
        """Before any child can run the function's code: that has the same uid."""
        if not self.hidden:
            for number in (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP):
                _signal.signal(number, _signal.SIG_IGN)
            self.library.prctl(PR_SET_DUMPABLE, 0)
        self.hidden = True

    def show(self):
        """In what runs the function's code."""
        _signal.signal(_signal.SIGINT, _signal.default_int_handler)
        _signal.signal(_signal.SIGTERM, _signal.SIG_DFL)
        _signal.signal(_signal.SIGHUP, _signal.SIG_DFL)
        self.library.prctl(PR_SET_DUMPABLE, 1)

    def compile(self):
        """Done here for all children, unless there is something to say about it: then each child
        does it again, and says so as Python does."""
        if self.code is not None:
            return
        try:
            self.source = read_script(self.script)
            with self.warnings.catch_warnings():
                self.warnings.simplefilter("error")
                self.code = compile_script(self.script, self.source)
        except Exception:
            self.source = b""

    def fork(self):
        """True in the child."""
        gc.freeze()  # what is here now stays in pages that parent and child share
        self.state[0] = self.WAITING
        self.child = os.fork()
        return self.child == 0

    def serve(self, script):
        """Returns in a child that has an invocation, with the script's module and code."""
        self.script = script
        if self.child == 0:
            self.compile()
            return self.stand_ready()
        self.hide()
        self.say_ready(SOCKET)
        while True:
            self.compile()
            if self.child is None:
                import_ahead(self.source)
                self.source = b""
                if self.fork():
                    self.leave_parent()
                    return self.stand_ready()
            self.rehearse_report()
            status = self.wait_for_child()
            if self.state[0] == self.HUNG_UP:
                os._exit(0)
            if self.state[0] == self.RUNNING:
                self.report(status)

    def say_ready(self, fd):
        if not self.ready_said:
            send_frame(fd, FRAME_READY)
        self.ready_said = True

    def rehearse_report(self):
        """So that the next report waits for no copies of pages either."""
        try:
            encode_header(FRAME_EXIT, 0, 0, 0)
            os.waitpid(os.getpid(), os.WNOHANG)  # no child of its own
        except ChildProcessError:
            pass

    def wait_for_child(self):
        while True:
            pid, status = os.waitpid(-1, 0)
            if pid == self.child:
                self.child = None
                return status

    def report(self, status):
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
            send_frame(SOCKET, FRAME_EXIT, FLAG_DIRTY, status)
            while True:
                os.waitpid(-1, 0)
        except ChildProcessError:
            send_frame(SOCKET, FRAME_EXIT, 0, status)

    # ---- in the child ----

    def leave_parent(self):
        os.setsid()
        self.show()
        be_expendable()
        if "threading" in sys.modules:  # some versions keep the parent's id over a fork
            sys.modules["threading"].main_thread()._set_native_id()
        known = len(sys.modules)
        exec(REHEARSAL, {"__name__": "rehearsal"})
        os.environ["EXECUTION_ID"] = os.environ["FUNCTION_PAYLOAD"] = ""
        del os.environ["EXECUTION_ID"], os.environ["FUNCTION_PAYLOAD"]
        has_foreign_code(known)
        flush_streams(0)

    def stand_ready(self):
        enter_folder()
        module = fresh_main(self.script)
        try:
            execution_id, _, _ = FrameReader(SOCKET).read_invoke()
        except HungUp:
            self.state[0] = self.HUNG_UP
            os._exit(0)
        self.state[0] = self.RUNNING
        self.state.close()
        os.close(SOCKET)
        take_payload(execution_id)
        gc.enable()
        return module, self.code


def be_expendable():
    """When memory runs out, the function goes, not the zygote."""
    try:
        fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        try:
            os.write(fd, b"1000")
        finally:
            os.close(fd)
    except OSError:
        pass


def take_payload(execution_id):
    fd = os.open(os.environ["FUNCTION_PAYLOAD_FILE"], os.O_RDONLY)
    os.dup2(fd, 0)
    os.close(fd)
    os.environ["EXECUTION_ID"] = execution_id
    size = os.fstat(0).st_size
    if size <= PAYLOAD_ENV_MAX:
        payload = os.pread(0, size, 0)
        if b"\0" not in payload:
            os.environb[b"FUNCTION_PAYLOAD"] = payload


def read_script(script):
    with open(os.path.join(os.getcwd(), script), "rb") as file:
        return file.read()


def compile_script(script, source):
    return compile(source, os.path.join(os.getcwd(), script), "exec", dont_inherit=True)


def fresh_main(script):
    path = os.path.join(os.getcwd(), script)
    module = type(sys)("__main__")
    module.__loader__ = SourceFileLoader("__main__", path)
    module.__file__ = path
    module.__cached__ = None
    module.__annotations__ = {}
    module.__builtins__ = sys.modules["builtins"]
    sys.modules["__main__"] = module
    sys.argv = [script]
    sys.orig_argv = [sys.orig_argv[0], script] if hasattr(sys, "orig_argv") else None
    return module


def show_exception(error):
    """As the interpreter does, without the frames of this file."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    error = error.with_traceback(trace)
    try:
        sys.excepthook(type(error), error, trace)
    except Exception as second:
        print("Error in sys.excepthook:", file=sys.stderr)
        second.__context__ = None
        own_trace = second.__traceback__.tb_next
        sys.__excepthook__(type(second), second.with_traceback(own_trace), own_trace)
        print("\nOriginal exception was:", file=sys.stderr)
        sys.__excepthook__(type(error), error, trace)


def exit_status(error):
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    print(error.code, file=sys.stderr)
    return 1


def run_script(script, module, code):
    """Never returns."""
    known = len(sys.modules)
    status = 0
    try:
        exec(code or compile_script(script, read_script(script)), module.__dict__)
    except SystemExit as error:
        status = exit_status(error)
    except BaseException as error:
        show_exception(error)
        status = -_signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    end_process(module, status, known)


# ---- the end of a script's process ----


def end_process(module, status, known):
    """What an interpreter does at its end, except for freeing its memory piece by piece: that would
    copy the pages shared with the zygote, and take longer than most functions."""
    if "threading" in sys.modules:
        sys.modules["threading"]._shutdown()
    atexit._run_exitfuncs()
    if status >= 0 and has_foreign_code(known):
        sys.exit(status)
    status = flush_streams(status)
    clear_modules(module, known)
    status = flush_streams(status)
    if status < 0:
        _signal.signal(-status, _signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


def has_foreign_code(known):
    """Extension modules that did not come with Python may count on a complete end."""
    if "ctypes" in sys.modules:
        return True
    for module in modules_since(known):
        file = getattr(module, "__file__", None) or ""
        if file.endswith(".so") and "/lib-dynload/" not in file:
            return True
    return False


def flush_streams(status):
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except Exception as error:
            if stream is sys.stdout and status != 120:
                print(f"Exception ignored in: {stream!r}\n{type(error).__name__}: {error}", file=sys.stderr)
            status = 120 if status == 0 else status  # the interpreter's own choice
    return status


def clear_modules(main, known):
    """Lets go of the function's objects: open files are written, finalisers run."""
    folder = os.path.join(os.path.dirname(main.__file__), "")
    modules = [main]
    for module in modules_since(known):
        if (getattr(module, "__file__", None) or "").startswith(folder):
            modules.append(module)
    for module in modules:
        names = module.__dict__
        for name in list(names):
            if name != "__builtins__":
                names[name] = None
    gc.collect(2 if gc.get_objects(2) else 1)  # a collection of all three generations empties the free lists too


# ---- contract handler ----


class Context:
    """The second argument of a handler."""

    def __init__(self, constants, execution_id, deadline):
        self.__dict__.update(constants)
        self.execution_id = execution_id
        self.aws_request_id = execution_id
        self._deadline = deadline

    def get_remaining_time_in_millis(self):
        return max(0, int((self._deadline - time.monotonic()) * 1000))


def context_constants():
    return {
        "function_name": os.environ.get("FUNCTION_NAME", ""),
        "function_version": os.environ.get("FUNCTION_VERSION", ""),
        "memory_limit_mb": int(os.environ.get("FUNCTION_MEMORY_MB", "0") or 0),
    }


class HandlerNotFound(Exception):
    pass


def load_handler(path):
    module_name, _, name = path.replace("/", ".").rpartition(".")
    try:
        module = __import__(module_name, fromlist=["*"]) if module_name else None
    except ModuleNotFoundError as error:
        if error.name != module_name:
            raise
        module = None
    if module is None:
        raise HandlerNotFound(f"the handler is {path!r}, but the code has no module {module_name!r}")
    handler = getattr(module, name, None)
    if not callable(handler):
        raise HandlerNotFound(f"the handler is {path!r}, but {module_name!r} has no function {name!r}")
    return handler


def stack_of(error):
    """The function's own frames, outermost first."""
    import traceback

    own = (__file__, "<frozen importlib._bootstrap>", "<frozen importlib._bootstrap_external>")
    frames = [
        f'File "{frame.filename}", line {frame.lineno}, in {frame.name}'
        for frame in traceback.extract_tb(error.__traceback__, limit=-STACK_FRAMES_MAX)
        if frame.filename not in own
    ]
    if isinstance(error, SyntaxError) and error.filename:
        frames.append(f'File "{error.filename}", line {error.lineno}')
    return frames


STACK_FRAMES_MAX = 64
MESSAGE_MAX = 16 * 1024


def describe(error):
    """{"type", "message", "stack"} of an exception, as JSON."""
    kind = "Function.HandlerNotFound" if isinstance(error, HandlerNotFound) else type(error).__name__
    try:
        message = str(error)
    except BaseException:
        message = "(the exception's text could not be made)"
    if isinstance(error, SystemExit):
        message = f"the function called sys.exit({error.code!r})"
    try:
        stack = stack_of(error)
    except BaseException:
        stack = []
    message = message[:MESSAGE_MAX].encode("utf-8", "replace").decode()
    return json.dumps({"type": kind, "message": message, "stack": stack}).encode()


def encode_result(result, encode_json):
    try:
        return encode_json(result).encode()
    except TypeError as error:
        raise TypeError(f"the result cannot be JSON: {error}") from None
    except UnicodeEncodeError:
        raise ValueError("the result cannot be JSON: a string in it is not valid Unicode") from None
    except ValueError as error:
        raise ValueError(f"the result cannot be JSON: {error}") from None


class Caller:
    """Calls the handler; coroutines are awaited on one event loop that lives as long as the instance."""

    def __init__(self, handler):
        self.handler = handler
        self.loop = None
        self.constants = context_constants()
        self.decode = json.loads
        self.encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode

    def call(self, execution_id, timeout_ms, body):
        """The result as JSON text; raises what the handler raises."""
        deadline = time.monotonic() + timeout_ms / 1000
        os.environ["EXECUTION_ID"] = execution_id
        if len(body) <= PAYLOAD_ENV_MAX and b"\0" not in body:
            os.environb[b"FUNCTION_PAYLOAD"] = bytes(body)
        else:
            os.environ.pop("FUNCTION_PAYLOAD", None)
        try:
            event = self.decode(body)
        except ValueError as error:
            raise ValueError(f"the payload is not JSON: {error}") from None
        result = self.handler(event, Context(self.constants, execution_id, deadline))
        if hasattr(type(result), "__await__"):
            result = self.wait_for(result)
        return encode_result(result, self.encode)

    def wait_for(self, awaitable):
        import asyncio

        async def complete():
            return await awaitable

        if self.loop is None:
            self.loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self.loop)
        return self.loop.run_until_complete(complete())


def hide_socket():
    """Away from 3, where careless code might reach it; and not into any child."""
    try:
        fd = os.dup2(SOCKET, 200, inheritable=False)
        os.close(SOCKET)
    except OSError:
        fd = SOCKET  # a low limit of open files
        os.set_inheritable(fd, False)
    os.register_at_fork(after_in_child=lambda: os.close(fd))
    return fd


def flush_quietly():
    streams = (sys.stdout, sys.stderr)
    if streams != (sys.__stdout__, sys.__stderr__):
        streams += (sys.__stdout__, sys.__stderr__)
    for stream in streams:
        try:
            stream.flush()
        except Exception:
            pass


def serve_handler(path):
    fd = hide_socket()
    try:
        caller = Caller(load_handler(path))
    except BaseException as error:
        flush_quietly()
        send_frame(fd, FRAME_ERROR, body=describe(error))
        os._exit(1)
    flush_quietly()
    send_frame(fd, FRAME_READY)
    reader = FrameReader(fd)
    while True:
        invocation = reader.read_invoke()
        try:
            kind, body = FRAME_RESULT, caller.call(*invocation)
        except BaseException as error:
            kind, body = FRAME_ERROR, describe(error)
        invocation = None
        flush_quietly()
        send_frame(fd, kind, body=body)


def handle_once(path):
    """By hand: payload on standard input, result on standard output."""
    payload = sys.stdin.buffer.read() or b"{}"
    try:
        timeout_ms = int(os.environ.get("FUNCTION_TIMEOUT_MS", "30000"))
        caller = Caller(load_handler(path))
        result = caller.call(os.environ.get("EXECUTION_ID", "by-hand"), timeout_ms, payload)
    except Exception as error:
        show_exception(error)
        return 1
    print(result.decode())
    return 0


# ---- generic: before there is a function ----


def replace_environment(entries):
    """That of the interpreter and of the C library. LC_CTYPE may be the interpreter's own: it sets it when there is no
    locale, and would have done so with the new environment too."""
    locale = os.environb.get(b"LC_CTYPE")
    zone = os.environb.get(b"TZ")
    for name in list(os.environb):
        del os.environb[name]
    for entry in entries:
        name, _, value = entry.partition(b"=")
        if name not in os.environb:
            os.environb[name] = value
    if locale is not None and b"LC_CTYPE" not in os.environb:
        os.environb[b"LC_CTYPE"] = locale
    if os.environb.get(b"TZ") != zone:
        time.tzset()


class Keeper:
    """Holds what both roles need and what takes time, and becomes one of them. A child for the first invocation stands
    ready already: it hears of LOAD through a pipe, and becomes what it would have been as a child of the zygote."""

    def __init__(self):
        self.folder = os.getcwd()  # a mount will cover it: its name is entered again
        preload(PRELOAD)
        self.usual_modules = set(sys.modules)
        self.zygote = Zygote()
        self.zygote.hide()
        if self.zygote.library.prctl(PR_SET_CHILD_SUBREAPER, 1) != 0:
            os._exit(1)  # orphans would not come to a zygote

    def take_role(self):
        """(zygote or None, arguments) once this process has become what LOAD says; in the child too."""
        read_end, write_end = os.pipe()
        child = self.zygote.fork()
        self.zygote.leave_parent() if child else self.zygote.rehearse_report()
        replace_environment([name + b"=" + value for name, value in os.environb.items()])  # rehearsed in both
        if child:
            os.close(write_end)
            body = FrameReader(read_end).read_frame(FRAME_LOAD)[2]
            os.close(read_end)
        else:
            os.close(read_end)
            send_frame(KEEPER_SOCKET, FRAME_READY)
            body = self.hear_load()
            self.pass_on(write_end, body)
            os.close(write_end)
        return self.become(body)

    def hear_load(self):
        """An INVOKE may come right after it, and is another process's to read."""
        header = os.read(KEEPER_SOCKET, HEADER_BYTES)
        if len(header) < HEADER_BYTES or decode_header(header)[0] != FRAME_LOAD:
            raise HungUp
        return FrameReader(KEEPER_SOCKET).read_rest(b"", decode_header(header)[2])

    def pass_on(self, pipe, body):
        if body.startswith(b"zygote\0"):
            try:
                send_frame(pipe, FRAME_LOAD, body=body)
            except BrokenPipeError:
                pass  # it is gone, and is replaced like any other
            self.zygote.say_ready(KEEPER_SOCKET)  # an invocation may come: the child will read it
        else:
            os.kill(self.zygote.child, _signal.SIGKILL)

    def become(self, body):
        arguments, _, environment = bytes(body).partition(b"\0\0")
        role, *arguments = [os.fsdecode(argument) for argument in arguments.split(b"\0")]
        mode, target = arguments[-2:]
        if (role, mode) not in (("zygote", "process"), ("handler", "handler")):
            os._exit(1)
        if role == "zygote":
            os.dup2(KEEPER_SOCKET, SOCKET)
        os.close(KEEPER_SOCKET)
        replace_environment(environment.split(b"\0")[:-1])
        os.chdir(self.folder)
        sys.orig_argv = arguments
        if role == "handler":
            self.become_handler()
        return self.zygote, (mode, target)

    def become_handler(self):
        os.waitpid(self.zygote.child, 0)
        self.zygote.show()
        self.zygote.library.prctl(PR_SET_CHILD_SUBREAPER, 0)
        be_expendable()
        for name in set(sys.modules) - self.usual_modules:
            del sys.modules[name]


# ---- start ----


def run_process(target, zygote):
    """Returns never."""
    if is_socket(SOCKET):
        try:
            module, code = zygote.serve(target)
        except (BrokenPipeError, ConnectionResetError):
            os._exit(0)
    else:
        gc.enable()
        enter_folder()
        module, code = fresh_main(target), None
    run_script(target, module, code)


def run_handler(target):
    global json
    import json

    enter_folder()
    gc.freeze()
    gc.enable()
    sys.argv = [target]
    if not is_socket(SOCKET):
        sys.exit(handle_once(target))
    try:
        serve_handler(target)
    except (HungUp, BrokenPipeError, ConnectionResetError):
        os._exit(0)  # the worker is gone; threads of the function must not keep the process


def main():
    arguments = sys.argv[1:]
    del sys.path[0]  # this file's folder
    gc.disable()
    zygote = None
    if arguments == ["generic"]:
        try:
            zygote, arguments = Keeper().take_role()
        except (HungUp, BrokenPipeError, ConnectionResetError):
            os._exit(0)
    if len(arguments) != 2 or arguments[0] not in ("process", "handler"):
        sys.exit("usage: adapter.py process SCRIPT | handler MODULE.FUNCTION | generic")
    mode, target = arguments
    if mode == "process":
        run_process(target, zygote or Zygote())
    run_handler(target)


if __name__ == "__main__":
    main()
