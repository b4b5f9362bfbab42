"""Labels of workers, and what functions require of them: who gets what, and what is said of what nobody may run."""
import base64
import contextlib
import os
import shutil
import threading
import unittest

import controller as fixture
from controller import Controller, Worker, wait_until
from postgresql import PostgreSQL

GO = {"runtime": "go", "code": base64.b64encode(b"package main\nfunc main() {}\n").decode()}
LOST_MS = 3000  # a controller waits so long for workers that may be on their way to it
NOBODY_HAS_GPU = "no worker in contact has the label gpu, which function f requires"


class PlacementTest(unittest.TestCase):
    def setUp(self):
        self.stack = contextlib.ExitStack()
        self.addCleanup(self.stack.close)
        self.controller = self.start_controller()

    def start_controller(self):
        return self.stack.enter_context(Controller(CONTROLLER_WORKER_LOST_MS=LOST_MS, CONTROLLER_WORKER_RECONNECT_MS=500))

    def worker(self, *args, controller=None, **options):
        return self.stack.enter_context(Worker(controller or self.controller, *args, **options))

    def wait_refused(self, path, words):
        """The first answers may come from a controller that still waits for workers: they are late, and refused in the end, too."""
        answer = wait_until(lambda: "none came within" not in (a := self.controller.request("POST", path, {})).body.decode() and a, "it is said at once")
        self.assertEqual(answer.status, 503, answer)
        error = answer.json()["error"]
        self.assertEqual(error["type"], "no_capacity")
        self.assertIn(words, error["message"])


class Labels(PlacementTest):
    def test_calls_go_where_the_labels_are(self):
        self.worker("plain")
        self.worker("gpu", labels=["gpu=a100"])
        self.controller.deploy("f", requires=["gpu"])
        self.controller.deploy("g", requires=["gpu=a100", "os=linux"])
        self.controller.deploy("h", requires=["name=plain"])
        for _ in range(3):
            self.assertEqual(self.controller.invoke("f")["worker"], "gpu")
            self.assertEqual(self.controller.invoke("g")["worker"], "gpu")
            self.assertEqual(self.controller.invoke("h")["worker"], "plain")
            done = self.controller.wait_execution(self.controller.invoke_async("f"))
            self.assertEqual((done["status"], done["worker"]), ("succeeded", "gpu"))
        listed = {worker["name"]: worker["labels"] for worker in self.controller.request("GET", "/v1/workers").json()["workers"]}
        self.assertEqual(listed["gpu"], ["arch=x86_64", "os=linux", "name=gpu", "gpu=a100"])

    def test_what_nobody_has_is_said_at_once_to_those_who_wait_for_an_answer(self):
        self.controller.stop()
        self.controller.start(CONTROLLER_QUEUE_WAIT_MS=500)
        self.worker("plain")
        self.controller.deploy("f", requires=["os=linux", "gpu"])
        self.wait_refused("/v1/functions/f/invocations", NOBODY_HAS_GPU)
        self.wait_refused("/fn/f", NOBODY_HAS_GPU)

    def test_an_asynchronous_one_waits_and_says_for_what_and_holds_nobody_up(self):
        self.worker("plain", slots=2)
        self.controller.deploy("f", requires=["gpu"])
        self.controller.deploy("other")
        ids = [self.controller.invoke_async("f", n) for n in range(300)]  # more than memory keeps of one
        for n in range(5):
            self.assertEqual(self.controller.invoke("other", n)["result"], n)
            self.controller.wait_execution(self.controller.invoke_async("other", n), "succeeded")
        waiting = self.controller.execution(ids[0])
        self.assertEqual((waiting["status"], waiting["attempt"], waiting["waiting_for"]), ("queued", 1, NOBODY_HAS_GPU))
        page = self.controller.request("GET", "/v1/executions?function=f&limit=3").json()["executions"]
        self.assertEqual({execution["waiting_for"] for execution in page}, {NOBODY_HAS_GPU})
        self.worker("late", slots=50, labels=["gpu"])
        for n, id_ in enumerate(ids):
            done = self.controller.wait_execution(id_)
            self.assertEqual((done["status"], done["result"], done["worker"], done["attempt"]), ("succeeded", n, "late", 1))
            self.assertNotIn("waiting_for", done)

    def test_an_update_of_the_requirement_frees_what_waits(self):
        self.worker("plain")
        self.controller.deploy("f", requires=["gpu"])
        ids = [self.controller.invoke_async("f", n) for n in range(3)]
        self.controller.deploy("f", requires=[])
        for id_ in ids:
            self.assertEqual(self.controller.wait_execution(id_)["status"], "succeeded")

    def test_a_worker_that_is_started_anew_with_other_labels(self):
        self.controller.deploy("f", requires=["zone=b"])
        with Worker(self.controller, "w", labels=["zone=a"]):
            id_ = self.controller.invoke_async("f")
            self.assertIn("zone=b", self.controller.execution(id_)["waiting_for"])
        self.worker("w", labels=["zone=b"])
        self.assertEqual(self.controller.wait_execution(id_)["status"], "succeeded")

    def test_kept_instances_are_where_they_may_run(self):
        plain, gpu = self.worker("plain"), self.worker("gpu", labels=["gpu"])
        self.controller.deploy("f", requires=["gpu"], min_instances=2)
        wait_until(lambda: gpu.kept.get(("f", 1)) == 2, "the one with the label keeps both")
        self.assertEqual(plain.kept, {})

    def test_a_program_is_compiled_where_it_may_run_and_runs_on_that_architecture(self):
        built = []

        def build(name):
            return lambda head: (built.append(name), (True, b"", b"artifact"))[1]

        def ready(name):
            return lambda: (f := self.controller.request("GET", "/v1/functions/" + name).json())["state"] == "ready" and f

        self.worker("plain", build=build("plain"))
        self.controller.deploy("f", **GO, requires=["gpu"])
        self.controller.deploy("g", **GO)
        wait_until(ready("g"), "the one behind it is compiled")
        self.assertEqual((built, ready("f")()), (["plain"], False))
        self.worker("gpu", labels=["gpu"], build=build("gpu"))
        self.assertEqual(wait_until(ready("f"), "the other is, too")["artifact_arch"], "x86_64")
        self.assertEqual(built, ["plain", "gpu"])
        self.assertEqual(self.controller.deploy("g", **GO, memory_mb=64)["artifact_arch"], "x86_64", "what was compiled is used again")
        self.assertEqual(self.controller.invoke("g")["status"], "succeeded")

    def test_bad_requirements_are_refused_in_words(self):
        for requires, field in (("gpu", "/requires"), ([1], "/requires/0"), (["ok", "no space"], "/requires/1"), (["a="], "/requires/0"),
                                ([f"l{n}" for n in range(33)], "/requires/32")):  # fmt: skip
            body = {"runtime": "python", "code": fixture.CODE, "requires": requires}
            answer = self.controller.request("PUT", "/v1/functions/f", body)
            self.assertEqual((answer.status, answer.json()["error"]["field"]), (400, field), answer)
        self.assertEqual(self.controller.deploy("f", requires=["a", "b=c", "a"])["requires"], ["a", "b=c"])
        self.assertEqual(self.controller.deploy("f", requires=["a", "b=c"])["version"], 1, "nothing has changed")
        self.assertEqual(self.controller.deploy("f", requires=["a"])["version"], 2)


