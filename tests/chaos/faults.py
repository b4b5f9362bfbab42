"""What is done to the cluster: each fault is a function of (cluster, random) that returns what it did and a function that heals it."""
import contextlib
import os
import signal
import subprocess
import time
from random import Random

from cluster import HUB_ADDRESS, POSTGRES_PORT, run


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


def instances(cluster, program, random):
    """faas-init of about half of a worker's instances, as seen from outside. `random` is one of its own: how many there are must not
    change what comes later."""
    marker, found = f'faas-{cluster.name}-{program.index}/', []
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            with open(f'/proc/{pid}/cgroup', encoding='ascii') as file:
                mine = marker in file.read()
            with open(f'/proc/{pid}/cmdline', 'rb') as file:
                init = file.read().startswith(b'/.faas/init')
        except OSError:
            continue
        if mine and init and random.random() < 0.5:
            found.append(int(pid))
    return found


def send(pids, number):
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def kill_instances(cluster, random):
    program = random.choice(cluster.workers)
    pids = instances(cluster, program, Random(random.random()))
    send(pids, signal.SIGKILL)
    return f'kill -9 of {len(pids)} faas-init of {program.name}', None


def pause_instances(cluster, random):
    program = random.choice(cluster.workers)
    pids = instances(cluster, program, Random(random.random()))
    send(pids, signal.SIGSTOP)
    return f'SIGSTOP of {len(pids)} faas-init of {program.name}', lambda: send(pids, signal.SIGCONT)


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


def filter_packets(namespace, rules):
    """A packet filter in a namespace: of what it takes nobody is told, so connections stay half open. `rules` are (hook, rule)."""
    text = ''.join(f'add chain inet chaos {hook} {{ type filter hook {hook} priority 0; }}\nadd rule inet chaos {hook} {rule}\n' for hook, rule in rules)
    subprocess.run(['nsenter', f'--net=/run/netns/{namespace}', 'nft', '-f', '-'], input=f'add table inet chaos\n{text}', text=True, check=True)

    def heal():
        run('nsenter', f'--net=/run/netns/{namespace}', 'nft', 'delete', 'table', 'inet', 'chaos', check=False)
    return heal


def filter_link(program, verdict):
    """Between a worker and the controllers, both ways."""
    return filter_packets(program.namespace, [('output', f'ip daddr {HUB_ADDRESS} {verdict}'), ('input', f'ip saddr {HUB_ADDRESS} {verdict}')])


def cut_link(cluster, random):
    program = random.choice(cluster.workers)
    return f'{program.name} is cut off', filter_link(program, 'drop')


def cut_one_way(cluster, random):
    """What the worker says is not heard, but it hears."""
    program = random.choice(cluster.workers)
    return f'{program.name} is not heard', filter_link(program, 'ct direction original drop')


def lossy_link(cluster, random):
    """Losses make the kernel send again: what arrives comes late, doubled and out of order."""
    program = random.choice(cluster.workers)
    percent = random.choice((10, 30, 60))
    return f'the link of {program.name} loses {percent} % of its packets', filter_link(program, f'numgen random mod 100 < {percent} drop')


def reset_connections(cluster, random):
    """Every connection between the worker and the controllers is torn down at once."""
    program = random.choice(cluster.workers)
    return f'connections of {program.name} are reset', filter_link(program, 'ip protocol tcp reject with tcp reset')


def delay_link(cluster, random):
    """What the worker says waits in a long queue before a slow link."""
    program = random.choice(cluster.workers)
    rate = random.choice((32, 128, 512))
    at = ('ip', 'netns', 'exec', program.namespace, 'tc', 'qdisc')
    run(*at, 'add', 'dev', program.link, 'root', 'tbf', 'rate', f'{rate}kbit', 'burst', '4kb', 'latency', '3s')
    return f'the link of {program.name} is slow: {rate} kbit/s', lambda: run(*at, 'del', 'dev', program.link, 'root', check=False)


def cut_clients(cluster, random):
    """What clients and one controller say to each other is not heard."""
    program = random.choice(cluster.controllers)
    rules = [('output', f'oifname lo tcp {side} {program.port} drop') for side in ('dport', 'sport')]
    return f'clients are cut off from {program.name}', filter_packets(cluster.hub, rules)


def repeat_messages(cluster, random):
    return relay_fault(cluster, random, 'twice', 'says messages twice')


def reorder_messages(cluster, random):
    return relay_fault(cluster, random, 'swap', 'says messages in another order')


def relay_fault(cluster, random, what, text):
    relay, percent = random.choice(cluster.relays), random.choice((10, 50))
    with open(relay.fault, 'w', encoding='ascii') as file:
        file.write(f'{what} {percent}\n')
    return f'{relay.name} {text}, {percent} %', lambda: os.unlink(relay.fault)


def jump_clock(cluster, random):
    """Forwards or backwards; healing sets it right again, which is a jump too."""
    program = random.choice(cluster.controllers + cluster.workers)
    offset = random.choice((-3600, -30, -2, 2, 30, 3600))
    if not program.clock:
        return 'no clock to set', None
    program.set_clock(offset)
    return f'the clock of {program.name} jumps by {offset} s', lambda: program.set_clock(0)


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


def pause_postgres(cluster, random):
    return 'SIGSTOP of PostgreSQL', cluster.postgres.pause()


def cut_database(cluster, random):
    """One controller from PostgreSQL; the connections stay half open."""
    program = random.choice(cluster.controllers)
    rules = [('output', f'oifname lo ip {side} {program.database_address} tcp {port} {POSTGRES_PORT} drop') for side, port in (('daddr', 'dport'), ('saddr', 'sport'))]
    return f'{program.name} is cut off from PostgreSQL', filter_packets(cluster.hub, rules)


def reset_database(cluster, random):
    """Every connection to PostgreSQL is ended by its end."""
    cluster.postgres.psql('SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()', check=False)
    return "PostgreSQL's connections are ended", None


COMMON = [kill_controller, kill_worker, kill_everything, restart_worker, restart_controller, pause, pause, kill_instances, pause_instances, oci_runtime, oci_runtime,
          cut_link, cut_one_way, lossy_link, delay_link, reset_connections, cut_clients, repeat_messages, reorder_messages, jump_clock, jump_clock, fill_disk]
POSTGRES = [kill_postgres, pause_postgres, cut_database, reset_database]


def chosen(cluster, names):
    """Those of these names; without names all that this cluster can have."""
    faults = COMMON + (POSTGRES if cluster.postgres else [])
    return [fault for fault in faults if not names or fault.__name__ in names]


def inject(cluster, faults, random, seconds, report):
    """One fault for up to `seconds`, then its healing; returns the fault's name."""
    fault = random.choice(faults)
    what, heal = fault(cluster, random)
    report(what)
    until = time.monotonic() + random.uniform(0.2, seconds)
    while time.monotonic() < until:
        cluster.keep_alive()
        time.sleep(0.1)
    if heal:
        heal()
    cluster.keep_alive()
    return fault.__name__
