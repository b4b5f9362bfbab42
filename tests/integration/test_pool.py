"""Generic instances: what becomes of them, and that nobody can tell one that was generic from one that was started for its function. Needs
root and the images."""
import contextlib
import glob
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import unittest

from worker import BIN, BUILD, ROOT, FakeController, Worker, have_images

PROCESS = "import tell\ntell.tell()"
HANDLER = "import tell\ndef handler(event, context):\n    return tell.facts()"
TELL = """
import json, os, resource, socket
def facts():
    mounts = []
    for line in open('/proc/self/mountinfo'):
        head, tail = line.split(' - ')
        root, point, flags = head.split()[3:6]
        mounts.append([point, flags, root if point.startswith(('/.faas', '/app')) else '', tail.split()[0], tail.split()[2] if point == '/tmp' else ''])
    covered = {mount[0]: mount for mount in mounts}  # the last one at a point is what is seen
    status = [line.split() for line in open('/proc/self/status')]
    return {
        'environment': {k: v for k, v in os.environ.items() if k != 'EXECUTION_ID'},
        'hostname': socket.gethostname(), 'cwd': os.getcwd(), 'uid': os.getuid(), 'gid': os.getgid(), 'umask': [l for l in status if l[0] == 'Umask:'],
        'mounts': sorted(covered.values()), 'tmp': os.statvfs('/tmp').f_blocks * os.statvfs('/tmp').f_frsize,
        'limits': [resource.getrlimit(kind) for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_CORE, resource.RLIMIT_NPROC)],
        'status': [line for line in status if line[0] in ('CapEff:', 'CapBnd:', 'NoNewPrivs:', 'Seccomp:', 'Seccomp_filters:')],
        'namespaces': sorted(os.listdir('/proc/self/ns')), 'priority': os.getpriority(os.PRIO_PROCESS, 0),
        'processes': sorted(open(f'/proc/{p}/comm').read().strip() for p in os.listdir('/proc') if p.isdigit()),
        'oom': open('/proc/self/oom_score_adj').read(), 'writable': [os.access(p, os.W_OK) for p in ('/', '/app/function', '/.faas', '/tmp', '/run/faas')],
        'code': sorted(os.listdir('/app/function')),
    }
def tell():
    print(json.dumps(facts()))
"""  # fmt: skip
LIMIT_FILES = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.kmem.tcp.limit_in_bytes", "cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.shares", "pids.max",
               "devices.list", "memory.max", "memory.swap.max", "cpu.max")  # fmt: skip


def with_tell(main):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for path, text in (("main.py", main), ("tell.py", TELL)):
            entry = tarfile.TarInfo(path)
            entry.size = len(text.encode())
            tar.addfile(entry, io.BytesIO(text.encode()))
    return out.getvalue()


