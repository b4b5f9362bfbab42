"""The controller's HTTP API, with workers that are played: functions, invocations, executions, logs, errors."""
import base64
import contextlib
import http.client
import io
import json
import os
import shutil
import socket
import stat
import subprocess
import tarfile
import threading
import time
import unittest
import urllib.parse
import zipfile

import controller as fixture
from controller import CODE, ROOT, Controller, Worker, wait_until

PROMTOOL = next((p for p in (os.path.join(ROOT, "build", "tools", "promtool"), shutil.which("promtool")) if p and os.path.exists(p)), None)


def b64(data):
    return base64.b64encode(data).decode()


def tar_of(files, mode="w:gz"):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


class ApiTest(unittest.TestCase):
    settings = {}
    with_worker = True

    @classmethod
    def setUpClass(cls):
        cls.stack = contextlib.ExitStack()
        cls.controller = cls.stack.enter_context(Controller(**cls.settings))
        cls.worker = cls.stack.enter_context(Worker(cls.controller)) if cls.with_worker else None

    @classmethod
    def tearDownClass(cls):
        if cls.worker:
            cls.worker.stop()
        status = cls.controller.stop()
        cls.stack.close()
        assert status == 0, status

    def api(self, *args, **options):
        return self.controller.request(*args, **options)

    def run_with(self, run):
        """Until the test ends the worker runs invocations so."""
        before, self.worker.run = self.worker.run, run
        self.addCleanup(setattr, self.worker, "run", before)

    def assertError(self, answer, status, kind, *words, field=None):
        self.assertEqual(answer.status, status, answer)
        body = answer.json()
        self.assertEqual(set(body), {"error", "request_id"})
        self.assertEqual(body["error"]["type"], kind, answer)
        self.assertEqual(answer.headers["X-Request-Id"], body["request_id"])
        for word in words:
            self.assertIn(word, body["error"]["message"])
        if field is not None:
            self.assertEqual(body["error"].get("field"), field)


