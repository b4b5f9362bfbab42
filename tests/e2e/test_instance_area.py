"""Large payloads and results between a worker and a Python handler, through memory that belongs to worker and instance: what goes in
comes out, nobody else sees it, whatever the function does to it is the function's own affair, and nothing is left of it."""
import concurrent.futures
import os
import random
import unittest

from faas_platform import Platform, PlatformTest, main, wait_until

# Functions with it: their own area as (address, size), or nothing.
OWN_AREA = '''
import ctypes, re, threading
def area():
    for line in open('/proc/self/maps'):
        if 'memfd:faas-instance' in line:
            begin, end = (int(number, 16) for number in re.match('(\\\\w+)-(\\\\w+)', line).groups())
            return begin, end - begin
'''
ECHO = 'def handler(event, context):\n    return event\n'
KINDS = OWN_AREA + '''
def handler(event, context):
    return event if type(event) is not int else bool(area())
'''
LARGE = 'x' * 300_000
MIN = 256 * 1024
MAX = 6 << 20


def areas(pid):
    """Ranges of the areas that a process has mapped."""
    with open(f'/proc/{pid}/maps', encoding='utf-8') as file:
        return [line.split()[0] for line in file if 'memfd:faas-instance' in line]


class InstanceArea(PlatformTest):
    settings = {'WORKER_FREEZE_AFTER_MS': '-1'}

    def areas(self):
        return areas(self.platform.pids()['faas-worker'])

    def start(self, name, code=ECHO, **fields):
        """A function with one instance that has an area."""
        self.deploy(name, **{'python': code, 'contract': 'handler', 'handler': 'main.handler', 'memory_mb': 128, 'max_instances': 1, **fields})
        self.addCleanup(self.remove, name)
        for _ in range(3):
            self.invoke(name, LARGE)

    def remove(self, name):
        self.api('DELETE', f'/v1/functions/{name}')

    def check(self, name, value):
        execution = self.invoke(name, value)
        self.assertTrue(execution['result'] == value, f'another result than its payload: {str(execution)[:300]}')

    def test_bodies_of_all_sizes_and_kinds_come_back_as_they_were(self):
        self.start('kinds', KINDS)
        self.assertSucceeded(self.invoke('kinds', 1), True)
        chance = random.Random(7)
        for size in (MIN - 1, MIN, MIN + 1, 5, 4096 * 100, 4096 * 100 + 1, 0, MAX - 1, MAX, 10, MIN, 1_000_003):
            with self.subTest(size=size):
                text = ''.join(map(str, range(chance.randrange(100), size // 5 + 100)))[:max(0, size - 2)].ljust(max(0, size - 2), 'x')
                self.check('kinds', text)
        for value in ('ä€😀' * 100_000, 'quote " and \\ backslash' * 20_000, 'line\n\t\x01' * 50_000, list(range(100_000)),
                      {'a': LARGE, 'b': ['y' * 400_000, None, 1.5], 'c': {'d': 'z"' * 200_000}}, [LARGE] * 20):
            with self.subTest(kind=str(value)[:30]):
                self.check('kinds', value)

    def test_a_result_over_the_limit_fails_whichever_way_it_goes(self):
        self.start('over', 'def handler(event, context):\n    return "x" * event if type(event) is int else event\n')
        for size in (MAX - 1, 2 * MAX):
            with self.subTest(size=size):
                self.assertFailed(self.invoke('over', size), 'Function.ResultTooLarge')
        self.assertSucceeded(self.invoke('over', 5), 'xxxxx')

    def test_calls_side_by_side_have_areas_of_their_own(self):
        self.start('several', max_instances=4)
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda number: self.check('several', f'{number:08}' * 100_000), range(24)))

    def test_what_one_function_sent_no_other_finds(self):
        search = OWN_AREA + '''
def handler(event, context):
    found = area()
    return [found[1], ctypes.string_at(*found).count(event.encode())] if len(event) < 100 and found else event
'''
        self.start('first')
        self.check('first', 'secret-of-first ' * 200_000)
        self.start('second', search)
        self.assertSucceeded(self.invoke('second', 'secret-of-first'), [MAX, 0])
        self.check('second', 'own-words ' * 100_000)
        self.assertEqual(len(self.areas()), 2)
        # What is left of its own calls it does see.
        self.assertGreater(self.invoke('second', 'own-words')['result'][1], 0)

    def test_what_a_function_does_to_it_is_its_own_affair(self):
        attacks = {
            'noise': 'ctypes.memset(begin, 34, size)',
            'zeros': 'ctypes.memset(begin, 0, size)',
            'holes': 'libc.madvise(ctypes.c_void_p(begin), size, 9)',
        }
        self.start('bystander')
        for name, attack in attacks.items():
            with self.subTest(attack=name):
                self.start(name, OWN_AREA + f'''
libc = ctypes.CDLL(None)
begin = size = 0
def work():
    while True:
        {attack}
def handler(event, context):
    global begin, size
    if not begin and area():
        begin, size = area()
    if event == 'attack':
        threading.Thread(target=work, daemon=True).start()
    return event
''')
                self.assertSucceeded(self.invoke(name, 'attack'), 'attack')
                for _ in range(4):
                    execution = self.invoke(name, 'y' * 3_000_000)
                    if execution['status'] != 'succeeded':  # NUL bytes in a string are too large once they are escaped
                        self.assertEqual(execution['status'], 'failed', execution['error'])
                        self.assertRegex(execution['error']['type'], r'^(Function\.InvalidResult|Function\.ResultTooLarge|ValueError|\w*DecodeError)$')
                    self.check('bystander', '%d' % random.randrange(10) * 400_000)

    def test_a_function_that_takes_it_away_ends_alone(self):
        self.start('bystander')
        for name, act in {'unmaps': 'libc.munmap(ctypes.c_void_p(begin), size)', 'forbids': 'libc.mprotect(ctypes.c_void_p(begin), size, 0)'}.items():
            with self.subTest(attack=name):
                self.start(name, OWN_AREA + f'''
libc = ctypes.CDLL(None)
def handler(event, context):
    if event == 'attack':
        begin, size = area()
        {act}
    return event
''')
                self.assertSucceeded(self.invoke(name, 'attack'), 'attack')
                self.assertEqual(self.invoke(name, LARGE)['error'].get('signal'), 'SIGSEGV')
                self.check('bystander', LARGE)
                self.check(name, LARGE)

    def test_one_that_ends_or_is_too_slow_in_the_middle_is_replaced(self):
        self.start('ends', '''
import os, time
def handler(event, context):
    if event[:4] == 'exit':
        os._exit(3)
    if event[:4] == 'late':
        time.sleep(100)
    return event
''', timeout_ms=2000)
        self.assertEqual(self.invoke('ends', 'exit' + LARGE)['status'], 'failed')
        self.check('ends', LARGE)
        self.assertEqual(self.invoke('ends', 'late' + LARGE)['status'], 'timed_out')
        for _ in range(4):
            self.check('ends', LARGE)

    def test_it_is_gone_with_the_instance(self):
        wait_until(lambda: not self.areas(), what='no areas of other tests')
        descriptors = self.platform.descriptors_at_rest()
        for number in range(3):
            self.start(f'gone-{number}')
        self.assertEqual(len(self.areas()), 3)
        for number in range(3):
            self.remove(f'gone-{number}')
        wait_until(lambda: not self.areas(), what='no areas')
        wait_until(lambda: self.platform.descriptors() == descriptors, 60,
                   lambda: f'{descriptors} descriptors as before, not {self.platform.descriptors()}')

    def test_process_functions_other_languages_and_small_ones_do_without(self):
        wait_until(lambda: not self.areas(), what='no areas of other tests')
        self.start('small', memory_mb=95)
        self.check('small', LARGE)
        self.start('several', concurrency=2)
        self.check('several', LARGE)
        self.deploy('process', python='import sys\nprint(sys.stdin.read())\n')
        self.deploy('node', nodejs='exports.handler = async event => event\n', contract='handler', handler='index.handler')
        for name in ('process', 'node'):
            for _ in range(3):
                self.check(name, LARGE)
        self.assertEqual(self.areas(), [])


class Frozen(PlatformTest):
    settings = {'WORKER_FREEZE_AFTER_MS': '0'}

    def pages(self):
        pid = self.platform.pids()['faas-worker']
        return sum(os.stat(f'/proc/{pid}/map_files/{name}').st_blocks for name in areas(pid))

    def test_a_frozen_instance_has_no_pages_of_it_and_goes_on(self):
        self.deploy('echo', python=ECHO, contract='handler', handler='main.handler', memory_mb=128)
        for number in range(6):
            value = f'{number}' * 2_000_000
            self.assertTrue(self.invoke('echo', value)['result'] == value)
            wait_until(lambda: self.pages() == 0, what='no pages')
        self.assertEqual(len(areas(self.platform.pids()['faas-worker'])), 1)


class Without(unittest.TestCase):
    def check_none(self, **settings):
        with Platform(settings) as platform:
            platform.deploy('echo', python=ECHO, contract='handler', handler='main.handler', memory_mb=128)
            for _ in range(4):
                self.assertTrue(platform.invoke('echo', LARGE)['result'] == LARGE)
            self.assertEqual(areas(platform.pids()['faas-worker']), [])

    @unittest.skipUnless(os.geteuid() == 0, 'needs root')
    def test_a_setting_leaves_it_out(self):
        self.check_none(WORKER_SHARED_MEMORY='false')

    def test_where_system_calls_are_not_filtered_there_is_none(self):
        self.check_none(WORKER_RUNTIME_TYPE='simple')


if __name__ == '__main__':
    main()