class SeveralControllers(PlacementTest):
    """On PostgreSQL: what one accepts and cannot place runs at the workers of another."""

    @classmethod
    def setUpClass(cls):
        cls.server = PostgreSQL().__enter__()
        cls.addClassCleanup(cls.server.__exit__)
        cls.databases = 0

    def setUp(self):
        type(self).databases += 1
        self.url = self.server.create_database(f"place{self.databases}")
        super().setUp()
        self.other = self.start_controller(self.controller)

    def start_controller(self, like=None):
        controller = Controller(CONTROLLER_DATABASE_URL=self.url, CONTROLLER_LEASE_MS=3000, CONTROLLER_WORKER_LOST_MS=LOST_MS,
                                CONTROLLER_WORKER_RECONNECT_MS=500)  # fmt: skip
        if like:
            os.makedirs(controller.data_dir)
            for name in ("token", "worker-token"):
                shutil.copy(os.path.join(like.data_dir, name), controller.data_dir)
        return self.stack.enter_context(controller)

    def check_all_ran_at(self, worker, ids):
        for n, id_ in enumerate(ids):
            done = self.controller.wait_execution(id_)
            self.assertEqual((done["status"], done["result"], done["worker"]), ("succeeded", n, worker))

    def test_what_no_worker_here_may_run_goes_to_a_controller_that_has_one(self):
        self.worker("plain")
        self.controller.deploy("f", requires=["gpu"])
        ids = [self.controller.invoke_async("f", n) for n in range(20)]
        self.assertEqual(self.controller.execution(ids[0])["waiting_for"], NOBODY_HAS_GPU)
        self.worker("gpu", controller=self.other, labels=["gpu"])
        self.check_all_ran_at("gpu", ids)

    def test_what_waits_for_a_worker_that_is_lost_goes_to_another_controllers(self):
        self.worker("plain")
        go = threading.Event()

        def hold(head, payload):
            go.wait(fixture.WAIT_S)

        with Worker(self.controller, "gpu", slots=1, labels=["gpu"], run=hold) as gpu:
            self.controller.deploy("f", requires=["gpu"])
            ids = [self.controller.invoke_async("f", n) for n in range(5)]
            wait_until(lambda: gpu.running, "the first runs")
        go.set()
        self.worker("gpu2", controller=self.other, labels=["gpu"])
        self.check_all_ran_at("gpu2", ids)


if __name__ == "__main__":
    unittest.main()
