"""What the pages are made from: all the running calls; who is hot; bills as a table; how the store
is read."""

from __future__ import annotations

import csv
import io
from collections import Counter
from dataclasses import replace

import prometheus_kit
import pytest
from forwarder_kit import make_table
from slee_kit import WALL, Cluster, DictStore, make_bill, phone_request

from failover.config.settings import CALL_ID
from failover.upstream.server_table import AdminState
from slee_mock.management import csv_export, snapshot
from slee_mock.management.metrics import metrics
from slee_mock.management.queries import Queries
from slee_mock.management.snapshot import MOST_CALLS, OpenCalls, server_status, take_snapshot
from slee_mock.sip_adaptor import LocalResponses, OptionsResponder
from slee_mock.store.interface import StoreDown, Transaction
from slee_mock.store.records import Member

HEALTH = server_status(
    Member("server1", "127.0.0.1:5070"), uptime=1.0, forwarder="127.0.0.1:5060", counts={}
)


def bill(number, **more):
    return make_bill(f"c{number}", WALL + number, **more)


def stored(*records):
    store = DictStore()
    Transaction(store).commit(records)
    return store


class Counting(DictStore):
    """Counts the rows that are read."""

    read = 0

    def walk(self, kind, limit, before=None):
        found = super().walk(kind, limit, before)
        self.read += len(found)
        return found


# -- which server is hot ---------------------------------------------------------------------------


def test_the_forwarder_tells_the_first_live_server_that_it_is_hot_and_the_others_that_they_wait():
    table = make_table()
    assert [table.role(server) for server in table.servers] == ["hot", "replica"]
    table.servers[0].admin_state = AdminState.DRAINING
    assert [table.role(server) for server in table.servers] == ["replica", "hot"]
    shared = make_table(CALL_ID)
    shared.servers[0].answers_503 = True
    assert [shared.role(server) for server in shared.servers] == ["replica", "live"]


def beat(cluster, role, source=("127.0.0.1", 4999)):
    node = cluster.nodes["server1"]
    fields = [("Failover-Role", role)] if role else []
    data = phone_request("OPTIONS", "sip:127.0.0.1:5070", fields=fields).to_bytes()
    cluster.receive(data, source=source)
    return node.options.role, node.options.role_since


def test_a_server_knows_its_role_from_its_forwarders_heartbeats_and_from_nobody_else():
    cluster = Cluster()
    assert beat(cluster, "") == ("", 0.0)
    assert beat(cluster, "hot", source=("127.0.0.2", 4999)) == ("", 0.0), "a stranger"
    assert beat(cluster, "king") == ("", 0.0)
    cluster.nodes["server1"].options = OptionsResponder(
        LocalResponses(b"key"), "192.0.2.10", "127.0.0.2", "127.0.0.1"
    )
    assert beat(cluster, "hot") == ("hot", cluster.now)
    first, cluster.now = cluster.now, cluster.now + 5
    assert beat(cluster, "hot") == ("hot", first), "nothing new"
    assert beat(cluster, "") == ("hot", first), "a standby that says nothing changes nothing"
    assert beat(cluster, "replica") == ("replica", cluster.now)


def roles(*members):
    shown = take_snapshot(Transaction(stored(*members)), HEALTH, WALL, OpenCalls()).members
    return shown["hot"], {member["name"]: member["role"] for member in shown["members"]}


def test_of_two_that_were_told_so_the_last_is_hot_and_the_dead_are_nothing():
    one = Member("server1", "a", last_seen=WALL - 1, role="hot", role_since=WALL - 90)
    two = Member("server2", "b", last_seen=WALL, role="hot", role_since=WALL - 0.5)
    assert roles(one, two) == ("server2", {"server1": "", "server2": "hot"}), (
        "server1 died a second ago"
    )
    assert roles(replace(one, last_seen=WALL - 9), replace(two, role="replica")) == (
        None,
        {"server1": "", "server2": "replica"},
    )
    live = [replace(each, role="live") for each in (one, two)]
    assert roles(*live) == (None, {"server1": "live", "server2": "live"})


# -- running calls ---------------------------------------------------------------------------------


