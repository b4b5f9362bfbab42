"""Large results that a worker makes in the memory that it shares with its controller: they stand there until they are acknowledged, whatever
becomes of the connection, and the room is there again afterwards."""
import contextlib
import fcntl
import json
import mmap
import os
import random
import struct
import threading
import unittest

from worker import FakeController, Worker, have_images

# As in src/base/shared_memory.c.
HEAD_SIZE, AREA_SIZE, PIECE_SIZE = 4096, 16 << 20, 64 << 10
PROOF = b"0123456789abcdef0123456789abcdef"
DONE_AT = len(PROOF) + 1
SHARED = 1 << 31  # of a message's head_len
F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW = 1, 2, 4

ECHO = "def handler(event, context):\n    return event\n"
SIZE = 3_000_000


class Memory:
    def __init__(self):
        self.fd = os.memfd_create("faas-bodies", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, HEAD_SIZE + 2 * AREA_SIZE)
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW)
        self.bytes = mmap.mmap(self.fd, HEAD_SIZE + 2 * AREA_SIZE)
        self.bytes[: len(PROOF)] = PROOF

    def take(self, at, size):
        """A body of the worker's, which may use the place again."""
        begin = HEAD_SIZE + AREA_SIZE + at
        body = self.bytes[begin : begin + size]
        self.bytes[DONE_AT + AREA_SIZE // PIECE_SIZE + at // PIECE_SIZE] = 1
        return body


class SharingController(FakeController):
    """One that offers memory, a new one with each connection."""

    def __init__(self):
        self.memory = None
        self.places = []  # of bodies that came in it, on any connection
        self.by_connection = 0  # large bodies
        self.states_before = 0  # the newest connection
        super().__init__()

    def welcome(self):
        if self.memory:
            os.close(self.memory.fd)
        self.memory = Memory()
        self.states_before = len(self.states)
        return super().welcome() | {"memory": {"pid": os.getpid(), "fd": self.memory.fd, "proof": PROOF.decode()}}

    def read(self, file):
        header = file.peek(12)[:12]
        if len(header) < 12 or not struct.unpack("<IQ", header)[0] & SHARED:
            item = super().read(file)
            self.by_connection += item is not None and len(item[1]) > SIZE
            return item
        return self.read_shared(file)

    def read_shared(self, file):
        head_len = struct.unpack("<IQ", file.read(12))[0] & ~SHARED
        head = json.loads(file.read(head_len))
        at, size = struct.unpack("<QQ", file.read(16))
        self.places.append(at)
        return head, self.memory.take(at, size)

    def take(self, head, body):
        if head["kind"] == "memory":
            assert head["ok"]
            head = {"kind": "none"}
        super().take(head, body)


def text(number):
    """No two numbers alike anywhere."""
    return b'"%s"' % ((b"%08d" % number) * (SIZE // 8))


@unittest.skipUnless(os.geteuid() == 0 and have_images(), "needs root and the runtime images")
class SharedResults(unittest.TestCase):
    def setUp(self):
        self.stack = contextlib.ExitStack()
        self.addCleanup(self.stack.close)
        self.controller = self.stack.enter_context(SharingController())
        self.worker = self.stack.enter_context(Worker(self.controller, concurrency=8, pool_size=0))
        self.controller.deploy("echo", ECHO, contract="handler", handler="main.handler", memory_mb=256)
        for number in range(3):  # then its instance has memory of its own for them
            self.check(number)

    def check(self, number):
        self.assertTrue(self.controller.run("echo", text(number)).text == text(number), f"another result than its payload, number {number}")

    def forget(self):
        with self.controller.lock:
            self.controller.results.clear()

    def check_again(self, executions):
        """What was asked for comes again, by another connection."""
        self.forget()
        self.controller.cut()
        for number, execution in executions.items():
            self.assertTrue(self.controller.result(execution).text == text(number), f"another result than its payload, number {number}")

    def test_the_same_places_are_used_again_and_again(self):
        with self.controller.lock:
            self.controller.places, self.controller.by_connection = [], 0
        for number in range(100, 120):
            self.check(number)
            self.controller.run("echo", b'"line\\n%s"' % (b"\\t" * (SIZE // 4)))  # is made anew, because of what is escaped
            self.controller.run("echo", text(number) + b" ")
        self.assertEqual(self.controller.by_connection, 0)
        self.assertLess(max(self.controller.places), 3 * SIZE)

    def test_what_is_not_acknowledged_comes_again_as_it_was(self):
        self.controller.acknowledges = False
        executions = {}
        for number in range(200, 207):  # more than there is room for: the last ones come by the connection
            executions[number] = self.controller.invoke("echo", text(number))
            self.assertTrue(self.controller.result(executions[number]).text == text(number))
        self.check_again(executions)
        self.check_again(executions)
        self.controller.acknowledges = True
        self.check_again(executions)
        self.check(207)
        with self.controller.lock:
            self.controller.by_connection = 0
        for number in range(208, 215):
            self.check(number)
        self.assertEqual(self.controller.by_connection, 0, "the room is there again")

    def test_a_connection_that_ends_at_any_time_loses_and_mixes_nothing(self):
        chance = random.Random(11)
        came = 0
        for number in range(300, 330):
            execution = self.controller.invoke("echo", text(number))
            timer = threading.Timer(chance.random() * 0.02, self.controller.cut)
            timer.start()
            timer.join()
            self.controller.wait_for(lambda: self.controller.results.get(execution) or self.is_unknown(execution))
            if result := self.controller.results.get(execution):
                self.assertTrue(result.text == text(number), f"another result than its payload, number {number}")
                came += 1
        self.assertGreater(came, 0)

    def is_unknown(self, execution):
        """It was cut before the worker had all of it, which the worker's first state on the next connection tells."""
        states = self.controller.states[self.controller.states_before :]
        return self.controller.stream and states and execution not in states[0]["running"]

    def test_results_side_by_side_are_their_own(self):
        executions = {number: self.controller.invoke("echo", text(number)) for number in range(400, 424)}
        for number, execution in executions.items():
            self.assertTrue(self.controller.result(execution).text == text(number), f"another result than its payload, number {number}")


if __name__ == "__main__":
    unittest.main()
