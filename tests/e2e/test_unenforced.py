"""A host that cannot enforce a limit: nothing runs there, unless the operator has said what functions may run without.

The host is this one, seen from a mount namespace in which a cgroup controller is not mounted.
"""
import contextlib
import glob
import json
import os
import subprocess
import unittest

import faas_platform
from faas_platform import BIN, Platform



def after(command):
    """A command that runs the one behind it in a mount namespace of its own, in which `command` was run first."""
    return ('unshare', '--mount', '--propagation', 'private', 'sh', '-c', f'{command} && exec "$@"', 'sh')


def without(controller):
    """A command that runs the one behind it without that cgroup controller."""
    return after(f'umount -l /sys/fs/cgroup/{controller}')


# How a kernel without them looks to who asks it.
WITHOUT_PART = {'userns': after('mount --bind /dev/null /proc/sys/user/max_user_namespaces'),
                'seccomp': after('mount -t tmpfs none /proc/sys/kernel/seccomp')}
ROWS = ['user', 'kernel', 'cgroups', 'swap', 'disk I/O', 'namespaces', 'seccomp', 'AppArmor', 'mounts', 'OCI runtime', 'CNI plugins', 'nftables', 'faas-init', 'images']


CODE = 'import json; print(json.dumps({"ok": True}))'


def host_table(prefix=(), **settings):
    """(exit status, lines)"""
    done = subprocess.run([*prefix, os.path.join(BIN, 'faas-worker'), '--check-host'], capture_output=True, text=True, check=False, env={**os.environ, **settings})
    return done.returncode, done.stdout.splitlines()


def check_host(controller='pids', row='cgroups', **settings):
    status, lines = host_table(without(controller), **settings)
    return status, next(line for line in lines if line.startswith(row))


@unittest.skipUnless(all(map(os.path.ismount, ('/sys/fs/cgroup/memory', '/sys/fs/cgroup/cpu', '/sys/fs/cgroup/pids'))),
                     'a host with cgroup v1, one controller a hierarchy, is needed')
class Without(unittest.TestCase):
    def test_the_worker_does_not_start_and_names_limit_and_setting(self):
        platform = Platform(prefix=without('pids'))
        try:
            with self.assertRaises(AssertionError):
                platform.start()
            self.assertRegex(platform.log_tail(), r'this host cannot enforce these limits: pids .*WORKER_ALLOW_UNENFORCED')
            self.assertEqual(platform.leftovers(), [])
        finally:
            platform.kill()
            platform.cleanup()

    def test_the_table_of_the_host_says_so(self):
        status, row = check_host()
        self.assertEqual(status, 1)
        self.assertRegex(row, r'no .*cannot enforce these limits: pids .*WORKER_ALLOW_UNENFORCED')
        _, row = check_host(WORKER_ALLOW_UNENFORCED='memory')
        self.assertRegex(row, r'no .*cannot enforce these limits: pids ')
        _, row = check_host(WORKER_ALLOW_UNENFORCED='memory,pids')
        self.assertRegex(row, r'warn .*functions run without a limit.*: pids$')

    def test_when_it_is_allowed_functions_run_and_everybody_is_told(self):
        limits = {'memory', 'cpu', 'pids'}
        for missing in sorted(limits):
            with self.subTest(missing), Platform({'WORKER_ALLOW_UNENFORCED': ','.join(limits)}, prefix=without(missing)) as platform:
                self.assertRegex(platform.log_tail(), rf'FUNCTIONS RUN WITHOUT A LIMIT.* limit={missing}')
                for other in limits - {missing}:
                    self.assertNotIn(f'limit={other}', platform.log_tail())
                platform.deploy('hello', python=CODE)
                platform.deploy('smaller', python=CODE, memory_mb=64, cpus=0.5, pids=20)
                for name in ('hello', 'smaller'):
                    self.assertEqual(platform.invoke(name)['result'], {'ok': True})
                self.assertEqual(platform.api('GET', '/v1/workers').json()['workers'][0]['unenforced'], [missing])
                self.assertRegex(platform.faas('workers', check=True).stdout, rb'NOT ENFORCED +LABELS\n.* ' + missing.encode() + rb' +arch=')
                for resources in self.resources(platform):
                    self.assertEqual(limits & set(resources), limits - {missing})
                self.assertEqual(platform.stop(), 0)
                self.assertEqual(platform.leftovers(), [])

    def test_without_io_limits_only_functions_that_ask_for_them_are_refused(self):
        with Platform(prefix=without('blkio')) as platform:
            platform.deploy('hello', python=CODE)
            platform.deploy('slow', python=CODE, io_bps=1 << 20)
            self.assertEqual(platform.invoke('hello')['result'], {'ok': True})
            execution = platform.invoke('slow')
            self.assertNotEqual(execution['status'], 'succeeded')
            self.assertRegex(execution['error']['message'], 'cannot limit I/O.*WORKER_ALLOW_UNENFORCED')
            self.assertEqual(platform.invoke('hello')['result'], {'ok': True})
            self.assertEqual(platform.api('GET', '/v1/workers').json()['workers'][0]['unenforced'], [])
        _, row = check_host('blkio', 'disk I/O')
        self.assertRegex(row, r'warn .*functions with io_bps or io_iops cannot run: .*blkio')

    def test_without_io_limits_and_allowed_functions_run(self):
        with Platform({'WORKER_ALLOW_UNENFORCED': 'io'}, prefix=without('blkio')) as platform:
            self.assertRegex(platform.log_tail(), r'FUNCTIONS RUN WITHOUT A LIMIT.* limit=io')
            platform.deploy('pooled', python=CODE, io_bps=1 << 20, io_iops=50)
            platform.deploy('direct', python=CODE, io_bps=1 << 20, io_iops=50, env={'PYTHONX': '1'})
            for name in ('pooled', 'direct'):
                self.assertEqual(platform.invoke(name)['result'], {'ok': True})
            self.assertEqual(platform.api('GET', '/v1/workers').json()['workers'][0]['unenforced'], ['io'])
            for resources in self.resources(platform):
                self.assertNotIn('blockIO', resources)
        _, row = check_host('blkio', 'disk I/O', WORKER_ALLOW_UNENFORCED='io')
        self.assertRegex(row, r'warn .*functions run without a limit.*: io: ')

    def resources(self, platform):
        paths = glob.glob(os.path.join(platform.data_dir, 'worker', 'bundles', '*', 'config.json'))
        self.assertTrue(paths)
        for path in paths:
            # One that goes at this moment is of no interest.
            with contextlib.suppress(FileNotFoundError), open(path, encoding='utf-8') as file:
                yield json.load(file)['linux']['resources']


