"""A platform of its own for a test (or for the demo): `faas up` on a free port with a temporary data folder, calls to its API, and
proof that nothing of it is left when it has stopped.

    class Hello(PlatformTest):
        def test_result(self):
            self.deploy('hello', python='print(1)')
            self.assertEqual(self.invoke('hello')['result'], 1)
"""
import base64
import contextlib
import io
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import unittest
import urllib.error
import urllib.parse
import urllib.request
import uuid

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.environ.get('FAAS_BIN', os.path.join(TOP, 'build', 'bin'))
ENTRIES = {'python': 'main.py', 'nodejs': 'index.js', 'go': 'main.go', 'native': 'bootstrap'}
START_TIMEOUT = 120
STOP_TIMEOUT = 90


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f'HTTP {self.status}: {self.body[:600]!r}'


def http(method, url, body=None, headers=None, timeout=120):
    """One request; any status is an answer. Never through a proxy: the platform is on this machine."""
    request = urllib.request.Request(url, data=body, method=method, headers=headers or {})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=timeout) as response:
            return Answer(response.status, response.headers, response.read())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.headers, error.read())


def archive(files):
    """A tar.gz of {path: text or bytes}; `bootstrap` and *.sh are executable."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode='w:gz') as tar:
        for path, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            entry = tarfile.TarInfo(path)
            entry.size = len(data)
            entry.mode = 0o755 if os.path.basename(path) == 'bootstrap' or path.endswith('.sh') else 0o644
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


# ---- what a platform could leave behind ----

def _lines(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    except FileNotFoundError:
        return []


def _cgroups():
    found = set()
    for root, folders, _ in os.walk('/sys/fs/cgroup'):
        found.update(os.path.join(root, folder) for folder in folders if folder.startswith('faas-'))
    return found


def _processes():
    found = set()
    for pid in filter(str.isdigit, os.listdir('/proc')):
        with contextlib.suppress(OSError):
            with open(f'/proc/{pid}/cmdline', 'rb') as file:
                line = file.read().replace(b'\0', b' ').decode(errors='replace').strip()
            if re.search(r'(^|/)(faas|faas-controller|faas-worker|runc) |/\.faas/init|/libexec/', line + ' '):
                found.add(f'process {pid}: {line[:160]}')
    return found


def _under(folder):
    found = set()
    for root, folders, files in os.walk(folder):
        found.update(os.path.join(root, name) for name in folders + files)
    return found


def host_state():
    """Everything on this machine that belongs to some platform or could, as a set of lines to compare."""
    state = _cgroups() | _processes() | _under('/run/faas') | _under('/run/netns') | _under('/run/runc')
    with open('/proc/self/mountinfo', encoding='utf-8') as file:
        state |= {'mount ' + line.split(' ')[4] for line in file}
    # Without the trailing "@if7" and flags, which may change by themselves.
    state |= {'link ' + line.split(': ')[1].split('@')[0] for line in _lines('ip', '-o', 'link')}
    state |= {'nft ' + line for line in _lines('nft', 'list', 'tables')}
    state |= {'iptables ' + line for line in _lines('iptables-save') if line.startswith('-A') or line.startswith(':CNI')}
    state |= {'/tmp/' + name for name in os.listdir('/tmp') if name.startswith(('faas', 'runc'))}
    with contextlib.suppress(OSError), open('/sys/kernel/security/apparmor/profiles', encoding='utf-8') as file:
        state |= {'AppArmor profile ' + line.strip() for line in file if line.startswith('faas-')}
    return state


def leftovers(before, name='', seconds=5.0):
    """What is there now and was not in host_state() `before`. The kernel removes some things a moment after the last close, so this
    may wait. Where other platforms come and go at the same time (FAAS_TEST_SHARED_HOST is set), only what has `name` in it counts."""
    deadline = time.monotonic() + seconds
    while True:
        left = host_state() - before - {'/run/faas', '/run/faas/cni'}
        if os.environ.get('FAAS_TEST_SHARED_HOST'):
            left = {line for line in left if name in line}
        if not left or time.monotonic() > deadline:
            return sorted(left)
        time.sleep(0.1)


class Platform:
    """`faas up`, its address and token. Use as a context manager, or start() and stop()."""

    def __init__(self, settings=None, data_dir=None, arguments=(), prefix=()):
        """`prefix`: a command that runs the one behind it, in other circumstances."""
        self.settings = dict(settings or {})
        self.prefix = list(prefix)
        self.own_data_dir = data_dir is None
        self.data_dir = data_dir or tempfile.mkdtemp(prefix='faas-e2e-')
        self.arguments = list(arguments)
        self.worker_name = 'e2e-' + uuid.uuid4().hex[:8]
        self.process = None
        self.url = self.token = None
        self.output = os.path.join(self.data_dir, 'up.log')
        self.before = None

    # -- life --

    def environment(self):
        environment = {name: value for name, value in os.environ.items() if not name.startswith(('CONTROLLER_', 'WORKER_', 'FAAS_'))}
        for name in ('WORKER_IMAGE_DIR', 'WORKER_OCI_RUNTIME', 'WORKER_START_TIMEOUT_MS', 'ASAN_OPTIONS', 'LSAN_OPTIONS'):
            if name in os.environ:
                environment[name] = os.environ[name]
        environment['WORKER_NAME'] = self.worker_name
        environment.update(self.settings)
        return environment

    def start(self):
        os.chmod(self.data_dir, 0o711)
        if self.before is None:
            self.before = host_state()
        with open(self.output, 'ab') as log:
            self.process = subprocess.Popen(
                [*self.prefix, os.path.join(BIN, 'faas'), 'up', '--data-dir', self.data_dir, '--listen', '127.0.0.1:0', *self.arguments],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, env=self.environment())
        line = self._read_ready_line()
        if not line.startswith('ready http'):
            self.kill()
            raise AssertionError(f'faas up said {line!r} instead of "ready URL"; its log:\n{self.log_tail()}')
        self.url = line.split()[1]
        with open(os.path.join(self.data_dir, 'token'), encoding='ascii') as file:
            self.token = file.read().strip()
        return self

    def _read_ready_line(self):
        descriptor, line = self.process.stdout.fileno(), b''
        deadline = time.monotonic() + START_TIMEOUT
        while not line.endswith(b'\n') and time.monotonic() < deadline:
            if select.select([descriptor], [], [], 1)[0]:
                piece = os.read(descriptor, 4096)
                if not piece:
                    break
                line += piece
        return line.decode(errors='replace')

    def stop(self, with_signal=signal.SIGTERM):
        """Stops it in order; returns its exit status."""
        if not self.process:
            return None
        if self.process.poll() is None:
            self.process.send_signal(with_signal)
        try:
            status = self.process.wait(timeout=STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f'faas up did not stop within {STOP_TIMEOUT} s; its log:\n{self.log_tail()}') from None
        self.process.stdout.close()
        self.process = None
        self.check_sanitizers()
        return status

    def check_sanitizers(self):
        """What the programs of a build with sanitizers wrote: any complaint is an AssertionError."""
        reports = sanitizer_reports(self.log_tail(10_000_000))
        if reports:
            raise AssertionError('a sanitizer complained:\n' + reports)

    def kill(self):
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()
            self.process = None

    def cleanup(self):
        """Removes the data folder, unless the caller brought it."""
        if self.own_data_dir:
            shutil.rmtree(self.data_dir, ignore_errors=True)

    def log_tail(self, size=6000):
        with contextlib.suppress(OSError), open(self.output, 'rb') as file:
            return file.read()[-size:].decode(errors='replace')
        return ''

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        try:
            self.stop()
        finally:
            self.cleanup()

    def leftovers(self):
        """What it has left behind, after stop()."""
        return leftovers(self.before, self.worker_name.removeprefix('e2e-'))

    def pids(self):
        """{'faas': 1, 'faas-controller': 2, 'faas-worker': 3}"""
        found = {'faas': self.process.pid}
        for pid in filter(str.isdigit, os.listdir('/proc')):
            with contextlib.suppress(OSError, IndexError):
                with open(f'/proc/{pid}/stat', encoding='utf-8', errors='replace') as file:
                    name, rest = file.read().split('(', 1)[1].rsplit(')', 1)
                if int(rest.split()[1]) == self.process.pid and name in ('faas-controller', 'faas-worker'):
                    found[name] = int(pid)
        return found

    def link_bytes(self):
        """What the worker's connections to the controller have received and sent, as TCP counts it."""
        port, pid = self.url.rsplit(':', 1)[1], self.pids()['faas-worker']
        lines = subprocess.run(['ss', '-tinpHO', 'dport', '=', ':' + port], capture_output=True, text=True, check=True).stdout.splitlines()
        own = [line for line in lines if f'pid={pid},' in line]
        return [sum(int(number) for line in own for number in re.findall(rf'\b{name}:(\d+)', line)) for name in ('bytes_received', 'bytes_sent')]

    def descriptors(self):
        """{'faas-worker': how many}, and so on."""
        return {name: len(os.listdir(f'/proc/{pid}/fd')) for name, pid in self.pids().items()}

    def descriptors_at_rest(self, seconds=5):
        """Once they have stayed the same for so long: no container is being made or removed in the background any more."""
        counts, since = None, 0

        def rest():
            nonlocal counts, since
            now = self.descriptors()
            if now != counts:
                counts, since = now, time.monotonic()
            return time.monotonic() - since > seconds
        wait_until(rest, 120, 'descriptors stay the same')
        return counts

    # -- calls --

    def api(self, method, path, body=None, token='', headers=None, timeout=120):
        """`body`: bytes as they are, anything else as JSON. `token`: None sends none."""
        headers = dict(headers or {})
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        if body is not None:
            headers.setdefault('Content-Type', 'application/json')
        if token is not None:
            headers.setdefault('Authorization', 'Bearer ' + (token or self.token))
        return http(method, self.url + path, body, headers, timeout)

    def deploy(self, name, wait=True, **fields):
        """Deploys files={...}, code=bytes, or one source given as python=, nodejs=, go= or native=; other fields as in the API."""
        for runtime in ENTRIES:
            if runtime in fields:
                source = fields.pop(runtime)
                fields['runtime'] = runtime
                fields['code'] = archive({'bootstrap': source}) if runtime == 'native' else source
        if 'files' in fields:
            fields['code'] = archive(fields.pop('files'))
        if 'code' in fields:
            code = fields['code']
            fields['code'] = base64.b64encode(code.encode() if isinstance(code, str) else code).decode()
        answer = self.api('PUT', '/v1/functions/' + name, fields)
        if answer.status not in (200, 201):
            raise AssertionError(f'deploying {name}: {answer}')
        function = answer.json()
        return self.wait_built(name) if wait and function['state'] == 'building' else function

    def wait_built(self, name, timeout=180):
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            function = self.api('GET', '/v1/functions/' + name).json()
            if function['state'] != 'building':
                return function
            time.sleep(0.1)
        raise AssertionError(f'{name} is still building after {timeout} s')

    def invoke(self, name, payload=None, timeout=120):
        """The execution; an API error is an AssertionError."""
        body = payload if isinstance(payload, bytes) or payload is None else json.dumps(payload).encode()
        answer = self.api('POST', f'/v1/functions/{name}/invocations', body if body is not None else b'', timeout=timeout)
        if answer.status != 200:
            raise AssertionError(f'invoking {name}: {answer}')
        return answer.json()

    def invoke_async(self, name, payload=None):
        answer = self.api('POST', f'/v1/functions/{name}/invocations?mode=async', {} if payload is None else payload)
        if answer.status != 202:
            raise AssertionError(f'invoking {name}: {answer}')
        return answer.json()['id']

    def wait_execution(self, execution_id, timeout=120):
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            execution = self.api('GET', '/v1/executions/' + execution_id).json()
            if execution.get('status') not in ('queued', 'running'):
                return execution
            time.sleep(0.05)
        raise AssertionError(f'execution {execution_id} is not final after {timeout} s')

    def faas(self, *arguments, stdin=b'', check=False, timeout=120):
        """The command, told where this platform is."""
        environment = self.environment() | {'FAAS_URL': self.url, 'FAAS_TOKEN': self.token}
        return subprocess.run([os.path.join(BIN, 'faas'), *arguments], input=stdin, capture_output=True, check=check,
                              timeout=timeout, env=environment)


