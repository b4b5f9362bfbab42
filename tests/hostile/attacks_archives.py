"""Attacks with files: code archives, image layers, image configurations."""
import base64
import glob
import gzip
import hashlib
import io
import json
import os
import tarfile
import tempfile
import threading
import uuid
import zipfile

from hostile import NATIVE, group, tar
from world import PATIENCE

attack = group('archives')


class Canary:
    """A file outside of everything that an archive may touch: it is as it was, and nothing came beside it."""

    def __enter__(self):
        self.folder = tempfile.mkdtemp(prefix='faas-canary-')
        self.path = os.path.join(self.folder, 'canary')
        with open(self.path, 'w', encoding='ascii') as file:
            file.write('untouched')
        return self

    def check(self):
        with open(self.path, encoding='ascii') as file:
            assert file.read() == 'untouched', 'the canary was written'
        assert os.listdir(self.folder) == ['canary'], os.listdir(self.folder)
        for path in ('/evil', '/tmp/evil', '/etc/evil', '/var/lib/faas/evil', '/run/faas/evil'):
            assert not os.path.lexists(path), path

    def __exit__(self, kind, *_):
        if kind is None:
            self.check()
        for name in os.listdir(self.folder):
            os.unlink(os.path.join(self.folder, name))
        os.rmdir(self.folder)


def read_text(path):
    with open(path, encoding='utf-8') as file:
        return file.read()


def code(data, **fields):
    return {'runtime': 'python', 'network': 'none', 'code': base64.b64encode(data).decode()} | fields


def refused_or_harmless(suite, data, **fields):
    """Refused with a reason, or unpacked such that the function sees nothing that it should not."""
    answer = suite.platform.api('PUT', '/v1/functions/' + suite.attack.name, code(data, **fields))
    if 400 <= answer.status < 500:
        return answer.json()['error']['message']
    assert answer.status in (200, 201), answer
    suite.deployed.append(suite.attack.name)
    execution = suite.invoke()
    return f'accepted, {execution["status"]} {json.dumps(execution.get("result"))[:80]}'


MAIN = ('main.py', 'file', 'import os, json\nprint(json.dumps(sorted(os.listdir("."))))')


@attack('archive-paths', 'absolute paths, .. and names that are none, in tar and zip', 'refused; nothing outside is written', 'openat2 with RESOLVE_BENEATH; check of names')
def _(suite):
    with Canary() as canary:
        for name in ('../evil', '/tmp/evil', 'a/../../evil', canary.path, '..', './../../../../tmp/evil', 'a//../..//evil', '..\\evil', 'x' * 5000, 'a/' * 3000 + 'x', 'a\nb', 'a\x1b[2J'):
            seen = refused_or_harmless(suite, tar(MAIN, (name, 'file', 'evil')))
            if '\\' not in name and '\n' not in name and '\x1b' not in name:
                assert not seen.startswith('accepted'), (name, seen)
            canary.check()
            out = io.BytesIO()
            with zipfile.ZipFile(out, 'w') as file:
                file.writestr('main.py', 'print(1)')
                file.writestr(name, 'evil')
            refused_or_harmless(suite, out.getvalue())
            canary.check()
    return 'refused'


@attack('archive-links', 'symbolic and hard links that point out, and files written through them', 'refused, or broken inside', 'openat2 with RESOLVE_BENEATH; links are checked')
def _(suite):
    with Canary() as canary:
        folder = canary.folder
        for entries in ([('link', 'sym', folder), ('link/canary', 'file', 'evil')], [('link', 'sym', canary.path), ('link', 'file', 'evil')],
                        [('a', 'sym', '..'), ('a/evil', 'file', 'x')], [('a', 'sym', 'b'), ('b', 'sym', 'a'), ('a/x', 'file', 'x')],
                        [('d', 'dir', ''), ('d/up', 'sym', '../..'), ('d/up/evil', 'file', 'x')], [('h', 'hard', '/etc/passwd')], [('h', 'hard', canary.path), ('h', 'file', 'evil')],
                        [('h', 'hard', '../../../etc/passwd')], [('s', 'sym', '/etc/passwd'), ('h', 'hard', 's')], [('s', 'sym', '/'), ('h', 'hard', 's/etc/shadow')]):
            seen = refused_or_harmless(suite, tar(MAIN, *entries))
            canary.check()
            assert 'accepted, succeeded' not in seen or 'evil' not in seen, (entries, seen)
    return 'refused'


@attack('archive-links-read', 'links to the host\'s files, read by the function afterwards', 'the image\'s file, or none', 'links are followed in the container only')
def _(suite):
    with Canary() as canary:
        main = ('main.py', 'file', 'import json\nout = []\nfor n in ("a", "b", "c"):\n    try: out.append(open(n).read()[:40])\n    except OSError: out.append(None)\nprint(json.dumps(out))')
        seen = refused_or_harmless(suite, tar(main, ('a', 'sym', canary.path), ('b', 'sym', '../../../../../..' + canary.path), ('c', 'sym', '/proc/1/root' + canary.path)))
        assert 'untouched' not in seen, seen
    return seen[:60]


