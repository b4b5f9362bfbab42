"""What runs out: disk, descriptors, processes, memory. Controller and worker survive it, say clearly what is missing, and go on by themselves
when it is there again."""
import contextlib
import http.client
import os
import re
import resource
import shutil
import socket
import subprocess
import tempfile
import threading
import unittest
import urllib.parse

from confinement import Confinement, home
from faas_platform import BIN, PlatformTest, Platform, main, wait_until

FULL = 'No space left on device'
SLOW = 'import json, sys, time\nseconds, size = json.load(sys.stdin)\ntime.sleep(seconds)\nprint(json.dumps("x" * size))'
LARGE = 4000000  # bytes for which the write-ahead log, which keeps its place on a full disk, has no room left


def fill(folder):
    """To the last byte; returns the file to remove."""
    path = os.path.join(folder, 'filler')
    with open(path, 'wb', buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b'x' * size)
    return path


@unittest.skipUnless(os.geteuid() == 0, 'needs root')
class Exhaustion(PlatformTest):
    """Each test has a platform of its own, which must end in order and leave nothing."""

    @classmethod
    def setUpClass(cls):
        pass

    @classmethod
    def tearDownClass(cls):
        pass

    def start(self, settings=None, data_dir=None, log=None, **options):
        self.platform = Platform(dict({'WORKER_CONCURRENCY': '4'}, **(settings or {})), data_dir=data_dir, **options)
        if log:
            self.platform.output = log
        self.addCleanup(self.platform.cleanup)
        self.addCleanup(self.platform.kill)
        self.platform.start()
        return self.platform

    def stop_and_check(self):
        self.assertEqual(self.platform.stop(), 0, self.platform.log_tail())
        self.assertEqual(self.platform.leftovers(), [])

    def data_dir(self):
        folder = tempfile.mkdtemp(prefix='faas-e2e-')
        self.addCleanup(shutil.rmtree, folder)
        return folder

    def mount_small(self, folder, megabytes):
        """A file system of its own in `folder`."""
        subprocess.run(['mount', '-t', 'tmpfs', '-o', f'size={megabytes}m,mode=711', 'faas-test', folder], check=True)
        self.addCleanup(subprocess.run, ['umount', '-l', folder], check=True)
        return folder

    def mount_under_worker(self, data_dir, megabytes):
        folder = os.path.join(data_dir, 'worker')
        os.mkdir(folder)
        return self.mount_small(folder, megabytes)

    def call(self, name):
        return self.api('POST', f'/v1/functions/{name}/invocations', {})

    def assertWorks(self, name, result=1):
        def attempt():
            answer = self.call(name)
            return answer.status == 200 and answer.json().get('result') == result
        wait_until(attempt, 60, f'{name} works again')

    def flood(self, count, payload):
        """So many calls with a large payload at once; their answers."""
        answers = []

        def call():
            # Who still sends when the refusal comes may find the connection closed.
            with contextlib.suppress(OSError, http.client.HTTPException):
                answers.append(self.api('POST', '/v1/functions/slow/invocations', payload))
        threads = [threading.Thread(target=call) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return answers

    def assertAlive(self, pids):
        self.assertEqual(self.platform.pids(), pids, self.platform.log_tail())


class Disk(Exhaustion):
    def test_a_full_disk_under_everything(self):
        disk = self.mount_small(self.data_dir(), 48)
        self.start(data_dir=disk)  # its log is there too
        pids = self.platform.pids()
        self.deploy('warm', python='print(1)')
        self.deploy('cold', runtime='python', files={'main.py': 'print(2)', 'data': os.urandom(1 << 20)})  # more than a file rewritten frees
        self.deploy('slow', python=SLOW)
        self.assertSucceeded(self.invoke('slow', [0, 1]), 'x')
        self.assertSucceeded(self.invoke('warm'), 1)
        before = self.platform.invoke_async('slow', [3, LARGE])
        wait_until(lambda: self.api('GET', '/v1/executions/' + before).json()['status'] == 'running', 60, 'it runs')
        filler = fill(disk)

        self.assertSucceeded(self.invoke('warm'), 1)
        execution = self.invoke('cold')
        self.assertEqual(execution['status'], 'lost', execution)
        self.assertIn(FULL, execution['error']['message'])
        code = 'print(1)' + '#' * LARGE
        with self.assertRaises(AssertionError) as refused:
            self.deploy('new', python=code)
        self.assertIn('disk is full', str(refused.exception))
        self.assertEqual(self.api('GET', '/v1/functions/new').status, 404)
        answer = self.api('POST', '/v1/functions/warm/invocations?mode=async', {'text': 'x' * LARGE})
        self.assertApiError(answer, 503, 'unavailable', 'could not be stored', 'disk is full')
        self.assertEqual(self.api('GET', '/healthz', token=None).status, 200)
        wait_until(self.waits_to_be_written, 60, 'the result waits for the disk')

        os.unlink(filler)
        self.assertWorks('cold', 2)
        self.deploy('new', python=code)
        self.assertWorks('new')
        self.assertSucceeded(self.platform.wait_execution(before), 'x' * LARGE)
        self.assertSucceeded(self.platform.wait_execution(self.platform.invoke_async('warm')), 1)
        page = self.api('GET', '/metrics', token=None).body.decode()
        self.assertIn('\nfaas_records_failed_total 0\n', page)
        self.assertAlive(pids)
        self.stop_and_check()

    def waits_to_be_written(self):
        """The worker has it no more, the store does not have its end yet."""
        page = self.api('GET', '/metrics', token=None).body.decode()
        lines = dict(line.rsplit(' ', 1) for line in page.splitlines() if not line.startswith('#'))
        return float(lines['faas_store_queue_length']) > 0 and float(lines['faas_executions_running']) == 0

    def test_a_full_disk_under_the_worker_alone(self):
        folder = self.data_dir()
        disk = self.mount_under_worker(folder, 24)
        self.start(data_dir=folder)
        self.deploy('warm', python='print(1)')
        self.assertSucceeded(self.invoke('warm'), 1)
        filler = fill(disk)
        self.deploy('cold', runtime='python', files={'main.py': 'print(2)', 'data': os.urandom(200000)})
        for _ in range(2):
            execution = self.invoke('cold')
            self.assertEqual((execution['status'], execution['error']['type']), ('lost', 'Platform.CodeUnavailable'), execution)
            self.assertIn(FULL, execution['error']['message'])
        self.assertSucceeded(self.invoke('warm'), 1)
        os.unlink(filler)
        self.assertWorks('cold', 2)
        self.stop_and_check()

    def test_a_full_disk_under_the_log_alone(self):
        disk = self.mount_small(self.data_dir(), 2)
        log = os.path.join(disk, 'log')
        self.start({'LOG_LEVEL': 'debug'}, log=log)
        pids = self.platform.pids()
        self.deploy('warm', python='print(1)')
        self.assertSucceeded(self.invoke('warm'), 1)
        filler, before = fill(disk), os.path.getsize(log)
        self.deploy('new', python='print(2)')
        for name, result in (('warm', 1), ('new', 2)):
            self.assertSucceeded(self.invoke(name), result)
            self.assertSucceeded(self.platform.wait_execution(self.platform.invoke_async(name)), result)
        self.assertLess(os.path.getsize(log) - before, 4096, 'there was room for more')
        os.unlink(filler)
        execution = self.invoke('warm')
        wait_until(lambda: execution['id'] in self.platform.log_tail(100_000), 60, 'the log goes on')
        self.assertAlive(pids)
        self.stop_and_check()

    def test_a_full_disk_under_the_images(self):
        images = self.mount_small(self.data_dir(), 16)
        folder = self.data_dir()
        os.mkdir(folder + '/root')
        with open(folder + '/root/data', 'wb') as file:
            file.write(os.urandom(4 << 20))
        filler = fill(images)
        size = os.path.getsize(filler)

        def bring_in():
            return subprocess.run([os.path.join(BIN, 'faas'), 'image', 'import', 'small:latest', folder + '/root'], capture_output=True, text=True, check=False,
                                  env={'PATH': os.environ['PATH'], 'WORKER_IMAGE_DIR': images})
        for room in (0, 4096 * 2, 2 << 20):
            os.truncate(filler, size - room)
            refused = bring_in()
            self.assertNotEqual(refused.returncode, 0)
            self.assertIn(FULL, refused.stderr)
        os.unlink(filler)
        self.assertLess(sum(os.path.getsize(os.path.join(root, name)) for root, _, names in os.walk(images) for name in names), 65536, 'a part was left')
        brought = bring_in()
        self.assertEqual(brought.returncode, 0, brought.stderr)

    def test_a_bundle_that_cannot_be_written(self):
        folder = self.data_dir()
        disk = self.mount_under_worker(folder, 24)
        self.start(data_dir=folder)
        for i in range(40):
            self.deploy(f'f{i}', python='print(1)')
        self.assertSucceeded(self.invoke('f0'), 1)
        filler = fill(disk)
        os.truncate(filler, os.path.getsize(filler) - 4096 * 2)  # enough for one function's code
        messages = []
        for i in range(1, 40):
            execution = self.invoke(f'f{i}')
            if execution['status'] != 'succeeded':
                messages.append(execution['error']['message'])
        self.assertTrue(messages)
        for message in messages:
            self.assertIn(FULL.lower(), message.lower())  # the OCI runtime, whose last file it may be, says it in small letters
        os.unlink(filler)
        for i in range(40):
            self.assertWorks(f'f{i}')
        self.stop_and_check()


class Descriptors(Exhaustion):
    def limit(self, pid, free):
        """Leaves so many descriptors; returns a call that lifts the limit again."""
        soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        used = {int(name) for name in os.listdir(f'/proc/{pid}/fd')}
        unused = [number for number in range(len(used) + free + 1) if number not in used]
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (unused[free], hard))
        return lambda: resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))

    def connect(self):
        url = urllib.parse.urlsplit(self.platform.url)
        connection = socket.create_connection((url.hostname, url.port), 60)
        self.addCleanup(connection.close)
        connection.sendall(b'GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n')
        return connection

    def assertAnswered(self, connection):
        response = http.client.HTTPResponse(connection)
        response.begin()
        self.assertEqual(response.status, 200)
        response.read()

    def test_a_controller_without_descriptors_serves_whom_it_has_and_then_whoever_waits(self):
        self.start()
        pids = self.platform.pids()
        self.deploy('warm', python='print(1)')
        self.assertSucceeded(self.invoke('warm'), 1)
        first = self.connect()
        self.assertAnswered(first)
        lift = self.limit(pids['faas-controller'], 2)
        waiting = [self.connect() for _ in range(8)]
        first.sendall(b'GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n')
        self.assertAnswered(first)
        self.assertAlive(pids)
        for connection in waiting[:4]:  # each one that goes makes room for one that waits
            self.assertAnswered(connection)
            connection.close()
        lift()
        for connection in waiting[4:]:
            self.assertAnswered(connection)
        self.assertSucceeded(self.invoke('warm'), 1)
        self.assertAlive(pids)
        self.stop_and_check()

    def test_a_controller_that_had_not_one_descriptor_listens_again(self):
        self.start()
        pids = self.platform.pids()
        lift = self.limit(pids['faas-controller'], 0)
        connection = self.connect()
        self.assertAlive(pids)
        lift()
        self.assertAnswered(connection)
        self.stop_and_check()

    def test_a_worker_without_descriptors(self):
        self.start({'WORKER_POOL_SIZE': '0'})
        pids = self.platform.pids()
        self.deploy('warm', python='print(1)')
        self.deploy('cold', python='print(2)')
        self.assertSucceeded(self.invoke('warm'), 1)
        self.platform.descriptors_at_rest(2)  # what is still being closed would be free afterwards
        lift = self.limit(pids['faas-worker'], 0)
        self.assertSucceeded(self.invoke('warm'), 1)
        execution = self.invoke('cold')
        self.assertEqual(execution['status'], 'lost', execution)
        self.assertIn('Too many open files', execution['error']['message'])
        lift()
        self.assertWorks('cold', 2)
        self.assertAlive(pids)
        self.stop_and_check()


