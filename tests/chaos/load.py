"""The load, and the ledger of what clients were told. Each call carries a number of its own, which the function gives back, so that an
answer which belongs to another call is noticed."""
import collections
import http.client
import random
import threading
import time

FUNCTIONS = {
    'echo': ('import json, os\np = json.loads(os.environ["FUNCTION_PAYLOAD"])\nprint(json.dumps({"n": p["n"]}))\n', {'timeout_ms': 20000}),
    'called': ('def handler(event, context):\n    return {"n": event["n"]}\n', {'contract': 'handler', 'handler': 'main.handler', 'timeout_ms': 20000}),
    'slow': ('import json, os, time\np = json.loads(os.environ["FUNCTION_PAYLOAD"])\ntime.sleep(0.5)\nprint(json.dumps({"n": p["n"]}))\n', {'timeout_ms': 20000}),
}
# A synchronous caller must have an answer by then, whatever happens: the function's time limit and what losing a worker takes.
ANSWER_LIMIT_S = 60


FINAL = ('succeeded', 'failed', 'timed_out', 'out_of_memory', 'cancelled', 'lost')


class Ledger:
    def __init__(self):
        self.lock = threading.Lock()
        self.accepted = {}  # execution id -> number
        self.open = collections.deque()  # those of them whose end nobody has seen yet
        self.records = {}  # execution id -> the record when it was first seen final, None: unknown to the controller
        self.sync_answers = {}  # outcome -> count
        self.async_answers = {}
        self.violations = []
        self.worst_sync_s = 0.0
        self.next = 0

    def number(self):
        with self.lock:
            self.next += 1
            return self.next

    def violation(self, text):
        with self.lock:
            self.violations.append(text)

    def count(self, table, outcome):
        with self.lock:
            table[outcome] = table.get(outcome, 0) + 1


class Client(threading.Thread):
    """Calls until it is told to stop."""

    def __init__(self, cluster, ledger, seed, stop, pause_s):
        super().__init__(daemon=True)
        self.cluster, self.ledger, self.stop, self.pause_s = cluster, ledger, stop, pause_s
        self.random = random.Random(seed)

    def run(self):
        while not self.stop.is_set():
            try:
                self.one(self.random.randrange(self.cluster.controller_count), self.random.choice(list(FUNCTIONS)), self.ledger.number())
            except (OSError, http.client.HTTPException) as error:
                self.unanswered(error)
            self.stop.wait(self.pause_s * self.random.random() * 2)


class SyncClient(Client):
    """Any honest answer will do, but it must come, and a result must be the call's own."""

    def one(self, controller, function, number):
        started = time.monotonic()
        try:
            status, body = self.cluster.call(controller, 'POST', f'/v1/functions/{function}/invocations', {'n': number}, timeout=ANSWER_LIMIT_S)
        finally:
            took = time.monotonic() - started
            with self.ledger.lock:
                self.ledger.worst_sync_s = max(self.ledger.worst_sync_s, took)
        outcome = body['status'] if status == 200 else f'HTTP {status}'
        self.ledger.count(self.ledger.sync_answers, outcome)
        if outcome == 'succeeded' and body['result'] != {'n': number}:
            self.ledger.violation(f'synchronous call {number} of {function} was given {body["result"]}')
        elif status == 200 and outcome not in ('succeeded', 'lost', 'cancelled'):
            self.ledger.violation(f'synchronous call {number} of {function}, which cannot fail, ended as {body}')
        elif status != 200 and status not in (429, 500, 503):
            self.ledger.violation(f'synchronous call {number} of {function}: {status} {body}')

    def unanswered(self, error):
        if isinstance(error, TimeoutError):
            self.ledger.violation(f'a synchronous call had no answer within {ANSWER_LIMIT_S} s')
        self.ledger.count(self.ledger.sync_answers, 'connection broken')


class AsyncClient(Client):
    """What was accepted must be done, once."""

    def one(self, controller, function, number):
        status, body = self.cluster.call(controller, 'POST', f'/v1/functions/{function}/invocations?mode=async', {'n': number}, timeout=ANSWER_LIMIT_S)
        self.ledger.count(self.ledger.async_answers, f'HTTP {status}')
        if status == 202:
            with self.ledger.lock:
                if body['id'] in self.ledger.accepted:
                    self.ledger.violations.append(f'two calls were given the execution {body["id"]}')
                self.ledger.accepted[body['id']] = number
                self.ledger.open.append(body['id'])
        elif status not in (429, 500, 503):
            self.ledger.violation(f'asynchronous call {number}: {status} {body}')

    def unanswered(self, error):
        self.ledger.count(self.ledger.async_answers, 'connection broken')


class Watcher(threading.Thread):
    """Asks for each accepted execution until it is final, whatever controller answers."""

    def __init__(self, cluster, ledger, seed):
        super().__init__(daemon=True)
        self.cluster, self.ledger = cluster, ledger
        self.random = random.Random(seed)

    def run(self):
        while True:
            try:
                execution_id = self.ledger.open.popleft()
            except IndexError:
                time.sleep(0.05)
                continue
            if not self.is_final(execution_id):
                self.ledger.open.append(execution_id)
                time.sleep(0.02)

    def is_final(self, execution_id):
        try:
            status, record = self.cluster.call(self.random.randrange(self.cluster.controller_count), 'GET', f'/v1/executions/{execution_id}', timeout=10)
        except (OSError, http.client.HTTPException):
            return False
        if status == 404 or (status == 200 and record['status'] in FINAL):
            self.ledger.records[execution_id] = record if status == 200 else None
            return True
        return False