class Host:
    """What a worker and its controller say, and what the host has of an instance."""

    def __init__(self, **settings):
        self.controller = FakeController()
        self.worker = Worker(self.controller, **settings).start()

    def close(self):
        self.worker.__exit__(*sys.exc_info())
        self.controller.__exit__()

    def nudge(self):
        """A forget of nothing: the worker polls once more."""
        self.controller.assign({"kind": "forget", "function": "nobody", "version": 1})

    def wait(self, ready, seconds=60):
        deadline = time.monotonic() + seconds
        while not (value := ready()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"not seen in {seconds} s; instances: {self.controller.states[-1]['instances']}\n{self.worker.log()[-3000:]}")
            before = len(self.controller.states)
            self.nudge()
            self.controller.wait_for(lambda: len(self.controller.states) > before)  # noqa: B023
            time.sleep(0.02)
        return value

    def instances(self, **members):
        return [i for i in self.controller.states[-1]["instances"] if all(i.get(k) == v for k, v in members.items())]

    def warm(self, runtime="python"):
        return self.instances(state="warm", image=f"faas-runtime-{runtime}:latest")

    def wait_warm(self, count=1, runtime="python"):
        return self.wait(lambda: len(self.warm(runtime)) >= count and self.warm(runtime))

    def loaded(self):
        """Functions by instance, of those that were generic."""
        return dict(re.findall(r"instance loading instance=(\w+) function=(\S+)", self.worker.log()))

    def limits(self, instance):
        found = {}
        for folder in glob.glob(f"/sys/fs/cgroup/**/faas-{self.worker.name}/{instance}", recursive=True):
            for name in LIMIT_FILES:
                if os.path.exists(os.path.join(folder, name)):
                    with open(os.path.join(folder, name)) as file:
                        found[name] = file.read()
        return found

    def config(self, instance):
        with open(os.path.join(self.worker.data_dir, "worker", "bundles", instance, "config.json")) as file:
            return file.read()

    def processes(self, instance):
        pids = set()
        for path in glob.glob(f"/sys/fs/cgroup/**/faas-{self.worker.name}/{instance}/cgroup.procs", recursive=True):
            with open(path) as file:
                pids.update(map(int, file.read().split()))
        return pids

    def neutral(self, text, instance):
        """Without what differs from instance to instance and from worker to worker."""
        for own in (self.worker.data_dir, f"/run/faas/{self.worker.name}"):
            text = text.replace(own, "OWN")
        text = text.replace(f"faas-{self.worker.name}", "faas-OWN").replace(instance, "INSTANCE")
        return re.sub(r"\b5[3-9]\d{7}\b|\b1[0-6]\d{8}\b", "0", re.sub(r"faas-[bn]-[0-9a-f]{16}", "NETNS", text))


@unittest.skipUnless(have_images(), "the runtime images have not been built")
class Sameness(unittest.TestCase):
    """One function in an instance that was generic and in one that was started for it."""

    members = {"memory_mb": 200, "cpus": 0.5, "pids": 20, "tmp_mb": 100, "network": "bridge", "env": {"A": "1", "TZ": "Asia/Tokyo"}}

    @classmethod
    def setUpClass(cls):
        cls.hosts = {kind: Host(name=f"test-{os.getpid()}-{kind}", pool_size=size) for kind, size in (("pool", 1), ("direct", 0))}

    @classmethod
    def tearDownClass(cls):
        for host in cls.hosts.values():
            host.close()

    def see(self, host, name, code, **members):
        host.controller.deploy(name, code, **dict(self.members, **members))
        first, second = host.controller.run(name), host.controller.run(name)
        instance = host.wait(lambda: host.instances(function=name))[0]["id"]
        self.assertEqual(first.value, second.value)
        return instance, first.value, host.limits(instance)

    def both(self, name, code, **members):
        pool, direct = self.hosts["pool"], self.hosts["direct"]
        pool.wait_warm(runtime=members.get("runtime", "python"))
        seen = self.see(pool, name, code, **members)
        self.assertEqual(pool.loaded().get(seen[0]), name, "it was to come from the pool")
        return seen, self.see(direct, name, code, **members)

    def check(self, name, code, **members):
        (pooled, facts, limits), (direct, direct_facts, direct_limits) = self.both(name, code, **members)
        self.maxDiff = None
        pool, other = self.hosts["pool"], self.hosts["direct"]
        self.assertEqual(json.loads(pool.neutral(json.dumps(facts), pooled)), json.loads(other.neutral(json.dumps(direct_facts), direct)))
        self.assertEqual(limits, direct_limits)
        self.assertGreater(len(limits), 3)
        expected = json.loads(other.neutral(other.config(direct), direct))
        pool.wait(lambda: '"rslave"' not in pool.config(pooled))
        self.assertEqual(json.loads(pool.neutral(pool.config(pooled), pooled)), expected)

    def test_python_process(self):
        self.check("same-process", with_tell(PROCESS))

    def test_python_handler(self):
        self.check("same-handler", with_tell(HANDLER), contract="handler", handler="main.handler")

    def test_usual_limits(self):
        usual = {"memory_mb": 128, "cpus": 1.0, "pids": 64, "tmp_mb": 64, "env": {}}
        self.check("usual", with_tell(PROCESS), **usual)

    def test_nodejs(self):
        code = ("const fs = require('fs'), os = require('os');\n"
                "console.log(JSON.stringify({env: Object.entries(process.env).filter(e => e[0] != 'EXECUTION_ID').sort(), host: os.hostname(),\n"
                "  cwd: process.cwd(), files: fs.readdirSync('.'), tmp: fs.statfsSync('/tmp').blocks}))")  # fmt: skip
        self.check("same-node", code, runtime="nodejs")

    def test_native(self):
        code = "#!/bin/sh\nenv | grep -v EXECUTION_ID | sort; hostname; pwd; ls; df -k /tmp | tail -1; grep ' /app' /proc/self/mounts | tail -1\n"
        self.check("same-native", code, runtime="native")

    def test_code_cannot_be_written(self):
        code = "import os\nimport json\nprint(json.dumps([os.access('/app/function', os.W_OK), os.statvfs('/app/function').f_flag & (os.ST_RDONLY | os.ST_NOSUID | os.ST_NODEV)]))"
        (_, facts, _), (_, direct, _) = self.both("readonly", code)
        self.assertEqual(facts, [False, os.ST_RDONLY | os.ST_NOSUID | os.ST_NODEV])
        self.assertEqual(direct, facts)


