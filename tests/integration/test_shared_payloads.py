"""The controller's memory for large payloads: into its rooms they are received where the one worker of the machine reads them, into its
area they are copied."""
import contextlib
import http.client
import json
import mmap
import os
import socket
import struct
import threading
import unittest
import urllib.parse

import controller as fixture
from controller import Controller, Worker, message, wait_until

AREA = 16 << 20
PIECE = 64 << 10
DONE_AT = 33  # in the first page, behind the proof
SIZE = 4 << 20


def text(letter, size=SIZE):
    return letter * (size - 2)


def open_mapping(offer, member, size, access):
    fd = os.open(f"/proc/{offer['pid']}/fd/{offer[member]}", os.O_RDONLY if access == mmap.ACCESS_READ else os.O_RDWR)
    try:
        return mmap.mmap(fd, size, access=access)
    finally:
        os.close(fd)


class SharingWorker(Worker):
    """Takes the memory that it is offered, and says in `places` where payloads were. `busy`: it is not done with them."""

    def __init__(self, *args, rooms=True, busy=False, **options):
        super().__init__(*args, **options)
        self.takes_rooms, self.busy = rooms, busy
        self.memory = self.rooms = None
        self.proofs, self.places = [], []

    def take(self, head, body):
        if head["kind"] == "welcome" and "memory" in head:
            self.open(head["memory"])
        super().take(head, body)

    def open(self, offer):
        self.memory = open_mapping(offer, "fd", 4096 + 2 * AREA, mmap.ACCESS_WRITE)
        self.rooms = open_mapping(offer, "shown_fd", AREA, mmap.ACCESS_READ)
        self.proofs.append(offer["proof"])
        self.post(message({"kind": "memory", "ok": True} | ({"shown": True} if self.takes_rooms else {})))

    def read(self, stream):
        head_len, body_len = struct.unpack("<IQ", fixture.read_exactly(stream, 12))
        head = json.loads(fixture.read_exactly(stream, head_len & 0x7FFFFFFF))
        body = fixture.read_exactly(stream, body_len)
        if not head_len >> 31:
            return head, body
        at, size = struct.unpack("<QQ", body)
        body = self.at(at, size)
        self.places.append(at)
        if not self.busy:
            self.done(at)
        return head, body

    def at(self, at, size):
        return self.rooms[at - AREA : at - AREA + size] if at >= AREA else self.memory[4096 + at : 4096 + at + size]

    def done(self, at):
        area = 2 if at >= AREA else 0
        self.memory[DONE_AT + area * (AREA // PIECE) + at % AREA // PIECE] = 1


class SharedMemory(unittest.TestCase):
    def setUp(self):
        self.stack = contextlib.ExitStack()
        self.addCleanup(self.stack.close)
        self.controller = self.stack.enter_context(Controller())
        self.controller.deploy("f")

    def worker(self, *args, kind=SharingWorker, **options):
        worker = self.stack.enter_context(kind(self.controller, *args, **options))
        if kind is SharingWorker:
            wait_until(lambda: worker.proofs and worker.acknowledged >= 2, "it has the memory, and the controller knows it")
        return worker

    def check(self, letter, size=SIZE):
        execution = self.controller.invoke("f", text(letter, size))
        self.assertTrue(execution.get("result") == text(letter, size), (letter, execution.get("error")))

    def in_background(self, *args):
        whole = []
        thread = threading.Thread(target=lambda: whole.append(self.check(*args)), daemon=True)
        thread.start()

        def join():
            thread.join(fixture.WAIT_S)
            self.assertTrue(whole, args)

        return join

    def begin(self, letter, sent):
        """A call of which only so many bytes are sent; the rest, and the connection that has the answer."""
        address = urllib.parse.urlsplit(self.controller.url)
        body = json.dumps(text(letter)).encode()
        connection = self.stack.enter_context(socket.create_connection((address.hostname, address.port), timeout=fixture.WAIT_S))
        connection.sendall(f"POST /v1/functions/f/invocations HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.controller.token}\r\n"
                           f"Content-Length: {len(body)}\r\n\r\n".encode() + body[:sent])  # fmt: skip
        return body[sent:], connection

    def test_a_payload_is_where_it_was_received(self):
        worker = self.worker()
        for letter in "abcd":
            self.check(letter)
        self.assertEqual(worker.places, [AREA] * 4, "one after the other use the same pages")

    def test_many_at_once_are_all_whole(self):
        worker = self.worker(slots=8)
        for join in [self.in_background(letter, 2 << 20) for letter in "abcdefghijklmnop"]:
            join()
        self.assertEqual(len(worker.seen), 16)
        self.check("z")
        self.assertIn(worker.places[-1], (AREA, 0))

    def test_a_room_is_not_used_again_before_the_worker_is_done_with_it(self):
        worker = self.worker(busy=True)
        for letter in "abcde":
            self.check(letter)
        rooms = [AREA + number * SIZE for number in range(4)]
        self.assertEqual(worker.places, rooms + [0], "the rooms are full")
        for place, letter in zip(rooms, "abcd"):
            self.assertTrue(worker.at(place, SIZE) == json.dumps(text(letter)).encode(), letter)
        worker.done(rooms[1])
        self.check("f")
        self.assertEqual(worker.places[-1], rooms[1])

    def test_a_worker_that_cannot_read_them_has_payloads_copied(self):
        worker = self.worker(rooms=False)
        self.check("a")
        self.assertEqual(worker.places, [0])

    def test_asynchronous_ones_may_wait_long(self):
        worker = self.worker()
        self.controller.wait_execution(self.controller.invoke_async("f", text("a")))
        self.assertEqual(worker.places, [0])

    def test_of_two_workers_none_reads_what_the_other_may_get(self):
        workers = [self.worker(name) for name in ("w1", "w2")]
        for letter in "abcd":
            self.check(letter)
        self.assertEqual([place for worker in workers for place in worker.places], [0] * 4)

    def test_one_that_was_received_for_a_worker_goes_to_another(self):
        go = threading.Event()

        def run(_, payload):
            go.wait(fixture.WAIT_S)
            return {"status": "succeeded"}, payload, b""

        first = self.worker("w1", slots=1, run=run)
        join_first = self.in_background("a")
        first.wait_seen("invoke")
        join_second = self.in_background("b")
        wait_until(lambda: self.controller.request("GET", "/v1/executions?status=queued").json()["executions"], "the second waits")
        second = self.worker("w2", slots=1, kind=Worker)
        join_second()
        self.assertEqual((first.places, len(second.seen)), ([AREA], 1))
        go.set()
        join_first()
        self.check("c")

    def test_after_a_cut_nothing_of_the_memory_before_is_used(self):
        worker = self.worker(busy=True)
        self.check("a")
        before, rooms = worker.proofs[0], worker.rooms
        worker.cut()
        wait_until(lambda: len(worker.proofs) == 2 and worker.acknowledged >= 2, "it is connected again, and has other memory")
        self.assertNotEqual(worker.proofs[1], before)
        self.check("b")
        self.assertEqual(worker.places, [AREA, AREA])
        self.assertTrue(rooms[:SIZE] == json.dumps(text("a")).encode(), "the earlier payload was written over")

    def test_a_worker_that_is_lost_while_it_reads(self):
        worker = self.worker(busy=True, run=lambda head, payload: None)
        answers = []
        thread = threading.Thread(target=lambda: answers.append(self.controller.invoke("f", text("a"))), daemon=True)
        thread.start()
        worker.wait_seen("invoke")
        worker.stop()
        thread.join(fixture.WAIT_S)
        self.assertEqual(answers[0]["error"]["type"], "Platform.WorkerLost")
        successor = self.worker()
        self.check("b")
        self.assertEqual(successor.places, [AREA])
        self.assertTrue(worker.rooms[:SIZE] == json.dumps(text("a")).encode())

    def test_slow_clients_take_rooms_away_and_hold_up_nobody(self):
        worker = self.worker()
        slow = [self.begin(letter, 1000) for letter in "stuvwx"]
        for letter in "ab":
            self.check(letter)
        self.assertEqual(worker.places, [0, 0], "the rooms are theirs")
        for rest, connection in slow:
            connection.sendall(rest)
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            self.assertEqual(answer.status, 200)
            answer.read()
        self.assertEqual(worker.places[2:], [AREA + number * SIZE for number in range(4)] + [0, 0])
        self.check("c")
        self.assertEqual(worker.places[-1], AREA)

    def test_clients_that_go_away_give_their_rooms_back(self):
        worker = self.worker()
        for letter in "stuvwx":
            self.begin(letter, SIZE // 2)[1].close()

        def there_is_room():
            self.check("a")
            return worker.places[-1] == AREA

        wait_until(there_is_room, "the first room is free")


if __name__ == "__main__":
    unittest.main()
