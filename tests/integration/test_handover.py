"""A controller that is restarted under load by a service manager which keeps its listening socket: no call fails, none is refused."""
import base64
import contextlib
import http.client
import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest

from controller import BIN, WAIT_S, Answer, Controller, Worker, wait_until

RESTARTS = 5
# What systemd does with descriptors that it keeps: they come as 3 and up, after LISTEN_PID was set in the process itself.
PASS = 'export LISTEN_PID=$$; exec "$@" 3<&"$KEPT_FD"'


class Manager:
    """As much of systemd as keeps a descriptor: $NOTIFY_SOCKET with FDSTORE=1, and LISTEN_FDS for the next start."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="faas-manager-test-")
        self.path = os.path.join(self.folder, "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.kept, self.words = {}, []
        self.thread = threading.Thread(target=self.listen, daemon=True)
        self.thread.start()

    def listen(self):
        while True:
            data, fds, _, _ = socket.recv_fds(self.socket, 4096, 4)
            if data == b"END":
                return
            lines = dict(line.split("=", 1) for line in data.decode().split("\n") if "=" in line)
            self.words.append(lines)
            if lines.get("FDSTORE") == "1" and fds:
                self.kept[lines["FDNAME"]] = fds[0]
            elif lines.get("FDSTOREREMOVE") == "1" and lines["FDNAME"] in self.kept:
                os.close(self.kept.pop(lines["FDNAME"]))

    def drop(self):
        """Nothing is kept any more: who waits in a queue is told so."""
        while self.kept:
            os.close(self.kept.popitem()[1])

    def close(self):
        with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as end:
            end.sendto(b"END", self.path)
        self.thread.join(WAIT_S)
        self.socket.close()
        self.drop()
        shutil.rmtree(self.folder)


class ManagedController(Controller):
    def __init__(self, manager, **settings):
        super().__init__(**settings)
        self.manager = manager

    def spawn(self, environment):
        environment = environment | {"NOTIFY_SOCKET": self.manager.path}
        command, fds = [os.path.join(BIN, "faas-controller")], ()
        if self.manager.kept:
            name, fd = next(iter(self.manager.kept.items()))
            environment |= {"LISTEN_FDS": "1", "LISTEN_FDNAMES": name, "KEPT_FD": str(fd)}
            command, fds = ["/bin/bash", "-c", PASS, "sh", *command], (fd,)
        self.process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, pass_fds=fds)

    def restart(self):
        status = self.stop()
        self.start()
        return status


class Client:
    """Calls one after the other in a thread, and keeps what went wrong. Nothing is ever tried again."""

    def __init__(self, controller, path, keep_alive=False, pause=0.0):
        self.controller, self.path, self.keep_alive, self.pause = controller, path, keep_alive, pause
        self.over = threading.Event()
        self.answered, self.failures, self.ids = 0, [], []
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def one(self, connection, number):
        payload = {"client": id(self), "number": number}
        connection.request("POST", self.path, *self.controller.prepare(payload, "", {"Connection": "keep-alive" if self.keep_alive else "close"}))
        answer = Answer(connection.getresponse())
        body = answer.json()
        if answer.status == 202:
            self.ids.append(body["id"])
        elif answer.status != 200 or body.get("status") != "succeeded" or body.get("result") != payload:
            raise AssertionError(answer)

    def run(self):
        connection = self.controller.connect()
        for number in itertools.count():
            if self.over.is_set():
                break
            try:
                self.one(connection, number)
                self.answered += 1
            except (OSError, http.client.HTTPException, AssertionError, ValueError) as error:
                self.failures.append(f"{self.path} call {number}: {error!r}")
                connection.close()
            if not self.keep_alive:
                connection.close()
            self.over.wait(self.pause)
        connection.close()

    def end(self):
        self.over.set()
        self.thread.join(WAIT_S)
        assert not self.thread.is_alive(), "a call hangs"


class Handover(unittest.TestCase):
    def setUp(self):
        self.manager = Manager()
        self.addCleanup(self.manager.close)

    def start(self, **settings):
        controller = ManagedController(self.manager, **settings)
        controller.__enter__()
        self.addCleanup(controller.__exit__)
        return controller

    def load(self, controller):
        invoke, queue = "/v1/functions/echo/invocations", "/v1/functions/echo/invocations?mode=async"
        return [Client(controller, invoke), Client(controller, invoke), Client(controller, invoke, keep_alive=True), Client(controller, queue),
                Client(controller, queue, keep_alive=True), Client(controller, invoke, keep_alive=True, pause=0.2),
                Client(controller, "/v1/functions/slow/invocations")]  # fmt: skip

    def check_restarts_lose_nothing(self, controller):
        clients = self.load(controller)
        for _ in range(RESTARTS):
            counts = [client.answered for client in clients]
            wait_until(lambda: all(c.answered + len(c.failures) > n for c, n in zip(clients, counts)), "every client has had an answer")
            self.assertEqual(controller.restart(), 0)
        counts = [client.answered for client in clients]
        wait_until(lambda: all(c.answered + len(c.failures) > n for c, n in zip(clients, counts)), "every client has had an answer")
        for client in clients:
            client.end()
        self.assertEqual([failure for client in clients for failure in client.failures], [])
        for execution_id in itertools.chain.from_iterable(client.ids for client in clients):
            self.assertEqual(controller.wait_execution(execution_id)["status"], "succeeded")
        for name, client in zip(("new", "new", "kept", "new, async", "kept, async", "kept, with pauses", "slow"), clients):
            print(f"{name}: {client.answered} answered, {len(client.failures)} failed")

    def run_one(self, head, payload):
        if head["function"] == "slow":
            threading.Event().wait(0.7)  # longer than a client needs to notice a restart
        return {"status": "succeeded"}, payload, b""

    def test_calls_go_on_while_the_controller_is_restarted_again_and_again(self):
        controller = self.start()
        with Worker(controller, slots=16, run=self.run_one):
            controller.deploy("echo")
            controller.deploy("slow")
            self.check_restarts_lose_nothing(controller)

    def test_with_a_worker_of_its_own_and_code_to_be_fetched(self):
        controller = self.start()
        folder = tempfile.mkdtemp(prefix="faas-handover-test-")
        self.addCleanup(shutil.rmtree, folder)
        environment = {"PATH": os.environ["PATH"], "WORKER_CONTROLLER_URL": controller.url, "WORKER_TOKEN": controller.worker_token, "WORKER_NAME": "handover-" + str(os.getpid()),
                       "WORKER_RUNTIME_TYPE": "simple", "WORKER_DATA_DIR": folder, "WORKER_CONCURRENCY": "16"}  # fmt: skip
        with open(os.path.join(folder, "log"), "wb") as log, subprocess.Popen([os.path.join(BIN, "faas-worker")], env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log) as worker:
            try:
                wait_until(lambda: controller.request("GET", "/readyz").status == 200, "the worker is there")
                for name, source in (("echo", b"#!/bin/sh\ncat\n"), ("slow", b"#!/bin/sh\nsleep 0.7\ncat\n")):
                    controller.deploy(name, runtime="native", code=base64.b64encode(source).decode())
                self.check_restarts_lose_nothing(controller)
            finally:
                worker.send_signal(signal.SIGTERM)
                worker.wait(WAIT_S)

    def test_a_connection_that_waits_in_the_queue_is_served_by_the_next(self):
        controller = self.start()
        self.assertEqual(controller.stop(), 0)
        with contextlib.closing(controller.connect()) as connection:
            connection.request("GET", "/healthz")
            controller.start()
            self.assertEqual(connection.getresponse().status, 200)

    def test_an_answer_while_it_stops_says_that_the_connection_ends(self):
        controller = self.start()
        release = threading.Event()
        with Worker(controller, run=lambda head, payload: release.wait(WAIT_S) and ({"status": "succeeded"}, payload, b"")) as worker:
            controller.deploy("held")
            with contextlib.closing(controller.connect()) as busy, contextlib.closing(controller.connect()) as idle, contextlib.closing(controller.connect()) as late:
                for connection in (idle, late):
                    connection.request("GET", "/healthz")
                    self.assertNotEqual(Answer(connection.getresponse()).headers["Connection"], "close")
                busy.request("POST", "/v1/functions/held/invocations", *controller.prepare({}, "", None))
                worker.wait_seen("invoke")
                controller.process.send_signal(signal.SIGTERM)
                wait_until(lambda: {"STOPPING": "1"} in self.manager.words, "it stops")
                late.request("GET", "/healthz")
                told = Answer(late.getresponse())
                self.assertEqual((told.status, told.headers["Connection"]), (200, "close"))
                self.assertEqual(idle.sock.recv(1), b"")  # closed between two requests, once it had been silent
                release.set()
                answer = Answer(busy.getresponse())
                self.assertEqual((answer.status, answer.json()["status"], answer.headers["Connection"]), (200, "succeeded", "close"))
            self.assertEqual(controller.wait(), 0)
            self.manager.drop()

    def test_a_worker_that_dials_anew_is_let_in_for_the_sake_of_a_call(self):
        controller = self.start()
        release = threading.Event()
        with Worker(controller, run=lambda head, payload: release.wait(WAIT_S) and ({"status": "succeeded"}, payload, b"")) as worker:
            controller.deploy("held")
            with contextlib.closing(controller.connect()) as busy:
                busy.request("POST", "/v1/functions/held/invocations", *controller.prepare({"a": 1}, "", None))
                worker.wait_seen("invoke")
                controller.process.send_signal(signal.SIGTERM)
                wait_until(lambda: {"STOPPING": "1"} in self.manager.words, "it stops")
                connections = worker.connections
                worker.cut()
                wait_until(lambda: worker.connections > connections, "it is connected again")
                release.set()
                self.assertEqual(Answer(busy.getresponse()).json()["result"], {"a": 1})
            self.assertEqual(controller.wait(), 0)
            self.manager.drop()

    def test_another_address_than_the_kept_socket_has(self):
        controller = self.start()
        self.assertEqual(controller.stop(), 0)
        kept = self.manager.kept["faas-listener"]
        controller.start(CONTROLLER_LISTEN="127.0.0.2:0")
        self.assertIn("127.0.0.2", controller.url)
        self.assertEqual(controller.request("GET", "/healthz").status, 200)
        wait_until(lambda: self.manager.kept.get("faas-listener", kept) != kept or {"FDSTOREREMOVE": "1", "FDNAME": "faas-listener"} in self.manager.words, "the old one is dropped")

    def test_descriptors_by_other_names_are_closed(self):
        with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as other:
            self.manager.kept["something-else"] = os.dup(other.fileno())
            controller = self.start()
            self.assertNotEqual(controller.url, f"http://127.0.0.1:{other.getsockname()[1]}")
            self.assertIn("a descriptor that was passed is not used", controller.log_text())


if __name__ == "__main__":
    unittest.main(verbosity=2)
