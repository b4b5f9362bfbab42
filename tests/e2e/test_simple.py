"""Runtime `simple`: functions as plain host processes, chosen by either of its two settings."""
import json
import os
import shutil
import subprocess
import unittest

from faas_platform import BIN, PlatformTest, main


class Simple(PlatformTest):
    settings = {'WORKER_RUNTIME_TYPE': 'simple'}

    def test_it_says_so_loudly(self):
        log = self.platform.log_tail()
        self.assertIn('simple', log)
        self.assertRegex(log.lower(), 'without any isolation')
        workers = self.api('GET', '/v1/workers').json()['workers']
        self.assertEqual(workers[0]['runtime'], 'simple')

    def test_python_process_and_handler(self):
        self.deploy('simple-process', python='import os, json, sys\nprint("log", file=sys.stderr)\nprint(json.dumps([json.loads(os.environ["FUNCTION_PAYLOAD"]), os.environ["FUNCTION_NAME"]]))')
        execution = self.invoke('simple-process', {'a': 1})
        self.assertSucceeded(execution, [{'a': 1}, 'simple-process'])
        self.assertEqual(execution['logs'], 'log\n')
        self.deploy('simple-handler', runtime='python', contract='handler', handler='main.h', code='n = 0\ndef h(e, c):\n    global n\n    n += 1\n    return [e, n]')
        self.assertSucceeded(self.invoke('simple-handler', 1), [1, 1])
        self.assertSucceeded(self.invoke('simple-handler', 2), [2, 2])

    @unittest.skipUnless(shutil.which('node'), 'no Node.js on this host')
    def test_nodejs(self):
        self.deploy('simple-node', nodejs='console.log(JSON.stringify({ n: 1 }))')
        self.assertSucceeded(self.invoke('simple-node'), {'n': 1})

    def test_native(self):
        self.deploy('simple-native', native='#!/bin/sh\ncat\n')
        self.assertSucceeded(self.invoke('simple-native', {'x': [1]}), {'x': [1]})

    def test_failures_and_time_limit(self):
        self.deploy('simple-fails', python='raise SystemExit(3)')
        self.assertFailed(self.invoke('simple-fails'), 'Function.ExitStatus')
        self.deploy('simple-slow', native='#!/bin/sh\nsleep 60 & sleep 60\n', timeout_ms=500)
        self.assertFailed(self.invoke('simple-slow'), 'Function.TimedOut', 'timed_out')
        self.deploy('simple-works', python='print(1)')
        self.assertSucceeded(self.invoke('simple-works'), 1)


class OlderName(PlatformTest):
    settings = {'WORKER_USE_CONTAINER': 'false'}

    def test_it_is_the_same_choice(self):
        self.assertEqual(self.api('GET', '/v1/workers').json()['workers'][0]['runtime'], 'simple')
        self.deploy('simple-again', python='print(1)')
        self.assertSucceeded(self.invoke('simple-again'), 1)


@unittest.skipUnless(os.geteuid() == 0, 'needs root')
class Configuration(unittest.TestCase):
    def check(self, program, **settings):
        return subprocess.run([os.path.join(BIN, program), '--check-config'], capture_output=True, check=False, timeout=30,
                              env={'PATH': os.environ['PATH'], 'WORKER_TOKEN': 'x' * 32, **settings})

    def test_good_settings(self):
        for program in ('faas-worker', 'faas-controller'):
            done = self.check(program)
            self.assertEqual(done.returncode, 0, done)

    def test_contradicting_and_bad_settings_name_the_value(self):
        for settings, words in (({'WORKER_USE_CONTAINER': 'true', 'WORKER_RUNTIME_TYPE': 'simple'}, ['WORKER_USE_CONTAINER', 'simple']),
                                ({'WORKER_CONCURRENCY': 'many'}, ['WORKER_CONCURRENCY', 'many']), ({'WORKER_RUNTIME_TYPE': 'vm'}, ['vm', 'container']),
                                ({'LOG_LEVEL': 'loud'}, ['LOG_LEVEL', 'loud'])):
            done = self.check('faas-worker', **settings)
            self.assertNotEqual(done.returncode, 0, settings)
            for word in words:
                self.assertIn(word, (done.stdout + done.stderr).decode(), json.dumps(settings))


if __name__ == '__main__':
    main()