def test_a_call_that_runs_for_long_stays_on_the_page_though_many_have_begun_since():
    store = stored(bill(0, ended=None), *(bill(n) for n in range(1, 1000)))
    running = OpenCalls()
    for _ in range(2):
        shown = take_snapshot(Transaction(store), HEALTH, WALL + 2000, running)
        assert [call["call_id"] for call in shown.calls["calls"] if not call["final"]] == ["c0"]
        assert len(shown.calls["calls"]) == MOST_CALLS + 1
        assert shown.running == Counter(answered=1)
    Transaction(store).commit([bill(0)])
    assert not take_snapshot(Transaction(store), HEALTH, WALL + 2000, running).running


def test_a_call_that_reuses_an_old_call_id_is_on_the_page_though_many_have_begun_since():
    """Its bill stands where the earlier one did, which has another key now (billing.py)."""
    store = stored(*(bill(n) for n in range(MOST_CALLS + 1)))
    running = OpenCalls()
    take_snapshot(Transaction(store), HEALTH, WALL + 2000, running)
    aside = make_bill(f"c0 {WALL:.3f}", WALL)
    Transaction(store).commit([aside, make_bill("c0", WALL + 1000, ended=None)])
    Transaction(store).commit([bill(n) for n in range(1001, 1500)])
    for looks in (running, running, OpenCalls()):
        shown = take_snapshot(Transaction(store), HEALTH, WALL + 2000, looks)
        assert shown.running == Counter(answered=1)
        assert [call["call_id"] for call in shown.calls["calls"] if not call["final"]] == ["c0"]


def test_who_looks_again_reads_the_newest_bills_only_and_misses_none_that_began_meanwhile():
    store = Counting()
    Transaction(store).commit([bill(n) for n in range(1000)])
    running = OpenCalls()
    take_snapshot(Transaction(store), HEALTH, WALL + 2000, running)
    assert store.read >= 1000
    store.read = 0
    take_snapshot(Transaction(store), HEALTH, WALL + 2000, running)
    assert store.read == MOST_CALLS
    Transaction(store).commit(
        [bill(n, ended=None) if n == 1001 else bill(n) for n in range(1000, 1500)]
    )
    assert take_snapshot(Transaction(store), HEALTH, WALL + 2000, running).running == Counter(
        answered=1
    )


def test_what_is_foretold_is_what_the_server_says_once_that_second_has_come():
    store = stored(bill(0, ended=None))
    for asked in (WALL + 1.0, WALL + 1.7, WALL + 10.9, WALL + 11.0, WALL + 3608.2):
        shown = take_snapshot(Transaction(store), HEALTH, asked, OpenCalls())
        for second, sums in enumerate(shown.forecast["c0"]):
            then = WALL + 1 + int(asked - WALL - 1) + second
            for wall in (then + 0.001, then + 0.4, then + 0.999):
                (call,) = take_snapshot(Transaction(store), HEALTH, wall, OpenCalls()).calls[
                    "calls"
                ]
                assert {name: call[name] for name in sums} == sums


# -- metrics ---------------------------------------------------------------------------------------


def test_metrics_are_valid_and_count_calls_by_state():
    hostile = Member('ser"ver\\2\n', "b", last_seen=WALL, role="replica")
    store = stored(
        Member("server1", "a", last_seen=WALL, role="hot"),
        hostile,
        bill(0, ended=None),
        bill(1, ended=None, answered=None),
        bill(2, ended=None, answered=None, rang=WALL),
        bill(3),
    )
    counted = {("handled", "INVITE"): 3, ("dropped", "stale"): 1, ("bills", "closed"): 1}
    shown = take_snapshot(
        Transaction(store),
        server_status(Member("server1", "a"), uptime=1.0, forwarder="f", counts=counted),
        WALL + 9,
        OpenCalls(),
    )
    families = prometheus_kit.read(metrics(shown.status, shown))
    assert families["slee_calls"] == (
        "gauge",
        {(("state", "offered"),): 1, (("state", "ringing"),): 1, (("state", "answered"),): 1},
    )
    assert families["slee_bills_closed_total"] == ("counter", {(): 1})
    alive = families["slee_member_alive"][1]
    assert alive == {(("member", "server1"),): 0, (("member", 'ser"ver\\2\n'),): 0}, (
        "nine seconds of silence"
    )
    now = take_snapshot(Transaction(store), HEALTH, WALL, OpenCalls())
    told = prometheus_kit.read(metrics(now.status, now))["slee_member_role"][1]
    assert {labels: value for labels, value in told.items() if value} == {
        (("member", "server1"), ("role", "hot")): 1,
        (("member", 'ser"ver\\2\n'), ("role", "replica")): 1,
    }


