"""Attacks on what the machine has for all: processes, memory, processors, files, time, output."""
import contextlib
import os
import threading

from hostile import group
from world import PATIENCE, settle

attack = group('limits')


def named(name):
    """Processes of the host whose command line begins with this."""
    found = []
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            with open(f'/proc/{pid}/comm', encoding='utf-8', errors='replace') as file:
                if file.read().strip() == name:
                    found.append(int(pid))
        except OSError:
            pass
    return found


def bomb(suite, source, *ends, **fields):
    """Memory without end in 64 MiB; the peak that is told must be within the limit."""
    suite.deploy(python=source, **({'memory_mb': 64, 'tmp_mb': 4096} | fields))
    execution = suite.invoke()
    seen = suite.expect(execution, *ends)
    peak = execution['metrics']['memory_peak'] / 2**20
    assert peak <= 65, f'{peak:.0f} MiB of 64'
    return f'{seen}, peak {peak:.0f} MiB'


@attack('fork-bomb', 'processes that fork for ever', 'pids limit; killed at the timeout', 'pids cgroup; death of the pid namespace')
def _(suite):
    suite.deploy(native='fork_bomb', timeout_ms=1500, cpus=0.5)
    return suite.expect(suite.invoke(), 'timed_out')


@attack('thread-bomb', 'threads without end', 'no more than pids', 'pids cgroup')
def _(suite):
    suite.deploy(python='''
count = 0
try:
    while count < 5000:
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        count += 1
except RuntimeError:
    pass
print(count, flush=True)
os._exit(0)
''', pids=64)
    count = suite.result()
    assert count < 64, count
    return f'{count} threads'


@attack('memory-touched', 'memory that is touched', 'out_of_memory', 'memory cgroup, no swap')
def _(suite):
    return bomb(suite, 'a = []\nwhile True: a.append(bytearray(b"x") * 4000000)', 'out_of_memory')


@attack('memory-shared', 'shared anonymous memory, from several processes', 'out_of_memory', 'memory cgroup, no swap')
def _(suite):
    return bomb(suite, '''
import mmap
maps = [mmap.mmap(-1, 64 << 20) for _ in range(8)]
for i in range(4): os.fork()
for m in maps:
    for at in range(0, len(m), 4096): m[at] = 1
time.sleep(60)
''', 'out_of_memory', 'timed_out', timeout_ms=4000)


@attack('memory-tmpfs', 'files in /tmp larger than the memory', 'out_of_memory, or no space', 'tmpfs counts against the memory cgroup')
def _(suite):
    return bomb(suite, 'f = open("/tmp/x", "wb")\nwhile True: f.write(b"x" * 1000000)', 'out_of_memory', 'failed')


@attack('memory-dev-shm', 'files in /dev/shm larger than the memory', 'out_of_memory, or no space', 'tmpfs counts against the memory cgroup')
def _(suite):
    return bomb(suite, 'f = open("/dev/shm/x", "wb")\nwhile True: f.write(b"x" * 1000000)', 'out_of_memory', 'failed')


@attack('memory-memfd', 'files that have no name', 'out_of_memory', 'memory cgroup')
def _(suite):
    return bomb(suite, 'f = open(os.memfd_create("x"), "wb")\nwhile True: f.write(b"x" * 1000000)', 'out_of_memory')


@attack('memory-page-cache', 'reads of every file there is, again and again', 'succeeds within the limit', 'memory cgroup: page cache is reclaimed')
def _(suite):
    return bomb(suite, '''
total = 0
for _ in range(2):
    for root, _, files in os.walk("/usr"):
        for name in files:
            try: total += len(open(os.path.join(root, name), "rb").read())
            except OSError: pass
print(total)
''', 'succeeded', timeout_ms=int(20000 * PATIENCE))


@attack('memory-pipes', 'full pipes', 'an error, or out_of_memory', 'memory cgroup; descriptor limit')
def _(suite):
    return bomb(suite, '''
held = 0
try:
    while True:
        r, w = os.pipe()
        os.set_blocking(w, False)
        try:
            while True: held += os.write(w, b"x" * 65536)
        except BlockingIOError: pass
except OSError as error:
    print(json.dumps(held))
''', 'succeeded', 'out_of_memory')


