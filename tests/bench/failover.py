#!/usr/bin/env python3
"""How long work stands still when a machine dies: from `kill -9` of a worker to its calls running on another one, and from `kill -9` of one of
two controllers on PostgreSQL to a call served by the other, and to the end of what the dead one had accepted.

    ./build.sh bench failover [--rounds N]

A process that is killed has its connections closed by the kernel, which is what a dead program looks like; a machine without power says
nothing, and is found by the silence: CONTROLLER_WORKER_LOST_MS. Both are measured, the latter by SIGSTOP."""
import argparse
import base64
import signal
import statistics
import time

import cluster

SLEEP = base64.b64encode(b'import os, time\ntime.sleep(float(os.environ["FUNCTION_PAYLOAD"]))\nprint(1)\n').decode()
CALLS = 4
TOKEN = 'a-token-of-the-benchmark'


def ms(started):
    return (time.perf_counter() - started) * 1000


def active(controller):
    return sum(worker['state'] == 'active' for worker in controller.request('GET', '/v1/workers').json()['workers'])


def worker_dies(signal_number):
    """ms until all calls of a dead worker run on the other one."""
    with cluster.Controller(LOG_LEVEL='warn') as controller:
        controller.deploy('sleep', code=SLEEP, network='none', timeout_ms=600000)
        with cluster.RealWorker(0, controller) as first:
            cluster.wait_until(lambda: active(controller) == 1, 'the first worker is there')
            ids = [controller.invoke_async('sleep', 2) for _ in range(CALLS)]
            for execution in ids:
                controller.wait_execution(execution, 'running')
            with cluster.RealWorker(1, controller) as second:
                cluster.wait_until(lambda: active(controller) == 2, 'the second worker is there')
                started = time.perf_counter()
                first.process.send_signal(signal_number)
                for execution in ids:
                    cluster.wait_until(lambda: (e := controller.execution(execution))['status'] == 'running' and e.get('worker') == second.name or e['status'] == 'succeeded',
                                       'it runs elsewhere')
                took = ms(started)
                for execution in ids:
                    found = controller.wait_execution(execution)
                    assert (found['status'], found['worker']) == ('succeeded', second.name), found
                first.process.send_signal(signal.SIGCONT)
    return took


def controller_dies(server, number):
    """(ms to a call served by the other, ms to the end of what the dead one had accepted)"""
    url = server.create_database(f'failover{number}')
    with cluster.Controller(LOG_LEVEL='warn', CONTROLLER_DATABASE_URL=url, WORKER_TOKEN=TOKEN) as first:
        settings = {'LOG_LEVEL': 'warn', 'CONTROLLER_DATABASE_URL': url, 'WORKER_TOKEN': TOKEN}
        second = cluster.Controller(**settings)
        second.use_token(first.token)
        with second, cluster.RealWorker(0, first, second):
            first.deploy('sleep', code=SLEEP, network='none')
            cluster.wait_until(lambda: active(first) == 1 and active(second) == 1, 'the worker is there')
            assert second.invoke('sleep', 0)['status'] == 'succeeded'
            ids = [first.invoke_async('sleep', 0.2) for _ in range(CALLS)]
            started = time.perf_counter()
            first.kill()
            assert second.invoke('sleep', 0)['status'] == 'succeeded'
            served = ms(started)
            for execution in ids:
                assert second.wait_execution(execution)['status'] == 'succeeded'
            taken_over = ms(started)
            first.start()  # for its end
    return served, taken_over


def show(what, values):
    print(f'{what:70} {statistics.median(values):8.0f} ms  ({min(values):.0f} to {max(values):.0f}, {len(values)} rounds)', flush=True)


def main():
    parser = argparse.ArgumentParser(prog='build.sh bench failover', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rounds', type=int, default=3)
    rounds = range(parser.parse_args().rounds)
    show('worker killed, its calls run on the other', [worker_dies(signal.SIGKILL) for _ in rounds])
    show('worker silent, its calls run on the other', [worker_dies(signal.SIGSTOP) for _ in rounds])
    with cluster.PostgreSQL('max_connections=50') as server:
        found = [controller_dies(server, number) for number in rounds]
    show('controller killed, a call served by the other', [served for served, _ in found])
    show('controller killed, what it had accepted is done', [taken_over for _, taken_over in found])


if __name__ == '__main__':
    main()
