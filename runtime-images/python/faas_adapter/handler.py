"""Contract `handler`: the module is loaded once, its function called once per invocation."""

import gc
import json
import os
import sys
import time

from faas_adapter.area import Area
from faas_adapter.c_library import CLibrary, Variables
from faas_adapter.frames import (
    FRAME_ERROR, FRAME_READY, PAYLOAD_ENV_MAX, SOCKET, FrameReader, HungUp, is_socket, send_frame,
)  # fmt: skip
from faas_adapter.large import LARGE, decode, encode, encode_text
from faas_adapter.modules import OWN_FOLDER, enter_folder, new_event_loop
from faas_adapter.script import show_exception
from faas_adapter.several import Server

STACK_FRAMES_MAX = 64
MESSAGE_MAX = 16 * 1024
KEEP_FREED = 16 << 20  # bytes: payload and event of 6 MiB, and some more
KEEP_FREED_FROM_MB = 128  # of memory


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

    own = ("<frozen importlib._bootstrap>", "<frozen importlib._bootstrap_external>")
    frames = [
        f'File "{frame.filename}", line {frame.lineno}, in {frame.name}'
        for frame in traceback.extract_tb(error.__traceback__, limit=-STACK_FRAMES_MAX)
        if frame.filename not in own and not frame.filename.startswith(OWN_FOLDER)
    ]
    if isinstance(error, SyntaxError) and error.filename:
        frames.append(f'File "{error.filename}", line {error.lineno}')
    return frames


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


def encode_result(result, encode):
    """In pieces."""
    try:
        return encode(result)
    except TypeError as error:
        raise TypeError(f"the result cannot be JSON: {error}") from None
    except UnicodeEncodeError:
        raise ValueError("the result cannot be JSON: a string in it is not valid Unicode") from None
    except ValueError as error:
        raise ValueError(f"the result cannot be JSON: {error}") from None


class Caller:
    """Calls the handler; coroutines are awaited on one event loop that lives as long as the instance."""

    describe = staticmethod(describe)

    def __init__(self, handler, library, decode, encode):
        """`decode`: of the payload; `encode`: of the result, like large.encode()."""
        self.handler = handler
        self.loop = None
        self.variables = Variables(library, os.environb)
        self.constants = context_constants()
        self.decode = decode
        self.encode_value = encode

    def call(self, execution_id, timeout_ms, body):
        """The result as JSON in UTF-8, in pieces; raises what the handler raises."""
        deadline = time.monotonic() + timeout_ms / 1000
        self.variables.set(b"EXECUTION_ID", execution_id.encode())
        if len(body) <= PAYLOAD_ENV_MAX and b"\0" not in body:
            self.variables.set(b"FUNCTION_PAYLOAD", bytes(body))
        else:
            os.environ.pop("FUNCTION_PAYLOAD", None)
        result = self.start(execution_id, deadline, body)
        if hasattr(type(result), "__await__"):
            result = self.wait_for(result)
        return self.encode(result)

    def start(self, execution_id, deadline, body):
        """What the handler returns: its result, or what is to be awaited for it."""
        try:
            event = self.decode(body)
        except ValueError as error:
            raise ValueError(f"the payload is not JSON: {error}") from None
        return self.handler(event, Context(self.constants, execution_id, deadline))

    def encode(self, result):
        return encode_result(result, self.encode_value)

    def wait_for(self, awaitable):
        async def complete():
            return await awaitable

        if self.loop is None:
            _, self.loop = new_event_loop(current=True)
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


def concurrency():
    """How many calls the function allows at once."""
    text = os.environ.get("FUNCTION_CONCURRENCY", "1")
    return int(text) if text.isdecimal() else 1


def serve_handler(path, library):
    fd = hide_socket()
    limit = concurrency()
    server = Server(fd, limit) if limit > 1 else None
    try:
        caller = Caller(load_handler(path), library, decode, encode)
    except BaseException as error:
        flush_quietly()
        send_frame(fd, FRAME_ERROR, body=describe(error))
        os._exit(1)
    flush_quietly()
    if server:
        server.serve(caller)
    send_frame(fd, FRAME_READY)
    reader = FrameReader(fd)
    reader.wait_by_poll()
    area = Area(reader)
    keep_freed = caller.constants["memory_limit_mb"] >= KEEP_FREED_FROM_MB
    while True:
        invocation = reader.read_invoke()
        payload_size = len(invocation[2])
        if keep_freed and payload_size >= LARGE:
            library.keep_freed(KEEP_FREED)
            keep_freed = False
        try:
            pieces, failure = caller.call(*invocation), None
        except HungUp:
            raise
        except BaseException as error:
            pieces, failure = None, describe(error)
        invocation = None
        flush_quietly()
        if failure is None:
            area.send_result(fd, pieces, payload_size)
        else:
            send_frame(fd, FRAME_ERROR, body=failure)
        pieces = None


def find_library():
    """Without a trace in sys.modules."""
    before = frozenset(sys.modules)
    library = CLibrary()
    for name in set(sys.modules) - before:
        del sys.modules[name]
    return library


def run_handler(path, library=None):
    """Returns never. `library`: a CLibrary, or None."""
    library = library or find_library()
    enter_folder(script=False)
    gc.freeze()
    gc.enable()
    sys.argv = [path]
    if not is_socket(SOCKET):
        sys.exit(handle_once(path, library))
    try:
        serve_handler(path, library)
    except (HungUp, BrokenPipeError, ConnectionResetError):
        os._exit(0)  # the worker is gone; threads of the function must not keep the process


def handle_once(path, library):
    """By hand: payload on standard input, result on standard output."""
    payload = sys.stdin.buffer.read() or b"{}"
    try:
        timeout_ms = int(os.environ.get("FUNCTION_TIMEOUT_MS", "30000"))
        caller = Caller(load_handler(path), library, json.loads, lambda value: [encode_text(value).encode()])
        result = caller.call(os.environ.get("EXECUTION_ID", "by-hand"), timeout_ms, payload)
    except Exception as error:
        show_exception(error)
        return 1
    print(b"".join(result).decode())
    return 0
