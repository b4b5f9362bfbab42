"""Processes that die, hosts that are left in a hurry: nothing stays behind, nothing durable is lost."""
import os
import signal
import sys
import threading
import unittest

from faas_platform import Platform, PlatformTest, main, wait_until

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'integration'))
from processes import runs  # noqa: E402


@unittest.skipUnless(os.geteuid() == 0, 'needs root')
class Recovery(unittest.TestCase):
    def setUp(self):
        self.platform = Platform()
        self.addCleanup(self.platform.cleanup)
        self.addCleanup(self.platform.kill)
        self.platform.start()

    def stop_and_check(self):
        self.assertEqual(self.platform.stop(), 0, self.platform.log_tail())
        self.assertEqual(self.platform.leftovers(), [])

    def worker_pid(self):
        return self.platform.pids().get('faas-worker')

    def wait_for_another_worker(self, old):
        wait_until(lambda: self.worker_pid() not in (None, old), 60, 'faas up starts another worker')
        wait_until(lambda: self.platform.api('GET', '/readyz', token=None).status == 200, 60, 'ready again')

    def invoke_until_it_works(self, name, seconds=60):
        def attempt():
            answer = self.platform.api('POST', f'/v1/functions/{name}/invocations', {})
            return answer.status == 200 and answer.json()['status'] == 'succeeded'
        wait_until(attempt, seconds, f'{name} is served again')

    def test_kill_9_of_the_worker_and_its_restart_leave_nothing_behind(self):
        for name in ('one', 'two', 'three'):
            self.platform.deploy(name, python='print(1)')
            self.assertEqual(self.platform.invoke(name)['status'], 'succeeded')
        self.platform.deploy('sleeper', python='import time\ntime.sleep(8)', timeout_ms=60000)
        lost = self.platform.invoke_async('sleeper')
        wait_until(lambda: self.platform.api('GET', '/v1/executions/' + lost).json()['status'] == 'running', 60, 'the sleeper runs')
        old = self.worker_pid()
        os.kill(old, signal.SIGKILL)
        self.wait_for_another_worker(old)
        self.invoke_until_it_works('one')
        instances = [i for w in self.platform.api('GET', '/v1/workers').json().get('workers', []) for i in w.get('instances', []) if i.get('function')]
        self.assertLessEqual(len(instances), 4)
        # What it was running is told as lost or run again, never forgotten.
        status = self.platform.api('GET', '/v1/executions/' + lost).json()['status']
        self.assertIn(status, ('queued', 'running', 'lost', 'succeeded'))
        self.stop_and_check()

    def test_kill_9_of_everything_is_cleaned_up_by_the_next_start(self):
        self.platform.deploy('one', python='print(1)')
        self.assertEqual(self.platform.invoke('one')['status'], 'succeeded')
        pids = self.platform.pids()
        for pid in pids.values():
            os.kill(pid, signal.SIGKILL)
        self.platform.kill()
        wait_until(lambda: not any(map(runs, pids.values())), 60, 'they are dead')
        self.platform.start()
        self.assertEqual(self.platform.invoke('one')['result'], 1)  # the database kept it
        self.stop_and_check()

    def test_the_children_end_when_faas_up_is_killed(self):
        self.platform.deploy('one', python='print(1)')
        self.platform.invoke('one')
        pids = self.platform.pids()
        self.platform.kill()
        wait_until(lambda: not any(map(runs, pids.values())), 60, 'controller and worker end')
        self.assertEqual(self.platform.leftovers(), [])

    def test_kill_9_of_the_controller_loses_no_stored_work(self):
        self.platform.deploy('one', python='print(1)')
        self.platform.deploy('later', python='import time\ntime.sleep(1)\nprint(7)', memory_mb=64)
        ids = [self.platform.invoke_async('later') for _ in range(10)]
        old = self.platform.pids()['faas-controller']
        os.kill(old, signal.SIGKILL)
        wait_until(lambda: self.platform.pids().get('faas-controller') not in (None, old), 60, 'another controller')

        def ready():
            try:
                return self.platform.api('GET', '/readyz', token=None).status == 200
            except OSError:
                return False
        wait_until(ready, 60, 'ready again')
        self.invoke_until_it_works('one')
        for execution_id in ids:
            execution = self.platform.wait_execution(execution_id)
            self.assertEqual((execution['status'], execution['result']), ('succeeded', 7), execution)
        self.stop_and_check()

    def test_stop_waits_for_what_runs(self):
        self.platform.deploy('brief', python='import time\ntime.sleep(2)\nprint(7)')
        self.platform.invoke('brief')
        answers = []
        thread = threading.Thread(target=lambda: answers.append(self.platform.invoke('brief')))
        thread.start()
        running = '/v1/executions?function=brief&status=running'
        wait_until(lambda: self.platform.api('GET', running).json()['executions'], 60, 'it runs: stopping sooner would only refuse it')
        self.stop_and_check()
        thread.join()
        self.assertEqual(answers[0]['result'], 7)

    def test_stop_by_sigint(self):
        self.platform.deploy('one', python='print(1)')
        self.platform.invoke('one')
        self.assertEqual(self.platform.stop(signal.SIGINT), 0)
        self.assertEqual(self.platform.leftovers(), [])

    def test_a_container_killed_from_outside_is_replaced(self):
        self.platform.deploy('one', runtime='python', contract='handler', handler='main.h', code='def h(e, c):\n    return 1')
        self.assertEqual(self.platform.invoke('one')['result'], 1)
        killed = 0
        for pid in filter(str.isdigit, os.listdir('/proc')):
            try:
                with open(f'/proc/{pid}/cmdline', 'rb') as file:
                    if file.read().startswith(b'/.faas/init\0'):
                        with open(f'/proc/{pid}/cgroup', encoding='utf-8') as cgroup:
                            if self.platform.worker_name in cgroup.read():
                                os.kill(int(pid), signal.SIGKILL)
                                killed += 1
            except OSError:
                continue
        self.assertGreaterEqual(killed, 1)
        self.invoke_until_it_works('one')
        self.stop_and_check()

    def test_state_survives_a_restart(self):
        self.platform.deploy('one', python='print(1)', env={'A': 'b'}, labels={'team': 'x'})
        first = self.platform.invoke('one')
        before = self.platform.api('GET', '/v1/functions/one').json()
        self.assertEqual(self.platform.stop(), 0)
        self.platform.start()
        self.assertEqual(self.platform.api('GET', '/v1/functions/one').json(), before)
        self.assertEqual(self.platform.api('GET', '/v1/executions/' + first['id']).json()['result'], 1)
        self.assertEqual(self.platform.invoke('one')['result'], 1)
        self.stop_and_check()


