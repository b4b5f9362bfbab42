"""Docker's engine as a baseline, where one answers: `docker run`, and the engine's API without the command's own start."""
import http.client
import json
import os
import secrets
import shutil
import socket
import subprocess

from baselines import spawn
from measure import PAYLOAD, Failure, elapsed_ns


def version():
    """The engine's version, or None when none answers."""
    if not shutil.which('docker'):
        return None
    try:
        result = subprocess.run(['docker', 'version', '--format', '{{.Server.Version}}'], capture_output=True, text=True, timeout=20,
                                check=False)
    except subprocess.TimeoutExpired:
        return None
    return result.stdout.strip() if result.returncode == 0 else None


class EngineConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__('localhost', timeout=120)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


class Docker:
    """An image in the engine, made from a bundle's root file system, and the bundle's code run in it with the same limits. A context
    manager: the image goes at its end."""

    def __init__(self, bench, bundle, entry='main.py'):
        self.bench, self.bundle = bench, bundle
        self.command = ['python3', entry]
        self.code = os.path.realpath(os.path.join(bundle.folder, 'mounts', '0'))
        # A folder's random name may not do: no two of the characters _ . - may follow each other in a reference, nor one end it.
        self.image = f'faas-bench-{secrets.token_hex(4)}:python'

    def __enter__(self):
        with subprocess.Popen(['tar', '-C', self.bundle.rootfs, '-c', '.'], stdout=subprocess.PIPE) as tar:
            result = subprocess.run(['docker', 'import', '-', self.image], stdin=tar.stdout, capture_output=True, check=False)
        if tar.returncode != 0 or result.returncode != 0:
            raise Failure(f'docker import: {result.stderr.decode()[:800]}')
        return self

    def __exit__(self, *_):
        subprocess.run(['docker', 'image', 'rm', '--force', self.image], capture_output=True, check=False)

    def run(self, count):
        """ns of `docker run`, each until the container is removed."""
        return spawn([['docker', 'run', '--rm', '--network', 'none', '--memory', '128m', '--memory-swap', '128m', '--cpus', '1',
                       '--pids-limit', '64', '--read-only', '--tmpfs', '/tmp:size=64m', '--user', '1000:1000', '--cap-drop', 'ALL',
                       '--security-opt', 'no-new-privileges', '--volume', self.code + ':/app/function:ro', '--workdir', '/app/function',
                       '--env', 'FUNCTION_PAYLOAD=' + PAYLOAD.decode(), self.image, *self.command]], count)['values']

    # -- the same through the engine's API --

    def call(self, method, path, body=None):
        where = os.environ.get('DOCKER_HOST', 'unix:///var/run/docker.sock').removeprefix('unix://')
        connection = EngineConnection(where)
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None, {'Content-Type': 'application/json'})
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        if answer.status >= 300:
            raise Failure(f'Docker: {method} {path}: {answer.status} {text[:400]!r}')
        return json.loads(text) if text.strip() else {}

    def definition(self):
        return {'Image': self.image, 'Cmd': self.command, 'User': '1000:1000', 'WorkingDir': '/app/function',
                'Env': ['FUNCTION_PAYLOAD=' + PAYLOAD.decode()],
                'HostConfig': {'NetworkMode': 'none', 'Memory': 128 << 20, 'MemorySwap': 128 << 20, 'NanoCpus': 10 ** 9, 'PidsLimit': 64,
                               'ReadonlyRootfs': True, 'Tmpfs': {'/tmp': 'size=64m'}, 'CapDrop': ['ALL'],
                               'SecurityOpt': ['no-new-privileges'], 'Binds': [self.code + ':/app/function:ro']}}

    def run_by_api(self):
        """ns from the creation of a container to its end, without its removal."""
        container = {}

        def create_start_wait():
            container.update(self.call('POST', '/containers/create', self.definition()))
            self.call('POST', f'/containers/{container["Id"]}/start')
            self.status = self.call('POST', f'/containers/{container["Id"]}/wait')['StatusCode']
        try:
            elapsed = elapsed_ns(create_start_wait)
        finally:
            if container:
                self.call('DELETE', f'/containers/{container["Id"]}?force=true')
        if self.status != 0:
            raise Failure(f'the container ended with status {self.status}')
        return elapsed
