#!/usr/bin/env python3
"""The hostile suite: functions that attack, bystanders that must not notice, and a table of what came of it.

    run.py [GROUP...]    attacks of these groups, or all; as root
    run.py --once …      each attack once, with fewer calls of the bystanders: results are checked, latencies are rough
    run.py --list        names and groups
    run.py --markdown F  writes the table into the page F (docs/security.md), between its two marks

FAAS_BIN: folder of the programs; FAAS_HOSTILE_BIN: of the attacks that are compiled; HOSTILE_ATTACK: run those
whose name has one of these words, separated by commas, in it."""
import contextlib
import importlib
import os
import subprocess
import sys
import time

import world as worlds
from bystanders import Bystanders, slowdown
from hostile import ATTACKS, Suite

GROUPS = ('limits', 'kernel', 'instance', 'secrets', 'network', 'archives')
ROUNDS_MAX = 10000  # what is refused at once takes a millisecond
SETTINGS = {
    'WORKER_DNS': worlds.DNS,
    'WORKER_NETWORK_DENY': '192.168.77.0/24',
    'WORKER_KEEP_ALIVE_MS': '60000',
    'WORKER_START_TIMEOUT_MS': str(int(30000 * worlds.PATIENCE)),
    'CONTROLLER_QUEUE_WAIT_MS': str(min(900000, int(30000 * worlds.PATIENCE))),
    'LOG_LEVEL': 'warn',
}


def load(groups):
    for name in groups:
        importlib.import_module('attacks_' + name)
    return ATTACKS


# ---- the host ----

def file_mark(path):
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return (status.st_mode, status.st_uid, status.st_size, status.st_mtime_ns, status.st_ino)


def host_mark(platform):
    """What must be the same after each attack: programs, kernel settings, images, and that the platform's processes live."""
    mark = {}
    for path in ('/usr/sbin/runc', '/usr/bin/runc', os.path.join(os.environ.get('FAAS_BIN', ''), 'faas-worker'), '/etc/passwd', '/etc/shadow', '/bin/sh'):
        mark[path] = file_mark(os.path.realpath(path))
    for path in ('/proc/sys/kernel/core_pattern', '/proc/sys/kernel/modprobe', '/proc/sys/kernel/hostname', '/proc/sys/kernel/sysrq',
                 '/proc/sys/kernel/randomize_va_space', '/proc/sys/vm/overcommit_memory'):
        with contextlib.suppress(FileNotFoundError), open(path, encoding='utf-8') as file:
            mark[path] = file.read()
    mark['processes'] = platform.pids()
    return mark


def images_mark():
    """Every file of the image store, by its metadata. Others may import and remove images meanwhile; what is there stays as it was."""
    store = os.environ.get('WORKER_IMAGE_DIR', '/var/lib/faas/images')
    facts = 3 if os.environ.get('FAAS_TEST_SHARED_HOST') else 4  # with others about, an image may be imported again: all but the time
    return {os.path.join(root, name): (file_mark(os.path.join(root, name)) or ())[:facts]
            for part in ('blobs', 'chains') for root, _, files in os.walk(os.path.join(store, part)) for name in files}


def images_changed(before):
    after = images_mark()
    return [path for path, mark in before.items() if after.get(path, mark) != mark]


def network_state():
    """Everything of the network that this process sees, which is the suite's own machine."""
    def lines(*command):
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    links = {'link ' + line.split(': ')[1].split('@')[0] for line in lines('ip', '-o', 'link')}
    return links | {'route ' + line.strip() for line in lines('ip', 'route')} | {'nft ' + line.strip() for line in lines('nft', 'list', 'ruleset')}


# ---- the table ----

class Row:
    def __init__(self, attack, seen, verdict, seconds, slowdown):
        self.attack, self.seen, self.verdict, self.seconds, self.slowdown = attack, seen, verdict, seconds, slowdown


def print_row(row, file=sys.stdout):
    slow = '' if row.slowdown is None else f'{row.slowdown:4.1f} x'
    print(f'{row.verdict:9} {row.attack.name:28} {row.seconds:5.1f} s {slow:>7}  {row.attack.must[:52]:52}  {row.seen[:110]}', file=file, flush=True)


def try_attack(suite, attack):
    """(what was seen, verdict)"""
    suite.world.clear()
    try:
        return attack.action(suite) or '', 'contained'
    except AssertionError as error:
        return str(error), 'NOT HELD'
    except Exception as error:  # pylint: disable=broad-except
        return f'{type(error).__name__}: {error}', 'BROKEN'
    finally:
        suite.clean()


def run_attack(suite, attack, bystanders, rounds):
    """Tried again, at most so often, until the bystanders were called often enough for a figure: (what was seen, verdict, times of the bystanders)."""
    suite.attack = attack
    bystanders.take_times()
    for _ in range(rounds):
        seen, verdict = try_attack(suite, attack)
        if verdict != 'contained' or bystanders.enough():
            break
    return seen, verdict, bystanders.take_times()