@attack('cpu-spin', 'more spinning threads than processors, on half a processor', 'gets its half; timed_out', 'CPU quota; timeout')
def _(suite):
    suite.deploy(python='for i in range(3): os.fork()\nwhile True: pass', cpus=0.5, timeout_ms=2000)
    execution = suite.invoke()
    seen = suite.expect(execution, 'timed_out')
    share = execution['metrics']['cpu_time'] / execution['metrics']['duration']
    assert share < 0.65, f'{share:.2f} processors instead of 0.5'
    return f'{seen}, {share:.2f} processors'


@attack('disk-reads', 'reads from disk past the page cache, with io_iops 50', 'no more than the rate; refused where it cannot be limited', 'blkio or io cgroup')
def _(suite):
    suite.deploy(python='''
import mmap
file = os.open(sys.executable, os.O_RDONLY | os.O_DIRECT)
page, start, count = mmap.mmap(-1, 4096), time.monotonic(), 0
while time.monotonic() < start + 3:
    os.preadv(file, [page], count % 200 * 4096)
    count += 1
print(json.dumps([count, time.monotonic() - start]))
''', io_iops=50)
    execution = suite.invoke()
    if 'cannot limit I/O' in (execution.get('error') or {}).get('message', ''):
        return 'refused: this host cannot limit I/O'
    suite.expect(execution, 'succeeded')
    count, seconds = execution['result']
    assert count < 75 * seconds, f'{count} reads in {seconds:.1f} s'
    return f'{count / seconds:.0f} reads a second'


@attack('tmp-space', 'a full /tmp', 'ENOSPC', 'size of the tmpfs')
def _(suite):
    suite.deploy(python='''
f, total = open("/tmp/x", "wb", buffering=0), 0
try:
    while True: total += f.write(b"x" * 100000)
except OSError as error:
    print(json.dumps([errno.errorcode[error.errno], total]))
''', tmp_mb=8)
    reason, total = suite.result()
    assert reason == 'ENOSPC' and total <= 8 << 20, (reason, total)
    return f'{reason} after {total} bytes'


@attack('tmp-inodes', 'a million empty files and deep folders in /tmp', 'an error, or out_of_memory; removed afterwards', 'tmpfs in the memory cgroup')
def _(suite):
    suite.deploy(python='''
made, path = 0, "/tmp"
try:
    for i in range(1500):
        os.chdir(path); os.mkdir("d"); path = "d"
    while True:
        open(f"f{made}", "w").close(); made += 1
except OSError as error:
    print(json.dumps([errno.errorcode[error.errno], made]))
''', memory_mb=64, timeout_ms=8000)
    return suite.expect(suite.invoke(), 'succeeded', 'out_of_memory', 'timed_out')


@attack('descriptors', 'as many open files as there can be, and more by rlimit', 'EMFILE at the limit', 'RLIMIT_NOFILE')
def _(suite):
    suite.deploy(python='''
import resource
try: resource.setrlimit(resource.RLIMIT_NOFILE, (100000, 100000)); raised = True
except (OSError, ValueError): raised = False
held = []
try:
    while True: held.append(os.open("/dev/null", os.O_RDONLY))
except OSError as error:
    sys.stdout.write(json.dumps([errno.errorcode[error.errno], len(held), raised]))
''')
    reason, count, raised = suite.result()
    assert reason == 'EMFILE' and count <= 1024 and not raised, (reason, count, raised)
    return f'{reason} after {count}'


@attack('stdout-endless', 'output without end', 'failed: Function.ResultTooLarge', 'the worker counts what it reads')
def _(suite):
    suite.deploy(python='while True: os.write(1, b"x" * 65536)')
    return suite.expect(suite.invoke(), 'failed/Function.ResultTooLarge')


