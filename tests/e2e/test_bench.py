"""The benchmark runs, and what it writes has the form that docs/performance.md gives. Nothing here looks at how long anything took."""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree as tree

from faas_platform import BIN, TOP, main

FOLDER = os.path.join(TOP, 'tests', 'bench')
sys.path.insert(0, FOLDER)
from targets import ROWS  # noqa: E402

IDS = ['warm-handler', 'handler-throughput', 'warm-process-python', 'warm-process-node', 'warm-process-go', 'cold-pool', 'cold-miss', 'refill',
       'burst-50', 'payload-6mib', 'idle-memory', 'idle-500', 'functions-100k', 'memory-flat']


def run(program, *arguments, **environment):
    return subprocess.run([os.path.join(FOLDER, program), *arguments], capture_output=True, text=True, timeout=300, check=False,
                          env=dict(os.environ, FAAS_BIN=BIN) | environment)


class Bench(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix='e2e-bench-')
        self.addCleanup(shutil.rmtree, self.folder)
        os.chmod(self.folder, 0o711)
        self.out = os.path.join(self.folder, 'bench.json')

    def results(self):
        with open(self.out, encoding='utf-8') as file:
            return json.load(file)

    def check_figures(self, figures, samples):
        self.assertGreater(figures['median'], 0)
        self.assertGreaterEqual(figures['p99'], figures['median'])
        self.assertIn(figures['unit'], ('ns', '1/s', 'MB'))
        self.assertGreaterEqual(figures['n'], samples)
        self.assertTrue(figures['name'])

    def check_row(self, row, rounds):
        self.check_figures(row['ours'], rounds)
        self.check_figures(row['baseline'], rounds)
        self.assertAlmostEqual(row['ratio'], row['ours']['median'] / row['baseline']['median'])
        self.assertEqual(row['ours']['unit'], row['baseline']['unit'])
        self.assertEqual(set(row['must']), set(row['aim']))
        self.assertIsNone(row['met'], 'a quick run is not held against targets')

    def test_the_rows_are_those_that_were_agreed(self):
        self.assertEqual(list(ROWS), IDS)

    @unittest.skipIf(os.geteuid() != 0, 'needs root')
    def test_rows_are_measured_written_and_cleaned_up(self):
        rows = ['warm-handler', 'warm-process-python', 'cold-pool', 'burst-50']
        done = run('run', '--quick', '--rounds', '1', '--out', self.out, *rows, TMPDIR=self.folder)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        results = self.results()
        self.assertEqual(results['failed'], [])
        self.assertEqual([row['id'] for row in results['rows']], rows)
        for row in results['rows']:
            with self.subTest(row['id']):
                self.check_row(row, 1)
                self.assertIn(row['id'], done.stdout)
        self.assertEqual(results['machine']['cores'], os.cpu_count())
        self.assertEqual(os.listdir(self.folder), ['bench.json'])

    @unittest.skipIf(os.geteuid() != 0, 'needs root')
    def test_a_row_that_fails_is_said_and_the_others_go_on(self):
        broken = os.path.join(self.folder, 'bin')
        os.mkdir(broken)
        for name in os.listdir(BIN):
            os.symlink(os.path.join(BIN, name), os.path.join(broken, name))
        os.unlink(os.path.join(broken, 'bench-hello'))
        os.symlink('/bin/false', os.path.join(broken, 'bench-hello'))
        done = run('run', '--quick', '--rounds', '1', '--out', self.out, 'payload-6mib', 'cold-miss', FAAS_BIN=broken)
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        results = self.results()
        self.assertEqual([row['id'] for row in results['failed']], ['payload-6mib'])
        self.assertEqual([row['id'] for row in results['rows']], ['cold-miss'])
        self.assertIn('FAILED', done.stdout)

    @unittest.skipIf(os.geteuid() != 0 or not shutil.which('strace'), 'needs root and strace')
    def test_the_profile_of_a_cold_start_has_its_steps(self):
        done = run('profile', '--calls', '1')
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        for step in ('the controller has read the request', 'the code is attached', 'opens its payload', 'the function writes its result',
                     'the controller sends the answer'):
            self.assertIn(step, done.stdout)

    def test_an_unknown_row_is_refused(self):
        done = run('run', 'no-such-row')
        self.assertEqual(done.returncode, 2)
        self.assertIn('no-such-row', done.stderr)