def test_a_server_whose_store_is_away_still_has_metrics_of_its_own():
    families = prometheus_kit.read(metrics(HEALTH, None))
    assert families["slee_up"] == ("gauge", {(): 0})
    assert "slee_calls" not in families and "slee_handled_total" not in families


# -- the export ------------------------------------------------------------------------------------


def table(*bills, wall=WALL + 5000):
    calls, _ = snapshot.bills(Transaction(stored(*bills)), 100, None, wall)
    text = csv_export.table(calls, heading=True)
    assert text.endswith("\r\n")
    return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))


def test_a_bill_as_a_row_has_the_numbers_of_the_page_and_says_their_units():
    (row,) = table(bill(0))
    assert row == {
        "call_id": "c0",
        "caller": "alice",
        "caller_uri": "sip:alice@x",
        "callee": "bob",
        "callee_uri": "sip:bob@x",
        "state": "ended",
        "why": "alice hung up",
        "offered_utc": "2027-01-15T08:00:00.000Z",
        "answered_utc": "2027-01-15T08:00:01.000Z",
        "ended_utc": "2027-01-15T08:00:13.000Z",
        "talk_seconds": "12",
        "started_units": "2",
        "total": "0.20",
        "currency": "EUR",
        "tariff": "0.10+0.05/10s",
        "carried_seconds_by_server": "server1: 5; server2: 7",
        "final": "yes",
        "unpaid": "no",
    }


def test_an_unanswered_call_has_no_times_that_it_did_not_have():
    (row,) = table(bill(0, answered=None, ended=None), wall=WALL + 5)
    assert (row["answered_utc"], row["ended_utc"], row["talk_seconds"], row["total"]) == (
        "",
        "",
        "0",
        "0.00",
    )
    assert (row["state"], row["final"]) == ("offered", "no")


@pytest.mark.parametrize(
    "name", ["=1+1", "+49 30 1234", "-2", "@SUM(A1)", "\t=1+1", "\r=1", "  =HYPERLINK(1)"]
)
def test_a_name_that_is_a_formula_is_a_text_in_the_table(name):
    (row,) = table(bill(0, caller=name, why=f"{name} hung up", callee_uri=name))
    assert (row["caller"], row["why"], row["callee_uri"]) == (
        f"'{name}",
        f"'{name} hung up",
        f"'{name}",
    )


@pytest.mark.parametrize(
    "name", ['say "hi", Bob', "two\r\nlines", " spaces ", "משה", "a,b;c", "'already"]
)
def test_any_other_name_comes_out_of_the_table_as_it_went_in(name):
    (row,) = table(bill(0, caller=name))
    assert row["caller"] == name


# -- the reader ------------------------------------------------------------------------------------


@pytest.fixture
def reading():
    """reading(store) -> a Queries of it."""
    return lambda store: Queries(lambda: store, lambda: HEALTH, list, lambda: WALL)


def test_an_export_has_every_bill_once_though_calls_begin_while_it_is_read(reading):
    store = stored(*(bill(n) for n in range(250)))
    read = []
    for number, part in enumerate(reading(store).bills()):
        read += [each["call_id"] for each in part]
        Transaction(store).commit([bill(1000 + 2 * number), bill(1001 + 2 * number)])
    assert read == [f"c{n}" for n in reversed(range(250))]


@pytest.mark.parametrize("gone", [range(60), range(140, 155), range(40, 250), range(249, 0, -1)])
def test_an_export_has_every_bill_that_stays_though_old_ones_are_removed_while_it_is_read(
    reading, gone
):
    store = stored(*(bill(n) for n in range(350)))
    parts = reading(store).bills()
    read = [each["call_id"] for _ in range(2) for each in next(parts)]
    Transaction(store).commit((), [bill(n) for n in gone])
    read += [each["call_id"] for part in parts for each in part]
    assert len(read) == len(set(read))
    assert {f"c{n}" for n in range(350) if n not in gone} <= set(read)


def test_a_store_that_goes_away_and_returns_is_a_sentence_and_then_no_more(reading):
    store = stored(bill(0))
    reader = reading(store)
    store.down = True
    with pytest.raises(StoreDown, match="the store is down"):
        reader.snapshot()
    assert reader.status()["name"] == "server1"
    store.down = False
    assert len(reader.snapshot().calls["calls"]) == 1
