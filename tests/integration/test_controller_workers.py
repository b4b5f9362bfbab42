"""The controller and its workers: dispatch, sessions, loss, builds, durability, stopping."""
import base64
import contextlib
import json
import os
import select
import signal
import sqlite3
import subprocess
import threading
import time
import unittest

import controller as fixture
from controller import CODE, Controller, Worker, message, wait_until

GO = {"runtime": "go", "code": base64.b64encode(b"package main\nfunc main() {}\n").decode()}


class WorkersTest(unittest.TestCase):
    settings = {}

    def setUp(self):
        self.stack = contextlib.ExitStack()
        self.addCleanup(self.stack.close)
        self.controller = self.stack.enter_context(Controller(**self.settings))

    def worker(self, *args, **options):
        return self.stack.enter_context(Worker(self.controller, *args, **options))

    def api(self, *args, **options):
        return self.controller.request(*args, **options)

    def in_background(self, call, *args):
        answers = []
        thread = threading.Thread(target=lambda: answers.append(call(*args)), daemon=True)
        thread.start()
        return lambda: (thread.join(fixture.WAIT_S), answers[0])[1]


class Blocker:
    """Invocations run until they are let go."""

    def __init__(self):
        self.go, self.heads, self.most, self.now, self.lock = threading.Event(), [], 0, 0, threading.Lock()

    def __call__(self, head, payload):
        with self.lock:
            self.heads.append(head)
            self.now += 1
            self.most = max(self.most, self.now)
        self.go.wait(fixture.WAIT_S)
        with self.lock:
            self.now -= 1
        return {"status": "succeeded"}, payload, b""

    def wait(self, count):
        wait_until(lambda: len(self.heads) >= count, f"{count} invocations run")


class Dispatch(WorkersTest):
    def test_a_worker_never_has_more_than_its_slots(self):
        blocker = Blocker()
        self.worker(slots=3, run=blocker)
        self.controller.deploy("f")
        ids = [self.controller.invoke_async("f", n) for n in range(10)]
        blocker.wait(3)
        time.sleep(0.3)  # room for mistakes
        self.assertEqual(len(blocker.heads), 3)
        blocker.go.set()
        self.assertEqual([self.controller.wait_execution(i)["result"] for i in ids], list(range(10)))
        self.assertLessEqual(blocker.most, 3)

    def test_queued_ones_go_out_in_order(self):
        self.controller.deploy("f")
        ids = [self.controller.invoke_async("f", n) for n in range(20)]
        order = []
        self.worker(slots=1, run=lambda head, payload: (order.append(int(payload)), ({"status": "succeeded"}, payload, b""))[1])
        for id_ in ids:
            self.controller.wait_execution(id_)
        self.assertEqual(order, list(range(20)))

    def test_functions_take_turns(self):
        for name in ("busy", "quiet"):
            self.controller.deploy(name)
        ids = [self.controller.invoke_async("busy", n) for n in range(50)]
        ids.append(self.controller.invoke_async("quiet"))
        order = []
        worker = self.worker(slots=1, run=lambda head, payload: (order.append(head["function"]), ({"status": "succeeded"}, payload, b""))[1])
        worker.instances = [{"id": "a", "function": "busy", "version": 1, "state": "idle"}]
        for id_ in ids:
            self.controller.wait_execution(id_)
        self.assertLess(order.index("quiet"), 15)

    def test_generic_instances_are_shown_and_are_nobodys(self):
        worker = self.worker("generic")
        worker.instances = [{"id": "a", "image": "i:latest", "state": "warm"}, {"id": "b", "image": "i:latest", "state": "warm"},
                            {"id": "c", "function": "f", "version": 1, "image": "i:latest", "state": "idle"},
                            {"id": "d", "function": "f", "version": 1, "image": "i:latest", "state": "frozen"}]  # fmt: skip
        states = worker.states
        wait_until(lambda: worker.states > states + 1, "its instances are known")
        workers = self.api("GET", "/v1/workers").json()["workers"]
        self.assertEqual([i["state"] for w in workers if w["name"] == "generic" for i in w["instances"]], ["warm", "warm", "idle", "frozen"])
        text = self.api("GET", "/metrics").body.decode()
        self.assertIn('\nfaas_instances{state="warm"} 2\n', text)
        self.assertIn('\nfaas_instances{state="idle"} 1\n', text)
        self.assertIn('\nfaas_instances{state="frozen"} 1\n', text)
        self.assertIn('\nfaas_instances{state="busy"} 0\n', text)

    def test_a_warm_instance_is_preferred_then_the_least_loaded(self):
        self.controller.deploy("f")
        blocker = Blocker()
        cold = self.worker("cold", run=blocker)
        warm = self.worker("warm", run=blocker)
        warm.instances = [{"id": "a", "function": "f", "version": 1, "state": "idle"}]
        states = warm.states
        wait_until(lambda: warm.states > states + 1, "its instance is known")
        first = self.in_background(self.controller.invoke, "f")
        blocker.wait(1)
        warm.wait_seen("invoke")
        self.assertEqual(cold.seen, [])
        second = self.in_background(self.controller.invoke, "f")  # the code is at `warm`, the instance is busy
        blocker.wait(2)
        blocker.go.set()
        self.assertEqual({first()["worker"], second()["worker"]}, {"warm"})

    def test_a_frozen_instance_is_as_good_as_an_idle_one(self):
        self.controller.deploy("f")
        workers = {state: self.worker(state) for state in ("busy", "frozen")}
        for state, worker in workers.items():
            worker.instances = [{"id": "a", "function": "f", "version": 1, "state": state}]
            states = worker.states
            wait_until(lambda: worker.states > states + 1, "its instance is known")
        self.assertEqual({self.controller.invoke("f")["worker"] for _ in range(5)}, {"frozen"})

    def test_max_instances_holds_across_workers(self):
        blocker = Blocker()
        for name in ("one", "other"):
            self.worker(name, slots=8, run=blocker)
        self.controller.deploy("f", max_instances=2)
        self.controller.deploy("g")
        ids = [self.controller.invoke_async("f", n) for n in range(4)]
        waiting = self.in_background(self.controller.invoke, "f", 4)
        blocker.wait(2)
        free = self.in_background(self.controller.invoke, "g", "not held up")
        blocker.wait(3)
        self.assertEqual([h["function"] for h in blocker.heads].count("f"), 2)
        self.controller.deploy("f", max_instances=2, env={"A": "another version"})
        ids.append(self.controller.invoke_async("f", 5))
        time.sleep(0.3)  # room for mistakes
        self.assertEqual(len(blocker.heads), 3, "a new version has no bound of its own beside the old one's")
        blocker.go.set()
        self.assertEqual([self.controller.wait_execution(i)["result"] for i in ids], [0, 1, 2, 3, 5])
        self.assertEqual((waiting()["result"], free()["result"]), (4, "not held up"))
        self.assertLessEqual(blocker.most, 3)

    def test_a_draining_worker_gets_nothing(self):
        self.controller.deploy("f")
        draining = self.worker("draining")
        draining.draining = True
        states = draining.states
        wait_until(lambda: draining.states > states + 1, "it has said so")
        self.worker("other")
        self.assertEqual({self.controller.invoke("f")["worker"] for _ in range(5)}, {"other"})
        states = {w["name"]: w["state"] for w in self.api("GET", "/v1/workers").json()["workers"]}
        self.assertEqual(states, {"draining": "drained", "other": "active"})  # nothing runs there

    def test_an_update_loses_no_request_and_old_instances_are_forgotten(self):
        versions = set()
        worker = self.worker(slots=8, run=lambda head, payload: (versions.add(head["version"]), ({"status": "succeeded"}, payload, b""))[1])
        self.controller.deploy("f")
        stop, bad = threading.Event(), []

        def client():
            while not stop.is_set():
                answer = self.api("POST", "/fn/f", b"1")
                if (answer.status, answer.body) != (200, b"1"):
                    bad.append(answer)

        clients = [threading.Thread(target=client) for _ in range(4)]
        for thread in clients:
            thread.start()
        for n in range(10):
            self.controller.deploy("f", env={"N": str(n)})
        stop.set()
        for thread in clients:
            thread.join()
        self.assertEqual(bad, [])
        self.assertEqual(self.controller.invoke("f")["version"], 11)
        for version in range(1, 11):
            worker.wait_seen("forget", function="f", version=version)
        # Code and definitions of what nothing uses are gone from the database.
        self.controller.stop()
        with contextlib.closing(sqlite3.connect(os.path.join(self.controller.data_dir, "controller.db"))) as db:
            self.assertEqual(db.execute("SELECT version FROM functions").fetchall(), [(11,)])


