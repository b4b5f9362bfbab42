"""The platform that chaos is let loose on: controllers in one network namespace, each worker in one of its own, and everything that can
be done to them. Every program is a real one; only the OCI runtime has a thin wrapper around it that can be told to fail.

    hub namespace   10.211.0.1   controllers (ports 7000, 7001, …), the load, PostgreSQL, the bridge that all links end at
    worker i        10.211.0.1i  linked to the hub by a veth pair, which can be cut, delayed, or made to lose packets

The last worker reaches its controllers by a relay (relay.py) that can say messages twice or in another order; each controller reaches
PostgreSQL by an address of its own, which can be cut. The wall clock of each controller and worker can be set (clock_jump.c). No
namespace has a route out of this machine."""
import base64
import contextlib
import http.client
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, 'tests', 'integration'))
from postgresql import PostgreSQL  # noqa: E402

BIN = os.environ.get('FAAS_BIN', os.path.join(TOP, 'build', 'bin'))
CLOCK_LIBRARY = os.path.join(BIN, '..', 'tests', 'chaos', 'libclock_jump.so')  # not with sanitizers, which want to be first
RELAY = os.path.join(TOP, 'tests', 'chaos', 'relay.py')
HUB_ADDRESS = '10.211.0.1'
FIRST_PORT = 7000
POSTGRES_PORT = 5432

RUNTIME_WRAPPER = '''#!/bin/sh
# The OCI runtime, unless the file beside it says what goes wrong: "fail VERB", "hang VERB", "slow VERB".
read -r what verb <"$0.fault" 2>/dev/null || what=
case " $* " in
    *" ${verb:-nothing} "*)
        case $what in
            fail) echo "the wrapper was told to fail $verb" >&2; exit 1 ;;
            hang) exec sleep @HANG@ ;;
            slow) sleep 3 ;;
        esac ;;
esac
exec runc "$@"
'''


def run(*command, check=True):
    return subprocess.run(command, check=check, capture_output=True, text=True)


