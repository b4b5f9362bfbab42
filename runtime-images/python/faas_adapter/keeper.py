"""A generic instance, before there is a function."""

import _signal
import os
import sys
import time

from faas_adapter.c_library import PR_SET_CHILD_SUBREAPER
from faas_adapter.frames import (
    FRAME_LOAD, FRAME_READY, HEADER, HEADER_BYTES, KEEPER_SOCKET, SOCKET, FrameReader, HungUp, send_frame,
)  # fmt: skip
from faas_adapter.modules import PRELOAD, preload
from faas_adapter.zygote import Zygote, be_expendable


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

    def __init__(self, usual_modules):
        """`usual_modules`: names of those that a handler finds in any instance."""
        self.usual_modules = usual_modules
        self.folder = os.getcwd()  # a mount will cover it: its name is entered again
        preload(PRELOAD)
        self.zygote = Zygote()
        self.zygote.hide()
        if self.zygote.library.prctl(PR_SET_CHILD_SUBREAPER, 1) != 0:
            os._exit(1)  # orphans would not come to a zygote

    def take_role(self):
        """(zygote, mode, target) once this process has become what LOAD says; in the child too."""
        return self.become(self.wait_for_load())

    def wait_for_load(self):
        """Its body. In the child too."""
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
        return body

    def hear_load(self):
        """An INVOKE may come right after it, and is another process's to read."""
        header = os.read(KEEPER_SOCKET, HEADER_BYTES)
        if len(header) < HEADER_BYTES:
            raise HungUp
        kind, _, _, body_len, _ = HEADER.unpack(header)
        if kind != FRAME_LOAD:
            raise HungUp
        return FrameReader(KEEPER_SOCKET).read_rest(b"", body_len)

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
        return self.zygote, mode, target

    def become_handler(self):
        os.waitpid(self.zygote.child, 0)
        self.zygote.show()
        self.zygote.library.prctl(PR_SET_CHILD_SUBREAPER, 0)
        be_expendable()
        for name in set(sys.modules) - self.usual_modules:
            del sys.modules[name]
