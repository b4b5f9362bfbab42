"""Attacks on the kernel's interfaces: what a function may not even ask for."""
import os

from hostile import group
from world import PATIENCE

attack = group('kernel')


def calls(name, what, held_by, but=None):
    """Each of the set must be refused as not permitted, or as a call that there is not: another error would be that of a call that was let
    through and only had bad arguments. `but`: other errors that are as good, by the call."""
    @attack(name, what, 'refused', held_by)
    def _(suite):
        suite.deploy(native='calls')
        tried = suite.result({'set': name})
        assert tried
        through = {call: outcome for call, outcome in tried.items()
                   if outcome[0] == 'done' or outcome[1] not in ('EPERM', 'ENOSYS', (but or {}).get(call))}
        assert not through, f'not refused as such: {through}'
        return f'{len(tried)} refused ({", ".join(sorted({outcome[1] for outcome in tried.values()}))})'


SECCOMP = 'seccomp allow-list; no capabilities'
calls('mounts', 'mount, umount, remount, pivot_root, chroot and their new forms', SECCOMP)
calls('namespaces', 'user and other namespaces by unshare, clone, clone3, setns', SECCOMP)
calls('kernel-code', 'BPF, modules, kexec, I/O ports', SECCOMP)
calls('interfaces', 'perf, io_uring, userfaultfd, fanotify, key rings, the kernel log', SECCOMP)
calls('machine', 'reboot, clock, host name', SECCOMP)
calls('privileges', 'other users, device nodes', 'no_new_privs; no capabilities; user namespace with one uid')
if os.uname().machine == 'x86_64':
    OTHER_ABIS = ('32-bit getpid', '32-bit unshare', 'x32 getpid', 'x32 unshare')
    calls('other-abis', 'system calls of other architectures: 32-bit by interrupt, x32 by number', 'seccomp: one architecture', but=dict.fromkeys(OTHER_ABIS, 'killed'))
calls('others', 'ptrace, process_vm, prlimit, affinity and priority of PID 1', SECCOMP)


@attack('sockets', 'raw, packet, netlink, vsock, crypto and other sockets that are not TCP, UDP or local', 'refused', 'seccomp by argument')
def _(suite):
    return suite.refused('''
kinds = {'raw icmp': (2, 3, 1), 'raw tcp': (2, 3, 6), 'raw any': (2, 3, 255), 'ping': (2, 2, 1), 'packet': (17, 3, 0x300), 'packet dgram': (17, 2, 0),
         'old packet': (2, 10, 0x300), 'netfilter': (16, 3, 12), 'audit': (16, 3, 9), 'xfrm': (16, 3, 6), 'uevent': (16, 3, 15), 'generic netlink': (16, 3, 16),
         'sock_diag': (16, 3, 4), 'vsock': (40, 1, 0), 'alg': (38, 5, 0), 'xdp': (44, 3, 0), 'bluetooth': (31, 3, 1), 'can': (29, 3, 1), 'tipc': (30, 1, 0), 'rds': (21, 5, 0),
         'key': (15, 3, 2), 'sctp': (2, 1, 132), 'dccp': (2, 6, 33), 'udplite': (2, 2, 136), 'mptcp': (2, 1, 262), 'ax25': (3, 5, 0), 'x25': (9, 5, 0), 'appletalk': (5, 2, 0),
         'llc': (26, 1, 0), 'smc': (43, 1, 0), 'qipcrtr': (42, 2, 0), 'kcm': (41, 2, 0), 'raw v6': (10, 3, 58), 'nfc': (39, 5, 0), 'pppox': (24, 1, 0), 'phonet': (35, 2, 0)}
for name, arguments in kinds.items():
    attempt(name, lambda: socket.socket(*arguments))
attempt('pair of packet', lambda: socket.socketpair(17, 3, 0))
''', reasons=('EPERM',), network='bridge')


