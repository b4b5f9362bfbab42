"""A cgroup of a test's own, on cgroup v1 and v2, with a limit for a platform that starts in it, instances included."""
import contextlib
import os
import re

ROOT = '/sys/fs/cgroup'
IS_V2 = os.path.exists(f'{ROOT}/cgroup.controllers')
FILES = {True: {'memory': 'memory.max', 'swap': 'memory.swap.max', 'pids': 'pids.max', 'peak': 'memory.peak', 'kills': 'memory.events'},
         False: {'memory': 'memory.limit_in_bytes', 'swap': 'memory.memsw.limit_in_bytes', 'pids': 'pids.max', 'peak': 'memory.max_usage_in_bytes',
                 'kills': 'memory.oom_control'}}[IS_V2]
# Where a worker that was given the cgroup puts the processes that it finds there (src/worker/cgroup.h).
SUPERVISOR = 'faas-supervisor'


def read(path):
    with open(path, encoding='utf-8') as file:
        return file.read()


def write(path, text):
    with open(path, 'w', encoding='utf-8') as file:
        file.write(str(text))


def home(controller):
    """The cgroup of this process that has the controller for its children, or could; None: there is none."""
    pattern = r'^0::(.*)$' if IS_V2 else rf'^\d+:(?:.*,)?{controller}(?:,.*)?:(.*)$'
    own = re.search(pattern, read('/proc/self/cgroup'), re.MULTILINE)
    if not own:
        return None
    folder = (ROOT if IS_V2 else f'{ROOT}/{controller}') + own[1].rstrip('/')
    if IS_V2 and (folder != ROOT or controller not in read(f'{folder}/cgroup.controllers').split()):
        return None  # others' processes are there, so it can have no limits for its children
    return folder if os.path.exists(f'{folder}/cgroup.procs') else None


class Confinement:
    """Made for one controller, 'memory' or 'pids'; remove() when all that was in it has ended."""

    def __init__(self, controller):
        self.home = home(controller)
        self.folder = f'{self.home}/confinement-{os.getpid()}'
        if IS_V2:
            write(f'{self.home}/cgroup.subtree_control', '+cpu +memory +pids')  # a worker wants them all
        os.mkdir(self.folder)
        if IS_V2:
            os.setxattr(self.folder, 'trusted.delegate', b'1')  # as a service manager does for a worker

    def remove(self):
        os.rmdir(self.folder)

    @contextlib.contextmanager
    def inside(self):
        """This process is in it, and so is what it starts."""
        write(f'{self.folder}/cgroup.procs', os.getpid())
        try:
            yield
        finally:
            write(f'{self.home}/cgroup.procs', os.getpid())

    def limit_memory(self, megabytes):
        write(f'{self.folder}/{FILES["memory"]}', megabytes << 20)
        if os.path.exists(f'{self.folder}/{FILES["swap"]}'):
            write(f'{self.folder}/{FILES["swap"]}', 0 if IS_V2 else megabytes << 20)

    def memory_peak(self):
        return int(read(f'{self.folder}/{FILES["peak"]}'))

    def oom_kills(self):
        return int(re.search(r'^oom_kill (\d+)$', read(f'{self.folder}/{FILES["kills"]}'), re.MULTILINE)[1])

    def pids(self):
        """Processes in it that are of no instance."""
        found = set()
        for folder in (self.folder, f'{self.folder}/{SUPERVISOR}'):
            with contextlib.suppress(FileNotFoundError):
                found |= set(map(int, read(f'{folder}/cgroup.procs').split()))
        return found

    def has_ended_tasks(self):
        """Some have ended that count still, until somebody reaps them."""
        tasks = 'cgroup.threads' if IS_V2 else 'tasks'
        return sum(len(read(f'{folder}/{tasks}').split()) for folder, _, _ in os.walk(self.folder)) != int(read(f'{self.folder}/pids.current'))

    def close_pids(self):
        """Not one process or thread more than there are."""
        write(f'{self.folder}/{FILES["pids"]}', read(f'{self.folder}/pids.current').strip())

    def open_pids(self):
        write(f'{self.folder}/{FILES["pids"]}', 'max')
