"""What bad input gets: a clear error in the contract's form, and no effect on anything else."""
import base64
import gzip
import io
import json
import select
import socket
import tarfile
import urllib.parse
import zipfile

from faas_platform import PlatformTest, archive, main

GOOD = base64.b64encode(b'print(1)').decode()


def tar_with(*entries):
    """entries: (TarInfo changes as a dict, content)"""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode='w') as tar:
        for fields, content in entries:
            entry = tarfile.TarInfo(fields.pop('name'))
            for key, value in fields.items():
                setattr(entry, key, value)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


class BadInput(PlatformTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.platform.deploy('good', python='print(1)')

    def tearDown(self):
        # Whatever was sent, the others are served.
        self.assertSucceeded(self.invoke('good'), 1)

    def put(self, name='bad', **fields):
        return self.api('PUT', '/v1/functions/' + name, {'runtime': 'python', 'code': GOOD} | fields)

    # -- JSON --

    def test_malformed_json(self):
        for body in (b'{', b'', b'{"runtime": "python",}', b'{"a": 1} x', b'/* comment */ {}', b'\xff\xfe', b'{"a": "\xff"}', b"{'a': 1}", b'nul', b'[1'):
            with self.subTest(body=body):
                self.assertApiError(self.api('PUT', '/v1/functions/bad', body), 400, 'invalid_request')

    def test_json_that_is_not_an_object(self):
        for body in (b'[]', b'1', b'"x"', b'null'):
            self.assertApiError(self.api('PUT', '/v1/functions/bad', body), 400, 'invalid_request')

    def test_deeply_nested_json(self):
        for body in (b'[' * 100_000, b'{"a":' * 100_000, b'[' * 100_000 + b']' * 100_000, b'{"runtime": ' + b'[' * 100_000 + b']' * 100_000 + b'}'):
            self.assertApiError(self.api('PUT', '/v1/functions/bad', body), 400, 'invalid_request')
            self.assertApiError(self.api('POST', '/v1/functions/good/invocations', body), 400, 'invalid_request')

    def test_duplicate_keys(self):
        body = b'{"runtime": "python", "runtime": "nodejs", "code": "' + GOOD.encode() + b'"}'
        self.assertApiError(self.api('PUT', '/v1/functions/bad', body), 400, 'invalid_request', 'runtime')

    def test_huge_json(self):
        body = b'{"runtime": "python", "code": "' + b'A' * (120 * 1024 * 1024) + b'"}'
        try:
            answer = self.api('PUT', '/v1/functions/bad', body)
            self.assertApiError(answer, 413, 'payload_too_large')
        except (ConnectionError, OSError):
            pass  # it may hang up while the rest is being sent

    def test_payload_that_is_not_json(self):
        for body in (b'{', b'hello', b'\xff'):
            self.assertApiError(self.api('POST', '/v1/functions/good/invocations', body), 400, 'invalid_request')

    # -- fields --

    def test_wrong_types_and_ranges_name_the_field_and_the_value(self):
        cases = [('memory_mb', 4), ('memory_mb', 10241), ('memory_mb', -1), ('memory_mb', '128'), ('memory_mb', 1.5), ('memory_mb', 10 ** 30), ('memory_mb', None),
                 ('timeout_ms', 0), ('timeout_ms', 900001), ('cpus', 0), ('cpus', 0.01), ('cpus', 10_000), ('cpus', 'one'), ('tmp_mb', -1), ('pids', 0), ('pids', -5), ('io_bps', -1), ('io_bps', 1000), ('io_iops', 1), ('io_iops', 'max'),
                 ('min_instances', -1), ('max_instances', 10_001), ('concurrency', 0), ('concurrency', 2), ('concurrency', 101), ('keep_alive_ms', -1), ('keep_alive_ms', '5m'),
                 ('network', 'host'), ('contract', 'daemon'), ('runtime', 'cobol'), ('runtime', 7), ('env', []), ('env', {'A': 1}), ('env', {'': 'x'}),
                 ('env', {'A=B': 'x'}), ('env', {'A': 'x\x00y'}), ('labels', 'x'), ('public', 'yes'), ('handler', 7), ('image', '')]
        for field, value in cases:
            with self.subTest(field=field, value=value):
                answer = self.put(**{field: value})
                self.assertApiError(answer, 400, 'invalid_request', field if field not in ('env', 'labels') else '')
                self.assertTrue(answer.json()['error']['field'].startswith('/' + field), answer)
        self.assertApiError(self.put(memory_mb=4), 400, 'invalid_request', '16', '10240', '4', field='/memory_mb')
        self.assertApiError(self.api('GET', '/v1/functions/bad'), 404, 'not_found')

    def test_unknown_field_is_refused_by_name(self):
        self.assertApiError(self.put(memroy_mb=128), 400, 'invalid_request', 'memroy_mb')

    def test_missing_fields(self):
        self.assertApiError(self.api('PUT', '/v1/functions/bad', {'code': GOOD}), 400, 'invalid_request', 'runtime')
        self.assertApiError(self.api('PUT', '/v1/functions/bad', {'runtime': 'python'}), 400, 'invalid_request', 'code')
        self.assertApiError(self.put(contract='handler'), 400, 'invalid_request', 'handler')

    def test_bad_names(self):
        for name in ('Bad', 'a_b', '-a', 'a-', 'a' * 64, 'ä', 'a.b', '%2e%2e', 'a%00b', 'a%2fb'):
            with self.subTest(name=name):
                answer = self.api('PUT', '/v1/functions/' + (name if '%' in name else urllib.parse.quote(name)), {'runtime': 'python', 'code': GOOD})
                self.assertIn(answer.status, (400, 404), answer)
                self.assertIn(answer.json()['error']['type'], ('invalid_request', 'not_found'))
        self.assertApiError(self.api('POST', '/v1/functions', {'name': '', 'runtime': 'python', 'code': GOOD}), 400, 'invalid_request')
        self.assertApiError(self.api('POST', '/v1/functions', {'runtime': 'python', 'code': GOOD}), 400, 'invalid_request', 'name')

    def test_name_in_path_and_body_must_agree(self):
        answer = self.api('PUT', '/v1/functions/bad', {'name': 'other', 'runtime': 'python', 'code': GOOD})
        self.assertApiError(answer, 400, 'invalid_request', 'name')

    def test_name_taken(self):
        self.assertApiError(self.api('POST', '/v1/functions', {'name': 'good', 'runtime': 'python', 'code': GOOD}), 409, 'conflict', 'good')

    # -- code --

    def test_code_that_is_not_base64(self):
        for code in ('***', 'YQ=', 'YQ==YQ==', '', 'ä'):
            with self.subTest(code=code):
                self.assertApiError(self.put(code=code), 400, 'invalid_request', 'code')

    def refused_archive(self, data, *words, status=400, error_type='invalid_request'):
        answer = self.put(code=base64.b64encode(data).decode())
        self.assertApiError(answer, status, error_type, *words)

    def test_corrupt_archives(self):
        good = archive({'main.py': 'print(1)' * 200})
        self.refused_archive(good[:len(good) // 2])
        self.refused_archive(gzip.compress(b'not a tar' * 300))
        out = io.BytesIO()
        with zipfile.ZipFile(out, 'w', zipfile.ZIP_DEFLATED) as packed:
            packed.writestr('main.py', 'print(1)' * 200)
        data = bytearray(out.getvalue())
        self.refused_archive(bytes(data[:60]) + b'\xff' * 20 + bytes(data[80:]))

    def test_archives_that_leave_their_folder(self):
        link, hard = tarfile.SYMTYPE, tarfile.LNKTYPE
        main_py = ({'name': 'main.py'}, b'print(1)')
        cases = {
            'dot-dot': [main_py, ({'name': '../evil'}, b'x')],
            'inner dot-dot': [main_py, ({'name': 'a/../../evil'}, b'x')],
            'absolute': [main_py, ({'name': '/tmp/evil'}, b'x')],
            'symlink': [main_py, ({'name': 'out', 'type': link, 'linkname': '/etc/passwd'}, b'')],
            'symlink up': [main_py, ({'name': 'out', 'type': link, 'linkname': '../../etc/passwd'}, b'')],
            'write through symlink': [({'name': 'dir', 'type': link, 'linkname': '/tmp'}, b''), ({'name': 'dir/evil'}, b'x'), ({'name': 'main.py'}, b'print(1)')],
            'hardlink': [main_py, ({'name': 'out', 'type': hard, 'linkname': '/etc/passwd'}, b'')],
            'hardlink up': [main_py, ({'name': 'out', 'type': hard, 'linkname': '../../../etc/passwd'}, b'')],
            'device': [main_py, ({'name': 'null', 'type': tarfile.CHRTYPE, 'devmajor': 1, 'devminor': 3}, b'')],
            'pipe': [main_py, ({'name': 'pipe', 'type': tarfile.FIFOTYPE}, b'')],
        }
        for name, entries in cases.items():
            with self.subTest(name):
                self.refused_archive(tar_with(*[(dict(fields), content) for fields, content in entries]))

    def test_setuid_bits_are_refused_or_dropped(self):
        data = tar_with(({'name': 'main.py', 'mode': 0o6755}, b'import os, json\nprint(json.dumps(oct(os.stat(__file__).st_mode & 0o7000)))'))
        answer = self.put(name='setuid', code=base64.b64encode(data).decode())
        if answer.status == 400:
            return
        self.assertSucceeded(self.invoke('setuid'), '0o0')

    def test_bombs(self):
        zeros = io.BytesIO()
        with tarfile.open(fileobj=zeros, mode='w:gz', compresslevel=9) as tar:
            entry = tarfile.TarInfo('zeros')
            entry.size = 600 * 1024 * 1024
            tar.addfile(entry, Zeros(entry.size))
        self.refused_archive(zeros.getvalue(), 512 << 20, status=413, error_type='payload_too_large')
        many = io.BytesIO()
        with tarfile.open(fileobj=many, mode='w:gz', compresslevel=1) as tar:
            for i in range(65_600):
                tar.addfile(tarfile.TarInfo(f'{i}'))
        self.refused_archive(many.getvalue(), 65536, status=413, error_type='payload_too_large')

    def test_archive_over_the_limit(self):
        data = base64.b64encode(bytes(65 * 1024 * 1024)).decode()
        try:
            answer = self.put(code=data)
        except OSError:
            return
        self.assertIn(answer.status, (400, 413), answer)

    def test_missing_entry_file(self):
        for runtime, entry in (('python', 'main.py'), ('nodejs', 'index.js'), ('go', 'main.go'), ('native', 'bootstrap')):
            with self.subTest(runtime):
                answer = self.api('PUT', '/v1/functions/bad', {'runtime': runtime, 'code': base64.b64encode(archive({'readme.txt': 'x'})).decode()})
                self.assertApiError(answer, 400, 'invalid_request', entry)

    def test_syntax_error_in_the_function(self):
        self.deploy('syntax', python='def broken(:\n')
        execution = self.invoke('syntax')
        self.assertEqual(execution['status'], 'failed')
        self.assertIn('SyntaxError', execution['logs'])

    def test_image_that_is_not_there(self):
        answer = self.put(name='no-image', image='no-such-image:latest')
        if answer.status in (200, 201):
            answer = self.api('POST', '/v1/functions/no-image/invocations', {})
        self.assertIn('no-such-image:latest', answer.body.decode())

    # -- HTTP --

    def test_unknown_paths_and_methods(self):
        self.assertApiError(self.api('GET', '/v1/nothing'), 404, 'not_found')
        self.assertApiError(self.api('GET', '/v1/functions/unknown'), 404, 'not_found', 'unknown')
        self.assertApiError(self.api('POST', '/v1/functions/unknown/invocations', {}), 404, 'not_found', 'unknown')
        self.assertApiError(self.api('DELETE', '/v1/functions/unknown'), 404, 'not_found')
        self.assertApiError(self.api('GET', '/v1/executions/unknown'), 404, 'not_found')
        self.assertIn(self.api('PATCH', '/v1/functions/good', {}).status, (400, 404, 405))

    def test_tokens(self):
        for token in (None, 'wrong', self.platform.token[:-1], self.platform.token + 'x'):
            for method, path in (('GET', '/v1/functions'), ('POST', '/v1/functions/good/invocations'), ('POST', '/fn/good'), ('GET', '/v1/workers'),
                                 ('GET', '/v1/worker/stream'), ('GET', '/v1/executions')):
                answer = self.api(method, path, {} if method == 'POST' else None, token=token)
                self.assertIn(answer.status, (401, 403), (token, path, answer))
                self.assertNotIn(self.platform.token.encode(), answer.body)

    def test_bad_query_parameters(self):
        for query in ('limit=0', 'limit=x', 'limit=-1', 'cursor=%00', 'cursor=zzz%20', 'status=odd', 'mode=odd'):
            path = '/v1/functions/good/invocations?' if query.startswith('mode') else '/v1/executions?'
            answer = self.api('POST' if query.startswith('mode') else 'GET', path + query, {} if query.startswith('mode') else None)
            self.assertIn(answer.status, (200, 400), (query, answer))
            if query in ('limit=x', 'status=odd', 'mode=odd'):
                self.assertApiError(answer, 400, 'invalid_request')

    def raw(self, data, wait=5):
        host, port = self.platform.url.removeprefix('http://').split(':')
        with socket.create_connection((host, int(port)), timeout=wait) as connection:
            connection.sendall(data)
            received = b''
            try:
                while piece := connection.recv(65536):
                    received += piece
            except TimeoutError:
                pass
            return received

    def test_requests_that_are_not_http(self):
        for data in (b'\x00\x01\x02\x03\r\n\r\n', b'GET\r\n\r\n', b'GET / HTTP/9.9\r\n\r\n', b'POST /v1/functions HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n',
                     b'GET /' + b'a' * 100_000 + b' HTTP/1.1\r\nHost: x\r\n\r\n', b'GET / HTTP/1.1\r\n' + b'X: y\r\n' * 20_000 + b'\r\n'):
            try:
                received = self.raw(data, wait=2)
            except OSError:
                continue
            self.assertNotIn(b' 200 ', received[:20])

    def test_half_sent_and_slow_requests_hold_nobody_up(self):
        host, port = self.platform.url.removeprefix('http://').split(':')
        head = (f'POST /v1/functions/good/invocations HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.platform.token}\r\n'
                'Content-Length: 1000\r\n\r\n').encode()
        connections = [socket.create_connection((host, int(port))) for _ in range(50)]
        try:
            for number, connection in enumerate(connections):
                connection.sendall(head[:len(head) - number] + b'{' if number else head + b'{')
            self.assertSucceeded(self.invoke('good'), 1)
            self.assertEqual(select.select(connections, [], [], 0)[0], [], 'they all still wait')
        finally:
            for connection in connections:
                connection.close()

    def test_a_client_that_leaves_early_harms_nobody(self):
        self.deploy('slow', python='import time\ntime.sleep(0.5)\nprint(1)')
        host, port = self.platform.url.removeprefix('http://').split(':')
        for _ in range(5):
            with socket.create_connection((host, int(port))) as connection:
                connection.sendall((f'POST /v1/functions/slow/invocations HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.platform.token}\r\n'
                                    'Content-Length: 2\r\n\r\n{}').encode())
        self.assertSucceeded(self.invoke('slow'), 1)


class Zeros(io.RawIOBase):
    """A file of zeros, for archives that unpack to far more than they are."""

    def __init__(self, size):
        self.left = size

    def read(self, size=-1):
        size = self.left if size < 0 else min(size, self.left)
        self.left -= size
        return bytes(size)


class MissingParts(PlatformTest):
    """Without an OCI runtime that works, each invocation says so."""
    settings = {'WORKER_OCI_RUNTIME': '/nonexistent/runc'}

    @classmethod
    def setUpClass(cls):
        try:
            super().setUpClass()
        except AssertionError as error:
            cls.refused = str(error)
        else:
            cls.refused = None

    @classmethod
    def tearDownClass(cls):
        if cls.refused is None:
            super().tearDownClass()

    def test_a_missing_runtime_is_named(self):
        if self.refused is not None:
            self.assertIn('/nonexistent/runc', self.refused)
            return
        self.deploy('any', python='print(1)')
        execution = self.invoke('any')
        self.assertIn('/nonexistent/runc', json.dumps(execution))


if __name__ == '__main__':
    main()
