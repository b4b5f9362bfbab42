"""Functions of other users, called all the time, and what an attack does to them.

Each result is checked. Their latency while nobody attacks is measured anew before and after each attack, so that whatever else the machine
does counts on both sides of the comparison."""
import contextlib
import hashlib
import json
import os
import statistics
import threading
import time

from world import PATIENCE

QUIET_CALLS = 15
SAMPLES_MIN = 8  # of a bystander, for a figure of its latency
CALL_TIMEOUT = 120


class Bystander(threading.Thread):
    """One function and its only caller, with a payload that is new each time."""

    CODE = {'process': "import hashlib, json, os\nprint(json.dumps({'sum': hashlib.sha256(os.environ['FUNCTION_PAYLOAD'].encode()).hexdigest()}))",
            'handler': "import hashlib, json\ndef handler(event, context):\n"
                       "    return {'sum': hashlib.sha256(json.dumps(event, separators=(',', ':')).encode()).hexdigest()}"}
    PAUSE = 0.02

    def __init__(self, platform, contract):
        super().__init__(daemon=True)
        self.platform, self.contract, self.name_of_function = platform, contract, 'bystander-' + contract
        self.ended = threading.Event()
        self.wrong, self.times = [], []
        platform.deploy(self.name_of_function, python=self.CODE[contract], contract=contract, network='none',
                        **({'handler': 'main.handler'} if contract == 'handler' else {}))

    def call(self, number):
        payload = json.dumps({'n': number, 'who': self.contract}, separators=(',', ':')).encode()
        start = time.monotonic()
        execution = self.platform.invoke(self.name_of_function, payload, timeout=CALL_TIMEOUT)
        self.times.append(time.monotonic() - start)
        if execution['status'] != 'succeeded' or execution['result'] != {'sum': hashlib.sha256(payload).hexdigest()}:
            self.wrong.append(execution)

    def run(self):
        # It stands for a caller elsewhere, whom no work of this machine delays.
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), -10)
        number = 0
        while not self.ended.wait(self.PAUSE):
            number += 1
            try:
                self.call(number)
            except Exception as error:  # pylint: disable=broad-except
                self.wrong.append(repr(error))

    def take_times(self):
        times, self.times = self.times, []
        return times


class Bystanders:
    """All of them. `once`: fewer calls, for a test that looks at results only."""

    def __init__(self, platform, once):
        self.platform, self.calls = platform, 5 if once else QUIET_CALLS
        self.all = [Bystander(platform, 'process'), Bystander(platform, 'handler')]
        for one in self.all:
            one.call(0)
            one.start()

    def take_times(self):
        return [one.take_times() for one in self.all]

    def take_wrong(self):
        """What was not as it must be since the last time."""
        wrong = [answer for one in self.all for answer in one.wrong]
        for one in self.all:
            one.wrong = []
        return wrong

    def enough(self):
        return min(len(one.times) for one in self.all) >= self.calls

    def quiet(self):
        """Times of each while nobody attacks and the worker has no more to tidy up or to refill."""
        self._worker_is_idle()
        self.take_times()
        deadline = time.monotonic() + CALL_TIMEOUT
        # The first one may have begun before.
        while min(len(one.times) for one in self.all) <= self.calls and time.monotonic() < deadline and not any(one.wrong for one in self.all):
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
            one.ended.set()
            one.join()


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
