"""What code in a container can see and do, tried by code in a container."""
import contextlib
import json
import os
import re
import socket
import subprocess

from confinement import Confinement, IS_V2, ROOT, read, write
from faas_platform import Platform, PlatformTest, host_state, main

PROBE = '''
import ctypes, errno, json, os, socket, stat, sys

def attempt(action):
    try:
        return ["done", repr(action())[:200]]
    except OSError as error:
        return ["refused", errno.errorcode.get(error.errno, str(error))]

def status(pid="self"):
    with open(f"/proc/{pid}/status") as file:
        return dict(line.rstrip("\\n").split(":\\t", 1) for line in file if ":\\t" in line)

'''


def host_status(pid):
    with open(f'/proc/{pid}/status', encoding='utf-8') as file:
        return dict(line.rstrip('\n').split(':\t', 1) for line in file if ':\t' in line)


def host_descriptors(pid):
    """{number: (what it is, the mount that it is of)}"""
    found = {}
    for number in os.listdir(f'/proc/{pid}/fd'):
        with contextlib.suppress(FileNotFoundError), open(f'/proc/{pid}/fdinfo/{number}', encoding='ascii') as file:
            found[number] = (os.readlink(f'/proc/{pid}/fd/{number}'), next(line.split()[1] for line in file if line.startswith('mnt_id:')))
    return found


def host_cgroup(pid, controller):
    """The folder of the process's cgroup, as the host sees it."""
    pattern = r'^0::(.*)$' if IS_V2 else rf'^\d+:(?:.*,)?{controller}(?:,.*)?:(.*)$'
    return (ROOT if IS_V2 else f'{ROOT}/{controller}') + re.search(pattern, read(f'/proc/{pid}/cgroup'), re.MULTILINE)[1]


