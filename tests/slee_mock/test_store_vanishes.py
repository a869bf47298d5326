"""The store's files are removed, replaced or cut short under living servers: nothing is
acknowledged that nobody can read any more, no server begins an empty store beside the others, and
all go on by themselves where that is safe."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time

import pytest
from process_kit import FORWARDER, RunningProgram
from program_kit import HELLO
from slee_kit import DictStore, answer, in_dialog, invite, phone_request, register

from sip.message import Request, parse
from slee_mock.cluster.cluster_key import KeyedStore, join_cluster
from slee_mock.store.interface import ConditionalWrite, Conflict, Row, StoreDown, Transaction
from slee_mock.store.records import ClusterKey, Member
from slee_mock.store.sqlite_files import StoreFiles
from slee_mock.store.sqlite_store import SqliteStore

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="Windows lets nobody remove an open file"
)
SUFFIXES = ("", "-wal", "-shm")


@pytest.fixture
def path(tmp_path):
    folder = tmp_path / "kept"
    folder.mkdir()
    return folder / "cluster.db"


@pytest.fixture
def connect(path):
    """connect() -> one more server's connection to the store."""
    with contextlib.ExitStack() as stack:
        yield lambda **how: stack.enter_context(contextlib.closing(SqliteStore(str(path), **how)))


def files(path):
    return [path.with_name(path.name + suffix) for suffix in SUFFIXES]


def remove(path):
    """rm cluster.db*"""
    for each in path.parent.glob(f"{path.name}*"):
        each.unlink()


def saves(store, key):
    """A condition to wait for."""
    try:
        store.save([ConditionalWrite("call", key, "x", 0)])
    except StoreDown:
        return False
    return True


def keys(store, kind="call"):
    return sorted(key for _, key, _ in store.walk(kind))


# -- one connection, or two ------------------------------------------------------------------------


def test_nothing_is_acknowledged_once_the_store_was_removed(path, connect):
    store = connect()
    store.save([ConditionalWrite("call", "c1", "x", 0)])
    remove(path)
    for key in ("c2", "c3"):
        with pytest.raises(
            StoreDown, match=r"cluster\.db is gone: put the same file back, or end all servers"
        ):
            store.save([ConditionalWrite("call", key, "x", 0)])
    with pytest.raises(StoreDown, match="is gone"):
        store.get("call", "c1")
    assert not path.exists(), "nobody makes another one"


@pytest.mark.parametrize("what", ["the files", "the folder"])
def test_who_moves_it_away_and_back_finds_it_as_it_was(path, connect, what):
    store, other = connect(), connect()
    store.save([ConditionalWrite("call", "c1", "x", 0)])
    away = path.parent.with_name("away")
    if what == "the folder":
        path.parent.rename(away)
    else:
        away.mkdir()
        for each in files(path):
            each.rename(away / each.name)
    assert not saves(store, "c2") and not saves(other, "c3")
    with pytest.raises(StoreDown):
        other.walk("call")
    if what == "the folder":
        away.rename(path.parent)
    else:
        for each in files(path):
            (away / each.name).rename(each)
    assert saves(store, "c4") and saves(other, "c5")
    assert {"c1", "c4", "c5"} <= set(keys(store)) and keys(store) == keys(other)