@attack('archive-special', 'devices, fifos and setuid files', 'refused, or plain files', 'only files, folders and links are unpacked; modes are masked; nosuid, nodev mounts')
def _(suite):
    for kind, content in (('char', (1, 1)), ('block', (254, 0)), ('fifo', '')):
        seen = refused_or_harmless(suite, tar(MAIN, ('special', kind, content)))
        assert not seen.startswith('accepted'), seen
    seen = refused_or_harmless(suite, tar(('main.py', 'file', 'import os, json\nprint(json.dumps(oct(os.stat("suid").st_mode & 0o7000)))'), ('suid', 'file', '#!/bin/sh\n')))
    assert '"0o0"' in seen, seen
    return 'refused; setuid bit dropped'


def empty_files(count):
    """Headers of files "100000", "100001", …, without making a TarInfo for each."""
    header = bytearray(tarfile.TarInfo('000000').tobuf())
    base = int(header[148:154], 8) - 6 * ord('0')
    for number in range(100000, 100000 + count):
        name = b'%d' % number
        header[:6] = name
        header[148:154] = b'%06o' % (base + sum(name))
        yield bytes(header)


@attack('archive-bombs', 'a gigabyte of zeros in a kilobyte, a hundred thousand files, an archive in an archive, a compressed bomb', 'refused', 'limits on bytes and files unpacked')
def _(suite):
    seen = []
    entry = tarfile.TarInfo('zeros')
    entry.size = 1 << 30
    # A gzip file may be several, one after the other: so 16 MiB are compressed once.
    seen.append(refused_or_harmless(suite, gzip.compress(entry.tobuf()) + gzip.compress(b'\0' * (1 << 24)) * 64))
    seen.append(refused_or_harmless(suite, gzip.compress(b''.join(empty_files(70000)), 1)))
    claimed = tarfile.TarInfo('main.py')
    claimed.size = 1 << 40
    seen.append(refused_or_harmless(suite, claimed.tobuf() + b'x' * 1024))
    assert not [text for text in seen if text.startswith('accepted')], seen
    return '; '.join(text[:40] for text in seen)


@attack('archive-noise', 'archives that are cut, damaged or none', 'refused, or a plain file', 'libarchive with two formats only; fuzzed')
def _(suite):
    good = tar(MAIN)
    for data in (b'', b'\0' * 1024, good[:700], b'PK\x03\x04' + b'\xff' * 200, b'\x1f\x8b\x08' + b'\0' * 50, b'PK\x05\x06' + b'\0' * 18, good[:100] + b'\xff' * 400 + good[500:],
                 b'\x1f\x8b' + os.urandom(1000), b'!<arch>\n' + b'x' * 100, b'070701' + b'0' * 104, b'Rar!\x1a\x07\0' + b'x' * 90, b'7z\xbc\xaf\x27\x1c' + b'x' * 90):
        answer = suite.platform.api('PUT', '/v1/functions/' + suite.attack.name, code(data))
        assert answer.status < 500, (data[:8], answer)
        if answer.status < 300:
            suite.deployed.append(suite.attack.name)
    return 'no internal error'


@attack('entry-tricks', 'a program that is a link to /proc/self/exe, to a device, to the shell, a folder', 'an error of its own', 'the entry is executed in the container, by faas-init')
def _(suite):
    seen = []
    for entry in (('bootstrap', 'sym', '/proc/self/exe'), ('bootstrap', 'sym', '/proc/1/exe'), ('bootstrap', 'sym', '/dev/zero'), ('bootstrap', 'sym', 'bootstrap'), ('bootstrap', 'dir', ''),
                  ('bootstrap', 'file', b'\x7fELF' + b'\xff' * 200), ('bootstrap', 'file', b'#!' + b'x' * 4000)):
        seen.append(refused_or_harmless(suite, tar(entry), runtime='native', timeout_ms=2000)[:30])
        assert 'succeeded' not in seen[-1], seen
    return '; '.join(sorted(set(seen)))[:100]


# ---- images ----

def docker_archive(layers, config=None):
    """What `docker save` writes, with these layers (tar bytes)."""
    digests = [hashlib.sha256(layer).hexdigest() for layer in layers]
    text = json.dumps({'architecture': 'amd64', 'os': 'linux', 'config': config or {}, 'rootfs': {'type': 'layers', 'diff_ids': ['sha256:' + digest for digest in digests]}}).encode()
    entries = [(f'{hashlib.sha256(b"%d" % number).hexdigest()}/layer.tar', 'file', layer) for number, layer in enumerate(layers)]
    manifest = [{'Config': 'config.json', 'RepoTags': ['hostile:latest'], 'Layers': [name for name, _, _ in entries]}]
    return tar(('config.json', 'file', text), ('manifest.json', 'file', json.dumps(manifest)), *entries)


