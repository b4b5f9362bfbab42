"""What a process, and what an instance, takes of the machine's memory."""
import os

from measure import Failure

CGROUPS = '/sys/fs/cgroup'


def pss_bytes(pid):
    """Proportional set size: private memory, and of shared memory its share."""
    with open(f'/proc/{pid}/smaps_rollup', encoding='ascii') as file:
        for line in file:
            if line.startswith('Pss:'):
                return int(line.split()[1]) * 1024
    raise Failure(f'no Pss of process {pid}')


def cgroup_folders(instance):
    """An instance's cgroup in every hierarchy."""
    return [root for root, _, _ in os.walk(CGROUPS) if os.path.basename(root) == instance]


def read_number(folder, name):
    try:
        with open(os.path.join(folder, name), encoding='ascii') as file:
            return int(file.read())
    except FileNotFoundError:
        return None


def kernel_bytes(folders):
    """Kernel memory that is charged to the cgroup: page tables, stacks, sockets, inodes."""
    for folder in folders:
        value = read_number(folder, 'memory.kmem.usage_in_bytes')
        if value is not None:
            return value
        if os.path.exists(os.path.join(folder, 'memory.stat')):
            with open(os.path.join(folder, 'memory.stat'), encoding='ascii') as file:
                for line in file:
                    if line.startswith('kernel '):
                        return int(line.split()[1])
    raise Failure(f'no kernel memory of the cgroup {folders}')


def instance_pids(instance):
    """Of all processes of an instance; an instance that has none is a Failure."""
    pids = set()
    for folder in cgroup_folders(instance):
        with open(os.path.join(folder, 'cgroup.procs'), encoding='ascii') as file:
            pids.update(int(pid) for pid in file.read().split())
    if not pids:
        raise Failure(f'no process in the cgroup of instance {instance}')
    return pids


def instance_bytes(instance):
    """PSS of all processes of an instance and the kernel memory of its cgroup."""
    return sum(pss_bytes(pid) for pid in instance_pids(instance)) + kernel_bytes(cgroup_folders(instance))


def platform_bytes(platform):
    """PSS of controller and worker."""
    pids = platform.pids()
    return sum(pss_bytes(pids[name]) for name in ('faas-controller', 'faas-worker'))
