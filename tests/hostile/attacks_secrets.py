"""Attacks on what belongs to others: their code, payloads, environment, results; the platform's tokens; the host's files."""
import uuid

from faas_platform import archive
from hostile import group
from world import PATIENCE

attack = group('secrets')

# Every file, environment and command line that can be read, searched for words that are given in two halves, so that the search does not find itself.
SEARCH = '''
event = json.loads(os.environ['FUNCTION_PAYLOAD'])
words = [(a + b).encode() for a, b in event['words']]
words.append(''.join(event['control']).encode())
with open('/tmp/control', 'wb') as file: file.write(words[-1])
found, looked = [], 0
def look(path):
    global looked
    try:
        with open(path, 'rb') as file: data = file.read(1 << 22)
    except OSError: return
    looked += 1
    for word in words:
        if word in data or word[::-1] in data: found.append([path, word.decode()[:6]])
for root, folders, files in os.walk('/', followlinks=False):
    if root == '/proc': folders[:] = [f for f in folders if f.isdigit() or f == 'sys' or f == 'net']
    if root.startswith(('/usr/lib/x86', '/usr/share')): folders[:] = []
    for name in files:
        if name in ('kmsg', 'clear_refs', 'pagemap', 'mem') and root.startswith('/proc'): continue
        path = os.path.join(root, name)
        try: mode = os.stat(path).st_mode
        except OSError: continue
        if stat.S_ISREG(mode): look(path)
print(json.dumps([found, looked]))
'''


def halves(word):
    return [word[:7], word[7:]]


@attack('others-secrets', 'code, environment, payloads and results of other functions, and the platform\'s tokens, in every file that can be read',
        'not found', 'a mount namespace, pid namespace and user of its own; tokens are in no container')
def _(suite):
    secrets = {what: f'secret-{what}-{uuid.uuid4().hex}' for what in ('env', 'code', 'payload')}
    suite.deploy('victim', python=f'# {secrets["code"]}\nprint(json.dumps(os.environ["SECRET"][::-1] + open(os.environ["FUNCTION_PAYLOAD_FILE"]).read()))',
                 env={'SECRET': secrets['env']})
    suite.invoke({'secret': secrets['payload']}, name='victim')
    with open(suite.platform.data_dir + '/worker-token', encoding='ascii') as file:
        worker_token = file.read().strip()
    suite.deploy(python=SEARCH, timeout_ms=int(25000 * PATIENCE), memory_mb=256)
    words = [halves(word) for word in (secrets['env'], secrets['code'], secrets['payload'], suite.platform.token, worker_token)]
    # They are in the searcher's own payload, in halves; in nothing else.
    found, looked = suite.result({'words': words, 'control': halves(f'control-{uuid.uuid4().hex}')})
    assert [path for path, _ in found] == ['/tmp/control'], (looked, found)
    return f'{looked} files'


@attack('host-paths', 'the host\'s folders by absolute paths, by .. from every mount, by links', 'the image only', 'pivot_root; mount namespace')
def _(suite):
    import os
    marker = suite.platform.data_dir + '/marker'
    with open(marker, 'w', encoding='ascii') as file:
        file.write('host')
    suite.deploy(python=f'''
paths = [{marker!r}, {suite.platform.data_dir!r} + '/token', '/run/faas/worker-token', '/var/lib/faas', '/run/docker.sock', '/var/run/docker.sock', '/run/containerd', '/run/runc',
         '/etc/shadow', '/root', '/home', '/boot/vmlinuz', '/lib/modules']
for base in ('/tmp', '/app/function', '/dev', '/proc', '/.faas', '/run/faas', '/dev/shm'):
    paths += [base + '/..' * 8 + {marker!r}]
def present(path):
    if os.path.isdir(path) and not os.listdir(path): raise OSError(errno.ENODATA, '')
    if os.path.basename(path) == 'shadow' and not open(path).read().count('$'): raise OSError(errno.ENODATA, '')
    os.stat(path)
for path in paths: attempt(path, lambda: present(path))
for link in ('/proc/self/root', '/proc/self/cwd'):
    attempt(link, lambda: present(link + {marker!r}))
os.symlink({marker!r}, '/tmp/link')
attempt('link', lambda: open('/tmp/link').read())
''' + 'print(json.dumps(tried))')
    tried = suite.result()
    worked = [path for path, outcome in tried.items() if outcome[0] == 'done']
    os.unlink(marker)
    assert not worked, worked
    return f'{len(tried)} paths'


