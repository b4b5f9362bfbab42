"""Attacks on what is in the container beside the function: faas-init, the adapter or zygote, the socket to the worker."""
import json

from hostile import group
from world import PATIENCE

attack = group('instance')

# The adapter's socket in a Python handler's own process, and frames for it (src/init/protocol.h).
FRAMES = '''
INVOKE, READY, EXIT, RESULT, ERROR = 1, 2, 3, 4, 5
def sockets():
    found = []
    for n in os.listdir('/proc/self/fd'):
        try:
            if stat.S_ISSOCK(os.fstat(int(n)).st_mode): found.append(int(n))
        except OSError: pass
    return found
def frame(kind, flags=0, value=0, meta=b'', body=b'', body_len=None):
    return struct.pack('<HHIII', kind, flags, len(meta), len(body) if body_len is None else body_len, value) + meta + body
def send(data):
    for n in sockets():
        try: os.write(n, data)
        except OSError: pass
'''


def alive(suite):
    """Another function is served, and this function's next version, too."""
    suite.deploy(suite.attack.name + '-after', python='print(json.dumps("well"))')
    assert suite.result(name=suite.attack.name + '-after') == 'well'


@attack('signals', 'every signal to PID 1, to its siblings and to all', 'PID 1 lives, or the instance is replaced', 'PID 1 of the pid namespace takes no signal; the worker makes another')
def _(suite):
    suite.deploy(python='''
for pid in [1] + [int(p) for p in os.listdir('/proc') if p.isdigit() and int(p) != os.getpid()] + [-1]:
    for number in (signal.SIGTERM, signal.SIGSTOP, signal.SIGSEGV, signal.SIGKILL, signal.SIGRTMIN):
        try: os.kill(pid, number)
        except OSError: pass
print(1)
''', timeout_ms=3000)
    seen = [suite.expect(suite.invoke(), 'succeeded', 'failed', 'timed_out', 'lost') for _ in range(3)]
    suite.deploy(python='print(json.dumps("well"))')
    assert suite.result() == 'well'
    return ', '.join(seen)


@attack('init-memory', 'memory, environment, descriptors, root and working directory of PID 1 and of every other process', 'refused',
        'not dumpable; no capabilities; seccomp')
def _(suite):
    return suite.refused('''
others = [int(p) for p in os.listdir('/proc') if p.isdigit() and int(p) != os.getpid()]
for pid in others:
    for name in ('environ', 'mem', 'maps', 'smaps', 'auxv', 'stack', 'syscall', 'io', 'pagemap', 'mountinfo_'):
        attempt(f'{pid}/{name}', lambda: read(f'/proc/{pid}/{name}', 16) or (_ for _ in ()).throw(OSError(errno.ENODATA, '')))
    attempt(f'{pid}/mem for writing', lambda: open(f'/proc/{pid}/mem', 'r+b', buffering=0))
    for name in ('fd', 'fdinfo', 'map_files', 'task_'):
        attempt(f'{pid}/{name}', lambda: os.listdir(f'/proc/{pid}/{name}'))
    for name in ('root', 'cwd', 'exe', 'ns/net', 'ns/user'):
        attempt(f'{pid}/{name}', lambda: os.readlink(f'/proc/{pid}/{name}'))
    for n in range(8):
        attempt(f'{pid}/fd/{n}', lambda: os.open(f'/proc/{pid}/fd/{n}', os.O_RDWR))
    def copy(n):
        descriptor = os.pidfd_open(pid)
        try:
            value = libc.syscall(438, descriptor, n, 0)
            if value < 0: raise OSError(ctypes.get_errno(), '')
            return value
        finally: os.close(descriptor)
    for n in range(8): attempt(f'pidfd_getfd {pid}/{n}', lambda: copy(n))
''')


@attack('forged-frames', 'frames of every kind and length, and noise, on the worker\'s socket from a handler', 'its own execution fails; others are served',
        'every length and type is checked; a frame that does not fit ends the instance')
