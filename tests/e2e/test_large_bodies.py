"""Large payloads and results between a controller and a worker of one machine: through memory of both, or, where that is not to be or
has no room, through their connection."""
import concurrent.futures
import os
import signal
import unittest

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

    def test_more_at_once_than_the_memory_has_room_for(self):
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(self.check_call, range(100, 124)))

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