def has_apparmor():
    try:
        with open('/sys/module/apparmor/parameters/enabled', encoding='ascii') as file:
            return file.read().startswith('Y')
    except OSError:
        return False


@attack('apparmor', 'the AppArmor profile: left or exchanged, for oneself, for PID 1 and for the next program', 'in force before and after, where the kernel has it',
        'a profile of the worker\'s own; no_new_privs')
def _(suite):
    suite.deploy(python='''
def profile(pid='self'):
    try: return read(f'/proc/{pid}/attr/current').decode().strip('\\0\\n ')
    except OSError: return None
before = [profile(), profile(1)]
for folder in ('attr', 'attr/apparmor'):
    for file, words in (('current', 'changeprofile unconfined'), ('current', 'changehat 0000000000000000^x'), ('current', 'permprofile unconfined'),
                        ('current', 'unconfined'), ('exec', 'exec unconfined')):
        for pid in ('self', '1'): attempt(f'{pid}/{folder}/{file} {words}', lambda: write(f'/proc/{pid}/{folder}/{file}', words))
import subprocess
program = subprocess.run([sys.executable, '-c', 'print(open("/proc/self/attr/current").read())'], capture_output=True, text=True)
print(json.dumps([before, [profile(), profile(1)], program.stdout.strip('\\0\\n '), sorted(name for name in tried if tried[name][0] == 'done')]))
''', timeout_ms=int(40000 * PATIENCE))
    before, after, program, done = suite.result()
    if not has_apparmor():
        return 'not on this kernel'
    wanted = f'faas-{suite.platform.worker_name} (enforce)'
    assert before == after == [wanted, wanted] and program == wanted, (before, after, program, done)
    assert not done, done
    return wanted


@attack('terminal-injection', 'TIOCSTI, TIOCLINUX and other device controls', 'refused', 'seccomp by argument')
def _(suite):
    return suite.refused('''
import fcntl
for name, request in {'TIOCSTI': 0x5412, 'TIOCLINUX': 0x541c, 'TIOCSCTTY': 0x540e, 'TIOCCONS': 0x541d, 'TIOCSETD': 0x5423, 'FIBMAP': 1, 'FS_IOC_SETFLAGS': 0x40086602,
                      'SIOCSIFFLAGS': 0x8914, 'SIOCSIFADDR': 0x8916, 'SIOCADDRT': 0x890b, 'SIOCETHTOOL': 0x8946, 'TUNSETIFF': 0x400454ca}.items():
    with socket.socket() as s: attempt(name, lambda: fcntl.ioctl(s, request, b"\\0" * 64))
''', reasons=('EPERM',))


@attack('devices', 'device files: those that should not be there, and those of the host', 'not there, or refused', 'a /dev of its own; device cgroup')
def _(suite):
    return suite.refused('''
for name in ('mem', 'kmem', 'port', 'kmsg', 'fuse', 'kvm', 'net/tun', 'vhost-net', 'loop0', 'loop-control', 'sda', 'vda', 'nvme0n1', 'hpet', 'rtc0', 'uinput', 'mapper/control',
             'cpu/0/msr', 'dri/card0', 'snapshot', 'userfaultfd', 'udmabuf', 'dma_heap/system', 'mcelog', 'watchdog', 'autofs', 'btrfs-control'):
    attempt(name, lambda: open('/dev/' + name, 'rb').close() or open('/dev/' + name, 'rb'))
for name in ('null', 'zero', 'full', 'random', 'urandom', 'tty'):
    attempt('chmod ' + name, lambda: os.chmod('/dev/' + name, 0o777))
    attempt('remove ' + name, lambda: os.unlink('/dev/' + name))
''')


