"""What the rows measure with: the samples of one row, a platform of its own settings, the load generator and the hello server."""
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, 'tests', 'e2e'))
from faas_platform import BIN, Platform, wait_until  # noqa: E402

PAYLOAD = b'{"name":"bench"}'
KEEP = {'LOG_LEVEL': 'warn', 'WORKER_KEEP_ALIVE_MS': '3600000'}

# Rows have two platforms side by side, so each looks only for what bears its own name when it has stopped.
os.environ['FAAS_TEST_SHARED_HOST'] = '1'


class Failure(Exception):
    """A row that could not be measured, or that measured something else than it says."""


class Samples:
    """Figures of one side of a row: ns unless `unit` says otherwise."""

    def __init__(self, name, unit='ns'):
        self.name, self.unit, self.values, self.p99s, self.count = name, unit, [], [], 0

    def add(self, *values):
        self.values += values
        self.count += len(values)

    def add_load(self, figures):
        """One round of the load generator: its median and p99 stand for its n calls."""
        self.values.append(figures['median'])
        self.p99s.append(figures['p99'])
        self.count += figures['n']

    def add_rate(self, figures):
        self.unit = '1/s'
        self.values.append(figures['rate'])
        self.count += figures['n']

    def median(self):
        return statistics.median(self.values)

    def p99(self):
        if self.p99s:
            return statistics.median(self.p99s)
        ordered = sorted(self.values)
        return ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]

    def summary(self):
        if not self.values:
            raise Failure(f'nothing was measured for {self.name}')
        return {'name': self.name, 'median': self.median(), 'p99': self.p99(), 'unit': self.unit, 'n': self.count}


class Row:
    """One row under way: ours, the baseline, and what else it is held against."""

    def __init__(self, text, baseline, unit='ns'):
        self.ours, self.baseline = Samples(text, unit), Samples(baseline, unit)
        self.further, self.notes = {}, []

    def against(self, name, ours=None):
        """Samples of a further baseline; `ours` where it is not the row's that they are held against."""
        if name not in self.further:
            self.further[name] = (Samples(name, self.ours.unit), ours)
        return self.further[name][0]

    def use_unit(self, unit):
        self.ours.unit = self.baseline.unit = unit

    def note(self, text):
        if text not in self.notes:
            self.notes.append(text)


def clients_core():
    """The core that clients are pinned to, and those that are left for servers; None where there is but one."""
    cores = sorted(os.sched_getaffinity(0))
    return ({cores[0]}, set(cores[1:])) if len(cores) > 1 else (None, None)


@contextlib.contextmanager
def pinned(cores):
    """What is started inside runs on these cores only (None: on all)."""
    before = os.sched_getaffinity(0)
    if cores:
        os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def run_json(command, cores=None, timeout=900):
    with pinned(cores):
        result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False)
    if result.returncode != 0:
        raise Failure(f'{os.path.basename(command[0])} failed: {result.stderr.decode(errors="replace").strip()[:1500]}')
    return json.loads(result.stdout)


def load(port, method, path, body, requests, clients=1, warmup=None, cores=None, **options):
    """One run of the load generator; `options` are its flags: token, status, expect."""
    command = [os.path.join(BIN, 'bench-load'), '127.0.0.1', port, method, path, '--requests', str(requests), '--clients', str(clients),
               '--warmup', str(max(20, clients * 2) if warmup is None else warmup), '--body', body]
    for name, value in options.items():
        command += ['--' + name, value]
    return run_json(command, cores)


class Hello:
    """The bare server. It answers with as many bytes as `answer_bytes` says; on /echo with what it was sent."""

    def __init__(self, answer_bytes, body, cores=None):
        with pinned(cores):
            self.process = subprocess.Popen([os.path.join(BIN, 'bench-hello'), str(answer_bytes)], stdin=subprocess.PIPE,
                                            stdout=subprocess.PIPE)
        self.port = self.process.stdout.readline().decode().strip()
        self.body = body

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def call(self, requests, clients=1, body=None, path='/', token='', cores=None):
        return load(self.port, 'POST', path, body or self.body, requests, clients, cores=cores, token=token)


