"""How functions scale: instances kept ready, bounds, keep-alive of one's own, frozen instances."""
import concurrent.futures
import tempfile
import time

from faas_platform import PlatformTest, main, wait_until

SLOW = 'import time\ndef handler(event, context):\n    time.sleep(0.2)\n    return event\n'
QUICK = 'def handler(event, context):\n    return event\n'
HANDLER = {'contract': 'handler', 'handler': 'main.handler'}


class Scaling(PlatformTest):
    # Of a machine that is slow and shared nothing is asked but right answers.
    settings = {'WORKER_KEEP_ALIVE_MS': '300000', 'CONTROLLER_QUEUE_WAIT_MS': '120000', 'CONTROLLER_WORKER_LOST_MS': '120000'}

    def instances(self, name):
        """{id: state} of the function's instances on all workers."""
        return {instance['id']: instance['state'] for worker in self.api('GET', '/v1/workers').json()['workers']
                for instance in worker['instances'] if instance.get('function') == name}

    def wait_instances(self, name, count, seconds=180):
        deadline = time.monotonic() + seconds
        while True:
            found = {key: state for key, state in self.instances(name).items() if state in ('idle', 'frozen')}
            if len(found) == count:
                return found
            self.assertLess(time.monotonic(), deadline, f'{name} should have {count} instances that wait, and has {found}')
            time.sleep(0.1)

    def test_with_min_instances_no_call_is_cold(self):
        self.deploy('ready', python=QUICK, min_instances=2, **HANDLER)
        self.wait_instances('ready', 2)
        for n in range(5):
            execution = self.invoke('ready', n)
            self.assertSucceeded(execution, n)
            self.assertFalse(execution['cold_start'], execution)
            self.assertEqual(execution['metrics']['start_time'], 0)

    def test_min_instances_follow_the_function(self):
        self.deploy('follow', python=QUICK, min_instances=1, **HANDLER)
        first = self.wait_instances('follow', 1)
        self.deploy('follow', python=QUICK, min_instances=1, env={'A': 'new'}, **HANDLER)
        deadline = time.monotonic() + 60
        while set(self.wait_instances('follow', 1)) == set(first):
            self.assertLess(time.monotonic(), deadline, 'the new version has no instance')
            time.sleep(0.1)
        execution = self.invoke('follow', 1)
        self.assertSucceeded(execution, 1)
        self.assertEqual((execution['version'], execution['cold_start']), (2, False))
        self.assertIn(self.api('DELETE', '/v1/functions/follow').status, (200, 204))
        self.wait_instances('follow', 0)

    def test_there_are_never_more_than_max_instances(self):
        self.deploy('bounded', python=SLOW, max_instances=2, **HANDLER)
        seen = set()
        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            calls = [pool.submit(self.invoke, 'bounded', n) for n in range(20)]
            while not all(call.done() for call in calls):
                now = self.instances('bounded')
                self.assertLessEqual(len(now), 2, now)
                seen |= set(now)
                time.sleep(0.05)
        for n, call in enumerate(calls):
            self.assertSucceeded(call.result(), n)
        self.assertLessEqual(len(seen), 2, 'nor one after the other, while there is work for them')
        self.assertLessEqual(sum(call.result()['cold_start'] for call in calls), 2)

    def test_a_function_of_one_instance_runs_one_call_at_a_time(self):
        self.deploy('single', max_instances=1, python='''
import json, os, time
begin = time.monotonic()
time.sleep(0.1)
print(json.dumps([begin, time.monotonic()]))
''', keep_alive_ms=0)
        with concurrent.futures.ThreadPoolExecutor(5) as pool:
            executions = list(pool.map(lambda _: self.invoke('single'), range(5)))
        times = sorted(execution['result'] for execution in executions)
        for (_, end), (begin, _) in zip(times, times[1:]):
            self.assertLessEqual(end, begin, times)
        self.assertTrue(all(execution['cold_start'] for execution in executions), 'keep_alive_ms 0: none is used twice')

    def test_a_keep_alive_of_ones_own(self):
        self.deploy('brief', python=QUICK, keep_alive_ms=100, **HANDLER)
        self.assertSucceeded(self.invoke('brief', 1), 1)

        def cold_after_a_pause():
            time.sleep(0.3)
            return self.invoke('brief', 1)['cold_start']
        wait_until(cold_after_a_pause, 60, 'its instance goes between two calls')

    def test_the_command_knows_them(self):
        self.deploy('spoken', python=QUICK, **HANDLER)
        with tempfile.NamedTemporaryFile('w', prefix='faas-', suffix='.py') as source:
            source.write(QUICK)
            source.flush()
            done = self.platform.faas('deploy', 'spoken', source.name, '--contract', 'handler', '--handler', 'main.handler', '--min-instances', '1',
                                      '--max-instances', '3', '--keep-alive', '2m')
        self.assertEqual(done.returncode, 0, done.stderr)
        function = self.api('GET', '/v1/functions/spoken').json()
        self.assertEqual((function['min_instances'], function['max_instances'], function['keep_alive_ms']), (1, 3, 120000))
        self.assertApiError(self.api('PUT', '/v1/functions/spoken', {'runtime': 'python', 'code': '', 'min_instances': 3, 'max_instances': 2}),
                            400, 'invalid_request', 'max_instances', field='/min_instances')


class Frozen(Scaling):
    """The same with every instance frozen as soon as it is idle, and what holds for those."""

    settings = Scaling.settings | {'WORKER_FREEZE_AFTER_MS': '0'}

    def test_a_frozen_instance_answers_as_if_it_had_not_been(self):
        for runtime, code, handler in (('python', QUICK, 'main.handler'), ('nodejs', 'exports.handler = async (event) => event', 'index.handler')):
            with self.subTest(runtime=runtime):
                name = 'ice-' + runtime
                self.deploy(name, **{runtime: code}, contract='handler', handler=handler)
                self.assertSucceeded(self.invoke(name, {'n': 0}), {'n': 0})
                for n in range(2):
                    self.assertEqual(list(self.wait_instances(name, 1).values()), ['frozen'])
                    execution = self.invoke(name, {'n': n})
                    self.assertSucceeded(execution, {'n': n})
                    self.assertFalse(execution['cold_start'])


if __name__ == '__main__':
    main()