class Isolation(PlatformTest):
    def probe(self, expression, statements='', **fields):
        """The value of a Python expression, computed in a container."""
        self.deploy('probe', python=PROBE + statements + '\nprint(json.dumps(' + expression + '))', **fields)
        execution = self.invoke('probe')
        self.assertEqual(execution['status'], 'succeeded', execution)
        return execution['result']

    def assertRefused(self, expression, statements='', **fields):
        result = self.probe(f'attempt(lambda: {expression})', statements, **fields)
        self.assertEqual(result[0], 'refused', result)

    def test_it_is_an_unprivileged_user_without_capabilities(self):
        status = self.probe('status()')
        self.assertEqual(status['Uid'].split(), ['1000'] * 4)
        self.assertEqual(status['Gid'].split(), ['1000'] * 4)
        for kind in ('CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb'):
            self.assertEqual(int(status[kind], 16), 0, kind)
        self.assertEqual((status['NoNewPrivs'], status['Seccomp']), ('1', '2'))
        self.assertIn(status.get('Groups', '').strip(), ('', '1000'))

    def test_an_apparmor_profile_holds_where_the_kernel_has_it(self):
        try:
            with open('/sys/module/apparmor/parameters/enabled', encoding='ascii') as file:
                enabled = file.read().startswith('Y')
        except OSError:
            enabled = False
        if not enabled:
            self.skipTest('this kernel has no AppArmor')
        self.assertEqual(self.probe('open("/proc/self/attr/current").read().strip()'), f'faas-{self.platform.worker_name} (enforce)')
        self.assertEqual(self.probe('open("/proc/1/attr/current").read().strip()'), f'faas-{self.platform.worker_name} (enforce)')
        self.assertRefused('os.write(os.open("/proc/self/attr/current", os.O_WRONLY), b"changeprofile unconfined")')

    def oci_runtime(self, *words, platform=None):
        """What the OCI runtime says of the platform's containers."""
        command = ['runc', '--root', f'/run/faas/{(platform or self.platform).worker_name}/runc', *words]
        return json.loads(subprocess.run(command, capture_output=True, check=True).stdout or 'null')

    def check_from_outside(self, pid, container, host_mounts):
        """Its name; every process of an instance must be without any right, and hold nothing of the host."""
        status = host_status(pid)
        rights = {kind: status[kind] for kind in ('CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb', 'NoNewPrivs', 'Seccomp')}
        self.assertEqual(rights, {**dict.fromkeys(('CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb'), '0' * 16), 'NoNewPrivs': '1', 'Seccomp': '2'}, status)
        for kind in ('user', 'mnt', 'pid', 'net', 'ipc', 'uts', 'cgroup'):
            self.assertNotEqual(os.readlink(f'/proc/{pid}/ns/{kind}'), os.readlink(f'/proc/self/ns/{kind}'), kind)
        for number, (what, mount) in host_descriptors(pid).items():
            self.assertNotIn(mount, host_mounts, (container, status['Name'], number, what))
        return status['Name']

    def test_from_outside_every_process_of_every_instance_is_without_rights(self):
        """`runc state` and /proc of the host tell of those that run, whatever they say themselves."""
        self.assertSucceeded(self.deploy_and_invoke('process-python'), 1)
        self.deploy('handler-python', python='def handler(event, context):\n    return 1', contract='handler', handler='main.handler')
        self.assertSucceeded(self.invoke('handler-python'), 1)
        self.deploy('handler-nodejs', nodejs='exports.handler = async () => 1', contract='handler', handler='index.handler', network='none')
        self.assertSucceeded(self.invoke('handler-nodejs'), 1)
        with open('/proc/self/mountinfo', encoding='utf-8') as file:
            host_mounts = {line.split()[0] for line in file}
            self.assertIn(host_descriptors(os.getpid())[str(file.fileno())][1], host_mounts, 'a descriptor of the host would not be seen')
        names, users = set(), {}

        def look(container, pid):
            names.add(self.check_from_outside(pid, container, host_mounts))
            users.setdefault(container, set()).add(os.readlink(f'/proc/{pid}/ns/user'))
        self.each_process(look)
        self.assertLessEqual({'faas-init', 'python3', 'node'}, names)
        self.assertGreaterEqual(len(users), 3)
        self.assertEqual(len({user for one in users.values() for user in one}), len(users), 'a user namespace of its own for each instance')

    def each_process(self, look, platform=None):
        """look(container, pid) for every process of every instance."""
        for container in [one['id'] for one in self.oci_runtime('list', '--format', 'json', platform=platform) if one['status'] in ('running', 'paused')]:
            # One that has not begun yet is the OCI runtime itself, and others come and go meanwhile.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError, subprocess.CalledProcessError):
                for pid in self.oci_runtime('ps', '--format', 'json', container, platform=platform):
                    if not host_status(pid)['Name'].startswith('runc'):
                        look(container, pid)

    def test_from_outside_every_process_of_every_instance_has_its_limits(self):
        """What the kernel holds, of instances that were made for their function and of those that were ready before it."""
        self.assertSucceeded(self.deploy_and_invoke('limited'), 1)
        self.deploy('limited-alone', python='print(1)', memory_mb=64, pids=20, env={'PYTHONX': '1'})
        self.assertSucceeded(self.invoke('limited-alone'), 1)
        platform = max(int(read(f'/proc/{pid}/oom_score_adj')) for name, pid in self.platform.pids().items() if name != 'faas')
        sizes = set()

        def look(container, pid):
            limits = {line[:25].strip(): line[25:].split()[:2] for line in read(f'/proc/{pid}/limits').splitlines()[1:]}
            self.assertEqual(limits['Max core file size'], ['0', '0'], container)
            self.assertEqual(limits['Max open files'], ['1024', '1024'], container)
            score = int(read(f'/proc/{pid}/oom_score_adj'))
            self.assertTrue(score >= 500 and score > platform, (container, score, platform))
            self.assertLessEqual(int(read(host_cgroup(pid, 'pids') + '/pids.max')), 64 + 2, container)  # faas-init and the zygote are on top
            sizes.add(self.memory_without_swap(host_cgroup(pid, 'memory')))
        self.each_process(look)
        self.assertLessEqual({64 << 20, 128 << 20}, sizes)

    def memory_without_swap(self, folder):
        """The limit, which swap adds nothing to."""
        if IS_V2:
            if os.path.exists(folder + '/memory.swap.max'):
                self.assertEqual(read(folder + '/memory.swap.max'), '0\n', folder)
            return int(read(folder + '/memory.max'))
        limit = int(read(folder + '/memory.limit_in_bytes'))
        if os.path.exists(folder + '/memory.memsw.limit_in_bytes'):
            self.assertEqual(int(read(folder + '/memory.memsw.limit_in_bytes')), limit, folder)
        return limit

    def host_ids(self, platform):
        """{container: the first host id of its range}"""
        found = {}

        def look(container, pid):
            found[container] = int(read(f'/proc/{pid}/uid_map').split()[1])
        self.each_process(look, platform)
        return found

    def test_no_two_live_instances_share_a_user_of_the_host_whichever_worker_they_are_of(self):
        self.assertSucceeded(self.deploy_and_invoke('mine'), 1)
        with Platform(self.settings) as other:
            other.deploy('others', python='print(1)')
            self.assertSucceeded(other.invoke('others'), 1)
            mine, others = self.host_ids(self.platform), self.host_ids(other)
            self.assertTrue(mine and others, (mine, others))
            users = [*mine.values(), *others.values()]
            self.assertEqual(len(set(users)), len(users), (mine, others))
            self.assertTrue(all(base >= 0x20010000 and base % 65536 == 0 for base in users), users)

    def test_an_instance_that_cannot_be_killed_keeps_its_users_of_the_host(self):
        if IS_V2:
            self.skipTest('what is frozen can be killed with cgroup v2')
        frozen = Confinement('freezer')
        stuck = Platform({**self.settings, 'WORKER_POOL_SIZE': '0', 'WORKER_OCI_RUNTIME': self.runtime_that_deletes_nothing()})
        self.addCleanup(frozen.remove)
        self.addCleanup(stuck.cleanup)
        with frozen.inside():
            stuck.start()
        stuck.deploy('stuck', python='print(1)')
        self.assertSucceeded(stuck.invoke('stuck'), 1)
        ((container, kept),) = self.host_ids(stuck).items()
        pid = self.oci_runtime('ps', '--format', 'json', container, platform=stuck)[0]
        for own in frozen.pids():
            write(f'{frozen.home}/cgroup.procs', own)
        write(f'{frozen.folder}/freezer.state', 'FROZEN')
        try:
            stuck.stop()
            self.assertTrue(os.path.exists(f'/proc/{pid}'), 'it was to outlive its worker')
            self.assertNotIn(kept, self.bases_of_a_new_worker())
        finally:
            write(f'{frozen.folder}/freezer.state', 'THAWED')
            del stuck.settings['WORKER_OCI_RUNTIME']
            with frozen.inside():
                stuck.start()
            status = stuck.stop()
        self.assertEqual(status, 0)
        self.assertFalse([line for line in host_state() if stuck.worker_name in line])
        self.assertIn(kept, self.bases_of_a_new_worker())

    def runtime_that_deletes_nothing(self):
        path = os.path.join(self.platform.data_dir, 'runtime')
        with open(path, 'w', encoding='ascii') as file:
            file.write('#!/bin/sh\nfor word; do [ "$word" = delete ] && exit 1; done\nexec runc "$@"\n')
        os.chmod(path, 0o755)
        return path

    def bases_of_a_new_worker(self):
        with Platform({**self.settings, 'WORKER_POOL_SIZE': '0'}) as other:
            for number in range(2):
                other.deploy(f'other-{number}', python='print(1)')
                self.assertSucceeded(other.invoke(f'other-{number}'), 1)
            return self.host_ids(other).values()

    def test_ids_are_mapped(self):
        outside = int(self.probe('open("/proc/self/uid_map").read().split()')[1])
        self.assertGreaterEqual(outside, 0x20000000)

    def test_only_its_own_descriptors_and_environment(self):
        descriptors = self.probe('{n: os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{n}") or os.path.islink(f"/proc/self/fd/{n}")}')
        self.assertLessEqual({number for number in descriptors if '/proc/' not in descriptors[number]}, {'0', '1', '2'}, descriptors)
        names = set(self.probe('dict(os.environ)'))
        allowed = {'PATH', 'LANG', 'HOME', 'TMPDIR', 'PYTHONUNBUFFERED', 'SSL_CERT_FILE', 'LC_CTYPE', 'PWD', 'SHLVL', '_', 'PYTHONPATH', 'HOSTNAME'}
        self.assertLessEqual({name for name in names if not name.startswith(('FUNCTION_', 'EXECUTION_'))}, allowed)

    def test_a_shells_descriptors_are_clean_too(self):
        self.deploy('shell-fds', native='#!/bin/sh\nls /proc/self/fd | tr "\\n" " "\n')
        self.assertLessEqual(set(self.invoke('shell-fds')['result'].split()), {'0', '1', '2', '3'})  # 3: ls has the folder open

    def test_root_file_system_and_code_are_read_only(self):
        for path in ('/probe', '/usr/probe', '/etc/probe', '/app/function/probe', '/.faas/probe', '/app/probe'):
            with self.subTest(path):
                self.assertRefused(f'open({path!r}, "w")')
        self.assertRefused('os.chmod("/app/function/main.py", 0o777)')

    def test_mounts_are_nosuid_and_nodev(self):
        mounts = {line.split()[4]: line.split()[5] for line in self.probe('open("/proc/self/mountinfo").read().splitlines()')}
        self.assertIn('ro', mounts['/'].split(','))
        for path in ('/app/function', '/tmp', '/proc'):
            for option in ('nosuid', 'nodev'):
                self.assertIn(option, mounts[path].split(','), (path, mounts))
        self.assertNotIn('/sys', mounts)

    def test_it_sees_its_own_processes_only(self):
        processes = self.probe('{p: open(f"/proc/{p}/cmdline").read() for p in os.listdir("/proc") if p.isdigit()}')
        self.assertIn('1', processes)
        self.assertLess(len(processes), 6, processes)

    def test_its_init_cannot_be_killed_traced_or_read(self):
        result = self.probe('[attempt(lambda: os.kill(1, 9)), os.path.exists("/proc/1"), attempt(lambda: open("/proc/1/environ").read()), '
                            'attempt(lambda: open("/proc/1/mem", "rb+")), attempt(lambda: os.listdir("/proc/1/fd"))]')
        self.assertTrue(result[1])
        for number, access in ((2, 'environ'), (3, 'mem'), (4, 'fd')):
            self.assertEqual(result[number][0], 'refused', access)
        # Signals to everything it can reach: the instance must serve the next invocation, or be replaced.
        self.deploy('killer', python='import os, signal\nfor p in os.listdir("/proc"):\n    if p.isdigit() and int(p) != os.getpid():\n'
                                     '        for s in (signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP):\n            try: os.kill(int(p), s)\n            except OSError: pass\n'
                                     'print(1)', timeout_ms=5000)
        for _ in range(3):
            self.assertIn(self.invoke('killer')['status'], ('succeeded', 'failed', 'timed_out'))
        self.assertSucceeded(self.deploy_and_invoke('after-killer'), 1)

    def test_it_changes_its_own_priority_and_nobody_elses(self):
        """faas-init and the zygote have its uid: what "all processes of the user" means includes them."""
        own = os.getpriority(os.PRIO_PROCESS, 0)  # what the platform and so its instances inherit
        self.assertEqual(self.probe('[os.nice(3), os.getpriority(os.PRIO_PROCESS, 0), os.getpriority(os.PRIO_PROCESS, 1)]'), [own + 3, own + 3, own])
        for which in ('os.PRIO_USER, 0', 'os.PRIO_USER, os.getuid()', 'os.PRIO_PROCESS, 1', 'os.PRIO_PROCESS, os.getppid()'):
            self.assertRefused(f'os.setpriority({which}, 5)')
        libc = f'libc = ctypes.CDLL(None, use_errno=True)\nnumber = {251 if os.uname().machine == "x86_64" else 30}'
        self.assertEqual(self.probe('[libc.syscall(number, which, who, 3 << 13 | 7) for which, who in ((1, 0), (1, 1), (3, 0), (3, os.getuid()))]', libc),
                         [0, -1, -1, -1])  # ioprio_set: IOPRIO_WHO_PROCESS, IOPRIO_WHO_USER

    def deploy_and_invoke(self, name):
        self.deploy(name, python='print(1)')
        return self.invoke(name)

    def test_the_platform_goes_before_functions(self):
        self.deploy('behind', python='import os\nprint(os.getpriority(os.PRIO_PROCESS, 0))')
        own = os.getpriority(os.PRIO_PROCESS, 0)
        self.assertSucceeded(self.invoke('behind'), own)
        if own == 0:
            for name in ('faas-worker', 'faas-controller'):
                self.assertLess(os.getpriority(os.PRIO_PROCESS, self.platform.pids()[name]), 0, name)

    def test_dangerous_system_calls_are_refused(self):
        calls = {'mount': 165, 'umount2': 166, 'ptrace(attach 1)': 101, 'unshare(newuser)': 272, 'setns': 308, 'keyctl': 250, 'bpf': 321,
                 'kexec_load': 246, 'init_module': 175, 'reboot': 169, 'swapon': 167, 'open_by_handle_at': 304, 'perf_event_open': 298,
                 'userfaultfd': 323, 'pivot_root': 155, 'io_uring_setup': 425, 'personality': 135, 'add_key': 248, 'open_tree': 428}
        if os.uname().machine != 'x86_64':
            self.skipTest('system call numbers of x86_64')
        arguments = {'ptrace(attach 1)': (16, 1, 0, 0), 'unshare(newuser)': (0x10000000,), 'personality': (0x0040000,)}
        result = self.probe('out', 'libc = ctypes.CDLL(None, use_errno=True)\nout = {}\n' + f'for name, number in {calls!r}.items():\n'
                            f'    out[name] = [libc.syscall(number, *{arguments!r}.get(name, (0, 0, 0, 0))), ctypes.get_errno()]')
        for name, (value, error) in result.items():
            self.assertEqual(value, -1, name)
            self.assertIn(error, (1, 38, 13), (name, error))  # EPERM, ENOSYS, EACCES

    def test_kernel_paths_are_masked(self):
        for path in ('/proc/kcore', '/proc/keys', '/proc/sysrq-trigger', '/proc/timer_list', '/proc/sched_debug', '/sys/kernel'):
            with self.subTest(path):
                result = self.probe(f'attempt(lambda: open({path!r}, "rb").read(10))')
                self.assertTrue(result[0] == 'refused' or result[1] == "b''", result)
        self.assertRefused('open("/proc/sys/kernel/core_pattern", "w").write("x")')
        self.assertRefused('open("/proc/sysrq-trigger", "w").write("h")')

    def test_devices(self):
        names = set(self.probe('os.listdir("/dev")'))
        self.assertLessEqual(names, {'null', 'zero', 'full', 'random', 'urandom', 'tty', 'fd', 'stdin', 'stdout', 'stderr', 'ptmx', 'pts', 'shm', 'mqueue', 'core', 'console'})
        self.assertRefused('os.mknod("/tmp/device", stat.S_IFBLK | 0o666, os.makedev(254, 0))')

    def test_network_none_is_loopback_only(self):
        interfaces = self.probe('[name for _, name in socket.if_nameindex()]', network='none')
        self.assertEqual(interfaces, ['lo'])
        self.assertRefused('socket.create_connection(("192.0.2.1", 9), 2)', network='none')

    def test_loopback_works_inside(self):
        self.assertEqual(self.probe('pair()', 'def pair():\n    s = socket.create_server(("127.0.0.1", 0))\n    c = socket.create_connection(s.getsockname(), 2)\n'
                                              '    s.accept()[0].sendall(b"x")\n    return c.recv(1).decode()', network='none'), 'x')

    def test_network_bridge_reaches_neither_host_nor_other_functions(self):
        interfaces = self.probe('[name for _, name in socket.if_nameindex()]', network='bridge')
        self.assertIn('lo', interfaces)
        self.assertEqual(len(interfaces), 2, interfaces)
        with socket.create_server(('0.0.0.0', 0)) as server:
            server.setblocking(False)
            port = server.getsockname()[1]
            addresses = json.loads(subprocess.run(['ip', '-j', '-4', 'addr'], capture_output=True, check=True).stdout)
            hosts = [info['local'] for link in addresses for info in link['addr_info'] if info['local'] != '127.0.0.1']
            self.assertTrue(hosts)
            result = self.probe('out', f'out = {{}}\nfor host in {hosts!r} + ["169.254.169.254", "127.0.0.1"]:\n'
                                       f'    out[host] = attempt(lambda: socket.create_connection((host, {port}), 0.7))', network='bridge', timeout_ms=60000)
            with self.assertRaises(BlockingIOError, msg=result):  # who had reached it would wait to be accepted
                server.accept()
            for host, (outcome, _) in result.items():
                self.assertEqual(outcome, 'refused', host)

    def test_functions_cannot_reach_each_other(self):
        self.deploy('server', python='import json, socket, sys, time\ns = socket.create_server(("0.0.0.0", 7777))\ns.settimeout(4)\n'
                                     'try:\n    s.accept()\n    print(1)\nexcept OSError:\n    print(0)', timeout_ms=10000)
        execution_id = self.platform.invoke_async('server')
        # The server's address is not known; every neighbour of the subnet that could be it is tried.
        self.deploy('client', python='''
import fcntl, json, socket, struct
probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
name = [n for _, n in socket.if_nameindex() if n != "lo"][0]
own = socket.inet_ntoa(fcntl.ioctl(probe, 0x8915, struct.pack("256s", name.encode()))[20:24])
base, last = own.rsplit(".", 1)
sockets = []
for n in range(2, 60):
    if str(n) == last: continue
    s = socket.socket(); s.setblocking(False); s.connect_ex((f"{base}.{n}", 7777)); sockets.append(s)
import select
_, ready, _ = select.select([], sockets, [], 2)
print(json.dumps([s.getpeername()[0] for s in ready if s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0]))
''', timeout_ms=10000)
        self.assertSucceeded(self.invoke('client'), [])
        self.assertSucceeded(self.platform.wait_execution(execution_id), 0)

    def test_cgroup_namespace_hides_the_hosts_paths(self):
        for line in self.probe('open("/proc/self/cgroup").read().split()'):
            self.assertNotIn('faas-', line)


if __name__ == '__main__':
    main()
