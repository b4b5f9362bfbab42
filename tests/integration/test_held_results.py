"""Large results that stay in the memory of worker and controller until their client has them and a file has them: when the room is given
back, what becomes of it when the worker is gone, and what a worker can do that changes one after it was checked."""
import contextlib
import json
import mmap
import os
import random
import socket
import struct
import threading
import time
import unittest
import urllib.parse

from controller import Controller, Worker, message, read_exactly, wait_until
from postgresql import PostgreSQL

HEAD, AREA, PIECE = 4096, 16 << 20, 64 << 10
PROOF_SIZE = 33
MARKED = 1 << 31
LARGE = 6_000_000  # more than half of what may be held


class SharingWorker(Worker):
    """Puts its results into the memory that the controller offers, each at a place that the test chooses."""

    def __init__(self, controller, **options):
        self.memory = None
        self.places = {}  # payload -> at
        super().__init__(controller, run=self.answer, **options)

    def take(self, head, body):
        if head['kind'] == 'welcome' and 'memory' in head:
            offer = head['memory']
            with open(f"/proc/{offer['pid']}/fd/{offer['fd']}", 'r+b') as file:
                self.memory = mmap.mmap(file.fileno(), HEAD + 2 * AREA)
            if self.memory[:PROOF_SIZE - 1] != offer['proof'].encode():
                raise AssertionError('not the memory that was offered')
            self.post(message({'kind': 'memory', 'ok': True}))
        super().take(head, body)

    def text(self, number):
        return json.dumps((f'{number:08}' * (LARGE // 8))[:LARGE]).encode()

    def answer(self, head, payload):
        """The number that it gets says the place, too."""
        number = json.loads(payload)
        self.give(head, self.text(number), self.places.get(number, 0))

    def give(self, head, result, at):
        base = HEAD + AREA + at
        self.memory[PROOF_SIZE + AREA // PIECE + at // PIECE] = 0
        self.memory[base:base + len(result)] = result
        head = json.dumps({'kind': 'result', 'execution_id': head['execution_id'], 'attempt': 1, 'status': 'succeeded',
                           'result_len': len(result), 'logs_len': 0, 'metrics': {}}).encode()
        with self.lock:
            self.running.pop(json.loads(head)['execution_id'], None)
            self.post(struct.pack('<IQ', len(head) | MARKED, 16) + head + struct.pack('<QQ', at, len(result)))

    def is_free(self, at=0):
        return self.memory[PROOF_SIZE + AREA // PIECE + at // PIECE] != 0

    def spoil(self, at, size, pattern):
        self.memory[HEAD + AREA + at:HEAD + AREA + at + size] = (pattern * (size // len(pattern) + 1))[:size]


class CarefulWorker(SharingWorker):
    """Uses a place again when the controller is done with it and no sooner, as the real one does."""
    PLACE, SIZE = 1 << 20, 1_000_000

    def open_stream(self):
        stream = super().open_stream()
        with self.lock:
            self.memory, self.used = None, set()
        return stream

    def text(self, number):
        return json.dumps((f'{number:08}' * (self.SIZE // 8))[:self.SIZE]).encode()

    def answer(self, head, payload):
        result = self.text(json.loads(payload))
        with self.lock, contextlib.suppress(OSError, AttributeError):  # a connection that has ended
            free = self.memory and [at for at in range(0, AREA, self.PLACE) if at not in self.used or self.is_free(at)]
            if not free:
                return {'status': 'succeeded'}, result, b''
            self.used.add(free[0])
            self.give(head, result, free[0])
        return None


class SlowClient:
    """Asks, and reads nothing until it is told to."""

    def __init__(self, controller, path, payload):
        address = urllib.parse.urlsplit(controller.url)
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
        self.socket.settimeout(60)
        self.socket.connect((address.hostname, address.port))
        body = json.dumps(payload).encode()
        self.socket.sendall(f'POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {controller.token}\r\nContent-Length: {len(body)}\r\n\r\n'.encode() + body)

    def read(self):
        """(status, body)"""
        head = b''
        while not head.endswith(b'\r\n\r\n'):
            head += read_exactly(self.socket, 1)
        length = next(line for line in head.split(b'\r\n') if line.lower().startswith(b'content-length:'))
        body = read_exactly(self.socket, int(length.split(b':')[1]))
        self.socket.close()
        return int(head.split()[1]), body

    def begin(self):
        """Its answer has begun to come."""
        self.socket.recv(1, socket.MSG_PEEK)
        return self


@unittest.skipUnless(os.geteuid() == 0, 'opens what another process has open')
class HeldResults(unittest.TestCase):
    settings = {}

    def setUp(self):
        stack = contextlib.ExitStack()
        self.addCleanup(stack.close)
        self.controller = stack.enter_context(Controller(**self.settings))
        self.worker = stack.enter_context(SharingWorker(self.controller))
        wait_until(lambda: self.worker.memory, 'memory is offered')
        self.controller.deploy('f')

    def slow(self, number, at=0, path='/v1/functions/f/invocations'):
        self.worker.places[number] = at
        return SlowClient(self.controller, path, number).begin()

    def check(self, answer, number):
        status, body = answer
        self.assertEqual(status, 200)
        self.assertTrue(json.loads(body)['result'].encode() == self.worker.text(number)[1:-1], 'another result')
        return json.loads(body)['id']

    def test_the_room_is_given_back_when_client_and_file_have_the_result(self):
        client = self.slow(1)
        self.assertFalse(self.worker.is_free(), 'its client has not read it')
        id_ = self.check(client.read(), 1)
        wait_until(self.worker.is_free, 'the room is given back')
        self.worker.spoil(0, LARGE, b'x')
        self.assertTrue(self.controller.wait_execution(id_)['result'].encode() == self.worker.text(1)[1:-1], 'another result is in the file')

    def test_a_client_that_is_slow_holds_no_more_than_its_own(self):
        half = AREA // 2
        first = self.slow(1)
        others = [self.slow(number, half) for number in (2, 3)]
        self.assertFalse(self.worker.is_free(0))
        self.assertTrue(self.worker.is_free(half), 'more than half would have been held')
        for number in (4, 5):
            self.worker.places[number] = half
            self.assertEqual(self.controller.invoke('f', number)['result'].encode(), self.worker.text(number)[1:-1])
        for number, client in enumerate([first, *others], 1):
            self.check(client.read(), number)
        wait_until(self.worker.is_free, 'the room is given back')

    def test_a_client_that_goes_gives_the_room_back(self):
        client = self.slow(1)
        self.assertFalse(self.worker.is_free())
        client.socket.close()
        wait_until(self.worker.is_free, 'the room is given back')

    def test_results_of_many_slow_clients_are_never_mixed_whenever_connections_end(self):
        self.worker.stop()
        chance = random.Random(5)
        succeeded = held = 0
        with CarefulWorker(self.controller, name='w2', slots=8) as worker:
            wait_until(lambda: worker.memory, 'memory is offered')
            for begin in range(0, 96, 8):
                clients = [(number, SlowClient(self.controller, '/v1/functions/f/invocations', number)) for number in range(begin, begin + 8)]
                held += len(worker.used)
                timer = threading.Timer(chance.random() * 0.05, worker.cut)
                timer.start()
                chance.shuffle(clients)
                for number, client in clients:
                    execution = json.loads(client.read()[1])
                    if execution.get('status') == 'succeeded':
                        self.assertTrue(execution['result'].encode() == worker.text(number)[1:-1], f'another result, number {number}')
                        stored = self.controller.wait_execution(execution['id'])
                        self.assertTrue(stored['result'].encode() == worker.text(number)[1:-1], f'another result is in the file, number {number}')
                        succeeded += 1
                    else:
                        self.assertEqual(execution['error']['type'], 'Platform.WorkerLost')
                timer.join()
                wait_until(lambda: worker.memory, 'memory is offered')
        self.assertGreater(succeeded, 10)
        self.assertGreater(held, 0)

    def test_what_a_worker_has_left_is_answered_when_the_worker_is_gone(self):
        client = self.slow(1)
        self.worker.stop()
        self.worker.memory.close()
        with SharingWorker(self.controller, name='w2') as other:
            wait_until(lambda: other.memory, 'memory is offered')
            self.assertEqual(self.controller.invoke('f', 2)['result'].encode(), self.worker.text(2)[1:-1])
            self.check(client.read(), 1)

    def test_a_result_that_is_changed_after_it_was_checked_is_no_more_than_that(self):
        """Its own client gets what it has become, and who reads the record hears that it has; all else goes on."""
        client = self.slow(1)
        for pattern in (b'\xff', b'"', b'\\', b'\0', b'{'):
            self.worker.spoil(0, LARGE + 2, pattern)
        status, body = client.read()
        self.assertEqual(status, 200)
        self.assertGreater(body.count(b'{'), LARGE // 4, 'it was not read from where it lies')
        with self.assertRaises(ValueError):
            json.loads(body)
        listed = self.controller.request('GET', '/v1/executions').json()['executions']
        self.assertEqual([item['status'] for item in listed], ['succeeded'])
        self.check_record(listed[0]['id'])
        self.assertEqual(self.controller.stop(), 0)
        self.controller.start()
        self.assertEqual(self.controller.execution(listed[0]['id'] + 'x')['error']['type'], 'not_found')
        self.check_record(listed[0]['id'])
        wait_until(lambda: self.worker.stream and self.controller.invoke('f', 2)['status'] == 'succeeded', 'calls go on')

    def check_record(self, id_):
        """Its file was written before the change, amid or after it; nothing of it passes for another part of the record."""
        record = self.controller.wait_execution(id_)
        self.assertEqual((record['status'], record['function']), ('succeeded', 'f'))
        if 'error' in record:
            self.assertNotIn('result', record)
            self.assertEqual(record['error']['type'], 'Platform.ResultChanged')
        else:
            self.assertIsInstance(record['result'], str)

    def test_a_record_around_a_changed_result_is_none_of_the_workers(self):
        client = self.slow(1)
        forged = b'1,"function":"other","status":"failed","error":{"type":"Forged"},"x":"'
        self.worker.spoil(0, LARGE, forged + b'y' * (LARGE + 2 - len(forged) - 1) + b'"')
        client.read()
        id_ = self.controller.request('GET', '/v1/executions').json()['executions'][0]['id']
        self.check_record(id_)

    def test_a_worker_that_changes_its_results_all_the_time_harms_nobody_else(self):
        """Whatever is looked at, it may be something else a moment later."""
        over = threading.Event()
        size = 300_000

        def change():
            while not over.is_set():
                at = HEAD + AREA + random.randrange(size)
                before = self.worker.memory[at:at + 1]
                self.worker.memory[at:at + 1] = random.choice((b'"', b'\\', b'u', b'\xe2', b'1', b'[', b'\0'))
                self.worker.memory[at:at + 1] = before
                time.sleep(0)  # lets the other threads of this process on

        self.worker.text = lambda number: random.choice((b'"' + b'\\u00e9' * (size // 6) + b'"', b'[' + b'"\\ud83d\\ude00",' * (size // 15) + b'1]'))
        changer = threading.Thread(target=change)
        changer.start()
        self.addCleanup(changer.join)
        self.addCleanup(over.set)
        for number in range(100):
            client = SlowClient(self.controller, '/fn/f', number)
            client.socket.settimeout(0.1)  # a result that was no JSON when it was checked is no result
            with contextlib.closing(client.socket), contextlib.suppress(TimeoutError):
                self.assertIn(client.read()[0], (200, 500))
        over.set()
        changer.join()
        self.assertIsNone(self.controller.process.poll())
        self.assertEqual(self.controller.request('GET', '/v1/workers').status, 200)


@unittest.skipUnless(os.geteuid() == 0, 'opens what another process has open')
class WithPostgreSQL(unittest.TestCase):
    def test_what_goes_into_a_row_is_copied_before_it_is_checked(self):
        with PostgreSQL() as server, Controller(CONTROLLER_DATABASE_URL=server.url()) as controller, SharingWorker(controller) as worker:
            wait_until(lambda: worker.memory, 'memory is offered')
            controller.deploy('f')
            client = SlowClient(controller, '/v1/functions/f/invocations', 1).begin()
            self.assertTrue(worker.is_free())
            worker.spoil(0, LARGE, b'\xff')
            id_ = json.loads(client.read()[1])['id']
            self.assertTrue(controller.wait_execution(id_)['result'].encode() == worker.text(1)[1:-1])


if __name__ == '__main__':
    unittest.main()
