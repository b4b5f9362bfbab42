"""Images made elsewhere, by skopeo and umoci, in each form that the store takes: imported, and functions run in them."""
import glob
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile

from faas_platform import BIN, TOP, PlatformTest, main

NATIVE = os.path.join(TOP, 'build', 'images', 'faas-runtime-native.tar')
PRINT = '#!/bin/sh\nprintf \'{"greeting": "%s", "variable": "%s", "removed": %s}\' "$(cat /greeting)" "$FROM_IMAGE" "$(test -e /bin/wget && echo false || echo true)"\n'


class Images(PlatformTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.folder = tempfile.mkdtemp(prefix='e2e-images-')
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        cls.layout = os.path.join(cls.folder, 'layout')
        cls.command('skopeo', '--insecure-policy', 'copy', f'oci-archive:{NATIVE}', f'oci:{cls.layout}:base')
        cls.change_with_umoci()

    @classmethod
    def change_with_umoci(cls):
        """A second layer on the native image: a new file, a removed one, an environment variable."""
        image, bundle = cls.layout + ':base', os.path.join(cls.folder, 'bundle')
        cls.command('umoci', 'unpack', '--image', image, bundle)
        with open(os.path.join(bundle, 'rootfs', 'greeting'), 'w', encoding='utf-8') as file:
            file.write('from a second layer')
        os.remove(os.path.join(bundle, 'rootfs', 'usr', 'bin', 'wget'))
        cls.command('umoci', 'repack', '--image', cls.layout + ':changed', bundle)
        cls.command('umoci', 'config', '--image', cls.layout + ':changed', '--config.env', 'FROM_IMAGE=yes')
        cls.rootfs = os.path.join(bundle, 'rootfs')

    @staticmethod
    def command(*command):
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode:
            raise AssertionError(f'{command}: {done.stderr.decode()}')

    def import_and_run(self, name, source, variable, *options):
        image = f'e2e-{name}:latest'
        done = self.platform.faas('image', 'import', image, source, *options)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.addCleanup(self.platform.faas, 'image', 'rm', image)
        self.deploy(name, native=PRINT, image=image)
        self.assertSucceeded(self.invoke(name), {'greeting': 'from a second layer', 'variable': variable, 'removed': True})

    def test_oci_layout_folder(self):
        self.import_and_run('layout', self.layout, 'yes', '--reference', 'changed')

    def test_oci_archive(self):
        path = os.path.join(self.folder, 'image.oci.tar')
        self.command('skopeo', '--insecure-policy', 'copy', f'oci:{self.layout}:changed', f'oci-archive:{path}:it')
        self.import_and_run('oci-archive', path, 'yes')

    def test_docker_save_archive(self):
        path = os.path.join(self.folder, 'image.docker.tar')
        self.command('skopeo', '--insecure-policy', 'copy', f'oci:{self.layout}:changed', f'docker-archive:{path}:it:latest')
        self.import_and_run('docker-archive', path, 'yes')

    def test_zstd_layers(self):
        path = os.path.join(self.folder, 'zstd')
        self.command('skopeo', '--insecure-policy', 'copy', '--dest-compress-format', 'zstd', '--dest-compress', f'oci:{self.layout}:changed', f'dir:{path}')
        blobs = [p for p in glob.glob(path + '/*') if open(p, 'rb').read(4) == b'\x28\xb5\x2f\xfd']
        if not blobs:
            self.skipTest('this skopeo did not compress with zstd')
        layout = os.path.join(self.folder, 'zstd-layout')
        self.command('skopeo', '--insecure-policy', 'copy', f'dir:{path}', f'oci:{layout}:it')
        self.import_and_run('zstd', layout, 'yes')

    def test_exported_root_file_system(self):
        path = os.path.join(self.folder, 'export.tar')
        with tarfile.open(path, 'w') as tar:
            tar.add(self.rootfs, arcname='.')
        self.import_and_run('export', path, '')

    def test_bad_files_are_refused_with_the_reason(self):
        cases = {'nothing': b'', 'text': b'hello', 'half': open(NATIVE, 'rb').read()[:500_000]}
        for name, data in cases.items():
            path = os.path.join(self.folder, name)
            with open(path, 'wb') as file:
                file.write(data)
            with self.subTest(name):
                done = self.platform.faas('image', 'import', 'e2e-bad:latest', path)
                self.assertNotEqual(done.returncode, 0)
                self.assertTrue(done.stderr)
        self.assertNotIn(b'e2e-bad', self.platform.faas('image', 'list').stdout)

    def test_a_damaged_layer_is_refused(self):
        copy = os.path.join(self.folder, 'tampered')
        shutil.copytree(self.layout, copy)

        def blob(digest):
            return os.path.join(copy, 'blobs', *digest.split(':'))
        with open(os.path.join(copy, 'index.json'), encoding='utf-8') as file:
            manifests = {m['annotations']['org.opencontainers.image.ref.name']: m['digest'] for m in json.load(file)['manifests']}
        with open(blob(manifests['changed']), encoding='utf-8') as file:
            layer = json.load(file)['layers'][-1]['digest']
        with open(blob(layer), 'r+b') as file:
            file.seek(30)
            file.write(b'\0\1\2\3')
        done = self.platform.faas('image', 'import', 'e2e-bad:latest', copy, '--reference', 'changed')
        self.addCleanup(self.platform.faas, 'image', 'rm', 'e2e-bad:latest')
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(b'layer 2 of 2', done.stderr)

    def test_hostile_layers_write_nothing_outside(self):
        for name, entries in {'up': [('../../../../tmp/e2e-hostile', None)], 'absolute': [('/tmp/e2e-hostile', None)],
                              'link': [('d', '/tmp'), ('d/e2e-hostile', None)]}.items():
            path = os.path.join(self.folder, f'hostile-{name}.tar')
            with tarfile.open(path, 'w') as tar:
                for member, target in entries:
                    info = tarfile.TarInfo(member)
                    if target:
                        info.type, info.linkname = tarfile.SYMTYPE, target
                        tar.addfile(info)
                    else:
                        info.size = 1
                        tar.addfile(info, io.BytesIO(b'x'))
            with self.subTest(name):
                self.platform.faas('image', 'import', 'e2e-hostile:latest', path)
                self.addCleanup(self.platform.faas, 'image', 'rm', 'e2e-hostile:latest')
                self.assertFalse(os.path.exists('/tmp/e2e-hostile'))

    def test_runtime_images_are_small_and_readable(self):
        listed = [json.loads(line) for line in subprocess.run([os.path.join(BIN, 'faas'), 'image', 'list', '--json'], capture_output=True, check=True,
                                                              env=self.platform.environment()).stdout.splitlines()]
        sizes = {image['name']: image for image in listed}
        python = sizes['faas-runtime-python:latest']
        used = sum(os.lstat(os.path.join(root, name)).st_size for root, _, names in os.walk(python['rootfs']) for name in names)
        self.assertLess(used, 60 * 1000 * 1000)
        for root, folders, files in os.walk(python['rootfs']):
            for entry in folders + files:
                mode = os.lstat(os.path.join(root, entry)).st_mode
                self.assertEqual(mode & 0o6000, 0, entry)
                self.assertTrue(mode & 0o004, entry)


if __name__ == '__main__':
    main()