@unittest.skipUnless(home('pids'), 'needs the pids controller')
class Processes(Exhaustion):
    def start_confined(self, settings=None):
        """In a cgroup of its own, whose limit is still open."""
        self.confinement = Confinement('pids')
        self.addCleanup(self.confinement.remove)
        with self.confinement.inside():
            self.start(settings)

    def close_limit(self):
        """Not one process or thread more than there are, once what was started for a moment only (the OCI runtime is asked for its
        version, say) has ended and was reaped: its place would be free afterwards."""
        own = set(self.platform.pids().values())
        wait_until(lambda: self.confinement.pids() == own and not self.confinement.has_ended_tasks(), 60, 'only the platform is there')
        self.confinement.close_pids()

    def test_a_worker_that_can_start_no_process(self):
        self.start_confined({'WORKER_POOL_SIZE': '0'})
        pids = self.platform.pids()
        self.deploy('warm', python='print(1)')
        self.assertSucceeded(self.invoke('warm'), 1)
        self.deploy('cold', native='#!/bin/sh\necho 2\n', memory_mb=32)
        self.close_limit()
        execution = self.invoke('cold')
        self.assertEqual(execution['status'], 'lost', execution)
        self.assertIn('Resource temporarily unavailable', execution['error']['message'])
        self.confinement.open_pids()
        self.assertWorks('cold', 2)
        self.assertWorks('warm')
        self.assertAlive(pids)
        self.stop_and_check()

    def test_programs_that_can_start_no_thread_from_their_beginning_on(self):
        self.start_confined({'WORKER_POOL_SIZE': '0'})
        pids = self.platform.pids()
        self.close_limit()
        self.deploy('hello', python='print(1)')
        self.assertEqual(self.invoke('hello')['status'], 'lost')
        self.confinement.open_pids()
        self.assertWorks('hello')
        self.assertAlive(pids)
        self.stop_and_check()