class Keeps(WorkersTest):
    """min_instances: workers are told what to keep ready."""

    settings = {"CONTROLLER_WORKER_RECONNECT_MS": 500}

    def wait_kept(self, *expected, workers):
        """What each worker has been told to keep, of each function's version; none are left out."""
        def kept():
            return [{key: n for key, n in worker.kept.items() if n} for worker in workers] == list(expected)
        wait_until(kept, f"{expected} (it is {[w.kept for w in workers]})")

    def test_the_only_worker_keeps_all_and_follows_every_change(self):
        worker = self.worker()
        self.controller.deploy("plain")
        self.controller.deploy("f", min_instances=2)
        self.wait_kept({("f", 1): 2}, workers=[worker])
        self.controller.deploy("f", min_instances=3)
        self.wait_kept({("f", 2): 3}, workers=[worker])
        self.controller.deploy("f", min_instances=1)
        self.wait_kept({("f", 3): 1}, workers=[worker])
        self.controller.deploy("f")
        self.wait_kept({}, workers=[worker])
        self.controller.deploy("g", min_instances=1)
        self.wait_kept({("g", 1): 1}, workers=[worker])
        self.assertEqual(self.api("DELETE", "/v1/functions/g").status, 204)
        self.wait_kept({}, workers=[worker])
        self.assertNotIn("plain", {head["function"] for head in worker.seen if head["kind"] == "keep"})

    def test_instances_are_spread_and_stay_where_they_are(self):
        one, two = self.worker("one"), self.worker("two")
        self.controller.deploy("f", min_instances=4)
        self.wait_kept({("f", 1): 2}, {("f", 1): 2}, workers=[one, two])
        three = self.worker("three")
        self.controller.deploy("g", min_instances=1)
        self.wait_kept({("f", 1): 2}, {("f", 1): 2}, {("g", 1): 1}, workers=[one, two, three])

    def test_what_a_lost_or_draining_worker_kept_is_kept_by_others(self):
        one, two, three = (self.worker(name) for name in ("one", "two", "three"))
        self.controller.deploy("f", min_instances=3)
        self.wait_kept({("f", 1): 1}, {("f", 1): 1}, {("f", 1): 1}, workers=[one, two, three])
        three.draining = True
        wait_until(lambda: one.kept[("f", 1)] + two.kept[("f", 1)] == 3, "the others keep its share")
        self.wait_kept({}, workers=[three])
        two.stop()
        self.wait_kept({("f", 1): 3}, workers=[one])

    def test_a_worker_that_is_started_anew_is_told_again(self):
        with Worker(self.controller, "same") as before:
            self.controller.deploy("f", min_instances=1)
            self.wait_kept({("f", 1): 1}, workers=[before])
        after = self.worker("same")
        self.wait_kept({("f", 1): 1}, workers=[after])

    def test_a_worker_that_has_forgotten_is_told_again(self):
        worker = self.worker()
        self.controller.deploy("f", min_instances=1)
        self.wait_kept({("f", 1): 1}, workers=[worker])
        worker.kept.clear()
        self.wait_kept({("f", 1): 1}, workers=[worker])
        worker.kept["never-asked-for", 7] = 5
        wait_until(lambda: worker.kept["never-asked-for", 7] == 0, "it is told that this is not wanted")

    def test_no_worker_is_asked_for_more_memory_than_it_has(self):
        small, large = Worker(self.controller, "small"), Worker(self.controller, "large")
        small.memory_mb, large.memory_mb = 300, 700
        for worker in (small, large):
            self.stack.enter_context(worker)
        self.controller.deploy("f", min_instances=9, memory_mb=128)
        self.wait_kept({("f", 1): 2}, {("f", 1): 5}, workers=[small, large])
        self.assertIn("memory to keep", self.controller.log_text())
        more = self.worker("more")
        self.wait_kept({("f", 1): 2}, {("f", 1): 5}, {("f", 1): 2}, workers=[small, large, more])

    def test_a_restarted_controller_keeps_on(self):
        worker = self.worker()
        self.controller.deploy("f", min_instances=1)
        self.wait_kept({("f", 1): 1}, workers=[worker])
        self.controller.kill()
        worker.kept.clear()
        self.controller.start(CONTROLLER_LISTEN=self.controller.url.removeprefix("http://"))
        self.wait_kept({("f", 1): 1}, workers=[worker])


class AtTheBound(WorkersTest):
    settings = {"CONTROLLER_QUEUE_WAIT_MS": 300}

    def test_who_waits_too_long_is_told_which_bound_it_was(self):
        blocker = Blocker()
        self.worker(run=blocker)
        self.controller.deploy("f", max_instances=1)
        first = self.controller.invoke_async("f")
        blocker.wait(1)
        answer = self.api("POST", "/v1/functions/f/invocations")
        self.assertEqual(answer.status, 503, answer)
        error = answer.json()["error"]
        self.assertEqual(error["type"], "no_capacity")
        self.assertIn("max_instances", error["message"])
        blocker.go.set()
        self.controller.wait_execution(first, "succeeded")
        self.assertEqual(self.controller.invoke("f", 7)["result"], 7)