@attack('stderr-endless', 'log without end', 'timed_out; 256 KiB of log kept at most', 'the worker keeps the tail')
def _(suite):
    suite.deploy(python='while True: os.write(2, b"x" * 65536)', timeout_ms=1500)
    execution = suite.invoke()
    logs = suite.platform.api('GET', f'/v1/executions/{execution["id"]}/logs').body
    assert len(logs) < 300_000, len(logs)
    return f'{suite.expect(execution, "timed_out")}, {len(logs)} bytes of log'


@attack('handler-output', 'a handler that prints without end', 'timed_out', 'the worker reads all the time and keeps the tail')
def _(suite):
    suite.deploy(python='def handler(event, context):\n    while True: print("x" * 1000)', contract='handler', handler='main.handler', timeout_ms=1500)
    return suite.expect(suite.invoke(), 'timed_out')


@attack('ignores-signals', 'a process that ignores every signal it can', 'timed_out', 'SIGKILL to the pid namespace')
def _(suite):
    suite.deploy(python='''
for number in range(1, 65):
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
while True: time.sleep(60)
''', timeout_ms=800)
    return suite.expect(suite.invoke(), 'timed_out')


@attack('stops-itself', 'SIGSTOP to itself and to all that it sees', 'timed_out', 'SIGKILL to the pid namespace')
def _(suite):
    suite.deploy(python='os.kill(os.getpid(), signal.SIGSTOP)', timeout_ms=800)
    return suite.expect(suite.invoke(), 'timed_out')


def state(pid):
    with contextlib.suppress(OSError), open(f'/proc/{pid}/stat', encoding='utf-8', errors='replace') as file:
        return file.read().rsplit(')', 1)[1].split()[0]
    return None


@attack('sleeps-uninterruptibly', 'parents of vfork() whose children never end', 'timed_out; nothing left', 'SIGKILL to the pid namespace')
def _(suite):
    suite.deploy(native='vfork_sleep', timeout_ms=int(1500 * PATIENCE))
    executions = []
    call = threading.Thread(target=lambda: executions.append(suite.invoke()))
    call.start()
    asleep = settle(lambda: [pid for pid in named('sleeps-on!') if state(pid) == 'D'], 10)
    call.join()
    assert asleep, 'nothing slept uninterruptibly'
    seen = suite.expect(executions[0], 'timed_out')
    assert settle(lambda: not named('sleeps-on!')), f'processes {named("sleeps-on!")} are still there'
    return f'{seen}, {len(asleep)} slept'


@attack('outlives', 'children, orphans and new sessions that stay when the call is answered', 'gone after the call',
        'faas-init kills what an invocation leaves')
def _(suite):
    suite.deploy(native='daemons')
    assert suite.result() == {'left': 3}
    left = settle(lambda: not named('outlive!'))
    assert left, f'processes {named("outlive!")} are still there'
    return 'none left'


@attack('result-nested', 'a result nested a hundred thousand times', 'an answer or an error; the platform lives', 'depth limit of the JSON scanner')
def _(suite):
    suite.deploy(python='print("[" * 100000 + "]" * 100000)')
    return suite.expect(suite.invoke(), 'succeeded', 'failed')


@attack('result-bytes', 'a result and a log of every byte there is', 'told as base64; the log is valid text', 'UTF-8 check of all that comes out')
def _(suite):
    suite.deploy(python='os.write(2, bytes(range(256)) * 40)\nos.write(1, bytes(range(256)))')
    return suite.expect(suite.invoke(), 'succeeded')


@attack('core-dump', 'a crash, with the core limit raised before', 'failed: SIGSEGV; no core file', 'RLIMIT_CORE 0, hard')
def _(suite):
    suite.deploy(python='''
import resource
try: resource.setrlimit(resource.RLIMIT_CORE, (1 << 30, 1 << 30))
except (OSError, ValueError): pass
os.chdir("/tmp")
os.kill(os.getpid(), signal.SIGSEGV)
''')
    execution = suite.invoke()
    seen = suite.expect(execution, 'failed/Function.Signal')
    assert execution['error']['signal'] == 'SIGSEGV', execution
    return seen