class Functions(ApiTest):
    def test_post_creates_and_refuses_a_taken_name(self):
        fields = {"name": "created", "runtime": "python", "code": CODE, "labels": {"team": "x"}}
        answer = self.api("POST", "/v1/functions", fields)
        self.assertEqual(answer.status, 201, answer)
        function = answer.json()
        self.assertEqual((function["version"], function["state"], function["ready_version"]), (1, "ready", 1))
        self.assertEqual(function["labels"], {"team": "x"})
        self.assertNotIn("code", function)
        self.assertError(self.api("POST", "/v1/functions", fields), 409, "conflict", "created", field="/name")

    def test_put_creates_updates_and_changes_nothing_for_the_same(self):
        fields = {"runtime": "python", "code": CODE}
        first = self.api("PUT", "/v1/functions/put", fields)
        same = self.api("PUT", "/v1/functions/put", fields | {"name": "put", "memory_mb": 128})
        changed = self.api("PUT", "/v1/functions/put", fields | {"memory_mb": 256})
        self.assertEqual([a.status for a in (first, same, changed)], [201, 200, 200])
        self.assertEqual([a.json()["version"] for a in (first, same, changed)], [1, 1, 2])
        self.assertEqual(first.json()["updated_at"], same.json()["updated_at"])
        self.assertEqual(first.json()["created_at"], changed.json()["created_at"])

    def test_put_without_code_keeps_the_code(self):
        before = self.controller.deploy("keeps")
        after = self.api("PUT", "/v1/functions/keeps", {"runtime": "python", "timeout_ms": 5}).json()
        self.assertEqual((after["version"], after["code_sha256"]), (2, before["code_sha256"]))
        self.assertError(self.api("PUT", "/v1/functions/keeps", {"runtime": "nodejs"}), 400, "invalid_request", "runtime", field="/code")
        self.assertError(self.api("PUT", "/v1/functions/keeps-not", {"runtime": "nodejs"}), 400, "invalid_request", field="/code")

    def test_the_code_comes_back_only_when_asked_for(self):
        self.controller.deploy("code")
        self.assertNotIn("code", self.api("GET", "/v1/functions/code").json())
        self.assertEqual(self.api("GET", "/v1/functions/code?include=code").json()["code"], CODE)
        self.assertError(self.api("GET", "/v1/functions/code?include=all"), 400, "invalid_request", "all", field="include")

    def test_delete_and_numbers_that_go_on(self):
        self.controller.deploy("deleted")
        self.assertEqual(self.api("DELETE", "/v1/functions/deleted").status, 204)
        for method in ("GET", "DELETE"):
            self.assertError(self.api(method, "/v1/functions/deleted"), 404, "not_found", "deleted")
        self.assertError(self.api("POST", "/v1/functions/deleted/invocations"), 404, "not_found")
        self.assertNotIn("deleted", [f["name"] for f in self.api("GET", "/v1/functions?limit=1000").json()["functions"]])
        self.assertEqual(self.controller.deploy("deleted")["version"], 2)

    def test_list_is_paged_in_name_order(self):
        names = [f"page-{i}" for i in range(7)]
        for name in reversed(names):
            self.controller.deploy(name)
        found, cursor = [], "page-"
        while cursor:
            page = self.api("GET", f"/v1/functions?limit=3&cursor={cursor}").json()
            self.assertLessEqual(len(page["functions"]), 3)
            found += [f["name"] for f in page["functions"] if f["name"].startswith("page-")]
            cursor = page.get("next_cursor")
        self.assertEqual(found, names)
        for limit in ("0", "x", "1001", "-1", "1x", ""):
            self.assertError(self.api("GET", "/v1/functions?limit=" + limit), 400, "invalid_request", field="limit")

    def test_unknown_fields_types_and_ranges_name_the_field(self):
        for field, value in (("memroy_mb", 1), ("memory_mb", 4), ("timeout_ms", 900001), ("cpus", 0.01), ("runtime", "cobol"), ("env", {"A": 1})):
            answer = self.api("PUT", "/v1/functions/bad", {"runtime": "python", "code": CODE, field: value})
            self.assertError(answer, 400, "invalid_request")
            self.assertTrue(answer.json()["error"]["field"].startswith("/" + field), answer)
        self.assertError(self.api("GET", "/v1/functions/bad"), 404, "not_found")

    def test_bad_json(self):
        for body in (b"", b"{", b"[]", b"1", b'{"runtime": "python", "runtime": "go"}', b"[" * 100_000, b'{"a":' * 100_000, b'{"a": "\xff"}', b"{} x"):
            self.assertError(self.api("PUT", "/v1/functions/bad", body), 400, "invalid_request")

    def test_bad_names(self):
        for name in ("Bad", "a_b", "-a", "a" * 64):
            self.assertError(self.api("PUT", "/v1/functions/" + name, {"runtime": "python", "code": CODE}), 400, "invalid_request", field="/name")
        self.assertError(self.api("POST", "/v1/functions", {"runtime": "python", "code": CODE}), 400, "invalid_request", field="/name")
        self.assertError(self.api("PUT", "/v1/functions/a", {"name": "b", "runtime": "python", "code": CODE}), 400, "invalid_request", field="/name")

    def test_code_that_cannot_be_used(self):
        for code, words in (("***", ()), ("", ("empty",)), (b64(b"a\0b"), ("NUL",)), (b64(b"BZh91AY&SY" + bytes(40)), ("tar.gz",)),
                            (b64(tar_of({"readme": b"x"})), ("main.py",)), (b64(tar_of({"../main.py": b"x", "main.py": b"x"})), ("..",))):  # fmt: skip
            answer = self.api("PUT", "/v1/functions/bad", {"runtime": "python", "code": code})
            self.assertError(answer, 400, "invalid_request", *words, field="/code")
        self.assertEqual(os.listdir(os.path.join(self.controller.data_dir, "check")), [])

    def test_the_entry_file_of_each_contract(self):
        cases = (({"runtime": "nodejs"}, "index.mjs"), ({"runtime": "nodejs"}, "index.js"), ({"runtime": "native"}, "bootstrap"),
                 ({"runtime": "python", "contract": "handler", "handler": "pkg.app.handler"}, "pkg/app.py"),
                 ({"runtime": "nodejs", "contract": "handler", "handler": "app.handler"}, "app.mjs"))  # fmt: skip
        for fields, entry in cases:
            good = self.api("PUT", "/v1/functions/entry", fields | {"code": b64(tar_of({entry: b"x"}, "w"))})
            self.assertIn(good.status, (200, 201), good)
            bad = self.api("PUT", "/v1/functions/entry", fields | {"code": b64(tar_of({"other": b"x"}))})
            self.assertError(bad, 400, "invalid_request", entry, field="/code")
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("main.py", "print(1)")
        self.controller.deploy("zipped", code=b64(packed.getvalue()))
        self.assertError(self.api("PUT", "/v1/functions/native", {"runtime": "native", "code": b64(b"hello")}), 400, "invalid_request", "ELF", field="/code")

    def test_of_many_at_once_each_is_a_version_of_its_own(self):
        answers = []
        threads = [threading.Thread(target=lambda i=i: answers.append(self.api("PUT", "/v1/functions/many", {"runtime": "python", "code": CODE, "env": {"N": str(i)}})))
                   for i in range(10)]  # fmt: skip
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(sorted(a.json()["version"] for a in answers), list(range(1, 11)))
        self.assertEqual(sorted(a.status for a in answers), [200] * 9 + [201])


