"""Controllers and real workers of an optimised build, for the figures that need more than one of them or their deaths."""
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile

TOP = os.path.abspath(os.path.join(os.path.dirname(__file__), '..', '..'))
os.environ.setdefault('FAAS_BIN', os.path.join(TOP, 'build', 'release', 'bin'))
sys.path.insert(0, os.path.join(TOP, 'tests', 'integration'))
from controller import BIN, Controller, wait_until  # noqa: E402
from postgresql import PostgreSQL  # noqa: E402

__all__ = ['BIN', 'Controller', 'PostgreSQL', 'RealWorker', 'load_command', 'resident', 'wait_until']


def load_command(controller, path, *options):
    host, port = controller.url.removeprefix('http://').split(':')
    return [os.path.join(BIN, 'bench-load'), host, port, 'POST', path, '--token', controller.token, *options]


def resident(process):
    """Bytes of memory that a process has to itself or shares."""
    with open(f'/proc/{process.pid}/statm', encoding='ascii') as file:
        return int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')


class RealWorker:
    """A faas-worker of these controllers, by a name that nobody else has."""

    def __init__(self, number, *controllers, **settings):
        self.name = f'bench{os.getpid()}-{number}'
        self.folder = tempfile.mkdtemp(prefix='faas-bench-')
        os.chmod(self.folder, 0o711)
        self.environment = {'PATH': os.environ['PATH'], 'WORKER_NAME': self.name, 'WORKER_DATA_DIR': self.folder,
                            'WORKER_CONTROLLER_URL': ','.join(controller.url for controller in controllers),
                            'WORKER_TOKEN': controllers[0].worker_token,
                            'LOG_LEVEL': 'warn', **settings}
        if 'WORKER_IMAGE_DIR' in os.environ:
            self.environment['WORKER_IMAGE_DIR'] = os.environ['WORKER_IMAGE_DIR']
        self.process = None

    def start(self):
        with open(os.path.join(self.folder, 'log'), 'ab') as log:
            self.process = subprocess.Popen([os.path.join(BIN, 'faas-worker')], env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        return self

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.process.terminate()
        self.process.wait(120)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        """What was killed is started once more: it removes what it left behind."""
        if self.process.poll() is not None:
            self.start()
        with contextlib.suppress(ProcessLookupError):
            self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
