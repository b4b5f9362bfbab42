#!/usr/bin/env python3
"""The benchmarks: each row measures the platform and a baseline in turn, round by round, in one run, so that the ratio holds on a
noisy machine. `./build.sh bench [ROW...] [--rounds N]` prints a table and writes build/bench.json. docs/performance.md
says what each row means and how to repeat one by hand."""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, 'tests', 'e2e'))
from faas_platform import BIN, Platform  # noqa: E402

HELLO_PROCESS = "import json, os\nprint(json.dumps({'hello': json.loads(os.environ['FUNCTION_PAYLOAD'])}))\n"
HELLO_HANDLER = "def handler(event, context):\n    return {'hello': event}\n"
HELLO_NODE = "console.log(JSON.stringify({hello: JSON.parse(process.env.FUNCTION_PAYLOAD)}));\n"
HELLO_GO = 'package main\nimport "fmt"\nfunc main() { fmt.Println(`{"hello":"world"}`) }\n'
PAYLOAD = b'{"name":"bench"}'


class Samples:
    """Figures of one side of a row: times in ns unless `unit` says otherwise."""

    def __init__(self, name, unit='ns'):
        self.name, self.unit, self.values, self.p99s = name, unit, [], []

    def add(self, value, p99=None):
        self.values.append(value)
        if p99 is not None:
            self.p99s.append(p99)

    def summary(self):
        ordered = sorted(self.values)
        p99 = statistics.median(self.p99s) if self.p99s else ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
        return {'name': self.name, 'median': statistics.median(ordered), 'p99': p99, 'unit': self.unit, 'n': len(ordered)}


class Bench:
    """What rows share: one platform, the hello server, the load generator, bundles for `runc run`."""

    def __init__(self, rounds):
        self.rounds = rounds
        self.folder = tempfile.mkdtemp(prefix='faas-bench-')
        os.chmod(self.folder, 0o711)
        self.payload = os.path.join(self.folder, 'payload.json')
        with open(self.payload, 'wb') as file:
            file.write(PAYLOAD)
        self.platform = Platform({'LOG_LEVEL': 'warn', 'WORKER_KEEP_ALIVE_MS': '600000'}).start()
        self.hello = subprocess.Popen([os.path.join(BIN, 'bench-hello')], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.hello_port = self.hello.stdout.readline().decode().strip()
        self.names = 0
        self.bundles = {}

    def close(self):
        self.hello.stdin.close()
        self.hello.wait()
        self.platform.stop()
        self.platform.cleanup()
        subprocess.run(['rm', '-rf', self.folder], check=True)

    def deploy(self, **fields):
        self.names += 1
        name = f'bench-{self.names}'
        self.platform.deploy(name, **fields)
        return name

    def load(self, port, path, requests, clients=1, body=None, expect=None):
        command = [os.path.join(BIN, 'bench-load'), '127.0.0.1', port, 'POST', path, '--requests', str(requests), '--clients',
                   str(clients), '--warmup', str(max(20, clients * 2)), '--body', body or self.payload, '--token', self.platform.token]
        if expect:
            command += ['--expect', expect]
        return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=600).stdout)

    def call_function(self, name, requests, clients=1, body=None):
        port = self.platform.url.rsplit(':', 1)[1]
        return self.load(port, f'/v1/functions/{name}/invocations', requests, clients, body, expect='"succeeded"')

    def call_hello(self, requests, clients=1, body=None):
        return self.load(self.hello_port, '/', requests, clients, body)

    def runc_run(self, name):
        """Time of one `runc run` of the function's own bundle."""
        if name not in self.bundles:
            bundle = os.path.join(self.folder, name)
            self.platform.faas('bundle', name, '--out', bundle, check=True)
            self.bundles[name] = bundle
        started = time.perf_counter_ns()
        subprocess.run(['runc', 'run', '--bundle', self.bundles[name], f'{name}-{started}'], input=PAYLOAD, check=True,
                       stdout=subprocess.DEVNULL)
        return time.perf_counter_ns() - started

    def invoke_once(self, name):
        started = time.perf_counter_ns()
        execution = self.platform.invoke(name, PAYLOAD)
        elapsed = time.perf_counter_ns() - started
        if execution['status'] != 'succeeded':
            raise AssertionError(execution)
        return elapsed, execution


def warm_against_hello(bench, ours, baseline):
    name = bench.deploy(python=HELLO_HANDLER, contract='handler', handler='main.handler')
    for _ in range(bench.rounds):
        figures = bench.call_function(name, 2000)
        ours.add(figures['median'], figures['p99'])
        figures = bench.call_hello(2000)
        baseline.add(figures['median'], figures['p99'])


def throughput_against_hello(bench, ours, baseline):
    ours.unit = baseline.unit = 'calls/s'
    name = bench.deploy(python=HELLO_HANDLER, contract='handler', handler='main.handler')
    for _ in range(bench.rounds):
        ours.add(bench.call_function(name, 10000, clients=32)['rate'])
        baseline.add(bench.call_hello(50000, clients=32)['rate'])