class Site:
    """A platform with settings of its own, and the functions that rows deploy on it."""

    names = 0

    def __init__(self, body, settings, cores=None):
        self.body, self.settings = body, settings
        self.platform = Platform(KEEP | settings)
        try:
            with pinned(cores):
                self.platform.start()
        except BaseException:
            self.platform.cleanup()
            raise
        self.port = self.platform.url.rsplit(':', 1)[1]

    def close(self):
        """Stops it; what it leaves behind or a wrong exit status is a Failure."""
        try:
            status = self.platform.stop()
            left = self.platform.leftovers()
            if status != 0 or left:
                raise Failure(f'faas up ended with status {status}; left behind: {left}\n{self.platform.log_tail()}')
        finally:
            self.platform.kill()
            self.platform.cleanup()

    def deploy(self, **fields):
        """A function under a new name, which is returned."""
        Site.names += 1
        name = f'bench-{Site.names}'
        function = self.platform.deploy(name, **fields)
        if function['state'] != 'ready':
            raise Failure(f'{name} is {function["state"]}: {function.get("build_output", "")[:800]}')
        return name

    def remove(self, name):
        answer = self.platform.api('DELETE', '/v1/functions/' + name)
        if answer.status != 204:
            raise Failure(f'deleting {name}: {answer}')

    @contextlib.contextmanager
    def function(self, **fields):
        name = self.deploy(**fields)
        yield name
        self.remove(name)

    def call(self, name, requests, clients=1, warmup=None, body=None, cores=None, expect='"status":"succeeded"'):
        return load(self.port, 'POST', f'/v1/functions/{name}/invocations', body or self.body, requests, clients, warmup, cores,
                    token=self.platform.token, expect=expect)

    def call_cold(self, name):
        """ns of a function's first call, over a connection that is open before it. That it was cold is checked."""
        return self.call(name, 1, warmup=0, expect='"cold_start":true')['median']

    def first_call(self, name):
        execution = self.platform.invoke(name, PAYLOAD)
        if execution['status'] != 'succeeded':
            raise Failure(f'{name}: {execution}')
        return execution

    def settle(self):
        """Until what was written behind is in the database."""
        wait_until(lambda: b'\nfaas_store_queue_length 0\n' in self.platform.api('GET', '/metrics').body, what='the end of the writing behind')

    def instances(self, *states):
        """The worker's instances in these states, as it last told the controller."""
        workers = self.platform.api('GET', '/v1/workers').json()['workers']
        return [instance for worker in workers for instance in worker['instances'] if instance['state'] in states]

    def wait_instances(self, count, *states, seconds=60):
        """Until there are `count` at least; returns them."""
        found = []

        def enough():
            found[:] = self.instances(*states)
            return len(found) >= count
        try:
            wait_until(enough, seconds)
        except AssertionError:
            raise Failure(f'{len(found)} instances are {" or ".join(states)} after {seconds} s, not {count}') from None
        return found


class Bench:
    """What rows share. `rounds` of a baseline and ours each; sized() makes a count small with --quick."""

    def __init__(self, rounds, quick):
        self.rounds, self.quick = rounds, quick
        self.folder = tempfile.mkdtemp(prefix='faas-bench-')
        os.chmod(self.folder, 0o711)
        self.body = self.file('payload.json', PAYLOAD)
        self.stack = contextlib.ExitStack()

    def close(self):
        try:
            self.end_row()
        finally:
            subprocess.run(['rm', '-rf', self.folder], check=True)

    def end_row(self):
        """Everything that the row started stops, and is checked to have left nothing."""
        self.stack.close()

    def sized(self, count, quick):
        return quick if self.quick else count

    def file(self, name, content):
        path = os.path.join(self.folder, name)
        with open(path, 'wb') as file:
            file.write(content)
        return path

    def site(self, cores=None, **settings):
        """A new platform, until the row's end."""
        site = Site(self.body, settings, cores)
        self.stack.callback(site.close)
        return site

    def hello(self, answer_bytes=64, cores=None):
        return self.stack.enter_context(Hello(answer_bytes, self.body, cores))

    def keep(self, resource):
        """A context manager, entered until the row's end."""
        return self.stack.enter_context(resource)


def elapsed_ns(work):
    started = time.perf_counter_ns()
    work()
    return time.perf_counter_ns() - started