@unittest.skipUnless(home('memory'), 'needs the memory controller')
class Memory(Exhaustion):
    """The whole platform, instances included, in a memory cgroup that is too small for what is asked of it."""

    def start_confined(self, megabytes, settings=None):
        self.confinement = Confinement('memory')
        self.addCleanup(self.confinement.remove)
        self.confinement.limit_memory(megabytes)
        with self.confinement.inside():
            self.start(settings)

    def test_the_kernel_takes_a_function_before_the_platform(self):
        self.start_confined(384, {'WORKER_MEMORY_MB': '4096', 'WORKER_POOL_SIZE': '1'})
        pids = self.platform.pids()
        self.deploy('greedy', python='print(len(bytearray(1 << 30)))', memory_mb=2048)
        self.deploy('hello', python='print(1)')
        self.assertSucceeded(self.invoke('hello'), 1)
        for _ in range(3):
            execution = self.invoke('greedy')
            self.assertEqual(execution['status'], 'out_of_memory', execution)
            self.assertWorks('hello')
        # It was this limit that they met, not the function's own, which is larger.
        self.assertGreater(self.confinement.memory_peak(), 380 << 20)
        self.assertAlive(pids)
        self.stop_and_check()

    def test_a_flood_of_large_payloads_is_refused_before_memory_is_out(self):
        self.start_confined(224, {'CONTROLLER_BODY_MEMORY_MB': '32', 'CONTROLLER_QUEUE_MAX_MB': '32', 'WORKER_CONCURRENCY': '2',
                                  'WORKER_POOL_SIZE': '1'})
        pids = self.platform.pids()
        self.deploy('slow', python='import sys, time\nsize = len(sys.stdin.read())\ntime.sleep(0.2)\nprint(size)')
        payload = ('"' + 'x' * (5 << 20) + '"').encode()
        answers = self.flood(120, payload)
        served = [answer for answer in answers if answer.status == 200]
        refused = [answer for answer in answers if answer.status != 200]
        self.assertTrue(served and refused, [answer.status for answer in answers])
        for answer in served:
            self.assertSucceeded(answer.json(), len(payload))
        for answer in refused:
            self.assertIn((answer.status, answer.json()['error']['type']), ((429, 'throttled'), (503, 'no_capacity'), (503, 'unavailable')))
        self.assertEqual(self.confinement.oom_kills(), 0)
        self.assertAlive(pids)
        self.assertSucceeded(self.invoke('slow', 'x'), 3)
        self.stop_and_check()


