#!/usr/bin/python3
"""Runs libFuzzer targets, several at a time, each for so many seconds, and sums up in a table.

A target that finds something ends there, the others go on. What it found is below DIR/crashes, new inputs are below DIR/corpus, where the
next run takes them up, and the output of each is in LOGS. Exit status: 0 unless something was found.
"""
import argparse
import collections
import os
import re
import select
import signal
import subprocess
import sys
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# With more jobs than processors a target's seconds say little: `CPU s` is what it computed. `last new` is the second of the last input
# that reached something new: when that is long ago, more time is unlikely to find more.
COLUMNS = ('target', 'seconds', 'CPU s', 'executions', 'a CPU s', 'new units', 'last new', 'corpus', 'peak MB', 'found')
# For one input, on a processor of its own.
INPUT_S = 10
# Beyond its time a target may still finish the input that it is at.
GRACE_S = 60


class Target:
    def __init__(self, name, options):
        self.name = name
        self.corpus = os.path.join(options.dir, 'corpus', name)
        self.crashes = os.path.join(options.dir, 'crashes')
        self.log = os.path.join(options.logs, f'fuzz-{name}.log')
        self.program = os.path.join(options.dir, 'bin', f'fuzz_{name}')
        self.before = set(self.artifacts())
        self.process = self.started = self.started_at = self.ended = None
        self.cpu_s = 0.0
        self.found = []
        # libFuzzer looks at the clock: where targets share processors, an input takes as many times longer.
        self.input_s = INPUT_S * max(1, round(options.jobs / os.cpu_count()))

    def artifacts(self):
        pattern = re.compile(re.escape(self.name) + r'-(crash|leak|timeout|oom)-[0-9a-f]+$')
        return [name for name in os.listdir(self.crashes) if pattern.match(name)] if os.path.isdir(self.crashes) else []

    def start(self, seconds):
        os.makedirs(self.corpus, exist_ok=True)
        os.makedirs(self.crashes, exist_ok=True)
        with open(self.log, 'wb') as log:
            self.process = subprocess.Popen(
                [self.program, f'-max_total_time={seconds}', f'-timeout={self.input_s}', '-rss_limit_mb=2048', '-print_final_stats=1',
                 f'-artifact_prefix={self.crashes}/{self.name}-', self.corpus, os.path.join(TOP, 'tests', 'fuzz', 'corpus', self.name)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        self.started, self.started_at = time.monotonic(), time.time()

    def end(self):
        """Waits for its process."""
        _, status, usage = os.wait4(self.process.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        self.cpu_s = usage.ru_utime + usage.ru_stime
        self.ended = time.monotonic()
        new = sorted(set(self.artifacts()) - self.before)
        self.found = new or ([f'ended with status {self.process.returncode}'] if self.process.returncode else [])

    def numbers(self):
        with open(self.log, encoding='utf-8', errors='replace') as log:
            found = dict(re.findall(r'^stat::(\w+):\s+(\d+)', log.read(), re.M))
        return collections.defaultdict(int, {name: int(number) for name, number in found.items()})

    def last_new(self):
        """Seconds after the start, '-' without any: libFuzzer writes such an input to the corpus at once."""
        last = max((entry.stat().st_mtime for entry in os.scandir(self.corpus)), default=0)
        return f'{last - self.started_at:.0f}' if last >= self.started_at else '-'

    def row(self):
        numbers = self.numbers()
        executions = numbers['number_of_executed_units']
        seconds = self.ended - self.started
        kinds = collections.Counter(name[len(self.name) + 1:].split('-')[0] if name.startswith(self.name) else name for name in self.found)
        return (self.name, f'{seconds:.0f}', f'{self.cpu_s:.0f}', str(executions), f'{executions / max(self.cpu_s, 1):.0f}',
                str(numbers['new_units_added']), self.last_new(), str(len(os.listdir(self.corpus))), str(numbers['peak_rss_mb']),
                ', '.join(f'{count} {kind}' if kind in ('crash', 'leak', 'timeout', 'oom') else kind for kind, count in kinds.items()) or '-')


def show_table(rows):
    widths = [max(len(row[i]) for row in (COLUMNS, *rows)) for i in range(len(COLUMNS))]
    for row in (COLUMNS, *rows):
        cells = [cell.ljust(width) if i in (0, len(COLUMNS) - 1) else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths))]
        print('  '.join(cells).rstrip())


def watch(running, seconds):
    """Waits until one of `running` has ended, or is over its time by far."""
    pidfds = {os.pidfd_open(target.process.pid): target for target in running}
    poll = select.poll()
    for descriptor in pidfds:
        poll.register(descriptor, select.POLLIN)
    last = max(0.0, min(target.started for target in running) + seconds + GRACE_S - time.monotonic())
    ready = [pidfds[descriptor] for descriptor, _ in poll.poll(last * 1000)]
    for descriptor in pidfds:
        os.close(descriptor)
    late = [target for target in running if time.monotonic() - target.started >= seconds + GRACE_S]
    for target in late:
        target.process.kill()
    return list({id(target): target for target in ready + late}.values())


def run(targets, seconds, jobs):
    waiting, running = list(targets), []
    while waiting or running:
        while waiting and len(running) < jobs:
            running.append(waiting.pop(0))
            running[-1].start(seconds)
        for target in watch(running, seconds):
            target.end()
            running.remove(target)
            print(f'{target.name}: {", ".join(target.found) or "nothing found"}', flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n', maxsplit=1)[0])
    parser.add_argument('--dir', required=True, help='the build folder of the preset fuzz')
    parser.add_argument('--logs', required=True)
    parser.add_argument('--seconds', type=int, required=True)
    parser.add_argument('--jobs', type=int, default=1)
    parser.add_argument('targets', nargs='+')
    options = parser.parse_args()
    os.makedirs(options.logs, exist_ok=True)
    targets = [Target(name, options) for name in options.targets]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        run(targets, options.seconds, options.jobs)
    finally:
        # libFuzzer answers SIGTERM with its figures, so what was interrupted has a true row, too.
        interrupted = [target for target in targets if target.process and not target.ended]
        for target in interrupted:
            target.process.terminate()
        for target in interrupted:
            target.end()
        show_table([target.row() for target in targets if target.process])
    found = [(target, name) for target in targets for name in target.found]
    for target, name in found:
        again = f'; again with: {target.program} {os.path.join(target.crashes, name)}' if name.startswith(f'{target.name}-') else ''
        print(f'{target.name}: {name}, see {target.log}{again}')
    return 1 if found else 0


if __name__ == '__main__':
    sys.exit(main())
