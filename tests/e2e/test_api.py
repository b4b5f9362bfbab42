"""The HTTP API: functions, executions, logs, workers, metrics; and that its OpenAPI document says what the code does."""
import concurrent.futures
import glob
import json
import os
import re
import shutil
import subprocess
import time
import urllib.parse
import urllib.request

from faas_platform import TOP, PlatformTest, http, main

PROMTOOL = next((path for path in (os.path.join(TOP, 'build', 'tools', 'promtool'), shutil.which('promtool')) if path and os.path.exists(path)), None)


class Functions(PlatformTest):
    def test_life_of_a_function(self):
        import base64
        fields = {'name': 'life', 'runtime': 'python', 'code': base64.b64encode(b'print(1)').decode(), 'env': {'A': 'b'}, 'labels': {'team': 'x'}}
        created = self.api('POST', '/v1/functions', fields)
        self.assertEqual(created.status, 201, created)
        function = created.json()
        expected = {'name': 'life', 'runtime': 'python', 'image': 'faas-runtime-python:latest', 'contract': 'process', 'env': {'A': 'b'}, 'labels': {'team': 'x'},
                    'memory_mb': 128, 'cpus': 1.0, 'timeout_ms': 30000, 'tmp_mb': 64, 'pids': 64, 'io_bps': 0, 'io_iops': 0, 'network': 'bridge', 'public': False,
                    'min_instances': 0, 'max_instances': 0, 'concurrency': 1, 'rate_limit': 0, 'rate_burst': 0, 'max_concurrency': 0,
                    'reserved_concurrency': 0, 'version': 1, 'state': 'ready'}
        self.assertEqual({key: function.get(key) for key in expected}, expected)
        self.assertRegex(function['code_sha256'], '^[0-9a-f]{64}$')
        self.assertRegex(function['created_at'], r'^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$')
        self.assertNotIn('code', function)
        self.assertNotIn('keep_alive_ms', function)

        again = self.api('PUT', '/v1/functions/life', fields)
        self.assertEqual((again.status, again.json()['version']), (200, 1))
        changed = self.api('PUT', '/v1/functions/life', fields | {'memory_mb': 200})
        self.assertEqual((changed.status, changed.json()['version'], changed.json()['memory_mb']), (200, 2, 200))
        self.assertEqual(changed.json()['created_at'], function['created_at'])
        self.assertEqual(self.api('GET', '/v1/functions/life').json()['version'], 2)

        self.assertIn(self.api('DELETE', '/v1/functions/life').status, (200, 204))
        self.assertApiError(self.api('GET', '/v1/functions/life'), 404, 'not_found')
        self.assertApiError(self.api('POST', '/v1/functions/life/invocations', {}), 404, 'not_found')
        self.assertEqual(self.api('POST', '/v1/functions', fields).status, 201)

    def test_put_creates_with_201(self):
        answer = self.api('PUT', '/v1/functions/put-creates', {'runtime': 'python', 'code': 'cHJpbnQoMSk='})
        self.assertEqual(answer.status, 201, answer)

    def test_list_is_paged(self):
        for n in range(7):
            self.deploy(f'paged-{n}', python='print(1)')
        names, cursor = [], ''
        for _ in range(10):
            page = self.api('GET', '/v1/functions?limit=3' + ('&cursor=' + urllib.parse.quote(cursor) if cursor else '')).json()
            self.assertLessEqual(len(page['functions']), 3)
            names += [function['name'] for function in page['functions']]
            cursor = page.get('cursor') or page.get('next_cursor')
            if not cursor:
                break
        self.assertEqual(len(names), len(set(names)))
        self.assertLessEqual({f'paged-{n}' for n in range(7)}, set(names))

    def test_of_many_who_create_one_name_one_wins(self):
        body = {'name': 'race', 'runtime': 'python', 'code': 'cHJpbnQoMSk='}
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            statuses = list(pool.map(lambda _: self.api('POST', '/v1/functions', body).status, range(16)))
        self.assertEqual(sorted(statuses), [201] + [409] * 15)