@attack('proc-secrets', 'kernel memory, keys, timers, symbols in /proc', 'not there, empty or refused', 'masked paths; no capabilities; user namespace')
def _(suite):
    return suite.refused('''
def has_bytes(path):
    data = read(path, 64)
    if not data.strip(b"\\0\\n "): raise OSError(errno.ENODATA, path)
    return data
for name in ('kcore', 'keys', 'kmsg', 'timer_list', 'sched_debug', 'kpagecount', 'kpageflags', 'kpagecgroup', 'slabinfo', 'vmallocinfo', 'pagetypeinfo', 'acpi/wakeup',
             'scsi/scsi', 'latency_stats', 'timer_stats', 'iomem_', 'sysrq-trigger', 'asound/cards', 'interrupts_'):
    attempt(name, lambda: has_bytes('/proc/' + name))
def symbols():
    found = [line for line in open('/proc/kallsyms').read().split('\\n') if line and not line.startswith('0' * 16)]
    if not found: raise OSError(errno.ENODATA, '')
    return found[:1]
attempt('kallsyms', symbols)
def pages():
    with open('/proc/self/pagemap', 'rb') as file:
        file.seek(id(file) // 4096 * 8)
        frame = struct.unpack('Q', file.read(8))[0] & ((1 << 55) - 1)
    if not frame: raise OSError(errno.ENODATA, '')
    return frame
attempt('page frames', pages)
''')


def has_capability(number):
    """Whether this process, and so the worker, has it."""
    with open('/proc/self/status', encoding='utf-8') as file:
        return any(line.startswith('CapEff') and int(line.split()[1], 16) >> number & 1 for line in file)


CAP_SYS_RESOURCE = 24


@attack('proc-writes', 'writes to kernel settings and to limits of one\'s own in /proc', 'refused', 'read-only paths; no capabilities; user namespace')
def _(suite):
    return suite.refused('''
for path in ('sysrq-trigger', 'sys/kernel/core_pattern', 'sys/kernel/modprobe', 'sys/kernel/hostname', 'sys/kernel/domainname', 'sys/vm/overcommit_memory', 'sys/vm/drop_caches',
             'sys/kernel/randomize_va_space', 'sys/kernel/unprivileged_bpf_disabled', 'sys/fs/binfmt_misc/register', 'sys/net/ipv4/ip_forward', 'sys/net/ipv4/ping_group_range',
             'sys/net/ipv4/conf/all/rp_filter', 'sys/net/ipv4/ip_unprivileged_port_start', 'sys/user/max_user_namespaces', 'sys/kernel/ns_last_pid', 'self/setgroups', 'self/uid_map',
             'self/gid_map', 'irq/default_smp_affinity', 'bus/pci/devices', '1/oom_score_adj', '1/comm', '1/mem', '1/attr/current', '1/timerslack_ns',
             '1/coredump_filter', '1/autogroup', '1/clear_refs'):
    attempt(path, lambda: write('/proc/' + path, '1'))
for score in ('-1000', '-1', '0'):
    attempt('self/oom_score_adj ' + score, lambda: write('/proc/self/oom_score_adj', score))
''', allowed=() if has_capability(CAP_SYS_RESOURCE) else ('self/oom_score_adj 0',))  # without it nobody can set the bound


@attack('sys-and-cgroups', '/sys, debugfs, tracefs, cgroup files', 'not there', 'they are not mounted; nothing may be mounted')
def _(suite):
    return suite.refused('''
for path in ('/sys/kernel', '/sys/class', '/sys/fs/cgroup', '/sys/kernel/debug', '/sys/kernel/tracing', '/sys/kernel/security', '/sys/firmware', '/sys/devices', '/proc/bus'):
    def entries():
        found = os.listdir(path)
        if not found: raise OSError(errno.ENODATA, path)
        return found[:3]
    attempt(path, entries)
for root, _, files in os.walk('/'):
    if root.startswith('/proc'): continue
    for name in files:
        if name in ('cgroup.procs', 'release_agent', 'notify_on_release', 'memory.max', 'memory.limit_in_bytes', 'tasks'):
            attempt(root + '/' + name, lambda: open(root + '/' + name))
''')


