"""The store in an SQLite file, and what can happen to a file: killed writers, damage, a full disk.
All is real."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time

import pytest

from slee_mock.server import BATCH
from slee_mock.store.interface import ConditionalWrite, Row, StoreDown
from slee_mock.store.sqlite_store import SqliteStore

HELLO = 60.0  # seconds a process may take on a busy computer

WRITER = """
import os, sys
from slee_mock.store.sqlite_store import SqliteStore
from slee_mock.store.interface import ConditionalWrite, Conflict
store, name = SqliteStore(sys.argv[1], 10.0), sys.argv[2]
for number in range(1_000_000):
    while True:
        seen = store.get("shared", "all")
        try:
            store.save([ConditionalWrite("call", f"{name}-{number}", "x" * 900, 0),
                        ConditionalWrite("shared", "all", str(int(seen.text) + 1), seen.version)])
            break
        except Conflict:
            continue
    os.write(1, f"{name}-{number}\\n".encode())
"""


@pytest.mark.long
def test_every_acknowledged_save_survives_kill_9_at_any_instant_under_several_writers(tmp_path):
    path, dice, acknowledged = str(tmp_path / "cluster.db"), random.Random(1), set()
    with contextlib.closing(SqliteStore(path)) as store:
        store.save([ConditionalWrite("shared", "all", "0", 0)])
    for round_ in range(12):
        names = [f"w{round_}.{number}" for number in range(3)]
        writers = [
            subprocess.Popen(
                [sys.executable, "-S", "-c", WRITER, path, name], stdout=subprocess.PIPE
            )
            for name in names
        ]
        for writer in writers:  # they die one after the other, while the rest go on
            for _ in range(dice.randint(1, 120)):
                acknowledged.add(writer.stdout.readline().decode().strip())
            writer.kill()
            acknowledged |= set(writer.stdout.read().decode().split())
            writer.wait(HELLO)
            writer.stdout.close()
        # no lock of a dead one stays, nothing is half saved
        with contextlib.closing(SqliteStore(path)) as survivor:
            kept = {key for _, key, _ in survivor.walk("call")}
            assert acknowledged <= kept
            assert survivor.get("shared", "all").text == str(len(kept))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert len(acknowledged) > 500


def filled(path, rows=200):
    store = SqliteStore(str(path))
    for number in range(rows):
        store.save([ConditionalWrite("call", f"c{number}", "x" * 900, 0)])
    return store


def damage(path):
    """Nonsense over the middle of the file, as a dying disk or another program writes it."""
    size = os.path.getsize(path)
    with open(path, "r+b") as file:
        file.seek(size // 3)
        file.write(os.urandom(size // 3))


def test_a_damaged_file_is_refused_at_the_start(tmp_path):
    path = tmp_path / "cluster.db"
    filled(path).close()
    damage(path)
    with pytest.raises(
        StoreDown, match=r"cluster.db is damaged \(.*malformed.*\): restore it from a backup"
    ):
        SqliteStore(str(path))


def test_damage_that_happens_in_operation_is_a_sentence_at_the_first_row_it_hits(tmp_path):
    path = tmp_path / "cluster.db"
    rows = 4000  # more than SQLite keeps in memory
    filled(path, rows).close()
    with contextlib.closing(SqliteStore(str(path))) as store:
        damage(path)
        with pytest.raises(StoreDown, match=r"cluster.db is damaged .*: restore it from a backup"):
            for number in range(rows):
                store.get("call", f"c{number}")


FULL = """
import json, os, sys
from slee_mock.store.sqlite_store import SqliteStore
from slee_mock.store.interface import ConditionalWrite, StoreDown
folder = sys.argv[1]
path = os.path.join(folder, "cluster.db")
store, told = SqliteStore(path), {}
store.save([ConditionalWrite("call", "before", "x", 0)])
saved = ["before"]
with open(os.path.join(folder, "ballast"), "wb") as ballast:
    try:
        while True:
            ballast.write(bytes(65_536))
            ballast.flush()
    except OSError:
        pass
