#!/usr/bin/env python3
"""Handlers that take several calls at once: each has its own answer and log, in whatever order, and says honestly what it cannot tell apart."""

import json
import os
import unittest

from instance import (
    ADAPTER_EXIT, DIRTY, ERROR, LIBEXEC, LOG, NODE, PYTHON, READY, RESULT, InstanceTest, as_generic, read_frame,
)  # fmt: skip


class Several(InstanceTest):
    """What both languages have in common; `sources` are theirs."""

    def start(self, source, concurrency=3):
        env = {"FUNCTION_CONCURRENCY": str(concurrency)} if concurrency > 1 else {}
        instance = self.ready_with_value("handler", [*self.interpreter, "handler", self.target], {self.file: source, **self.files}, env)
        self.assertEqual(self.value, concurrency if concurrency > 1 else 0, "as many as the function allows")
        return instance

    files = {}

    def ready_with_value(self, *args):
        instance = self.instance(*args)
        frame = instance.wait_ready()
        self.assertEqual(frame.kind, READY, frame.body)
        self.value = frame.value
        return instance

    def answers(self, instance, count):
        """{execution id: (kind, flags, what it says, log)}, in the order of the answers."""
        logs, found = {}, {}
        while len(found) < count:
            frame = read_frame(instance.adapter)
            if frame.kind == LOG:
                self.assertNotIn(frame.meta, found, "a log comes before its call's answer")
                logs[frame.meta] = logs.get(frame.meta, "") + frame.body.decode()
            else:
                self.assertIn(frame.kind, (RESULT, ERROR))
                self.assertNotIn(frame.meta, found)
                found[frame.meta] = (frame.kind, frame.flags, json.loads(frame.body), logs.get(frame.meta, ""))
        return found

    def call(self, instance, **events):
        for name, event in events.items():
            instance.send(json.dumps(event).encode(), name)
        return self.answers(instance, len(events))

    def test_calls_that_wait_for_each_other_all_answer_with_logs_apart(self):
        for kind, source in self.barriers.items():
            with self.subTest(kind):
                instance = self.start(source)
                for _ in range(3):
                    answers = self.call(instance, a=1, b=2, c=3)
                    for name, event in {"a": 1, "b": 2, "c": 3}.items():
                        self.assertEqual(answers[name], (RESULT, 0, [event, name, None], f"in {event}\nerr {event}\nout {event}\n"))
                self.assertEqual((instance.out.take(), instance.err.take()), (b"", b""))

    def test_a_later_call_may_answer_first(self):
        instance = self.start(self.order)
        instance.send(b'"first"', "a")
        self.assertEqual(list(self.call(instance, b="second")), ["b"])
        instance.send(b'"go"', "c")
        self.assertEqual({name: answer[2] for name, answer in self.answers(instance, 2).items()}, {"a": "first", "c": "go"})

    def test_a_failure_is_of_one_call_only(self):
        instance = self.start(self.order)
        instance.send(b'"first"', "a")
        instance.send(b'"fail"', "b")
        answers = self.answers(instance, 1)
        self.assertEqual((answers["b"][0], answers["b"][2]["message"]), (ERROR, "as asked"))
        instance.send(b"not json", "c")
        self.assertIn("not JSON", self.answers(instance, 1)["c"][2]["message"])
        instance.send(b'"go"', "d")
        self.assertEqual(set(self.answers(instance, 2)), {"a", "d"})

    def test_large_payloads_and_results_at_once(self):
        instance = self.start(self.echo)
        text = {name: name * 1_000_000 for name in "abc"}
        for name, answer in self.call(instance, **text).items():
            self.assertEqual(answer[0::2][:2], (RESULT, text[name]))

    def test_what_goes_to_the_descriptor_is_nobodys(self):
        instance = self.start(self.direct)
        answers = self.call(instance, a=0)
        self.assertEqual(answers["a"][3], "mine\n")
        self.assertEqual(instance.out.take(), b"direct\n")

    def test_one_that_ends_the_process_takes_the_others_along(self):
        instance = self.start(self.leaves)
        instance.send(b'"wait"', "a")
        instance.send(b'"leave"', "b")
        frame = read_frame(instance.control)
        self.assertEqual((frame.kind, os.WEXITSTATUS(frame.value)), (ADAPTER_EXIT, 9))

    def test_one_at_a_time_is_as_ever(self):
        instance = self.start(self.echo, concurrency=1)
        instance.send(b"1", "a")
        frame = read_frame(instance.adapter)
        self.assertEqual((frame.kind, frame.meta, frame.body), (RESULT, "", b"1"))


