"""What is done to the cluster: each fault is a function of (cluster, random) that returns what it did and a function that heals it."""
import os
import signal
import subprocess
import time
from random import Random

from cluster import run


def kill_controller(cluster, random):
    program = random.choice(cluster.controllers)
    program.signal(signal.SIGKILL)
    return f'kill -9 {program.name}', None


def kill_worker(cluster, random):
    program = random.choice(cluster.workers)
    program.signal(signal.SIGKILL)
    return f'kill -9 {program.name}', None


def kill_everything(cluster, random):
    for program in cluster.controllers + cluster.workers:
        program.signal(signal.SIGKILL)
    return 'kill -9 of every program', None


def restart_worker(cluster, random):
    program = random.choice(cluster.workers)
    program.signal(signal.SIGTERM)
    return f'orderly restart of {program.name}', None


def restart_controller(cluster, random):
    program = random.choice(cluster.controllers)
    program.signal(signal.SIGTERM)
    return f'orderly restart of {program.name}', None


def pause(cluster, random):
    program = random.choice(cluster.controllers + cluster.workers)
    program.signal(signal.SIGSTOP)
    return f'SIGSTOP of {program.name}', lambda: program.signal(signal.SIGCONT)


def kill_instances(cluster, random):
    """faas-init of some running instances, from outside."""
    program = random.choice(cluster.workers)
    random = Random(random.random())  # how many there are must not change what comes later
    marker = f'faas-{cluster.name}-{program.index}/'
    killed = 0
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            with open(f'/proc/{pid}/cgroup', encoding='ascii') as file:
                mine = marker in file.read()
            with open(f'/proc/{pid}/cmdline', 'rb') as file:
                init = file.read().startswith(b'/.faas/init')
            if mine and init and random.random() < 0.5:
                os.kill(int(pid), signal.SIGKILL)
                killed += 1
        except OSError:
            continue
    return f'kill -9 of {killed} faas-init of {program.name}', None


def oci_runtime(cluster, random):
    program = random.choice(cluster.workers)
    what, verb = random.choice(('fail', 'hang', 'slow')), random.choice(('run', 'delete'))
    with open(program.wrapper + '.fault', 'w', encoding='ascii') as file:
        file.write(f'{what} {verb}\n')

    def heal():
        os.unlink(program.wrapper + '.fault')
        # What hangs is let go: the worker kills it at its own deadline, which is longer than a test should wait.
        subprocess.run(['pkill', '-KILL', '-f', f'^sleep {cluster.hang}$'], check=False)
    return f'the OCI runtime of {program.name}: {what} {verb}', heal


def filter_packets(program, verdict):
    """A packet filter between the worker and the controllers, both ways, in the worker's own namespace. The kernel drops what it
    takes, so nobody is told: connections stay half open."""
    rules = ''.join(f'add chain inet chaos {hook} {{ type filter hook {hook} priority 0; }}\nadd rule inet chaos {hook} ip {side} 10.211.0.1 {verdict}\n'
                    for hook, side in (('output', 'daddr'), ('input', 'saddr')))
    subprocess.run(['nsenter', f'--net=/run/netns/{program.namespace}', 'nft', '-f', '-'], input=f'add table inet chaos\n{rules}', text=True, check=True)


def heal_link(program):
    run('nsenter', f'--net=/run/netns/{program.namespace}', 'nft', 'delete', 'table', 'inet', 'chaos', check=False)


def cut_link(cluster, random):
    program = random.choice(cluster.workers)
    filter_packets(program, 'drop')
    return f'{program.name} is cut off', lambda: heal_link(program)


def cut_one_way(cluster, random):
    """What the worker says is not heard, but it hears."""
    program = random.choice(cluster.workers)
    filter_packets(program, 'ct direction original drop')
    return f'{program.name} is not heard', lambda: heal_link(program)


def lossy_link(cluster, random):
    """Losses make the kernel send again: what arrives comes late, doubled and out of order."""
    program = random.choice(cluster.workers)
    percent = random.choice((10, 30, 60))
    filter_packets(program, f'numgen random mod 100 < {percent} drop')
    return f'the link of {program.name} loses {percent} % of its packets', lambda: heal_link(program)


def reset_connections(cluster, random):
    """Every connection between the worker and the controllers is torn down at once."""
    program = random.choice(cluster.workers)
    filter_packets(program, 'ip protocol tcp reject with tcp reset')
    return f'connections of {program.name} are reset', lambda: heal_link(program)


def fill_disk(cluster, random):
    path = os.path.join(cluster.folder, 'disk', 'filler')
    with open(path, 'wb') as file:
        try:
            while True:
                file.write(bytes(1 << 20))
        except OSError:
            pass
    return "the controllers' disk is full", lambda: os.unlink(path)


def kill_postgres(cluster, random):
    cluster.postgres.kill()
    return 'kill -9 of PostgreSQL', cluster.postgres.start


COMMON = [kill_controller, kill_worker, kill_everything, restart_worker, restart_controller, pause, pause, kill_instances, oci_runtime, cut_link, cut_link,
          cut_one_way, lossy_link, lossy_link, reset_connections, fill_disk]


def inject(cluster, random, seconds, report):
    """One fault for up to `seconds`, then its healing."""
    faults = COMMON + ([kill_postgres, kill_postgres] if cluster.postgres else [])
    what, heal = random.choice(faults)(cluster, random)
    report(what)
    until = time.monotonic() + random.uniform(0.2, seconds)
    while time.monotonic() < until:
        cluster.keep_alive()
        time.sleep(0.1)
    if heal:
        heal()
    cluster.keep_alive()