class Invocations(ApiTest):
    def test_the_payload_arrives_and_the_execution_has_the_contracts_fields(self):
        self.controller.deploy("echo")
        execution = self.controller.invoke("echo", {"a": [1, "ä"]})
        self.assertEqual((execution["status"], execution["result"], execution["function"], execution["version"], execution["worker"], execution["attempt"]),
                         ("succeeded", {"a": [1, "ä"]}, "echo", 1, "w1", 1))  # fmt: skip
        self.assertEqual(execution["metrics"]["duration"], 1500000)
        self.assertGreater(execution["metrics"]["queue_time"], 0)
        self.assertEqual(self.controller.invoke("echo")["result"], {})
        self.assertEqual(self.controller.execution(execution["id"]), execution)

    def test_a_failed_function_is_an_answer_too(self):
        error = {"type": "ValueError", "message": "no", "exit_code": 1, "stack": ["main.py:1"]}
        self.run_with(lambda head, payload: ({"status": "failed", "error": error}, b"", b"line\n"))
        self.controller.deploy("fails")
        execution = self.controller.invoke("fails")
        self.assertEqual((execution["status"], execution["error"], execution["logs"]), ("failed", error, "line\n"))
        self.assertNotIn("result", {k for k, v in execution.items() if v is not None})

    def test_raw_answers(self):
        self.controller.deploy("raw")
        json_result = self.api("POST", "/fn/raw", b'{"a":  1}')
        self.assertEqual((json_result.status, json_result.body, json_result.headers["Content-Type"]), (200, b'{"a":  1}', "application/json"))
        self.assertEqual((json_result.headers["X-Execution-Status"], json_result.headers["X-Duration-Ns"]), ("succeeded", "1500000"))
        self.assertEqual(self.controller.execution(json_result.headers["X-Execution-Id"])["result"], {"a": 1})
        text = self.api("POST", "/fn/raw", "grüße".encode())
        self.assertEqual((text.body, text.headers["Content-Type"]), ("grüße".encode(), "text/plain; charset=utf-8"))
        for method in ("GET", "PUT", "DELETE", "PATCH"):
            self.assertEqual(self.api(method, "/fn/raw").body, b"{}")
        self.assertError(self.api("POST", "/fn/raw", b"{", headers={"Content-Type": "application/json"}), 400, "invalid_request")
        self.assertError(self.api("POST", "/fn/raw", b"\xff\xfe"), 400, "invalid_request")
        self.run_with(lambda head, payload: ({"status": "succeeded", "result_base64": True}, json.dumps(b64(b"\xff\x00")).encode(), b""))
        raw = self.api("POST", "/fn/raw")
        self.assertEqual((raw.body, raw.headers["Content-Type"]), (b"\xff\x00", "application/octet-stream"))

    def test_raw_failures_have_their_status(self):
        self.controller.deploy("raw-fails")
        for status, expected in (("failed", 502), ("out_of_memory", 502), ("timed_out", 504), ("lost", 502)):
            self.run_with(lambda head, payload, s=status: ({"status": s, "error": {"type": "T." + s, "message": "why"}}, b"", b""))
            answer = self.api("POST", "/fn/raw-fails")
            self.assertEqual(answer.status, expected, answer)
            body = answer.json()
            self.assertEqual((body["error"]["type"], body["status"], body["execution_id"]), ("T." + status, status, answer.headers["X-Execution-Id"]))

    def test_public_functions_need_no_token_on_fn_only(self):
        self.controller.deploy("open", public=True)
        self.assertEqual(self.api("POST", "/fn/open", b"1", token=None).body, b"1")
        self.assertError(self.api("POST", "/v1/functions/open/invocations", b"1", token=None), 401, "unauthorized")
        self.controller.deploy("open", public=False)
        self.assertError(self.api("POST", "/fn/open", b"1", token=None), 401, "unauthorized")

    def test_payloads_that_are_refused(self):
        self.controller.deploy("picky")
        path = "/v1/functions/picky/invocations"
        for body in (b"{", b"hello", b"\xff", b"[" * 100_000, b"[" * 100_000 + b"]" * 100_000, b"1 2"):
            self.assertError(self.api("POST", path, body), 400, "invalid_request")
        self.assertError(self.api("POST", path + "?mode=later", b"1"), 400, "invalid_request", "later", field="mode")
        self.assertError(self.api("POST", path, b'"' + b"a" * (6 * 1024 * 1024) + b'"'), 413, "payload_too_large")

    def test_six_mebibytes_each_way(self):
        self.controller.deploy("large")
        payload = b'"' + b"a" * (6 * 1024 * 1024 - 2) + b'"'
        answer = self.api("POST", "/fn/large", payload)
        self.assertEqual((answer.status, len(answer.body)), (200, 6 * 1024 * 1024 - 2))
        numbers = b"[" + b"1," * (3 * 1024 * 1024 - 2) + b"1]"
        self.assertEqual(self.api("POST", "/fn/large", numbers).body, numbers)

    def test_answer_and_record_have_the_same_large_result(self):
        self.controller.deploy("shared")
        for size in (65535, 65536, 65537, 1 << 20):
            payload = "a" * (size - 2)
            execution = self.controller.invoke("shared", payload)
            self.assertEqual((execution["status"], execution["result"] == payload), ("succeeded", True), size)
            self.assertTrue(self.controller.execution(execution["id"]) == execution, size)

    def test_a_result_over_the_limit_is_the_functions_failure(self):
        self.run_with(lambda head, payload: ({"status": "succeeded"}, b'"' + b"a" * (6 * 1024 * 1024) + b'"', b""))
        self.controller.deploy("too-large")
        execution = self.controller.invoke("too-large")
        self.assertEqual((execution["status"], execution["error"]["type"]), ("failed", "Function.ResultTooLarge"))

    def test_a_result_that_is_no_json_never_reaches_a_client(self):
        self.controller.deploy("liar")
        sent = []
        self.run_with(lambda head, payload: sent.append(head))
        id_ = self.controller.invoke_async("liar")
        wait_until(lambda: sent, "it was given out")
        self.worker.send_result(sent[0], {"status": "succeeded"}, b"{not json")
        self.assertEqual(self.controller.execution(id_)["status"], "running")
        self.worker.send_result(sent[0], {"status": "succeeded"}, b"1")
        self.assertEqual(self.controller.wait_execution(id_)["result"], 1)

    def test_async(self):
        go = threading.Event()
        self.run_with(lambda head, payload: go.wait(fixture.WAIT_S) and ({"status": "succeeded"}, payload, b""))
        self.controller.deploy("later")
        answer = self.api("POST", "/v1/functions/later/invocations?mode=async", b'{"n": 1}')
        self.assertEqual(answer.status, 202)
        id_ = answer.json()["id"]
        self.assertEqual(answer.headers["Location"], "/v1/executions/" + id_)
        self.assertIn(self.controller.execution(id_)["status"], ("queued", "running"))
        go.set()
        self.assertEqual(self.controller.wait_execution(id_)["result"], {"n": 1})

    def test_hundreds_at_once_each_get_their_own_answer(self):
        self.controller.deploy("mine")
        wrong = []

        def client(base):
            connection = self.controller.connect()
            for i in range(50):
                body, headers = self.controller.prepare({"n": base + i}, "", None)
                connection.request("POST", "/fn/mine", body, headers)
                answer = fixture.Answer(connection.getresponse())
                if answer.status != 200 or answer.json() != {"n": base + i}:
                    wrong.append(answer)
            connection.close()

        threads = [threading.Thread(target=client, args=(i * 1000,)) for i in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(wrong, [])


class Executions(ApiTest):
    def test_lists_by_function_and_status_newest_first_in_pages(self):
        for name in ("list-a", "list-b"):
            self.controller.deploy(name)
        ids = [self.controller.invoke("list-a", i)["id"] for i in range(5)]
        self.controller.invoke("list-b")
        self.run_with(lambda head, payload: ({"status": "failed", "error": {"type": "E", "message": "m"}}, b"", b""))
        failed = self.controller.invoke("list-a")["id"]
        listed = lambda query: self.api("GET", "/v1/executions?" + query).json()
        self.assertEqual([e["id"] for e in listed("function=list-a&status=succeeded")["executions"]], ids[::-1])
        self.assertEqual([e["id"] for e in listed("function=list-a&status=failed")["executions"]], [failed])
        found, cursor = [], None
        while True:
            page = listed("function=list-a&limit=2" + (f"&cursor={cursor}" if cursor else ""))
            found += [e["id"] for e in page["executions"]]
            cursor = page.get("next_cursor")
            if not cursor:
                break
        self.assertEqual(found, [failed] + ids[::-1])
        self.assertNotIn("logs", {k for k, v in page["executions"][0].items() if v})

    def test_those_in_memory_are_in_the_list(self):
        go = threading.Event()
        self.run_with(lambda head, payload: go.wait(fixture.WAIT_S) and ({"status": "succeeded"}, b"1", b""))
        self.controller.deploy("live")
        id_ = self.controller.invoke_async("live")
        self.controller.wait_execution(id_, "running")
        listed = self.api("GET", "/v1/executions?function=live").json()["executions"]
        self.assertEqual([(e["id"], e["status"]) for e in listed], [(id_, "running")])
        self.assertEqual(self.api("GET", "/v1/executions?function=live&status=queued").json()["executions"], [])
        go.set()
        self.controller.wait_execution(id_)

    def test_bad_queries(self):
        for query, field in (("limit=0", "limit"), ("status=odd", "status"), ("cursor=odd", "cursor"), ("function=No", "function")):
            self.assertError(self.api("GET", "/v1/executions?" + query), 400, "invalid_request", field=field)
        for path in ("/v1/executions/unknown", "/v1/executions/0190a000-0000-7000-8000-000000000000"):
            self.assertError(self.api("GET", path), 404, "not_found")
            self.assertError(self.api("GET", path + "/logs"), 404, "not_found")


class Logs(ApiTest):
    def test_of_an_execution_and_of_a_function(self):
        self.run_with(lambda head, payload: ({"status": "succeeded"}, b"1", b"first\n" + payload + b"\nlast, unfinished"))
        self.controller.deploy("logs")
        ids = [self.controller.invoke("logs", n)["id"] for n in range(3)]
        lines = self.api("GET", f"/v1/executions/{ids[0]}/logs").json()["logs"]
        self.assertEqual([(l["execution_id"], l["line"]) for l in lines], [(ids[0], "first"), (ids[0], "0"), (ids[0], "last, unfinished")])
        text = self.api("GET", f"/v1/executions/{ids[0]}/logs", headers={"Accept": "text/plain"})
        self.assertEqual(text.body, b"first\n0\nlast, unfinished")
        self.assertEqual([l["line"] for l in self.api("GET", "/v1/functions/logs/logs?limit=2").json()["logs"] if l["line"].isdigit()], ["1", "2"])
        self.assertError(self.api("GET", "/v1/functions/logs/logs?follow=maybe"), 400, "invalid_request", field="follow")
        self.assertError(self.api("GET", "/v1/functions/nobody/logs"), 404, "not_found")

    def test_an_execution_shows_the_last_four_kibibytes(self):
        self.run_with(lambda head, payload: ({"status": "succeeded"}, b"1", b"x" * 10_000 + b"end"))
        self.controller.deploy("long-log")
        execution = self.controller.invoke("long-log")
        self.assertEqual(len(execution["logs"]), 4096)
        self.assertTrue(execution["logs"].endswith("xend"))
        whole = self.api("GET", f"/v1/executions/{execution['id']}/logs", headers={"Accept": "text/plain"}).body
        self.assertEqual(whole, b"x" * 10_000 + b"end")

    def test_hostile_bytes_become_valid_json(self):
        self.run_with(lambda head, payload: ({"status": "succeeded"}, b"1", b'\xff\xfe"\x1b[31m\x00\n'))
        self.controller.deploy("hostile")
        execution = self.controller.invoke("hostile")
        self.assertIn("\x1b[31m", execution["logs"])
        self.assertEqual(len(self.api("GET", f"/v1/executions/{execution['id']}/logs").json()["logs"]), 1)

    def test_followed_lines_come_as_they_are_written_each_once(self):
        steps = [threading.Event() for _ in range(3)]

        def run(head, payload):
            self.worker.send_log(head, 0, b"one\ntw")
            steps[0].wait(fixture.WAIT_S)
            self.worker.send_log(head, 4, b"two\n")
            self.worker.send_log(head, 4, b"two\n")  # sent again: nothing new
            steps[1].wait(fixture.WAIT_S)
            return {"status": "succeeded"}, b"1", b"one\ntwo\nthree"

        self.run_with(run)
        self.controller.deploy("follow")
        self.controller.deploy("other")
        connection = self.controller.connect()
        self.addCleanup(connection.close)
        connection.request("GET", "/v1/functions/follow/logs?follow=true", headers={"Authorization": "Bearer " + self.controller.token})
        stream = connection.getresponse()
        self.assertEqual((stream.status, stream.headers["Content-Type"]), (200, "application/x-ndjson"))
        id_ = self.controller.invoke_async("follow")
        first = json.loads(stream.readline())
        self.assertEqual((first["execution_id"], first["line"]), (id_, "one"))
        running = self.api("GET", f"/v1/executions/{id_}/logs", headers={"Accept": "text/plain"}).body
        self.assertEqual(running, b"one\ntw")
        steps[0].set()
        self.assertEqual(json.loads(stream.readline())["line"], "two")
        steps[1].set()
        self.assertEqual(json.loads(stream.readline())["line"], "three")

    def test_followers_end_with_the_controller(self):
        with Controller() as own:
            own.deploy("follow")
            connection = own.connect()
            connection.request("GET", "/v1/functions/follow/logs?follow=true", headers={"Authorization": "Bearer " + own.token})
            stream = connection.getresponse()
            self.assertEqual(own.stop(), 0)
            self.assertEqual(stream.read().strip(), b"")
            connection.close()


class Service(ApiTest):
    def test_tokens(self):
        self.controller.deploy("guarded")
        user, worker = self.controller.token, self.controller.worker_token
        for path in ("/v1/functions", "/v1/executions", "/v1/workers", "/v1/functions/guarded", "/fn/guarded"):
            for token in (None, "wrong", user + "x", user[:-1], ""[:0] or " "):
                answer = self.api("GET", path, token=token)
                self.assertError(answer, 401, "unauthorized")
                self.assertEqual(answer.headers["WWW-Authenticate"], "Bearer")
            self.assertError(self.api("GET", path, token=worker), 403, "forbidden")
        self.assertError(self.api("GET", "/v1/worker/stream", token=user), 403, "forbidden")
        self.assertError(self.api("GET", "/v1/worker/stream", token=None), 401, "unauthorized")
        self.assertIn("worker-token", self.api("GET", "/v1/worker/stream", token="wrong").json()["error"]["message"])
        self.assertError(self.api("GET", "/v1/functions", token=None, headers={"Authorization": "Basic eDp5"}), 401, "unauthorized")

    def test_token_files_are_the_owners_only_and_tokens_are_not_logged(self):
        for name in ("token", "worker-token"):
            path = os.path.join(self.controller.data_dir, name)
            self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
            self.assertNotIn(fixture.read(path).strip(), self.controller.log_text())
        self.assertEqual(stat.S_IMODE(os.stat(os.path.join(self.controller.data_dir, "controller.db")).st_mode), 0o600)

    def test_health_metrics_and_description_need_no_token(self):
        for path in ("/healthz", "/readyz", "/metrics", "/openapi.yaml"):
            self.assertEqual(self.api("GET", path, token=None).status, 200, path)
        self.assertEqual(self.api("GET", "/openapi.yaml", token=None).body.decode(), fixture.read(os.path.join(ROOT, "docs", "openapi.yaml")))

    def test_unknown_paths_and_methods(self):
        self.assertError(self.api("GET", "/v1/nothing"), 404, "not_found")
        self.assertEqual(self.api("PATCH", "/v1/functions").status, 405)
        self.assertError(self.api("GET", "/healthz", b"body"), 413, "payload_too_large")

    def test_workers(self):
        workers = self.api("GET", "/v1/workers").json()["workers"]
        self.assertEqual([(w["name"], w["state"], w["concurrency"], w["runtime"]) for w in workers], [("w1", "active", 4, "simple")])

    def test_metrics_count_and_have_units(self):
        self.controller.deploy("counted")
        for _ in range(3):
            self.controller.invoke("counted")
        text = self.api("GET", "/metrics", token=None).body.decode()
        samples = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        self.assertGreaterEqual(int(samples['faas_executions_total{status="succeeded"}']), 3)
        self.assertEqual(samples["faas_execution_duration_seconds_count"], samples['faas_execution_duration_seconds_bucket{le="+Inf"}'])
        self.assertEqual(samples["faas_workers"], "1")
        self.assertNotIn("counted", text)
        if PROMTOOL:
            checked = subprocess.run([PROMTOOL, "check", "metrics"], input=text.encode(), capture_output=True, check=False)
            self.assertEqual((checked.returncode, checked.stdout + checked.stderr), (0, b""))

    def test_the_description_has_exactly_the_routes_of_the_code(self):
        import re

        import yaml

        document = yaml.safe_load(fixture.read(os.path.join(ROOT, "docs", "openapi.yaml")))
        described = {(m.upper(), path) for path, item in document["paths"].items() for m in item if m != "parameters"}
        source = fixture.read(os.path.join(ROOT, "src", "controller", "routes.c"))
        table = source[source.index("api_routes[] = {") :]
        routes = set(re.findall(r'\{"([A-Z*]+)", "([^"]+)"', table[: table.index("};")]))
        self.assertGreater(len(routes), 15)
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
            routes |= {(method, path) for m, path in list(routes) if m == "*"}
        self.assertEqual(described, {(m, path) for m, path in routes if m != "*"})

    def test_answers_fit_the_description(self):
        import jsonschema
        import yaml

        document = yaml.safe_load(fixture.read(os.path.join(ROOT, "docs", "openapi.yaml")))

        def check(name, value):
            jsonschema.Draft202012Validator({"$ref": "#/components/schemas/" + name, "components": document["components"]}).validate(value)

        check("Function", self.controller.deploy("described"))
        check("Execution", self.controller.invoke("described"))
        check("Error", self.api("GET", "/v1/functions/nobody").json())
        check("Worker", self.api("GET", "/v1/workers").json()["workers"][0])
        check("ServiceStatus", self.api("GET", "/readyz").json())

    def test_a_slow_client_holds_nobody_up(self):
        host, port = self.controller.url.removeprefix("http://").split(":")
        with contextlib.ExitStack() as stack:
            for _ in range(50):
                slow = stack.enter_context(socket.create_connection((host, int(port))))
                slow.sendall(b"POST /v1/functions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\nAuthorization: Bearer " + self.controller.token.encode() + b"\r\n\r\n{")
            self.assertEqual(self.api("GET", "/healthz").status, 200)

class Lists(ApiTest):
    def test_what_was_listed_once_is_listed_again(self):
        """Also when it ends, and its record leaves memory for the database, while the list is made."""
        self.controller.deploy("busy")
        stop = threading.Event()

        def client():
            while not stop.is_set():
                self.controller.invoke("busy")

        clients = [threading.Thread(target=client) for _ in range(6)]
        for thread in clients:
            thread.start()
        seen = []
        try:
            for _ in range(300):
                listed = [e["id"] for e in self.api("GET", "/v1/executions?function=busy&limit=500").json()["executions"]]
                # On a machine that is slow more may have come since than a list has room for: those older than its last are not looked for.
                expected = {id_ for id_ in seen[:100] if len(listed) < 500 or id_ > listed[-1]}
                self.assertEqual(expected - set(listed), set())
                seen = listed
        finally:
            stop.set()
            for thread in clients:
                thread.join()


class NoWorker(ApiTest):
    settings = {"CONTROLLER_QUEUE_WAIT_MS": 2000, "CONTROLLER_QUEUE_LENGTH_PER_FUNCTION": 2, "CONTROLLER_ARCHIVE_MAX_BYTES": 100_000}
    with_worker = False

    def test_not_ready_and_no_capacity(self):
        self.assertError(self.api("GET", "/readyz", token=None), 503, "no_capacity", "worker")
        self.controller.deploy("alone")
        for path in ("/v1/functions/alone/invocations", "/fn/alone"):
            answer = self.api("POST", path)
            self.assertError(answer, 503, "no_capacity", "no worker", "2000 ms")
            self.assertTrue(answer.headers["Retry-After"])
        listed = self.api("GET", "/v1/executions?function=alone").json()["executions"]
        self.assertEqual([e["status"] for e in listed], ["cancelled", "cancelled"])

    def test_a_full_queue_throttles(self):
        self.controller.deploy("full")
        with contextlib.ExitStack() as stack:
            for _ in range(2):
                connection = stack.enter_context(contextlib.closing(self.controller.connect()))
                connection.request("POST", "/fn/full", *self.controller.prepare(None, "", None))
            waiting = lambda: len(self.api("GET", "/v1/executions?function=full&status=queued").json()["executions"])
            wait_until(lambda: waiting() == 2, "two wait")
            for path in ("/v1/functions/full/invocations", "/fn/full"):
                answer = self.api("POST", path)
                self.assertError(answer, 429, "throttled", "full")
                self.assertTrue(answer.headers["Retry-After"])

    def test_deleting_cancels_what_waits(self):
        self.controller.deploy("gone")
        id_ = self.controller.invoke_async("gone")
        self.assertEqual(self.api("DELETE", "/v1/functions/gone").status, 204)
        execution = self.controller.wait_execution(id_)
        self.assertEqual((execution["status"], execution["error"]["type"]), ("cancelled", "Platform.FunctionDeleted"))

    def test_an_archive_over_the_limit(self):
        answer = self.api("PUT", "/v1/functions/heavy", {"runtime": "python", "code": b64(bytes(100_001))})
        self.assertError(answer, 413, "payload_too_large", "100000", field="/code")
        self.assertError(self.api("PUT", "/v1/functions/heavy", b" " * 3_000_000), 413, "payload_too_large")

    def test_a_client_that_leaves_takes_its_invocation_along(self):
        self.controller.deploy("left")
        connection = self.controller.connect()
        body, headers = self.controller.prepare(None, "", None)
        connection.request("POST", "/fn/left", body, headers)
        queued = lambda: self.api("GET", "/v1/executions?function=left").json()["executions"]
        wait_until(queued, "it waits")
        connection.close()
        wait_until(lambda: queued()[0]["status"] == "cancelled", "it is cancelled")


class RateLimit(ApiTest):
    settings = {"CONTROLLER_RATE_LIMIT": 1, "CONTROLLER_RATE_BURST": 20}
    with_worker = False

    def from_address(self, address, method="GET", path="/v1/functions", body=None, token=""):
        url = urllib.parse.urlsplit(self.controller.url)
        connection = http.client.HTTPConnection(url.hostname, url.port, timeout=fixture.WAIT_S, source_address=(address, 0))
        with contextlib.closing(connection):
            connection.request(method, path, *self.controller.prepare(body, token, None))
            return fixture.Answer(connection.getresponse())

    def use_up(self, address, **call):
        """The first answer that is a refusal."""
        for _ in range(1000):
            answer = self.from_address(address, **call)
            if answer.status == 429:
                return answer
        raise AssertionError("a thousand requests were let through")

    def test_a_client_over_its_rate_is_told_when_to_come_again(self):
        answer = self.use_up("127.0.0.2")
        self.assertError(answer, 429, "throttled", "1 requests a second", "the next is taken in")
        self.assertEqual(answer.headers["Retry-After"], "1")
        wait_until(lambda: self.from_address("127.0.0.2").status == 200, "the client is served again")

    def test_others_are_served_all_the_while(self):
        self.use_up("127.0.0.3")
        self.assertEqual(self.from_address("127.0.0.4").status, 200)

    def test_guessing_a_token_and_asking_for_what_is_not_there_count(self):
        self.use_up("127.0.0.5", token="x" * 32)
        self.use_up("127.0.0.6", path="/nowhere")
        self.use_up("127.0.0.7", path="/v1/worker/code/" + "0" * 64, token="x" * 32)

    def test_the_refusal_comes_before_the_body(self):
        self.use_up("127.0.0.8")
        url = urllib.parse.urlsplit(self.controller.url)
        with socket.create_connection((url.hostname, url.port), fixture.WAIT_S, source_address=("127.0.0.8", 0)) as connection:
            connection.sendall(f"POST /v1/functions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.controller.token}\r\n"
                               "Content-Length: 1000000\r\n\r\n".encode())  # fmt: skip
            self.assertTrue(connection.recv(100).startswith(b"HTTP/1.1 429 "))

    def test_workers_are_exempt(self):
        for _ in range(100):
            answer = self.from_address("127.0.0.9", path="/v1/worker/code/" + "0" * 64, token=self.controller.worker_token)
            self.assertEqual(answer.status, 404, answer)

    def test_the_metrics_count_what_was_refused(self):
        self.use_up("127.0.0.10")
        page = self.from_address("127.0.0.11", path="/metrics").body.decode()
        self.assertGreater(float(next(line.split()[1] for line in page.splitlines() if line.startswith("faas_http_throttled_total "))), 0)


class Settings(unittest.TestCase):
    def test_a_worker_token_that_no_header_can_carry_is_refused(self):
        for token, words in (("short", "16 characters"), ("of several words and long", "one word")):
            with self.assertRaisesRegex(AssertionError, "ended with 2: .*" + words):
                with Controller(WORKER_TOKEN=token):
                    pass


if __name__ == "__main__":
    unittest.main()