class Image:
    """An imported image, gone afterwards; or why it was refused."""

    def __init__(self, suite, layers, config=None):
        self.suite, self.name = suite, f'hostile-{uuid.uuid4().hex[:8]}:latest'
        with tempfile.NamedTemporaryFile(prefix='faas-hostile-', suffix='.tar') as file:
            file.write(docker_archive(layers, config))
            file.flush()
            done = suite.platform.faas('image', 'import', self.name, file.name)
        self.refused = None if done.returncode == 0 else (done.stderr + done.stdout).decode(errors='replace').strip()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if not self.refused:
            done = self.suite.platform.faas('image', 'rm', self.name)
            assert done.returncode == 0, done


def base_layer(*entries):
    """A root file system with one static program, and more."""
    with open(os.path.join(NATIVE, 'facts'), 'rb') as file:
        program = file.read()
    return tar(('bin', 'dir', ''), ('bin/facts', 'file', program), ('app', 'dir', ''), ('app/function', 'dir', ''), ('tmp', 'dir', ''), ('proc', 'dir', ''), ('dev', 'dir', ''), *entries)


def run_in(suite, image):
    """A native function in the image: what it is and where."""
    with open(os.path.join(NATIVE, 'facts'), 'rb') as file:
        program = file.read()
    suite.deploy(runtime='native', image=image.name, code=tar(('bootstrap', 'file', program)), timeout_ms=3000)
    return suite.invoke()


@attack('layer-paths', 'layers whose files go up, through links of a layer below, or over hard links out', 'refused, or beneath the root', 'openat2 with RESOLVE_BENEATH for each entry')
def _(suite):
    seen = []
    with Canary() as canary:
        outside = canary.folder
        for layers in ([tar(('../../../../../..' + outside + '/evil', 'file', 'x'))], [tar((outside + '/evil', 'file', 'x'))],
                       [tar(('out', 'sym', outside)), tar(('out/evil', 'file', 'x'))], [tar(('out', 'sym', '../../../../../../../..' + outside)), tar(('out/evil', 'file', 'x'))],
                       [tar(('out', 'sym', outside), ('out/canary', 'file', 'x'))], [tar(('h', 'hard', canary.path)), tar(('h', 'file', 'x'))],
                       [tar(('out', 'sym', outside)), tar(('out/.wh.canary', 'file', ''))], [tar(('out', 'sym', outside)), tar(('out/.wh..wh..opq', 'file', ''))],
                       [tar(('.wh...', 'file', ''))], [tar(('.wh..', 'file', ''))], [tar(('a/.wh.../x', 'file', ''))], [tar(('.wh.', 'file', ''))], [tar(('x', 'sym', '/proc/self/root')), tar(('x/tmp/evil', 'file', 'x'))]):
            with Image(suite, layers) as image:
                seen.append('refused' if image.refused else 'beneath')
            canary.check()
    return f'{seen.count("refused")} refused, {seen.count("beneath")} beneath the root'


@attack('layer-special', 'devices in layers, used by the function', 'refused, or of no use', 'nodev and nosuid; device cgroup; user namespace')
def _(suite):
    with Image(suite, [base_layer(('dev/mem', 'char', (1, 1)), ('disk', 'block', (254, 0)), ('kmsg', 'char', (1, 11)))]) as image:
        if image.refused:
            return 'refused: ' + image.refused[:60]
        execution = run_in(suite, image)
        suite.expect(execution, 'succeeded')
        assert not execution['result']['opened'], execution
        return 'not opened'


@attack('layer-setuid', 'a program in a layer that is root\'s and setuid, and starts the function', 'runs without more rights', 'no_new_privs; nosuid; user namespace')
def _(suite):
    with Image(suite, [base_layer()]) as image:  # tar() makes every file root's, and setuid
        assert not image.refused, image.refused
        suite.deploy(runtime='native', image=image.name, code=tar(('bootstrap', 'file', '#!/bin/facts\n')), timeout_ms=int(3000 * PATIENCE))
        result = suite.result()
        assert {result[kind] for kind in ('uid', 'euid', 'gid', 'egid')} == {1000}, result
        return 'uid 1000'


@attack('layer-hard-links', 'hard links to files of the layers below and of other images, and to links that point out, then written to', 'refused, or in its own image only',
        'openat2 with RESOLVE_BENEATH; a file is made anew, never written over; each image has its own files')