@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
def test_without_its_log_every_server_lets_go_and_all_that_was_acknowledged_is_there(
    path, connect, suffix
):
    one, two = connect(), connect()
    acknowledged = [
        f"c{number}" for number in range(50) if saves((one, two)[number % 2], f"c{number}")
    ]
    path.with_name(path.name + suffix).unlink()
    with pytest.raises(StoreDown, match=f"cluster.db{suffix} is gone: it belongs to the store"):
        one.due(0.0, 1)
    assert not saves(one, "too early"), "the other one has the old file open still"
    with pytest.raises(StoreDown):
        two.due(0.0, 1)
    assert saves(two, "d1") and saves(one, "d2")
    assert set(acknowledged) | {"d1", "d2"} <= set(keys(one)) == set(keys(two))
    with contextlib.closing(sqlite3.connect(path)) as check:
        assert check.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_backup_that_is_moved_over_it_is_opened_once_no_server_has_the_other_open(
    path, connect, tmp_path
):
    one, two = connect(), connect()
    one.save([ConditionalWrite("call", "old", "x", 0)])
    with (
        contextlib.closing(sqlite3.connect(path)) as source,
        contextlib.closing(sqlite3.connect(tmp_path / "b")) as to,
    ):
        source.backup(to)
    two.save([ConditionalWrite("call", "new", "x", 0)])
    (tmp_path / "b").rename(path)
    assert not saves(one, "c1")
    with pytest.raises(
        StoreDown, match="was replaced by another file; it is opened as soon as no server has the"
    ):
        two.due(0.0, 1)
    assert not saves(one, "c2")
    assert saves(two, "c3") and saves(one, "c4")
    assert keys(one) == keys(two) == ["c3", "c4", "old"]


def test_a_file_that_was_cut_short_is_told_and_not_written_to_any_more(path, connect):
    store = connect()
    for number in range(300):
        store.save([ConditionalWrite("call", f"c{number}", "x" * 900, 0)])
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA wal_checkpoint")
    store.save([ConditionalWrite("call", "seen", "x", 0)])
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(StoreDown, match=r"malformed|cut short"):
        connect()
    os.truncate(path, 0)
    with pytest.raises(StoreDown, match="was emptied, and other servers have the one before open"):
        connect()
    for key in ("d1", "d2"):
        with pytest.raises(
            StoreDown, match="was cut short by another program: end all servers, restore it"
        ):
            store.save([ConditionalWrite("call", key, "x", 0)])


def test_a_vacuum_makes_it_shorter_and_is_no_harm(path, connect):
    store = connect()
    for number in range(300):
        store.save([ConditionalWrite("call", f"c{number}", "x" * 900, 0)])
    for number in range(300):
        store.save([ConditionalWrite("call", f"c{number}", None, 1)])
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA wal_checkpoint")
        assert saves(store, "before")
        size = path.stat().st_size
        other.execute("VACUUM")
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert path.stat().st_size < size / 2
    assert saves(store, "after") and keys(store) == ["after", "before"]


def test_no_server_begins_an_empty_store_beside_one_that_has_the_removed_one_open(path, connect):
    living = connect()
    living.save([ConditionalWrite("call", "c1", "x", 0)])
    remove(path)
    with pytest.raises(
        StoreDown, match=r"cluster\.db is gone, and other servers have the one before open"
    ):
        connect()
    with pytest.raises(StoreDown):
        connect(reading=True)
    assert not path.exists()
    living.close()
    assert keys(connect()) == [], "nobody is left who could miss anything"


def test_nor_in_a_folder_that_was_removed_and_made_anew(path, connect):
    living, other = connect(), connect()
    living.save([ConditionalWrite("call", "c1", "x", 0)])
    shutil.rmtree(path.parent)
    path.parent.mkdir()
    for number, store in enumerate((living, other, living, other)):  # at their signs of life
        assert not saves(store, f"d{number}")
    for _ in range(2):
        with pytest.raises(StoreDown, match="is gone, and other servers have the one before open"):
            connect()
        living.close()
    assert not path.exists()
    other.close()
    assert keys(connect()) == []


def test_a_server_that_was_killed_is_in_nobodys_way_and_the_last_to_leave_tidies_up(path, connect):
    script = (
        "import os, signal, sys; from slee_mock.store.sqlite_store import SqliteStore\n"
        "store = SqliteStore(sys.argv[1]); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-S", "-c", script, str(path)], check=False, timeout=HELLO)
    assert path.with_name(".cluster.db.lock").exists()
    remove(path)
    one = connect()
    assert one.fresh
    two = connect()
    assert not two.fresh and saves(two, "c1")
    one.close()
    assert saves(two, "c2")
    two.close()
    assert [each.name for each in path.parent.iterdir()] == ["cluster.db"]


