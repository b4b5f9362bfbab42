"""What an attack is, and how it is run.

An attack is a function that tries something, what must come of it, and what holds it. It runs through the public API on a real worker
while bystanders, functions of other users, are called all the time: their results must be right.

    @attack('memory-touched', 'memory that is touched', 'the kernel ends it: out_of_memory', 'memory cgroup, no swap')
    def _(suite):
        suite.deploy(python='…', memory_mb=64)
        return suite.expect(suite.invoke(), 'out_of_memory')

It returns a few words of what was seen; what must not be is an AssertionError."""
import base64
import io
import json
import os
import sys
import tarfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), 'e2e'))
from faas_platform import archive  # noqa: E402  pylint: disable=wrong-import-position
from world import PATIENCE  # noqa: E402  pylint: disable=wrong-import-position

NATIVE = os.environ.get('FAAS_HOSTILE_BIN', os.path.join(os.path.dirname(os.path.dirname(HERE)), 'build', 'hostile'))

# In front of every attack in Python. done: it worked; refused: with this errno.
PRELUDE = f'PATIENCE = {PATIENCE}' + '''
import ctypes, errno, json, os, signal, socket, stat, struct, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
tried = {}
def attempt(name, action):
    try:
        value = action()
        if callable(getattr(value, 'close', None)): value.close()
        tried[name] = ['done', repr(value)[:120]]
    except OSError as error:
        tried[name] = ['refused', errno.errorcode.get(error.errno, str(error))]
    except BaseException as error:
        tried[name] = ['refused', type(error).__name__]
def call(name, number, *arguments):
    ctypes.set_errno(0)
    value = libc.syscall(number, *arguments)
    tried[name] = ['done', value] if value != -1 else ['refused', errno.errorcode.get(ctypes.get_errno(), '?')]
def read(path, size=4096):
    with open(path, 'rb') as file: return file.read(size)
def write(path, text='x'):
    with open(path, 'wb', buffering=0) as file: return file.write(text.encode())
def connect(*targets, timeout=0.8 * PATIENCE):
    """Which of these (host, port) can be reached over TCP."""
    import select
    waiting = {}
    for host, port in targets:
        s = socket.socket()
        s.setblocking(False)
        try:
            if s.connect_ex((host, port)) not in (0, errno.EINPROGRESS): continue
        except OSError:
            continue
        waiting[s] = f'{host}:{port}'
    reached, until = [], time.monotonic() + timeout
    while waiting and time.monotonic() < until:
        for s in select.select([], list(waiting), [], max(0, until - time.monotonic()))[1]:
            name = waiting.pop(s)
            if s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0: reached.append(name)
            s.close()
    return sorted(reached)
'''

ATTACKS = []


class Attack:
    def __init__(self, name, group, what, must, held_by, action):
        self.name, self.group, self.what, self.must, self.held_by, self.action = name, group, what, must, held_by, action


def group(name):
    """A decorator maker: attack(name, what is tried, what must come of it, what holds it)."""
    def attack(attack_name, what, must, held_by):
        def add(action):
            ATTACKS.append(Attack(attack_name, name, what, must, held_by, action))
            return action
        return add
    return attack


def tar(*entries):
    """A tar of (name, type, content or target) or TarInfo; types: file, dir, sym, hard, char, fifo."""
    kinds = {'file': tarfile.REGTYPE, 'dir': tarfile.DIRTYPE, 'sym': tarfile.SYMTYPE, 'hard': tarfile.LNKTYPE, 'char': tarfile.CHRTYPE,
             'block': tarfile.BLKTYPE, 'fifo': tarfile.FIFOTYPE}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode='w') as file:
        for name, kind, content in entries:
            entry = tarfile.TarInfo(name)
            entry.type = kinds[kind]
            entry.mode = 0o4755 if kind == 'file' else 0o755
            data = b''
            if kind == 'file':
                data = content if isinstance(content, bytes) else content.encode()
                entry.size = len(data)
            elif kind in ('sym', 'hard'):
                entry.linkname = content
            elif kind in ('char', 'block'):
                entry.devmajor, entry.devminor = content
            file.addfile(entry, io.BytesIO(data))
    return out.getvalue()


