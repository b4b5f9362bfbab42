"""Images as umoci and skopeo make them, brought into the store by `faas image import` in every format: the root file
system must be what umoci itself unpacks, however it came. No registry, nothing but local files."""
import gzip
import hashlib
import json
import os
import shutil
import stat
import subprocess
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.environ.get("FAAS_BIN", os.path.join(ROOT, "build", "bin"))
# What the store adds so that workers can mount there.
MOUNT_POINTS = {"proc", "dev", "tmp", "run", "run/faas", "app", "app/function", ".faas", "etc", "etc/resolv.conf"}


def run(*command):
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        raise AssertionError(f"{command}: {done.stderr.decode()}")
    return done.stdout


def skopeo_copy(source, target):
    run("skopeo", "--insecure-policy", "copy", "--quiet", source, target)


def write(path, text, mode=0o644):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(path, mode)


def tree(root):
    """path -> (type, mode, content or target) of everything below, as the store should have it."""
    found = {}
    for folder, folders, files in os.walk(root):
        for name in folders + files:
            path = os.path.join(folder, name)
            status = os.lstat(path)
            if stat.S_ISLNK(status.st_mode):
                entry = ("link", 0, os.readlink(path))
            elif stat.S_ISDIR(status.st_mode):
                entry = ("folder", 0o755, None)
            else:
                with open(path, "rb") as file:
                    entry = ("file", status.st_mode & 0o755, hashlib.sha256(file.read()).hexdigest())
            found[os.path.relpath(path, root)] = entry
    return found


