"""Workers are upgraded while they are called: one is restarted in its place, two one after the other. Real processes and containers, clients
that never try again: every call succeeds, each runs once, nothing is left."""
import collections
import contextlib
import json
import os
import re
import subprocess
import threading
import unittest

import worker as real
from controller import BIN, WAIT_S, Controller, wait_until

CODE = "import json, sys, time\ncall = json.load(sys.stdin)\ntime.sleep(call['sleep'])\nprint(json.dumps(call['n']))\n"
LONG_EVERY = 12  # so many calls one runs for 1 to 2 s: a stop has to wait for it


class Worker(real.Worker):
    """A real worker of a real controller."""

    def start(self):
        self.started_at = os.path.getsize(self.log_path) if os.path.exists(self.log_path) else 0
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen([os.path.join(BIN, "faas-worker")], env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until(lambda: self.process.poll() is not None or "connected to controller" in self.log()[self.started_at :], "it is connected")
        if self.process.poll() is not None:
            raise AssertionError(f"the worker did not start:\n{self.log()[-4000:]}")
        return self

    def runs(self):
        """How often each execution came to its end here."""
        return collections.Counter(re.findall(r'execution finished"? execution=(\S+)', self.log()))


class Load:
    """Clients that call again and again, each as soon as it has its answer, the asynchronous ones as soon as theirs is accepted."""

    def __init__(self, controller, sync=5, asynchronous=1):
        self.controller = controller
        self.changed = threading.Condition()
        self.over = False
        self.done, self.accepted, self.failures = {}, {}, []
        clients = [(i, self.call) for i in range(sync)] + [(sync + i, self.call_async) for i in range(asynchronous)]
        self.threads = [threading.Thread(target=self.run, args=client, daemon=True) for client in clients]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.over = True
        for thread in self.threads:
            thread.join(WAIT_S)

    def run(self, client, call):
        with contextlib.closing(self.controller.connect()) as connection:
            for i in range(10**6):
                if self.over:
                    return
                n = client * 10**6 + i
                sleep = 1 + client % 3 / 2 if (i + client) % LONG_EVERY == 0 else 0.01 * (i % 5)
                try:
                    call(connection, n, {"n": n, "sleep": sleep})
                except Exception as error:  # whatever it is, a client has noticed
                    self.failures.append((n, repr(error)))
                    return

    def post(self, connection, path, body):
        connection.request("POST", path, *self.controller.prepare(body, "", None))
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())

    def call(self, connection, n, body):
        status, execution = self.post(connection, "/v1/functions/f/invocations", body)
        self.note(n, execution if status == 200 else {"answer": (status, execution)})

    def note(self, n, execution):
        if (execution.get("status"), execution.get("result"), execution.get("attempt")) != ("succeeded", n, 1):
            self.failures.append((n, execution))
        with self.changed:
            self.done[n] = execution.get("id")
            self.changed.notify_all()

    def call_async(self, connection, n, body):
        status, accepted = self.post(connection, "/v1/functions/f/invocations?mode=async", body)
        if status != 202:
            self.failures.append((n, status, accepted))
            return
        self.accepted[n] = accepted["id"]
        wait_until(lambda: len(self.accepted) - 20 < len(self.done) / 4 or self.over, "it does not run away")

    def wait_for_more(self, count):
        with self.changed:
            before = len(self.done)
            if not self.changed.wait_for(lambda: len(self.done) >= before + count or self.failures, WAIT_S):
                raise AssertionError(f"{len(self.done) - before} calls in {WAIT_S} s")

    def settle(self):
        """After its end: what was accepted comes to its own."""
        for n, id_ in self.accepted.items():
            self.note(n, self.controller.wait_execution(id_))


@unittest.skipUnless(os.geteuid() == 0 and real.have_images(), "needs root and the runtime images")
class Upgrade(unittest.TestCase):
    def setUp(self):
        self.stack = contextlib.ExitStack()
        self.addCleanup(self.stack.close)
        self.controller = self.stack.enter_context(Controller(WORKER_TOKEN=real.TOKEN))
        self.controller.deploy("f", code=real.base64.b64encode(CODE.encode()).decode(), network="none", timeout_ms=30000)

    def worker(self, name, **settings):
        return self.stack.enter_context(Worker(self.controller, name=f"{name}-{os.getpid()}", concurrency=8, **settings))

    def faas(self, *arguments):
        environment = {"PATH": os.environ["PATH"], "FAAS_URL": self.controller.url, "FAAS_TOKEN": self.controller.token}
        return subprocess.run([os.path.join(BIN, "faas"), *arguments], env=environment, check=True, capture_output=True, text=True, timeout=WAIT_S).stdout

    def state(self, worker):
        listed = self.controller.request("GET", "/v1/workers").json()["workers"]
        return {w["name"]: w["state"] for w in listed}[worker.name]

    def restart(self, worker):
        """As a service manager does it: the next one starts when the one before has ended."""
        self.assertEqual(worker.stop(), 0, worker.log()[-4000:])
        self.assertEqual(worker.leftovers(), [])
        worker.start()

    def check(self, load, *workers):
        load.settle()
        self.assertEqual(load.failures, [])
        runs = sum((worker.runs() for worker in workers), collections.Counter())
        self.assertEqual(set(runs), set(load.done.values()))
        self.assertEqual(set(runs.values()), {1}, "each has run once")
        for worker in workers:
            self.assertEqual(worker.stop(), 0)
            self.assertEqual(worker.leftovers(), [])

    def test_a_worker_that_is_restarted_in_its_place_again_and_again(self):
        worker = self.worker("one")
        with Load(self.controller) as load:
            for _ in range(4):
                load.wait_for_more(40)
                self.restart(worker)
            load.wait_for_more(40)
        self.check(load, worker)

    def test_two_workers_one_after_the_other_with_drain_and_resume(self):
        workers = [self.worker("one"), self.worker("two")]
        with Load(self.controller) as load:
            for worker in workers * 2:
                load.wait_for_more(40)
                self.faas("workers", "drain", worker.name)
                wait_until(lambda w=worker: self.state(w) == "drained", "it has drained")
                wait_until(lambda w=worker: "drained: no calls come" in w.log()[w.started_at :], "it knows")
                load.wait_for_more(10)
                self.restart(worker)
                wait_until(lambda w=worker: "drained: no calls come" in w.log()[w.started_at :], "its successor knows, too")
                self.faas("workers", "resume", worker.name)
                wait_until(lambda w=worker: "resumed: calls come again" in w.log()[w.started_at :], "it knows that this is over")
            load.wait_for_more(40)
        self.check(load, *workers)


if __name__ == "__main__":
    unittest.main()
