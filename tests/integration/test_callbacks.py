"""Callbacks: a receiver of this test's own hears of the end of asynchronous invocations, signed, again until it takes it, also when the
controller is killed in between."""
import contextlib
import hashlib
import hmac
import http.server
import json
import os
import queue
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.error
import urllib.request

from authority import Authority
from controller import ROOT, Controller, Worker, wait_until
from postgresql import PostgreSQL

SECRET = "a secret of the test's own"


class Receiver:
    """Answers each POST with the next of `answers` (a status, "close", or "hang"); with 200 when there are none left. With an `authority`
    it speaks TLS, with that one's certificate."""

    def __init__(self, *answers, authority=None):
        self.answers, self.heard, self.end = list(answers), queue.Queue(), threading.Event()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                answer = receiver.answers.pop(0) if receiver.answers else 200
                receiver.heard.put((self.path, self.headers, body))
                if answer == "hang":
                    receiver.end.wait()
                if isinstance(answer, str):
                    self.close_connection = True
                    return
                self.send_response(answer)
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        if authority:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(authority.cert, authority.key)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"{'https' if authority else 'http'}://127.0.0.1:{self.server.server_port}/hook?a=b"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.end.set()
        self.server.shutdown()
        self.server.server_close()

    def next(self):
        path, headers, body = self.heard.get(timeout=60)
        stamp, signature = (part.split("=")[1] for part in headers["Faas-Signature"].split(","))
        expected = hmac.new(SECRET.encode(), stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
        assert hmac.compare_digest(signature, expected), headers["Faas-Signature"]
        assert headers["Faas-Timestamp"] == stamp
        event = json.loads(body)
        assert headers["Faas-Execution-Id"] == event["execution"]["id"]
        return path, int(headers["Faas-Callback-Attempt"]), event


class Callbacks(unittest.TestCase):
    SETTINGS = {"CONTROLLER_CALLBACK_ALLOW": "127.0.0.1/32", "CONTROLLER_CALLBACK_BACKOFF_MS": 20, "CONTROLLER_CALLBACK_TIMEOUT_MS": 60000}

    def setUp(self):
        self.stack = contextlib.ExitStack()
        self.addCleanup(self.stack.close)

    def start(self, *answers, worker=True, **settings):
        self.receiver = self.stack.enter_context(Receiver(*answers))
        self.controller = self.stack.enter_context(Controller(**self.SETTINGS | settings))
        if worker:
            self.worker = self.stack.enter_context(Worker(self.controller))
        self.controller.deploy("f", callback_secret=SECRET)

    def call(self, payload=None, url=None, controller=None):
        answer = (controller or self.controller).request("POST", "/v1/functions/f/invocations?mode=async", payload,
                                                         headers={"Callback-Url": url or self.receiver.url})  # fmt: skip
        self.assertEqual(answer.status, 202, answer)
        return answer.json()["id"]

    def wait_state(self, execution_id, state, controller=None):
        read = (controller or self.controller).execution
        return wait_until(lambda: (c := read(execution_id).get("callback", {})).get("state") == state and c, f"the callback is {state}")

    def metric(self, name):
        page = self.controller.request("GET", "/metrics", token=None).body.decode()
        return next(float(line.split()[1]) for line in page.splitlines() if line.startswith(name + " "))

    def test_the_end_of_a_call_is_told_signed_and_shown(self):
        self.start()
        execution_id = self.call({"a": 1})
        path, attempt, event = self.receiver.next()
        self.assertEqual((path, attempt, event["type"]), ("/hook?a=b", 1, "execution.finished"))
        self.assertEqual((event["execution"]["status"], event["execution"]["result"]), ("succeeded", {"a": 1}))
        callback = self.wait_state(execution_id, "delivered")
        self.assertEqual((callback["url"], callback["attempts"], callback["last_status"]), (self.receiver.url, 1, 200))
        self.assertEqual(self.metric("faas_callbacks_delivered_total"), 1)

    def test_a_function_has_a_url_of_its_own_and_its_secret_is_never_shown(self):
        self.start()
        self.controller.deploy("f", callback_url=self.receiver.url)  # its secret stays
        self.controller.invoke_async("f")
        self.assertEqual(self.receiver.next()[1], 1)
        for path in ("/v1/functions/f", "/v1/functions", "/v1/executions"):
            self.assertNotIn(SECRET, self.controller.request("GET", path).body.decode())
        for path in ("/v1/worker/functions/f/1", "/v1/worker/functions/f/2"):
            self.assertNotIn(SECRET, self.worker.call("GET", path).body.decode())
        self.assertNotIn(SECRET, self.controller.log_text())

    def test_what_is_not_taken_is_sent_again(self):
        self.start(500, "close", "hang", 302, CONTROLLER_CALLBACK_TIMEOUT_MS=3000)
        execution_id = self.call()
        self.assertEqual([self.receiver.next()[:2] for _ in range(5)], [("/hook?a=b", n) for n in range(1, 6)])
        self.assertEqual(self.wait_state(execution_id, "delivered")["attempts"], 5)
        self.assertEqual(self.metric("faas_callback_retries_total"), 4)

    def test_it_is_given_up_and_can_be_sent_again(self):
        self.start(500, 503, CONTROLLER_CALLBACK_ATTEMPTS=2)
        execution_id = self.call()
        callback = self.wait_state(execution_id, "failed")
        self.assertEqual((callback["attempts"], callback["last_status"]), (2, 503))
        self.assertIn("503", callback["last_error"])
        self.assertEqual(self.metric("faas_callbacks_failed_total"), 1)
        self.assertEqual(self.controller.request("POST", f"/v1/executions/{execution_id}/callback/redrive").json(), {"count": 1})
        self.assertEqual(self.wait_state(execution_id, "delivered")["attempts"], 1)
        other = self.controller.invoke_async("f")
        self.controller.wait_execution(other)
        self.assertEqual(self.controller.request("POST", f"/v1/executions/{other}/callback/redrive").status, 404)

    def test_one_that_waited_when_the_controller_was_killed_is_told_after_its_start(self):
        self.start("hang", CONTROLLER_CALLBACK_BACKOFF_MS=600000, CONTROLLER_CALLBACK_TIMEOUT_MS=3000)
        execution_id = self.call()
        self.receiver.next()
        self.controller.kill()
        self.controller.start()
        attempt = self.receiver.next()[1]
        self.assertEqual(attempt, 2)
        self.wait_state(execution_id, "delivered")

    def test_what_a_deleted_function_leaves_waiting_is_told_as_cancelled(self):
        self.start(worker=False)
        execution_id = self.call()
        self.assertEqual(self.controller.execution(execution_id)["callback"]["state"], "waiting")
        self.assertEqual(self.controller.request("DELETE", "/v1/functions/f").status, 204)
        self.assertEqual(self.receiver.next()[2]["execution"]["status"], "cancelled")

    def test_a_large_result_is_a_link(self):
        self.start(CONTROLLER_CALLBACK_RESULT_MAX_BYTES=100)
        execution_id = self.call("x" * 200)
        event = self.receiver.next()[2]
        self.assertNotIn("result", event["execution"])
        self.assertEqual(event["result_link"], "/v1/executions/" + execution_id)

    def test_a_slow_host_does_not_hold_up_another(self):
        self.start(*["hang"] * 200)
        with Receiver() as quick:
            for _ in range(20):
                self.call()
            self.call(url=quick.url)
            self.assertEqual(quick.next()[1], 1)
            self.assertLessEqual(self.receiver.heard.qsize(), 8)

    def test_addresses_and_urls_that_are_refused(self):
        self.start()
        other = socket.create_server(("127.0.0.2", 0))
        self.addCleanup(other.close)
        port = other.getsockname()[1]
        for url in (f"http://127.0.0.2:{port}/", "http://169.254.169.254/latest", "https://10.0.0.1/", "https://[::1]/", "https://[::ffff:127.0.0.2]/",
                    "http://8.8.8.8/", "ftp://127.0.0.1/", "http://user:pass@127.0.0.1/", "file:///etc/passwd", "http://", "x" * 3000):  # fmt: skip
            answer = self.controller.request("POST", "/v1/functions/f/invocations?mode=async", None, headers={"Callback-Url": url})
            self.assertEqual((answer.status, answer.json()["error"]["field"]), (400, "Callback-Url"), url)
        answer = self.controller.request("POST", "/v1/functions/f/invocations", None, headers={"Callback-Url": self.receiver.url})
        self.assertEqual(answer.status, 400)
        self.controller.deploy("unsigned")
        answer = self.controller.request("POST", "/v1/functions/unsigned/invocations?mode=async", None,
                                         headers={"Callback-Url": self.receiver.url})  # fmt: skip
        self.assertIn("callback_secret", answer.json()["error"]["message"])

    def test_a_name_is_judged_by_the_address_it_leads_to(self):
        self.start(CONTROLLER_CALLBACK_ALLOW="192.0.2.0/24")
        port = self.receiver.server.server_port
        callback = self.wait_state(self.call(url=f"http://localhost:{port}/"), "failed")
        self.assertIn("address", callback["last_error"])
        self.assertEqual(callback["attempts"], 1)
        self.assertTrue(self.receiver.heard.empty())

    def test_a_receiver_over_tls_has_a_certificate_of_the_authority_and_of_its_name(self):
        folder = self.stack.enter_context(tempfile.TemporaryDirectory(prefix="callbacks-tls-"))
        own, strange, elsewhere = Authority(folder, "own"), Authority(folder, "strange"), Authority(folder, "elsewhere", "127.0.0.2")
        both = os.path.join(folder, "both.pem")
        with open(both, "w", encoding="ascii") as file:
            for authority in (own, elsewhere):
                with open(authority.ca, encoding="ascii") as part:
                    file.write(part.read())
        self.start(CONTROLLER_CALLBACK_CA_FILE=both, CONTROLLER_CALLBACK_ATTEMPTS=2)
        receivers = {one: self.stack.enter_context(Receiver(authority=one)) for one in (own, strange, elsewhere)}
        execution_id = self.call(url=receivers[own].url)
        self.assertEqual(receivers[own].next()[1], 1)
        self.wait_state(execution_id, "delivered")
        for one, why in ((strange, "certificate"), (elsewhere, "certificate subject name")):
            callback = self.wait_state(self.call(url=receivers[one].url), "failed")
            self.assertEqual(callback["attempts"], 2)
            self.assertIn(why, callback["last_error"])
            self.assertTrue(receivers[one].heard.empty(), "nothing is sent to a stranger")

    def test_the_example_receiver_takes_what_is_signed_and_nothing_else(self):
        self.start()
        secret = os.path.join(self.controller.folder, "secret")
        with open(secret, "w") as file:
            file.write(SECRET + "\n")
        example = subprocess.Popen([sys.executable, os.path.join(ROOT, "examples", "callback_receiver.py"), "--secret-file", secret, "--port", "0"],
                                   stdout=subprocess.PIPE, text=True)  # fmt: skip
        self.addCleanup(example.stdout.close)
        self.addCleanup(example.wait)
        self.addCleanup(example.kill)
        url = example.stdout.readline().split()[-1]
        execution_id = self.call(url=url)
        self.assertEqual(example.stdout.readline().split(), [execution_id, "succeeded", "attempt", "1"])
        request = urllib.request.Request(url, b"{}", {"Faas-Signature": f"t={int(time.time())},v1=00"})
        with self.assertRaises(urllib.error.HTTPError) as refused:
            urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60)
        self.assertEqual(refused.exception.code, 401)
        refused.exception.close()


class CallbacksOfSeveralControllers(unittest.TestCase):
    def test_another_controller_takes_over_what_one_had_under_way(self):
        with contextlib.ExitStack() as stack:
            server = stack.enter_context(PostgreSQL())
            receiver = stack.enter_context(Receiver("hang"))
            settings = Callbacks.SETTINGS | {"CONTROLLER_DATABASE_URL": server.create_database("callbacks"), "WORKER_TOKEN": "w" * 32, "CONTROLLER_CALLBACK_TIMEOUT_MS": 3000}
            first = stack.enter_context(Controller(**settings))
            stack.enter_context(Worker(first))
            first.deploy("f", callback_secret=SECRET)
            answer = first.request("POST", "/v1/functions/f/invocations?mode=async", None, headers={"Callback-Url": receiver.url})
            self.assertEqual(answer.status, 202, answer)
            self.assertEqual(receiver.next()[1], 1)
            second = Controller(**settings)
            os.makedirs(second.data_dir)
            shutil.copy(os.path.join(first.data_dir, "token"), second.data_dir)
            first.kill()
            stack.enter_context(second)
            self.assertEqual(receiver.next()[1], 2)


if __name__ == "__main__":
    unittest.main()
