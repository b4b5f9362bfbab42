#!/usr/bin/env python3
"""A backlog of asynchronous invocations of one function, accepted while no worker is there and then drained by one: at what rate, against
what the store itself can do of such transactions; how much memory the controller has meanwhile; and what becomes of another function's
synchronous calls.

    ./build.sh bench backlog [--count N] [--rounds N] [--database postgresql]

The bare loop does what an invocation costs the store: a row that was inserted is marked as running, then as succeeded with its result,
32 rows a commit."""
import argparse
import base64
import json
import re
import sqlite3
import statistics
import subprocess
import tempfile
import threading
import time
import uuid

import cluster

HANDLER = base64.b64encode(b'def handler(event, context):\n    return event\n').decode()
BATCH = 32
COLUMNS = '(id TEXT PRIMARY KEY, function TEXT, status TEXT, payload {bytes}, result {bytes})'
UPDATES = ("UPDATE bare SET status = 'running' WHERE id = ", "UPDATE bare SET status = 'succeeded', result = '{}' WHERE id = ")


def bare_sqlite(count):
    with tempfile.TemporaryDirectory(prefix='faas-bench-') as folder:
        db = sqlite3.connect(folder + '/bare.db', isolation_level=None)
        db.executescript('PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE bare ' + COLUMNS.format(bytes='BLOB'))
        ids = [(str(uuid.uuid4()),) for _ in range(count)]
        db.execute('BEGIN')
        db.executemany("INSERT INTO bare VALUES (?, 'f', 'queued', '{}', NULL)", ids)
        db.execute('COMMIT')
        started = time.perf_counter()
        for at in range(0, count, BATCH):
            for update in UPDATES:
                db.execute('BEGIN')
                db.executemany(update + '?', ids[at:at + BATCH])
                db.execute('COMMIT')
        seconds = time.perf_counter() - started
        db.close()
    return count / seconds


def bare_postgresql(server, count):
    """pgbench, one client, prepared statements in a pipeline; rows are taken one after another."""
    server.psql('DROP TABLE IF EXISTS bare; CREATE TABLE bare ' + COLUMNS.format(bytes='bytea') +
                f"; INSERT INTO bare SELECT i::text, 'f', 'queued', '{{}}', NULL FROM generate_series(0, {count}) i;"
                ' DROP SEQUENCE IF EXISTS at; CREATE SEQUENCE at MINVALUE 0 CACHE 1')
    script = server.folder + '/bare.sql'
    with open(script, 'w', encoding='utf-8') as file:
        file.write(f"SELECT nextval('at') * {BATCH} AS first \\gset\n")
        for update in UPDATES:
            file.write('\\startpipeline\nBEGIN;\n')
            for i in range(BATCH):
                file.write(f'{update}(:first + {i})::text;\n')
            file.write('COMMIT;\n\\endpipeline\n')
    shown = subprocess.run([server.bin + '/pgbench', '-n', '-M', 'prepared', '-c', '1', '-t', str(count // BATCH), '-f', script, '-h', server.folder, '-U', 'tester',
                            'postgres'], env=server.client_environment(), capture_output=True, text=True, check=True).stdout
    return next(float(line.split()[2]) for line in shown.splitlines() if line.startswith('tps')) * BATCH


def metric(controller, name):
    text = controller.request('GET', '/metrics').body.decode()
    return float(re.search(rf'^{re.escape(name)} (.*)$', text, re.MULTILINE).group(1))


def load(controller, path, *options):
    shown = subprocess.run(cluster.load_command(controller, path, *options), capture_output=True, text=True, check=True).stdout
    return json.loads(shown)


def quiet_call(controller, body):
    return load(controller, '/v1/functions/other/invocations', '--requests', '300', '--warmup', '20', '--body', body, '--expect', '"status":"succeeded"')['median']


def fill(controller, count, body):
    load(controller, '/v1/functions/backlog/invocations?mode=async', '--clients', '32', '--requests', str(count), '--warmup', '0', '--body', body, '--status', '202')


def calls_meanwhile(controller, body, done, found):
    while not done.is_set():
        found.append(load(controller, '/v1/functions/other/invocations', '--requests', '100', '--warmup', '0', '--body', body,
                          '--expect', '"status":"succeeded"')['median'])


def drain(controller, count, body, with_calls):
    """Calls a second, the controller's memory before and at its highest, and medians of another function's calls meanwhile."""
    name = 'faas_executions_total{status="succeeded"}'
    with cluster.RealWorker(0, controller) as worker:
        before = metric(controller, name)
        memory, highest, medians, done = cluster.resident(controller.process), 0, [], threading.Event()
        cluster.wait_until(lambda: metric(controller, name) > before, 'the first is done')
        started, first = time.perf_counter(), metric(controller, name)
        thread = threading.Thread(target=calls_meanwhile, args=(controller, body, done, medians))
        if with_calls:
            thread.start()
        while metric(controller, 'faas_executions_queued') > 0 or metric(controller, 'faas_executions_running') > 1 or metric(controller, name) < before + count:
            highest = max(highest, cluster.resident(controller.process))
            time.sleep(0.1)
        finished = metric(controller, name)
        seconds = time.perf_counter() - started
        done.set()
        if with_calls:
            thread.join()
        assert worker.process.poll() is None
    return (finished - first) / seconds, memory, highest, medians


def main():
    parser = argparse.ArgumentParser(prog='build.sh bench backlog', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--count', type=int, default=100000)
    parser.add_argument('--rounds', type=int, default=1)
    parser.add_argument('--database', choices=('sqlite', 'postgresql'), default='sqlite')
    options = parser.parse_args()
    with cluster.PostgreSQL('fsync=on', 'shared_buffers=128MB') as server:
        settings = {'CONTROLLER_DATABASE_URL': server.create_database('bench')} if options.database == 'postgresql' else {}
        with cluster.Controller(LOG_LEVEL='warn', **settings) as controller:
            body = controller.folder + '/body'
            with open(body, 'w', encoding='ascii') as file:
                file.write('{}')
            for name in ('backlog', 'other'):
                controller.deploy(name, code=HANDLER, contract='handler', handler='main.handler', network='none')
            with cluster.RealWorker(0, controller):
                cluster.wait_until(lambda: controller.request('GET', '/v1/workers').json()['workers'], 'a worker is there')
                quiet = quiet_call(controller, body)
            ratios = []
            for _ in range(options.rounds):
                bare = bare_sqlite(options.count) if options.database == 'sqlite' else bare_postgresql(server, options.count)
                for with_calls in (False, True):
                    fill(controller, options.count, body)
                    rate, memory, highest, medians = drain(controller, options.count, body, with_calls)
                    print(f'{options.database}: {options.count} drained {"beside calls" if with_calls else "alone":12} {rate:7.0f}/s, bare loop {bare:7.0f}/s, ratio {rate / bare:.2f}; '
                          f'controller {memory >> 20} MiB before, {highest >> 20} MiB at most', flush=True)
                    if with_calls:
                        print(f"another function's call: {quiet / 1e6:.2f} ms without a backlog, {statistics.median(medians) / 1e6:.2f} ms beside it "
                              f'(median of {len(medians)} times 100)', flush=True)
                    else:
                        ratios.append(rate / bare)
            print(f'median ratio {statistics.median(ratios):.2f}')


if __name__ == '__main__':
    main()
