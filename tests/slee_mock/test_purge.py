"""What the store forgets: by age and by number, never a bill that somebody may still want."""

from __future__ import annotations

import pytest
from program_kit import status_page
from slee_kit import Cluster, DictStore, answer, in_dialog, invite, register

from slee_mock.server import Server
from slee_mock.services.bill_record import Bill, ServedBy
from slee_mock.services.billing import ABANDONED_SECONDS, Billing
from slee_mock.services.bindings_record import Binding, Bindings
from slee_mock.services.call_record import Call
from slee_mock.services.registrar import MEMORY_SECONDS, Registrar
from slee_mock.settings import Settings
from slee_mock.store.interface import ConditionalWrite, Conflict, Row, Transaction
from slee_mock.store.purge import BATCH, CLUSTER_RULES, DAY_SECONDS, Purge
from slee_mock.store.records import Member
from slee_mock.store.sqlite_store import SqliteStore

RULES = (*CLUSTER_RULES, *Billing.keeps, *Registrar.keeps)
NOW = 1_800_000_000.0


def few(newest: int) -> Purge:
    """With as few rows kept as a test can fill in."""
    return Purge(tuple(each._replace(newest=newest) for each in RULES))


@pytest.fixture(params=["dict", "sqlite"])
def store(request, tmp_path):
    made = DictStore() if request.param == "dict" else SqliteStore(str(tmp_path / "cluster.db"))
    yield made
    made.close()


def call(store, name: str, **facts) -> None:
    facts = {"offered": NOW, "carriers": (ServedBy("server1", facts.get("offered", NOW)),), **facts}
    bill = Bill(name, "Alice", "sip:alice@x", "Bob", "sip:bob@x", "0.10+0.05/10s", "EUR", **facts)
    Transaction(store).commit([bill, Call(name, "a1", 1, bill.offered, ())])


def left(store, kind: str = "bill") -> list[str]:
    return sorted(key for _, key, _ in store.walk(kind))


def swept(store, retention: Purge, wall: float = NOW) -> None:
    while retention.delete_old(Transaction(store), wall):
        continue


def test_a_row_is_removed_only_as_it_was_read(store):
    store.save([ConditionalWrite("bill", "c1", "one", 0)])
    store.save([ConditionalWrite("bill", "c1", "two", 1)])
    with pytest.raises(Conflict):
        store.save([ConditionalWrite("bill", "c1", None, 1)])
    assert store.get("bill", "c1") == Row("two", 2)
    store.save([ConditionalWrite("bill", "c1", None, 2)])
    assert store.get("bill", "c1") is None
    with pytest.raises(Conflict):
        store.save([ConditionalWrite("bill", "c1", None, 2)])


def test_ended_calls_go_after_a_day_and_only_beyond_the_newest(store):
    ages = {"old": DAY_SECONDS + 1, "young": DAY_SECONDS - 1, "newest-but-old": DAY_SECONDS + 1}
    for name, age in ages.items():
        call(store, name, offered=NOW - age - 60, answered=NOW - age - 50, ended=NOW - age)
    swept(store, few(1))
    assert left(store) == left(store, "call") == ["newest-but-old", "young"]


def test_a_call_that_nobody_ended_is_not_ended_by_its_age(store):
    call(store, "rang", offered=NOW - DAY_SECONDS - 300)
    call(store, "long", offered=NOW - DAY_SECONDS * 2, answered=NOW - DAY_SECONDS * 2)
    call(
        store, "vanished", offered=NOW - ABANDONED_SECONDS - 9, answered=NOW - ABANDONED_SECONDS - 1
    )
    swept(store, few(0))
    assert left(store) == ["long"]


def test_more_calls_than_one_sweep_looks_at_are_swept_past_those_that_stay(store):
    for number in range(2 * BATCH + 10):
        # in the middle, so that what is behind them must be reached
        stays = BATCH // 2 < number <= BATCH * 3 // 2
        call(
            store,
            f"c{number}",
            answered=NOW - 3 * DAY_SECONDS,
            ended=NOW - (DAY_SECONDS - 9 if stays else DAY_SECONDS + 9),
        )
    swept(store, few(0))
    assert len(left(store)) == BATCH and left(store) == left(store, "call")