def test_a_server_that_starts_while_the_last_one_leaves_waits_for_that(path, connect, monkeypatch):
    """SQLite removes -wal and -shm before this server has let go of its lock."""
    last, found = connect(), []
    leave = StoreFiles.leave

    def start():
        with contextlib.closing(SqliteStore(str(path))) as store:
            found.append((store.fresh, keys(store)))

    opening = threading.Thread(target=start)

    def slowly(self):
        if self is last._files and not opening.ident:
            opening.start()
            opening.join(0.1)
            assert opening.is_alive(), "it sees that -wal is not there, and waits"
        leave(self)

    last.save([ConditionalWrite("call", "c1", "x", 0)])
    monkeypatch.setattr(StoreFiles, "leave", slowly)
    last.close()
    opening.join(HELLO)
    assert found == [(True, ["c1"])]


def test_servers_that_start_and_stop_at_the_same_time_all_find_the_same_store(path):
    script = (
        "import sys; from slee_mock.store.sqlite_store import SqliteStore\n"
        "from slee_mock.store.interface import ConditionalWrite\n"
        "for number in range(30):\n"
        "    store = SqliteStore(sys.argv[1], 5.0)\n"
        "    store.save([ConditionalWrite('call', f'{sys.argv[2]}.{number}', 'x', 0)])\n"
        "    store.close()"
    )
    made = [
        subprocess.Popen([sys.executable, "-S", "-c", script, str(path), str(number)])
        for number in range(4)
    ]
    assert [each.wait(HELLO) for each in made] == [0, 0, 0, 0]
    with contextlib.closing(SqliteStore(str(path))) as store:
        assert store.count("call") == 120


def test_a_store_that_is_named_by_a_link_is_the_same_store(path, connect, tmp_path):
    (tmp_path / "link.db").symlink_to(path)
    one = connect()
    with contextlib.closing(SqliteStore(str(tmp_path / "link.db"))) as two:
        assert not two.fresh and saves(one, "c1") and saves(two, "c2")
        assert keys(one) == keys(two) == ["c1", "c2"]
        (tmp_path / "link.db").unlink()
        assert saves(one, "c3") and not saves(two, "c4")
        remove(path)
        assert not saves(one, "c5")


def test_who_only_reads_needs_no_lock_and_makes_no_file(path, connect):
    with pytest.raises(StoreDown, match="is gone"):
        connect(reading=True)
    assert not path.exists()
    connect().save([ConditionalWrite("call", "c1", "x", 0)])
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as lock:
        lock.execute("BEGIN IMMEDIATE")
        assert keys(connect(reading=True)) == ["c1"]
        lock.execute("ROLLBACK")


# -- the key ---------------------------------------------------------------------------------------


def joined(store):
    keyed = KeyedStore(store, "redis://x")
    join_cluster(keyed, lambda: "ab" * 32, lambda seconds: None)
    return keyed


def test_a_store_that_was_emptied_takes_nothing_until_its_key_is_back():
    store = DictStore()
    keyed = joined(store)
    keyed.save([ConditionalWrite("call", "c1", "x", 0)])
    backup = dict(store.rows)
    store.rows.clear()
    with pytest.raises(
        StoreDown, match="redis://x was emptied since this server started: restore it from a backup"
    ):
        keyed.save([ConditionalWrite("call", "c2", "x", 0)])
    with pytest.raises(StoreDown, match="was emptied"):
        keyed.get("call", "c1")
    assert store.rows == {}
    store.rows.update(backup)
    assert keyed.get("call", "c1") == Row("x", 1)
    keyed.save([ConditionalWrite("call", "c2", "x", 0)])
    with pytest.raises(Conflict):
        keyed.save([ConditionalWrite("call", "c2", "x", 0)])


