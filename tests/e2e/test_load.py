"""Many invocations: in a row, at once, large, and while the function changes under them."""
import concurrent.futures
import json
import os
import threading

from faas_platform import PlatformTest, main, wait_until

MIB = 1024 * 1024
ECHO = 'import sys\nsys.stdout.write(sys.stdin.read())'


def resident_mb(pid):
    with open(f'/proc/{pid}/statm', encoding='ascii') as file:
        return int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE') / MIB


class Flat(PlatformTest):
    """Alone on its platform, so that nothing of other tests comes or goes while descriptors are counted."""

    # In a build with sanitizers, freed memory is kept for a while to find uses of it; growth would show that only.
    settings = {'WORKER_POOL_SIZE': '2', 'ASAN_OPTIONS': os.environ.get('ASAN_OPTIONS', '') + ':quarantine_size_mb=1'}

    def assertFlat(self, before, more):
        """No program has more than so many more; what is still being removed or replaced is awaited."""
        wait_until(lambda: all(count <= before[name] + more for name, count in self.platform.descriptors().items()), 60,
                   lambda: f'descriptors were {before} and are {self.platform.descriptors()}')

    def test_a_thousand_in_a_row_leave_descriptors_and_memory_flat(self):
        self.deploy('row', runtime='python', contract='handler', handler='main.handler', code='def handler(event, context):\n    return event["n"] * 2')
        for n in range(100):
            self.assertSucceeded(self.invoke('row', {'n': n}), n * 2)
        pids = self.platform.pids()
        before = self.platform.descriptors_at_rest()
        sizes = {name: resident_mb(pid) for name, pid in pids.items()}
        for n in range(1000):
            self.assertSucceeded(self.invoke('row', {'n': n}), n * 2)
        self.assertFlat(before, 3)
        for name, pid in pids.items():
            self.assertLess(resident_mb(pid), sizes[name] + 16, name)

    def test_instances_that_come_and_go_leave_descriptors_flat(self):
        def round_trip(number):
            name = f'come-{number % 2}'
            self.deploy(name, python=f'print({number})', network='none')
            self.assertSucceeded(self.invoke(name), number)
            self.assertEqual(self.api('DELETE', '/v1/functions/' + name).status // 100, 2)
        for number in range(4):
            round_trip(number)
        before = self.platform.descriptors_at_rest()
        for number in range(20):
            round_trip(number)
        self.assertFlat(before, 4)


class Load(PlatformTest):
    settings = {'WORKER_CONCURRENCY': '64', 'ASAN_OPTIONS': Flat.settings['ASAN_OPTIONS']}

    def test_64_at_once_all_get_their_own_result(self):
        self.deploy('at-once', python='import json, os, time\np = json.loads(os.environ["FUNCTION_PAYLOAD"])\ntime.sleep(0.05)\nprint(json.dumps({"got": p["n"]}))',
                    memory_mb=64, network='none')
        with concurrent.futures.ThreadPoolExecutor(64) as pool:
            for _ in range(3):
                executions = list(pool.map(lambda n: self.invoke('at-once', {'n': n}), range(64)))
                for n, execution in enumerate(executions):
                    self.assertSucceeded(execution, {'got': n})

    def test_64_different_kinds_at_once(self):
        self.deploy('kind-python', python=ECHO, memory_mb=64)
        self.deploy('kind-node', nodejs='process.stdin.pipe(process.stdout)', memory_mb=128)
        self.deploy('kind-native', native='#!/bin/sh\ncat\n', memory_mb=32)
        self.deploy('kind-handler', runtime='python', contract='handler', handler='main.h', code='def h(event, context):\n    return event', memory_mb=64)
        names = ['kind-python', 'kind-node', 'kind-native', 'kind-handler']
        with concurrent.futures.ThreadPoolExecutor(32) as pool:
            executions = list(pool.map(lambda n: self.invoke(names[n % 4], {'n': n}), range(64)))
        for n, execution in enumerate(executions):
            self.assertSucceeded(execution, {'n': n})

    def test_payload_and_result_of_6_mib(self):
        body = json.dumps({'a': 'é' * (3 * MIB - 4)}, ensure_ascii=False, separators=(',', ':')).encode()
        self.assertEqual(len(body), 6 * MIB)  # to the byte what is allowed
        for name, fields in {'large-python': {'python': ECHO}, 'large-native': {'native': '#!/bin/sh\ncat\n'},
                             'large-node': {'nodejs': 'process.stdin.pipe(process.stdout)'},
                             'large-handler': {'runtime': 'python', 'contract': 'handler', 'handler': 'main.h', 'code': 'def h(e, c):\n    return e'},
                             'large-node-handler': {'runtime': 'nodejs', 'contract': 'handler', 'handler': 'index.h', 'code': 'exports.h = (e) => e;'}}.items():
            with self.subTest(name):
                self.deploy(name, memory_mb=384, **fields)
                for _ in range(2):
                    answer = self.api('POST', '/fn/' + name, body)
                    self.assertEqual(answer.status, 200, answer)
                    self.assertTrue(json.loads(answer.body) == json.loads(body), 'the result is not the payload')

    def test_an_update_under_load_fails_no_request(self):
        def source(version):
            return f'import json\nprint(json.dumps({version}))'
        self.deploy('updated', python=source(0), memory_mb=64, network='none')
        stop, problems, seen = threading.Event(), [], set()

        def caller():
            while not stop.is_set():
                answer = self.api('POST', '/v1/functions/updated/invocations', {})
                if answer.status != 200 or answer.json()['status'] != 'succeeded':
                    problems.append(answer)
                    return
                seen.add(answer.json()['result'])
        threads = [threading.Thread(target=caller) for _ in range(8)]
        for thread in threads:
            thread.start()
        try:
            for version in range(1, 8):
                wait_until(lambda before=version - 1: before in seen or problems, 120, 'the version before is called')
                self.deploy('updated', python=source(version), memory_mb=64, network='none')
                # Whoever asks after the update is answered by the new version.
                self.assertSucceeded(self.invoke('updated'), version)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        self.assertEqual(problems, [])
        self.assertLessEqual({1, 2, 3, 4, 5, 6}, seen)

    def test_more_than_the_worker_can_take_waits_or_is_told_so(self):
        self.deploy('crowd', python='import time\ntime.sleep(0.2)\nprint(1)', memory_mb=64, network='none', timeout_ms=60000)
        with concurrent.futures.ThreadPoolExecutor(150) as pool:
            answers = list(pool.map(lambda n: self.api('POST', '/v1/functions/crowd/invocations', {}), range(150)))
        for answer in answers:
            if answer.status == 200:
                self.assertSucceeded(answer.json(), 1)
            else:
                self.assertIn(answer.json()['error']['type'], ('throttled', 'no_capacity'), answer)
        self.assertGreaterEqual(sum(answer.status == 200 for answer in answers), 64)

    def test_async_invocations_all_end(self):
        self.deploy('async', python='import os, json\nprint(json.loads(os.environ["FUNCTION_PAYLOAD"])["n"])', memory_mb=64)
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            ids = list(pool.map(lambda n: self.platform.invoke_async('async', {'n': n}), range(200)))
        self.assertEqual(len(set(ids)), 200)
        for n, execution_id in enumerate(ids):
            self.assertSucceeded(self.platform.wait_execution(execution_id), n)


if __name__ == '__main__':
    main()
