"""Functions whose instances take several calls at once: real containers, through the HTTP API."""
import collections
import concurrent.futures
import glob
import subprocess
import tempfile

from faas_platform import PlatformTest, main, wait_until

# Nobody answers before `event["of"]` calls are in the same process.
BARRIER = {
    'python': '''
import os, threading
inside, changed = {}, threading.Condition()
def handler(event, context):
    print('in', event['n'])
    with changed:
        inside[event['round']] = inside.get(event['round'], 0) + 1
        changed.notify_all()
        changed.wait_for(lambda: inside[event['round']] >= event['of'])
    print('out', event['n'])
    return [event['n'], context.execution_id, str(os.getpid()) + os.uname().nodename]
''',
    'nodejs': '''
const inside = {};
exports.handler = async (event, context) => {
  console.log('in', event.n);
  await new Promise((go) => {
    const all = (inside[event.round] ??= []);
    all.push(go);
    if (all.length >= event.of) all.forEach((one) => one());
  });
  console.log('out', event.n);
  return [event.n, context.execution_id, process.pid + require('os').hostname()];
};
'''}
HANDLER = {'python': 'main.handler', 'nodejs': 'index.handler'}

# What one call does is said by its event; `release` lets those go that wait.
ORDERS = '''
import os, threading
may_go = threading.Event()
def handler(event, context):
    print('call', event['n'])
    if event['do'] == 'wait':
        may_go.wait()
    if event['do'] == 'stay':
        threading.Event().wait()
    if event['do'] == 'release':
        may_go.set()
    if event['do'] == 'exit':
        os._exit(7)
    if event['do'] == 'fill':
        held = []
        while True:
            held.append(bytearray(b'x' * 1_000_000))
    return os.uname().nodename
'''

# Whoever comes stays until there is a file. It tells the instance by a name of its own, and how many were in it at most.
STAY = '''
import os, threading, time
name, lock, inside, most = os.urandom(16).hex(), threading.Lock(), 0, 0
def handler(event, context):
    global inside, most
    with lock:
        inside += 1
        most = max(most, inside)
    while not os.path.exists('/tmp/go'):
        time.sleep(0.01)
    with lock:
        inside -= 1
    return [name, most]
'''