def _(suite):
    name = 'shared-' + uuid.uuid4().hex
    store = os.environ.get('WORKER_IMAGE_DIR', '/var/lib/faas/images') + '/chains'

    def copies():
        return {path: read_text(path) for path in glob.glob(f'{store}/*/{name}')}
    seen = []
    with Canary() as canary:
        below = [base_layer((name, 'file', 'mine'))]
        with Image(suite, below) as image:
            assert not image.refused, image.refused
            before = copies()
            assert set(before.values()) == {'mine'}, before
            for layers in ([tar(('h', 'hard', name)), tar(('h', 'file', 'evil'))], [tar(('h', 'hard', name), ('h', 'file', 'evil'))], [tar(('h', 'hard', '/' + name), ('h', 'file', 'evil'))],
                           [tar(('s', 'sym', canary.path), ('h', 'hard', 's')), tar(('h', 'file', 'evil'))], [tar(('s', 'sym', canary.folder)), tar(('h', 'hard', 's/canary'), ('h', 'file', 'evil'))],
                           [tar(('h', 'hard', '../' * 9 + canary.path)), tar(('h', 'file', 'evil'))], [tar(('h', 'hard', '../' * 3 + os.path.basename(next(iter(before)))))]):
                with Image(suite, below + layers) as other:
                    seen.append('refused' if other.refused else 'in its own')
                    now = copies()
                    assert {path: now.get(path) for path in before} == before, now
                    assert set(now.values()) == {'mine'}, f'the file itself was written: {now}'
                canary.check()
    return f'{seen.count("refused")} refused, {seen.count("in its own")} in their own image'


@attack('image-config', 'an image that wants root, another working directory, privileged variables, an entry point (CVE-2024-21626)', 'ignored', 'only the environment is taken; uid, folder and program are the platform\'s')
def _(suite):
    seen = []
    for folder in ('/proc/self/fd/7', '/proc/self/fd/8/../../..', '/proc/1/root', '../../..', '/'):
        with Image(suite, [base_layer()], {'User': 'root', 'WorkingDir': folder, 'Entrypoint': ['/bin/evil'], 'Cmd': ['x'], 'Volumes': {'/etc': {}},
                                           'Env': ['LD_PRELOAD=/evil.so', 'FUNCTION_NAME=other', 'PATH=/evil', 'HOME=/root', 'broken', '=x', 'A' * 5000 + '=1']}) as image:
            if image.refused:
                seen.append('refused')
                continue
            execution = run_in(suite, image)
            if execution['status'] != 'succeeded':
                seen.append(suite.expect(execution, 'failed', 'lost'))
                continue
            result = execution['result']
            assert result['uid'] == 1000 and result['folder'] == '/app/function' and result['name'] == suite.attack.name, result
            seen.append('ignored')
    return ', '.join(seen)


@attack('mount-targets', 'mount points of the container that are links out of it in the image (/proc, /dev, /tmp, /app/function, /etc/resolv.conf)',
        'refused at the start, or beneath the root', 'the OCI runtime resolves beneath the root; known problems are told by --check-host')
def _(suite):
    seen = []
    with Canary() as canary:
        up = '../../../../../../../..' + canary.folder
        with open(os.path.join(NATIVE, 'facts'), 'rb') as file:
            program = file.read()
        for link in ('tmp', 'app', 'app/function', 'dev', 'proc', 'run', '.faas', 'etc', 'dev/shm', 'etc/resolv.conf', 'proc/kcore', 'dev/null'):
            for target in (canary.folder, up):
                folders = [(name, 'dir', '') for name in ('bin', 'app', 'tmp', 'proc', 'dev', 'etc', 'run') if name != link]
                with Image(suite, [tar(*folders, ('bin/facts', 'file', program), (link, 'sym', target))]) as image:
                    if image.refused:
                        seen.append('refused')
                        continue
                    execution = run_in(suite, image)
                    seen.append(suite.expect(execution, 'succeeded', 'failed', 'lost').split('/')[0])
                canary.check()
    return ', '.join(f'{seen.count(word)} {word}' for word in sorted(set(seen)))


@attack('runtime-race', 'an image whose mount points are swapped with links while containers are made (CVE-2019-16884, CVE-2021-30465, CVE-2025-31133)',
        'nothing to swap: the root is read-only', 'read-only root; a function cannot write where another container is made')
def _(suite):
    suite.deploy(native='swap', timeout_ms=int(5000 * PATIENCE))
    results, made = [], 0
    call = threading.Thread(target=lambda: results.append(suite.result()))
    call.start()
    while call.is_alive() or not made:
        suite.deploy(suite.attack.name + '-other', python=f'print(json.dumps([os.path.realpath("/tmp"), {made}]))')
        assert suite.result(name=suite.attack.name + '-other') == ['/tmp', made]
        made += 1
    assert results and results[0]['swapped'] == 0, results
    return f'{results[0]["tries"]} tries while {made} containers were made, none worked'
