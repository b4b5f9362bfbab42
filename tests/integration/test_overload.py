"""Overload: rates, concurrency and places of a function's own. Whoever is over a limit is told so and when to come again; nobody else
notices. Asynchronous calls wait for their turn, and waiting is not an attempt."""
import contextlib
import http.client
import json
import os
import socket
import sqlite3
import subprocess
import tempfile
import threading
import unittest
import urllib.parse

import yaml

import controller as fixture
from controller import Controller, Worker, wait_until


class Gate:
    """Invocations of the functions that are named wait until they are let through; all others echo."""

    def __init__(self, *functions):
        self.functions = functions
        self.open = threading.Event()
        self.lock = threading.Lock()
        self.inside = {}
        self.most = {}
        self.attempts = []

    def __call__(self, head, payload):
        name = head["function"]
        with self.lock:
            self.attempts.append((head["execution_id"], head["attempt"]))
            self.inside[name] = self.inside.get(name, 0) + 1
            self.most[name] = max(self.most.get(name, 0), self.inside[name])
        if name in self.functions:
            self.open.wait(fixture.WAIT_S)
        with self.lock:
            self.inside[name] -= 1
        return {"status": "succeeded"}, payload, b""


class Overload(unittest.TestCase):
    settings = {}
    slots = 8

    def setUp(self):
        self.stack = contextlib.ExitStack()
        self.addCleanup(self.stack.close)
        self.controller = self.stack.enter_context(Controller(CONTROLLER_DRAIN_MS=1000, **self.settings))
        self.gate = Gate("slow")
        self.stack.callback(self.gate.open.set)
        self.worker = self.stack.enter_context(Worker(self.controller, slots=self.slots, run=self.gate))
        self.clients = []

    def call(self, name, payload=None, query="", **options):
        return self.controller.request("POST", f"/v1/functions/{name}/invocations{query}", payload, **options)

    def start(self, name, count=1):
        """Calls that nobody waits for here; their answers come in the list."""
        answers = []
        for _ in range(count):
            thread = threading.Thread(target=lambda: answers.append(self.call(name)), daemon=True)
            thread.start()
            self.clients.append(thread)
        return answers

    def running(self, name, count):
        wait_until(lambda: self.gate.inside.get(name, 0) >= count, f"{count} of {name} run")

    def finish(self):
        self.gate.open.set()
        for client in self.clients:
            client.join(fixture.WAIT_S)

    def metric(self, name):
        page = self.controller.request("GET", "/metrics", token=None).body.decode()
        return sum(float(line.split()[-1]) for line in page.splitlines() if line.startswith(name))

    def assertThrottled(self, answer, *words):
        self.assertEqual(answer.status, 429, answer)
        self.assertEqual(answer.json()["error"]["type"], "throttled", answer)
        self.assertGreaterEqual(int(answer.headers["Retry-After"]), 1)
        for word in words:
            self.assertIn(word, answer.json()["error"]["message"])