@unittest.skipUnless(have_images(), "the runtime images have not been built")
class Pool(unittest.TestCase):
    def host(self, **settings):
        host = Host(**settings)
        self.addCleanup(host.close)
        return host

    def stop_clean(self, host):
        self.assertEqual(host.worker.stop(), 0)
        self.assertEqual(host.worker.leftovers(), [])

    def test_a_new_function_takes_a_warm_instance_which_is_replaced(self):
        host = self.host(pool_size=2)
        before = {i["id"] for i in host.wait_warm()}
        self.assertNotIn("function", host.warm()[0])
        host.controller.deploy("f", "print(1)", network="bridge")
        result = host.controller.run("f")
        self.assertTrue(result.cold_start)
        self.assertLessEqual(set(host.loaded()), before)
        self.assertEqual(host.loaded(), {host.wait(lambda: host.instances(function="f"))[0]["id"]: "f"})
        host.wait_warm(2)
        self.stop_clean(host)

    def test_an_instance_serves_one_function_only(self):
        host = self.host(pool_size=3, keep_alive_ms=400)
        host.wait_warm()
        code = ("import os, json, glob\nseen = glob.glob('/tmp/of-*') + [e for e in os.listdir('/app/function') if e != 'main.py']\n"
                "open('/tmp/of-' + os.environ['FUNCTION_NAME'], 'w').close()\n"
                "print(json.dumps([os.environ['FUNCTION_NAME'], os.environ['MINE'], sorted(os.path.basename(s) for s in seen)]))")  # fmt: skip
        names = [f"f{n}" for n in range(4)]
        for name in names:
            host.controller.deploy(name, code + f"  # {name}", network="bridge", env={"MINE": name}, memory_mb=64)
        executions = [(name, host.controller.invoke(name)) for _ in range(6) for name in names]
        for name, execution in executions:
            value = host.controller.result(execution).value
            self.assertEqual(value[:2], [name, name])
            self.assertIn(value[2], ([], [f"of-{name}"]))
        ready = re.findall(r"instance ready instance=(\w+) function=(\S+)", host.worker.log())
        ready = [pair for pair in ready if pair[1] in names]
        self.assertEqual(len({instance for instance, _ in ready}), len(ready))
        self.assertTrue(host.loaded())
        self.stop_clean(host)

    def test_keep_alive_zero_is_a_container_for_each_call(self):
        for size in (2, 0):
            with self.subTest(pool_size=size):
                host = self.host(pool_size=size, keep_alive_ms=0)
                if size:
                    host.wait_warm()
                host.controller.deploy("f", "import os\nprint(os.path.exists('/tmp/used'))\nopen('/tmp/used', 'w').close()", network="bridge")
                for _ in range(5):
                    result = host.controller.run("f")
                    self.assertEqual((result.text, result.cold_start), (b'"False\\n"', True), result)
                ready = re.findall(r"instance ready instance=(\w+) function=f ", host.worker.log())
                self.assertEqual((len(ready), len(set(ready))), (5, 5))
                self.assertEqual(bool(host.loaded()), size > 0)
                self.stop_clean(host)

    def test_what_an_interpreter_reads_at_its_start_is_there_at_its_start(self):
        host = self.host(pool_size=1)
        host.wait_warm()
        host.controller.deploy("f", "import sys, os\nprint('/tmp/lib' in sys.path, os.environ['PYTHONPATH'])", network="bridge", env={"PYTHONPATH": "/tmp/lib"})
        self.assertEqual(host.controller.run("f").value, "True /tmp/lib\n")
        self.assertEqual(host.loaded(), {})

    def test_a_warm_instance_that_is_killed_is_replaced(self):
        host = self.host(pool_size=1)
        victim = host.wait_warm()[0]["id"]
        for pid in host.processes(victim):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        host.wait(lambda: victim not in [i["id"] for i in host.instances()])
        host.controller.deploy("f", "print(1)", network="bridge")
        self.assertEqual(host.controller.run("f").value, 1)
        host.wait_warm()
        self.stop_clean(host)

    def test_a_keeper_that_is_killed_costs_no_call(self):
        host = self.host(pool_size=1)
        warm = host.wait_warm()[0]["id"]
        for pid in host.processes(warm):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/{pid}/comm") as file:
                if file.read().startswith("python"):
                    os.kill(pid, signal.SIGKILL)
        host.controller.deploy("f", "print(1)", network="bridge")
        self.assertEqual(host.controller.run("f").value, 1)

    def test_functions_need_not_fear_for_their_room(self):
        host = self.host(pool_size=4, memory_mb=160)
        host.wait_warm()
        for name in ("f", "g"):
            host.controller.deploy(name, f"print('{name}')", network="none", memory_mb=150)
            self.assertEqual(host.controller.run(name).value, f"{name}\n")

    def test_a_killed_worker_leaves_nothing_to_its_successor(self):
        host = self.host(pool_size=2)
        host.wait_warm()
        host.controller.deploy("f", "print(1)", network="bridge")
        host.controller.run("f")
        host.wait_warm(2)
        host.worker.kill()
        self.assertTrue([line for line in host.worker.leftovers() if "/attach/" in line])
        host.worker.start()
        self.assertEqual(host.controller.run("f").value, 1)
        with open("/proc/self/mountinfo") as mounts:
            points = re.findall(rf"/run/faas/{host.worker.name}/attach/(\w+)", mounts.read())
        alive = {i["id"] for i in host.wait(host.instances)}
        self.assertLessEqual(set(points), alive | set(re.findall(r"instance=(\w+)", host.worker.log())))
        self.stop_clean(host)

    def test_stopping_in_the_middle_of_a_refill_leaves_nothing(self):
        host = self.host(pool_size=16, start_parallel=2)
        host.controller.deploy("f", "print(1)", network="bridge")
        host.controller.run("f")
        host.wait(lambda: len(host.instances(state="creating")) >= 3)  # one that is prepared and waits among them
        self.stop_clean(host)

    def test_the_hosts_mounts_of_a_loaded_instance_go_while_it_lives(self):
        host = self.host(pool_size=1)
        host.wait_warm()
        host.controller.deploy("f", "print(open('/proc/self/mountinfo').read().count('/app/function'))", network="bridge")
        self.assertEqual(host.controller.run("f").value, 2)
        instance = next(iter(host.loaded()))

        def gone():
            with open("/proc/self/mountinfo") as mounts:
                return f"/attach/{instance}" not in mounts.read()

        host.wait(gone)
        self.assertEqual(host.controller.run("f").value, 2)

    def test_a_pool_of_nothing_keeps_nothing(self):
        host = self.host(pool_size=0)
        host.controller.deploy("f", "print(1)", network="bridge")
        self.assertEqual(host.controller.run("f").value, 1)
        self.assertEqual([i for i in host.wait(host.instances) if "function" not in i], [])

    def test_a_burst_of_short_calls_starts_few_instances(self):
        host = self.host(pool_size=2)
        host.wait_warm()
        host.controller.deploy("f", "print(1)", network="bridge")
        for _ in range(3):
            host.controller.run("f")
        for execution in [host.controller.invoke("f") for _ in range(50)]:
            self.assertEqual(host.controller.result(execution).value, 1)
        self.assertLess(len(re.findall(r"instance ready instance=\w+ function=f ", host.worker.log())), 25)


