"""What `faas` says without any platform: manual page, shell completion, and words that it does not know."""
import http.server
import json
import os
import pty
import re
import shutil
import subprocess
import tempfile
import threading
import unittest

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.environ.get('FAAS_BIN', os.path.join(TOP, 'build', 'bin'))
MACROS = {'.TH', '.SH', '.SS', '.B', '.I', '.TP', '.PP', '.nf', '.fi', '.RS', '.RE', '.'}


def faas(*arguments, **options):
    return subprocess.run([os.path.join(BIN, 'faas'), *arguments], capture_output=True, text=True, check=False, **options)


def verbs():
    found = re.findall(r'^  (\S+(?: (?:import|list|rm)(?=  | [A-Z]))?)', faas('--help').stdout, re.M)
    return [verb for verb in found if verb != 'faas']


class Controller:
    """Gives every request the same answer."""

    def __init__(self, body, status=200):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()

        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self):
                self.rfile.read(int(self.headers.get('Content-Length') or 0))
                self.send_response(status)
                self.send_header('Content-Length', str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PUT = do_DELETE = answer

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)

    def __enter__(self):
        self.thread.start()
        return f'http://127.0.0.1:{self.server.server_address[1]}'

    def __exit__(self, *_):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def answered(body, *arguments, status=200):
    with Controller(body, status) as url:
        return faas(*arguments, '--url', url, '--token', 'x' * 20, timeout=60)


def on_terminal(*arguments):
    """What a terminal would be sent."""
    master, terminal = pty.openpty()
    with subprocess.Popen([os.path.join(BIN, 'faas'), *arguments], stdin=subprocess.DEVNULL, stdout=terminal, stderr=terminal,
                          env=dict(os.environ, NO_COLOR='1')) as command:  # fmt: skip
        os.close(terminal)
        shown = b''
        try:
            while part := os.read(master, 4096):
                shown += part
        except OSError:  # the other end is closed
            pass
        command.wait(60)
    os.close(master)
    return shown.decode()


