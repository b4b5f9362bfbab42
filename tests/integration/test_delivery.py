"""Delivery of asynchronous invocations, on SQLite and on PostgreSQL: retries, dead letters, keys, priorities, long backlogs, killed
controllers. Nothing accepted is lost, nothing has two results."""
import collections
import contextlib
import json
import os
import subprocess
import threading
import unittest

import controller as fixture
from controller import Controller, Worker, wait_until
from postgresql import PostgreSQL

FAILED = {"status": "failed", "error": {"type": "Boom", "message": "no", "exit_code": 1}}


class Fails:
    """Fails the first `times` attempts of each execution."""

    def __init__(self, times):
        self.times = times
        self.attempts = collections.defaultdict(list)

    def __call__(self, head, payload):
        attempts = self.attempts[head["execution_id"]]
        attempts.append(head["attempt"])
        return (FAILED, b"", b"log") if len(attempts) <= self.times else ({"status": "succeeded"}, payload, b"")


class Delivery:
    """The tests, for each store."""

    settings = {"CONTROLLER_ASYNC_ATTEMPTS": 4}

    def setUp(self):
        self.stack = contextlib.ExitStack()
        self.addCleanup(self.stack.close)
        self.controller = self.stack.enter_context(Controller(**self.database(), **self.settings))

    def database(self):
        raise NotImplementedError

    def worker(self, *args, **options):
        return self.stack.enter_context(Worker(self.controller, *args, **options))

    def api(self, *args, **options):
        return self.controller.request(*args, **options)

    def accept(self, name, payload=None, query="", **headers):
        answer = self.api("POST", f"/v1/functions/{name}/invocations?mode=async{query}", payload,
                          headers={key.replace("_", "-"): value for key, value in headers.items()})  # fmt: skip
        self.assertEqual(answer.status, 202, answer)
        return answer.json()["id"]

    def dead_letters(self, query=""):
        return self.api("GET", "/v1/dead-letters" + query).json()["dead_letters"]

    def metric(self, name):
        for line in self.api("GET", "/metrics", token=None).body.decode().splitlines():
            if line.startswith(name + " "):
                return float(line.split()[1])
        raise AssertionError(name)

    # ---- retries ----

    def test_a_failure_is_tried_again_by_the_functions_policy(self):
        self.controller.deploy("f", retry={"max_attempts": 3, "backoff_ms": 20})
        fails = Fails(2)
        self.worker(run=fails)
        id_ = self.accept("f", [7])
        execution = self.controller.wait_execution(id_)
        self.assertEqual((execution["status"], execution["result"], execution["attempt"]), ("succeeded", [7], 3))
        self.assertEqual(fails.attempts[id_], [1, 2, 3])
        self.assertNotIn("error", execution)
        self.assertEqual(self.metric("faas_async_retries_total"), 2)

    def test_without_a_policy_a_failure_is_final_and_a_dead_letter(self):
        self.controller.deploy("f")
        fails = Fails(1)
        self.worker(run=fails)
        id_ = self.accept("f", [7])
        execution = self.controller.wait_execution(id_)
        self.assertEqual((execution["status"], execution["error"]["type"], execution["logs"]), ("failed", "Boom", "log"))
        self.assertTrue(execution["dead_at"])
        self.assertEqual(fails.attempts[id_], [1])
        self.assertEqual([letter["id"] for letter in self.dead_letters()], [id_])

    def test_what_a_worker_could_not_run_is_given_out_again(self):
        """By no policy of the function's: it was not the function that failed."""
        self.controller.deploy("f", retry={"backoff_ms": 20})
        attempts = []

        def run(head, payload):
            attempts.append(head["attempt"])
            lost = {"status": "lost", "error": {"type": "Platform.StartFailed", "message": "no", "exit_code": -1}}
            return (lost, b"", b"") if len(attempts) < 3 else ({"status": "succeeded"}, payload, b"")

        self.worker(run=run)
        execution = self.controller.wait_execution(self.accept("f", [7]))
        self.assertEqual((execution["status"], execution["result"], attempts), ("succeeded", [7], [1, 2, 3]))
        self.assertEqual(self.dead_letters(), [])

    def test_what_no_worker_can_run_is_a_dead_letter_in_the_end(self):
        self.controller.deploy("f", retry={"backoff_ms": 10})
        lost = {"status": "lost", "error": {"type": "Platform.StartFailed", "message": "no", "exit_code": -1}}
        self.worker(run=lambda head, payload: (lost, b"", b""))
        id_ = self.accept("f")
        execution = self.controller.wait_execution(id_)
        self.assertEqual((execution["status"], execution["error"]["type"], execution["attempt"]), ("lost", "Platform.StartFailed", 4))
        self.assertEqual([letter["id"] for letter in self.dead_letters()], [id_])

    def test_an_attempt_is_lost_once_however_late_its_worker_says_so(self):
        self.controller.deploy("f", retry={"backoff_ms": 10})
        lost = {"status": "lost", "error": {"type": "Platform.StartFailed", "message": "no", "exit_code": -1}}
        outcomes = {1: None, 2: (lost, b"", b""), 3: (lost, b"", b"")}
        worker = self.worker(run=lambda head, payload: outcomes.get(head["attempt"], ({"status": "succeeded"}, payload, b"")))
        id_ = self.accept("f", [7])
        first = worker.wait_seen("invoke")[0]
        worker.draining = True  # it gets no other before it has spoken
        with worker.lock:
            worker.running.clear()
        worker.cut()
        self.controller.wait_execution(id_, "queued")
        wait_until(lambda: worker.connections == 2 and worker.acknowledged, "it is connected again")
        worker.send_result(first, lost)
        worker.draining = False
        execution = self.controller.wait_execution(id_)
        self.assertEqual((execution["status"], execution["attempt"]), ("succeeded", 4))

    def test_a_synchronous_failure_is_no_dead_letter(self):
        self.controller.deploy("f", retry={"max_attempts": 3})
        self.worker(run=Fails(1))
        self.assertEqual(self.controller.invoke("f")["status"], "failed")
        self.assertEqual(self.dead_letters(), [])

    def test_what_waited_for_too_long_is_a_dead_letter(self):
        self.controller.deploy("f", retry={"max_age_ms": 1000})
        id_ = self.accept("f")
        with Worker(self.controller, name="other", slots=0):
            created = self.controller.execution(id_)["created_at"]
            wait_until(lambda: fixture.seconds_since(created) > 1.1, "it has aged")
        self.worker()
        execution = self.controller.wait_execution(id_)
        self.assertEqual((execution["status"], execution["error"]["type"]), ("cancelled", "Platform.TooOld"))
        self.assertEqual([letter["id"] for letter in self.dead_letters()], [id_])

    # ---- dead letters ----

    def test_dead_letters_are_listed_shown_queued_again_and_removed(self):
        for name in ("f", "g"):
            self.controller.deploy(name)
        fails = Fails(1)
        self.worker(run=fails)
        ids = [self.accept(name, {"n": n}) for n, name in enumerate(("f", "f", "g"))]
        for id_ in ids:
            self.controller.wait_execution(id_)
        self.assertEqual([letter["id"] for letter in self.dead_letters()], ids[::-1])
        self.assertEqual([letter["id"] for letter in self.dead_letters("?function=f")], ids[1::-1])
        page = self.api("GET", "/v1/dead-letters?limit=2").json()
        self.assertEqual([letter["id"] for letter in self.dead_letters("?cursor=" + page["next_cursor"])], ids[:1])
        shown = self.api("GET", "/v1/dead-letters/" + ids[0]).json()
        self.assertEqual((shown["payload"], shown["execution"]["error"]["type"]), ({"n": 0}, "Boom"))

        self.assertEqual(self.api("POST", f"/v1/dead-letters/{ids[0]}/redrive").json(), {"count": 1})
        execution = self.controller.wait_execution(ids[0], "succeeded")
        self.assertEqual((execution["result"], execution["attempt"]), ({"n": 0}, 2))
        self.assertEqual(self.api("POST", f"/v1/dead-letters/{ids[0]}/redrive").status, 404)
        self.assertEqual(self.api("DELETE", "/v1/dead-letters?function=g").json(), {"count": 1})
        self.assertEqual(self.api("DELETE", "/v1/dead-letters/" + ids[2]).status, 404)
        self.assertEqual(self.api("GET", "/v1/dead-letters/" + ids[2]).status, 404)
        self.assertEqual(self.api("POST", "/v1/dead-letters/redrive").json(), {"count": 1})
        self.controller.wait_execution(ids[1], "succeeded")
        self.assertEqual(self.dead_letters(), [])
        for path in ("/v1/dead-letters/x", "/v1/dead-letters/0190a000-0000-7000-8000-000000000000"):
            for method in ("GET", "DELETE"):
                self.assertEqual(self.api(method, path).status, 404)
        for query in ("?function=NO", "?cursor=x", "?limit=0"):
            self.assertEqual(self.api("GET", "/v1/dead-letters" + query).status, 400)

    def test_the_command_for_dead_letters(self):
        self.controller.deploy("f")
        self.worker(run=Fails(1))
        id_ = self.accept("f", {"n": 1})
        self.controller.wait_execution(id_)

        def faas(*arguments, status=0):
            done = subprocess.run([os.path.join(fixture.BIN, "faas"), *arguments, "--url", self.controller.url, "--token", self.controller.token],
                                  capture_output=True, text=True, check=False)  # fmt: skip
            self.assertEqual(done.returncode, status, done)
            return done.stdout

        self.assertIn(id_, faas("dlq", "list"))
        self.assertIn("Boom", faas("dlq", "list", "f"))
        self.assertEqual(json.loads(faas("dlq", "list", "--json"))["id"], id_)
        self.assertEqual(json.loads(faas("dlq", "show", id_, "--json"))["payload"], {"n": 1})
        faas("dlq", "purge", status=2)
        self.assertEqual(faas("dlq", "redrive", id_), "1 queued again\n")
        self.controller.wait_execution(id_, "succeeded")
        faas("dlq", "redrive", id_, status=4)
        self.assertEqual(faas("dlq", "purge", "--all"), "0 removed\n")
        self.controller.wait_execution(faas("invoke", "f", "--async", "--priority", "high").strip())
        faas("invoke", "f", "--priority", "high", status=2)
        faas("invoke", "f", "--async", "--priority", "highest", status=2)

    # ---- keys ----

    def test_the_same_key_is_the_same_execution(self):
        for name in ("f", "g"):
            self.controller.deploy(name)
        first = self.accept("f", 1, Idempotency_Key="once")
        self.assertEqual(self.accept("f", 2, Idempotency_Key="once"), first)
        self.assertNotEqual(self.accept("g", 3, Idempotency_Key="once"), first)
        self.assertNotEqual(self.accept("f", 4, Idempotency_Key="twice"), first)
        self.controller.kill()
        self.controller.start()
        self.assertEqual(self.accept("f", 5, Idempotency_Key="once"), first)
        worker = self.worker()
        self.assertEqual(self.controller.wait_execution(first)["result"], 1)
        self.assertEqual(self.accept("f", 6, Idempotency_Key="once"), first)
        self.assertEqual(sum(head["execution_id"] == first for head in worker.seen if head["kind"] == "invoke"), 1)

    def test_many_at_once_with_one_key_are_one(self):
        self.controller.deploy("f")
        ids = []
        clients = [threading.Thread(target=lambda: ids.append(self.accept("f", 1, Idempotency_Key="k"))) for _ in range(16)]
        for thread in clients:
            thread.start()
        for thread in clients:
            thread.join()
        self.assertEqual((len(ids), len(set(ids))), (16, 1))
        self.assertEqual(len(self.api("GET", "/v1/executions?function=f").json()["executions"]), 1)

    def test_what_is_for_asynchronous_ones_only_is_refused(self):
        self.controller.deploy("f")
        for query, headers, field in (("", {"Idempotency-Key": "k"}, "Idempotency-Key"), ("?priority=high", {}, "priority"),
                                      ("?mode=async&priority=x", {}, "priority"),
                                      ("?mode=async", {"Idempotency-Key": "x" * 300}, "Idempotency-Key")):  # fmt: skip
            answer = self.api("POST", "/v1/functions/f/invocations" + query, headers=headers)
            self.assertEqual((answer.status, answer.json()["error"]["field"]), (400, field), answer)

    # ---- order and backlogs ----

    def test_priorities(self):
        self.controller.deploy("f")
        for n, priority in enumerate(("low", "normal", "high", "normal", "high")):
            self.accept("f", n, "&priority=" + priority)
        order = []
        self.worker(slots=1, run=lambda head, payload: (order.append(int(payload)), ({"status": "succeeded"}, payload, b""))[1])
        wait_until(lambda: len(order) == 5, "all ran")
        self.assertEqual(order, [2, 4, 1, 3, 0])

    def test_a_long_backlog_waits_in_the_store_and_holds_nobody_up(self):
        count = 1500
        for name in ("many", "one"):
            self.controller.deploy(name)
        ids = [None] * count

        def client(part):
            with contextlib.closing(self.controller.connect()) as connection:
                for n in range(part, count, 8):
                    connection.request("POST", "/v1/functions/many/invocations?mode=async", *self.controller.prepare(str(n).encode(), "", None))
                    ids[n] = fixture.Answer(connection.getresponse()).json()["id"]

        clients = [threading.Thread(target=client, args=(part,)) for part in range(8)]
        for thread in clients:
            thread.start()
        for thread in clients:
            thread.join()
        self.assertLessEqual(self.metric("faas_executions_queued"), 256)
        self.assertGreaterEqual(self.metric("faas_async_stored"), count - 256)
        ran, lock = [], threading.Lock()

        def run(head, payload):
            with lock:
                ran.append((head["function"], head["execution_id"]))
            return {"status": "succeeded"}, payload, b""

        single = self.accept("one")
        self.worker(slots=4, run=run)
        wait_until(lambda: len(ran) >= count + 1, "all ran")
        position = [id_ for _, id_ in ran].index(single)
        self.assertLess(position, 300, "it waited for its turn only")
        self.assertEqual(collections.Counter(id_ for _, id_ in ran), collections.Counter(ids + [single]))
        for n in (0, 1, count // 2, count - 1):
            self.assertEqual(self.controller.wait_execution(ids[n])["result"], n)

    def test_too_much_is_throttled(self):
        self.controller.stop()
        self.controller.start(CONTROLLER_ASYNC_QUEUE_LENGTH=3, CONTROLLER_QUEUE_LENGTH_PER_FUNCTION=2)
        self.controller.deploy("f")
        statuses = [self.api("POST", "/v1/functions/f/invocations?mode=async").status for _ in range(8)]
        self.assertEqual(statuses[-1], 429)
        self.assertIn(statuses.count(202), (3, 5))  # with a window of two where nobody else could have them

    # ---- kills ----

    def test_a_killed_controller_loses_and_doubles_nothing(self):
        self.controller.deploy("f", retry={"max_attempts": 2, "backoff_ms": 10})
        results = collections.Counter()

        def run(head, payload):
            results[head["execution_id"]] += 1
            return {"status": "succeeded"}, payload, b""

        ids = [self.accept("f", n) for n in range(400)]
        with Worker(self.controller, slots=4, run=run):
            wait_until(lambda: len(results) > 100, "some ran")
            self.controller.kill()
        self.controller.start()
        self.worker(name="w2", run=run)
        for n, id_ in enumerate(ids):
            execution = self.controller.wait_execution(id_)
            self.assertEqual((execution["status"], execution["result"]), ("succeeded", n))
        self.assertEqual(set(results), set(ids))


class OnSQLite(Delivery, unittest.TestCase):
    def database(self):
        return {}

    def copy(self, flag, file):
        return subprocess.run([os.path.join(fixture.BIN, "faas-controller"), flag, file, "--data-dir", self.controller.data_dir],
                              capture_output=True, text=True, check=False)  # fmt: skip

    def test_a_backup_under_load_has_all_that_was_accepted_before(self):
        self.controller.deploy("f")
        file = os.path.join(self.controller.folder, "backup.db")
        stop, later = threading.Event(), []

        def client():
            while not stop.is_set():
                later.append(self.accept("f"))

        before = [self.accept("f", n) for n in range(50)]
        thread = threading.Thread(target=client)
        thread.start()
        done = self.copy("--backup", file)
        stop.set()
        thread.join()
        self.assertEqual((done.returncode, done.stdout), (0, file + "\n"), done)
        self.assertEqual(self.copy("--restore", file).returncode, 1, "the controller runs")
        self.controller.stop()
        self.assertEqual(self.copy("--restore", file).returncode, 0)
        self.controller.start()
        self.worker(slots=8)
        for n, id_ in enumerate(before):
            self.assertEqual(self.controller.wait_execution(id_)["result"], n)


class OnPostgreSQL(Delivery, unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = PostgreSQL().__enter__()
        cls.addClassCleanup(cls.server.__exit__)
        cls.databases = 0

    def database(self):
        type(self).databases += 1
        return {"CONTROLLER_DATABASE_URL": self.server.create_database(f"test{self.databases}"), "CONTROLLER_LEASE_MS": 3000}


if __name__ == "__main__":
    unittest.main()
