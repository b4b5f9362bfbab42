"""The rows about calls to a function that is warm: over the HTTP API against a bare server, and `process` calls against starting it anew."""
import json

import docker_engine
from baselines import Bundle, bare_fork, bare_node, bare_python
from measure import Failure, clients_core
from targets import DOCKER

HELLO_HANDLER = "def handler(event, context):\n    return {'hello': event}\n"
HELLO_PYTHON = "import json, os\nprint(json.dumps({'hello': json.loads(os.environ['FUNCTION_PAYLOAD'])}))\n"
HELLO_NODE = "console.log(JSON.stringify({hello: JSON.parse(process.env.FUNCTION_PAYLOAD)}));\n"
HELLO_GO = 'package main\nimport "fmt"\nfunc main() { fmt.Println(`{"hello":"world"}`) }\n'
ECHO_HANDLER = 'def handler(event, context):\n    return event\n'
HANDLER = {'contract': 'handler', 'handler': 'main.handler'}


def answer_bytes(site, name):
    """How long the API's answer to a call is: bare hello answers with as much."""
    return site.call(name, 5)['answer_bytes']


def warm_handler(bench, row):
    """The client has a core of its own, the servers the others: left to itself the scheduler puts client and bare server on one core
    or on two as it likes, which changes the bare server's time sixfold."""
    client, servers = clients_core()
    site, free_site = bench.site(servers), bench.site()
    name, free_name = site.deploy(python=HELLO_HANDLER, **HANDLER), free_site.deploy(python=HELLO_HANDLER, **HANDLER)
    size = answer_bytes(site, name)
    hello, free_hello = bench.hello(size, servers), bench.hello(size)
    free_ours = row.against('our call, no core reserved')
    free_baseline = row.against('bare hello, no core reserved', free_ours)
    calls = bench.sized(2000, 100)
    for _ in range(bench.rounds):
        row.ours.add_load(site.call(name, calls, cores=client))
        row.baseline.add_load(hello.call(calls, token=site.platform.token, cores=client))
        free_ours.add_load(free_site.call(free_name, calls))
        free_baseline.add_load(free_hello.call(calls, token=site.platform.token))
    row.note('client pinned to one core, servers to the others' if client else 'one core: nothing pinned')


def handler_throughput(bench, row):
    site = bench.site()
    name = site.deploy(python=HELLO_HANDLER, **HANDLER)
    hello = bench.hello(answer_bytes(site, name))
    calls = bench.sized(10000, 500)
    site.call(name, calls, clients=32)  # as many instances as it takes are made here
    busiest = 0
    for _ in range(bench.rounds):
        row.ours.add_rate(site.call(name, calls, clients=32))
        figures = hello.call(calls * 5, clients=32, token=site.platform.token)
        row.baseline.add_rate(figures)
        busiest = max(busiest, figures['cpu'])
    row.note(f'the load generator took at most {busiest:.2f} of a core')


def warm_process_python(bench, row):
    site = bench.site()
    name = site.deploy(python=HELLO_PYTHON, network='none')
    bundle = Bundle(bench, site, name)
    docker = bench.keep(docker_engine.Docker(bench, bundle)) if docker_engine.version() else None
    site.first_call(name)
    for _ in range(bench.rounds):
        row.ours.add_load(site.call(name, bench.sized(200, 20)))
        row.baseline.add(*bundle.run(bench.sized(5, 2))['values'])
        row.against('bare start of the same `python3`').add(*bare_python(bundle, bench.sized(10, 2)))
        row.against('bare fork from a Python process, on the host').add(*bare_fork(bundle, HELLO_PYTHON, bench.sized(50, 5)))
        if docker:
            row.against(DOCKER).add(*docker.run(bench.sized(2, 1)))


def warm_process_node(bench, row):
    site = bench.site()
    name = site.deploy(nodejs=HELLO_NODE, network='none')
    bundle = Bundle(bench, site, name)
    site.first_call(name)
    for _ in range(bench.rounds):
        row.ours.add_load(site.call(name, bench.sized(100, 5)))
        row.baseline.add(*bare_node(bundle, bench.sized(5, 2)))
        row.against('`runc run` of the same bundle').add(*bundle.run(bench.sized(2, 1))['values'])


def warm_process_go(bench, row):
    site = bench.site()
    name = site.deploy(go=HELLO_GO, network='none')
    bundle = Bundle(bench, site, name)
    site.first_call(name)
    for _ in range(bench.rounds):
        row.ours.add_load(site.call(name, bench.sized(200, 20)))
        row.baseline.add(*bundle.run(bench.sized(5, 2))['values'])


def payload_6mib(bench, row):
    """6 MiB each way. The answer must have it all: an answer of another size is a failure."""
    site = bench.site()
    name = site.deploy(python=ECHO_HANDLER, memory_mb=256, **HANDLER)
    size = 6 << 20
    body = bench.file('big.json', json.dumps('x' * (size - 2)).encode())
    hello = bench.hello()
    calls = bench.sized(20, 3)
    for _ in range(bench.rounds):
        for samples, figures in ((row.ours, site.call(name, calls, warmup=3, body=body)),
                                 (row.baseline, hello.call(calls, body=body, path='/echo', token=site.platform.token))):
            if figures['answer_bytes'] < size:
                raise Failure(f'an answer of {figures["answer_bytes"]} bytes to a payload of {size}')
            samples.add_load(figures)


ROWS = {'warm-handler': warm_handler, 'handler-throughput': handler_throughput, 'warm-process-python': warm_process_python,
        'warm-process-node': warm_process_node, 'warm-process-go': warm_process_go, 'payload-6mib': payload_6mib}