class ManualPage(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.page = faas('man').stdout

    def test_it_has_every_verb(self):
        self.assertGreater(len(verbs()), 12)
        for verb in verbs():
            self.assertRegex(self.page, rf'(?m)^\.SS faas {re.escape(verb)}\b')

    def test_no_text_is_taken_for_a_command_of_roff(self):
        for line in self.page.splitlines():
            if line.startswith(('.', "'")):
                self.assertIn(line.split()[0], MACROS, line)
        self.assertTrue(self.page.endswith('\n'))

    def test_exit_statuses_are_told(self):
        section = self.page.split('.SH EXIT STATUS')[1].split('.SH')[0]
        for kind in ('invalid_request', 'unauthorized', 'not_found', 'no_capacity', 'internal'):
            self.assertIn(kind, section)

    @unittest.skipUnless(shutil.which('groff'), 'groff is not here')
    def test_groff_finds_nothing_to_complain_about(self):
        done = subprocess.run(['groff', '-man', '-ww', '-z'], input=self.page, capture_output=True, text=True, check=False)
        self.assertEqual((done.returncode, done.stderr), (0, ''))


class Verbs(unittest.TestCase):
    def test_a_second_word_goes_before_an_argument(self):
        for word in ('drain', 'resume'):
            done = answered(b'', 'workers', word, 'host-1', status=200)
            self.assertEqual((done.returncode, done.stderr), (0, ''))
            self.assertIn('host-1 is given', done.stdout)
            self.assertIn('needs NAME', faas('workers', word).stderr)

    def test_a_wrong_second_word_is_told_those_that_there_are(self):
        self.assertIn('`faas tokens` takes one of create, list, rm, not make', faas('tokens', 'make').stderr)
        self.assertIn('`faas image` takes one of', faas('image').stderr)


class AnswersOfAStranger(unittest.TestCase):
    """What calls itself a controller may answer anything: it is told in words, and nothing is taken for what it is not."""

    def test_an_empty_answer_is_an_error(self):
        for line in (['describe', 'f'], ['describe', 'f', '--json'], ['dlq', 'show', '1'], ['invoke', 'f', '--json'],
                     ['invoke', 'f', '--async'], ['executions', '019a3c1e-5b7c-7d01-8a2b-3c4d5e6f7081'], ['list']):
            for status in (200, 204):
                done = answered(b'', *line, status=status)
                self.assertGreater(done.returncode, 0, line)
                self.assertIn('the controller\'s answer is empty', done.stderr, line)

    def test_what_was_removed_needs_no_answer(self):
        self.assertEqual(answered(b'', 'rm', 'f').returncode, 0)
        self.assertEqual(answered(b'', 'dlq', 'purge', '--all', '--json').returncode, 0)

    def test_a_list_that_never_ends_is_given_up(self):
        for line in (['list'], ['list', '--json'], ['list', '--names']):
            for cursor in ('again', 'again' * 100):
                done = answered({'functions': [{'name': 'f'}], 'next_cursor': cursor}, *line)
                self.assertGreater(done.returncode, 0, line)
                self.assertIn('does not end', done.stderr)

    def test_a_function_without_a_name_is_passed_over(self):
        done = answered({'functions': [{'version': 1}, 7, None, {'name': 'f'}]}, 'list', '--names')
        self.assertEqual((done.returncode, done.stdout), (0, 'f\n'))

    def test_an_accepted_invocation_without_id_is_an_error(self):
        done = answered({'id': 4}, 'invoke', 'f', '--async', status=202)
        self.assertGreater(done.returncode, 0)
        self.assertIn('has no id', done.stderr)
        self.assertEqual(done.stdout, '')


    def test_no_control_character_reaches_a_terminal(self):
        evil = 'x\x1b[2J\x9b5m\x07y'
        execution = {'id': evil, 'function': evil, 'worker': evil, 'status': evil, 'version': 1, 'error': {'type': evil, 'message': evil}}
        for body, status, line in ((execution, 200, ['invoke', 'f']), ({'id': evil}, 202, ['invoke', 'f', '--async']),
                                   ({'error': {'type': 'internal', 'message': evil}}, 500, ['list']),
                                   ({'functions': [{'name': evil}]}, 200, ['list', '--names']), ({'token': evil}, 201, ['tokens', 'create', 'n'])):
            with Controller(body, status) as url:
                shown = on_terminal(*line, '--url', url, '--token', 'x' * 20)
            self.assertRegex(shown, r'x[? ]\[2J\?+5m[? ]y', line)
            self.assertNotRegex(shown.replace('\r\n', ''), '[\x00-\x1f\x7f\x80-\x9f]', line)

    def test_what_a_summary_lacks_is_said_to_lack(self):
        done = answered({'version': 1}, 'invoke', 'f')
        self.assertNotIn('(null)', done.stderr)


class Address(unittest.TestCase):
    """Where the controller is, and with which token: whole, or not at all."""

    def test_one_that_is_too_long_is_refused_and_not_cut(self):
        for line in (['--url', 'http://127.0.0.1:1/' + 'a' * 2000, '--token', 'x' * 20], ['--url', 'http://127.0.0.1:1', '--token', 'x' * 5000]):
            done = faas('list', *line)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertRegex(done.stderr, 'the (address|token) .*must have at most [0-9]+ bytes')

    def test_a_token_of_lines_is_no_header_of_the_users_own(self):
        done = faas('list', '--url', 'http://127.0.0.1:1', '--token', 'x' * 20 + '\r\nX-Evil: 1')
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertIn('the token', done.stderr)


class Completion(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix='command-test-')
        cls.script = os.path.join(cls.folder.name, 'faas.bash')
        with open(cls.script, 'w', encoding='utf-8') as file:
            file.write(faas('completion').stdout)
        # Completing a name asks `faas list --names`; here something else answers.
        with open(os.path.join(cls.folder.name, 'faas'), 'w', encoding='utf-8') as file:
            file.write('#!/bin/sh\n[ "$*" = "list --names" ] && printf "hello\\nhelp-desk\\nother\\n"\n')
        os.chmod(file.name, 0o755)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def complete(self, *words):
        """What bash offers after `faas WORDS`, the last of which is being typed."""
        line = f'source {self.script}; COMP_WORDS=(faas "$@"); COMP_CWORD=$#; _faas; printf "%s\\n" "${{COMPREPLY[@]}}"'
        environment = {'PATH': self.folder.name + ':' + os.environ['PATH']}
        done = subprocess.run(['bash', '-c', line, 'bash', *words], capture_output=True, text=True, check=False, env=environment)
        self.assertEqual((done.returncode, done.stderr), (0, ''))
        return set(done.stdout.split())

    def test_verbs(self):
        self.assertEqual(self.complete('inv'), {'invoke'})
        self.assertGreaterEqual(self.complete(''), {'deploy', 'describe', 'image', 'logs', 'rm', 'up'})

    def test_verbs_of_images(self):
        self.assertEqual(self.complete('image', ''), {'import', 'list', 'rm'})

    def test_options_of_a_verb(self):
        self.assertEqual(self.complete('deploy', 'hello', '--mem'), {'--memory'})
        self.assertIn('--reference', self.complete('image', 'import', '--'))
        self.assertIn('--json', self.complete('workers', '--'))

    def test_values_of_an_option(self):
        self.assertEqual(self.complete('deploy', 'hello', '--network', ''), {'none', 'bridge'})

    def test_names_of_functions(self):
        self.assertEqual(self.complete('invoke', 'hel'), {'hello', 'help-desk'})


class Usage(unittest.TestCase):
    def test_a_verb_with_a_slip_is_told_the_right_one(self):
        done = faas('invok', 'hello')
        self.assertEqual(done.returncode, 2)
        self.assertIn('invoke', done.stderr)

    def test_an_option_with_a_slip_is_told_the_right_one(self):
        done = faas('deploy', 'hello', '--memry', '64')
        self.assertEqual(done.returncode, 2)
        self.assertIn('--memory', done.stderr)

    def test_a_missing_value_and_too_many_arguments_are_wrong_usage(self):
        for arguments in (['deploy', 'hello', '--memory'], ['list', 'one', 'two'], ['invoke'], ['deploy', 'x', '--network', 'host']):
            done = faas(*arguments)
            self.assertEqual(done.returncode, 2, arguments)
            self.assertTrue(done.stderr.startswith('faas: '), done.stderr)
            self.assertEqual(done.stdout, '')

    def test_errors_are_json_when_asked_for(self):
        done = faas('list', '--json', '--url', 'http://127.0.0.1:1', '--token', 'x')
        self.assertNotEqual(done.returncode, 0)
        self.assertTrue(done.stderr.startswith('{"error"'), done.stderr)


if __name__ == '__main__':
    unittest.main(verbosity=2)