def figures(unit, median):
    return {'name': 'something', 'median': median, 'p99': median * 2, 'unit': unit, 'n': 5}


def all_rows():
    """A result with every row, some targets met and some not."""
    rows = []
    for number, (name, target) in enumerate(ROWS.items()):
        ratio = target.must * (0.3, 0.9, 5)[number % 3]
        rows.append({'id': name, 'ours': figures('ns', 1e6 * ratio), 'baseline': figures('ns', 1e6), 'ratio': ratio, 'rounds': 5, 'seconds': 1,
                     'must': target.bound(target.must), 'aim': target.bound(target.aim), 'notes': [],
                     'met': {'must': target.met(ratio, target.must), 'aim': target.met(ratio, target.aim)},
                     'further': [{'baseline': figures('ns', 3e6), 'ratio': ratio / 3}]})
    machine = {'cpu': 'a & b', 'cores': 2, 'kernel': '6', 'runc': 'runc 1', 'docker': None, 'commit': 'abc', 'load_average': 0.1, 'started_at': '2026-01-01T00:00:00Z'}
    return {'machine': machine, 'quick': False, 'rows': rows, 'failed': []}


class Report(unittest.TestCase):
    PAGE = '# Title\nbefore\n<!-- written by tests/bench/report -->\nwhat was there\n<!-- end of what it writes -->\nafter\n'

    def setUp(self):
        self.tree = tempfile.mkdtemp(prefix='e2e-bench-')
        self.addCleanup(shutil.rmtree, self.tree)
        os.mkdir(os.path.join(self.tree, 'docs'))
        self.write('README.md', self.PAGE)
        self.write('docs/performance.md', self.PAGE)
        self.write('bench.json', json.dumps(all_rows()))

    def write(self, path, text):
        with open(os.path.join(self.tree, path), 'w', encoding='utf-8') as file:
            file.write(text)

    def read(self, path):
        with open(os.path.join(self.tree, path), encoding='utf-8') as file:
            return file.read()

    def report(self, *arguments):
        return run('report', '--tree', self.tree, *arguments)

    def test_tables_stand_between_the_markers_and_nothing_else_changes(self):
        done = self.report(os.path.join(self.tree, 'bench.json'))
        self.assertEqual(done.returncode, 0, done.stderr)
        for page in ('README.md', 'docs/performance.md'):
            text = self.read(page)
            self.assertTrue(text.startswith('# Title\nbefore\n'), text)
            self.assertTrue(text.endswith('\nafter\n'), text)
            self.assertNotIn('what was there', text)
        for name in IDS:
            self.assertIn(f'`{name}`', self.read('docs/performance.md'))
        self.assertIn('not met', self.read('docs/performance.md'))

    def test_the_charts_are_svg_with_every_row(self):
        self.assertEqual(self.report(os.path.join(self.tree, 'bench.json')).returncode, 0)
        for theme in ('light', 'dark'):
            text = self.read(f'docs/bench/targets-{theme}.svg')
            self.assertEqual(tree.fromstring(text).tag, '{http://www.w3.org/2000/svg}svg')
            for name in IDS:
                self.assertIn(f'>{name}<', text)
            tree.fromstring(self.read(f'docs/bench/times-{theme}.svg'))

    def test_check_says_whether_the_pages_are_what_the_figures_say(self):
        self.report(os.path.join(self.tree, 'bench.json'))
        self.assertEqual(self.report('--check').returncode, 0)
        self.write('README.md', self.read('README.md').replace('1.00 ms', '0.10 ms'))
        done = self.report('--check')
        self.assertEqual(done.returncode, 1)
        self.assertIn('README.md', done.stdout)

    def test_figures_of_a_quick_run_are_refused(self):
        self.write('bench.json', json.dumps(all_rows() | {'quick': True}))
        done = self.report(os.path.join(self.tree, 'bench.json'))
        self.assertEqual(done.returncode, 2)
        self.assertIn('quick', done.stderr)

    def test_the_pages_of_this_tree_are_what_its_figures_say(self):
        if not os.path.exists(os.path.join(TOP, 'docs', 'bench', 'bench.json')):
            self.skipTest('no figures in this tree')
        done = run('report', '--check')
        self.assertEqual(done.returncode, 0, done.stdout)


if __name__ == '__main__':
    main()