def test_a_store_with_another_clusters_key_is_not_ours():
    store = DictStore()
    keyed = joined(store)
    store.rows.clear()
    Transaction(store).commit([ClusterKey("cluster", "cd" * 32)])
    with pytest.raises(StoreDown, match="belongs to another cluster since this server started"):
        keyed.save([ConditionalWrite("call", "c1", "x", 0)])


def test_a_store_that_comes_back_empty_is_not_believed_when_it_is_only_read():
    store = DictStore()
    keyed = joined(store)
    store.down = True
    with pytest.raises(StoreDown, match="the store is down"):
        keyed.get("call", "c1")
    store.rows.clear()
    store.down = False
    with pytest.raises(StoreDown, match="was emptied"):
        keyed.get("call", "c1")


def test_no_server_begins_a_cluster_in_a_store_that_was_emptied_under_a_living_one():
    store = DictStore()
    living = joined(store)
    store.rows.clear()
    with pytest.raises(StoreDown):
        living.save([ConditionalWrite("call", "c1", "x", 0)])
    signs = iter(range(1000))

    def wait(seconds):
        living.leave_a_sign(Member("server2", "127.0.0.1:5080", last_seen=100.0 + next(signs)))

    with pytest.raises(
        StoreDown, match="the store was emptied while server2 went on running: restore it"
    ):
        join_cluster(KeyedStore(store, "redis://x"), lambda: "ef" * 32, wait)
    assert store.get("secret", "cluster") is None
    assert (
        join_cluster(KeyedStore(store, "redis://x"), lambda: "ef" * 32, lambda seconds: None)
        == b"\xef" * 32
    )


# -- real servers ----------------------------------------------------------------------------------


def health(forwarder, server):
    return forwarder.ask(phone_request("OPTIONS", "sip:127.0.0.1:5070"), server).status


def refused(server):
    finished = subprocess.run(server.argv, capture_output=True, text=True, timeout=HELLO)
    assert (finished.returncode, finished.stdout) == (1, "")
    assert len(finished.stderr.splitlines()) == 1
    return finished.stderr


def test_rm_of_the_store_makes_both_servers_step_back_and_none_comes_back_empty(
    path, forwarder, program, eventually
):
    server1, server2 = (
        program("server1", store=path).start(),
        program("server2", store=path).start(),
    )
    assert forwarder.ask(register(), server1).status == 200
    offered = forwarder.ask(invite(), server1)
    assert forwarder.ask(answer(offered, 200), server1).status == 200
    remove(path)
    assert forwarder.ask(register("carol", call_id="r-carol"), server1).status == 503, (
        "not even the first one after it"
    )
    for server in (server1, server2):
        eventually(lambda server=server: health(forwarder, server) == 503, 1.0)
        assert "is gone: put the same file back" in server.read("/status")["store"]
    assert forwarder.ask(in_dialog("BYE"), server1).method == "BYE", "who talks may hang up"
    server1.process.kill()
    server1.process.wait(HELLO)
    assert "is gone, and other servers have the one before open" in refused(
        program("server1", store=path)
    )
    assert not path.exists() and health(forwarder, server2) == 503
    server2.end(signal.SIGTERM)
    assert health(forwarder, program("server1", store=path).start()) == 200


@pytest.fixture
def real_forwarder(free_port, tmp_path):
    """start(server1, server2) -> the real forwarder's port; ended at the end."""
    with contextlib.ExitStack() as stack:

        def start(port, *servers):
            file = tmp_path / "servers.properties"
            lines = [f"{server.name}=127.0.0.1:{server.port}" for server in servers]
            file.write_text(
                "\n".join([*lines, f"forwarder.listen=127.0.0.1:{port}", "admin.listen="])
            )
            running = RunningProgram([*FORWARDER, str(file)], tmp_path / "forwarder.log")
            stack.callback(running.stop)
            return port

        yield start