class Suite:
    """What an attack's action is given."""

    def __init__(self, platform, world):
        self.platform, self.world = platform, world
        self.attack = None
        self.deployed = []

    # -- for attacks --

    def deploy(self, name=None, native=None, prelude=True, **fields):
        """native: name of a program in native/. A Python source gets the prelude in front."""
        name = name or self.attack.name
        if native:
            with open(os.path.join(NATIVE, native), 'rb') as file:
                fields.update(runtime='native', code=archive({'bootstrap': file.read()}))
        elif 'python' in fields and prelude:
            fields['python'] = PRELUDE + fields['python']
        fields.setdefault('timeout_ms', int(10000 * PATIENCE))
        fields.setdefault('network', 'none')
        function = self.platform.deploy(name, **fields)
        self.deployed.append(name)
        return function

    def invoke(self, payload=None, name=None):
        return self.platform.invoke(name or self.attack.name, payload, timeout=60 * PATIENCE)

    def expect(self, execution, *statuses):
        """Its end is one of these ("failed/Function.ResultTooLarge" names the error, too)."""
        error = (execution.get('error') or {}).get('type', '')
        seen = execution['status'] + ('/' + error if error else '')
        if not any(status in (execution['status'], seen) for status in statuses):
            raise AssertionError(f'ended as {seen}: {json.dumps(execution)[:600]}')
        return seen

    def result(self, payload=None, name=None):
        execution = self.invoke(payload, name)
        self.expect(execution, 'succeeded')
        return execution['result']

    def refused(self, python=None, native=None, allowed=(), reasons=(), **fields):
        """Runs code that fills `tried`; everything in it but `allowed` must be refused, for one of these reasons where some are given."""
        if python is not None:
            fields['python'] = python + '\nprint(json.dumps(tried))'
        self.deploy(native=native, **fields)
        tried = self.result()
        if not tried:
            raise AssertionError('nothing was tried')
        worked = {name: value[1] for name, value in tried.items() if value[0] != 'refused' and name not in allowed}
        if worked:
            raise AssertionError(f'worked: {worked}')
        others = {name: value[1] for name, value in tried.items() if reasons and value[0] == 'refused' and value[1] not in reasons}
        if others:
            raise AssertionError(f'not refused as {", ".join(reasons)}: {others}')
        reasons = sorted({value[1] for value in tried.values() if value[0] == 'refused'})
        return f'{len(tried)} refused ({", ".join(reasons)})' if len(tried) > 1 else f'refused ({reasons[0]})'

    def nothing_arrived(self, place, *, but=lambda packet: False):
        """No packet of a function has come to this place."""
        came = [packet for packet in place.sniffer.take() if packet.type == 0x0800 and packet.port and not but(packet)]
        if came:
            raise AssertionError(f'{place.name} got {len(came)} packets: {came[:4]}')

    def api_refuses(self, fields, *words):
        """The API refuses a definition; the message has these words."""
        if isinstance(fields.get('code'), bytes):
            fields['code'] = base64.b64encode(fields['code']).decode()
        answer = self.platform.api('PUT', '/v1/functions/' + self.attack.name, fields)
        if answer.status < 400 or answer.status >= 500:
            raise AssertionError(f'not refused: {answer}')
        message = answer.json()['error']['message']
        for word in words:
            if word not in message:
                raise AssertionError(f'{word!r} is not in {message!r}')
        return f'{answer.status}: {message[:70]}'

    # -- for the runner --

    def clean(self):
        for name in self.deployed:
            self.platform.api('DELETE', '/v1/functions/' + name)
        self.deployed = []