class PlatformTest(unittest.TestCase):
    """One platform for all tests of a class. When they are done it is stopped, and must leave nothing behind."""

    settings = {}
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        if os.geteuid() != 0:
            raise unittest.SkipTest('needs root')
        cls.platform = Platform(cls.settings)
        try:
            cls.platform.start()
        except BaseException:
            cls.platform.cleanup()
            raise

    @classmethod
    def tearDownClass(cls):
        platform = cls.platform
        try:
            status = platform.stop()
            left = platform.leftovers()
            if status != 0 or left:
                raise AssertionError(f'faas up ended with status {status}; left behind: {left}\nits log:\n{platform.log_tail()}')
        finally:
            platform.kill()
            platform.cleanup()

    def deploy(self, *arguments, **fields):
        return self.platform.deploy(*arguments, **fields)

    def invoke(self, *arguments, **options):
        return self.platform.invoke(*arguments, **options)

    def api(self, *arguments, **options):
        return self.platform.api(*arguments, **options)

    def assertSucceeded(self, execution, result=...):
        self.assertEqual(execution['status'], 'succeeded', execution)
        if result is not ...:
            self.assertEqual(execution['result'], result)

    def assertFailed(self, execution, error_type, status='failed'):
        self.assertEqual((execution['status'], execution['error']['type']), (status, error_type), execution)

    def assertApiError(self, answer, status, error_type, *words, field=None):
        """An error in the contract's form, with `words` in its message."""
        self.assertEqual(answer.status, status, answer)
        body = answer.json()
        self.assertEqual(body['error']['type'], error_type, body)
        self.assertTrue(body['request_id'], body)
        for word in words:
            self.assertIn(str(word), body['error']['message'])
        if field:
            self.assertEqual(body['error'].get('field'), field, body)


def sanitizer_reports(text):
    found = re.search(r'(?:Address|Leak|Thread)Sanitizer|runtime error:', text)
    return text[max(0, found.start() - 200):found.start() + 4000] if found else ''


def wait_until(condition, seconds=30, what='the condition'):
    """Its first true value. `what` is a text, or a function that makes it when time is over."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f'{what() if callable(what) else what}: not within {seconds} s')


def main():
    """Runs the calling module's tests; ends with 77 (CTest: skipped) when all of them were skipped."""
    program = unittest.main(module='__main__', exit=False, verbosity=2)
    result = program.result
    if result.wasSuccessful() and result.skipped and result.testsRun <= len(result.skipped):
        sys.exit(77)
    sys.exit(0 if result.wasSuccessful() else 1)