def asks(sock, port, request):
    """What comes of a phone's request first, but that it is being tried: a status, or the request
    at Bob's phone."""
    via = (
        "Via",
        f"SIP/2.0/UDP 127.0.0.1:{sock.getsockname()[1]};branch=z9hG4bK{request.call_id};rport",
    )
    fields = [(field.name, field.value) for field in request.fields if field.name != "Via"]
    sock.sendto(
        Request(request.method, request.uri, [via, *fields]).to_bytes(), ("127.0.0.1", port)
    )
    while True:
        heard = parse(sock.recv(65_535))
        if heard.call_id == request.call_id and (isinstance(heard, Request) or heard.status != 100):
            return heard.method if isinstance(heard, Request) else heard.status


def calls(sock, port, number):
    return asks(sock, port, invite(call_id=f"v{number}"))


@pytest.mark.long
def test_no_caller_is_told_that_nobody_is_there_because_a_store_was_removed(
    path, program, real_forwarder, free_port, eventually, forwarder
):
    """Two servers and the forwarder, all real; the store is removed and server1 is started
    again."""
    port = free_port()
    servers = [program(name, store=path) for name in ("server1", "server2")]
    for each in servers:
        each.argv[each.argv.index("--forwarder") + 1] = f"127.0.0.1:{port}"
        each.start()
    real_forwarder(port, *servers)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as phone:
        phone.bind(("127.0.0.1", 0))
        phone.settimeout(5.0)
        contact = f"<sip:bob@127.0.0.1:{phone.getsockname()[1]}>"
        assert asks(phone, port, register(contact=contact)) == 200
        assert calls(phone, port, 0) == "INVITE"
        remove(path)
        servers[0].close()  # kill -9
        heard = [calls(phone, port, number) for number in range(1, 10)]
        refused(servers[0])
        heard += [calls(phone, port, number) for number in range(10, 30)]
        assert set(heard) == {503} and not path.exists()
        servers[1].close()
        servers[1].start()
        eventually(lambda: calls(phone, port, time.monotonic_ns()) == 404)


@pytest.mark.long
def test_a_store_that_is_moved_back_is_served_from_again(path, forwarder, program, eventually):
    server1, server2 = (
        program("server1", store=path).start(),
        program("server2", store=path).start(),
    )
    assert forwarder.ask(register(), server1).status == 200
    path.parent.rename(path.parent.with_name("away"))
    eventually(lambda: health(forwarder, server1) == health(forwarder, server2) == 503, 1.0)
    with pytest.raises(OSError):
        server2.read("/calls")
    path.parent.with_name("away").rename(path.parent)
    eventually(lambda: health(forwarder, server1) == health(forwarder, server2) == 200, 2.0)
    assert forwarder.ask(invite(), server2).method == "INVITE"
    assert server2.read("/status")["store"] == "ok"


@pytest.mark.long
@pytest.mark.parametrize("damage", ["-wal", "-shm", "backup"])
def test_a_lost_log_or_a_restored_backup_is_over_within_seconds_by_itself(
    path, forwarder, program, eventually, damage
):
    server1, server2 = (
        program("server1", store=path).start(),
        program("server2", store=path).start(),
    )
    assert forwarder.ask(register(), server1).status == 200
    assert server1.read("/calls")["calls"] == []  # so that its reader has the store open too
    if damage == "backup":
        backup = path.with_name("backup")
        with (
            contextlib.closing(sqlite3.connect(path)) as source,
            contextlib.closing(sqlite3.connect(backup)) as copy,
        ):
            source.backup(copy)
        shutil.move(backup, path)
    else:
        path.with_name(path.name + damage).unlink()
    eventually(
        lambda: (
            server1.read("/status")["store"] != "ok" or path.with_name("cluster.db-shm").exists()
        )
    )
    eventually(lambda: server1.read("/status")["dropped"].get("store_failures"), 2.0)
    eventually(lambda: health(forwarder, server1) == health(forwarder, server2) == 200, 4.0)
    assert forwarder.ask(invite(), server2).method == "INVITE"
    assert [call["caller"] for call in server1.read("/calls")["calls"]] == ["alice"]
