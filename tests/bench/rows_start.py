"""The rows about instances that have to be started: cold calls, refilling the pool, a burst."""
import datetime
import itertools
import re

import docker_engine
from baselines import Bundle
from faas_platform import wait_until
from measure import Failure
from rows_call import HELLO_PYTHON
from targets import DOCKER

PYTHON_IMAGE = 'faas-runtime-python:latest'
numbers = itertools.count(1)


def new_code():
    """Code that no worker has seen: a new function's first call fetches it, too."""
    return HELLO_PYTHON + f'# {next(numbers)}\n'


def cold_function(site):
    return site.function(python=new_code(), network='none')


class PoolLog:
    """The worker's pool of Python instances as its log tells: at once, where the API has to wait for the worker's next poll."""

    READY = re.compile(r'^(\S+) INFO worker generic instance ready instance=(\w+) image=' + re.escape(PYTHON_IMAGE) + r' .*\bstart_us=(\d+)', re.M)
    TAKEN = re.compile(r'^\S+ INFO worker instance ready instance=(\w+) function=(\S+)', re.M)

    def __init__(self, site):
        self.site = site

    def text(self):
        with open(self.site.platform.output, encoding='utf-8', errors='replace') as file:
            return file.read()

    def starts(self):
        """{instance: (begin, end)} in seconds, of every generic instance so far."""
        found = {}
        for moment, instance, took_us in self.READY.findall(self.text()):
            end = datetime.datetime.fromisoformat(moment.replace('Z', '+00:00')).timestamp()
            found[instance] = (end - int(took_us) / 1e6, end)
        return found

    def taken(self):
        """{function: instance} of those that were loaded or started."""
        return {function: instance for instance, function in self.TAKEN.findall(self.text())}

    def wait_warm(self, count, seconds=60):
        def warm():
            return len(self.starts().keys() - set(self.taken().values())) >= count
        try:
            wait_until(warm, seconds, f'{count} warm instances of {PYTHON_IMAGE}')
        except AssertionError as error:
            raise Failure(str(error)) from None

    def check_from_pool(self, function):
        instance = self.taken().get(function)
        if instance not in self.starts():
            raise Failure(f'the instance {instance} of {function} did not come from the pool')


def wait_for_pool(site):
    """Until the API shows a warm instance, which one of each runtime is from the worker's start."""
    try:
        site.wait_instances(1, 'warm', seconds=30)
    except Failure:
        raise Failure('this worker keeps no instances ready: GET /v1/workers shows none in state "warm"') from None


def cold_pool(bench, row):
    """The pool is full and at rest before each call."""
    size = bench.sized(4, 2)
    site = bench.site(WORKER_POOL_SIZE=str(size), LOG_LEVEL='info')
    wait_for_pool(site)
    log = PoolLog(site)
    with cold_function(site) as name:
        site.first_call(name)
        bundle = Bundle(bench, site, name)
    docker = bench.keep(docker_engine.Docker(bench, bundle)) if docker_engine.version() else None
    for _ in range(bench.rounds):
        for _ in range(bench.sized(5, 2)):
            log.wait_warm(size + 1)  # and the one for network bridge, which is there from the start
            with cold_function(site) as name:
                row.ours.add(site.call_cold(name))
                log.check_from_pool(name)
            row.baseline.add(*bundle.run()['values'])
        if docker:
            row.against(DOCKER).add(*docker.run(bench.sized(3, 1)))
            row.against('create, start and wait through Docker\'s API').add(docker.run_by_api())


def cold_miss(bench, row):
    site = bench.site(WORKER_POOL_SIZE='0')
    with cold_function(site) as name:
        bundle = Bundle(bench, site, name)
    for _ in range(bench.rounds):
        for _ in range(bench.sized(5, 2)):
            with cold_function(site) as name:
                row.ours.add(site.call_cold(name))
            row.baseline.add(*bundle.run()['values'])


def refill(bench, row):
    """From the begin of the first start to the last instance ready, its interpreter up; for runc, to the end of the last `start`."""
    row.use_unit('1/s')
    count, parallel = bench.sized(32, 6), 4
    for _ in range(bench.rounds):
        site = bench.site(WORKER_POOL_SIZE=str(count), WORKER_START_PARALLEL=str(parallel), LOG_LEVEL='info')
        wait_for_pool(site)
        log = PoolLog(site)
        log.wait_warm(1)
        before = log.starts()
        with cold_function(site) as name:
            site.first_call(name)
            log.wait_warm(len(before) + count)
            spans = [span for instance, span in log.starts().items() if instance not in before]
            row.ours.add(len(spans) / (max(end for _, end in spans) - min(begin for begin, _ in spans)))
            bundle = Bundle(bench, site, name)
        figures = raw_starts(bundle, count, parallel)
        row.baseline.add(figures['rate'])
        row.against('the same, until their interpreters have run').add(figures['run_rate'])
        bench.end_row()
    row.note(f'{count} instances, {parallel} at a time on both sides')


def raw_starts(bundle, count, parallel):
    try:
        return bundle.create_and_start(count, parallel)
    finally:
        bundle.delete_all()


def burst_50(bench, row):
    """A new function each round, with one instance that is idle; its first call is not measured."""
    site = bench.site()
    calls = bench.sized(50, 8)
    for _ in range(bench.rounds):
        with cold_function(site) as name:
            bundle = Bundle(bench, site, name)
            site.first_call(name)
            site.wait_instances(1, 'idle')
            row.ours.add(site.call(name, calls, clients=calls, warmup=0)['elapsed'])
            row.baseline.add(bundle.run(calls, calls)['elapsed'])


ROWS = {'cold-pool': cold_pool, 'cold-miss': cold_miss, 'refill': refill, 'burst-50': burst_50}
