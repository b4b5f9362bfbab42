#!/usr/bin/env python3
"""The hostile suite: functions that attack, bystanders that must not notice, and a table of what came of it.

    run.py [GROUP...]    attacks of these groups, or all; as root
    run.py --list        names and groups
    run.py --markdown F  writes the table into the page F (docs/security.md), between its two marks

FAAS_BIN: folder of the programs; FAAS_HOSTILE_BIN: of the attacks that are compiled; HOSTILE_ATTACK: run those whose name has this in it."""
import contextlib
import importlib
import os
import subprocess
import sys
import time

import world as worlds
from hostile import ATTACKS, Bystander, Suite, median_ms

GROUPS = ('limits', 'kernel', 'instance', 'secrets', 'network', 'archives')
BASELINE_CALLS = 60
SAMPLES_MIN = 10  # of a bystander, for a figure of its latency
SETTINGS = {
    'WORKER_DNS': worlds.DNS,
    'WORKER_NETWORK_DENY': '192.168.77.0/24',
    'WORKER_KEEP_ALIVE_MS': '60000',
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


def run_attack(suite, attack, bystanders, quiet_ms, before):
    suite.attack = attack
    suite.world.clear()
    for bystander in bystanders:
        bystander.take_times()
    start = time.monotonic()
    try:
        seen, verdict = attack.action(suite) or '', 'contained'
    except AssertionError as error:
        seen, verdict = str(error), 'NOT HELD'
    except Exception as error:  # pylint: disable=broad-except
        seen, verdict = f'{type(error).__name__}: {error}', 'BROKEN'
    seconds = time.monotonic() - start
    suite.clean()
    for bystander in bystanders:
        if bystander.wrong:
            seen, verdict = f'bystander: {bystander.wrong[:2]}; {seen}', 'NOT HELD'
            bystander.wrong = []
    after = host_mark(suite.platform)
    if after != before:
        seen, verdict = f'host changed: {[key for key in before if before[key] != after[key]]}; {seen}', 'NOT HELD'
    samples = [(bystander.take_times(), quiet) for bystander, quiet in zip(bystanders, quiet_ms)]
    ratios = [median_ms(times) / quiet for times, quiet in samples if len(times) >= SAMPLES_MIN]
    return Row(attack, ' '.join(seen.split()), verdict, seconds, max(ratios) if ratios else None)


def baseline(bystanders):
    """Median of the bystanders' calls while nobody attacks."""
    while min(len(bystander.times) for bystander in bystanders) < BASELINE_CALLS:
        time.sleep(0.05)
        for bystander in bystanders:
            if bystander.wrong:
                raise AssertionError(f'bystander before any attack: {bystander.wrong[:1]}')
    return [median_ms(bystander.take_times()[5:]) for bystander in bystanders]


def run_all(attacks, platform, world):
    suite = Suite(platform, world)
    bystanders = [Bystander(platform, 'process'), Bystander(platform, 'handler')]
    for bystander in bystanders:
        bystander.call(0)
        bystander.start()
    quiet_ms = baseline(bystanders)
    before = host_mark(platform)
    rows = []
    for attack in attacks:
        rows.append(run_attack(suite, attack, bystanders, quiet_ms, before))
        print_row(rows[-1])
        if platform.process.poll() is not None:
            raise AssertionError('faas up has ended; its log:\n' + platform.log_tail())
    for bystander in bystanders:
        bystander.ended.set()
        bystander.join()
    print('\nbystanders: ' + ', '.join(f'{bystander.contract} {quiet:.1f} ms while quiet' for bystander, quiet in zip(bystanders, quiet_ms)))
    return rows


def finish(rows, seconds):
    held = [row for row in rows if row.verdict == 'contained']
    slow = sorted((row for row in rows if row.slowdown), key=lambda row: -row.slowdown)[:5]
    if slow:
        middle = sorted(row.slowdown for row in rows if row.slowdown)
        print(f'median latency of bystanders while attacked: {middle[len(middle) // 2]:.1f} x the quiet one in the middle, most: '
              + ', '.join(f'{row.attack.name} {row.slowdown:.1f} x' for row in slow))
    for row in rows:
        if row.verdict != 'contained':
            print(f'\n{row.verdict}: {row.attack.name}: {row.attack.what}; must: {row.attack.must}\n  seen: {row.seen}')
    print(f'\n{len(held)} of {len(rows)} attacks contained, in {seconds:.0f} s')
    return len(held) == len(rows)


def main(groups):
    from faas_platform import Platform  # its look at the host must be the one from inside
    attacks = [attack for attack in load(groups) if os.environ.get('HOSTILE_ATTACK', '') in attack.name]
    start = time.monotonic()
    images = images_mark()
    world = worlds.World()
    platform = Platform(SETTINGS)
    network = network_state()
    good = False
    try:
        platform.start()
        print(f'{"verdict":9} {"attack":28} {"time":>7} {"bystand":>7}  {"must":52}  seen')
        rows = run_all(attacks, platform, world)
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
    sys.exit(0 if main(words or GROUPS) else 1)