@unittest.skipUnless(have_images(), "the runtime images have not been built")
class Images(unittest.TestCase):
    """Generic instances of an image that is no longer what it was."""

    def setUp(self):
        self.images = tempfile.mkdtemp(prefix="faas-pool-images-")
        self.addCleanup(shutil.rmtree, self.images)
        os.chmod(self.images, 0o711)
        archives = os.path.join(BUILD, "images")
        self.archive = os.path.join(archives if os.path.isdir(archives) else os.path.join(ROOT, "build", "images"), "faas-runtime-native.tar")
        self.faas("import", "faas-runtime-native:latest", self.archive)
        self.host = Host(pool_size=1, image_dir=self.images)
        self.addCleanup(self.host.close)
        self.first = self.host.wait_warm(runtime="native")[0]["id"]

    def faas(self, *arguments):
        subprocess.run([os.path.join(BIN, "faas"), "image", *arguments], check=True, stdout=subprocess.DEVNULL,
                       env=dict(os.environ, WORKER_IMAGE_DIR=self.images))  # fmt: skip

    def replace(self):
        rootfs = next(iter(glob.glob(os.path.join(self.images, "chains", "*"))))
        with tempfile.TemporaryDirectory() as top:
            subprocess.run(["cp", "-a", rootfs, os.path.join(top, "rootfs")], check=True)
            with open(os.path.join(top, "rootfs", "replaced"), "w") as file:
                file.write('"yes"')
            self.faas("import", "faas-runtime-native:latest", os.path.join(top, "rootfs"))

    def test_a_replaced_image_takes_them_along(self):
        self.replace()
        self.host.wait(lambda: self.host.warm("native") and self.first not in [i["id"] for i in self.host.instances()])
        self.host.controller.deploy("f", "#!/bin/sh\ncat /replaced\n", runtime="native", network="bridge")
        self.assertEqual(self.host.controller.run("f").value, "yes")
        self.assertTrue(self.host.loaded())

    def test_a_call_at_that_moment_sees_the_new_image(self):
        self.host.controller.deploy("f", "#!/bin/sh\ncat /replaced\n", runtime="native", network="bridge")
        self.replace()
        self.assertEqual(self.host.controller.run("f").value, "yes")

    def test_a_removed_image_takes_them_along_and_is_removed(self):
        self.faas("rm", "faas-runtime-native:latest")
        self.host.wait(lambda: not self.host.instances())
        self.assertEqual(self.host.worker.stop(), 0)
        self.assertEqual(self.host.worker.leftovers(), [])

    def test_the_same_image_once_more_changes_nothing(self):
        self.faas("import", "faas-runtime-native:latest", self.archive)
        self.faas("import", "another:latest", self.archive)
        self.host.controller.deploy("f", "#!/bin/sh\necho 1\n", runtime="native", network="bridge")
        self.assertEqual(self.host.controller.run("f").value, 1)
        self.assertEqual(list(self.host.loaded()), [self.first])


if __name__ == "__main__":
    if os.geteuid() != 0:
        print("needs root")
        sys.exit(77)
    unittest.main(verbosity=2)