class FunctionRate(Overload):
    def test_over_the_rate_is_throttled_until_retry_after_and_others_go_on(self):
        self.controller.deploy("limited", rate_limit=0.01, rate_burst=5)
        self.controller.deploy("other")
        answers = [self.call("limited") for _ in range(20)]
        self.assertEqual([a.status for a in answers], [200] * 5 + [429] * 15)
        self.assertThrottled(answers[-1], "limited is called more often than its rate_limit")
        self.assertIn(int(answers[-1].headers["Retry-After"]), range(90, 101), "one in a hundred seconds")
        self.assertEqual(len(self.gate.attempts), 5)
        for n in range(20):
            self.assertEqual(self.controller.invoke("other", n)["result"], n)
        self.assertEqual(self.metric('faas_admission_refused_total{limit="function_rate"}'), 15)

    def test_every_way_to_call_counts(self):
        self.controller.deploy("limited", rate_limit=0.01, rate_burst=3, public=True)
        self.assertEqual(self.call("limited").status, 200)
        self.assertEqual(self.controller.request("GET", "/fn/limited", token=None).status, 200)
        self.assertEqual(self.call("limited", query="?mode=async").status, 202)
        self.assertThrottled(self.call("limited"))
        self.assertThrottled(self.controller.request("GET", "/fn/limited", token=None))
        self.assertThrottled(self.call("limited", query="?mode=async"))

    def test_the_rate_comes_back(self):
        self.controller.deploy("limited", rate_limit=20, rate_burst=1)
        self.assertEqual(self.call("limited").status, 200)
        wait_until(lambda: self.call("limited").status == 200, "the function is called again")

    def test_a_new_limit_holds_at_once(self):
        self.controller.deploy("limited", rate_limit=0.001)
        self.assertEqual([self.call("limited").status for _ in range(2)], [200, 429])
        self.controller.deploy("limited", rate_limit=0)
        self.assertEqual([self.call("limited").status for _ in range(10)], [200] * 10)

    def test_who_is_refused_sends_no_body(self):
        self.controller.deploy("limited", rate_limit=0.001)
        self.assertEqual(self.call("limited").status, 200)
        url = urllib.parse.urlsplit(self.controller.url)
        with socket.create_connection((url.hostname, url.port), fixture.WAIT_S) as connection:
            connection.sendall(f"POST /v1/functions/limited/invocations HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.controller.token}\r\n"
                               "Content-Length: 1000000\r\n\r\n".encode())  # fmt: skip
            self.assertTrue(connection.recv(100).startswith(b"HTTP/1.1 429 "))


class FunctionConcurrency(Overload):
    def test_one_more_than_allowed_is_throttled_and_others_go_on(self):
        self.controller.deploy("slow", max_concurrency=2)
        self.controller.deploy("other")
        answers = self.start("slow", 2)
        self.running("slow", 2)
        for _ in range(5):
            self.assertThrottled(self.call("slow"), "2 calls at the same time", "max_concurrency is 2")
        for n in range(20):
            self.assertEqual(self.controller.invoke("other", n)["result"], n)
        self.finish()
        self.assertEqual([a.status for a in answers], [200, 200])
        self.assertEqual(self.call("slow").status, 200, "its places are free again")
        self.assertEqual(self.metric('faas_admission_refused_total{limit="function_concurrency"}'), 5)

    def test_asynchronous_calls_wait_and_waiting_is_no_attempt(self):
        self.controller.deploy("slow", max_concurrency=2)
        ids = [self.controller.invoke_async("slow", n) for n in range(10)]
        self.running("slow", 2)
        self.assertThrottled(self.call("slow"))
        self.assertEqual({self.controller.execution(i)["status"] for i in ids}, {"running", "queued"})
        self.finish()
        for n, execution_id in enumerate(ids):
            execution = self.controller.wait_execution(execution_id)
            self.assertEqual((execution["status"], execution["result"], execution["attempt"]), ("succeeded", n, 1))
        self.assertEqual(self.gate.most["slow"], 2)

    def test_those_who_wait_notice_that_the_bound_was_raised(self):
        self.controller.deploy("slow", max_concurrency=1)
        ids = [self.controller.invoke_async("slow", n) for n in range(2)]
        self.running("slow", 1)
        wait_until(lambda: self.metric("faas_executions_queued") == 1, "the other waits")
        self.controller.deploy("slow", max_concurrency=2)
        self.running("slow", 2)
        self.finish()
        for execution_id in ids:
            self.assertEqual(self.controller.wait_execution(execution_id)["status"], "succeeded")

    def test_a_call_whose_client_leaves_gives_its_place_back(self):
        self.controller.deploy("slow", max_concurrency=1)
        self.worker.stop()
        url = urllib.parse.urlsplit(self.controller.url)
        with socket.create_connection((url.hostname, url.port), fixture.WAIT_S) as connection:
            connection.sendall(f"POST /fn/slow HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.controller.token}\r\n"
                               "Content-Length: 0\r\n\r\n".encode())  # fmt: skip
            wait_until(lambda: self.metric("faas_executions_queued") == 1, "it waits")
            self.assertThrottled(self.call("slow"))
        self.worker.start()
        self.gate.open.set()
        wait_until(lambda: self.call("slow").status == 200, "the place is free")

    def test_a_lost_worker_gives_its_places_back(self):
        self.controller.deploy("slow", max_concurrency=1)
        execution_id = self.controller.invoke_async("slow", 1)
        self.running("slow", 1)
        self.worker.stop()
        with Worker(self.controller, name=self.worker.name, run=Gate()):
            self.assertEqual(self.controller.wait_execution(execution_id)["status"], "succeeded")
            self.assertEqual(self.call("slow").status, 200)


