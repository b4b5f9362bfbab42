"""docs/container-testing.md, run as it is written: every ```sh block in order, in one shell that stops at the first failure."""
import os
import re
import subprocess
import tempfile
import unittest

from faas_platform import BIN, TOP, host_state, leftovers, main


class ContainerTestingPage(unittest.TestCase):
    def test_every_procedure_works_and_nothing_is_left(self):
        if os.geteuid() != 0:
            self.skipTest('needs root')
        with open(os.path.join(TOP, 'docs', 'container-testing.md'), encoding='utf-8') as file:
            blocks = re.findall(r'^```sh\n(.*?)^```', file.read(), re.S | re.M)
        self.assertGreater(len(blocks), 8)
        before = host_state()
        # A shell of its own session, so that `kill %1` and `wait %1` mean what they mean at a prompt.
        script = 'set -e -o pipefail\nset -m\ntrap "kill %1 2>/dev/null || true" EXIT\n' + '\n'.join(blocks)
        with tempfile.TemporaryDirectory(prefix='faas-docs-') as folder:
            os.chmod(folder, 0o711)
            environment = {name: value for name, value in os.environ.items() if not name.startswith(('FAAS_', 'CONTROLLER_'))}
            environment |= {'TMPDIR': folder, 'WORKER_NAME': f'docs-{os.getpid()}', 'PATH': BIN + ':' + os.environ['PATH']}
            result = subprocess.run(['bash', '-c', script], cwd=TOP, env=environment, stdin=subprocess.DEVNULL, capture_output=True,
                                    text=True, timeout=600, start_new_session=True)
        self.assertEqual(result.returncode, 0, f'{result.stdout[-6000:]}\n{result.stderr[-6000:]}')
        for expected in ('"CapEff":"0000000000000000"', '"NoNewPrivs":"1"', '"Seccomp":"2"', '"uid":1000',
                         'as expected: out_of_memory', 'as expected: timed_out', 'as expected: the result is too large',
                         '"/etc/x":"Read-only file system"', '"/tmp/x":"written"', 'Hello, by hand!'):
            self.assertIn(expected, result.stdout)
        self.assertEqual(leftovers(before, f'docs-{os.getpid()}'), [])


if __name__ == '__main__':
    main()