@attack('setuid-programs', 'every setuid and setgid program of the image, and one made in /tmp', 'run without more rights', 'no_new_privs; nosuid mounts')
def _(suite):
    suite.deploy(python='''
import shutil, subprocess
found, uids = [], set()
for root, folders, files in os.walk('/'):
    folders[:] = [f for f in folders if os.path.join(root, f) not in ('/proc', '/sys', '/dev')]
    for name in files:
        try: mode = os.lstat(os.path.join(root, name)).st_mode
        except OSError: continue
        if stat.S_ISREG(mode) and mode & 0o6000: found.append(os.path.join(root, name))
path = '/tmp/own'
shutil.copy(sys.executable, path)
os.chmod(path, 0o6755)
for program in (path, sys.executable):
    out = subprocess.run([program, '-c', 'import os; print(os.getresuid(), os.getresgid())'], capture_output=True, text=True)
    uids.add(out.stdout.strip() or out.stderr[-100:])
status = dict(line.split(':\\t', 1) for line in open('/proc/self/status').read().split('\\n') if ':\\t' in line)
print(json.dumps([found, sorted(uids), status['NoNewPrivs'], status['CapBnd']]))
''', memory_mb=256)
    found, uids, no_new_privs, capabilities = suite.result()
    assert all('(1000, 1000, 1000)' in uid and '(0' not in uid for uid in uids), uids
    assert no_new_privs == '1' and int(capabilities, 16) == 0
    return f'{len(found)} in the image; {uids}'


@attack('runc-overwrite', 'the OCI runtime\'s program through /proc/PID/exe (CVE-2019-5736)', 'cannot be opened for writing; unchanged',
        'other uids in the user namespace; the runtime runs from a sealed copy')
def _(suite):
    suite.deploy(native='exe_overwrite')
    seen = suite.result()
    assert seen['opened'] == 0, seen
    return f'{seen["tries"]} tries'


@attack('runc-as-program', 'the function\'s program is /proc/self/exe, so that starting it starts the starter', 'an error, or nothing', 'user namespace; the starter is faas-init')
def _(suite):
    seen = []
    for source in ('#!/proc/self/exe\n', '#!/proc/1/exe\n', '#!/.faas/init\n'):
        suite.deploy(runtime='native', code=__import__('faas_platform').archive({'bootstrap': source}), timeout_ms=2000)
        seen.append(suite.expect(suite.invoke(), 'failed', 'succeeded', 'timed_out'))
    return ', '.join(seen)


@attack('leaked-descriptors', 'descriptors that the OCI runtime or the worker left open, and ways out through them (CVE-2024-21626)', 'its own only',
        'close-on-exec everywhere; a working directory that is checked')
def _(suite):
    suite.deploy(python='''
def inode(path):
    s = os.stat(path)
    return (s.st_dev, s.st_ino)
out = {}
for pid in [p for p in os.listdir('/proc') if p.isdigit()]:
    try: names = os.listdir(f'/proc/{pid}/fd')
    except OSError: continue
    for n in names:
        try: target = os.readlink(f'/proc/{pid}/fd/{n}')
        except OSError: continue
        if not target.startswith(('pipe:', 'socket:', '/dev/', 'anon_inode:', '/memfd:', '/run/faas/', '/app/function', '/proc/')): out[f'{pid}/{n}'] = target
ways = []
for n in range(3, 1024):
    for up in ('', '/..', '/../../../../../../..'):
        try:
            if inode(f'/proc/self/fd/{n}{up}') != inode('/') and os.path.isdir(f'/proc/self/fd/{n}{up}'): ways.append(f'{n}{up}')
        except OSError: pass
print(json.dumps([out, ways, os.getcwd()]))
''')
    out, ways, folder = suite.result()
    assert not out and not ways and folder == '/app/function', (out, ways, folder)
    return 'none'