while "full" not in told:
    try:
        store.save([ConditionalWrite("call", f"c{len(saved)}", "x" * 900, 0)])
        saved.append(f"c{len(saved)}")
    except StoreDown as error:
        told["full"] = str(error)
try:
    SqliteStore(os.path.join(folder, "another.db"))
except StoreDown as error:
    told["new"] = str(error)
other = SqliteStore(path)
told["lost"] = [key for key in saved if not store.get("call", key) or not other.get("call", key)]
os.remove(os.path.join(folder, "ballast"))
for each in (store, other):
    each.save([ConditionalWrite("call", f"after{len(saved)}", "x" * 900, 0)])
    saved.append(f"after{len(saved)}")
told["lost"] += [key for key in saved if not store.get("call", key)]
store.close()
other.close()
import sqlite3
told["check"] = sqlite3.connect(path).execute("PRAGMA integrity_check").fetchone()[0]
print(json.dumps(told))
"""


def test_a_full_disk_is_told_loses_nothing_and_is_no_trouble_any_more_once_there_is_room(tmp_path):
    """A disk of its own, of one megabyte, in a mount namespace that goes with the process."""
    if not shutil.which("unshare"):
        pytest.skip("unshare is not here (apt install util-linux)")
    mount = f'mount -t tmpfs -o size=1m tmpfs "{tmp_path}" || exit 77; exec "$@"'
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    argv = [
        "unshare",
        "--mount",
        *user,
        "sh",
        "-c",
        mount,
        "sh",
        sys.executable,
        "-S",
        "-c",
        FULL,
        str(tmp_path),
    ]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=HELLO, check=False)
    if done.returncode == 77 or "unshare failed" in done.stderr:
        pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (
        told["full"]
        == f"cannot write to the store {tmp_path}/cluster.db: the disk is full; make room"
    )
    assert told["new"].endswith("the disk is full; make room")
    assert told["lost"] == [] and told["check"] == "ok"


def test_a_lock_holds_a_whole_turn_of_datagrams_up_for_less_than_heartbeats_may_wait(tmp_path):
    """A server that is silent for 0.145 s is taken for dead."""
    path, waited = str(tmp_path / "cluster.db"), []
    with contextlib.closing(SqliteStore(path)) as store:
        for number in range(5):
            store.save([ConditionalWrite("call", f"c{number}", "x", 0)])
            with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                began = time.monotonic()
                for _ in range(1 + BATCH):  # all together, then one by one
                    with pytest.raises(StoreDown, match="is locked by another program"):
                        store.save([ConditionalWrite("call", "d", "x", 0)])
                waited.append(time.monotonic() - began)
                other.execute("ROLLBACK")
    assert min(waited) < 0.12, waited  # the least: this computer may be busy


def test_a_writer_that_is_frozen_with_the_lock_in_its_hand_holds_the_others_up_until_it_goes_on(
    tmp_path, eventually
):
    path = str(tmp_path / "cluster.db")
    script = (
        "import sqlite3, sys, os\n"
        "connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "connection.execute('BEGIN IMMEDIATE'); os.write(1, b'locked\\n'); sys.stdin.read()\n"
        "connection.execute('ROLLBACK'); os.write(1, b'free\\n')"
    )
    with contextlib.closing(SqliteStore(path, 0.05)) as store:
        store.save([ConditionalWrite("call", "c1", "x", 0)])
        holder = subprocess.Popen(
            [sys.executable, "-S", "-c", script, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            assert holder.stdout.readline() == b"locked\n"
            holder.send_signal(signal.SIGSTOP)
            for _ in range(50):
                with pytest.raises(
                    StoreDown, match="is locked by another program; end that one, or wait for it"
                ):
                    store.save([ConditionalWrite("call", "c1", "y", 1)])
            assert store.get("call", "c1") == Row("x", 1), "reading goes on"
            holder.send_signal(signal.SIGCONT)
            holder.stdin.close()
            assert holder.stdout.readline() == b"free\n"
            store.save([ConditionalWrite("call", "c1", "y", 1)])
        finally:
            holder.kill()
            holder.wait(HELLO)
            holder.stdout.close()