def test_a_sweep_reads_no_row_twice_however_many_it_has_passed(store, monkeypatch):
    """An OFFSET reads again all that it skips: at a million bills 37 ms, four times a second."""
    asked = []
    walk = type(store).walk

    def with_event(self, kind, limit, before=None):
        found = walk(self, kind, limit, before)
        asked.extend(each.key for each in found)
        return found

    monkeypatch.setattr(type(store), "walk", with_event)
    for number in range(4 * BATCH):
        call(store, f"c{number}", answered=NOW - 60, ended=NOW - 50)
    retention, wall = few(10), NOW
    while retention.delete_old(Transaction(store), wall):
        call(store, f"new{len(asked)}", answered=NOW - 60, ended=NOW - 50)
    assert asked == [f"c{number}" for number in reversed(range(4 * BATCH - 10))]


def test_users_and_members_long_gone_are_forgotten(store):
    gone = NOW - DAY_SECONDS - MEMORY_SECONDS
    for name, expires in (("gone", gone), ("back", NOW + 60), ("lately", NOW - 60)):
        binding = Binding("sip:x@y", "r1", 4, expires_at=expires, refreshed_at=expires - 60)
        Transaction(store).commit(
            [Bindings(f"sip:{name}@x", name, (binding,)), Member(name, "y", last_seen=expires)]
        )
    swept(store, few(0))
    assert left(store, "bindings") == ["sip:back@x", "sip:lately@x"]
    assert left(store, "member") == ["back", "lately"]


def test_a_running_server_sweeps(tmp_path, monkeypatch, eventually, free_port):
    monkeypatch.setattr("slee_mock.node.PURGING", 0.01)
    monkeypatch.setattr("slee_mock.node.Purge", lambda kept: few(0))
    path = str(tmp_path / "cluster.db")
    store = SqliteStore(path)
    call(store, "old", answered=1.0, ended=2.0)
    server = Server(Settings("server1", ("127.0.0.1", free_port()), ("127.0.0.1", 5060), path))
    server.start()
    eventually(lambda: left(store) == left(store, "call") == [])
    server.stop()
    store.close()


def test_a_server_whose_name_another_has_taken_says_so_and_leaves_it(
    tmp_path, caplog, eventually, free_port
):
    path = str(tmp_path / "cluster.db")
    both = [
        Server(Settings("twin", ("127.0.0.1", free_port()), ("127.0.0.1", 5060), path))
        for _ in range(2)
    ]
    for server in both:
        server.start()
    eventually(lambda: "another server signs as twin too; give each its own --name" in caplog.text)
    both[0].stop()
    store = SqliteStore(path)
    member = Transaction(store).read(Member, "twin")
    assert member.address == status_page(both[1])["address"] and not member.stopped
    store.close()
    both[1].stop()


def test_what_changes_while_it_is_swept_stays():
    cluster = Cluster()
    cluster.one(register())
    cluster.one(answer(cluster.one(invite()), 200))
    cluster.one(in_dialog("BYE"))
    cluster.now += DAY_SECONDS + 1
    another = Call("c1", "again", 1, cluster.now, ())
    cluster.store.before_save = lambda: Transaction(cluster.store).commit([another])
    retention = few(0)
    with pytest.raises(Conflict):
        retention.delete_old(Transaction(cluster.store), cluster.now)
    assert cluster.get(Bill, "c1") is not None
    swept(cluster.store, retention, cluster.now)
    assert cluster.get(Bill, "c1") is None and cluster.get(Call, "c1") is None


def test_what_a_sweep_finds_is_not_read_a_second_time():
    """In a Redis each row would be a journey of its own, on the thread that answers heartbeats."""
    store = Reading()
    for number in range(20):
        call(store, f"c{number}", offered=NOW - 3 * DAY_SECONDS, ended=NOW - 2 * DAY_SECONDS)
    store.read.clear()
    swept(store, few(5))
    assert len(left(store)) == 5 and set(store.read) == {"call"}


class Reading(DictStore):
    """Notes the kinds of the rows that are read one by one."""

    def __init__(self):
        super().__init__()
        self.read = []

    def get(self, kind, key):
        self.read.append(kind)
        return super().get(kind, key)
