"""The controller on PostgreSQL: what holds on SQLite holds here, and a server that goes away loses nothing."""
import contextlib
import os
import subprocess
import threading
import unittest

import controller as fixture
from controller import Controller, Worker, wait_until
from postgresql import PASSWORD, PostgreSQL


class PostgreSQLTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = PostgreSQL().__enter__()
        cls.addClassCleanup(cls.server.__exit__)
        cls.databases = 0

    def setUp(self):
        self.stack = contextlib.ExitStack()
        self.addCleanup(self.stack.close)
        type(self).databases += 1
        self.database = f"test{self.databases}"
        self.url = self.server.create_database(self.database)
        self.controller = self.stack.enter_context(Controller(CONTROLLER_DATABASE_URL=self.url))

    def worker(self, *args, **options):
        return self.stack.enter_context(Worker(self.controller, *args, **options))

    def test_functions_executions_and_code_survive_a_restart(self):
        self.worker()
        self.controller.deploy("f", env={"A": "b"})
        sync = self.controller.invoke("f", {"a": "\u00e4"})["id"]
        accepted = self.controller.invoke_async("f", [1])
        self.controller.wait_execution(accepted)
        self.assertEqual(self.controller.stop(), 0)
        self.controller.start()
        self.assertEqual(self.controller.execution(sync)["result"], {"a": "\u00e4"})
        self.assertEqual(self.controller.execution(accepted)["result"], [1])
        function = self.controller.request("GET", "/v1/functions/f?include=code").json()
        self.assertEqual((function["env"], function["code"]), ({"A": "b"}, fixture.CODE))
        self.assertEqual(self.server.psql("SELECT count(*) FROM executions", self.database).stdout, "2\n")

    def test_what_was_accepted_survives_a_killed_controller(self):
        self.controller.deploy("f")
        ids = [self.controller.invoke_async("f", n) for n in range(50)]
        self.controller.kill()
        self.controller.start()
        self.worker()
        for n, id_ in enumerate(ids):
            self.assertEqual(self.controller.wait_execution(id_)["result"], n)

    def test_a_killed_database_loses_nothing_that_was_accepted(self):
        self.worker()
        self.controller.deploy("f")
        accepted, stop = [], threading.Event()

        def client():
            while not stop.is_set():
                answer = self.controller.request("POST", "/v1/functions/f/invocations?mode=async", len(accepted))
                if answer.status == 202:
                    accepted.append(answer.json()["id"])
                else:
                    self.assertEqual((answer.status, answer.json()["error"]["type"]), (503, "unavailable"))
                    self.assertNotIn(PASSWORD, answer.body.decode())

        clients = [threading.Thread(target=client) for _ in range(4)]
        for thread in clients:
            thread.start()
        for _ in range(2):
            count = len(accepted)
            wait_until(lambda n=count: len(accepted) > n + 100, "invocations are accepted")
            self.server.kill()
            self.assertEqual(self.controller.invoke("f", "synchronous")["result"], "synchronous")
            self.server.start()
        count = len(accepted)
        wait_until(lambda: len(accepted) > count + 100, "invocations are accepted again")
        stop.set()
        for thread in clients:
            thread.join()
        for id_ in accepted:
            self.assertEqual(self.controller.wait_execution(id_)["status"], "succeeded")

    def test_the_password_is_nowhere_to_be_seen(self):
        self.worker()
        self.controller.deploy("f")
        self.controller.invoke("f")
        self.server.stop()
        self.controller.request("GET", "/v1/executions")
        self.server.start()
        self.assertNotIn(PASSWORD, self.controller.log_text())
        program = os.path.join(fixture.BIN, "faas-controller")
        arguments = [program, "--listen", "127.0.0.1:0", "--data-dir", self.controller.folder + "/other", "--database-url", self.url]
        shown = subprocess.run([*arguments, "--check-config"], capture_output=True, text=True, check=True)
        self.assertNotIn(PASSWORD, shown.stdout + shown.stderr)
        with subprocess.Popen(arguments, stderr=subprocess.DEVNULL) as other:
            wait_until(lambda: os.path.exists(self.controller.folder + "/other/controller.url"), "it listens")
            self.assertNotIn(PASSWORD, fixture.read(f"/proc/{other.pid}/cmdline"))
            other.terminate()

    def test_a_newer_schema_is_refused(self):
        self.controller.stop()
        self.server.psql("INSERT INTO schema_migrations VALUES (999, 0)", self.database)
        with self.assertRaisesRegex(AssertionError, "schema version 999"):
            self.controller.start()


if __name__ == "__main__":
    unittest.main()
