"""Memory that worker and adapter have both mapped, for large bodies: AREA and IN_AREA of src/init/protocol.h. What it takes is
imported when there has been one."""

import os

from faas_adapter.frames import FLAG_AREA, FLAG_IN_AREA, FRAME_RESULT, NUMBER_BYTES, TEXT_PIECE, Payload, encode_header, send_all, send_frame
from faas_adapter.modules import StandardLibrary

AREA_MIN = 256 * 1024
STEP = 768 * 1024  # of a result, more than a piece of text
STEPS_MAX = 60
MSG_CMSG_CLOEXEC = 0x40000000  # of Linux


class Area:
    def __init__(self, reader):
        self.reader = reader
        reader.area = self
        self.memory = None  # a memoryview of it
        self.asked = False
        self.news = False  # it is to be said that there is one

    def send_result(self, fd, pieces, payload_size):
        """A RESULT of these pieces, to a payload of that size."""
        size = sum(map(len, pieces))
        flags = FLAG_AREA if self.news or self.ask(max(size, payload_size)) else 0
        self.news = False
        if self.memory is not None and AREA_MIN <= size <= len(self.memory):
            self.put(fd, pieces, size, flags | FLAG_IN_AREA)
        else:
            send_frame(fd, FRAME_RESULT, flags, body=pieces[0], more=pieces[1:])

    def payload(self, said, size):
        """What a frame's body of `size` bytes says of it, of which `said` has come."""
        return Payload(self.reader.fd, self.memory, said, size)

    def put(self, fd, pieces, size, flags):
        """Text bit by bit, so that no second copy of it is made; the worker takes what is there meanwhile."""
        step = max(STEP, size // STEPS_MAX + 1)
        steps = -(-size // step)
        say = encode_header(FRAME_RESULT, flags, 0, NUMBER_BYTES * (1 + steps)) + size.to_bytes(NUMBER_BYTES, "little")
        there, mark = 0, step
        for piece in pieces:
            for at in range(0, len(piece), TEXT_PIECE):
                part = piece[at : at + TEXT_PIECE]
                if type(part) is str:
                    part = part.encode()
                self.memory[there : there + len(part)] = part
                there += len(part)
                while steps > 0 and there >= min(mark, size):
                    send_all(fd, memoryview(say + there.to_bytes(NUMBER_BYTES, "little")))
                    say, mark, steps = b"", mark + step, steps - 1

    # ---- how it comes ----

    def ask(self, size):
        """Whether to say that one is wanted, because of a body of that size."""
        if self.asked or size < AREA_MIN:
            return False
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
            piece, control, _, _ = sock.recvmsg(size, self.socket_module.CMSG_SPACE(NUMBER_BYTES), MSG_CMSG_CLOEXEC)
        finally:
            sock.detach()
        for level, kind, content in control:
            if (level, kind) == (self.socket_module.SOL_SOCKET, self.socket_module.SCM_RIGHTS):
                self.map(int.from_bytes(content[:NUMBER_BYTES], "little"))
        return piece

    def map(self, fd):
        try:
            self.memory = memoryview(self.mmap_module.mmap(fd, 0))
            self.news = True
        except (OSError, ValueError):
            pass  # a limit of the function's own: its bodies go over the socket
        finally:
            os.close(fd)