def warm_against_runc(**fields):
    def row(bench, ours, baseline):
        name = bench.deploy(**fields)
        for _ in range(bench.rounds):
            figures = bench.call_function(name, 200)
            ours.add(figures['median'], figures['p99'])
            for _ in range(5):
                baseline.add(bench.runc_run(name))
    return row


def warm_node(bench, ours, baseline):
    name = bench.deploy(nodejs=HELLO_NODE)
    for _ in range(bench.rounds):
        figures = bench.call_function(name, 100)
        ours.add(figures['median'], figures['p99'])
        for _ in range(5):
            started = time.perf_counter_ns()
            subprocess.run(['node', '-e', '0'], check=True)
            baseline.add(time.perf_counter_ns() - started)


def cold_miss(bench, ours, baseline):
    for _ in range(bench.rounds):
        for _ in range(5):
            name = bench.deploy(python=HELLO_PROCESS, network='none')
            elapsed, execution = bench.invoke_once(name)
            if not execution['cold_start']:
                raise AssertionError('the first call of a function was not cold')
            ours.add(elapsed)
            baseline.add(bench.runc_run(name))


def payload_6mib(bench, ours, baseline):
    name = bench.deploy(python='def handler(event, context):\n    return event\n', contract='handler', handler='main.handler',
                        memory_mb=256)
    body = os.path.join(bench.folder, 'big.json')
    with open(body, 'w', encoding='ascii') as file:
        file.write(json.dumps('x' * (6 * 1024 * 1024 - 2)))
    for _ in range(bench.rounds):
        figures = bench.call_function(name, 20, body=body)
        ours.add(figures['median'], figures['p99'])
        figures = bench.call_hello(20, body=body)
        baseline.add(figures['median'], figures['p99'])


# id -> (what it is, name of the baseline, function)
ROWS = {
    'warm-handler': ('warm handler call, Python, 1 client', 'bare libmicrohttpd hello', warm_against_hello),
    'handler-throughput': ('handler calls a second, Python, 32 clients', 'bare hello a second', throughput_against_hello),
    'warm-process-python': ('warm process call, Python', 'runc run of the same', warm_against_runc(python=HELLO_PROCESS, network='none')),
    'warm-process-node': ('warm process call, Node.js', 'node -e 0 on the host', warm_node),
    'warm-process-go': ('warm process call, Go', 'runc run of the same', warm_against_runc(go=HELLO_GO, network='none')),
    'cold-miss': ('cold call through runc, Python process', 'runc run of the same', cold_miss),
    'payload-6mib': ('6 MiB payload and result, Python handler', 'the same through bare hello', payload_6mib),
}


def show(value, unit):
    if unit != 'ns':
        return f'{value:,.0f} {unit}'
    return f'{value / 1e6:.2f} ms' if value >= 1e6 else f'{value / 1e3:.0f} µs'


def machine():
    with open('/proc/cpuinfo', encoding='utf-8') as file:
        models = [line.split(':', 1)[1].strip() for line in file if line.startswith('model name')]
    return {'cpu': models[0] if models else '', 'cores': os.cpu_count(), 'kernel': os.uname().release,
            'memory_mb': os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') >> 20}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('rows', nargs='*', metavar='ROW', help=', '.join(ROWS))
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--out', default=os.path.join(TOP, 'build', 'bench.json'))
    options = parser.parse_args()
    unknown = set(options.rows) - set(ROWS)
    if unknown:
        parser.error(f'no such row: {", ".join(sorted(unknown))}; there are {", ".join(ROWS)}')

    bench = Bench(options.rounds)
    results = []
    print(f'{"row":<20} {"ours":>14} {"p99":>12} {"baseline":>14}  {"ratio":>8}  baseline is', flush=True)
    try:
        for row in options.rows or ROWS:
            text, baseline_name, measure = ROWS[row]
            ours, baseline = Samples(text), Samples(baseline_name)
            measure(bench, ours, baseline)
            mine, theirs = ours.summary(), baseline.summary()
            ratio = mine['median'] / theirs['median']
            results.append({'id': row, 'ours': mine, 'baseline': theirs, 'ratio': ratio})
            print(f'{row:<20} {show(mine["median"], mine["unit"]):>14} {show(mine["p99"], mine["unit"]):>12} '
                  f'{show(theirs["median"], theirs["unit"]):>14}  {ratio:>7.3f}x  {baseline_name}', flush=True)
    finally:
        bench.close()
    with open(options.out, 'w', encoding='utf-8') as file:
        json.dump({'machine': machine(), 'rows': results}, file, indent=2)
    print(f'written: {os.path.relpath(options.out)}')


if __name__ == '__main__':
    main()
