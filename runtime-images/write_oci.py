"""Writes a root file system as an OCI image layout in a tar archive: one gzip layer, the same bytes for the same files.

Usage: write_oci.py ROOTFS ARCHIVE NAME CONFIG-JSON     (SOURCE_DATE_EPOCH is the time that all files get)
"""
import gzip
import hashlib
import io
import json
import os
import platform
import sys
import tarfile
import tempfile
from datetime import datetime, timezone

ARCHITECTURES = {'x86_64': 'amd64', 'aarch64': 'arm64', 'riscv64': 'riscv64', 'ppc64le': 'ppc64le', 's390x': 's390x'}


class Digest:
    """A writer that passes on what it gets, and knows its SHA-256 and size."""

    def __init__(self, target):
        self.target, self.hash, self.size = target, hashlib.sha256(), 0

    def write(self, data):
        self.hash.update(data)
        self.size += len(data)
        return self.target.write(data)

    def flush(self):
        self.target.flush()

    def __str__(self):
        return 'sha256:' + self.hash.hexdigest()


def write_layer(rootfs, target, epoch):
    """Returns the digest of the uncompressed layer and of what was written."""
    def normal(entry):
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ''
        entry.mtime = epoch
        if not (entry.isreg() or entry.isdir() or entry.issym() or entry.islnk()):
            raise SystemExit(f'{entry.name}: neither file, folder nor link; it does not belong in an image')
        return entry

    packed = Digest(target)
    with gzip.GzipFile(filename='', mode='wb', compresslevel=6, fileobj=packed, mtime=0) as compressed:
        plain = Digest(compressed)
        with tarfile.open(fileobj=plain, mode='w|', format=tarfile.PAX_FORMAT) as layer:
            # add() goes through folders in sorted order.
            for name in sorted(os.listdir(rootfs)):
                layer.add(os.path.join(rootfs, name), arcname=name, filter=normal)
    return plain, packed


def add_bytes(archive, name, data, epoch):
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime, entry.mode = len(data), epoch, 0o644
    archive.addfile(entry, io.BytesIO(data))


def add_blob(archive, data, epoch):
    digest = hashlib.sha256(data).hexdigest()
    add_bytes(archive, 'blobs/sha256/' + digest, data, epoch)
    return 'sha256:' + digest


def write_image(rootfs, path, name, config):
    epoch = int(os.environ['SOURCE_DATE_EPOCH'])
    created = datetime.fromtimestamp(epoch, timezone.utc).strftime('%Y-%m-%dT%H:%M:%SZ')
    with tempfile.TemporaryFile(dir=os.path.dirname(path)) as layer_file:
        plain, packed = write_layer(rootfs, layer_file, epoch)
        layer_file.seek(0)
        image = {
            'created': created, 'architecture': ARCHITECTURES[platform.machine()], 'os': 'linux', 'config': config,
            'rootfs': {'type': 'layers', 'diff_ids': [str(plain)]},
            'history': [{'created': created, 'created_by': 'runtime-images/build.sh'}],
        }
        with tarfile.open(path, 'w', format=tarfile.PAX_FORMAT) as archive:
            add_bytes(archive, 'oci-layout', b'{"imageLayoutVersion":"1.0.0"}', epoch)
            entry = tarfile.TarInfo('blobs/sha256/' + packed.hash.hexdigest())
            entry.size, entry.mtime, entry.mode = packed.size, epoch, 0o644
            archive.addfile(entry, layer_file)
            image_bytes = json.dumps(image).encode()
            manifest = {
                'schemaVersion': 2, 'mediaType': 'application/vnd.oci.image.manifest.v1+json',
                'config': {'mediaType': 'application/vnd.oci.image.config.v1+json',
                           'digest': add_blob(archive, image_bytes, epoch), 'size': len(image_bytes)},
                'layers': [{'mediaType': 'application/vnd.oci.image.layer.v1.tar+gzip', 'digest': str(packed), 'size': packed.size}],
            }
            manifest_bytes = json.dumps(manifest).encode()
            index = {
                'schemaVersion': 2, 'mediaType': 'application/vnd.oci.image.index.v1+json',
                'manifests': [{'mediaType': manifest['mediaType'], 'digest': add_blob(archive, manifest_bytes, epoch),
                               'size': len(manifest_bytes),
                               'annotations': {'org.opencontainers.image.ref.name': 'latest', 'io.containerd.image.name': name}}],
            }
            add_bytes(archive, 'index.json', json.dumps(index).encode(), epoch)


if __name__ == '__main__':
    if len(sys.argv) != 5:
        raise SystemExit(__doc__)
    write_image(sys.argv[1], sys.argv[2], sys.argv[3], json.loads(sys.argv[4]))
