"""Large payloads and results between a controller and a worker of one machine: through memory of both, or, where that is not to be or
has no room, through their connection."""
import concurrent.futures
import http.client
import json
import os
import re
import signal
import socket
import unittest
import urllib.parse

from faas_platform import Platform, PlatformTest, main, wait_until

ECHO = 'def handler(event, context):\n    return event\n'
SIZE = 4_000_000


def text(number):
    """As many bytes as SIZE, no two numbers alike anywhere."""
    return (f'{number:08}' * (SIZE // 8 + 1))[:SIZE]


class LargeBodies(PlatformTest):
    def setUp(self):
        self.deploy('echo', python=ECHO, contract='handler', handler='main.handler', memory_mb=256)
        self.assertSucceeded(self.invoke('echo', 1), 1)

    def check_call(self, number):
        self.assertTrue(self.invoke('echo', text(number))['result'] == text(number), f'another result than its payload, number {number}')

    def session(self):
        """Of the worker that calls are given to."""
        active = [worker for worker in self.api('GET', '/v1/workers').json()['workers'] if worker['state'] == 'active']
        return active[0]['session'] if active else None

    def test_the_connection_carries_only_what_is_said_of_them(self):
        before = self.platform.link_bytes()
        self.check_call(1)
        for after, earlier in zip(self.platform.link_bytes(), before):
            self.assertLess(after - earlier, 100_000)

    def test_a_payload_is_received_where_the_worker_can_only_read_it(self):
        self.check_call(2)
        with open(f'/proc/{self.platform.pids()["faas-worker"]}/smaps', encoding='utf-8') as file:
            mappings = re.findall(r'^\S+ (\S+) .*/memfd:faas-shown .*\n(?:.*:.*\n)*?Rss: +(\d+) kB', file.read(), re.M)
        self.assertEqual([access for access, _ in mappings], ['r--s'])
        self.assertGreaterEqual(int(mappings[0][1]) * 1024, SIZE)

    def test_more_at_once_than_the_memory_has_room_for(self):
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(self.check_call, range(100, 124)))

    def unread(self, number):
        """The connection of a client that has had the first byte of its answer, and reads on when it is asked to."""
        request = http.client.HTTPConnection(urllib.parse.urlsplit(self.platform.url).netloc, timeout=60)
        self.addCleanup(request.close)
        request.connect()
        request.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
        request.request('POST', '/v1/functions/echo/invocations', json.dumps(text(number)), {'Authorization': 'Bearer ' + self.platform.token})
        request.sock.recv(1, socket.MSG_PEEK)
        return request

    def check_unread(self, request, number):
        self.assertTrue(json.loads(request.getresponse().read())['result'] == text(number), f'another result than its payload, number {number}')

    def test_clients_that_do_not_read_hold_up_nobody(self):
        unread = [self.unread(number) for number in range(200, 204)]
        before = self.platform.link_bytes()
        for number in range(300, 310):
            self.check_call(number)
        for after, earlier in zip(self.platform.link_bytes(), before):
            self.assertLess(after - earlier, 1_000_000, 'large bodies go by the connection')
        for number, request in enumerate(unread, 200):
            self.check_unread(request, number)

    def test_a_result_outlives_the_worker_that_has_left_it(self):
        before = self.session()
        unread = self.unread(400)
        os.kill(self.platform.pids()['faas-worker'], signal.SIGKILL)
        wait_until(lambda: self.session() not in (None, before), what='a new worker, and that the controller knows it')
        for number in range(401, 405):
            self.check_call(number)
        self.check_unread(unread, 400)

    def test_what_was_left_is_in_the_record_too(self):
        ids = {number: self.invoke('echo', text(number))['id'] for number in range(500, 506)}
        for number, id_ in ids.items():
            self.assertTrue(self.api('GET', '/v1/executions/' + id_).json()['result'] == text(number), f'another result than its payload, number {number}')

    def test_a_worker_that_comes_back_has_it_again(self):
        before = self.session()
        os.kill(self.platform.pids()['faas-worker'], signal.SIGKILL)
        wait_until(lambda: self.session() not in (None, before), what='a new worker, and that the controller knows it')
        self.assertSucceeded(self.invoke('echo', 2), 2)
        self.test_the_connection_carries_only_what_is_said_of_them()


class ByTheConnection(unittest.TestCase):
    @unittest.skipUnless(os.geteuid() == 0, 'needs root')
    def test_a_setting_leaves_the_memory_out(self):
        with Platform({'WORKER_SHARED_MEMORY': 'false'}) as platform:
            platform.deploy('echo', python=ECHO, contract='handler', handler='main.handler', memory_mb=256)
            platform.invoke('echo', 1)
            before = platform.link_bytes()
            self.assertTrue(platform.invoke('echo', text(3))['result'] == text(3))
            for after, earlier in zip(platform.link_bytes(), before):
                self.assertGreaterEqual(after - earlier, SIZE)


if __name__ == '__main__':
    main()