def judge(suite, bystanders, before, seen, verdict):
    """The verdict, once bystanders and host have had their say."""
    wrong = bystanders.take_wrong()
    if wrong:
        seen, verdict = f'bystander: {wrong[:2]}; {seen}', 'NOT HELD'
    after = host_mark(suite.platform)
    if after != before:
        seen, verdict = f'host changed: {[key for key in before if before[key] != after[key]]}; {seen}', 'NOT HELD'
    return seen, verdict


def run_all(attacks, platform, world, once):
    suite, bystanders = Suite(platform, world), Bystanders(platform, once)
    quiet, before, rows = bystanders.quiet(), host_mark(platform), []
    assert not bystanders.take_wrong(), 'a bystander was wrong before any attack'
    for attack in attacks:
        start = time.monotonic()
        seen, verdict, attacked = run_attack(suite, attack, bystanders, 1 if once else ROUNDS_MAX)
        seconds = time.monotonic() - start
        quiet_again = bystanders.quiet()
        seen, verdict = judge(suite, bystanders, before, seen, verdict)
        rows.append(Row(attack, ' '.join(seen.split()), verdict, seconds, slowdown(attacked, [a + b for a, b in zip(quiet, quiet_again)])))
        quiet = quiet_again
        print_row(rows[-1])
        if platform.process.poll() is not None:
            raise AssertionError('faas up has ended; its log:\n' + platform.log_tail())
    bystanders.stop()
    return rows


def print_slowdowns(rows):
    known = sorted((row for row in rows if row.slowdown), key=lambda row: row.slowdown)
    if known:
        print(f'\nbystanders\' median latency, attacked to quiet: within 2 x in {sum(row.slowdown <= 2 for row in known)} of {len(known)} attacks, '
              f'{known[len(known) // 2].slowdown:.1f} x in the middle; most: ' + ', '.join(f'{row.attack.name} {row.slowdown:.1f} x' for row in known[:-6:-1]))


def finish(rows, seconds):
    held = [row for row in rows if row.verdict == 'contained']
    print_slowdowns(rows)
    for row in rows:
        if row.verdict != 'contained':
            print(f'\n{row.verdict}: {row.attack.name}: {row.attack.what}; must: {row.attack.must}\n  seen: {row.seen}')
    print(f'\n{len(held)} of {len(rows)} attacks contained, in {seconds:.0f} s')
    return len(held) == len(rows)


def main(groups, once):
    from faas_platform import Platform  # its look at the host must be the one from inside
    words = os.environ.get('HOSTILE_ATTACK', '').split(',')
    attacks = [attack for attack in load(groups) if any(word in attack.name for word in words)]
    start = time.monotonic()
    images = images_mark()
    world = worlds.World()
    platform = Platform(SETTINGS)
    network = network_state()
    good = False
    try:
        platform.start()
        print(f'{"verdict":9} {"attack":28} {"time":>7} {"bystand":>7}  {"must":52}  seen')
        rows = run_all(attacks, platform, world, once)
        status = platform.stop()
        good = finish(rows, time.monotonic() - start)
        left = platform.leftovers()
        if status != 0 or left:
            good = False
            print(f'faas up ended with status {status}; left behind: {left}\n{platform.log_tail()}')
        if network_state() != network:
            good = False
            print(f'the network has changed: {sorted(network_state() ^ network)}')
        changed = images_changed(images)
        if changed:
            good = False
            print(f'the image store has changed: {changed[:5]}')
        if good:
            print('the host is as before: processes, mounts, cgroups, interfaces, packet filter rules, programs, kernel settings, images')
    finally:
        platform.kill()
        if not good:
            print(platform.log_tail(3000))
        platform.cleanup()
        world.close()
    return good


def markdown(attacks, page):
    begin, end = '<!-- attacks: made by ./build.sh docs from the suite -->\n', '<!-- attacks: end -->\n'
    rows = ['| attack | what is tried | what must come of it | what holds it | test |\n|---|---|---|---|---|\n']
    rows += [f'| `{attack.name}` | {attack.what} | {attack.must} | {attack.held_by} | `hostile/{attack.group}` |\n' for attack in attacks]
    with open(page, encoding='utf-8') as file:
        text = file.read()
    before, rest = text.split(begin)
    with open(page, 'w', encoding='utf-8') as file:
        file.write(before + begin + ''.join(rows) + end + rest.split(end)[1])


if __name__ == '__main__':
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    if sys.argv[1:2] == ['--markdown']:
        markdown(load(GROUPS), sys.argv[2])
        sys.exit(0)
    words = [word for word in sys.argv[1:] if not word.startswith('-')]
    if '--help' in sys.argv:
        print(__doc__)
        sys.exit(0)
    if set(sys.argv[1:]) - set(words) - {'--once', '--list'}:
        sys.exit(__doc__)
    if any(word not in GROUPS for word in words):
        sys.exit(f'groups are {", ".join(GROUPS)}')
    if '--list' in sys.argv:
        for one in load(GROUPS):
            print(f'{one.group:10} {one.name:28} {one.what}')
        sys.exit(0)
    if os.geteuid() != 0:
        print('needs root')
        sys.exit(77)
    worlds.enter()
    sys.exit(0 if main(words or GROUPS, '--once' in sys.argv) else 1)
