"""The store's contract, one suite for every implementation; and what is SQLite's alone."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from typing import ClassVar

import pytest
from process_kit import free_port
from redis_kit import RedisProgram, needs_redis
from slee_kit import DictStore, make_bill

from slee_mock.services.bill_record import Bill
from slee_mock.services.bindings_record import Binding, Bindings
from slee_mock.store.interface import (
    BadName,
    BadRecord,
    ConditionalWrite,
    Conflict,
    Row,
    StoreDown,
    Transaction,
)
from slee_mock.store.records import Member, Record, from_json, to_json
from slee_mock.store.redis_store import RedisStore
from slee_mock.store.redis_url import RedisPlace
from slee_mock.store.sqlite_store import SqliteStore

PATIENT = 10.0  # seconds; what is asked here is what a store answers, not how soon


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory):
    server = RedisProgram(tmp_path_factory.mktemp("redis"), free_port()).start()
    yield server
    server.stop()


@pytest.fixture(params=["dict", "sqlite", pytest.param("redis", marks=needs_redis)])
def open_store(request, tmp_path):
    """open_store() -> one more connection to the same rows, of which there are none yet."""
    made = []
    if request.param == "redis":
        server = request.getfixturevalue("redis_server")
        server.says("FLUSHALL")
        place = RedisPlace.parse(server.url)
    shared = DictStore()

    def connect():
        if request.param == "redis":
            made.append(RedisStore(place, patience=PATIENT))
        else:
            made.append(
                shared
                if request.param == "dict"
                else SqliteStore(str(tmp_path / "cluster.db"), PATIENT)
            )
        return made[-1]

    yield connect
    for each in made:
        each.close()


@pytest.fixture
def store(open_store):
    return open_store()


def test_who_comes_second_sees_what_the_first_saved_and_conflicts_with_it(open_store):
    one, two = open_store(), open_store()
    one.save([ConditionalWrite("call", "c1", "x", 0)])
    assert two.get("call", "c1") == Row("x", 1)
    two.save([ConditionalWrite("call", "c1", "y", 1)])
    with pytest.raises(Conflict):
        one.save([ConditionalWrite("call", "c1", "z", 1)])
    assert one.get("call", "c1") == Row("y", 2)


def test_a_row_that_was_removed_is_gone_and_may_come_anew(store):
    store.save(
        [ConditionalWrite("call", "c1", "x", 0, 110.0), ConditionalWrite("call", "c2", "x", 0)]
    )
    store.save([ConditionalWrite("call", "c1", None, 1)])
    assert store.get("call", "c1") is None and [key for _, key, _ in store.walk("call")] == ["c2"]
    with pytest.raises(Conflict):
        store.save([ConditionalWrite("call", "c1", None, 0)])
    store.save([ConditionalWrite("call", "c1", "new", 0)])
    assert [each[1:] for each in store.walk("call")] == [("c1", Row("new", 1)), ("c2", Row("x", 1))]


def test_a_walk_goes_on_behind_what_was_seen_whatever_comes_and_goes_meanwhile(store):
    for number in range(6):
        store.save([ConditionalWrite("bill", f"c{number}", str(number), 0)])
        store.save([ConditionalWrite("call", f"c{number}", "x", 0)])
    newest = store.walk("bill", 2)
    assert [(key, row) for _, key, row in newest] == [("c5", Row("5", 1)), ("c4", Row("4", 1))]
    assert newest[0].mark > newest[1].mark
    store.save(
        [
            ConditionalWrite("bill", "c6", "6", 0),
            ConditionalWrite("bill", "c4", None, 1),
            ConditionalWrite("bill", "c2", None, 1),
        ]
    )
    store.save([ConditionalWrite("bill", "c1", "changed", 1)])
    rest = store.walk("bill", 9, before=newest[1].mark)
    assert [each.key for each in rest] == ["c3", "c1", "c0"], "a change moves nothing"
    assert [each.key for each in store.walk("bill", 1, rest[0].mark)] == ["c1"]
    assert (
        store.walk("bill", 9, rest[-1].mark)
        == store.walk("bill", 0)
        == store.walk("member", 9)
        == []
    )


def test_a_walk_may_begin_behind_the_newest(store):
    for number in range(4):
        store.save([ConditionalWrite("bill", f"c{number}", "x", 0)])
    assert [each.key for each in store.walk("bill", 9, store.mark("bill", 1))] == ["c1", "c0"]
    assert store.mark("bill", 0) == store.walk("bill", 1)[0].mark
    assert store.mark("bill", 4) is None and store.mark("call", 0) is None


def test_text_that_is_none_is_a_bad_name(store):
    with pytest.raises(BadName):
        Transaction(store).read(Member, "half a character: \udce9")
    Transaction(store).commit([Member("server1", "half a character: \udce9")])
    assert Transaction(store).read(Member, "server1").address == "half a character: \udce9"


def test_what_is_saved_can_be_read_with_its_version(store):
    assert store.get("call", "c1") is None
    store.save([ConditionalWrite("call", "c1", "one", 0)])
    assert store.get("call", "c1") == Row("one", 1)
    store.save([ConditionalWrite("call", "c1", "two", 1)])
    assert store.get("call", "c1") == Row("two", 2)
    assert store.get("bill", "c1") is None


@pytest.mark.parametrize("version", [0, 2, 7])
def test_who_saves_on_an_old_reading_is_told(store, version):
    store.save([ConditionalWrite("call", "c1", "one", 0)])
    with pytest.raises(Conflict):
        store.save([ConditionalWrite("call", "c1", "mine", version)])
    assert store.get("call", "c1") == Row("one", 1)


def test_a_row_that_should_be_there_and_is_not_is_a_conflict(store):
    with pytest.raises(Conflict):
        store.save([ConditionalWrite("call", "gone", "x", 1)])


def test_several_changes_are_saved_together_or_not_at_all(store):
    store.save([ConditionalWrite("call", "c1", "one", 0)])
    with pytest.raises(Conflict):
        store.save(
            [ConditionalWrite("bill", "c1", "new", 0), ConditionalWrite("call", "c1", "late", 0)]
        )
    assert store.get("bill", "c1") is None


def test_scan_gives_one_kind_newest_first_and_no_more_than_asked(store):
    for number in range(5):
        store.save(
            [
                ConditionalWrite("bill", f"c{number}", str(number), 0),
                ConditionalWrite("call", f"c{number}", "x", 0),
            ]
        )
    store.save([ConditionalWrite("bill", "c0", "changed", 1)])
    assert [key for _, key, _ in store.walk("bill")] == ["c4", "c3", "c2", "c1", "c0"]
    assert [each[1:] for each in store.walk("bill", 2)] == [
        ("c4", Row("4", 1)),
        ("c3", Row("3", 1)),
    ]
    assert [store.count(kind) for kind in ("bill", "call", "member")] == [5, 5, 0]


def test_rows_are_due_when_their_time_has_come_the_earliest_first_and_no_more_than_asked(store):
    for key, due in (("c1", 130.0), ("c2", 110.5), ("c3", None), ("c4", 120.0)):
        store.save([ConditionalWrite("call", key, "x", 0, due)])
    store.save([ConditionalWrite("bill", "c1", "x", 0, 115.0)])
    assert store.due(110.0, 9) == []
    assert store.due(110.5, 9) == [("call", "c2")]
    assert store.due(125.0, 9) == [("call", "c2"), ("bill", "c1"), ("call", "c4")]
    assert store.due(125.0, 9) == store.due(125.0, 3), "asking changes nothing"
    assert store.due(200.0, 2) == [("call", "c2"), ("bill", "c1")]


def test_every_save_sets_a_rows_timer_anew(store):
    store.save(
        [
            ConditionalWrite("call", "c1", "x", 0, 110.0),
            ConditionalWrite("call", "c2", "x", 0, 110.0),
        ]
    )
    store.save(
        [ConditionalWrite("call", "c1", "x", 1, 120.0), ConditionalWrite("call", "c2", "x", 1)]
    )
    assert store.due(115.0, 9) == []
    assert store.due(120.0, 9) == [("call", "c1")]
    with pytest.raises(Conflict):
        store.save([ConditionalWrite("call", "c1", "x", 1, 90.0)])
    assert store.due(115.0, 9) == [], "who came too late has set no timer either"
    store.save([ConditionalWrite("call", "c1", None, 2)])
    assert store.due(999.0, 9) == [], "a row that is gone is never due"


def test_a_record_says_when_it_is_due(store):
    @dataclass(frozen=True)
    class Alarm(Record):
        KIND: ClassVar[str] = "alarm"
        name: str
        at: float | None = None

        @property
        def due(self) -> float | None:
            return self.at

    Transaction(store).commit([Alarm("a1", 110.0), Bindings("sip:bob@x")])
    assert store.due(110.0, 9) == [("alarm", "a1")]
    Transaction(store).commit([Alarm("a1")])
    assert store.due(999.0, 9) == []


def test_any_text_may_be_kept(store):
    text = "Zoë \u202e<script>'\";DROP TABLE record;\x00\n"
    store.save([ConditionalWrite("call", text, text, 0)])
    assert store.get("call", text) == Row(text, 1)


def test_a_view_saves_only_what_is_still_true(store):
    first, second = Transaction(store), Transaction(store)
    assert first.read(Bindings, "sip:bob@x") is second.read(Bindings, "sip:bob@x") is None
    first.commit([Bindings("sip:bob@x", "first")])
    with pytest.raises(Conflict):
        second.commit([Bindings("sip:bob@x", "second")])
    assert Transaction(store).read(Bindings, "sip:bob@x") == Bindings("sip:bob@x", "first")


def test_a_damaged_record_is_the_stores_fault_not_a_traceback(store):
    store.save([ConditionalWrite("bindings", "sip:bob@x", '{"aor": "sip:b', 0)])
    with pytest.raises(BadRecord, match="damaged"):
        Transaction(store).read(Bindings, "sip:bob@x")


def test_records_survive_the_way_through_json():
    binding = Binding("sip:bob@127.0.0.1", "r1", 4, 1e9 + 0.25, 1e9, q=0.5)
    bindings = Bindings("sip:bob@x", "Bob", (binding,))
    bill = make_bill(tariff="1+1/1s")
    assert from_json(Bindings, to_json(bindings)) == bindings
    assert from_json(Bill, to_json(bill)) == bill


def test_a_record_of_another_version_is_read_as_far_as_it_is_known():
    assert from_json(Bindings, '{"aor": "sip:bob@x", "invented_later": [1]}') == Bindings(
        "sip:bob@x"
    )
    with pytest.raises(ValueError, match="not a bill"):
        from_json(Bill, '{"call_id": "c1"}')


# -- SQLite alone ----------------------------------------------------------------------------------


def test_two_connections_see_each_others_saves(tmp_path):
    path = str(tmp_path / "cluster.db")
    one, two = SqliteStore(path), SqliteStore(path)
    one.save([ConditionalWrite("call", "c1", "x", 0)])
    assert two.get("call", "c1") == Row("x", 1)
    one.close()
    two.close()
    assert [each.name for each in tmp_path.iterdir()] == ["cluster.db"], (
        "no lock or log stays behind"
    )


def test_what_was_acknowledged_survives_kill_9(tmp_path):
    path = str(tmp_path / "cluster.db")
    script = (
        "import os, signal, sys; from slee_mock.store.sqlite_store import SqliteStore\n"
        "from slee_mock.store.interface import ConditionalWrite\n"
        "store = SqliteStore(sys.argv[1])\n"
        "for number in range(100): store.save([ConditionalWrite('call', str(number), 'x', 0)])\n"
        "store._connection.execute('BEGIN IMMEDIATE')\n"
        "store._connection.execute(\"INSERT INTO record (kind, key, version, text) VALUES ('call', "
        "'half', 1, 'x')\")\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", script, path], check=False, timeout=30)
    survivor = SqliteStore(path)
    assert len(survivor.walk("call")) == 100
    survivor.save([ConditionalWrite("call", "after", "x", 0)])  # and the dead one's lock is gone
    survivor.close()


def test_a_lock_held_by_another_program_is_a_sentence_and_passes(tmp_path):
    path = str(tmp_path / "cluster.db")
    store = SqliteStore(path, busy_timeout=0.05)
    with sqlite3.connect(path, isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreDown, match="is locked by another program"):
            store.save([ConditionalWrite("call", "c1", "x", 0)])
        other.execute("ROLLBACK")
    other.close()
    store.save([ConditionalWrite("call", "c1", "x", 0)])
    store.close()


def test_files_that_cannot_be_the_store_are_refused_with_a_reason(tmp_path):
    (tmp_path / "text.db").write_text(
        "this is not a database, but it is long enough to look like one" * 100
    )
    with pytest.raises(StoreDown, match="is damaged"):
        SqliteStore(str(tmp_path / "text.db"))
    with pytest.raises(StoreDown, match="there is no folder"):
        SqliteStore(str(tmp_path / "nowhere" / "cluster.db"))
    foreign = sqlite3.connect(tmp_path / "foreign.db")
    foreign.execute("CREATE TABLE theirs (x)")
    foreign.commit()
    foreign.close()
    with pytest.raises(StoreDown, match="another program's database"):
        SqliteStore(str(tmp_path / "foreign.db"))
