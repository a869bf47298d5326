"""A server that cannot start says why in one sentence, and which; one that stops leaves nothing
behind."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
import textwrap
import threading
from dataclasses import replace

import pytest
from program_kit import HELLO
from slee_kit import Cluster, DictStore

from plumbing.udp_socket import bind_udp
from slee_mock import server as server_module
from slee_mock.container.deployment import DeployError
from slee_mock.server import Server, StartError
from slee_mock.services.billing import Billing
from slee_mock.settings import Settings
from slee_mock.store.interface import ConditionalWrite, Conflict, StoreDown, Transaction
from slee_mock.store.purge import CLUSTER_RULES, DAY_SECONDS, Purge
from slee_mock.store.records import ClockOffset
from slee_mock.store.sqlite_store import SqliteStore


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "cluster.db")


@pytest.fixture
def settings(path, free_port):
    return Settings("server1", ("127.0.0.1", free_port()), ("127.0.0.1", 5060), path)


def run(*options, before=""):
    """`python -m slee_mock`, with a line of Python before it."""
    script = (
        f"import sys\n{before}\nfrom slee_mock.__main__ import main\nsys.exit(main(sys.argv[1:]))"
    )
    return subprocess.run(
        [sys.executable, "-S", "-c", script, "--management", "", *options],
        capture_output=True,
        text=True,
        timeout=HELLO,
    )


def test_a_slow_store_is_told_as_a_slow_store(path, free_port):
    slow = "import time\nfrom slee_mock import server\nserver.OPEN_SECONDS = 0.2\n"
    slow += "whole = server.open_store\n"
    slow += "server.open_store = lambda *how, **more: time.sleep(0.6) or whole(*how, **more)"
    done = run("--listen", f"127.0.0.1:{free_port()}", "--store", path, before=slow)
    assert done.returncode == 1
    assert done.stderr == (
        f"slee_mock: the store {path} does not open within 0.2 s; see what keeps its disk or "
        "computer "
        "busy, or name another one\n"
    )


@pytest.mark.parametrize(
    ("listen", "sentence"),
    [
        ("taken", "end the program that has this port"),
        ("192.0.2.1:5070", "this computer does not have this address"),
    ],
)
def test_what_cannot_be_listened_on_is_told_with_its_own_remedy(path, listen, sentence):
    with bind_udp(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}" if listen == "taken" else listen
        done = run("--listen", listen, "--store", path)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "cannot listen" in done.stderr and sentence in done.stderr and listen in done.stderr


def test_a_forwarder_that_cannot_be_reached_is_not_told_as_a_port_that_is_taken(path, free_port):
    done = run(
        "--listen",
        f"127.0.0.1:{free_port()}",
        "--store",
        path,
        "--register",
        "255.255.255.255:5065",
    )
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "cannot register" in done.stderr and "correct --register" in done.stderr


def test_a_name_that_another_server_takes_at_the_same_moment_is_a_sentence(settings, monkeypatch):
    def commit(self, records, deleted=()):
        if any(record.KIND == "member" for record in records):
            raise Conflict("member server1")
        whole(self, records, deleted)

    whole = Transaction.commit
    monkeypatch.setattr(Transaction, "commit", commit)
    with pytest.raises(
        StartError, match="another server that is named server1 starts at this moment; give each"
    ):
        Server(settings).start()


def test_a_key_that_cannot_be_read_is_a_sentence(settings, path):
    with contextlib.closing(SqliteStore(path)) as store:
        store.save([ConditionalWrite("secret", "cluster", "{", 0)])
    with pytest.raises(StoreDown, match="secret record 'cluster' is damaged: "):
        Server(settings).start()


def test_a_page_is_read_and_the_server_stops_while_another_program_has_the_store_locked(
    settings, path, eventually
):
    server = Server(settings)
    server.start()
    lock = sqlite3.connect(path, isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    assert server._queries.snapshot().members["members"][0]["name"] == "server1", (
        "the first page of this server"
    )
    server.stop()
    server.stop()
    lock.execute("ROLLBACK")
    lock.close()


def test_a_server_that_stops_without_its_store_says_who_was_not_told_though_it_has_just_warned(
    settings, path, eventually, caplog
):
    server = Server(settings)
    server.start()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as lock:
        lock.execute("BEGIN IMMEDIATE")
        eventually(lambda: "requests that need it are answered 503" in caplog.text)
        server.stop()
    assert "the others were not told that this server stops: " in caplog.text


def test_a_reader_that_does_not_end_keeps_nothing_else_open(settings, path, monkeypatch):
    entered, leave = threading.Event(), threading.Event()
    open_store = server_module.open_store

    def slow(where, reading=False):
        if reading:
            entered.set()
            leave.wait(HELLO)
        return open_store(where, reading)

    monkeypatch.setattr(server_module, "open_store", slow)
    server = Server(settings)
    server.start()
    asking = threading.Thread(target=lambda: _quietly(server._queries.snapshot))
    asking.start()
    assert entered.wait(HELLO)
    with pytest.raises(TimeoutError, match="a page still reads the store"):
        server.stop(0.3)
    with bind_udp(settings.listen):  # the port is free
        pass
    with contextlib.closing(SqliteStore(path)) as store:  # and the others know
        assert '"stopped":true' in store.get("member", "server1").text
    leave.set()
    asking.join(HELLO)
    server.stop()


def _quietly(ask):
    with contextlib.suppress(RuntimeError):
        ask()


# -- deployed services -----------------------------------------------------------------------------

SERVICE = """
    class Mine:
        name, events = "mine", ()
        def handle(self, event, entity): ...
    def deploy(context, argument):
        {}
