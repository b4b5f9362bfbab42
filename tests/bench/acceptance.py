#!/usr/bin/env python3
"""Acceptance of asynchronous invocations at 32 clients, on SQLite and on PostgreSQL, against a bare loop that inserts 32 rows a commit into
one plain table of the same engine, in turn, round by round.

    ./build.sh build && cmake --preset release -G Ninja && ninja -C build/release
    tests/bench/acceptance.py [--rounds N] [--requests N]
"""
import argparse
import json
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import uuid

TOP = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
RELEASE = os.path.join(TOP, "build", "release", "bin")
os.environ.setdefault("FAAS_BIN", RELEASE)
sys.path.insert(0, os.path.join(TOP, "tests", "integration"))
import controller as fixture  # noqa: E402
from postgresql import PostgreSQL  # noqa: E402

CLIENTS = 32
TABLE = "CREATE TABLE bare (id text PRIMARY KEY, function text, status text, payload {})"


def bare_sqlite(count):
    folder = tempfile.mkdtemp(prefix="faas-bench-")
    with sqlite3.connect(folder + "/bare.db", isolation_level=None) as db:
        db.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;" + TABLE.format("blob"))
        ids = [str(uuid.uuid4()) for _ in range(count)]
        started = time.perf_counter()
        for at in range(0, count, CLIENTS):
            db.execute("BEGIN")
            db.executemany("INSERT INTO bare VALUES (?, 'f', 'queued', '{}')", [(id_,) for id_ in ids[at : at + CLIENTS]])
            db.execute("COMMIT")
        seconds = time.perf_counter() - started
    db.close()
    shutil.rmtree(folder)
    return count / seconds


def bare_postgresql(server, count):
    """pgbench, with prepared statements in a pipeline."""
    server.psql("DROP TABLE IF EXISTS bare; " + TABLE.format("bytea"))
    script = os.path.join(server.folder, "bare.sql")
    insert = "INSERT INTO bare VALUES (gen_random_uuid()::text, 'f', 'queued', '{}');\n"
    with open(script, "w", encoding="utf-8") as file:
        file.write("\\startpipeline\nBEGIN;\n" + insert * CLIENTS + "COMMIT;\n\\endpipeline\n")
    shown = subprocess.run([os.path.join(server.bin, "pgbench"), "-n", "-M", "prepared", "-c", "1", "-t", str(count // CLIENTS), "-f", script,
                            "-h", server.folder, "-U", "tester", "postgres"], env=server.client_environment(),
                           capture_output=True, text=True, check=True).stdout  # fmt: skip
    return next(float(line.split()[2]) for line in shown.splitlines() if line.startswith("tps")) * CLIENTS


def accepted(controller, count):
    host, port = controller.url.removeprefix("http://").split(":")
    body = os.path.join(controller.folder, "body")
    with open(body, "w", encoding="utf-8") as file:
        file.write("{}")
    shown = subprocess.run([os.path.join(RELEASE, "bench-load"), host, port, "POST", "/v1/functions/f/invocations?mode=async",
                            "--clients", str(CLIENTS), "--requests", str(count), "--warmup", "200", "--body", body, "--token", controller.token,
                            "--status", "202"], capture_output=True, text=True, check=True).stdout  # fmt: skip
    return json.loads(shown)["rate"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=6000)
    options = parser.parse_args()
    ratios = {"sqlite": [], "postgresql": []}
    with PostgreSQL("fsync=on", "shared_buffers=128MB") as server, fixture.Controller(LOG_LEVEL="info") as on_sqlite, fixture.Controller(
        LOG_LEVEL="info", CONTROLLER_DATABASE_URL=server.create_database("bench")
    ) as on_postgresql:
        engines = (("sqlite", on_sqlite, bare_sqlite), ("postgresql", on_postgresql, lambda count: bare_postgresql(server, count)))
        for _, controller, _ in engines:
            controller.deploy("f")
        for _ in range(options.rounds):
            for name, controller, bare in engines:
                theirs, ours = bare(options.requests), accepted(controller, options.requests)
                ratios[name].append(ours / theirs)
                print(f"{name:11} accepted {ours:8.0f}/s   bare loop {theirs:8.0f}/s   ratio {ours / theirs:.2f}", flush=True)
    for name, found in ratios.items():
        print(f"{name:11} median ratio {statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})")


if __name__ == "__main__":
    main()
