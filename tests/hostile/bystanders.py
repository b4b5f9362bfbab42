"""Functions of other users, called all the time, and what an attack does to them.

Each result is checked. Their latency while nobody attacks is measured anew before and after each attack, so that whatever else the machine
does counts on both sides of the comparison."""
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time

from world import PATIENCE

# Under attack times scatter: the median of 60 calls is off by a tenth one time in three, and the worse of two bystanders is told. Quiet ones hardly do.
QUIET_CALLS = 40
ATTACKED_CALLS = 150
SAMPLES_MIN = 8  # of a bystander, for a figure of its latency
QUIET_TIMEOUT = 120
CALLER = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'bystander_caller.py')


class Bystander:
    """One function and its only caller."""

    CODE = {'process': "import hashlib, json, os\nprint(json.dumps({'sum': hashlib.sha256(os.environ['FUNCTION_PAYLOAD'].encode()).hexdigest()}))",
            'handler': "import hashlib, json\ndef handler(event, context):\n"
                       "    return {'sum': hashlib.sha256(json.dumps(event, separators=(',', ':')).encode()).hexdigest()}"}

    def __init__(self, platform, contract):
        name = 'bystander-' + contract
        self.times, self.wrong, self.rest = [], [], b''
        platform.deploy(name, python=self.CODE[contract], contract=contract, network='none',
                        **({'handler': 'main.handler'} if contract == 'handler' else {}))
        self.caller = subprocess.Popen([sys.executable, '-B', CALLER, platform.url, name, contract], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                       env=dict(os.environ, FAAS_TOKEN=platform.token))
        os.set_blocking(self.caller.stdout.fileno(), False)

    def look(self):
        """Takes what its caller has written. A caller that has ended is a defect of the suite."""
        with contextlib.suppress(BlockingIOError):
            while block := os.read(self.caller.stdout.fileno(), 1 << 16):
                *lines, self.rest = (self.rest + block).split(b'\n')
                for answer in map(json.loads, lines):
                    self.times.append(answer['seconds'])
                    self.wrong += [answer['wrong']] if 'wrong' in answer else []
        if self.caller.poll() is not None:
            raise RuntimeError(f'the caller of a bystander ended with status {self.caller.returncode}')

    def take_times(self):
        self.look()
        times, self.times = self.times, []
        return times

    def take_wrong(self):
        self.look()
        wrong, self.wrong = self.wrong, []
        return wrong

    def stop(self):
        self.caller.stdin.close()
        self.caller.wait()
        self.caller.stdout.close()


class Bystanders:
    """All of them. `once`: fewer calls, for a test that looks at results only."""

    def __init__(self, platform, once):
        self.platform = platform
        self.quiet_calls, self.attacked_calls = (5, 5) if once else (QUIET_CALLS, ATTACKED_CALLS)
        self.all = [Bystander(platform, 'process'), Bystander(platform, 'handler')]

    def take_times(self):
        return [one.take_times() for one in self.all]

    def take_wrong(self):
        """What was not as it must be since the last time."""
        return [answer for one in self.all for answer in one.take_wrong()]

    def calls_so_far(self):
        for one in self.all:
            one.look()
        return min(len(one.times) for one in self.all)

    def enough(self):
        return self.calls_so_far() >= self.attacked_calls

    def quiet(self):
        """Times of each while nobody attacks and the worker has no more to tidy up or to refill."""
        self._worker_is_idle()
        self.take_times()
        deadline = time.monotonic() + QUIET_TIMEOUT
        # The first one may have begun before.
        while self.calls_so_far() <= self.quiet_calls and time.monotonic() < deadline and not any(one.wrong for one in self.all):
            time.sleep(0.02)
        return [times[1:] for times in self.take_times()]

    def _worker_is_idle(self):
        """It runs no helper (OCI runtime, network plugins) in three looks."""
        worker, looks, deadline = self.platform.pids().get('faas-worker'), 0, time.monotonic() + 10 * PATIENCE
        while looks < 3 and time.monotonic() < deadline:
            looks = 0 if helpers_of(worker) else looks + 1
            time.sleep(0.05)

    def stop(self):
        for one in self.all:
            one.stop()


def helpers_of(worker):
    """Children of the worker that are no containers."""
    found = []
    for task in os.listdir(f'/proc/{worker}/task'):
        with contextlib.suppress(OSError), open(f'/proc/{worker}/task/{task}/children', encoding='ascii') as file:
            found += file.read().split()
    return [name for name in map(name_of, found) if name not in ('', 'faas-init')]


def name_of(pid):
    with contextlib.suppress(OSError), open(f'/proc/{pid}/comm', encoding='utf-8', errors='replace') as file:
        return file.read().strip()
    return ''


def slowdown(attacked, quiet):
    """By what the medians differ, of the bystander that suffers most; None without enough calls."""
    ratios = [statistics.median(times) / statistics.median(still) for times, still in zip(attacked, quiet) if min(len(times), len(still)) >= SAMPLES_MIN]
    return max(ratios) if ratios else None
