"""Limits of a function's disk I/O: what its cgroup has, what its bundle tells, and what comes of it."""
import contextlib
import glob
import json
import os
import unittest

from faas_platform import PlatformTest, main, wait_until

V1 = '/sys/fs/cgroup/blkio'
BPS, IOPS = 3 << 20, 60
CODE = 'print(1)'
READS = 200
DIRECT_READS = f"""
import json, mmap, os, time
file = os.open('data', os.O_RDONLY | os.O_DIRECT)
page = mmap.mmap(-1, 4096)
start = time.monotonic()
for i in range({READS}):
    os.preadv(file, [page], i * 4096)
print(json.dumps(time.monotonic() - start))
"""


def read(path):
    with open(path, encoding='utf-8') as file:
        return file.read()


def disk(folder):
    device = os.stat(folder).st_dev
    path = os.path.realpath(f'/sys/dev/block/{os.major(device)}:{os.minor(device)}')
    if os.path.exists(path + '/partition'):
        path = os.path.dirname(path)
    return read(path + '/dev').strip() if os.path.exists(path + '/dev') else None


@unittest.skipUnless(os.path.exists(V1 + '/blkio.throttle.read_bps_device') or 'io' in read('/sys/fs/cgroup/cgroup.controllers').split(),
                     'a host that can limit I/O is needed')
class IoLimits(PlatformTest):
    def setUp(self):
        self.disk = disk(self.platform.data_dir)
        if not self.disk:
            self.skipTest('the data folder is on no disk')

    def instances(self, state=None, function=None):
        workers = self.api('GET', '/v1/workers').json()['workers']
        return {instance['id'] for worker in workers for instance in worker['instances']
                if 'python' in instance['image'] and (not state or instance['state'] == state) and (not function or instance.get('function') == function)}

    def instance(self, function):
        wait_until(lambda: self.instances(function=function), 60, 'its instance is told')
        return self.instances(function=function).pop()

    def cgroup(self, instance):
        return glob.glob(f'{V1 if os.path.exists(V1) else "/sys/fs/cgroup"}/**/faas-*/{instance}', recursive=True)[0]

    def limits(self, instance):
        """What the kernel holds it to: name -> rate."""
        folder = self.cgroup(instance)
        if os.path.exists(folder + '/io.max'):
            words = read(folder + '/io.max').split()
            if words:
                self.assertEqual(words[0], self.disk)
            return {name: int(rate) for name, rate in (word.split('=') for word in words[1:]) if rate != 'max'}
        found = {}
        for file, name in (('read_bps', 'rbps'), ('write_bps', 'wbps'), ('read_iops', 'riops'), ('write_iops', 'wiops')):
            for line in read(f'{folder}/blkio.throttle.{file}_device').splitlines():
                device, rate = line.split()
                self.assertEqual(device, self.disk)
                found[name] = int(rate)
        return found

    def bundle(self, instance):
        with contextlib.suppress(json.JSONDecodeError):
            return json.loads(read(f'{self.platform.data_dir}/worker/bundles/{instance}/config.json'))['linux']['resources'].get('blockIO')

    def expected(self, bps, iops):
        major, minor = map(int, self.disk.split(':'))
        rates = {'throttleReadBpsDevice': bps, 'throttleWriteBpsDevice': bps, 'throttleReadIOPSDevice': iops, 'throttleWriteIOPSDevice': iops}
        return {name: [{'major': major, 'minor': minor, 'rate': rate}] for name, rate in rates.items() if rate}

    def came_from_the_pool(self, instance):
        """Its code was mounted on what was mounted there at the start."""
        pid = read(self.cgroup(instance) + '/cgroup.procs').split()[0]
        return sum(line.split(' ')[4] == '/app/function' for line in read(f'/proc/{pid}/mountinfo').splitlines()) > 1

    def run_one(self, name, pooled, **fields):
        """Its instance, which was generic before if it is `pooled`. What is told of the pool may be a moment old, so that has more tries."""
        for attempt in range(5):
            wait_until(lambda: self.instances('warm'), 60, 'generic instances stand ready')
            self.deploy(f'{name}-{attempt}', python=CODE, env={} if pooled else {'PYTHONX': '1'}, **fields)
            self.assertSucceeded(self.invoke(f'{name}-{attempt}'), 1)
            instance = self.instance(f'{name}-{attempt}')
            if self.came_from_the_pool(instance) == pooled:
                return instance
        raise AssertionError(f'never {"from" if pooled else "without"} the pool')

    def test_a_function_has_what_it_asks_for_from_the_pool_and_without(self):
        for pooled in (True, False):
            for bps, iops in ((BPS, IOPS), (BPS, 0), (0, IOPS)):
                with self.subTest(pooled=pooled, bps=bps, iops=iops):
                    instance = self.run_one(f'limited-{int(pooled)}-{bps}-{iops}', pooled, io_bps=bps, io_iops=iops)
                    rates = {'rbps': bps, 'wbps': bps, 'riops': iops, 'wiops': iops}
                    self.assertEqual(self.limits(instance), {name: rate for name, rate in rates.items() if rate})
                    wait_until(lambda instance=instance, bps=bps, iops=iops: self.bundle(instance) == self.expected(bps, iops), 30,
                               'the bundle tells it')

    def test_a_function_that_asks_for_nothing_has_no_limit(self):
        for pooled in (True, False):
            with self.subTest(pooled=pooled):
                instance = self.run_one(f'free-{int(pooled)}', pooled)
                self.assertEqual(self.limits(instance), {})
                self.assertIsNone(self.bundle(instance))

    def test_reads_wait_for_their_turn(self):
        """Not so long is impossible, whatever else the machine does: the kernel counts, and the function's own clock."""
        self.deploy('reader', runtime='python', files={'main.py': DIRECT_READS, 'data': os.urandom(READS * 4096)}, io_iops=50)
        execution = self.invoke('reader')
        self.assertSucceeded(execution)
        folder = self.cgroup(self.instance('reader'))
        if os.path.exists(folder + '/io.stat'):
            line = next(line for line in read(folder + '/io.stat').splitlines() if line.startswith(self.disk + ' '))
            count = int(dict(word.split('=') for word in line.split()[1:])['rios'])
        else:
            count = next(int(line.split()[2]) for line in read(folder + '/blkio.throttle.io_serviced').splitlines()
                         if line.startswith(self.disk + ' Read '))
        self.assertGreaterEqual(count, READS)
        self.assertGreaterEqual(execution['result'], READS / 50 / 2)


if __name__ == '__main__':
    main()
