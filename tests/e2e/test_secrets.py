"""Secrets stay where they belong: no token, password, environment value or payload of a function is in a log, in an error or in the
command line of a process, with everything logged that can be."""
import contextlib
import glob
import os
import subprocess
import tempfile
import threading
import unittest
import uuid

from faas_platform import BIN, PlatformTest, main, wait_until


def secret(kind):
    return f'{kind}-{uuid.uuid4().hex}'


def command_lines():
    lines = set()
    for path in glob.glob('/proc/[0-9]*/cmdline'):
        with contextlib.suppress(OSError), open(path, 'rb') as file:
            lines.add(file.read().replace(b'\0', b' ').decode(errors='replace'))
    return lines


class Watch:
    """Every command line that there is while it lasts, as far as a look every now and then can see."""

    def __enter__(self):
        self.seen, self.over = set(), threading.Event()
        self.thread = threading.Thread(target=self.look)
        self.thread.start()
        return self

    def look(self):
        while not self.over.is_set():
            self.seen |= command_lines()
            self.over.wait(0.002)

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


class Secrets(PlatformTest):
    worker_token, env_value, payload, guess = (secret(kind) for kind in ('worker', 'env', 'payload', 'guess'))
    settings = {'LOG_LEVEL': 'debug', 'WORKER_TOKEN': worker_token}

    def assertSecret(self, text, what, *others):
        for value in (self.worker_token, self.platform.token, self.env_value, self.payload, self.guess, *others):
            self.assertNotIn(value, text, f'in {what}')

    def call(self, name, body, **options):
        return self.api('POST', f'/v1/functions/{name}/invocations', body, **options)

    def test_calls_errors_and_refusals_tell_nothing(self):
        fields = {'env': {'KEY': self.env_value}}
        secret_text = 'import json, os, sys\nx = os.environ["KEY"], sys.stdin.read()\n'
        answers = []
        with Watch() as watch:
            self.deploy('good', python=secret_text + 'print(1)', **fields)
            self.deploy('bad', python=secret_text + 'print(x, file=sys.stderr)\nraise SystemExit(x[1])', **fields)
            self.deploy('late', python=secret_text + 'print(x, file=sys.stderr, flush=True)\nwhile True: pass', timeout_ms=300, **fields)
            self.deploy('native', native='#!/bin/sh\necho "$KEY"; cat >&2; exit 3\n', **fields)
            self.deploy('handler', runtime='python', contract='handler', handler='main.handler',
                        code='def handler(event, context):\n    raise ValueError(event)', **fields)
            self.deploy('no-handler', runtime='python', contract='handler', handler='main.nothing', code='x = 1', **fields)
            for name in ('good', 'bad', 'late', 'native', 'handler', 'no-handler'):
                self.assertEqual(self.call(name, {'text': self.payload}).status, 200)
                self.platform.wait_execution(self.platform.invoke_async(name, {'text': self.payload}))
            answers.append(self.call('good', b'{"text": "' + self.payload.encode()))
            answers.append(self.call('nobody', {'text': self.payload}))
            answers.append(self.call('good', {'text': self.payload}, token=self.guess))
            answers.append(self.call('good', {'text': self.payload}, headers={'Authorization': self.guess}))
            answers.append(self.api('GET', '/v1/worker/code/' + '0' * 64))
            answers.append(self.api('GET', '/v1/functions', token=self.worker_token))
            answers.append(self.api('PUT', '/v1/functions/good', {'runtime': 'python', 'env': {'KEY': self.env_value, 'FUNCTION_NAME': self.env_value}}))
            answers.append(self.api('PUT', '/v1/functions/good', {'runtime': 'python', 'env': self.env_value}))
            answers.append(self.api('PUT', '/v1/functions/good', {'runtime': 'python', 'env': {'a=b': self.env_value}}))
            answers.append(self.api('PUT', '/v1/functions/good', {'runtime': 'python', 'env': {'KEY': [self.env_value]}}))
            answers.append(self.api('PUT', '/v1/functions/good', {'runtime': 'python', 'env': {'KEY': self.env_value + '\0'}}))
        for answer in answers:
            self.assertGreaterEqual(answer.status, 400, answer)
            self.assertSecret(answer.body.decode() + str(answer.headers), f'the answer {answer}')
        for line in watch.seen:
            self.assertSecret(line, 'a command line')
        log = self.platform.log_tail(100_000_000)
        self.assertIn('DEBUG', log)
        self.assertSecret(log, 'the log')
        self.assertSecret(self.api('GET', '/metrics', token=None).body.decode(), 'the metrics')

    def test_the_commands_words_and_errors(self):
        for arguments in (['list', '--token', self.guess], ['invoke', 'nobody', '--data', '{}', '--token', self.guess],
                          ['list', '--json', '--token', self.guess], ['workers', '--nonsense', '--token', self.guess]):
            ended = self.platform.faas(*arguments)
            self.assertNotEqual(ended.returncode, 0)
            self.assertSecret((ended.stdout + ended.stderr).decode(), arguments[0])


class Settings(unittest.TestCase):
    """Values that were given as flags, and what programs say that cannot start."""

    def run_program(self, program, *arguments, **environment):
        return subprocess.run([os.path.join(BIN, program), *arguments], capture_output=True, text=True, check=False, timeout=60,
                              env={'PATH': os.environ['PATH'], 'LOG_LEVEL': 'debug', **environment})

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix='faas-secrets-')
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def test_the_password_of_a_database(self):
        password = secret('password')
        for url in (f'postgresql://user:{password}@127.0.0.1:1/db', f'postgresql://user:{password}@127.0.0.1:1/db?nonsense=1',
                    f'postgresql://user:{password}@[broken', f'postgresql://127.0.0.1:1/db?password={password}',
                    f'mysql://user:{password}@127.0.0.1/db', f'sqlite://user:{password}@x'):
            for given in ({'CONTROLLER_DATABASE_URL': url}, {}):
                for more in ([], ['--check-config'], ['--nonsense']):
                    flags = [] if given else ['--database-url', url]
                    ended = self.run_program('faas-controller', *flags, *more, '--listen', '127.0.0.1:0', '--data-dir', self.folder, **given)
                    self.assertNotIn(password, ended.stdout + ended.stderr, (url, more))

    def test_tokens_that_will_not_do(self):
        short = secret('t')[:12]
        for program, flag in (('faas-controller', '--worker-token'), ('faas-worker', '--token')):
            for arguments, given in (([flag, short], {}), ([], {'WORKER_TOKEN': short})):
                ended = self.run_program(program, '--check-config', '--data-dir', self.folder, *arguments, **given)
                self.assertNotIn(short, ended.stdout + ended.stderr, (program, arguments))

    def test_a_flag_is_not_to_be_seen_once_it_was_read(self):
        token = secret('token')
        for form in (['--worker-token', token], ['--worker-token=' + token]):
            data_dir = os.path.join(self.folder, uuid.uuid4().hex)
            process = subprocess.Popen([os.path.join(BIN, 'faas-controller'), '--listen', '127.0.0.1:0', '--data-dir', data_dir, *form],
                                       stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                wait_until(lambda: os.path.exists(os.path.join(data_dir, 'controller.url')), 60, 'it listens')
                with open(f'/proc/{process.pid}/cmdline', encoding='utf-8') as file:
                    self.assertNotIn(token, file.read())
            finally:
                process.terminate()
                self.assertEqual(process.wait(60), 0)


if __name__ == '__main__':
    main()