class OwnMemory(Exhaustion):
    """A program that gets no more memory from the kernel: what it cannot do for it is told, and it needs no restart."""

    def limit(self, pid, megabytes):
        """So much more than it has; returns a call that lifts the limit again."""
        with open(f'/proc/{pid}/statm', encoding='ascii') as file:
            size = int(file.read().split()[0]) * resource.getpagesize()
        soft, hard = resource.prlimit(pid, resource.RLIMIT_AS)
        resource.prlimit(pid, resource.RLIMIT_AS, (size + (megabytes << 20), hard))
        return lambda: resource.prlimit(pid, resource.RLIMIT_AS, (soft, hard))

    def check(self, program, settings):
        self.start({'WORKER_SHARED_MEMORY': 'false', **settings})
        pids = self.platform.pids()
        self.deploy('slow', python='import sys\nprint(len(sys.stdin.read()))')
        self.assertSucceeded(self.invoke('slow', 'x'), 3)
        lift = self.limit(pids[program], 4)
        payload = ('"' + 'x' * (5 << 20) + '"').encode()
        answers = self.flood(24, payload)
        self.assertAlive(pids)
        failed = [answer for answer in answers if answer.status != 200 or answer.json()['status'] != 'succeeded']
        self.assertTrue(failed or len(answers) < 24, 'there was memory enough')
        for answer in failed:
            body = answer.json()
            self.assertTrue(body['error']['message'], body)
            self.assertIn(answer.status, (200, 429, 500, 503), body)
        lift()
        wait_until(lambda: self.call('slow').status == 200, 60, 'it goes on')
        self.assertSucceeded(self.invoke('slow', payload), len(payload))
        self.assertAlive(pids)
        self.stop_and_check()

    def test_of_the_controller(self):
        self.check('faas-controller', {})

    def test_of_the_worker(self):
        self.check('faas-worker', {'WORKER_POOL_SIZE': '1'})


if __name__ == '__main__':
    main()
