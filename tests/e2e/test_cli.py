"""The command `faas` against a running platform."""
import json
import os
import shutil
import subprocess
import tempfile
import uuid

from faas_platform import BIN, TOP, Platform, PlatformTest, main


class Command(PlatformTest):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix='e2e-cli-')
        self.addCleanup(shutil.rmtree, self.folder)

    def faas(self, *arguments, status=0, **options):
        done = self.platform.faas(*arguments, **options)
        self.assertEqual(done.returncode, status, f'faas {" ".join(arguments)}: {done.stdout[-2000:]!r} {done.stderr[-2000:]!r}')
        return done

    def test_new_makes_folders_that_deploy_and_run_as_they_are(self):
        for runtime, contract in (('python', 'process'), ('python', 'handler'), ('nodejs', 'process'), ('nodejs', 'handler'), ('go', 'process'), ('native', 'process')):
            with self.subTest(f'{runtime} {contract}'):
                name = f'new-{runtime}-{contract}'
                path = os.path.join(self.folder, name)
                subprocess.run([os.path.join(BIN, 'faas'), 'new', name, '--runtime', runtime, '--contract', contract], cwd=self.folder, check=True, capture_output=True)
                self.faas('deploy', name, path)
                done = self.faas('invoke', name, '--data', '{"name": "you"}', '--json')
                execution = json.loads(done.stdout)
                self.assertEqual(execution['status'], 'succeeded', execution)
                self.assertIn('Hello', json.dumps(execution['result']))

    def test_the_examples_run(self):
        examples = {'python/hello': {'x': 1}, 'python/handler': {'text': 'a b a'}, 'nodejs/process': {'text': 'x'}, 'nodejs/handler': {'items': ['a']},
                    'go/hello': {'up_to': 10}, 'native/shell': {}}
        for path, payload in examples.items():
            with self.subTest(path):
                name = path.replace('/', '-')
                self.faas('deploy', name, os.path.join(TOP, 'examples', path))
                self.assertEqual(json.loads(self.faas('invoke', name, '-', '--json', stdin=json.dumps(payload).encode()).stdout)['status'], 'succeeded')

    def test_a_dynamically_linked_c_program_runs(self):
        if not shutil.which('cc'):
            self.skipTest('no C compiler')
        subprocess.run(['cc', '-O1', '-o', os.path.join(self.folder, 'bootstrap'), os.path.join(TOP, 'examples', 'native', 'c', 'hello.c')], check=True)
        self.faas('deploy', 'c-program', self.folder, '--runtime', 'native', '--memory', '32')
        execution = json.loads(self.faas('invoke', 'c-program', '--data', '{"a":1}', '--json').stdout)
        self.assertEqual(execution['result'], {'language': 'C', 'payload_bytes': 7, 'payload_lines': 1})

    def test_a_network_policy_is_given_and_shown(self):
        with open(os.path.join(self.folder, 'main.py'), 'w', encoding='ascii') as file:
            file.write('print(1)')
        self.faas('deploy', 'policy', self.folder, '--network-allow', '10.20.0.0/16:5432/tcp', '--network-allow', '192.0.2.7', '--network-kbps', '2000',
                  '--io-bps', '2097152', '--io-iops', '300')
        shown = json.loads(self.faas('describe', 'policy', '--json').stdout)
        self.assertEqual((shown['network_allow'], shown['network_kbps']), (['10.20.0.0/16:5432/tcp', '192.0.2.7'], 2000))
        self.assertEqual((shown['io_bps'], shown['io_iops']), (2097152, 300))
        self.assertEqual(json.loads(self.faas('invoke', 'policy', '--json').stdout)['status'], 'succeeded')
        self.faas('deploy', 'policy', self.folder, '--network-allow', '[::1]:80', status=2)

    def test_two_platforms_on_one_machine(self):
        """Commands find each one's token by its address, also after the other has come and gone."""
        first, second = self.platform, Platform()
        self.addCleanup(second.cleanup)

        def list_of(platform):
            return subprocess.run([os.path.join(BIN, 'faas'), 'list', '--url', platform.url], capture_output=True, env={'PATH': os.environ['PATH']})

        second.start()
        for platform in (first, second):
            self.assertEqual(list_of(platform).returncode, 0, list_of(platform).stderr)
        second.stop()
        self.assertEqual(list_of(first).returncode, 0, list_of(first).stderr)
        self.assertEqual(list_of(second).returncode, 7)

    def test_exit_statuses(self):
        self.deploy('cli-fails', python='raise SystemExit(1)')
        self.deploy('cli-works', python='print(\'{"a": 1}\')')
        self.faas('invoke', 'cli-works')
        self.faas('invoke', 'cli-fails', status=1)
        self.faas('invoke', 'cli-nobody', status=4)
        self.faas('invoke', 'cli-works', '--data', '{', status=2)
        self.faas('nonsense', status=2)
        self.faas('deploy', 'Bad_Name', self.folder, '--runtime', 'python', status=2)

    def test_result_on_stdout_and_nothing_else(self):
        self.deploy('cli-out', python='import sys\nprint("log", file=sys.stderr)\nprint(\'{"a": 1}\')')
        self.assertEqual(json.loads(self.faas('invoke', 'cli-out').stdout), {'a': 1})
        self.assertEqual(json.loads(self.faas('invoke', 'cli-out', '--raw').stdout), {'a': 1})

    def test_list_describe_executions_workers_logs_rm(self):
        self.deploy('cli-life', python='import sys\nprint("said", file=sys.stderr)\nprint(1)')
        execution = self.invoke('cli-life')
        self.assertIn(b'cli-life', self.faas('list').stdout)
        self.assertIn('cli-life', [json.loads(line)['name'] for line in self.faas('list', '--json').stdout.splitlines()])
        self.assertIn(b'cli-life', self.faas('describe', 'cli-life').stdout)
        self.assertIn(execution['id'].encode(), self.faas('executions', 'cli-life').stdout)
        self.assertIn(self.platform.worker_name.encode(), self.faas('workers').stdout)
        self.assertIn(b'said', self.faas('logs', 'cli-life').stdout)
        self.assertIn(b'said', self.faas('logs', execution['id']).stdout)
        self.faas('rm', 'cli-life')
        self.faas('describe', 'cli-life', status=4)

    def test_async(self):
        self.deploy('cli-async', python='print(5)')
        execution_id = self.faas('invoke', 'cli-async', '--async').stdout.decode().strip()
        self.assertSucceeded(self.platform.wait_execution(execution_id), 5)

    def test_failed_build_shows_the_compilers_output(self):
        path = os.path.join(self.folder, 'main.go')
        with open(path, 'w', encoding='utf-8') as file:
            file.write('package main\nfunc main() { undefinedThing() }\n')
        done = self.platform.faas('deploy', 'cli-broken', path, '--runtime', 'go')
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(b'undefinedThing', done.stdout + done.stderr)

    def test_every_verb_has_help_with_an_example(self):
        for verb in ('up', 'new', 'deploy', 'invoke', 'list', 'describe', 'rm', 'logs', 'executions', 'workers', 'bundle', 'image import', 'image list', 'image rm'):
            with self.subTest(verb):
                text = self.faas(*verb.split(), '--help').stdout.decode()
                self.assertIn('Example', text)
                self.assertIn('faas ' + verb, text)

    def test_a_bundle_runs_by_hand_with_plain_runc(self):
        cases = {'bundle-python': {'python': 'import os, json\nprint(json.dumps({"by": "hand", "payload": os.environ.get("FUNCTION_PAYLOAD")}))'},
                 'bundle-native': {'native': '#!/bin/sh\necho "{\\"by\\": \\"hand\\", \\"payload\\": \\"$FUNCTION_PAYLOAD\\"}"\n'},
                 'bundle-node': {'nodejs': 'console.log(JSON.stringify({ by: "hand", payload: process.env.FUNCTION_PAYLOAD }))'}}
        for name, fields in cases.items():
            with self.subTest(name):
                self.deploy(name, network='none', **fields)
                bundle = os.path.join(self.folder, name)
                self.faas('bundle', name, '--out', bundle)
                self.assertTrue(os.path.isdir(os.path.join(bundle, 'rootfs')))
                with open(os.path.join(bundle, 'config.json'), encoding='utf-8') as file:
                    self.assertTrue(json.load(file)['ociVersion'].startswith('1.'))
                state = os.path.join(self.folder, 'runc')
                container = 'byhand-' + uuid.uuid4().hex[:8]
                done = subprocess.run(['runc', '--root', state, 'run', '--bundle', bundle, container], stdin=subprocess.DEVNULL, capture_output=True,
                                      timeout=60, check=False)
                self.assertEqual(done.returncode, 0, done)
                self.assertEqual(json.loads(done.stdout.splitlines()[-1])['by'], 'hand')


if __name__ == '__main__':
    main()
