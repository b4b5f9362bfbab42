"""Memory that worker and adapter have both mapped, for large bodies: AREA and IN_AREA of src/init/protocol.h. What it takes is
imported when there has been one."""

import os

from faas_adapter.frames import FLAG_AREA, FLAG_IN_AREA, TEXT_PIECE, HungUp
from faas_adapter.modules import StandardLibrary

AREA_MIN = 256 * 1024
LENGTH_BYTES = 4
MSG_CMSG_CLOEXEC = 0x40000000  # of Linux


class Area:
    def __init__(self, reader):
        self.reader = reader
        reader.area = self
        self.memory = None  # a memoryview of it
        self.asked = False
        self.news = False  # it is to be said that there is one

    def answer(self, pieces, payload_size):
        """(flags, pieces) of the RESULT with these pieces, to a payload of that size."""
        size = sum(map(len, pieces))
        flags = 0
        if self.memory is not None:
            if AREA_MIN <= size <= len(self.memory):
                self.put(pieces)
                flags, pieces = FLAG_IN_AREA, [size.to_bytes(LENGTH_BYTES, "little")]
            if self.news:
                flags |= FLAG_AREA
                self.news = False
        elif not self.asked and max(size, payload_size) >= AREA_MIN and self.ask():
            flags = FLAG_AREA
        return flags, pieces

    def payload(self, length):
        """What a frame's body says of it."""
        size = int.from_bytes(length, "little")
        if self.memory is None or len(length) != LENGTH_BYTES or size > len(self.memory):
            raise HungUp
        return self.memory[:size]

    def put(self, pieces):
        """Text bit by bit, so that no second copy of it is made."""
        to = 0
        for piece in pieces:
            step = TEXT_PIECE if type(piece) is str else len(piece) or 1
            for at in range(0, len(piece), step):
                part = piece[at : at + step]
                if type(part) is str:
                    part = part.encode()
                self.memory[to : to + len(part)] = part
                to += len(part)

    # ---- how it comes ----

    def ask(self):
        self.asked = True
        try:
            with StandardLibrary():
                import _socket
                import mmap
        except ImportError:
            return False  # a smaller Python than usual
        self.socket_module, self.mmap_module = _socket, mmap
        self.reader.receive = self.receive
        return True

    def receive(self, fd, size):
        """os.read() of the first bytes of the frame after the question."""
        sock = self.socket_module.socket(fileno=fd)
        try:
            sock.settimeout(None)  # the function may have set another default
            piece, control, _, _ = sock.recvmsg(size, self.socket_module.CMSG_SPACE(LENGTH_BYTES), MSG_CMSG_CLOEXEC)
        finally:
            sock.detach()
        for level, kind, content in control:
            if (level, kind) == (self.socket_module.SOL_SOCKET, self.socket_module.SCM_RIGHTS):
                self.map(int.from_bytes(content[:LENGTH_BYTES], "little"))
        return piece

    def map(self, fd):
        try:
            self.memory = memoryview(self.mmap_module.mmap(fd, 0))
            self.news = True
        except (OSError, ValueError):
            pass  # a limit of the function's own: its bodies go over the socket
        finally:
            os.close(fd)