@attack('memory-sockets', 'full socket buffers, of many processes', 'no more memory than the limit', 'memory cgroup')
def _(suite):
    suite.deploy(python='''
held, pairs = 0, []
try:
    while True:
        pair = socket.socketpair()
        pairs.append(pair)
        for end in pair:
            end.setblocking(False)
            try:
                while True: held += end.send(b"x" * 65536)
            except BlockingIOError: pass
except OSError as error:
    print(json.dumps(held))
''', memory_mb=64)
    execution = suite.invoke()
    seen = suite.expect(execution, 'succeeded', 'out_of_memory')
    held = (execution.get('result') or 0) / 2**20
    assert held <= 64, f'{held:.0f} MiB in buffers, peak that was counted {execution["metrics"]["memory_peak"] / 2**20:.0f} MiB of 64'
    return f'{seen}, {held:.0f} MiB'


RECEIVED = '''
def kept_bytes():
    total = 0
    for s in kept:
        s.setblocking(False)
        try:
            while True: total += len(s.recv(1 << 20))
        except OSError: pass
    return total
'''


def buffers(suite, source):
    """What can be sent into receive buffers and read again: it was in memory."""
    suite.deploy(python=RECEIVED + source, memory_mb=64)
    execution = suite.invoke()
    seen = suite.expect(execution, 'succeeded', 'out_of_memory')
    held = (execution.get('result') or 0) / 2**20
    assert held <= 64, f'{held:.0f} MiB in buffers, of which {execution["metrics"]["memory_peak"] / 2**20:.0f} MiB were counted, of 64'
    return f'{seen}, {held:.0f} MiB'


@attack('memory-udp', 'full buffers of UDP sockets', 'no more memory than the limit', 'memory cgroup')
def _(suite):
    return buffers(suite, '''
kept = []
try:
    while True:
        receiver, sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        kept.append(receiver)
        receiver.bind(("127.0.0.1", 0))
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
        for _ in range(8): sender.sendto(b"x" * 60000, receiver.getsockname())
        sender.close()
except OSError:
    kept.pop().close()
    print(json.dumps(kept_bytes()))
''')


@attack('memory-tcp', 'full buffers of TCP connections', 'no more memory than the limit', 'memory cgroup')
def _(suite):
    return buffers(suite, '''
kept, senders = [], []
server = socket.create_server(("127.0.0.1", 0))
try:
    while True:
        sender = socket.create_connection(server.getsockname())
        kept.append(server.accept()[0])
        senders.append(sender)
        sender.setblocking(False)
        try:
            while True: sender.send(b"x" * 100000)
        except BlockingIOError: pass
except OSError:
    print(json.dumps(kept_bytes()))
''')


def storm(suite, clients, calls, status='succeeded'):
    """So many clients at once, each with so many calls one after the other."""
    wrong = []

    def client():
        for _ in range(calls):
            execution = suite.invoke()
            if execution['status'] != status:
                wrong.append(execution)
    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong, wrong[0]
    return f'{clients * calls} calls'


@attack('start-storm', 'calls at once that need an instance each, without a pause', 'they wait for each other; what others keep warm answers',
        'starts leave three quarters of the processors to calls of others')
def _(suite):
    suite.deploy(python='print(1)', keep_alive_ms=0)
    return storm(suite, 16, 4)


@attack('call-storm', 'short calls of one function by many clients at once', 'they share what one function may have', 'all instances of a function weigh as one')
def _(suite):
    suite.deploy(python='print(1)', prelude=False)
    return storm(suite, 16, 40)


@attack('spin-storm', 'many calls of one function at once, each of which spins', 'they share what one function may have', 'all instances of a function weigh as one')
def _(suite):
    suite.deploy(python='until = time.monotonic() + 0.3\nwhile time.monotonic() < until: pass')
    return storm(suite, 16, 6)


@attack('holds-places', 'more calls than there are places, all of which sleep until their timeout', 'timed_out; others find a place at once',
        'no function gets the last places, nor the last of the memory')
def _(suite):
    suite.deploy(python='time.sleep(1000)', timeout_ms=int(3000 * PATIENCE), memory_mb=32)
    return storm(suite, 80, 1, 'timed_out')
