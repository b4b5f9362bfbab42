"""Runtime `simple`: functions as plain host processes, chosen by either of its two settings."""
import json
import os
import shutil
import subprocess
import tempfile
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
            self.assertRefused('faas-worker', settings, words)

    def assertRefused(self, program, settings, words):
        done = self.check(program, **settings)
        self.assertEqual(done.returncode, 2, (settings, done))
        for word in words:
            self.assertIn(word, (done.stdout + done.stderr).decode(), json.dumps(settings))

    def test_what_a_worker_could_not_start_with_is_told_before(self):
        with tempfile.NamedTemporaryFile('w', prefix='faas-', suffix='.pem') as empty:
            for settings, words in (({'WORKER_NETWORK_SUBNET': '10.0.0.0'}, ['WORKER_NETWORK_SUBNET', '10.88.64.0/18']), ({'WORKER_NETWORK_SUBNET': '10.0.0.1/24'}, ['beyond its first 24']),
                                    ({'WORKER_NETWORK_DENY': '10.0.0.0/33'}, ['WORKER_NETWORK_DENY', '10.0.0.0/33', '10.0.0.0/8']), ({'WORKER_DNS': 'dns.example'}, ['WORKER_DNS', 'dns.example', 'IPv4']),
                                    ({'WORKER_CONTROLLER_URL': 'ftp://x'}, ['WORKER_CONTROLLER_URL', 'https:// or http://']), ({'WORKER_CONTROLLER_URL': 'http://a:80,host:8080'}, ['address 2', 'http']),
                                    ({'WORKER_CONTROLLER_URL': 'http://a:99999'}, ['WORKER_CONTROLLER_URL']), ({'WORKER_CONTROLLER_URL': ' , '}, ['at least one controller']),
                                    ({'WORKER_CA_FILE': '/nonexistent/ca.pem'}, ['WORKER_CA_FILE', '/nonexistent/ca.pem', 'No such file']), ({'WORKER_CA_FILE': empty.name}, ['WORKER_CA_FILE', 'BEGIN CERTIFICATE']),
                                    ({'WORKER_DATA_DIR': 'data'}, ['WORKER_DATA_DIR', 'absolute path', 'data']), ({'WORKER_RUN_DIR': './run'}, ['WORKER_RUN_DIR', 'absolute path'])):
                with self.subTest(settings=settings):
                    self.assertRefused('faas-worker', settings, words)

    def test_what_a_controller_could_not_start_with_is_told_before(self):
        for settings, words in (({'CONTROLLER_LISTEN': '0.0.0.0'}, ['CONTROLLER_LISTEN', '127.0.0.1:8080']), ({'CONTROLLER_LISTEN': 'localhost:8080'}, ['localhost', 'IP address']),
                                ({'CONTROLLER_LISTEN': '127.0.0.1:99999'}, ['CONTROLLER_LISTEN', '127.0.0.1:99999']),
                                ({'CONTROLLER_TLS_CERT_FILE': '/nonexistent'}, ['go together', 'CONTROLLER_TLS_KEY_FILE is missing']),
                                ({'CONTROLLER_TLS_CERT_FILE': '/nonexistent', 'CONTROLLER_TLS_KEY_FILE': '/nonexistent'}, ['CONTROLLER_TLS_CERT_FILE', '/nonexistent', 'No such file']),
                                ({'CONTROLLER_CALLBACK_CA_FILE': '/nonexistent'}, ['CONTROLLER_CALLBACK_CA_FILE', '/nonexistent', 'No such file']),
                                ({'CONTROLLER_CONNECTIONS': '0'}, ['CONTROLLER_CONNECTIONS', '16 to 100000'])):
            with self.subTest(settings=settings):
                self.assertRefused('faas-controller', settings, words)

    def test_a_variable_that_is_no_setting_is_told_and_which_may_be_meant(self):
        for program, name, meant in (('faas-controller', 'CONTROLLER_RATELIMIT', 'CONTROLLER_RATE_LIMIT'), ('faas-worker', 'WORKER_NETWORK_DENYY', 'WORKER_NETWORK_DENY')):
            done = self.check(program, **{name: 'its-value'})
            self.assertEqual(done.returncode, 0, done)
            self.assertRegex(done.stderr.decode(), rf'no setting of this program.*variable={name} did_you_mean={meant}\n')
            self.assertNotIn('its-value', done.stderr.decode())


if __name__ == '__main__':
    main()
