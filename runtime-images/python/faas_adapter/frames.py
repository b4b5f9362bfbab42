"""Frames of src/init/protocol.h: descriptors, numbers, reading and writing."""

import _struct
import io
import os
import stat

from faas_adapter.modules import StandardLibrary

FRAME_INVOKE, FRAME_READY, FRAME_EXIT, FRAME_RESULT, FRAME_ERROR, FRAME_LOAD, FRAME_LOG = 1, 2, 3, 4, 5, 7, 8
FLAG_DIRTY, FLAG_AREA, FLAG_IN_AREA = 2, 8, 16
HEADER = _struct.Struct("<HHIII")  # type, flags, length of meta, length of body, value
HEADER_BYTES = HEADER.size
META_MAX = 4096
PIECE_BYTES = 8192
TEXT_PIECE = 128 * 1024
BODY_MAX = 64 << 20
PAYLOAD_ENV_MAX = 96 * 1024
SOCKET = 3
KEEPER_SOCKET = 4
NUMBER_BYTES = 4


class HungUp(Exception):
    """The other side closed the connection, or does not speak the protocol."""


class LargeBody:
    """Bytes that whoever decodes them takes away from all others: there is no room for them beside what they become."""

    def __init__(self, content):
        self.content = content
        self.size = len(content)

    def __len__(self):
        return self.size

    def take(self):
        content, self.content = self.content, b""
        return content


class Payload:
    """In memory of worker and adapter, while it comes: a slice is a memoryview, once so much of it is there."""

    def __init__(self, fd, memory, said, size):
        """The worker says numbers, `size` bytes of them; what has come of that are the bytes `said`."""
        self.fd = fd
        self.said = said
        self.left = size - len(said)
        while len(self.said) < NUMBER_BYTES:
            self.hear()
        length = self.number(0)
        if size % NUMBER_BYTES or memory is None or length > len(memory):
            raise HungUp
        self.memory = memory[:length]
        self.in_one = size == NUMBER_BYTES  # there are no numbers behind its length

    def __len__(self):
        return len(self.memory)

    def __getitem__(self, part):
        end = len(self.memory) if part.stop is None else min(part.stop, len(self.memory))
        while self.there() < end:
            self.hear()
        return self.memory[part]

    def there(self):
        """So much of it is there."""
        last = len(self.said) // NUMBER_BYTES - 1
        return self.number(last) if last > 0 else len(self.memory) if self.in_one else 0

    def number(self, index):
        return int.from_bytes(self.said[index * NUMBER_BYTES : (index + 1) * NUMBER_BYTES], "little")

    def hear(self):
        piece = os.read(self.fd, self.left) if self.left > 0 else b""
        if not piece:
            raise HungUp
        self.said += piece
        self.left -= len(piece)

    def hear_all(self):
        while self.left > 0:
            self.hear()


class FrameReader:
    """Takes what has come in one piece; what a frame lacks then goes straight to where it belongs."""

    def __init__(self, fd):
        self.fd = fd
        self.left = b""  # that came after the last frame
        self.piece_bytes = PIECE_BYTES
        self.whole = None  # reads as many bytes as it is asked for, no more
        self.area = None  # an Area, where one may come
        self.receive = None  # in place of os.read(), once
        self.payload = None  # the last one in the area
        self.wait = None  # a function, before a frame of which nothing has come

    def wait_by_poll(self):
        """For a socket that answers go out on, too: read() would wake up also when the other side has taken an answer, because there
        is room for another, and go to sleep again."""
        with StandardLibrary():
            import select

        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        self.wait = poll.poll

    def read_frame(self, expected):
        """(meta, value, body)"""
        if self.payload:
            self.payload.hear_all()  # which whoever wanted it has done, unless that failed
            self.payload = None
        data = self.left
        if self.wait and not data:
            self.wait()
        while len(data) < HEADER_BYTES:
            data += self.read_piece()
        kind, flags, meta_len, body_len, value = HEADER.unpack_from(data)
        if kind != expected or meta_len > META_MAX or body_len > BODY_MAX:
            raise HungUp
        body_at = HEADER_BYTES + meta_len
        in_area = self.area and flags & FLAG_IN_AREA
        large = kind == FRAME_INVOKE and body_len > PAYLOAD_ENV_MAX
        while len(data) < body_at:
            data += self.read_piece()
        end = body_at + body_len
        self.left = data[end:]
        if in_area:
            body = self.payload = self.area.payload(data[body_at:end], body_len)
        elif len(data) >= end:
            body = data[body_at:end]
        elif large:
            body = self.read_large(data[body_at:], body_len)
        else:
            body = self.read_rest(data[body_at:], body_len)
        # Behind a large body another is likely: of it only what comes before the body is to be read then.
        self.piece_bytes = body_at + NUMBER_BYTES if in_area else body_at if large else PIECE_BYTES
        return data[HEADER_BYTES:body_at], value, body

    def read_invoke(self):
        """(execution id, timeout in ms, body: bytes, a bytearray, a LargeBody or a Payload)"""
        meta, value, body = self.read_frame(FRAME_INVOKE)
        return meta.decode("utf-8", "replace"), value, body

    def read_piece(self):
        if self.receive:
            receive, self.receive = self.receive, None
            piece = receive(self.fd, self.piece_bytes)
        else:
            piece = os.read(self.fd, self.piece_bytes)
        if not piece:
            raise HungUp
        return piece

    def read_large(self, start, size):
        """Into memory that is not cleared first. What came with the header costs a copy of all."""
        if self.whole is None:
            self.whole = io.BufferedReader(io.FileIO(self.fd, closefd=False), 1)
        rest = self.whole.read(size - len(start))
        if len(start) + len(rest) < size:
            raise HungUp
        return LargeBody(start + rest if start else rest)

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


def encode_header(kind, flags, value, body_len, meta_len=0):
    return HEADER.pack(kind, flags, meta_len, body_len, value)


def send_frame(fd, kind, flags=0, value=0, body=b"", more=()):
    """The body is `body` and the pieces in `more`."""
    if more or type(body) is str or len(body) > PIECE_BYTES:
        write_all(fd, [encode_header(kind, flags, value, len(body) + sum(map(len, more))), body, *more])
        return
    frame = HEADER.pack(kind, flags, 0, len(body), value) + body
    sent = os.write(fd, frame)
    if sent < len(frame):
        send_all(fd, memoryview(frame)[sent:])


def write_all(fd, pieces):
    """Bytes, and text that is ASCII: a large one is encoded bit by bit, so that no second copy of it is made."""
    waiting = []
    for piece in pieces:
        if type(piece) is not str:
            waiting.append(piece)
            continue
        write_pieces(fd, waiting)
        waiting = []
        for at in range(0, len(piece), TEXT_PIECE):
            send_all(fd, memoryview(piece[at : at + TEXT_PIECE].encode()))
    write_pieces(fd, waiting)


def write_pieces(fd, pieces):
    sent = os.writev(fd, pieces)
    for piece in pieces:
        if sent >= len(piece):
            sent -= len(piece)
        else:
            send_all(fd, memoryview(piece)[sent:])
            sent = 0


def send_all(fd, view):
    while view:
        view = view[os.write(fd, view) :]


def is_socket(fd):
    try:
        return stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError:
        return False