@attack('writes', 'files of the image, the code, faas-init, and what the host shares, written, renamed, removed, linked', 'refused', 'read-only mounts; user namespace')
def _(suite):
    return suite.refused('''
targets = ['/', '/etc', '/usr', '/bin', '/app', '/app/function', '/.faas', '/.faas/python', '/dev', '/proc', '/run', '/var', '/root', '/usr/lib', '/etc/ssl']
for folder in targets:
    if not os.path.isdir(folder): continue
    attempt('create in ' + folder, lambda: open(folder + '/x', 'w'))
    attempt('mkdir in ' + folder, lambda: os.mkdir(folder + '/x'))
    attempt('link in ' + folder, lambda: os.symlink('/tmp', folder + '/x'))
    attempt('chmod ' + folder, lambda: os.chmod(folder, 0o777))
for path in ('/app/function/main.py', '/.faas/init', '/.faas/python/adapter.py', '/etc/passwd', '/etc/hosts', '/etc/resolv.conf', os.path.realpath(sys.executable)):
    attempt('write ' + path, lambda: open(path, 'r+'))
    attempt('truncate ' + path, lambda: os.truncate(path, 0))
    attempt('remove ' + path, lambda: os.unlink(path))
    attempt('rename ' + path, lambda: os.rename(path, path + '.x'))
    attempt('chmod ' + path, lambda: os.chmod(path, 0o777))
    attempt('utime ' + path, lambda: os.utime(path))
    attempt('hard link ' + path, lambda: os.link(path, '/tmp/hard'))
    attempt('xattr ' + path, lambda: os.setxattr(path, 'user.x', b'x'))
import mmap
def shared(path):
    with open(path, 'rb') as file: return mmap.mmap(file.fileno(), 10, mmap.MAP_SHARED, mmap.PROT_WRITE)
attempt('shared mapping', lambda: shared('/app/function/main.py'))
''')


@attack('own-descriptors', 'what a fresh process has: descriptors, environment, groups, uids, working directory', 'nothing of the host', 'spawned with nothing but what is named')
def _(suite):
    suite.deploy(python='''
import resource
print(json.dumps({'fds': sorted(int(n) for n in os.listdir('/proc/self/fd')), 'groups': os.getgroups(), 'uid': os.getresuid(), 'env': sorted(os.environ),
                  'core': resource.getrlimit(resource.RLIMIT_CORE), 'map': open('/proc/self/uid_map').read().split()}))
''')
    seen = suite.result()
    assert len([n for n in seen['fds'] if n > 2]) <= 1, seen
    assert set(seen['uid']) == {1000} and set(seen['groups']) <= {1000} and seen['core'] == [0, 0], seen
    assert not [name for name in seen['env'] if name.startswith(('WORKER_', 'CONTROLLER_', 'FAAS_')) or 'TOKEN' in name], seen
    assert int(seen['map'][1]) >= 0x20000000, seen
    return f'uid {int(seen["map"][1]) + 1000} of the host'


@attack('two-instances', 'two functions compared: do they share a user of the host, memory, IPC, a host name?', 'nothing shared', 'namespaces and a range of ids for each instance')
def _(suite):
    facts = []
    for name in ('one', 'two'):
        suite.deploy(f'{suite.attack.name}-{name}', python=f'''
with open('/dev/shm/shared', 'a+') as f:
    f.write('{name}'); f.seek(0); shm = f.read()
listening = socket.socket(socket.AF_UNIX)
try: listening.bind('\\0shared'); bound = True
except OSError: bound = False
print(json.dumps({{'map': open('/proc/self/uid_map').read().split()[1], 'shm': shm, 'bound': bound,
                   'ns': {{n: os.readlink('/proc/self/ns/' + n) for n in ('mnt', 'pid', 'ipc', 'uts', 'user', 'net', 'cgroup')}}}}))
''')
        facts.append(suite.result(name=f'{suite.attack.name}-{name}'))
    one, two = facts
    assert one['map'] != two['map'] and one['shm'] == 'one' and two['shm'] == 'two' and two['bound'], facts
    same = [kind for kind in one['ns'] if one['ns'][kind] == two['ns'][kind]]
    assert not same, same
    return '7 namespaces differ'


@attack('api-from-inside', 'the API, with a stolen name but no token', 'not reached; and unauthorized', 'nftables; bearer tokens')
def _(suite):
    port = int(suite.platform.url.rsplit(':', 1)[1])
    suite.deploy(python=f'print(json.dumps(connect(("10.88.64.1", {port}), ("127.0.0.1", {port}))))', network='bridge')
    assert not suite.result()
    answers = [suite.platform.api('GET', path, token=token).status for path in ('/v1/functions', '/v1/workers') for token in (None, 'x', 'A' * 5000)]
    assert set(answers) == {401}, answers
    return 'not reached, 401'


@attack('names-as-paths', 'function names, handlers, images, labels that are paths or commands', 'refused', 'one table of fields with their rules')
def _(suite):
    import base64
    code = base64.b64encode(archive({'main.py': 'print(1)'})).decode()
    for field, values in {'handler': ('../x.y', '/etc/passwd.x', 'a;b.c', '$(id).x', 'main.handler\n'), 'image': ('../../etc', '/etc', 'a b', 'a//b', '-v', 'x\0y'),
                          'labels': ({'../x': 'y'}, {'a b': 'c'}), 'runtime': ('../python', 'python;id'), 'network_allow': (['$(id)'], ['a b'], ['}; flush ruleset'])}.items():
        for value in values:
            fields = {'runtime': 'python', 'code': code, field: value}
            if field == 'handler':
                fields['contract'] = 'handler'
            suite.api_refuses(fields)
    for name in ('..', '%2e%2e', 'a%2f..%2fb', 'A', 'a_b', '-a', 'a' * 64, 'a%00b'):
        answer = suite.platform.api('PUT', '/v1/functions/' + name, {'runtime': 'python', 'code': code})
        assert 400 <= answer.status < 500, (name, answer)
    return 'refused'
