"""The controller on PostgreSQL: what holds on SQLite holds here, and a server that goes away loses nothing."""
import contextlib
import os
import re
import socket
import subprocess
import tempfile
import threading
import unittest

import controller as fixture
from controller import Controller, Worker, wait_until
from postgresql import PASSWORD, PostgreSQL


class LosesOneCommit:
    """Between controller and server. Of the transaction in which the client first sends something that matches `after`, the server
    commits, and the client never hears of it: its connection is cut instead."""

    def __init__(self, server, after):
        self.server_path = server.folder + "/.s.PGSQL.5432"
        self.after = re.compile(after)
        self.lost = threading.Event()

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="faas-test-proxy-")
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.folder.name + "/.s.PGSQL.5432")
        self.listener.listen()
        threading.Thread(target=self.accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.folder.cleanup()

    def url(self, database):
        return f"postgresql://tester:{PASSWORD}@/{database}?host={self.folder.name}"

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                client = self.listener.accept()[0]
                server = socket.socket(socket.AF_UNIX)
                server.connect(self.server_path)
                armed = threading.Event()
                up = threading.Thread(target=self.carry, args=(client, server, armed, None), daemon=True)
                up.start()
                threading.Thread(target=self.carry, args=(server, client, armed, up), daemon=True).start()

    def carry(self, source, target, armed, client_side):
        """`client_side`: the thread of the other direction; None: this is it."""
        from_client = client_side is None
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 20):
                if from_client and not self.lost.is_set() and self.after.search(data):
                    armed.set()
                if not from_client and armed.is_set() and b"COMMIT\0" in data:
                    armed.clear()
                    self.lost.set()
                    break
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        if not from_client:  # the other direction has heard of it by the shutdown
            client_side.join()
            source.close()
            target.close()


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

    def test_a_compilers_words_may_be_any_bytes(self):
        self.worker(build=lambda head: (False, b"main.go: bad \xff\xc3", b""))
        self.controller.deploy("f", runtime="go")
        wait_until(lambda: self.server.psql("SELECT state FROM functions", self.database).stdout == "failed\n", "the outcome is stored")
        self.assertEqual(self.controller.request("GET", "/v1/functions/f").json()["build_output"], "main.go: bad ??")

    def test_a_claim_whose_commit_nobody_heard_of_strands_nothing(self):
        ids = "\\{[0-9a-f]{8}-[0-9a-f-]{27}"  # only a claim sends an array of ids
        database = self.server.create_database("claims") and "claims"
        with LosesOneCommit(self.server, ids.encode()) as proxy, Controller(CONTROLLER_DATABASE_URL=proxy.url(database)) as controller:
            controller.deploy("f")
            accepted = [controller.invoke_async("f", n) for n in range(20)]
            with Worker(controller):
                for n, id_ in enumerate(accepted):
                    self.assertEqual(controller.wait_execution(id_)["result"], n)
            self.assertTrue(proxy.lost.is_set())

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