def _(suite):
    seen = []
    for number, data in enumerate((
            'os.urandom(4000)', 'b"\\xff" * 4000', 'frame(RESULT, body_len=0xffffffff)', 'frame(RESULT, body_len=0x7fffffff, body=b"x" * 60000)',
            'frame(READY) * 2000', 'frame(EXIT, value=0)', 'frame(INVOKE, body=b"{}")', 'frame(99)', 'frame(RESULT, flags=0xffff, body=b"1")',
            'frame(RESULT, meta=b"x" * 60000, body=b"1")', 'frame(RESULT, meta=b"a\\0b", body=b"1")', 'frame(RESULT, body=b"[" * 50000)', 'frame(RESULT, body=b"no json")',
            'frame(ERROR, body=b"[1]")', 'frame(RESULT, body=b"1") * 500', 'frame(RESULT, body=b"1")[:7]')):
        suite.deploy(python=FRAMES + f'def handler(event, context):\n    send({data})\n    time.sleep(0.05)\n    return {number}\n',
                     contract='handler', handler='main.handler', timeout_ms=800)
        for _ in range(2 if number == 12 else 1):
            execution = suite.invoke()
            seen.append(suite.expect(execution, 'succeeded', 'failed', 'timed_out', 'lost').split('/')[-1])
    alive(suite)
    return ', '.join(sorted(set(seen)))


@attack('forged-result', 'a result for the next call, sent ahead', 'only calls of the same function can get it', 'one socket for each instance; an instance is of one function')
def _(suite):
    suite.deploy(python=FRAMES + '''
def handler(event, context):
    threading.Thread(target=lambda: (time.sleep(0.1), send(frame(RESULT, body=b'"forged"')))).start()
    return event
''', contract='handler', handler='main.handler')
    seen = []
    for number in range(5):
        execution = suite.invoke({'n': number})
        seen.append(suite.expect(execution, 'succeeded', 'failed', 'lost'))
        if execution['status'] == 'succeeded':
            # Where a call took the forged one, its own is left for the call behind it: a function can do that to itself.
            assert execution['result'] in ('forged', *({'n': earlier} for earlier in range(number + 1))), execution
    alive(suite)
    return ', '.join(sorted(set(seen)))


@attack('passed-descriptors', 'descriptors sent to the worker: connections whose close waits for their other end, the socket itself, all that one message takes',
        'refused, or its own execution fails; others are served', 'SO_PASSRIGHTS; where the kernel has none, the instance ends and threads of their own close them')
def _(suite):
    seen = []
    for what in ('[lingering()]', '[lingering() for n in range(40)]', 'own', '[os.dup(1) for n in range(200)]'):
        suite.deploy(python=FRAMES + f'''
kept = []
def lingering():
    listener, client = socket.socket(), socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    listener.bind(('127.0.0.1', 0))
    listener.listen()
    client.connect(listener.getsockname())
    kept.append((listener, listener.accept()))
    client.setblocking(False)
    try:
        while True: client.send(bytes(4096))
    except BlockingIOError: pass
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 3600))
    return client.detach()
def handler(event, context):
    own = sockets()
    for fd in {what}:
        for n in own:
            attempt(n, lambda: socket.send_fds(socket.socket(fileno=os.dup(n)), [frame(RESULT)[:1]], [fd]))
        if fd not in own: os.close(fd)
    time.sleep(0.05)
    return sorted({{outcome[1] for outcome in tried.values()}})
''', contract='handler', handler='main.handler', timeout_ms=int(3000 * PATIENCE))
        execution = suite.invoke()
        seen.append(suite.expect(execution, 'succeeded', 'failed', 'timed_out', 'lost') + ' ' + json.dumps(execution.get('result')))
        alive(suite)
    return ', '.join(sorted(set(seen)))


@attack('closed-descriptors', 'all descriptors of the process closed, or replaced', 'its own execution fails', 'the worker ends the instance')
def _(suite):
    seen = []
    for source in ('os.closerange(0, 1024)', 'for n in range(1024):\n        try: os.dup2(os.open("/dev/zero", os.O_RDWR), n)\n        except OSError: pass'):
        suite.deploy(python=f'def handler(event, context):\n    {source}\n    time.sleep(9)', contract='handler', handler='main.handler', timeout_ms=1000)
        seen.append(suite.expect(suite.invoke(), 'failed', 'timed_out', 'lost'))
    alive(suite)
    return ', '.join(seen)


