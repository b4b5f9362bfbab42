"""Several controllers on one PostgreSQL: functions of all at each, what one had taken goes to another when it is killed or hangs."""
import collections
import contextlib
import os
import shutil
import signal
import threading
import unittest

import controller as fixture
from controller import Controller, Worker, wait_until
from postgresql import PostgreSQL

LEASE_MS = 3000


class Controllers(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = PostgreSQL("max_connections=60").__enter__()
        cls.addClassCleanup(cls.server.__exit__)
        cls.databases = 0

    def setUp(self):
        self.stack = contextlib.ExitStack()
        self.addCleanup(self.stack.close)
        type(self).databases += 1
        self.url = self.server.create_database(f"test{self.databases}")
        self.a = self.controller()
        self.b = self.controller(self.a)

    def controller(self, like=None):
        controller = Controller(CONTROLLER_DATABASE_URL=self.url, CONTROLLER_LEASE_MS=LEASE_MS, CONTROLLER_WORKER_RECONNECT_MS=500)
        if like:
            os.makedirs(controller.data_dir)
            for name in ("token", "worker-token"):
                shutil.copy(os.path.join(like.data_dir, name), controller.data_dir)
        return self.stack.enter_context(controller)

    def worker(self, controller, *args, **options):
        return self.stack.enter_context(Worker(controller, *args, **options))

    def test_a_function_is_at_every_controller_at_once(self):
        workers = [self.worker(self.a, "wa"), self.worker(self.b, "wb")]
        for n in range(5):
            first, second = (self.a, self.b) if n % 2 else (self.b, self.a)
            first.deploy(f"f{n}", env={"N": str(n)})
            execution = second.invoke(f"f{n}", n)
            self.assertEqual((execution["result"], execution["version"]), (n, 1))
            wait_until(lambda id_=execution["id"], c=first: c.execution(id_).get("result") == n, "its record is at the other one")
        deployed = self.a.deploy("f0", env={"N": "new"})
        self.assertEqual(deployed["version"], 2)
        wait_until(lambda: self.b.invoke("f0")["version"] == 2, "the new version serves at the other one")
        code = workers[1].call("GET", "/v1/worker/code/" + deployed["code_sha256"])
        self.assertEqual(code.status, 200)
        self.assertEqual(self.a.request("DELETE", "/v1/functions/f0").status, 204)
        wait_until(lambda: self.b.request("POST", "/fn/f0").status == 404, "it is gone at the other one")
        self.assertEqual(self.b.deploy("f0")["version"], 3, "numbers go on")

    def test_a_token_is_known_and_revoked_at_every_controller(self):
        made = self.a.request("POST", "/v1/tokens", {"name": "caller", "scope": "admin"})
        self.assertEqual(made.status, 201, made)
        token = made.json()["token"]
        wait_until(lambda: self.b.request("GET", "/v1/functions", token=token).status == 200, "the other one knows it")
        again = self.b.request("POST", "/v1/tokens", {"name": "caller", "scope": "invoke"})
        self.assertEqual(again.status, 409, again)
        self.assertEqual(self.b.request("DELETE", "/v1/tokens/caller").status, 204)
        wait_until(lambda: self.a.request("GET", "/v1/functions", token=token).status == 401, "it is revoked at the other one")

    @staticmethod
    def states(controller):
        return {worker["name"]: worker["state"] for worker in controller.request("GET", "/v1/workers").json()["workers"]}

    def test_a_drain_that_one_was_told_holds_at_every_controller(self):
        for controller in (self.a, self.b):
            self.worker(controller, "w")
        self.a.deploy("f")
        self.assertEqual(self.a.request("POST", "/v1/workers/w/drain").status, 204)
        wait_until(lambda: self.states(self.b) == {"w": "drained"}, "the other one knows it")
        self.b.stop()
        self.b.start()
        wait_until(lambda: self.states(self.b) == {"w": "drained"}, "it knows it after a restart")
        id_ = self.b.invoke_async("f", 1)
        self.assertEqual(self.b.execution(id_)["status"], "queued")
        self.assertEqual(self.b.request("DELETE", "/v1/workers/w/drain").status, 204)
        wait_until(lambda: self.states(self.a) == {"w": "active"}, "the other one knows that it is over")
        self.assertEqual(self.b.wait_execution(id_)["status"], "succeeded")

    def test_what_waits_where_all_workers_are_drained_runs_at_another_controllers(self):
        hold = threading.Event()
        self.addCleanup(hold.set)

        def run(head, payload):
            hold.wait(fixture.WAIT_S)
            return {"status": "succeeded"}, payload, b""

        busy = self.worker(self.a, "wa", slots=1, run=run)
        self.a.deploy("f")
        first = self.a.invoke_async("f", 0)
        busy.wait_seen("invoke")
        ids = [self.a.invoke_async("f", n) for n in range(1, 20)]
        self.assertEqual(self.a.request("POST", "/v1/workers/wa/drain").status, 204)
        self.worker(self.b, "wb")
        self.assertEqual({self.a.wait_execution(id_)["worker"] for id_ in ids}, {"wb"})
        hold.set()
        done = self.a.wait_execution(first)
        self.assertEqual((done["status"], done["worker"], done["attempt"]), ("succeeded", "wa", 1))

    def test_changes_at_both_at_the_same_time_are_versions_of_their_own(self):
        answers = []

        def deploy(controller, n):
            body = {"runtime": "python", "code": fixture.CODE, "env": {"N": str(n)}}
            answers.append(controller.request("PUT", "/v1/functions/f", body))

        threads = [threading.Thread(target=deploy, args=((self.a, self.b)[n % 2], n)) for n in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        done = [answer.json()["version"] for answer in answers if answer.status in (200, 201)]
        refused = [answer for answer in answers if answer.status not in (200, 201)]
        self.assertEqual(len(done), len(set(done)))
        self.assertTrue(done)
        for answer in refused:
            self.assertEqual((answer.status, answer.json()["error"]["type"]), (409, "conflict"), answer)
        newest = max(done)
        for controller in (self.a, self.b):
            wait_until(lambda c=controller: c.request("GET", "/v1/functions/f").json()["version"] == newest, "both have the newest")

    def test_what_one_accepts_runs_at_the_workers_of_another(self):
        self.a.deploy("f")
        self.worker(self.b)
        ids = [self.a.invoke_async("f", n) for n in range(20)]
        for n, id_ in enumerate(ids):
            self.assertEqual(self.a.wait_execution(id_)["result"], n)

    def test_an_idempotency_key_holds_at_all(self):
        self.a.deploy("f")
        ids = {c.request("POST", "/v1/functions/f/invocations?mode=async", 1, headers={"Idempotency-Key": "k"}).json()["id"] for c in (self.a, self.b)}
        self.assertEqual(len(ids), 1)

    def test_the_tokens_are_the_same(self):
        other = Controller(CONTROLLER_DATABASE_URL=self.url)
        other.use_token("another-token-than-the-first")
        with self.assertRaisesRegex(AssertionError, "not the one that the controllers on this database accept"):
            with other:
                pass

    def counting(self, runs, hold=None):
        lock = threading.Lock()

        def run(head, payload):
            with lock:
                runs[head["execution_id"]] += 1
                first = runs[head["execution_id"]] == 1
            if hold and first:
                hold.wait(fixture.WAIT_S)
            return {"status": "succeeded"}, payload, b""

        return run

    def test_a_killed_controllers_work_goes_to_the_other(self):
        self.a.deploy("f")
        runs = collections.Counter()
        hold = threading.Event()
        with Worker(self.a, "wa", slots=4, run=self.counting(runs, hold)):
            ids = [self.a.invoke_async("f", n) for n in range(100)]
            wait_until(lambda: len(runs) == 4, "some run")
            self.a.kill()
            self.worker(self.b, "wb", slots=4, run=self.counting(runs))
            for n, id_ in enumerate(ids):
                execution = self.b.wait_execution(id_)
                self.assertEqual((execution["status"], execution["result"]), ("succeeded", n))
        hold.set()
        self.assertEqual(sorted(runs.values())[-4:], [2] * 4, "those that ran were run again, and no other")
        self.assertEqual(sum(runs.values()), 104)

    def test_a_killed_controllers_builds_go_to_the_other(self):
        stuck = self.worker(self.a, "wa", build=lambda head: threading.Event().wait(fixture.WAIT_S))
        self.a.deploy("g", runtime="go")
        stuck.wait_seen("build")
        other = self.worker(self.b, "wb", build=lambda head: (True, b"", b"artifact"))
        self.assertEqual(self.b.request("GET", "/v1/functions/g").json()["state"], "building")
        self.assertFalse(other.seen, "a controller that lives keeps its builds")
        self.a.kill()
        wait_until(lambda: self.b.request("GET", "/v1/functions/g").json()["state"] == "ready", "the other one has it built")
        self.assertEqual(self.b.invoke("g", 7)["result"], 7)
        self.a.start()
        self.worker(self.a, "wa2")
        self.assertEqual(self.a.invoke("g", 8)["result"], 8)

    def test_a_build_that_two_controllers_saw_to_has_one_outcome(self):
        late = self.worker(self.a, "wa")
        self.a.deploy("g", runtime="go")
        build = late.wait_seen("build")[0]
        self.worker(self.b, "wb", build=lambda head: (True, b"", b"artifact"))
        self.a.process.send_signal(signal.SIGSTOP)
        wait_until(lambda: self.b.request("GET", "/v1/functions/g").json()["state"] == "ready", "the other one has it built")
        late.post(fixture.message({"kind": "build_result", "build_id": build["build_id"], "ok": False, "output_len": 4}, b"late"))
        states = late.states
        self.a.process.send_signal(signal.SIGCONT)
        wait_until(lambda: late.states > states + 1, "the late outcome has come")
        wait_until(lambda: self.a.request("GET", "/v1/functions/g").json()["state"] == "ready", "the first outcome is known at both")
        self.assertEqual(self.server.psql("SELECT state FROM functions", f"test{self.databases}").stdout, "ready\n")
        self.assertEqual(self.b.invoke("g", 7)["result"], 7)

    def test_a_controller_that_hung_changes_nothing_of_what_others_have_taken(self):
        self.a.deploy("f")
        runs = collections.Counter()
        hold = threading.Event()
        worker = self.worker(self.a, "wa", slots=4, run=self.counting(runs, hold))
        ids = [self.a.invoke_async("f", n) for n in range(20)]
        wait_until(lambda: len(runs) == 4, "some run")
        self.a.process.send_signal(signal.SIGSTOP)
        self.worker(self.b, "wb", slots=4, run=self.counting(runs))
        finals = [self.b.wait_execution(id_) for id_ in ids]
        self.a.process.send_signal(signal.SIGCONT)
        hold.set()
        late = self.a.invoke("f", "still here")
        self.assertEqual(late["result"], "still here")
        accepted = self.a.invoke_async("f", "and accepts")
        self.assertEqual(self.a.wait_execution(accepted)["result"], "and accepts")
        wait_until(lambda: not worker.running, "the late ones have ended")
        for final in finals:
            for controller in (self.a, self.b):
                self.assertEqual(controller.execution(final["id"]), final)

    def test_a_controller_without_workers_gives_back(self):
        self.a.deploy("f")
        self.worker(self.b, "wb", slots=1)
        hold = threading.Event()
        with Worker(self.a, "wa", slots=1, run=lambda head, payload: (hold.wait(fixture.WAIT_S), None)[1]):
            ids = [self.a.invoke_async("f", n) for n in range(10)]
            running = wait_until(lambda: [i for i in ids if self.a.execution(i)["status"] == "running"], "one runs")
        for id_ in set(ids) - set(running):
            self.assertEqual(self.b.wait_execution(id_)["status"], "succeeded")
        hold.set()


if __name__ == "__main__":
    unittest.main()