class ImageFormats(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="faas-test-formats-")
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        cls.layout = os.path.join(cls.folder, "layout")
        run("umoci", "init", "--layout", cls.layout)
        run("umoci", "new", "--image", cls.layout + ":base")
        cls.change("base", "base", cls.make_base)
        run("umoci", "config", "--image", cls.layout + ":base", "--config.env", "GREETING=hello world", "--config.env", "EMPTY=",
            "--config.entrypoint", "/bin/tool", "--config.cmd", "serve", "--config.user", "1000:1000", "--config.workingdir", "/srv")
        cls.change("base", "top", cls.make_top)
        cls.insert_opaque()
        cls.expected = {name: cls.unpacked(name) for name in ("base", "top", "opaque")}

    @classmethod
    def bundle(cls, tag):
        path = os.path.join(cls.folder, "bundle")
        shutil.rmtree(path, ignore_errors=True)
        run("umoci", "unpack", "--image", f"{cls.layout}:{tag}", path)
        return path

    @classmethod
    def change(cls, tag, new_tag, edit):
        bundle = cls.bundle(tag)
        edit(os.path.join(bundle, "rootfs"))
        run("umoci", "repack", "--image", f"{cls.layout}:{new_tag}", bundle)

    @classmethod
    def unpacked(cls, tag):
        return tree(os.path.join(cls.bundle(tag), "rootfs"))

    @staticmethod
    def make_base(rootfs):
        write(rootfs + "/bin/tool", "#!/bin/sh\n", 0o4755)
        os.link(rootfs + "/bin/tool", rootfs + "/bin/tool-again")
        write(rootfs + "/etc/passwd", "root:x:0:0::/:/bin/sh\n")
        write(rootfs + "/etc/shadow", "root:*:::::::\n", 0o600)
        write(rootfs + "/usr/lib/gone/deep/file", "gone")
        write(rootfs + "/usr/lib/kept", "kept" * 100000)
        write(rootfs + "/srv/data/one", "1")
        write(rootfs + "/srv/data/two", "2")
        write(rootfs + "/usr/share/caf\u00e9/e\u0301", "accents")
        write(rootfs + "/usr/share/" + "long" * 50, "a long name")
        os.symlink("usr/lib", rootfs + "/lib")
        os.symlink("/usr/share", rootfs + "/share")

    @staticmethod
    def make_top(rootfs):
        write(rootfs + "/bin/tool", "#!/bin/sh\necho new\n", 0o755)
        shutil.rmtree(rootfs + "/usr/lib/gone")
        os.unlink(rootfs + "/srv/data/one")
        os.unlink(rootfs + "/share")
        write(rootfs + "/share/now", "a folder")
        shutil.rmtree(rootfs + "/usr/share")
        write(rootfs + "/usr/share", "now a file")

    @classmethod
    def insert_opaque(cls):
        source = os.path.join(cls.folder, "insert")
        write(source + "/only", "only")
        run("umoci", "tag", "--image", cls.layout + ":top", "opaque")
        run("umoci", "insert", "--image", cls.layout + ":opaque", "--opaque", source, "/srv/data")

    def setUp(self):
        self.store = tempfile.mkdtemp(prefix="store-", dir=self.folder)

    def faas(self, *arguments):
        return subprocess.run([os.path.join(BIN, "faas"), "image", *arguments, "--image-dir", self.store, "--json"],
                              capture_output=True, check=False, env={"PATH": os.environ["PATH"]})

    def bring_in(self, name, path, *options):
        done = self.faas("import", name, path, *options)
        self.assertEqual(done.returncode, 0, done.stderr.decode() + done.stdout.decode())
        return json.loads(done.stdout)

    def assert_same_tree(self, image, tag):
        have = tree(image["rootfs"])
        expected = self.expected[tag]
        for path in MOUNT_POINTS - set(expected):
            self.assertIn(path, have)
            del have[path]
        self.assertEqual(have, expected)

    def converted(self, tag, transport, suffix=""):
        path = os.path.join(self.folder, f"{transport}-{tag}.tar")
        if not os.path.exists(path):
            skopeo_copy(f"oci:{self.layout}:{tag}", f"{transport}:{path}{suffix}")
        return path

    def test_layout_folder(self):
        for tag in self.expected:
            self.assert_same_tree(self.bring_in("from-umoci", self.layout, "--reference", tag), tag)

    def test_the_name_chooses_the_tag(self):
        self.assert_same_tree(self.bring_in("from-umoci:top", self.layout), "top")
        done = self.faas("import", "from-umoci", self.layout)
        self.assertNotEqual(done.returncode, 0)
        for tag in self.expected:
            self.assertIn(tag, (done.stderr + done.stdout).decode())

    def test_oci_archive(self):
        for tag in self.expected:
            self.assert_same_tree(self.bring_in("oci", self.converted(tag, "oci-archive", ":it")), tag)

    def test_docker_archive(self):
        for tag in self.expected:
            self.assert_same_tree(self.bring_in("docker", self.converted(tag, "docker-archive", f":it:{tag}")), tag)

    def test_packed_archives(self):
        for transport, suffix in (("oci-archive", ":it"), ("docker-archive", ":it:top")):
            path = self.converted("top", transport, suffix)
            run("gzip", "--keep", "--force", path)
            self.assert_same_tree(self.bring_in("packed", path + ".gz"), "top")

    def test_zstd_layers(self):
        """The layers of an image packed anew: skopeo has no zstd for layers that are packed already."""
        layout = os.path.join(self.folder, "zstd")
        blobs = os.path.join(layout, "blobs", "sha256")
        os.makedirs(blobs)

        def blob(content):
            digest = hashlib.sha256(content).hexdigest()
            with open(os.path.join(blobs, digest), "wb") as file:
                file.write(content)
            return {"digest": "sha256:" + digest, "size": len(content)}

        def original(descriptor):
            with open(os.path.join(self.layout, "blobs", *descriptor["digest"].split(":")), "rb") as file:
                return file.read()

        with open(self.layout + "/index.json", "rb") as file:
            entry = next(entry for entry in json.load(file)["manifests"]
                         if entry["annotations"]["org.opencontainers.image.ref.name"] == "top")
        manifest = json.loads(original(entry))
        blob(original(manifest["config"]))
        for layer in manifest["layers"]:
            packed = subprocess.run(["zstd", "--stdout", "--quiet"], input=gzip.decompress(original(layer)), capture_output=True, check=True)
            layer.update(blob(packed.stdout), mediaType="application/vnd.oci.image.layer.v1.tar+zstd")
        write(layout + "/oci-layout", '{"imageLayoutVersion":"1.0.0"}')
        write(layout + "/index.json", json.dumps({"schemaVersion": 2, "manifests": [blob(json.dumps(manifest).encode())]}))
        self.assert_same_tree(self.bring_in("zstd", layout), "top")

    def test_exported_root_file_system(self):
        bundle = self.bundle("top")
        path = os.path.join(self.folder, "rootfs.tar")
        run("tar", "--create", "--numeric-owner", "--file", path, "--directory", os.path.join(bundle, "rootfs"), ".")
        self.assert_same_tree(self.bring_in("exported", path), "top")
        self.assert_same_tree(self.bring_in("folder", os.path.join(bundle, "rootfs")), "top")

    def test_every_way_leads_to_the_same_root_file_system(self):
        images = [self.bring_in("a", self.layout, "--reference", "top"),
                  self.bring_in("b", self.converted("top", "oci-archive", ":it")),
                  self.bring_in("c", self.converted("top", "docker-archive", ":it:top"))]
        self.assertEqual(len({image["digest"] for image in images}), 1)
        self.assertEqual(len({image["rootfs"] for image in images}), 1)

    def test_images_share_layers_and_leave_nothing(self):
        base = self.bring_in("base", self.layout, "--reference", "base")
        top = self.bring_in("top", self.layout, "--reference", "top")
        self.assertTrue(os.path.samefile(base["rootfs"] + "/usr/lib/kept", top["rootfs"] + "/usr/lib/kept"))
        self.assert_same_tree(base, "base")
        self.assertEqual(self.faas("rm", "top").returncode, 0)
        self.assert_same_tree(base, "base")
        self.assertEqual(self.faas("rm", "base").returncode, 0)
        for folder in ("chains", "blobs/sha256", "tmp"):
            self.assertEqual(os.listdir(os.path.join(self.store, folder)), [])

    def test_a_flipped_byte_is_noticed(self):
        damaged = os.path.join(self.folder, "damaged")
        shutil.copytree(self.layout, damaged)
        blobs = os.path.join(damaged, "blobs", "sha256")
        biggest = max((os.path.join(blobs, name) for name in os.listdir(blobs)), key=os.path.getsize)
        with open(biggest, "r+b") as file:
            file.seek(os.path.getsize(biggest) // 2)
            byte = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte[0] ^ 1]))
        done = self.faas("import", "damaged", damaged, "--reference", "base")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("damaged", (done.stderr + done.stdout).decode())
        self.assertEqual(os.listdir(os.path.join(self.store, "chains")), [])


if __name__ == "__main__":
    unittest.main()