class Reserved(Overload):
    slots = 4

    def test_a_flood_leaves_the_reserved_places_free(self):
        self.controller.deploy("slow")
        self.controller.deploy("own", reserved_concurrency=2)
        flood = self.start("slow", 20)
        self.running("slow", 2)
        for n in range(10):
            self.assertEqual(self.controller.invoke("own", n)["result"], n)
        self.assertEqual(self.gate.most["slow"], 2, "two of four places are not theirs")
        self.finish()
        self.assertEqual([a.status for a in flood], [200] * 20)

    def test_it_gets_no_more_than_it_has_reserved(self):
        self.controller.deploy("slow", reserved_concurrency=1)
        self.controller.deploy("other")
        answers = self.start("slow")
        self.running("slow", 1)
        self.assertThrottled(self.call("slow"), "reserved_concurrency is 1")
        self.assertEqual(self.controller.invoke("other", 1)["result"], 1)
        self.finish()
        self.assertEqual(answers[0].status, 200)

    def test_a_reservation_that_ends_with_its_function_is_everybodys_again(self):
        self.controller.deploy("slow")
        self.controller.deploy("own", reserved_concurrency=3)
        flood = self.start("slow", 4)
        self.running("slow", 1)
        self.assertEqual(self.gate.most["slow"], 1)
        self.assertEqual(self.controller.request("DELETE", "/v1/functions/own").status, 204)
        self.running("slow", 4)
        self.finish()
        self.assertEqual([a.status for a in flood], [200] * 4)


class Backlog(Overload):
    settings = {"CONTROLLER_ASYNC_QUEUE_LENGTH": 5, "CONTROLLER_QUEUE_LENGTH_PER_FUNCTION": 1}

    def test_what_waits_in_the_store_is_counted_after_a_restart_too(self):
        self.controller.deploy("slow", max_concurrency=1)
        self.worker.stop()
        accepted = [self.call("slow", n, query="?mode=async") for n in range(6)]
        self.assertEqual([a.status for a in accepted], [202] * 6, "one in memory, five in the store")
        self.assertThrottled(self.call("slow", query="?mode=async"), "5 asynchronous invocations wait")
        self.controller.kill()
        self.controller.start()
        self.assertThrottled(self.call("slow", query="?mode=async"), "asynchronous invocations wait")
        self.gate.open.set()
        self.worker.start()
        for answer in accepted:
            self.assertEqual(self.controller.wait_execution(answer.json()["id"])["status"], "succeeded")
        more = self.call("slow", query="?mode=async")
        self.assertEqual(more.status, 202, "there is room again")
        self.controller.wait_execution(more.json()["id"])