class Concurrency(PlatformTest):
    settings = {'WORKER_KEEP_ALIVE_MS': '300000', 'CONTROLLER_QUEUE_WAIT_MS': '120000', 'CONTROLLER_WORKER_LOST_MS': '120000'}

    def setUp(self):
        self.pool = concurrent.futures.ThreadPoolExecutor(32)
        self.addCleanup(self.pool.shutdown)

    def deploy_handler(self, name, runtime, code, **fields):
        self.deploy(name, **{runtime: code}, contract='handler', handler=HANDLER[runtime], **fields)

    def begin(self, name, **event):
        return self.pool.submit(self.invoke, name, event)

    def instances(self, name):
        return {instance['id']: instance for worker in self.api('GET', '/v1/workers').json()['workers']
                for instance in worker['instances'] if instance.get('function') == name}

    def running(self, name):
        return len(self.api('GET', f'/v1/executions?function={name}&status=running').json()['executions'])

    def wait_free(self, name, free):
        """Until the function's only instance says so many free places."""
        wait_until(lambda: [one.get('free') for one in self.instances(name).values()] == [free], 120, f'an instance of {name} with {free} free places')

    def let_go(self, instance):
        """Makes the file that calls of STAY wait for, as the container's user: this one has no number there."""
        (processes,) = glob.glob(f'/sys/fs/cgroup/**/{instance}/cgroup.procs', recursive=True)[:1]
        with open(processes, encoding='ascii') as file:
            pid = file.readline().strip()
        with open(f'/proc/{pid}/status', encoding='utf-8') as file:
            ids = dict(line.split(':', 1) for line in file)
        subprocess.run(['touch', 'go'], cwd=f'/proc/{pid}/root/tmp', user=int(ids['Uid'].split()[0]), group=int(ids['Gid'].split()[0]), check=True)

    def test_calls_meet_in_one_instance(self):
        for runtime, code in BARRIER.items():
            with self.subTest(runtime):
                name = 'meet-' + runtime
                self.deploy_handler(name, runtime, code, concurrency=8, max_instances=1)
                for turn in range(3):
                    calls = [self.begin(name, n=n, round=turn, of=8) for n in range(8)]
                    executions = [call.result() for call in calls]
                    for n, execution in enumerate(executions):
                        self.assertEqual(execution['status'], 'succeeded', execution)
                        self.assertEqual(execution['result'][:2], [n, execution['id']], 'its own result')
                        self.assertEqual(execution['logs'], f'in {n}\nout {n}\n', 'its own log')
                        self.assertGreater(execution['metrics']['duration'], 0)
                    self.assertEqual(len({execution['result'][2] for execution in executions}), 1, 'all in one process')
                    self.assertEqual(any(execution['cold_start'] for execution in executions), turn == 0)

    def test_more_calls_than_places_get_another_instance(self):
        self.deploy_handler('bound', 'python', STAY, concurrency=2, max_instances=2, timeout_ms=120000)
        calls = [self.begin('bound', n=n) for n in range(4)]
        wait_until(lambda: [one.get('free') for one in self.instances('bound').values()] == [0, 0], 120, 'two instances without a free place')
        for instance in self.instances('bound'):
            self.let_go(instance)
        executions = [call.result() for call in calls]
        self.assertEqual({execution['status'] for execution in executions}, {'succeeded'}, executions)
        self.assertEqual(sorted(collections.Counter(execution['result'][0] for execution in executions).values()), [2, 2])
        self.assertEqual({execution['result'][1] for execution in executions}, {2}, 'no more at once in one than it takes')
        # One that only a second call can end: it must come into the same instance.
        self.deploy_handler('wait', 'python', ORDERS, concurrency=2, max_instances=1, timeout_ms=120000)
        held = [self.begin('wait', n=0, do='wait')]
        wait_until(lambda: self.running('wait') == 1, 120)
        held.append(self.begin('wait', n=1, do='release'))
        self.assertEqual({call.result()['status'] for call in held}, {'succeeded'})
        self.wait_free('wait', 2)

    def test_one_that_takes_too_long_does_not_disturb_the_others(self):
        self.deploy_handler('late', 'python', ORDERS, concurrency=3, max_instances=2, timeout_ms=5000)
        self.assertSucceeded(self.invoke('late', {'n': 0, 'do': 'nothing'}))
        self.wait_free('late', 3)
        (first,) = self.instances('late')
        stays = self.begin('late', n=1, do='stay')
        wait_until(lambda: self.running('late') == 1, 120)
        time_left = self.begin('late', n=2, do='wait')
        wait_until(lambda: self.running('late') == 2, 120)
        release = self.begin('late', n=3, do='release')
        self.assertSucceeded(time_left.result())
        self.assertSucceeded(release.result())
        execution = stays.result()
        self.assertEqual((execution['status'], execution['error']['type']), ('timed_out', 'Function.TimedOut'))
        self.assertEqual(execution['logs'], 'call 1\n')
        wait_until(lambda: first not in self.instances('late'), 60, 'what may still run its call is replaced')
        self.assertSucceeded(self.invoke('late', {'n': 4, 'do': 'nothing'}))

    def test_one_that_ends_the_process_is_told_to_all_that_ran_in_it(self):
        self.deploy_handler('crash', 'python', ORDERS, concurrency=3, max_instances=1, timeout_ms=120000)
        self.assertSucceeded(self.invoke('crash', {'n': 0, 'do': 'nothing'}))
        others = [self.begin('crash', n=1, do='stay')]
        self.wait_free('crash', 2)
        others.append(self.begin('crash', n=2, do='stay'))
        self.wait_free('crash', 1)
        culprit = self.begin('crash', n=3, do='exit')
        for n, call in enumerate([*others, culprit], 1):
            execution = call.result()
            self.assertEqual((execution['status'], execution['error']['exit_code']), ('failed', 7), execution)
            self.assertIn('2 other calls ran in the instance', execution['error']['message'])
            self.assertEqual(execution['logs'], f'call {n}\n')
        self.assertSucceeded(self.invoke('crash', {'n': 4, 'do': 'nothing'}))

    def test_memory_is_the_instances(self):
        self.deploy_handler('memory', 'python', ORDERS, concurrency=2, max_instances=1, memory_mb=64, timeout_ms=120000)
        self.assertSucceeded(self.invoke('memory', {'n': 0, 'do': 'nothing'}))
        other = self.begin('memory', n=1, do='stay')
        self.wait_free('memory', 1)
        culprit = self.begin('memory', n=2, do='fill')
        self.assertEqual({other.result()['status'], culprit.result()['status']}, {'out_of_memory'})

    def test_min_instances_and_an_update_while_calls_run(self):
        self.deploy_handler('kept', 'python', STAY, concurrency=4, min_instances=1, max_instances=2)
        wait_until(lambda: [one['state'] for one in self.instances('kept').values()] in (['idle'], ['frozen']), 120)
        (old,) = self.instances('kept')
        first = [self.begin('kept', n=n) for n in range(4)]
        self.wait_free('kept', 0)
        self.deploy_handler('kept', 'python', BARRIER['python'], concurrency=4, min_instances=1, max_instances=2)
        for call in [self.begin('kept', n=n, round=0, of=2) for n in range(2)]:
            execution = call.result()
            self.assertEqual((execution['status'], execution['version']), ('succeeded', 2))
        self.assertEqual(self.running('kept'), 4, 'the old ones go on for as long as they may')
        self.let_go(old)
        for call in first:
            execution = call.result()
            self.assertEqual((execution['status'], execution['version'], execution['cold_start']), ('succeeded', 1, False), execution)
            self.assertEqual(execution['result'][1], 4, 'all were in the one that was kept ready')

    def test_the_field_is_refused_where_it_cannot_be(self):
        self.assertApiError(self.api('PUT', '/v1/functions/no', {'runtime': 'python', 'code': '', 'concurrency': 2}), 400, 'invalid_request',
                            'needs contract handler', field='/concurrency')
        self.assertApiError(self.api('PUT', '/v1/functions/no', {'runtime': 'go', 'contract': 'handler', 'handler': 'main.f', 'code': '', 'concurrency': 2}),
                            400, 'invalid_request', 'python or nodejs', field='/contract')

    def test_the_command_knows_it(self):
        with tempfile.NamedTemporaryFile('w', prefix='faas-', suffix='.py') as source:
            source.write(BARRIER['python'])
            source.flush()
            arguments = ('deploy', 'spoken', source.name, '--contract', 'handler', '--handler', 'main.handler')
            done = self.platform.faas(*arguments, '--concurrency', '5')
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.api('GET', '/v1/functions/spoken').json()['concurrency'], 5)


class Frozen(Concurrency):
    """The same with every instance frozen as soon as nothing runs in it."""

    settings = Concurrency.settings | {'WORKER_FREEZE_AFTER_MS': '0'}


if __name__ == '__main__':
    main()
