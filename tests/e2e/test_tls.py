"""The API and the workers' links over TLS, with an authority of the test's own."""
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import unittest

from faas_platform import BIN, Platform, main, wait_until

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'integration'))
from authority import Authority  # noqa: E402


@unittest.skipUnless(os.geteuid() == 0, 'needs root')
class Tls(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix='e2e-tls-')
        cls.own, cls.other = Authority(cls.folder, 'own'), Authority(cls.folder, 'other')
        cls.platform = Platform({'CONTROLLER_TLS_CERT_FILE': cls.own.cert, 'CONTROLLER_TLS_KEY_FILE': cls.own.key, 'WORKER_CA_FILE': cls.own.ca, 'FAAS_CA_FILE': cls.own.ca,
                                 'WORKER_SHARED_MEMORY': 'false'})
        cls.platform.start()

    @classmethod
    def tearDownClass(cls):
        status = cls.platform.stop()
        left = cls.platform.leftovers()
        cls.platform.cleanup()
        shutil.rmtree(cls.folder)
        assert status == 0 and not left, (status, left)

    def faas(self, *arguments, **environment):
        full = self.platform.environment() | {'FAAS_URL': self.platform.url, 'FAAS_TOKEN': self.platform.token} | environment
        return subprocess.run([os.path.join(BIN, 'faas'), *arguments], capture_output=True, text=True, env=full, check=False)

    def test_functions_are_deployed_and_called(self):
        self.assertTrue(self.platform.url.startswith('https://'), self.platform.url)
        path = os.path.join(self.folder, 'main.py')
        with open(path, 'w', encoding='ascii') as file:
            file.write('import sys\nprint(len(sys.stdin.read()))')
        deployed = self.faas('deploy', 'over-tls', path, '--runtime', 'python', '--memory', '256')
        self.assertEqual(deployed.returncode, 0, deployed.stderr)
        big = os.path.join(self.folder, 'big.json')
        with open(big, 'w', encoding='ascii') as file:
            file.write('"' + 'x' * 5_000_000 + '"')
        for arguments, result in ((('--data', '{}'), '2'), (('--file', big), '5000002')):
            called = self.faas('invoke', 'over-tls', *arguments)
            self.assertEqual((called.returncode, called.stdout.strip()), (0, result), called.stderr)

    def test_the_link_carries_little_more_than_what_is_said(self):
        size = 4_000_000
        path, big = os.path.join(self.folder, 'main.py'), os.path.join(self.folder, 'big.json')
        with open(path, 'w', encoding='ascii') as file:
            file.write('import sys\nsys.stdout.write(sys.stdin.read())')
        with open(big, 'w', encoding='ascii') as file:
            file.write('"' + 'x' * (size - 2) + '"')
        self.assertEqual(self.faas('deploy', 'echo-tls', path, '--runtime', 'python', '--memory', '256').returncode, 0)
        self.assertEqual(self.faas('invoke', 'echo-tls', '--data', '1').stdout.strip(), '1')
        before = self.platform.link_bytes()
        self.assertEqual(len(self.faas('invoke', 'echo-tls', '--file', big).stdout.strip()), size)
        for after, earlier in zip(self.platform.link_bytes(), before):
            self.assertGreaterEqual(after - earlier, size)
            self.assertLess(after - earlier, size * 1.1)

    def test_an_authority_that_is_not_trusted_is_refused(self):
        for environment in ({'FAAS_CA_FILE': self.other.ca}, {'FAAS_CA_FILE': '/etc/ssl/certs/ca-certificates.crt'}):
            refused = self.faas('list', **environment)
            self.assertEqual(refused.returncode, 7, refused)
            self.assertIn('certificate', refused.stderr.lower())

    def refused_worker(self, name, **settings):
        """What a worker says to whom the controller shows a certificate that it cannot trust; it must not get in."""
        data_dir = os.path.join(self.folder, name)
        environment = self.platform.environment() | {'WORKER_NAME': name, 'WORKER_DATA_DIR': data_dir, 'WORKER_RUNTIME_TYPE': 'simple',
                                                     'WORKER_TOKEN_FILE': os.path.join(self.platform.data_dir, 'worker-token')} | settings
        with subprocess.Popen([os.path.join(BIN, 'faas-worker')], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment) as worker:
            try:
                said = next((line for line in worker.stderr if 'controller cannot be used' in line or 'connected to controller' in line), 'nothing')
            finally:
                worker.terminate()
                worker.stderr.read()
        return said

    def test_a_worker_connects_to_no_controller_whose_certificate_it_cannot_trust(self):
        for number, (ca, words) in enumerate(((self.other.ca, self.other.ca), ('/etc/ssl/certs/ca-certificates.crt', '/etc/ssl/certs/ca-certificates.crt'), ('', 'WORKER_CA_FILE is not set'))):
            said = self.refused_worker(f'stranger-{number}', WORKER_CONTROLLER_URL=self.platform.url, WORKER_CA_FILE=ca)
            self.assertIn('controller cannot be used', said)
            self.assertIn('certificate', said)
            self.assertIn(words, said)
        known = self.faas('workers', '--json')
        self.assertEqual(known.returncode, 0, known.stderr)
        self.assertNotIn('stranger', known.stdout)

    def test_a_certificate_that_has_expired_or_is_for_another_address_is_refused(self):
        for kind, fields, words in (('expired', {'days': -1}, 'expired'), ('elsewhere', {'address': '127.0.0.2'}, '127.0.0.1')):
            authority = Authority(self.folder, kind, **fields)
            data_dir = os.path.join(self.folder, 'controller-' + kind)
            environment = {'PATH': os.environ['PATH'], 'CONTROLLER_TLS_CERT_FILE': authority.cert, 'CONTROLLER_TLS_KEY_FILE': authority.key, 'CONTROLLER_LISTEN': '127.0.0.1:0',
                           'CONTROLLER_DATA_DIR': data_dir}
            with subprocess.Popen([os.path.join(BIN, 'faas-controller')], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment) as controller:
                try:
                    wait_until(lambda: os.path.exists(data_dir + '/controller.url'), 60, 'it listens')
                    with open(data_dir + '/controller.url', encoding='ascii') as file:
                        url = file.read().strip()
                    said = self.refused_worker('refuses-' + kind, WORKER_CONTROLLER_URL=url, WORKER_CA_FILE=authority.ca, WORKER_TOKEN_FILE=data_dir + '/worker-token')
                    refused = self.faas('list', FAAS_URL=url, FAAS_CA_FILE=authority.ca)
                finally:
                    controller.terminate()
            self.assertIn('controller cannot be used', said)
            self.assertIn(words, said)
            self.assertEqual(refused.returncode, 7, refused)
            self.assertIn(words, refused.stderr)

    def test_the_flag_says_which_authority(self):
        self.assertEqual(self.faas('list', '--ca-file', self.own.ca, FAAS_CA_FILE='').returncode, 0)

    def test_old_versions_of_tls_and_plain_http_are_refused(self):
        address = self.platform.url.split('//')[1].split(':')
        context = ssl.create_default_context(cafile=self.own.ca)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
        with self.assertRaises((ssl.SSLError, ConnectionError)), socket.create_connection((address[0], int(address[1]))) as plain:
            context.wrap_socket(plain, server_hostname='127.0.0.1')
        with socket.create_connection((address[0], int(address[1]))) as plain:
            plain.sendall(b'GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n')
            plain.settimeout(60)
            self.assertNotIn(b'200 OK', plain.recv(1000))

    def test_settings_that_cannot_be_are_refused(self):
        for settings, words in (({'CONTROLLER_TLS_KEY_FILE': ''}, 'go together'), ({'CONTROLLER_TLS_KEY_FILE': '/nonexistent'}, '/nonexistent'),
                                ({'CONTROLLER_TLS_KEY_FILE': self.other.key}, 'belong together')):
            environment = {'PATH': os.environ['PATH'], 'CONTROLLER_TLS_CERT_FILE': self.own.cert, 'CONTROLLER_LISTEN': '127.0.0.1:0',
                           'CONTROLLER_DATA_DIR': os.path.join(self.folder, 'data')} | settings
            done = subprocess.run([os.path.join(BIN, 'faas-controller')], capture_output=True, text=True, env=environment, timeout=60, check=False)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(words, done.stderr)


if __name__ == '__main__':
    main()