"""


@pytest.mark.parametrize("name", ["report", "page", "router", "store"])
def test_a_users_file_is_not_hidden_by_a_file_of_ours_that_is_no_service(
    tmp_path, monkeypatch, name
):
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(SERVICE.format("return Mine()")))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, name, raising=False)
    cluster = Cluster(deploy=(f"{name}:x",))
    assert "mine" in [service.name for service in cluster.nodes["server1"].services]
    monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("return {}['x']", r"its deploy\(\) raises KeyError: 'x'; mend it"),
        ("return 7", "has no name and no events and"),
    ],
)
def test_a_deploy_that_goes_wrong_is_a_sentence(tmp_path, monkeypatch, body, sentence):
    (tmp_path / "test_wrong.py").write_text(textwrap.dedent(SERVICE.format(body)))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "test_wrong", raising=False)
    with pytest.raises(DeployError, match=sentence):
        Cluster(store=DictStore(), deploy=("test_wrong",))


# -- growth ----------------------------------------------------------------------------------------


def swept(store, retention, wall=DAY_SECONDS):
    while retention.delete_old(Transaction(store), wall):
        continue


def test_starts_of_the_computer_long_ago_are_forgotten():
    store = DictStore()
    for number in range(150):
        Transaction(store).commit([ClockOffset(f"boot{number}", 1.0)])
    swept(store, Purge(CLUSTER_RULES))
    assert sorted(key for _, key, _ in store.walk("anchor")) == sorted(
        f"boot{number}" for number in range(50, 150)
    )


def test_accounts_whose_users_have_left_the_file_are_forgotten_and_no_others(tmp_path, monkeypatch):
    import prepaid

    monkeypatch.setattr(prepaid, "MOST_CLOSED_ACCOUNTS", 1)
    (tmp_path / "balances").write_text("alice:5.00\n")
    cluster = Cluster(deploy=(f"prepaid:{tmp_path / 'balances'}",))
    (service,) = [each for each in cluster.nodes["server1"].services if each.name == "prepaid"]
    busy = prepaid.Reservation("c1", "0.10+0.05/10s")
    Transaction(cluster.store).commit(
        [
            prepaid.Account("alice", 7),
            prepaid.Account("talks", 7, (busy,)),
            prepaid.Account("left", 7),
            prepaid.Account("newest", 7),
        ]
    )
    swept(cluster.store, Purge((*Billing.keeps, *service.keeps)))
    assert sorted(key for _, key, _ in cluster.store.walk("account")) == [
        "alice",
        "newest",
        "talks",
    ]


def test_a_registration_that_goes_wrong_is_not_the_last_one(settings, monkeypatch):
    from slee_mock.mobicents_heartbeat import Heartbeats

    whole, first = Heartbeats.next, iter([True])

    def beat(self, leaving=False):
        if self._number and next(first, False):
            raise KeyError("of a kind that nobody has thought of")
        return whole(self, leaving)

    monkeypatch.setattr(Heartbeats, "next", beat)
    with bind_udp(("127.0.0.1", 0)) as forwarder:
        forwarder.setblocking(True)
        forwarder.settimeout(HELLO)
        server = Server(replace(settings, register=(forwarder.getsockname(),), beat=0.05))
        server.start()
        try:
            heard = [forwarder.recv(65_535) for _ in range(3)]
        finally:
            server.stop()
    assert next(first, None) is None and all(b"Mobicents-Heartbeat" in each for each in heard)


def test_too_few_file_descriptors_are_told_as_such(path, free_port):
    few = "import resource\nfrom slee_mock import server\n"
    few += "resource.setrlimit(resource.RLIMIT_NOFILE, (4, 4))"
    done = run("--listen", f"127.0.0.1:{free_port()}", "--store", path, before=few)
    assert done.returncode == 1
    assert done.stderr == "slee_mock: cannot start: [Errno 24] Too many open files\n"


def test_a_sweep_that_goes_wrong_is_not_the_last_one(settings, monkeypatch, eventually):
    sweeps = []

    def sweep(self, transaction, wall):
        sweeps.append(wall)
        raise KeyError("of a kind that nobody has thought of")

    monkeypatch.setattr("slee_mock.node.Purge.delete_old", sweep)
    monkeypatch.setattr("slee_mock.node.PURGING", 0.01)
    monkeypatch.setattr("slee_mock.node.PURGED", 0.01)
    server = Server(settings)
    server.start()
    eventually(lambda: len(sweeps) >= 3)
    server.stop()