class Flood(Overload):
    settings = {"CONTROLLER_QUEUE_MAX_MB": 8}
    queue_bytes = 8 << 20
    slots = 2

    def resident(self):
        with open(f"/proc/{self.controller.process.pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def test_memory_is_bounded_and_service_comes_back(self):
        """Clients send ten times what may wait; nearly all of it is refused, what was accepted ends well, and then all is as before."""
        self.controller.deploy("slow")
        self.controller.deploy("own", reserved_concurrency=1)
        payload = json.dumps("x" * (1 << 20))
        self.call("own", payload.encode())
        before = self.resident()
        answers = []

        def flood():
            for _ in range(8):
                answers.append(self.call("slow", payload.encode()))
                if answers[-1].status != 429:
                    return

        for _ in range(20):
            client = threading.Thread(target=flood, daemon=True)
            client.start()
            self.clients.append(client)
        wait_until(lambda: sum(a.status == 429 for a in list(answers)) >= 80, "the queue is full, and more is refused")
        self.assertLessEqual(self.metric("faas_queue_payload_bytes"), self.queue_bytes)
        if "ASAN_OPTIONS" not in os.environ and "asan" not in fixture.BIN:  # its quarantine grows
            self.assertLess(self.resident() - before, self.queue_bytes + (48 << 20), "the queue, and bodies that are on their way")
        for n in range(5):
            self.assertEqual(self.call("own", n).json()["result"], n)
        self.finish()
        self.assertEqual({a.status for a in answers}, {200, 429})
        for answer in answers:
            if answer.status == 429:
                self.assertThrottled(answer)
            else:
                self.assertEqual(answer.json()["result"], "x" * (1 << 20))
        self.assertEqual((self.metric("faas_executions_queued"), self.metric("faas_queue_payload_bytes")), (0, 0))
        self.assertEqual(self.call("slow", 7).json()["result"], 7)


class Unwritten(Overload):
    settings = {"CONTROLLER_UNWRITTEN_MAX_MB": 2}

    def test_results_that_the_database_does_not_take_are_bounded_and_all_are_written_in_the_end(self):
        self.controller.deploy("echo")
        payload = json.dumps("x" * (700 << 10)).encode()
        other = sqlite3.connect(os.path.join(self.controller.data_dir, "controller.db"), isolation_level=None)
        self.addCleanup(other.close)
        other.execute("BEGIN IMMEDIATE")
        kept = []
        while (answer := self.call("echo", payload)).status == 200:
            kept.append(answer.json()["id"])
            self.assertLess(len(kept), 10, "something bounds it")
        self.assertThrottled(answer)
        self.assertIn("written to the database", answer.json()["error"]["message"])
        self.assertGreaterEqual(len(kept), 2)
        other.execute("ROLLBACK")
        wait_until(lambda: self.call("echo", 7).status == 200, "there is room again")
        for execution_id in kept:
            self.assertEqual(len(self.controller.wait_execution(execution_id)["result"]), 700 << 10)


class Slow(Overload):
    slots = 6

    def open_call(self, name, length):
        url = urllib.parse.urlsplit(self.controller.url)
        connection = self.stack.enter_context(socket.create_connection((url.hostname, url.port), fixture.WAIT_S))
        connection.sendall(f"POST /v1/functions/{name}/invocations HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.controller.token}\r\n"
                           f"Content-Length: {length}\r\n\r\n".encode())  # fmt: skip
        return connection

    def test_clients_that_send_or_read_slowly_hold_nobody_up(self):
        self.controller.deploy("big")
        self.controller.deploy("other")
        big = json.dumps("y" * (4 << 20)).encode()
        readers = [self.open_call("big", len(big)) for _ in range(8)]
        for reader in readers:
            reader.sendall(big)
        writers = [self.open_call("big", 100) for _ in range(50)]
        for writer in writers:
            writer.sendall(b'"half of')
        wait_until(lambda: len(self.gate.attempts) == len(readers), "their calls have run, and nobody reads the answers")
        for n in range(20):
            self.assertEqual(self.controller.invoke("other", n)["result"], n)
        for reader in readers:
            answer = http.client.HTTPResponse(reader)
            answer.begin()
            self.assertEqual(json.loads(answer.read())["result"], json.loads(big), "whole, however late it was read")
        for writer in writers:
            writer.sendall(b'"' + b" " * 91)
            answer = http.client.HTTPResponse(writer)
            answer.begin()
            self.assertEqual((answer.status, json.loads(answer.read())["result"]), (200, "half of"))

    def test_a_worker_that_is_slow_has_what_it_has_and_no_more(self):
        self.controller.deploy("hello")
        self.gate.functions = ("hello",)  # until both workers have all that they take
        slow = Gate("hello")
        self.stack.callback(slow.open.set)
        self.stack.enter_context(Worker(self.controller, name="slow", slots=2, run=slow))
        answers = self.start("hello", 40)
        self.running("hello", self.slots)
        wait_until(lambda: slow.inside.get("hello") == 2, "the slow one has two")
        self.gate.open.set()
        wait_until(lambda: len(answers) == 38, "all but the two that the slow one has are answered by the other")
        self.assertEqual({a.status for a in answers}, {200})
        self.assertEqual(slow.inside["hello"], 2)
        slow.open.set()
        self.finish()
        self.assertEqual([a.status for a in answers], [200] * 40)


class Tokens(Overload):
    def create(self, name, scope="invoke", **limits):
        answer = self.controller.request("POST", "/v1/tokens", {"name": name, "scope": scope} | limits)
        self.assertEqual(answer.status, 201, answer)
        return answer.json()["token"]

    def test_its_text_is_shown_once_and_kept_nowhere(self):
        token = self.create("one", rate_limit=5)
        self.assertRegex(token, "^[0-9a-f]{64}$")
        listed = self.controller.request("GET", "/v1/tokens")
        self.assertNotIn(token, listed.body.decode())
        made = listed.json()["tokens"][0]
        self.assertEqual({key: made[key] for key in made if key != "created_at"},
                         {"name": "one", "scope": "invoke", "rate_limit": 5, "rate_burst": 0, "max_concurrency": 0})  # fmt: skip
        self.assertNotIn(token, self.controller.log_text())
        self.controller.stop()
        for name in os.listdir(self.controller.data_dir):
            with contextlib.suppress(IsADirectoryError), open(os.path.join(self.controller.data_dir, name), "rb") as file:
                self.assertNotIn(token.encode(), file.read(), name)
        self.controller.start()
        self.assertEqual(self.controller.request("GET", "/v1/executions/x", token=token).status, 404, "it is known after a restart")

    def test_scope_invoke_calls_and_reads_by_id_only(self):
        self.controller.deploy("hello")
        token = self.create("caller")
        called = self.call("hello", 7, token=token)
        self.assertEqual((called.status, called.json()["result"]), (200, 7))
        self.assertEqual(self.controller.request("POST", "/fn/hello", 7, token=token).status, 200)
        accepted = self.call("hello", 8, query="?mode=async", token=token).json()["id"]
        self.assertEqual(self.controller.request("GET", f"/v1/executions/{accepted}", token=token).status, 200)
        self.controller.wait_execution(accepted)
        self.assertEqual(self.controller.request("GET", f"/v1/executions/{accepted}/logs", token=token).status, 200)
        for method, path in (("GET", "/v1/functions"), ("GET", "/v1/functions/hello"), ("DELETE", "/v1/functions/hello"), ("GET", "/v1/executions"),
                             ("GET", "/v1/functions/hello/logs"), ("GET", "/v1/tokens"), ("DELETE", "/v1/tokens/caller"), ("GET", "/v1/workers"),
                             ("GET", "/v1/dead-letters"), ("GET", "/v1/worker/code/" + "0" * 64)):  # fmt: skip
            answer = self.controller.request(method, path, token=token)
            self.assertEqual((answer.status, answer.json()["error"]["type"]), (403, "forbidden"), (method, path))
        answer = self.controller.request("POST", "/v1/tokens", {"name": "more", "scope": "admin"}, token=token)
        self.assertEqual(answer.status, 403, answer)

    def test_scope_invoke_is_refused_by_every_route_but_those(self):
        allowed = {("post", "/v1/functions/{name}/invocations"), ("get", "/v1/executions/{id}"), ("get", "/v1/executions/{id}/logs")}
        open_to_all = {"/healthz", "/readyz", "/metrics", "/openapi.yaml"}
        self.controller.deploy("hello")
        token = self.create("caller")
        document = yaml.safe_load(self.controller.request("GET", "/openapi.yaml", token=None).body)
        refused = 0
        for path, operations in document["paths"].items():
            url = path.format(name="hello", id="0" * 36, version=1, sha256="0" * 64)
            for method in operations.keys() & {"get", "put", "post", "delete", "patch"}:
                if path in open_to_all:
                    continue
                for wrong in (None, "0" * 64):
                    self.assertEqual(self.controller.request(method.upper(), url, token=wrong).status, 401, (method, path))
                status = self.controller.request(method.upper(), url, token=token).status
                expected = (200, 404) if (method, path) in allowed or path.startswith("/fn/") else (403,)
                self.assertIn(status, expected, (method, path))
                refused += status == 403
        self.assertGreater(refused, 15)

    def test_scope_admin_may_do_what_the_file_may(self):
        token = self.create("boss", scope="admin")
        self.assertEqual(self.controller.request("GET", "/v1/functions", token=token).status, 200)
        self.assertEqual(self.controller.request("GET", "/v1/worker/code/" + "0" * 64, token=token).status, 403)
        self.assertEqual(self.controller.request("POST", "/v1/tokens", {"name": "next", "scope": "invoke"}, token=token).status, 201)

    def test_a_revoked_one_is_nobodys_and_its_calls_go_on(self):
        self.controller.deploy("slow")
        token = self.create("gone")
        answers = []
        client = threading.Thread(target=lambda: answers.append(self.call("slow", 3, token=token)), daemon=True)
        client.start()
        self.running("slow", 1)
        self.assertEqual(self.controller.request("DELETE", "/v1/tokens/gone").status, 204)
        self.assertEqual(self.call("slow", token=token).status, 401)
        self.gate.open.set()
        client.join(fixture.WAIT_S)
        self.assertEqual((answers[0].status, answers[0].json()["result"]), (200, 3))
        self.assertEqual(self.controller.request("DELETE", "/v1/tokens/gone").status, 404)
        self.assertNotEqual(self.create("gone"), token)
        self.assertEqual(self.call("slow", token=token).status, 401, "the name is another's now")

    def test_a_request_whose_body_comes_after_the_revocation_is_refused(self):
        body = json.dumps({"runtime": "python", "code": fixture.CODE}).encode()
        payload = b'"late"'
        self.controller.deploy("hello")
        token = self.create("leaver", scope="admin")
        late = [self.begin_request(token, "PUT", "/v1/functions/late", body), self.begin_request(token, "POST", "/fn/hello", payload)]
        self.assertEqual(self.controller.request("DELETE", "/v1/tokens/leaver").status, 204)
        for connection, rest in zip(late, (body, payload)):
            connection.sendall(rest)
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            self.assertEqual((answer.status, json.loads(answer.read())["error"]["type"]), (401, "unauthorized"))
        self.assertEqual(self.controller.request("GET", "/v1/functions/late").status, 404)

    def begin_request(self, token, method, path, body):
        """The head is taken, as the server's 100 says."""
        url = urllib.parse.urlsplit(self.controller.url)
        connection = self.stack.enter_context(contextlib.closing(socket.create_connection((url.hostname, url.port), fixture.WAIT_S)))
        connection.sendall(f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n"
                           f"Content-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n".encode())  # fmt: skip
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += connection.recv(1)
        self.assertIn(b" 100 ", answer)
        return connection

    def test_bad_requests_name_the_field(self):
        self.create("taken")
        for fields, status, field in (({"name": "taken"}, 409, None), ({"name": "Bad"}, 400, "/name"), ({"scope": "root"}, 400, "/scope"),
                                      ({"rate_limit": 1e-9}, 400, "/rate_limit"), ({"rate_burst": 3}, 400, "/rate_burst"),
                                      ({"max_concurrency": -1}, 400, "/max_concurrency"), ({"text": "x"}, 400, "/text")):  # fmt: skip
            answer = self.controller.request("POST", "/v1/tokens", {"name": "x", "scope": "invoke"} | fields)
            self.assertEqual((answer.status, answer.json()["error"].get("field")), (status, field), answer)

    def test_over_its_rate_is_throttled_and_another_token_goes_on(self):
        self.controller.deploy("hello")
        flooder, other = self.create("flooder", rate_limit=0.01, rate_burst=4), self.create("other")
        answers = [self.call("hello", token=flooder) for _ in range(10)]
        self.assertEqual([a.status for a in answers], [200] * 4 + [429] * 6)
        self.assertThrottled(answers[-1], "the token flooder is used more often")
        self.assertIn(int(answers[-1].headers["Retry-After"]), range(90, 101))
        self.assertThrottled(self.controller.request("GET", "/v1/executions/x", token=flooder))
        for n in range(10):
            self.assertEqual(self.call("hello", n, token=other).json()["result"], n)
        self.assertEqual(self.metric('faas_admission_refused_total{limit="token_rate"}'), 7)

    def test_over_its_concurrency_is_throttled_whatever_it_calls(self):
        self.controller.deploy("slow")
        self.controller.deploy("hello", public=True)
        token = self.create("busy", max_concurrency=1)
        client = threading.Thread(target=lambda: self.call("slow", token=token), daemon=True)
        client.start()
        self.running("slow", 1)
        self.assertThrottled(self.call("hello", token=token), "the token busy has 1 calls")
        self.assertEqual(self.call("hello", query="?mode=async", token=token).status, 202, "nobody waits for it")
        self.assertEqual(self.controller.request("GET", "/fn/hello", token=token).status, 200, "a public function asks for no token")
        self.assertEqual(self.call("hello").status, 200)
        self.gate.open.set()
        client.join(fixture.WAIT_S)
        self.assertEqual(self.call("hello", token=token).status, 200)


class Command(Overload):
    def faas(self, *arguments, token=None):
        environment = {"PATH": os.environ["PATH"], "HOME": self.controller.folder, "FAAS_URL": self.controller.url,
                       "FAAS_TOKEN": token or self.controller.token}  # fmt: skip
        return subprocess.run([os.path.join(fixture.BIN, "faas"), *arguments], env=environment, stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, timeout=fixture.WAIT_S)  # fmt: skip

    def deploy(self, settings, *options):
        with tempfile.TemporaryDirectory(prefix="faas-overload-test-") as folder:
            with open(os.path.join(folder, "main.py"), "w", encoding="utf-8") as file:
                file.write("print(1)")
            with open(os.path.join(folder, "faas.json"), "w", encoding="utf-8") as file:
                json.dump(settings, file)
            return self.faas("deploy", "hello", folder, *options)

    def function(self):
        return self.controller.request("GET", "/v1/functions/hello").json()

    def test_deploy_knows_the_limits(self):
        done = self.deploy({"rate_limit": 3, "rate_burst": 4}, "--rate-limit", "0.5", "--max-concurrency", "7")
        self.assertEqual(done.returncode, 0, done.stderr)
        function = self.function()
        self.assertEqual((function["rate_limit"], function["rate_burst"], function["max_concurrency"]), (0.5, 4, 7))
        done = self.deploy({}, "--reserved-concurrency", "2")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.function()["reserved_concurrency"], 2)
        done = self.deploy({}, "--rate-limit", "fast")
        self.assertEqual((done.returncode, "--rate-limit must be a number" in done.stderr), (2, True), done.stderr)

    def test_tokens_are_made_listed_and_revoked(self):
        done = self.faas("tokens", "create", "billing", "--rate-limit", "0.5", "--max-concurrency", "3")
        self.assertEqual(done.returncode, 0, done.stderr)
        token = done.stdout.strip()
        self.assertRegex(token, "^[0-9a-f]{64}$")
        done = self.faas("tokens", "list")
        self.assertRegex(done.stdout, r"billing +invoke +0\.5 +3 ")
        self.assertEqual(self.faas("list", token=token).returncode, 3, "it may call only")
        self.assertEqual(self.faas("tokens", "rm", "billing").returncode, 0)
        self.assertEqual(json.loads(self.faas("tokens", "list", "--json").stdout), [])
        self.assertEqual(self.faas("tokens", "rm", "billing").returncode, 4)

    def test_deploy_knows_retry_and_leaves_the_rest_of_it_as_the_folder_says(self):
        done = self.deploy({"retry": {"max_attempts": 2, "backoff_ms": 5}}, "--retry-attempts", "4", "--retry-max-age", "1h")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.function()["retry"], {"max_attempts": 4, "backoff_ms": 5, "max_age_ms": 3600000})
        done = self.deploy({"retry": {"backof_ms": 5}}, "--retry-backoff", "2s")
        self.assertEqual((done.returncode, "backof_ms" in done.stderr), (2, True), done.stderr)


if __name__ == "__main__":
    unittest.main()
