"""Contract `process`: an interpreter that is up and forks."""

import _signal
import gc
import mmap
import os
import sys
import warnings

from faas_adapter.c_library import PR_SET_DUMPABLE, CLibrary
from faas_adapter.frames import (
    FLAG_DIRTY, FRAME_EXIT, FRAME_READY, SOCKET, FrameReader, HungUp, encode_header, is_socket,
    send_frame,
)  # fmt: skip
from faas_adapter.modules import PRELOAD, enter_folder, import_ahead, preload
from faas_adapter.script import (
    compile_script, flush_streams, fresh_main, has_foreign_code, read_script, run_script,
    take_payload,
)  # fmt: skip

LOST_MAX = 32  # children, one after another

# ---- the zygote ----

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
        self.library = CLibrary()
        self.script = None
        self.hidden = False
        self.ready_said = False
        self.child = None  # that stands ready; 0 in itself
        self.state = mmap.mmap(-1, 1)  # shared with it
        self.code = None
        self.lost = 0  # children that ended before their invocation, in a row
        self.source = b""  # the script's, while there may be something in it to import ahead
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
            with warnings.catch_warnings():
                warnings.simplefilter("error")
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
            if self.child is None and self.fork():
                self.leave_parent()
                return self.stand_ready()
            self.rehearse_report()
            status = self.wait_for_child()
            if self.state[0] == self.HUNG_UP:
                os._exit(0)
            if self.state[0] != self.RUNNING:
                self.lost += 1
                if self.lost == LOST_MAX:
                    os._exit(1)
            else:
                self.lost = 0
                self.report(status)
                if status == 0:  # its memory was enough for what it imported, so this one's is
                    import_ahead(self.source)
                    self.source = b""

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


def run_process(script, zygote=None):
    """Returns never."""
    if is_socket(SOCKET):
        try:
            module, code = (zygote or Zygote()).serve(script)
        except (BrokenPipeError, ConnectionResetError):
            os._exit(0)
    else:
        gc.enable()
        enter_folder()
        module, code = fresh_main(script), None
    run_script(script, module, code)