class Program:
    """One process that is started again whenever it is found dead, as a service manager would."""

    def __init__(self, name, namespace, arguments, environment, log):
        self.name, self.namespace, self.arguments, self.environment, self.log = name, namespace, arguments, environment, log
        self.process = None
        self.held = False  # not to be started again for now
        self.clock = None

    def start(self):
        with open(self.log, 'ab') as log:
            self.process = subprocess.Popen(['nsenter', f'--net=/run/netns/{self.namespace}', *self.arguments],
                                            env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def give_clock(self, path):
        """Before its start: a wall clock that set_clock() sets."""
        if os.path.exists(CLOCK_LIBRARY):
            self.clock = path
            self.set_clock(0)
            self.environment.update(LD_PRELOAD=CLOCK_LIBRARY, FAAS_CLOCK_FILE=path)

    def set_clock(self, offset_s):
        with open(self.clock, 'r+b' if os.path.exists(self.clock) else 'wb') as file:  # in place: it is mapped
            file.write(struct.pack('=q', int(offset_s * 1e9)))

    def keep_alive(self):
        if not self.held and (self.process is None or self.process.poll() is not None):
            self.start()

    def signal(self, number):
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    def stop(self, timeout=90):
        """Its exit status, or None when it had to be killed."""
        self.held = True
        if self.process is None:
            return 0
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            self.process.wait()
            return None


class Cluster:
    def __init__(self, name, controllers, workers, database='sqlite', settings=None):
        self.name = name
        self.folder = tempfile.mkdtemp(prefix=f'faas-chaos-{name}-')
        os.chmod(self.folder, 0o711)
        self.hub = f'{name}-hub'
        self.namespaces, self.controllers, self.workers, self.relays = [], [], [], []
        self.postgres = None
        self.token = None
        self.hang = f'600.{os.getpid()}'  # by which what hangs is found
        self.environment = {'PATH': os.environ['PATH'], 'LOG_LEVEL': 'info', 'CONTROLLER_WORKER_LOST_MS': '5000', **(settings or {})}
        self.database = database
        self.controller_count, self.worker_count = controllers, workers

    # -- life --

    def start_programs(self):
        """After make_hub()."""
        if self.database == 'postgresql':
            addresses = ','.join(self._database_address(i) for i in range(self.controller_count))
            self.postgres = PostgreSQL('max_connections=100', f'listen_addresses={addresses}', f'port={POSTGRES_PORT}')
            self.postgres.__enter__()
        self._add_controller(0)
        self._wait_for_token()
        for i in range(1, self.controller_count):
            self._add_controller(i)
        for i in range(self.worker_count):
            self._add_worker(i)
        self.wait_until_ready()

    def stop(self):
        """Stops everything in order, workers first; what did not end in order is returned."""
        disorderly = []
        for program in self.workers + self.controllers:
            status = program.stop()
            if status != 0:
                disorderly.append(f'{program.name} ended with {status}')
        for relay in self.relays:
            relay.stop()
        if self.postgres:
            self.postgres.__exit__()
        for namespace in self.namespaces:
            run('ip', 'netns', 'del', namespace, check=False)
        return disorderly

    def cleanup(self):
        run('umount', os.path.join(self.folder, 'disk'), check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def keep_alive(self):
        for program in self.controllers + self.relays + self.workers:
            program.keep_alive()

    def wait_until_ready(self, seconds=60):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.keep_alive()
            with contextlib.suppress(OSError, http.client.HTTPException):
                status, body = self.call(0, 'GET', '/v1/workers', timeout=5)
                if status == 200 and sum(worker['state'] == 'active' for worker in body['workers']) == len(self.workers):
                    return
            time.sleep(0.2)
        raise AssertionError(f'the cluster was not ready within {seconds} s; logs are in {self.folder}')

    # -- parts --

    def _make_namespace(self, name):
        run('ip', 'netns', 'add', name)
        self.namespaces.append(name)
        run('ip', '-n', name, 'link', 'set', 'lo', 'up')

    def make_hub(self):
        self._make_namespace(self.hub)
        run('ip', '-n', self.hub, 'link', 'add', 'hub0', 'type', 'bridge')
        run('ip', '-n', self.hub, 'addr', 'add', f'{HUB_ADDRESS}/24', 'dev', 'hub0')
        run('ip', '-n', self.hub, 'link', 'set', 'hub0', 'up')
        # The controllers' data are on a disk of their own, which can be filled.
        disk = os.path.join(self.folder, 'disk')
        os.mkdir(disk)
        run('mount', '-t', 'tmpfs', '-o', 'size=512m,mode=0711', self.name, disk)

    @staticmethod
    def _database_address(i):
        return f'127.0.0.{1 + i}'

    def _database_url(self, i, data_dir):
        return self.postgres.tcp_url(self._database_address(i), POSTGRES_PORT) if self.postgres else f'sqlite://{data_dir}/controller.db'

    def _add_controller(self, i):
        data_dir = os.path.join(self.folder, 'disk', f'controller{i}')
        os.makedirs(data_dir)
        if self.token:  # all accept the same, which the first one made
            with open(os.path.join(data_dir, 'token'), 'w', encoding='ascii') as file:
                file.write(self.token + '\n')
            os.chmod(file.name, 0o600)
        environment = {**self.environment, 'CONTROLLER_DATA_DIR': data_dir, 'CONTROLLER_LISTEN': f'{HUB_ADDRESS}:{FIRST_PORT + i}',
                       'CONTROLLER_DATABASE_URL': self._database_url(i, data_dir), 'WORKER_TOKEN': 'chaos-worker-token'}
        program = Program(f'controller{i}', self.hub, [os.path.join(BIN, 'faas-controller')], environment, os.path.join(self.folder, f'controller{i}.log'))
        program.address, program.database_address, program.port = HUB_ADDRESS, self._database_address(i), FIRST_PORT + i
        program.give_clock(os.path.join(self.folder, f'controller{i}.clock'))
        self.controllers.append(program)
        program.start()

    def _wait_for_token(self, seconds=30):
        path = os.path.join(self.folder, 'disk', 'controller0', 'token')
        deadline = time.monotonic() + seconds
        while not os.path.exists(path) and time.monotonic() < deadline:
            time.sleep(0.05)
        with open(path, encoding='ascii') as file:
            self.token = file.read().strip()

    def _add_worker(self, i):
        namespace, inner = f'{self.name}-w{i}', f'c{i}'
        self._make_namespace(namespace)
        run('ip', '-n', self.hub, 'link', 'add', f'w{i}', 'type', 'veth', 'peer', 'name', inner, 'netns', namespace)
        run('ip', '-n', self.hub, 'link', 'set', f'w{i}', 'master', 'hub0', 'up')
        run('ip', '-n', namespace, 'addr', 'add', f'10.211.0.{10 + i}/24', 'dev', inner)
        run('ip', '-n', namespace, 'link', 'set', inner, 'up')
        wrapper = os.path.join(self.folder, f'runtime{i}')
        with open(wrapper, 'w', encoding='ascii') as file:
            file.write(RUNTIME_WRAPPER.replace('@HANG@', self.hang))
        os.chmod(wrapper, 0o755)
        address = HUB_ADDRESS
        if i == self.worker_count - 1:
            address = '127.0.0.1'
            self._add_relay(i, namespace)
        urls = ','.join(f'http://{address}:{FIRST_PORT + j}' for j in range(self.controller_count))
        environment = {**self.environment, 'WORKER_NAME': f'{self.name}-{i}', 'WORKER_DATA_DIR': os.path.join(self.folder, f'worker{i}'), 'WORKER_CONTROLLER_URL': urls,
                       'WORKER_TOKEN': 'chaos-worker-token', 'WORKER_OCI_RUNTIME': wrapper, 'WORKER_MEMORY_MB': '4096', 'WORKER_CONCURRENCY': '8',
                       'WORKER_START_TIMEOUT_MS': '10000', 'WORKER_NETWORK_SUBNET': f'10.99.{64 + i}.0/24'}
        program = Program(f'worker{i}', namespace, [os.path.join(BIN, 'faas-worker')], environment, os.path.join(self.folder, f'worker{i}.log'))
        program.wrapper, program.link, program.index = wrapper, inner, i
        program.give_clock(os.path.join(self.folder, f'worker{i}.clock'))
        self.workers.append(program)
        program.start()

    def _add_relay(self, i, namespace):
        ports = [word for j in range(self.controller_count) for word in (str(FIRST_PORT + j), f'{HUB_ADDRESS}:{FIRST_PORT + j}')]
        relay = Program(f'relay{i}', namespace, [sys.executable, '-B', RELAY, os.path.join(self.folder, f'relay{i}.fault'), *ports], dict(self.environment),
                        os.path.join(self.folder, f'relay{i}.log'))
        relay.fault = os.path.join(self.folder, f'relay{i}.fault')
        self.relays.append(relay)
        relay.start()

    # -- calls --

    def call(self, controller, method, path, body=None, timeout=60, headers=None):
        """(status, JSON). OSError or HTTPException when there was no answer."""
        with contextlib.closing(self.connect(controller, timeout)) as connection:
            return self.ask(connection, method, path, body, headers)

    @staticmethod
    def connect(controller, timeout=60):
        return http.client.HTTPConnection(HUB_ADDRESS, FIRST_PORT + controller, timeout=timeout)

    def ask(self, connection, method, path, body=None, headers=None):
        """The same over a connection that is kept."""
        text = None if body is None else json.dumps(body)
        connection.request(method, path, text, {'Authorization': f'Bearer {self.token}', 'Content-Type': 'application/json', **(headers or {})})
        response = connection.getresponse()
        data = response.read()
        return response.status, json.loads(data) if data else None

    def deploy(self, name, source, **fields):
        status, body = self.call(0, 'PUT', f'/v1/functions/{name}', {'runtime': 'python', 'network': 'none', 'code': base64.b64encode(source.encode()).decode(), **fields})
        if status not in (200, 201):
            raise AssertionError(f'deploying {name}: {status} {body}')