class WithoutPartOfTheKernel(unittest.TestCase):
    def test_the_worker_does_not_start_and_names_limit_and_setting(self):
        for part, prefix in WITHOUT_PART.items():
            platform = Platform(prefix=prefix)
            try:
                with self.subTest(part):
                    with self.assertRaises(AssertionError):
                        platform.start()
                    self.assertRegex(platform.log_tail(), rf'this host cannot enforce these limits: {part} .*WORKER_ALLOW_UNENFORCED')
                    self.assertEqual(platform.leftovers(), [])
            finally:
                platform.kill()
                platform.cleanup()

    def test_the_table_of_the_host_says_so(self):
        for part, row in (('userns', 'namespaces'), ('seccomp', 'seccomp')):
            with self.subTest(part):
                status, lines = host_table(WITHOUT_PART[part])
                self.assertEqual(status, 1)
                self.assertRegex(next(line for line in lines if line.startswith(row)), rf'no .*cannot enforce these limits: {part} .*WORKER_ALLOW_UNENFORCED')
                status, lines = host_table(WITHOUT_PART[part], WORKER_ALLOW_UNENFORCED=part)
                self.assertEqual(status, 0)
                self.assertRegex(next(line for line in lines if line.startswith(row)), rf'warn .*functions run without a limit.*: {part}$')

    def test_when_it_is_allowed_functions_run_and_everybody_is_told(self):
        """Not without seccomp: containers get no /proc where something lies on the host's."""
        with Platform({'WORKER_ALLOW_UNENFORCED': 'userns'}, prefix=WITHOUT_PART['userns']) as platform:
            self.assertRegex(platform.log_tail(), r'FUNCTIONS RUN WITHOUT A LIMIT.* limit=userns')
            platform.deploy('hello', python=CODE)
            self.assertEqual(platform.invoke('hello')['result'], {'ok': True})
            self.assertEqual(platform.api('GET', '/v1/workers').json()['workers'][0]['unenforced'], ['userns'])
            self.assertEqual(platform.stop(), 0)
            self.assertEqual(platform.leftovers(), [])


class WithAll(unittest.TestCase):
    def test_the_table_has_a_row_for_each_thing_that_a_worker_rests_on(self):
        status, lines = host_table()
        self.assertEqual(status, 0, lines)
        self.assertEqual([line[:12].strip() for line in lines], ROWS)
        for line in lines:
            self.assertRegex(line, r'^.{12}  (ok  |warn)  \S')
        runtime = next(line for line in lines if line.startswith('OCI runtime'))
        self.assertRegex(runtime, r'/\S+, runc version [\d.]+')

    def test_a_limit_that_may_be_missing_is_enforced_where_it_can_be(self):
        with Platform({'WORKER_ALLOW_UNENFORCED': 'memory,swap,cpu,pids,userns,seccomp,io'}) as platform:
            platform.deploy('hello', python=CODE)
            self.assertEqual(platform.invoke('hello')['result'], {'ok': True})
            self.assertEqual(platform.api('GET', '/v1/workers').json()['workers'][0]['unenforced'], [])
            paths = glob.glob(os.path.join(platform.data_dir, 'worker', 'bundles', '*', 'config.json'))
            self.assertTrue(paths)
            for path in paths:
                with open(path, encoding='utf-8') as file:
                    linux = json.load(file)['linux']
                self.assertEqual({'memory', 'cpu', 'pids'} - set(linux['resources']), set())
                self.assertIn('seccomp', linux)
                self.assertIn('user', [namespace['type'] for namespace in linux['namespaces']])

    def test_a_worker_that_cannot_start_leaves_nothing_behind(self):
        platform = Platform({'WORKER_IMAGE_DIR': '/dev/null/images'})
        try:
            with self.assertRaises(AssertionError):
                platform.start()
            self.assertIn('WORKER_IMAGE_DIR', platform.log_tail())
            self.assertEqual(platform.leftovers(), [])
        finally:
            platform.kill()
            platform.cleanup()

    def test_a_name_that_is_none_is_refused(self):
        done = subprocess.run([os.path.join(BIN, 'faas-worker'), '--check-config', '--allow-unenforced', 'ram'], capture_output=True,
                              text=True, check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn('"ram" is none of them', done.stderr)


if __name__ == '__main__':
    faas_platform.main()