class WorkerCalls(WorkersTest):
    def test_definitions_and_code(self):
        worker = self.worker()
        deployed = self.controller.deploy("f", env={"A": "b"}, memory_mb=99)
        answer = worker.call("GET", "/v1/worker/functions/f/1")
        definition = answer.json()
        self.assertEqual((definition["name"], definition["version"], definition["env"], definition["memory_mb"]), ("f", 1, {"A": "b"}, 99))
        self.assertEqual(definition["artifact_sha256"], deployed["code_sha256"])
        self.assertEqual(worker.call("GET", "/v1/worker/code/" + deployed["code_sha256"]).body, base64.b64decode(CODE))
        for path in ("functions/f/2", "functions/f/x", "functions/g/1", "code/" + "0" * 64, "code/x"):
            self.assertEqual(worker.call("GET", "/v1/worker/" + path).status, 404)

    def test_bad_states_are_refused_in_words(self):
        worker = Worker(self.controller)
        for body in (b"", b"{", b"[]", b"{}", b'{"worker": "x"}', b'{"worker": "", "session": "1"}', b'{"worker": "%s", "session": "1"}' % (b"x" * 200),
                     b'{"worker": 1, "session": 1}'):  # fmt: skip
            with contextlib.closing(worker.open_stream()) as stream:
                stream.sendall(message({"kind": "state"}, body))
                head, _ = fixture.read_message(stream)
                self.assertEqual(head["kind"], "refused", body)
                self.assertTrue(head["message"])

    def test_numbers_that_no_worker_has_leave_sums_as_they_are(self):
        self.worker(slots=3)
        for name, number in (("most", 2**63 - 1), ("more", 2**63 - 1), ("least", -(2**63))):
            worker = self.stack.enter_context(Deaf(self.controller, name))
            worker.send({"kind": "state"}, json.dumps(worker.state() | {"slots": number, "concurrency": number}).encode())
            worker.next("ack")
            worker.send({"kind": "state"}, json.dumps({"worker": name, "session": worker.session, "slots": number}).encode())
            worker.next("ack")
        text = self.api("GET", "/metrics", token=None).body.decode()
        self.assertIn(f"\nfaas_worker_free_slots {3 + 2 * 65536}\n", text)

    def test_a_worker_that_says_that_it_keeps_more_than_one_can_is_told_of_as_much_as_one_can(self):
        self.worker()
        self.controller.deploy("f")
        worker = self.stack.enter_context(Deaf(self.controller))
        kept = [{"function": f"f-{i}", "version": 1, "count": 1} for i in range(20_000)]
        worker.send({"kind": "state"}, json.dumps(worker.state() | {"kept": kept}).encode())
        told = [worker.next("keep")[0]]
        worker.send({"kind": "state"}, json.dumps(worker.state()).encode())
        while (message_ := fixture.read_message(worker.stream)[0]) != {"kind": "ack", "messages": 3}:
            told += [message_] if message_["kind"] == "keep" else []
        self.assertEqual((len(told), {head["count"] for head in told}), (8192, {0}))
        self.assertEqual(self.controller.invoke("f", 1)["result"], 1)

    def test_a_broken_frame_ends_the_stream_and_nothing_else(self):
        worker = self.worker()
        self.controller.deploy("f")
        for bytes_ in (b"\xff" * 12, b"\xff\xff\xff\x7f" + b"\0" * 8, b"\0" * 4 + b"\xff" * 8):
            with contextlib.closing(worker.open_stream()) as stream:
                stream.sendall(bytes_)
                self.assertEqual(stream.recv(1), b"", bytes_)
        self.assertEqual(self.controller.invoke("f", 1)["result"], 1)
        self.assertEqual(worker.connections, 1)

    def test_without_the_upgrade_it_is_refused(self):
        answer = Worker(self.controller).call("GET", "/v1/worker/stream")
        self.assertEqual(answer.status, 400)
        self.assertIn("Upgrade: faas-worker", answer.json()["error"]["message"])

    def test_a_message_that_cannot_be_read_does_not_take_others_along(self):
        worker = self.worker()
        blocker = Blocker()
        worker.run = lambda head, payload: blocker.heads.append(head)
        self.controller.deploy("f")
        id_ = self.controller.invoke_async("f")
        blocker.wait(1)
        good = {"kind": "result", "execution_id": id_, "attempt": 1, "status": "succeeded", "result_len": 1, "logs_len": 0}
        bad = [b"{", b"[" * 10_000, b"{}", {"kind": "x"}, good | {"status": "running"}, good | {"result_len": 5}, good | {"result_len": -1},
               good | {"logs_len": 2**62}, good | {"execution_id": "x" * 100}, good | {"metrics": {"duration": "x"}}]  # fmt: skip
        worker.post(b"".join(message(head, b"1") for head in bad) + message(good, b"1"))
        self.assertEqual(self.controller.wait_execution(id_)["result"], 1)

    def test_a_body_that_is_too_large_is_passed_over(self):
        worker = self.worker()
        blocker = Blocker()
        worker.run = lambda head, payload: blocker.heads.append(head)
        self.controller.deploy("f")
        id_ = self.controller.invoke_async("f")
        blocker.wait(1)
        good = {"kind": "result", "execution_id": id_, "attempt": 1, "status": "succeeded", "result_len": 1, "logs_len": 0}
        size = 80 << 20  # an archive may have 64 MiB
        worker.post(message(good | {"result_len": size}, b" " * size) + message(good, b"1"))
        self.assertEqual(self.controller.wait_execution(id_)["result"], 1)

    def test_results_of_strangers_and_of_other_attempts_are_ignored(self):
        blocker = Blocker()
        worker = self.worker(run=blocker)
        self.controller.deploy("f")
        id_ = self.controller.invoke_async("f", "right")
        blocker.wait(1)
        for wrong in ({"attempt": 2}, {"execution_id": "0190a000-0000-7000-8000-000000000000"}):
            worker.post(message({"kind": "result", "execution_id": id_, "attempt": 1, "status": "succeeded", "result_len": 7, "logs_len": 0} | wrong, b'"wrong"'))
        self.assertEqual(self.controller.execution(id_)["status"], "running")
        blocker.go.set()
        self.assertEqual(self.controller.wait_execution(id_)["result"], "right")

    def test_a_result_brings_more_work_at_once(self):
        self.controller.deploy("f")
        ids = [self.controller.invoke_async("f", n) for n in range(3)]
        with Deaf(self.controller, slots=1) as worker:
            for n in range(3):
                head, body = worker.next("invoke")
                self.assertEqual((head["execution_id"], body), (ids[n], b"%d" % n))
                worker.send(result_of(head), b"1")
        for id_ in ids:
            self.assertEqual(self.controller.wait_execution(id_)["status"], "succeeded")

    def test_an_execution_that_is_unknown_here_is_cancelled_at_the_worker(self):
        worker = self.worker()
        worker.running["0190a000-0000-7000-8000-000000000000"] = {}
        worker.wait_seen("cancel", execution_id="0190a000-0000-7000-8000-000000000000")


def result_of(head, **members):
    return {"kind": "result", "execution_id": head["execution_id"], "attempt": head["attempt"], "status": "succeeded",
            "result_len": 1, "logs_len": 0} | members  # fmt: skip


class Deaf(Worker):
    """A stream in the test's own hands: one state is said, and what comes is read when the test asks."""

    def __init__(self, controller, name="deaf", running=(), session=None, builds=None, **options):
        super().__init__(controller, name, **options)
        self.session = session or self.session
        self.running = dict.fromkeys(running)
        self.builds = builds

    def state(self):
        return super().state() | ({} if self.builds is None else {"builds": self.builds})

    def __enter__(self):
        self.stream = self.open_stream()
        self.say_state()
        return self

    def __exit__(self, *_):
        self.stream.close()

    def next(self, kind):
        while True:
            head, body = fixture.read_message(self.stream)
            if head["kind"] == kind:
                return head, body

    def send(self, head, body=b""):
        self.post(message(head, body))


