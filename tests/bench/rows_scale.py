"""The rows about what stays as it is: memory of an instance, of the programs after many calls, and a warm call beside many others."""
import base64
import json
import subprocess
import time

from baselines import CHROOT, Bundle
from faas_platform import archive
from measure import load
from memory import instance_bytes, platform_bytes, pss_bytes
from rows_call import HANDLER, HELLO_HANDLER, HELLO_PYTHON
from rows_start import new_code

IDLE = ('idle', 'frozen')
PAUSING_HANDLER = "import time\ndef handler(event, context):\n    time.sleep(event.get('pause_s', 0))\n    return {'hello': event}\n"


def idle_memory(bench, row):
    """Ten idle functions of one instance each. They share the pages of files, as instances of one image do; what the first takes while
    it is alone comes as a row of its own."""
    row.use_unit('MB')
    ten = bench.sized(10, 2)
    alone = row.against('our first instance, alone on the worker')
    bare = row.against('`python3` of the same image, idle on the host')
    for _ in range(bench.rounds):
        site = bench.site(WORKER_POOL_SIZE='0')
        name = idle_python(site)
        alone.add(instance_bytes(site.wait_instances(1, *IDLE)[0]['id']) / 1e6)
        bare.add(idle_python_bytes(Bundle(bench, site, name)) / 1e6)
        for _ in range(ten - 1):
            idle_python(site)
        row.ours.add(*(instance_bytes(instance['id']) / 1e6 for instance in site.wait_instances(ten, *IDLE)))
        row.baseline.add(9.0)
        bench.end_row()
    row.note(f'one of {ten} idle instances; each: PSS of all its processes and kernel memory of its cgroup')


def idle_python(site):
    name = site.deploy(python=new_code(), network='none')
    site.first_call(name)
    return name


def idle_python_bytes(bundle):
    """PSS of an interpreter that has loaded json and waits for input."""
    with subprocess.Popen([CHROOT, bundle.rootfs, '/usr/bin/python3', '-c', 'import json, sys; print(flush=True); sys.stdin.read()'],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        size = pss_bytes(process.pid)
        process.stdin.close()
    return size


def memory_flat(bench, row):
    """All instances that there will be are there from the beginning: each is known to the worker, which takes memory, and on a fast machine
    1,000 calls are over before the second one has started."""
    row.use_unit('MB')
    few, many, clients = bench.sized(1000, 100), bench.sized(100000, 1000), 32
    pause = bench.file('pause.json', b'{"pause_s": 3}')
    for _ in range(bench.rounds):
        site = bench.site()
        name = site.deploy(python=PAUSING_HANDLER, **HANDLER)
        site.call(name, clients, clients=clients, warmup=0, body=pause)
        site.wait_instances(clients, *IDLE)
        site.call(name, few - 64, clients=clients, warmup=64)
        row.baseline.add(resting_bytes(site) / 1e6)
        site.call(name, many - few, clients=clients, warmup=0)
        row.ours.add(resting_bytes(site) / 1e6)
        bench.end_row()


def resting_bytes(site):
    """PSS of controller and worker when the records of the calls are written and the programs have had two seconds of rest."""
    site.settle()
    time.sleep(2)
    return platform_bytes(site.platform)


def deploy_many(bench, site, count, definition):
    """`count` functions of the same definition, by PUT over kept-alive connections."""
    body = bench.file('definition.json', json.dumps(definition).encode())
    load(site.port, 'PUT', '/v1/functions/many-00000000', body, count, clients=min(8, count), warmup=0, token=site.platform.token,
         status='201')


def compare_warm_calls(bench, row, few, many):
    """A warm handler call on two platforms in turn."""
    names = [site.deploy(python=HELLO_HANDLER, **HANDLER) for site in (few, many)]
    calls = bench.sized(2000, 100)
    many.settle()
    for _ in range(bench.rounds):
        row.baseline.add_load(few.call(names[0], calls))
        row.ours.add_load(many.call(names[1], calls))


def functions_100k(bench, row):
    few, many = bench.site(), bench.site()
    definition = {'runtime': 'python', 'code': base64.b64encode(HELLO_PYTHON.encode()).decode(), 'network': 'none'}
    deploy_many(bench, few, 10, definition)
    deploy_many(bench, many, bench.sized(100000, 500), definition)
    compare_warm_calls(bench, row, few, many)


def idle_500(bench, row):
    few, many = bench.site(), bench.site(WORKER_MAX_INSTANCES='600', WORKER_MEMORY_MB='100000')
    count = bench.sized(500, 12)
    compare = [(few, bench.sized(10, 2)), (many, count)]
    code = base64.b64encode(archive({'bootstrap': '#!/bin/sh\necho 1\n'})).decode()
    definition = {'runtime': 'native', 'code': code, 'network': 'none', 'memory_mb': 16, 'tmp_mb': 1}
    for site, number in compare:
        deploy_many(bench, site, number, definition)
        load(site.port, 'POST', '/v1/functions/many-00000000/invocations', bench.body, number, clients=min(8, number), warmup=0,
             token=site.platform.token, expect='"status":"succeeded"')
        site.wait_instances(number, *IDLE)
    compare_warm_calls(bench, row, few, many)
    for site, number in compare:
        site.wait_instances(number, *IDLE)


ROWS = {'idle-memory': idle_memory, 'idle-500': idle_500, 'functions-100k': functions_100k, 'memory-flat': memory_flat}
