"""Contract `handler` with several calls at once: a plain function is called in as many threads as there are calls, an `async def` one on
one event loop. What a call writes to sys.stdout and sys.stderr goes to the worker under its name."""

import io
import os
import sys
import time

from faas_adapter.frames import BODY_MAX, FRAME_ERROR, FRAME_LOG, FRAME_READY, FRAME_RESULT, FrameReader, HungUp, encode_header, write_all
from faas_adapter.modules import StandardLibrary, new_event_loop

LOG_PIECE = 8192


class Call:
    def __init__(self, execution_id):
        from _collections import deque

        self.name = execution_id.encode()
        self.text = deque()  # written, not yet sent; several threads of one call may write
        self.size = 0
        self.over = False


class CallOutput(io.RawIOBase):
    """What sys.stdout or sys.stderr writes to: it belongs to the call in whose context it is written. Where there is none (threads of
    the function's own, while the module is loaded, forked children) it goes to the descriptor, where nobody can tell whose it is."""

    def __init__(self, server, stream):
        self.server, self.plain = server, stream.buffer
        self.name, self.mode = stream.name, "wb"

    def writable(self):
        return True

    def fileno(self):
        return self.plain.fileno()

    def write(self, data):
        data = bytes(data)
        call = self.server.current_call()
        if call is None:
            self.plain.write(data)
            self.plain.flush()
            return len(data)
        call.text.append(data)
        call.size += len(data)
        if call.size >= LOG_PIECE or b"\n" in data:  # a call that never ends has its log too
            self.server.send_log(call)
        return len(data)

    def flush(self):
        if self.closed:
            return
        call = self.server.current_call()
        if call is not None:
            self.server.send_log(call)


class Server:
    def __init__(self, fd, limit):
        with StandardLibrary():
            import contextvars
            import threading

        self.fd, self.limit, self.threading = fd, limit, threading
        self.current = contextvars.ContextVar("call", default=None)
        self.sending = threading.Lock()
        self.sender = None  # the thread that is in the middle of a frame
        self.reading = threading.Lock()
        self.counting = threading.Lock()
        self.threads = self.idle = 1
        self.reader = FrameReader(fd)
        self.reader.wait_by_poll()
        self.forked = False
        self.loop = None
        os.register_at_fork(after_in_child=self.leave)
        sys.stdout = self.stream_of(sys.stdout)
        sys.stderr = self.stream_of(sys.stderr)

    def stream_of(self, stream):
        raw = CallOutput(self, stream)
        return io.TextIOWrapper(raw, encoding=stream.encoding, errors=stream.errors, write_through=True)

    def leave(self):
        """In a forked child: no call is its own to answer for."""
        self.forked = True

    def current_call(self):
        call = self.current.get()
        return None if call is None or call.over or self.forked else call

    # ---- frames ----

    def send(self, kind, name, value=0, pieces=()):
        frame = [encode_header(kind, 0, value, sum(map(len, pieces)), len(name)), name, *pieces]
        with self.sending:
            self.sender = self.threading.get_ident()
            try:
                write_all(self.fd, frame)
            finally:
                self.sender = None

    def send_log(self, call):
        if self.sender == self.threading.get_ident():
            return  # a finaliser's words, in the middle of a frame: they go with the next ones
        text = []
        while call.text:
            try:
                text.append(call.text.popleft())
            except IndexError:
                break
        call.size = 0
        if text:
            self.send(FRAME_LOG, call.name, pieces=[b"".join(text)])

    def answer(self, call, kind, pieces):
        self.send_log(call)
        call.over = True
        self.send(kind, call.name, pieces=pieces)

    # ---- calls ----

    def serve(self, caller):
        with StandardLibrary():
            from inspect import iscoroutinefunction as is_async

        self.caller = caller
        target = caller.handler
        if is_async(target) or is_async(getattr(type(target), "__call__", None)):
            self.serve_on_loop()
        else:
            self.say_ready()
            self.serve_in_thread()

    def say_ready(self):
        self.send(FRAME_READY, b"", value=self.limit)

    def read(self):
        execution_id, timeout_ms, body = self.reader.read_invoke()
        return execution_id, time.monotonic() + timeout_ms / 1000, body

    def finish(self, call, produce):
        """Answers with what `produce` returns or raises."""
        try:
            kind, pieces = FRAME_RESULT, produce()
            if sum(map(len, pieces)) > BODY_MAX:
                raise ValueError("the result is too large")
        except BaseException as error:
            kind, pieces = FRAME_ERROR, [self.caller.describe(error)]
        self.answer(call, kind, pieces)

    # ---- a plain function ----

    def serve_in_thread(self):
        """One thread at a time waits for the next call; when it has one and nobody else is free, another is started."""
        try:
            while True:
                with self.reading:
                    invocation = self.read()
                    self.take_over()
                self.run(*invocation)
                with self.counting:
                    self.idle += 1
        except (HungUp, OSError):
            os._exit(0)  # the worker is gone

    def take_over(self):
        with self.counting:
            self.idle -= 1
            if self.idle > 0 or self.threads == self.limit:
                return
            self.threads += 1
            self.idle += 1
        try:
            self.threading.Thread(target=self.serve_in_thread, daemon=True).start()
        except RuntimeError:  # `pids` has no room: calls wait for the threads that there are
            with self.counting:
                self.threads -= 1
                self.idle -= 1

    def run(self, execution_id, deadline, body):
        call = Call(execution_id)
        self.current.set(call)

        def produce():
            result = self.caller.start(execution_id, deadline, body)
            if hasattr(type(result), "__await__"):
                result = self.wait_for(result)
            return self.caller.encode(result)

        self.finish(call, produce)
        self.current.set(None)

    def wait_for(self, awaitable):
        """All awaitables run on one loop, whichever thread they come from."""
        async def complete():
            return await awaitable

        with self.counting:
            if self.loop is None:
                self.asyncio, self.loop = new_event_loop(current=False)
                self.threading.Thread(target=self.loop.run_forever, daemon=True).start()
        return self.asyncio.run_coroutine_threadsafe(complete(), self.loop).result()

    # ---- an async one ----

    def serve_on_loop(self):
        self.asyncio, self.loop = new_event_loop(current=True)
        self.tasks = set()  # a loop keeps none alive
        self.say_ready()
        self.threading.Thread(target=self.read_for_loop, daemon=True).start()
        while True:
            try:
                self.loop.run_forever()
            except (SystemExit, KeyboardInterrupt):
                pass  # of a task that a handler left behind

    def read_for_loop(self):
        try:
            while True:
                self.loop.call_soon_threadsafe(self.begin, *self.read())
        except (HungUp, OSError):
            os._exit(0)

    def begin(self, execution_id, deadline, body):
        """In a context of the call's own, which its tasks inherit."""
        call = Call(execution_id)
        self.current.set(call)
        task = self.loop.create_task(self.run_async(call, execution_id, deadline, body))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def run_async(self, call, execution_id, deadline, body):
        try:
            result = await self.caller.start(execution_id, deadline, body)
        except BaseException as error:
            self.answer(call, FRAME_ERROR, [self.caller.describe(error)])
            return
        self.finish(call, lambda: self.caller.encode(result))