class Executions(PlatformTest):
    def test_an_execution_has_the_contracts_fields(self):
        self.deploy('fields', python='import sys\nprint("log", file=sys.stderr)\nsum(range(10**6))\nprint(1)')
        first, second = self.invoke('fields'), self.invoke('fields')
        for execution, cold in ((first, True), (second, False)):
            self.assertEqual((execution['function'], execution['version'], execution['status'], execution['result'], execution['logs'],
                              execution['cold_start'], execution['attempt']), ('fields', 1, 'succeeded', 1, 'log\n', cold, 1))
            self.assertEqual(execution['worker'], self.platform.worker_name)
            self.assertRegex(execution['created_at'], r'^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$')
            metrics = execution['metrics']
            self.assertLessEqual({'duration', 'memory_peak', 'network_in', 'network_out', 'cpu_time', 'queue_time', 'start_time'}, set(metrics))
            self.assertTrue(1e6 < metrics['duration'] < 5e9, metrics)
            self.assertTrue(1e6 < metrics['cpu_time'] < 5e9, metrics)
            self.assertTrue(1e6 < metrics['memory_peak'] < 128 << 20, metrics)
            self.assertEqual(metrics['start_time'] > 0, cold)
        stored = self.platform.wait_execution(first['id'])
        self.assertEqual({key: stored[key] for key in first if key != 'metrics'}, {key: first[key] for key in first if key != 'metrics'})
        self.assertNotEqual(first['id'], second['id'])

    def test_network_bytes_are_counted(self):
        self.deploy('net', python='import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\nfor _ in range(20):\n    s.sendto(bytes(1000), ("192.0.2.1", 9))\nprint(1)')
        self.assertSucceeded(self.invoke('net'))
        self.assertGreaterEqual(self.invoke('net')['metrics']['network_out'], 20_000)
        self.deploy('net-none', python='print(1)', network='none')
        self.assertEqual(self.invoke('net-none')['metrics']['network_out'], 0)

    def test_list_by_function_and_status(self):
        self.deploy('listed', python='import os, sys, json\nsys.exit(json.loads(os.environ["FUNCTION_PAYLOAD"]))')
        ids = {status: {self.invoke('listed', code)['id'] for _ in range(3)} for status, code in (('succeeded', 0), ('failed', 1))}
        for status, expected in ids.items():
            for path in (f'/v1/executions?function=listed&status={status}',):
                self.eventually(lambda p=path: {e['id'] for e in self.api('GET', p).json()['executions']}, expected)
        page = self.api('GET', '/v1/executions?function=listed&limit=4').json()
        rest = self.api('GET', '/v1/executions?function=listed&limit=4&cursor=' + urllib.parse.quote(page.get('cursor') or page.get('next_cursor'))).json()
        self.assertEqual({e['id'] for e in page['executions'] + rest['executions']}, ids['succeeded'] | ids['failed'])
        self.assertEqual(self.api('GET', '/v1/executions?function=nobody').json()['executions'], [])

    def eventually(self, value, expected, seconds=60):
        deadline = time.monotonic() + seconds
        while value() != expected and time.monotonic() < deadline:
            time.sleep(0.05)
        self.assertEqual(value(), expected)

    def test_async(self):
        self.deploy('later', python='import time\ntime.sleep(1.5)\nprint(7)')
        execution_id = self.platform.invoke_async('later')
        self.assertIn(self.api('GET', '/v1/executions/' + execution_id).json()['status'], ('queued', 'running'))
        execution = self.platform.wait_execution(execution_id)
        self.assertSucceeded(execution, 7)

    def test_raw(self):
        self.deploy('raw', python='import sys\nprint(sys.stdin.read())')
        answer = self.api('POST', '/fn/raw', {'a': 1})
        self.assertEqual((answer.status, answer.json()), (200, {'a': 1}))
        self.assertTrue(answer.headers['X-Execution-Id'])
        self.deploy('raw-fails', python='raise SystemExit(1)')
        self.assertEqual(self.api('POST', '/fn/raw-fails', {}).status, 502)
        self.deploy('raw-slow', python='import time\ntime.sleep(9)', timeout_ms=300)
        self.assertEqual(self.api('POST', '/fn/raw-slow', {}).status, 504)
        self.assertEqual(self.api('GET', '/fn/raw').status, 200)

    def test_public_functions_need_no_token(self):
        self.deploy('open', python='print(1)', public=True)
        self.deploy('closed', python='print(1)')
        self.assertEqual(self.api('POST', '/fn/open', {}, token=None).status, 200)
        self.assertEqual(self.api('POST', '/fn/closed', {}, token=None).status, 401)
        self.assertEqual(self.api('GET', '/v1/functions/open', token=None).status, 401)

    def test_logs_of_an_execution_and_of_a_function(self):
        self.deploy('logs', python='import sys\nprint("first", file=sys.stderr)\nprint("second", file=sys.stderr)\nprint(1)')
        execution = self.invoke('logs')
        for path in (f'/v1/executions/{execution["id"]}/logs', '/v1/functions/logs/logs'):
            answer = self.api('GET', path)
            self.assertEqual(answer.status, 200, answer)
            self.assertIn('first', answer.body.decode())
            self.assertIn('second', answer.body.decode())

    def test_logs_are_followed_live(self):
        """Each line comes while the function runs, which ends only after the last."""
        self.deploy('follow', python='import sys, time\nfor n in range(4):\n    print(f"tick {n}", file=sys.stderr, flush=True)\n    time.sleep(0.5)\n'
                                     'time.sleep(1)\nprint(1)')
        request = urllib.request.Request(self.platform.url + '/v1/functions/follow/logs?follow=true', headers={'Authorization': 'Bearer ' + self.platform.token})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=60) as stream:
            execution_id = self.platform.invoke_async('follow')
            ticks = (line for line in stream if b'tick' in line)
            for n in range(4):
                self.assertIn(f'tick {n}', json.dumps(json.loads(next(ticks))))
                if n == 0:
                    self.assertEqual(self.api('GET', '/v1/executions/' + execution_id).json()['status'], 'running', 'lines came all at once')
        self.assertSucceeded(self.platform.wait_execution(execution_id), 1)