@attack('payload-file', 'the payload replaced by a link, a fifo, a folder, for the next call', 'the next call has its own payload', 'faas-init makes the file anew')
def _(suite):
    suite.deploy(python='''
path = os.environ['FUNCTION_PAYLOAD_FILE']
payload = open(path).read()
folder = os.path.dirname(path)
kind = json.loads(payload)['kind']
try:
    if kind != 'look': os.unlink(path)
    if kind == 'link': os.symlink('/app/function/main.py', path)
    if kind == 'fifo': os.mkfifo(path)
    if kind == 'folder': os.makedirs(path + '/x/y')
    if kind == 'full': open(folder + '/full', 'wb').write(b'x' * (64 << 20))
except OSError: pass
print(payload)
''', timeout_ms=int(5000 * PATIENCE))
    for kind in ('link', 'look', 'fifo', 'look', 'folder', 'look', 'full', 'look'):
        execution = suite.invoke({'kind': kind})
        if kind == 'look':
            suite.expect(execution, 'succeeded')
            assert execution['result'] == {'kind': kind}, execution
    return 'whole each time'


@attack('own-environment', 'the variables that the platform sets, set by the function\'s definition', 'refused', 'check of the definition')
def _(suite):
    import base64
    code = base64.b64encode(b'print(1)').decode()
    for name in ('FUNCTION_NAME', 'FUNCTION_PAYLOAD', 'EXECUTION_ID', 'A=B', '1A', '', 'A\0B'):
        suite.api_refuses({'runtime': 'python', 'code': code, 'env': {name: 'x'}})
    return 'refused'


@attack('loader-environment', 'LD_PRELOAD, PYTHONSTARTUP, NODE_OPTIONS and their like in the function\'s environment', 'only its own processes are changed', 'faas-init is static; the worker\'s programs get none of it')
def _(suite):
    suite.deploy(python='print(json.dumps(open("/proc/1/comm").read().strip()))', env={
        'LD_PRELOAD': '/app/function/evil.so', 'LD_LIBRARY_PATH': '/app/function', 'PYTHONSTARTUP': '/app/function/main.py', 'GLIBC_TUNABLES': 'glibc.malloc.check=3',
        'PYTHONPATH': '/app/function', 'NODE_OPTIONS': '--require /app/function/main.py', 'BASH_ENV': '/app/function/main.py', 'LD_AUDIT': '/app/function/x.so'})
    seen = suite.expect(suite.invoke(), 'succeeded', 'failed')
    alive(suite)
    return seen


@attack('load-time', 'a handler\'s module that exits, kills, fills the disk or recurses while it is loaded', 'its own calls fail', 'start timeout; the same limits')
def _(suite):
    seen = []
    for source in ('os._exit(0)', 'os.kill(os.getppid(), 9)', 'open("/tmp/x", "wb").write(b"x" * (200 << 20))',
                   'raise SystemExit("\\x1b]0;x\\x07" * 1000)', 'sys.setrecursionlimit(10**6)\ndef f(): f()\nf()'):
        suite.deploy(python=source + '\ndef handler(event, context): return 1', contract='handler', handler='main.handler', timeout_ms=2000, memory_mb=64, cpus=0.5)
        seen.append(suite.expect(suite.invoke(), 'failed', 'out_of_memory', 'lost', *(['succeeded'] if 'kill' in source else [])).split('/')[-1])
    alive(suite)
    return ', '.join(sorted(set(seen)))


@attack('error-text', 'an exception whose type, message and stack are long, binary and full of terminal commands', 'valid JSON, cut', 'limits and UTF-8 check of what the adapter says')
def _(suite):
    suite.deploy(python='''
class Bad(Exception): pass
Bad.__name__ = "\\x1b[2J" * 10000
def handler(event, context):
    raise Bad("\\udcff\\x00\\x1b[2J" * 100000)
''', contract='handler', handler='main.handler')
    execution = suite.invoke()
    seen = suite.expect(execution, 'failed')
    assert len(json.dumps(execution)) < 400_000, len(json.dumps(execution))
    return seen[:20].encode('unicode_escape').decode()
