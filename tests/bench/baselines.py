"""What our figures are held against: `runc run`, a bare interpreter, a bare fork. Each is timed by bench-spawn or by itself, never through an
interpreter that would add to it. Docker is in docker_engine.py."""
import json
import os
import select
import shutil
import subprocess
import time

from measure import BIN, PAYLOAD, Failure, run_json

CHROOT = shutil.which('chroot') or '/usr/sbin/chroot'

# A process that has the function's modules loaded and forks for each call: what `process` in Python cannot do without. It
# times each call from before the fork to the child's end, its output read, and prints the times.
ZYGOTE = r'''
import json, os, sys, time
source, payload, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
def call():
    out, into = os.pipe()
    if os.fork() == 0:
        os.dup2(into, 1)
        os.environ['FUNCTION_PAYLOAD'] = payload
        exec(compile(source, 'main.py', 'exec'), {'__name__': '__main__'})
        sys.stdout.flush()
        os._exit(0)
    os.close(into)
    while os.read(out, 65536):
        pass
    os.close(out)
    if os.wait()[1] != 0:
        sys.exit(1)
times = []
for _ in range(count):
    started = time.perf_counter_ns()
    call()
    times.append(time.perf_counter_ns() - started)
print(json.dumps(times))
'''


def spawn(commands, jobs=1, parallel=1, stdin=None, chroot=None):
    """bench-spawn's figures; `commands` is a list of argument lists, one job runs them in order."""
    arguments = [os.path.join(BIN, 'bench-spawn'), '--jobs', str(jobs), '--parallel', str(parallel)]
    if stdin:
        arguments += ['--stdin', stdin]
    if chroot:
        arguments += ['--chroot', chroot]
    arguments.append('--')
    for number, command in enumerate(commands):
        arguments += ([':::'] if number else []) + command
    return run_json(arguments)


def wait_process(pid):
    """Until a process that is nobody's child here has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        select.select([descriptor], [], [], 60)
    finally:
        os.close(descriptor)


class Bundle:
    """The bundle that `faas bundle` writes for a function, run by runc under a root of its own."""

    runs = 0

    def __init__(self, bench, site, name):
        self.bench = bench
        self.folder = os.path.join(bench.folder, f'bundle-{name}')
        self.root = os.path.join(bench.folder, 'runc')
        result = site.platform.faas('bundle', name, '--out', self.folder)
        if result.returncode != 0:
            raise Failure(f'faas bundle: {result.stderr.decode()[:800]}')
        self.prefix = f'{os.path.basename(bench.folder)}-{name}-'

    @property
    def rootfs(self):
        return os.path.join(self.folder, 'rootfs')

    def runc(self, *arguments):
        return ['runc', '--root', self.root, *arguments]

    def ids(self):
        Bundle.runs += 1
        return f'{self.prefix}{Bundle.runs}-{{}}'

    def run(self, jobs=1, parallel=1):
        """Figures of `runc run`, each until its container is gone."""
        return spawn([self.runc('run', '--bundle', self.folder, self.ids())], jobs, parallel, self.bench.body)

    def create_and_start(self, jobs, parallel):
        """Figures of `runc create` and `runc start`, one after the other in each job, and as `run_rate` how many a second there were until
        their processes had run to the end. The containers stay: delete_all()."""
        name, pid_file = self.ids(), os.path.join(self.bench.folder, f'pid-{Bundle.runs}-')
        begin_ns = time.monotonic_ns()
        figures = spawn([self.runc('create', '--bundle', self.folder, '--pid-file', pid_file + '{}', name), self.runc('start', name)], jobs,
                        parallel, self.bench.body)
        for number in range(jobs):
            with open(pid_file + str(number), encoding='ascii') as file:
                wait_process(int(file.read()))
        figures['run_rate'] = jobs * 1e9 / (time.monotonic_ns() - begin_ns)
        return figures

    def delete_all(self):
        """Whatever containers a failure or create() left."""
        listed = subprocess.run(self.runc('list', '--quiet'), capture_output=True, text=True, check=False).stdout.split()
        for container in listed:
            subprocess.run(self.runc('delete', '--force', container), capture_output=True, check=False)


def bare_node(bundle, count):
    """ns from the start to the end of the image's own node, with nothing to run, on the host."""
    return spawn([['/usr/bin/node', '-e', '0']], count, chroot=bundle.rootfs)['values']


def bare_python(bundle, count):
    return spawn([['/usr/bin/python3', '-c', 'import json']], count, chroot=bundle.rootfs)['values']


def bare_fork(bundle, source, count):
    """ns of a fork from an idle Python process of the same image that runs `source`, on the host."""
    result = subprocess.run([CHROOT, bundle.rootfs, '/usr/bin/python3', '-c', ZYGOTE, source, PAYLOAD.decode(), str(count)],
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=120, check=True)
    return json.loads(result.stdout)