class OneContainerPerInvocation(PlatformTest):
    settings = {'WORKER_KEEP_ALIVE_MS': '0'}

    def test_every_start_is_cold(self):
        self.deploy('cold', runtime='python', contract='handler', handler='main.h', code='n = 0\ndef h(e, c):\n    global n\n    n += 1\n    return n')
        for _ in range(4):
            execution = self.invoke('cold')
            self.assertSucceeded(execution, 1)
            self.assertTrue(execution['cold_start'])
            self.assertGreater(execution['metrics']['start_time'], 0)

    def test_tmp_is_new_each_time(self):
        self.deploy('tmp', python='import os\nprint(len(os.listdir("/tmp")))\nopen("/tmp/x", "w")')
        for _ in range(2):
            self.assertSucceeded(self.invoke('tmp'), 0)


class ShortKeepAlive(PlatformTest):
    settings = {'WORKER_KEEP_ALIVE_MS': '400'}

    def test_idle_instances_go(self):
        self.deploy('idle', python='print(1)')
        self.assertTrue(self.invoke('idle')['cold_start'])

        def is_listed():
            workers = self.api('GET', '/v1/workers').json()['workers']
            return any(i.get('function') == 'idle' for worker in workers for i in worker['instances'])
        # A machine that is slow may take longer than the keep-alive between two calls, or until the instance is told: then once more.
        wait_until(lambda: not self.invoke('idle')['cold_start'], 60, 'its instance serves two calls')
        wait_until(lambda: self.invoke('idle') and is_listed(), 60, 'the worker has said that it is there')
        wait_until(lambda: not is_listed(), 60, 'the idle instance goes')
        self.assertTrue(self.invoke('idle')['cold_start'])


if __name__ == '__main__':
    main()