class Python(Several):
    interpreter = [PYTHON, os.path.join(LIBEXEC, "python", "adapter.py")]
    file, target = "main.py", "main.handler"
    barriers = {
        "plain function": """
import logging, os, sys, threading
barrier = threading.Barrier(3)
log = logging.getLogger()
log.addHandler(logging.StreamHandler())
def handler(event, context):
    print('in', event)
    barrier.wait(60)
    log.warning('err %s', event)
    barrier.wait(60)
    sys.stdout.buffer.write(b'out %d\\n' % event)
    return [event, context.execution_id, os.environ.get('EXECUTION_ID')]""",
        "async function": """
import asyncio, os, sys
inside = []
def write(text, to): print(text, file=to)
async def handler(event, context):
    print('in', event)
    inside.append(asyncio.get_running_loop().create_future())
    if len(inside) == 3:
        [one.set_result(None) for one in inside]
        inside.clear()
    else:
        await inside[-1]
    await asyncio.to_thread(write, f'err {event}', sys.stderr)
    await asyncio.create_task(later(event))
    return [event, context.execution_id, os.environ.get('EXECUTION_ID')]
async def later(event):
    print('out', event)""",
        "function that returns an awaitable": """
import asyncio, os, sys
inside = []
def handler(event, context):
    return work(event, context)
async def work(event, context):
    print('in', event)
    inside.append(asyncio.get_running_loop().create_future())
    if len(inside) == 3:
        [one.set_result(None) for one in inside]
        inside.clear()
    else:
        await inside[-1]
    print('err', event, file=sys.stderr)
    print('out', event, flush=True)
    return [event, context.execution_id, os.environ.get('EXECUTION_ID')]""",
    }
    order = """
import threading
may_go = threading.Event()
def handler(event, context):
    if event == 'fail': raise ValueError('as asked')
    if event == 'go': may_go.set()
    if event == 'first': may_go.wait(60)
    return event"""
    echo = "def handler(event, context): return event"
    direct = """
import os
def handler(event, context):
    print('mine')
    os.write(1, b'direct\\n')"""
    leaves = """
import os, threading
waits = threading.Event()
def handler(event, context):
    if event == 'wait':
        waits.set()
        threading.Event().wait()
    waits.wait(60)
    os._exit(9)"""

    def test_leaving_a_handler_ends_its_call_only(self):
        for source in ("import sys\ndef handler(e, c): return e or sys.exit(3)", "import sys\nasync def handler(e, c): return e or sys.exit(3)"):
            instance = self.start(source)
            answers = self.call(instance, a=0, b=1)
            self.assertEqual((answers["a"][0], answers["a"][2]["type"]), (ERROR, "SystemExit"))
            self.assertEqual(answers["b"][:3], (RESULT, 0, 1))

    def test_own_modules_win_whatever_the_adapter_needs_itself(self):
        plain = "def handler(event, context): return [event, mine.MINE]"
        awaited = "async def handler(event, context): return [event, mine.MINE]"
        returned = "def handler(event, context): return later(event)\nasync def later(event): return [event, mine.MINE]"
        for module in ("threading", "inspect", "contextvars", "asyncio"):
            for code in (plain, awaited, returned):
                with self.subTest(module, code=code):
                    self.files = {f"{module}.py": f"MINE = '{module}'"}
                    instance = self.start(f"import {module} as mine\n{code}")
                    for name, answer in self.call(instance, a=1, b=2, c=3).items():
                        self.assertEqual(answer[:3], (RESULT, 0, [" abc".index(name), module]))

    def test_a_forked_child_writes_to_the_descriptor(self):
        instance = self.start("""
import os
def handler(event, context):
    print('parent')
    pid = os.fork()
    if pid == 0:
        print('child', flush=True)
        os._exit(0)
    os.waitpid(pid, 0)""")
        self.assertEqual(self.call(instance, a=0)["a"][3], "parent\n")
        self.assertEqual(instance.out.take(), b"child\n")


class NodeJs(Several):
    interpreter = [NODE, os.path.join(LIBEXEC, "nodejs", "adapter.js")]
    file, target = "index.js", "index.handler"
    barriers = {
        "promises": """
let inside = [];
exports.handler = async (event, context) => {
  console.log('in', event);
  await new Promise((go) => {
    inside.push(go);
    if (inside.length === 3) { inside.forEach((one) => one()); inside = []; }
  });
  console.error('err', event);
  await new Promise((done) => setTimeout(() => { process.stdout.write(`out ${event}\\n`, done); }, 1));
  return [event, context.execution_id, process.env.EXECUTION_ID ?? null];
};""",
    }
    order = """
let go;
const may = new Promise((resolve) => { go = resolve; });
exports.handler = async (event) => {
  if (event === 'fail') throw new Error('as asked');
  if (event === 'go') go();
  if (event === 'first') await may;
  return event;
};"""
    echo = "exports.handler = async (event) => event"
    direct = "exports.handler = async () => { console.log('mine'); require('fs').writeSync(1, 'direct\\n'); }"
    leaves = "exports.handler = (event) => event === 'wait' ? new Promise(() => {}) : process.exit(9)"

    def test_an_error_that_nobody_caught_is_told_to_all(self):
        instance = self.start("exports.handler = (event) => new Promise(() => { if (event) setTimeout(() => { throw new RangeError('late') }, 1) })")
        answers = self.call(instance, a=0, b=1)
        for name in "ab":
            kind, flags, error, _ = answers[name]
            self.assertEqual((kind, flags, error["type"]), (ERROR, DIRTY, "RangeError"))
            self.assertEqual(error["message"], "late (nobody caught it; 1 other call ran in the instance)")


PythonGeneric = as_generic(Python)
NodeJsGeneric = as_generic(NodeJs)
del Several

if __name__ == "__main__":
    unittest.main()