class Operations(PlatformTest):
    def test_health_needs_no_token(self):
        for path in ('/healthz', '/readyz', '/metrics', '/openapi.yaml'):
            self.assertEqual(http('GET', self.platform.url + path).status, 200, path)

    def test_workers(self):
        self.deploy('seen', python='print(1)')
        self.invoke('seen')
        workers = self.api('GET', '/v1/workers').json()['workers']
        self.assertEqual(len(workers), 1)
        self.assertEqual(workers[0]['name'] if 'name' in workers[0] else workers[0]['worker'], self.platform.worker_name)

    def test_metrics_satisfy_promtool(self):
        self.deploy('measured', python='print(1)')
        self.invoke('measured')
        text = self.api('GET', '/metrics', token=None)
        self.assertIn('text/plain', text.headers['Content-Type'])
        self.assertIn(b'faas_', text.body)
        if not PROMTOOL:
            self.skipTest('promtool is not here: ./build.sh test fetches it')
        checked = subprocess.run([PROMTOOL, 'check', 'metrics'], input=text.body, capture_output=True, check=False)
        self.assertEqual((checked.returncode, checked.stdout + checked.stderr), (0, b''))

    def test_metrics_count(self):
        def value():
            found = re.findall(r'^faas_\w*(?:executions|invocations)\w*_total\{[^}]*succeeded[^}]*\} (\d+)', self.api('GET', '/metrics', token=None).body.decode(), re.M)
            self.assertTrue(found, 'no counter of succeeded executions')
            return sum(map(int, found))
        self.deploy('counted', python='print(1)')
        self.invoke('counted')
        before = value()
        for _ in range(5):
            self.invoke('counted')
        self.assertGreaterEqual(value(), before + 5)

    def test_the_token_file_is_the_owners_only(self):
        for name in ('token', 'worker-token'):
            self.assertEqual(os.stat(os.path.join(self.platform.data_dir, name)).st_mode & 0o777, 0o600)


class OpenApi(PlatformTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        import yaml
        cls.document = yaml.safe_load(cls.platform.api('GET', '/openapi.yaml', token=None).body)

    def schema_errors(self, name, value):
        import jsonschema
        schema = {'$ref': '#/components/schemas/' + name, 'components': self.document['components']}
        return [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(value)]

    def test_it_is_served_as_it_is_in_the_tree(self):
        self.assertRegex(self.document['openapi'], r'^3\.1\.')
        with open(os.path.join(TOP, 'docs', 'openapi.yaml'), 'rb') as file:
            self.assertEqual(self.api('GET', '/openapi.yaml', token=None).body, file.read())

    def test_every_documented_call_exists(self):
        for path, methods in self.document['paths'].items():
            for method in methods:
                if method not in ('get', 'put', 'post', 'delete', 'patch', 'head', 'options'):
                    continue
                with self.subTest(f'{method} {path}'):
                    answer = self.api(method.upper(), re.sub(r'\{[^}]*\}', 'unknown', path), {} if method in ('post', 'put') else None)
                    self.assertNotEqual(answer.status, 405)
                    if answer.status == 404:
                        self.assertIn('unknown', answer.json()['error']['message'], 'this path is not served')

    def test_every_route_in_the_code_is_documented(self):
        documented = {re.sub(r'\{[^}]*\}', '{}', path) for path in self.document['paths']}
        routes = set()
        for source in glob.glob(os.path.join(TOP, 'src', 'controller', '*.c')):
            with open(source, encoding='utf-8') as file:
                routes.update(re.findall(r'"(/(?:v1|fn|healthz|readyz|metrics|openapi)[^" ?%]*)"', file.read()))
        routes = {re.sub(r'\{[^}]*\}|:\w+', '{}', route) for route in routes if not route.startswith('/v1/worker/')}
        self.assertTrue(routes, 'no routes found in src/controller')
        self.assertEqual({route for route in routes if route.rstrip('/') not in documented and not route.endswith('/')}, set())

    def test_answers_are_what_the_document_says(self):
        function = self.deploy('documented', python='print(1)')
        self.assertEqual(self.schema_errors('Function', function), [])
        for payload_function in ('documented',):
            self.assertEqual(self.schema_errors('Execution', self.invoke(payload_function)), [])
        self.deploy('documented-fails', python='raise SystemExit(3)')
        self.assertEqual(self.schema_errors('Execution', self.invoke('documented-fails')), [])
        self.assertEqual(self.schema_errors('Error', self.api('GET', '/v1/functions/nobody').json()), [])

    def test_the_functions_fields_are_the_codes(self):
        properties = set(self.document['components']['schemas']['Function']['properties'])
        function = self.deploy('fields', python='print(1)')
        self.assertEqual(set(function) - properties, set())


if __name__ == '__main__':
    main()