class Cuts(WorkersTest):
    """A connection that is cut loses nothing but itself."""

    def test_what_runs_goes_on_and_is_answered_by_the_next_connection(self):
        blocker = Blocker()
        worker = self.worker(run=blocker)
        self.controller.deploy("f")
        waiting = self.in_background(self.controller.invoke, "f", "kept")
        blocker.wait(1)
        for count in (2, 3, 4):
            worker.cut()
            wait_until(lambda: worker.connections == count and worker.acknowledged > 0, "it is connected again")
        blocker.go.set()
        execution = waiting()
        self.assertEqual((execution["status"], execution["result"], execution["attempt"]), ("succeeded", "kept", 1))
        self.assertEqual(len(blocker.heads), 1)

    def test_an_assignment_that_did_not_arrive_is_given_out_again(self):
        self.controller.deploy("f")
        id_ = self.controller.invoke_async("f", 1)
        with Deaf(self.controller) as worker:
            worker.next("invoke")
        with Deaf(self.controller, session=worker.session) as worker:  # says that it runs nothing
            head, body = worker.next("invoke")
            self.assertEqual((head["execution_id"], head["attempt"], body), (id_, 2, b"1"))
            worker.send(result_of(head, attempt=1), b"0")  # of an attempt that does not count
            worker.send(result_of(head), b"2")
            self.assertEqual(self.controller.wait_execution(id_)["result"], 2)

    def test_a_synchronous_one_that_did_not_arrive_is_answered(self):
        self.controller.deploy("f")
        waiting = self.in_background(self.controller.invoke, "f", 1)
        with Deaf(self.controller) as worker:
            worker.next("invoke")
        with Deaf(self.controller, session=worker.session):
            execution = waiting()
        self.assertEqual((execution["status"], execution["error"]["type"]), ("lost", "Platform.WorkerLost"))

    def test_what_the_worker_has_yet_to_take_is_on_its_way_for_as_long_as_it_needs(self):
        """Two that say states only: one has not taken the assignment whole, the other has and knows nothing of it."""
        self.controller.deploy("slow", requires=["name=slow"])
        self.controller.deploy("ignores", requires=["name=ignores"])
        with Deaf(self.controller, "slow") as slow, Deaf(self.controller, "ignores") as ignores:
            calls = {name: self.in_background(self.controller.invoke, name, 1) for name in ("slow", "ignores")}
            heads = [worker.next("invoke")[0] for worker in (slow, ignores)]

            def lost():
                for worker, taken in ((slow, 1), (ignores, 100)):
                    worker.send({"kind": "state"}, json.dumps(worker.state() | {"taken": taken}).encode())
                time.sleep(0.2)
                return not self.api("GET", "/v1/executions?status=running&function=ignores").json()["executions"]

            wait_until(lost, "the one that it took and does not name is lost")
            self.assertEqual(calls["ignores"]()["error"]["type"], "Platform.WorkerLost")
            lost()
            slow.send(result_of(heads[0]), b"2")
            self.assertEqual(calls["slow"]()["result"], 2)

    def test_a_build_that_did_not_arrive_is_given_out_again(self):
        with Deaf(self.controller, builds=[]) as worker:
            self.controller.deploy("g", **GO)
            first, _ = worker.next("build")
        with Deaf(self.controller, session=worker.session, builds=[]) as worker:
            second, _ = worker.next("build")
            self.assertEqual(second["build_id"], first["build_id"])
        with Deaf(self.controller, session=worker.session, builds=[second["build_id"]]) as worker:  # this one has arrived
            worker.send({"kind": "build_result", "build_id": second["build_id"], "ok": True, "output_len": 0}, b"artifact")
            wait_until(lambda: self.api("GET", "/v1/functions/g").json()["state"] == "ready", "it is built")
            worker.send({"kind": "state"}, json.dumps(worker.state()).encode())
            while True:
                head, _ = fixture.read_message(worker.stream)
                self.assertNotEqual(head["kind"], "build")
                if head.get("messages") == 3:
                    break

    def test_a_result_may_be_cut_at_any_byte_and_said_again(self):
        self.controller.deploy("f")
        ids = [self.controller.invoke_async("f", n) for n in range(2)]
        with Deaf(self.controller) as worker:
            heads = {head["execution_id"]: head for head in (worker.next("invoke")[0] for _ in ids)}
        bodies = [b'"small"', b'"%s"' % (b"large" * 50_000)]
        batch = b"".join(message(result_of(heads[id_], result_len=len(body)), body) for id_, body in zip(ids, bodies))
        first = len(message(result_of(heads[ids[0]], result_len=len(bodies[0])), bodies[0]))
        for cut in (0, 1, 11, 12, 13, 100, first - 1, first, first + 1, first + 12, first + 200, len(batch) // 2, len(batch) - 1):
            with Deaf(self.controller, session=worker.session, running=ids) as worker:
                worker.post(batch[:cut])
        with Deaf(self.controller, session=worker.session, running=ids) as worker:
            worker.post(batch + batch)
            for id_, body in zip(ids, bodies):
                execution = self.controller.wait_execution(id_)
                self.assertEqual((execution["attempt"], execution["result"]), (1, body.decode()[1:-1]))
            while worker.next("ack")[0]["messages"] < 1 + 4:
                pass

    def test_bytes_may_come_one_by_one(self):
        self.controller.deploy("f")
        with Deaf(self.controller) as worker:
            id_ = self.controller.invoke_async("f")
            head, _ = worker.next("invoke")
            for byte in message(result_of(head), b"1"):
                worker.post(bytes([byte]))
            self.assertEqual(self.controller.wait_execution(id_)["result"], 1)

    def test_the_newer_connection_of_a_session_counts(self):
        self.controller.deploy("f")
        with Deaf(self.controller) as old, Deaf(self.controller, session=old.session) as new:
            with self.assertRaises(ConnectionError):
                old.next("never")
            id_ = self.controller.invoke_async("f")
            new.send(result_of(new.next("invoke")[0]), b"1")
            self.assertEqual(self.controller.wait_execution(id_)["result"], 1)

    def test_a_worker_that_does_not_read_holds_nobody_up(self):
        self.controller.deploy("f")
        with Deaf(self.controller, slots=6) as deaf:
            payload = "x" * (6 << 20)
            for _ in range(6):
                self.controller.invoke_async("f", payload[:-2])
            wait_until(lambda: self.api("GET", "/v1/executions?status=running").json()["executions"][5:], "all are given out")
            self.worker("reads")
            for n in range(20):
                self.assertEqual(self.controller.invoke("f", n)["worker"], "reads")
            for _ in range(6):
                head, body = deaf.next("invoke")
                self.assertEqual(len(body), 6 << 20)
                deaf.send(result_of(head), b"1")
            wait_until(lambda: not self.api("GET", "/v1/executions?status=running").json()["executions"], "all have ended")

    def test_what_a_worker_does_not_read_is_not_piled_up_for_it(self):
        self.controller.deploy("f")
        with Deaf(self.controller, slots=16) as deaf:
            ids = [self.controller.invoke_async("f", "x" * ((6 << 20) - 2)) for _ in range(16)]
            wait_until(lambda: self.api("GET", "/v1/executions?status=running").json()["executions"][9:], "most are given out")
            self.worker("reads")
            ended = [self.controller.wait_execution(id_) for id_ in ids[-4:]]
            self.assertEqual({execution["worker"] for execution in ended}, {"reads"})
            for execution in self.api("GET", "/v1/executions?status=running").json()["executions"]:
                if execution["worker"] == "deaf":
                    deaf.send(result_of(deaf.next("invoke")[0]), b"1")
            for id_ in ids:
                self.controller.wait_execution(id_)

    def test_a_retry_that_is_due_is_not_put_off_by_whoever_asks_for_more(self):
        self.controller.deploy("f", retry={"max_attempts": 2, "backoff_ms": 1})
        failed = {"status": "failed", "result_len": 0, "error": {"type": "Boom", "message": "no", "exit_code": 1}}
        with Deaf(self.controller) as deaf, contextlib.closing(self.controller.connect()) as connection:
            self.controller.invoke_async("f")
            first = deaf.next("invoke")[0]
            deaf.send(result_of(first) | failed)
            again = None
            for _ in range(1000):  # each makes the controller look for what waits
                connection.request("POST", "/v1/dead-letters/redrive?function=none", *self.controller.prepare(None, "", None))
                self.assertEqual(connection.getresponse().read(), b'{"count":0}')
                while not again and select.select([deaf.stream], [], [], 0)[0]:
                    head = fixture.read_message(deaf.stream)[0]
                    again = head if head["kind"] == "invoke" else None
                if again:
                    break
            self.assertIsNotNone(again, "nobody may ask any more before it is begun")
            self.assertEqual((again["execution_id"], again["attempt"]), (first["execution_id"], 2))
            deaf.send(result_of(again), b"1")
            self.controller.wait_execution(first["execution_id"])

    def test_many_results_in_one_write_are_all_taken(self):
        self.controller.deploy("f")
        ids = [self.controller.invoke_async("f", n) for n in range(200)]
        with Deaf(self.controller, slots=300) as worker:  # one function gets no more than eight ninths
            heads = [worker.next("invoke")[0] for _ in ids]
            worker.post(b"".join(message(result_of(head), b"1") for head in heads))
            for id_ in ids:
                self.assertEqual(self.controller.wait_execution(id_)["result"], 1)


class Silence(WorkersTest):
    settings = {"CONTROLLER_WORKER_LOST_MS": 1000}

    def test_a_silent_worker_is_lost_and_its_clients_are_told(self):
        self.controller.deploy("f")
        waiting = self.in_background(self.controller.invoke, "f")
        raw = self.in_background(self.api, "POST", "/fn/f")
        wait_until(lambda: len(self.api("GET", "/v1/executions?status=queued").json()["executions"]) == 2, "both wait")
        with Deaf(self.controller, "w1") as worker:  # its connection stays, and it says nothing more
            for _ in range(2):
                worker.next("invoke")
            execution = waiting()
            self.assertEqual((execution["status"], execution["error"]["type"], execution["worker"]), ("lost", "Platform.WorkerLost", "w1"))
            self.assertEqual(raw().status, 502)
            self.assertEqual(self.api("GET", "/v1/workers").json()["workers"][0]["state"], "lost")
            self.assertEqual(self.api("GET", "/readyz").status, 503)

    def test_one_whose_result_takes_its_time_is_not_silent(self):
        self.controller.deploy("f")
        waiting = self.in_background(self.controller.invoke, "f")
        with Deaf(self.controller, "w1") as worker:
            whole = message(result_of(worker.next("invoke")[0], result_len=3_000_000), b" " * 2_999_999 + b"7")
            began = time.monotonic()
            while time.monotonic() - began < 2.5:  # more than what a silent one has
                worker.post(whole[:1000])
                whole = whole[1000:]
                time.sleep(0.05)
            worker.post(whole)
            self.assertEqual(waiting()["result"], 7)


class Loss(WorkersTest):
    """Of one whose process was killed, which its connection's end tells."""

    settings = {"CONTROLLER_WORKER_RECONNECT_MS": 500, "CONTROLLER_ASYNC_ATTEMPTS": 2}

    def test_an_asynchronous_one_is_run_again_elsewhere_while_it_has_attempts(self):
        blocker = Blocker()
        first = self.worker("first", run=blocker)
        self.controller.deploy("f")
        id_ = self.controller.invoke_async("f", "x")
        blocker.wait(1)
        first.stop()
        self.worker("second")
        execution = self.controller.wait_execution(id_)
        self.assertEqual((execution["status"], execution["attempt"], execution["worker"], execution["result"]), ("succeeded", 2, "second", "x"))

    def test_after_its_last_attempt_it_is_lost(self):
        self.controller.deploy("f")
        id_ = self.controller.invoke_async("f")
        for attempt in (1, 2):
            blocker = Blocker()
            worker = self.worker(f"w{attempt}", run=blocker)
            blocker.wait(1)
            self.assertEqual(blocker.heads[0]["attempt"], attempt)
            worker.stop()
        self.assertEqual(self.controller.wait_execution(id_)["status"], "lost")

    def test_a_new_session_of_the_same_name_replaces_the_old_one_at_once(self):
        blocker = Blocker()
        old = self.worker(run=blocker)
        self.controller.deploy("f")
        waiting = self.in_background(self.controller.invoke, "f")
        blocker.wait(1)
        new = self.worker()
        self.assertEqual(waiting()["status"], "lost")
        self.assertTrue(old.superseded.wait(fixture.WAIT_S))
        self.assertEqual(self.controller.invoke("f", 1)["result"], 1)
        self.assertEqual(len(self.api("GET", "/v1/workers").json()["workers"]), 1)
        self.assertEqual(new.wait_seen("invoke")[0]["function"], "f")

    def test_a_worker_that_comes_back_goes_on_with_what_it_runs(self):
        blocker = Blocker()
        worker = self.worker(run=blocker)
        self.controller.deploy("f")
        id_ = self.controller.invoke_async("f", "kept")
        blocker.wait(1)
        worker.stop()
        wait_until(lambda: self.controller.execution(id_)["status"] == "queued", "it is queued again")
        worker.start()  # the same session, which still runs it
        self.controller.wait_execution(id_, "running")
        blocker.go.set()
        execution = self.controller.wait_execution(id_)
        self.assertEqual((execution["result"], execution["attempt"], len(blocker.heads)), ("kept", 1, 1))


class Ended(WorkersTest):
    """Of a process that was killed the connection's end is heard at once; nobody waits for its silence."""

    settings = {"CONTROLLER_WORKER_LOST_MS": 600000, "CONTROLLER_WORKER_RECONNECT_MS": 500}

    def test_a_worker_whose_connection_has_ended_and_that_makes_no_other_is_lost(self):
        blocker = Blocker()
        first = self.worker("first", run=blocker)
        self.controller.deploy("f")
        waiting = self.in_background(self.controller.invoke, "f")
        id_ = self.controller.invoke_async("f", "x")
        blocker.wait(2)
        first.stop()
        self.assertEqual((waiting()["status"], waiting()["error"]["type"]), ("lost", "Platform.WorkerLost"))
        self.worker("second")
        execution = self.controller.wait_execution(id_)
        self.assertEqual((execution["status"], execution["worker"], execution["attempt"]), ("succeeded", "second", 2))


class Ends(WorkersTest):
    def test_what_was_final_stays_so_when_the_controller_is_killed_at_that_moment(self):
        """Ends are written some of them together: none may be told before."""
        worker = self.worker()
        self.controller.deploy("f")
        for i in range(8):
            id_ = self.controller.invoke_async("f", i)
            with contextlib.closing(self.controller.connect()) as connection:
                status = None
                while status != "succeeded":
                    connection.request("GET", "/v1/executions/" + id_, *self.controller.prepare(None, "", None))
                    status = fixture.Answer(connection.getresponse()).json()["status"]
            self.controller.kill()
            self.controller.start()
            self.assertEqual(self.controller.execution(id_)["status"], "succeeded")
            wait_until(lambda: worker.stream and self.api("GET", "/readyz").status == 200, "the worker is back")


class Drains(WorkersTest):
    def drain(self, name, method="POST"):
        return self.api(method, f"/v1/workers/{name}/drain").status

    def states(self):
        return {worker["name"]: worker["state"] for worker in self.api("GET", "/v1/workers").json()["workers"]}

    def test_a_drained_worker_ends_what_it_runs_and_gets_nothing_new(self):
        blocker = Blocker()
        first = self.worker("first", run=blocker)
        self.controller.deploy("f")
        waiting = self.in_background(self.controller.invoke, "f")
        blocker.wait(1)
        second = self.worker("second")
        self.assertEqual(self.drain("first"), 204)
        self.assertEqual(self.drain("first"), 204)
        self.assertEqual(self.states(), {"first": "draining", "second": "active"})
        ids = [self.controller.invoke_async("f", i) for i in range(10)]
        for i in range(20):
            self.assertEqual(self.controller.invoke("f", i)["worker"], "second")
        self.assertEqual({self.controller.wait_execution(id_)["worker"] for id_ in ids}, {"second"})
        blocker.go.set()
        self.assertEqual((waiting()["status"], waiting()["worker"]), ("succeeded", "first"))
        wait_until(lambda: self.states() == {"first": "drained", "second": "active"}, "it has drained")
        second.stop()
        self.assertEqual(self.drain("first", "DELETE"), 204)
        self.assertEqual(self.states()["first"], "active")
        self.assertEqual(self.controller.invoke("f", 1)["worker"], "first")

    def test_the_mark_outlives_worker_and_controller(self):
        worker = self.worker("one")
        self.controller.deploy("f")
        self.assertEqual(self.drain("one"), 204)
        self.controller.stop()
        self.controller.start(CONTROLLER_QUEUE_WAIT_MS=500)
        wait_until(lambda: self.states() == {"one": "drained"}, "it is connected again")
        answer = self.api("POST", "/v1/functions/f/invocations")
        self.assertEqual((answer.status, answer.json()["error"]["type"]), (503, "no_capacity"))
        self.assertIn("every worker in contact is drained or stops, and no other came within 500 ms", answer.json()["error"]["message"])
        answer = self.api("GET", "/readyz")
        self.assertEqual((answer.status, answer.json()["error"]["message"]), (503, "every worker in contact is drained or stops"))
        id_ = self.controller.invoke_async("f", "x")
        self.assertEqual(self.drain("one", "DELETE"), 204)
        self.assertEqual(self.controller.wait_execution(id_)["status"], "succeeded")
        self.assertEqual([head["execution_id"] for head in worker.seen if head["kind"] == "invoke"], [id_])

    def test_a_label_that_only_a_drained_worker_has_is_waited_for(self):
        self.controller.stop()
        self.controller.start(CONTROLLER_QUEUE_WAIT_MS=500)
        self.worker("plain")
        gpu = self.worker("gpu", labels=["gpu"])
        self.controller.deploy("f", requires=["gpu"])
        self.assertEqual(self.drain("gpu"), 204)
        lack = "every worker that has the labels that function f requires is drained or stops"
        answer = self.api("POST", "/v1/functions/f/invocations")
        self.assertEqual((answer.status, answer.json()["error"]["message"]), (503, lack + ", and none came within 500 ms"))
        id_ = self.controller.invoke_async("f", 1)
        self.assertEqual(self.controller.execution(id_)["waiting_for"], lack)
        self.assertEqual([head for head in gpu.seen if head["kind"] == "invoke"], [])
        self.assertEqual(self.drain("gpu", "DELETE"), 204)
        self.assertEqual(self.controller.wait_execution(id_)["worker"], "gpu")

    def test_a_successor_is_let_in_when_the_one_before_has_ended_what_it_runs(self):
        for stops in (True, False):  # by itself, or an operator drains it
            blocker = Blocker()
            name = f"stops-{stops}".lower()
            old = self.worker(name, run=blocker, labels=[name])
            self.controller.deploy(name, requires=[name])
            call = self.in_background(self.controller.invoke, name, 1)
            blocker.wait(1)
            old.draining = stops
            if not stops:
                self.assertEqual(self.drain(name), 204)
            wait_until(lambda n=name: self.states()[n] == "draining", "it drains")
            new = self.stack.enter_context(Worker(self.controller, name, labels=[name], wait=False))
            words = f"worker {name} of an earlier start is drained and still runs 1 invocations; this one is let in when they have ended"
            self.assertEqual(wait_until(lambda n=new: n.refused, "it is refused"), words)
            self.assertFalse(old.superseded.is_set())
            old.silent = True  # the result is the last that it says
            blocker.go.set()
            self.assertEqual(call()["status"], "succeeded")
            self.assertTrue(old.superseded.wait(fixture.WAIT_S), "the new one is in")
            self.assertEqual(old.acknowledged, old.sent, "it keeps nothing that was taken")
            if not stops:
                self.assertEqual(self.drain(name, "DELETE"), 204)
            self.assertEqual(self.controller.invoke(name, 2)["worker"], name)
            wait_until(lambda n=new: [h for h in n.seen if h["kind"] == "invoke"], "the new one ran it")

    def test_a_worker_is_told_and_told_again_when_it_does_not_know(self):
        worker = self.worker("one")
        self.assertEqual(self.drain("one"), 204)
        wait_until(lambda: worker.drained, "it is told")
        worker.stop()
        worker.drained = False
        worker.start()  # it has forgotten
        wait_until(lambda: worker.drained, "it is told by its next connection")
        self.assertEqual(self.drain("one", "DELETE"), 204)
        wait_until(lambda: not worker.drained, "it is told that this is over")
        worker.stop()
        worker.drained = True
        worker.start()
        wait_until(lambda: not worker.drained, "it is told by its next connection")
        heard = len(worker.seen)
        states = worker.states
        wait_until(lambda: worker.states > states + 3, "it has said so")
        self.assertEqual(worker.seen[heard:], [], "it is told once")

    def test_only_scope_admin_may(self):
        self.worker("one")
        token = self.controller.request("POST", "/v1/tokens", {"name": "caller", "scope": "invoke"}).json()["token"]
        for method in ("POST", "DELETE"):
            for given, status in ((token, 403), (self.controller.worker_token, 403), (None, 401)):
                answer = self.controller.request(method, "/v1/workers/one/drain", token=given)
                self.assertEqual(answer.status, status, answer)
        self.assertEqual(self.states(), {"one": "active"})

    def test_a_name_that_nobody_has(self):
        for method in ("POST", "DELETE"):
            answer = self.api(method, "/v1/workers/nobody/drain")
            self.assertEqual((answer.status, answer.json()["error"]["message"]), (404, "there is no worker nobody"))


class ComesBack(WorkersTest):
    """Calls wait for a worker that is on its way back, as long as calls wait at most."""

    settings = {"CONTROLLER_WORKER_LOST_MS": 1000, "CONTROLLER_WORKER_RECONNECT_MS": 100}

    def setUp(self):
        super().setUp()
        self.worker("plain")
        self.controller.deploy("f", requires=["gpu"])

    def call_waits(self):
        call = self.in_background(self.controller.invoke, "f", 7)
        wait_until(lambda: "\nfaas_executions_queued 1\n" in self.api("GET", "/metrics").body.decode(), "it is in the queue")
        return call

    def wait_state(self, name, state):
        listed = lambda: {w["name"]: w["state"] for w in self.api("GET", "/v1/workers").json()["workers"]}  # noqa: E731
        wait_until(lambda: listed()[name] == state, f"{name} is {state}")

    def test_calls_go_on_with_the_end_of_a_drain_without_a_word_of_the_worker(self):
        gpu = self.worker("gpu", labels=["gpu"])
        self.assertEqual(self.api("POST", "/v1/workers/gpu/drain").status, 204)
        call = self.call_waits()
        gpu.silent = True
        self.assertEqual(self.api("DELETE", "/v1/workers/gpu/drain").status, 204)
        self.assertEqual(call()["worker"], "gpu")

    def test_one_that_said_that_it_stops_is_waited_for(self):
        with Worker(self.controller, "gpu", labels=["gpu"]) as gpu:
            gpu.draining = True
            self.wait_state("gpu", "drained")
        self.wait_state("gpu", "lost")
        call = self.call_waits()
        self.worker("gpu", labels=["gpu"])
        self.assertEqual(call()["worker"], "gpu")

    def test_one_that_went_without_a_word_is_not(self):
        self.controller.stop()
        self.controller.start(CONTROLLER_QUEUE_WAIT_MS=500)
        self.worker("gpu", labels=["gpu"]).stop()
        self.wait_state("gpu", "lost")
        wait_until(lambda: "none came" not in self.api("POST", "/fn/f").body.decode(), "workers are no more waited for since the start")
        answer = self.api("POST", "/v1/functions/f/invocations")
        self.assertEqual((answer.status, answer.json()["error"]["message"]), (503, "no worker in contact has the label gpu, which function f requires"))


class Builds(WorkersTest):
    settings = {"CONTROLLER_WORKER_LOST_MS": 3000}

    def state(self, name):
        function = self.api("GET", "/v1/functions/" + name).json()
        return function["state"], function["ready_version"]

    def test_building_then_ready_while_the_old_version_serves(self):
        go = threading.Event()
        builds = []

        def build(head):
            builds.append(head)
            go.wait(fixture.WAIT_S)
            return True, b"", b"artifact %d" % head["version"]

        worker = self.worker(build=build)
        first = self.controller.deploy("g", **GO)
        self.assertEqual((first["state"], first["ready_version"]), ("building", None))
        answer = self.api("POST", "/v1/functions/g/invocations")
        self.assertEqual((answer.status, answer.json()["error"]["type"]), (409, "not_ready"))
        self.assertEqual(self.controller.deploy("g", **GO)["version"], 1)
        go.set()
        wait_until(lambda: self.state("g") == ("ready", 1), "it is built")
        go.clear()
        changed = GO | {"code": base64.b64encode(b"package main // 2\nfunc main() {}").decode()}
        self.assertEqual(self.controller.deploy("g", **changed)["state"], "building")
        self.assertEqual(self.controller.invoke("g")["version"], 1)
        go.set()
        wait_until(lambda: self.state("g") == ("ready", 2), "the second is built")
        self.assertEqual(self.controller.invoke("g")["version"], 2)
        definition = worker.call("GET", "/v1/worker/functions/g/2").json()
        self.assertEqual(worker.call("GET", "/v1/worker/code/" + definition["artifact_sha256"]).body, b"artifact 2")
        # Another definition of the same code needs no compiler.
        self.assertEqual(self.controller.deploy("g", **changed, memory_mb=64)["state"], "ready")
        self.assertEqual(len(builds), 2)

    def test_failed_builds_show_the_compilers_words_and_can_be_tried_again(self):
        outcomes = [(False, b"main.go:2: syntax error", b""), (True, b"", b"artifact")]
        self.worker(build=lambda head: outcomes.pop(0))
        self.controller.deploy("g", **GO)
        wait_until(lambda: self.state("g") == ("failed", None), "it fails")
        self.assertEqual(self.api("GET", "/v1/functions/g").json()["build_output"], "main.go:2: syntax error")
        self.assertEqual(self.api("POST", "/fn/g").json()["error"]["type"], "not_ready")
        self.assertEqual(self.controller.deploy("g", **GO)["version"], 2)
        wait_until(lambda: self.state("g") == ("ready", 2), "it is built")

    def test_a_build_survives_its_worker_and_the_controller(self):
        lost = self.worker("lost", build=lambda head: time.sleep(fixture.WAIT_S))
        self.controller.deploy("g", **GO)
        lost.wait_seen("build")
        lost.stop()
        self.controller.kill()
        self.controller.start()
        self.assertEqual(self.state("g"), ("building", None))
        self.worker("second", build=lambda head: (True, b"warning", b"artifact"))
        wait_until(lambda: self.state("g") == ("ready", 1), "it is built elsewhere")


class Durability(WorkersTest):
    def test_kill_9_loses_nothing_that_was_acknowledged(self):
        self.controller.deploy("f", env={"A": "b"})
        before = self.api("GET", "/v1/functions/f").json()
        accepted, stop = [], threading.Event()

        def client(n):
            with contextlib.suppress(OSError, AssertionError, Exception):
                while not stop.is_set():
                    accepted.append((self.controller.invoke_async("f", n), n))

        clients = [threading.Thread(target=client, args=(n,)) for n in range(8)]
        for thread in clients:
            thread.start()
        wait_until(lambda: len(accepted) > 200, "some are accepted")
        self.controller.kill()
        stop.set()
        for thread in clients:
            thread.join()
        self.controller.start()
        self.assertEqual(self.api("GET", "/v1/functions/f").json(), before)
        self.worker(slots=16)
        for id_, n in accepted:
            execution = self.controller.wait_execution(id_)
            self.assertEqual((execution["status"], execution["result"]), ("succeeded", n))

    def test_what_ran_when_the_controller_was_killed_goes_on_at_its_worker(self):
        blocker = Blocker()
        self.worker(run=blocker)
        self.controller.deploy("f")
        ids = [self.controller.invoke_async("f", n) for n in range(3)]
        blocker.wait(3)
        for id_ in ids:
            self.controller.wait_execution(id_, "running")
        self.controller.kill()
        self.controller.start(CONTROLLER_LISTEN=self.controller.url.removeprefix("http://"))
        for id_ in ids:
            self.controller.wait_execution(id_, "running")
        blocker.go.set()
        for n, id_ in enumerate(ids):
            execution = self.controller.wait_execution(id_)
            self.assertEqual((execution["result"], execution["attempt"]), (n, 1))
        self.assertEqual(len(blocker.heads), 3)

    def test_what_ran_is_run_again_when_its_worker_is_gone_too(self):
        blocker = Blocker()
        worker = self.worker(run=blocker)
        self.controller.deploy("f")
        id_ = self.controller.invoke_async("f", 1)
        blocker.wait(1)
        self.controller.wait_execution(id_, "running")
        worker.stop()
        self.controller.kill()
        self.controller.start()
        self.worker("w2")
        execution = self.controller.wait_execution(id_)
        self.assertEqual((execution["result"], execution["attempt"], execution["worker"]), (1, 2, "w2"))

    def test_records_are_there_after_an_orderly_stop(self):
        self.worker()
        self.controller.deploy("f")
        ids = [self.controller.invoke("f", n)["id"] for n in range(20)]
        self.assertEqual(self.controller.stop(), 0)
        self.controller.start()
        for n, id_ in enumerate(ids):
            self.assertEqual(self.controller.execution(id_)["result"], n)

    def test_a_newer_schema_and_a_second_controller_are_refused(self):
        other = subprocess.run([os.path.join(fixture.BIN, "faas-controller"), "--data-dir", self.controller.data_dir, "--listen", "127.0.0.1:0"],
                               capture_output=True, text=True, check=False, timeout=fixture.WAIT_S)  # fmt: skip
        self.assertEqual(other.returncode, 1)
        self.assertIn("another controller", other.stderr)
        self.controller.stop()
        with contextlib.closing(sqlite3.connect(os.path.join(self.controller.data_dir, "controller.db"))) as db:
            db.execute("INSERT INTO schema_migrations VALUES (999, 0)")
            db.commit()
        with self.assertRaisesRegex(AssertionError, "schema version 999"):
            self.controller.start()
        with contextlib.closing(sqlite3.connect(os.path.join(self.controller.data_dir, "controller.db"))) as db:
            db.execute("DELETE FROM schema_migrations WHERE version = 999")
            db.commit()
        self.controller.start()


class Stopping(WorkersTest):
    def test_what_is_under_way_finishes_and_new_ones_are_refused(self):
        blocker = Blocker()
        self.worker(run=blocker)
        self.controller.deploy("f")
        waiting = self.in_background(self.controller.invoke, "f", 1)
        later = self.controller.invoke_async("f", 2)
        blocker.wait(2)
        self.controller.process.send_signal(signal.SIGTERM)
        wait_until(lambda: self.api("GET", "/readyz").status == 503, "it is stopping")
        refused = self.api("POST", "/fn/f")
        self.assertEqual((refused.status, refused.json()["error"]["type"]), (503, "no_capacity"))
        blocker.go.set()
        self.assertEqual(waiting()["result"], 1)
        self.assertEqual(self.controller.wait(), 0)
        self.assertFalse(os.path.exists(os.path.join(self.controller.data_dir, "controller.url")))
        self.controller.start()
        self.assertEqual(self.controller.execution(later)["result"], 2)

    def test_the_wait_is_bounded_and_clients_are_told(self):
        self.controller.stop()
        self.controller.start(CONTROLLER_DRAIN_MS=300)
        blocker = Blocker()
        self.worker(run=blocker)
        self.controller.deploy("f")
        waiting = self.in_background(self.controller.invoke, "f", 1)
        later = self.controller.invoke_async("f", 2)
        blocker.wait(2)
        self.assertEqual(self.controller.stop(), 0)
        self.assertEqual((waiting()["status"], waiting()["error"]["type"]), ("lost", "Platform.ControllerStopped"))
        self.controller.start()
        self.assertIn(self.controller.execution(later)["status"], ("queued", "running"))

    def test_it_ends_with_its_parent(self):
        read_end, write_end = os.pipe()
        os.set_inheritable(read_end, True)
        environment = {"PATH": os.environ["PATH"], "CONTROLLER_LISTEN": "127.0.0.1:0", "CONTROLLER_DATA_DIR": self.controller.folder + "/other",
                       "FAAS_PARENT_FD": str(read_end)}  # fmt: skip
        child = subprocess.Popen([os.path.join(fixture.BIN, "faas-controller")], env=environment, pass_fds=[read_end], stderr=subprocess.DEVNULL)
        os.close(read_end)
        wait_until(lambda: os.path.exists(self.controller.folder + "/other/controller.url"), "it listens")
        os.close(write_end)
        self.assertEqual(child.wait(fixture.WAIT_S), 0)

    def test_wrong_settings_end_with_2_and_name_the_setting(self):
        for arguments, words in ((["--listen", "nowhere"], "CONTROLLER_LISTEN"), (["--data-dir", "relative"], "CONTROLLER_DATA_DIR"),
                                 (["--database-url", "mysql://x"], "sqlite://"), (["--queue-length", "x"], "--queue-length"),
                                 (["--nonsense"], "nonsense")):  # fmt: skip
            ended = subprocess.run([os.path.join(fixture.BIN, "faas-controller"), "--data-dir", self.controller.folder + "/other", *arguments],
                                   capture_output=True, text=True, check=False, timeout=fixture.WAIT_S)  # fmt: skip
            self.assertEqual(ended.returncode, 2, ended)
            self.assertIn(words, ended.stderr)


class Soak(WorkersTest):
    def test_memory_and_descriptors_stay_flat(self):
        self.worker(slots=8)
        self.controller.deploy("f")
        pid = self.controller.process.pid
        usage = lambda: (len(os.listdir(f"/proc/{pid}/fd")), int(fixture.read(f"/proc/{pid}/statm").split()[1]) * 4)

        def load(count):
            connection = self.controller.connect()
            for _ in range(count):
                connection.request("POST", "/fn/f", *self.controller.prepare(b'"' + b"x" * 1000 + b'"', "", None))
                self.assertEqual(fixture.Answer(connection.getresponse()).status, 200)
            connection.close()

        load(300)
        descriptors, resident_kib = usage()
        load(1500)
        after_descriptors, after_resident_kib = usage()
        self.assertLessEqual(after_descriptors, descriptors + 4)
        if "ASAN_OPTIONS" not in os.environ and "asan" not in fixture.BIN:  # its quarantine grows
            self.assertLess(after_resident_kib - resident_kib, 20_000)


if __name__ == "__main__":
    unittest.main()
