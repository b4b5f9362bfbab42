"""A private PostgreSQL server: a fresh cluster in a temporary folder, reached by a unix socket unless asked otherwise, run as the user
postgres (it refuses root), ended with this process however that ends.

    with PostgreSQL() as server:
        Controller(CONTROLLER_DATABASE_URL=server.url())
"""
import contextlib
import ctypes
import glob
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time

PASSWORD = "s3cret-p4ssword"
PR_SET_PDEATHSIG = 1
START_S = 60


class PostgreSQL:
    def __init__(self, *options):
        found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"))
        assert found, "PostgreSQL's server programs are not installed (Debian: postgresql)"
        self.bin = os.path.dirname(found[-1])
        self.user = pwd.getpwnam("postgres")
        self.options = options
        self.process = None

    def __enter__(self):
        self.folder = tempfile.mkdtemp(prefix="faas-test-postgresql-")
        os.chown(self.folder, self.user.pw_uid, self.user.pw_gid)
        password = os.path.join(self.folder, "password")
        with open(password, "w", encoding="utf-8") as file:
            file.write(PASSWORD + "\n")
        self.run("initdb", "-D", self.folder + "/data", "-U", "tester", "--auth=scram-sha-256", "--pwfile=" + password, "--no-sync",
                 "--encoding=UTF8", "--locale=C.UTF-8").wait()  # fmt: skip
        self.start()
        return self

    def __exit__(self, *_):
        if self.process:
            self.stop()
        shutil.rmtree(self.folder)

    def become_server_user(self):
        if os.geteuid() == 0:
            os.setgid(self.user.pw_gid)
            os.setuid(self.user.pw_uid)
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGQUIT)

    def run(self, program, *arguments):
        with open(self.folder + "/log", "ab") as log:
            return subprocess.Popen([os.path.join(self.bin, program), *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                    cwd=self.folder, env={"PATH": os.environ["PATH"]}, preexec_fn=self.become_server_user)  # fmt: skip

    def start(self):
        settings = ("listen_addresses=", "fsync=off", "shared_buffers=16MB", "max_connections=20", *self.options)
        self.process = self.run("postgres", "-D", self.folder + "/data", "-k", self.folder,
                                *[word for setting in settings for word in ("-c", setting)])  # fmt: skip
        deadline = time.monotonic() + START_S
        while self.psql("SELECT 1", check=False).returncode != 0:
            assert self.process.poll() is None and time.monotonic() < deadline, "the server does not start"
            time.sleep(0.02)

    def stop(self, signal_number=signal.SIGQUIT):
        self.process.send_signal(signal_number)
        self.process.wait()
        self.process = None

    def kill(self):
        """The postmaster and every process of it at once, as when the machine goes down."""
        pids = [self.process.pid] + [int(pid) for pid in self.children()]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self.process = None
        for pid in pids[1:]:  # orphans: not ours to reap, and they hold the shared memory that the next start wants
            while os.path.exists(f"/proc/{pid}"):
                time.sleep(0.01)

    def pause(self):
        """Every process of it; returns a call that lets them go on."""
        pids = [self.process.pid] + [int(pid) for pid in self.children()]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)

        def resume():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
        return resume

    def children(self):
        with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children", encoding="ascii") as file:
            return file.read().split()

    def psql(self, sql, database="postgres", check=True):
        return subprocess.run([os.path.join(self.bin, "psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", self.folder, "-U", "tester", "-d", database,
                               "-c", sql], env=self.client_environment(), capture_output=True, text=True, check=check)  # fmt: skip

    @staticmethod
    def client_environment():
        return {"PATH": os.environ["PATH"], "PGPASSWORD": PASSWORD}

    def create_database(self, name):
        self.psql(f"CREATE DATABASE {name}")
        return self.url(name)

    def tcp_url(self, address, port, database="postgres"):
        """For a server with listen_addresses."""
        return f"postgresql://tester:{PASSWORD}@{address}:{port}/{database}"

    def url(self, database="postgres"):
        return f"postgresql://tester:{PASSWORD}@/{database}?host={self.folder}"
