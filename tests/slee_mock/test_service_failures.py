"""A service that raises, a row that cannot be read, a name that is not text: this one event is
refused, told and counted. All others are handled, at the same moment as ever, and no server is
taken for ill."""

from __future__ import annotations

import json
import logging
import socket
import sqlite3

import pytest
from program_kit import address_of, status_page
from slee_kit import (
    WALL,
    Cluster,
    answer,
    in_dialog,
    invite,
    make_bill,
    phone_request,
    register,
)

from plumbing.udp_socket import bind_udp
from sip.message import parse
from slee_mock.container.event_router import MOST_CONFLICTS
from slee_mock.management import routes as management
from slee_mock.management import snapshot
from slee_mock.management.queries import Queries
from slee_mock.management.snapshot import OpenCalls, server_status, take_snapshot
from slee_mock.server import Server
from slee_mock.services.bill_record import ServedBy
from slee_mock.services.billing import Billing
from slee_mock.services.call_record import Call, Leg
from slee_mock.settings import Settings
from slee_mock.store.interface import ConditionalWrite, Conflict, StoreDown, Transaction
from slee_mock.store.purge import DAY_SECONDS, Purge
from slee_mock.store.records import Member, to_json
from slee_mock.store.sqlite_store import SqliteStore

# What it does with a MESSAGE stands in the user part of its Request-URI. `wake` sets a timer that
# goes wrong.
STUMBLER = """
from __future__ import annotations
import sys
from dataclasses import dataclass
from typing import ClassVar
from slee_mock.container.events import CallEvent, Outcome, RequestEvent, ResponseEvent, Send, TimerEvent
from slee_mock.store.records import Record
from slee_mock.container.sbb import InitialEvent, the_call, timer_of

@dataclass(frozen=True)
class Note(Record):
    KIND: ClassVar[str] = "note"
    user: str
    at: object = None

    @property
    def due(self):
        return self.at

class Circular(CallEvent):
    pass

class Stumbler:
    name = "stumbler"
    records = (Note,)
    events = (
        InitialEvent(RequestEvent, name=lambda event: event.request.from_.uri.user,
           when=lambda event: event.request.method == "MESSAGE"),
        InitialEvent(ResponseEvent, name=lambda event: "x", when=lambda event: event.response.status == 299),
        InitialEvent(Circular, name=lambda event: "x"),
        timer_of(Note),
    )

    def __init__(self, answers):
        self.answers, self.timers = answers, 0

    def handle(self, event, entity):
        if isinstance(event, Circular):
            return Outcome(writes=(Note("circle"),), fires=(event,))
        if isinstance(event, TimerEvent):
            Stumbler.seen.append(event.time)
            raise KeyError("in a timer")
        if isinstance(event, ResponseEvent):
            raise KeyError("in a response")
        how = event.request.uri.partition(":")[2].partition("@")[0]
        if how == "raise":
            raise KeyError("in a message")
        if how == "exit":
            sys.exit()
        if how == "circle":
            return Outcome(writes=(Note("half"),), fires=(Circular("c9", event.time),))
        if how == "nothing":
            return None
        saves = {
            "unkeepable": (Note("big", 10**400),),
            "undue": (Note("never", "soon"),),
            "set": (Note("x", {1, 2}),),
            "wake": (Note(entity.name, event.time + 10.0),),
            "ok": (entity.get(Note) or Note(entity.name),),
        }.get(how, ())
        sends = (Send("not bytes"),) if how == "text" else (self.answers.answer(event, 202),)
        return Outcome(writes=saves, sends=sends, consumed=True)

    def status(self, transaction, now):
        raise KeyError("asked") if self.timers == 0 else None

def deploy(context, argument):
    Stumbler.seen = []
    return Stumbler(context.answers)
"""


@pytest.fixture(autouse=True)
def stumbler_file(tmp_path, monkeypatch):
    (tmp_path / "test_stumbler.py").write_text(STUMBLER)
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.fixture
def cluster():
    return Cluster(deploy=("test_stumbler",))


def message(how="raise", number=1, user="alice"):
    return phone_request("MESSAGE", f"sip:{how}@failover.test", user, call_id=f"m{how}{number}")


def status_of(sent):
    return [each.status for each in sent]


def seen():
    from test_stumbler import Stumbler

    return Stumbler.seen


# -- one event -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how", ["raise", "exit", "nothing", "text", "unkeepable", "undue", "set", "circle"]
)
def test_a_service_that_goes_wrong_is_answered_500_and_nothing_of_it_is_kept(cluster, how):
    assert cluster.one(message(how)).status == 500
    assert (
        cluster.outcome.drop_reason in ("service_failed", "bad_record")
        and len(cluster.failures) == 1
    )
    assert cluster.store.rows == {}
    assert cluster.one(message("ok")).status == 202


def test_in_a_turn_of_sixteen_only_the_one_that_goes_wrong_is_refused(cluster):
    turn = [register(f"u{number}", call_id=f"r{number}") for number in range(15)]
    sent = cluster.receive_all([*turn[:7], message(), *turn[7:]])
    assert status_of(sent) == [200] * 7 + [500] + [200] * 8
    assert cluster.store.count("bindings") == 15


def test_a_response_on_which_a_service_goes_wrong_is_dropped(cluster):
    cluster.receive(register())
    offered = cluster.one(invite())
    assert (
        cluster.receive(answer(offered, 299)) == []
        and cluster.outcome.drop_reason == "service_failed"
    )
    assert cluster.one(answer(offered, 200)).status == 200


def test_a_timer_that_goes_wrong_stops_no_other_and_is_tried_ever_more_rarely(cluster):
    for number in range(40):  # more than are handled in one go
        assert cluster.one(message("wake", number, f"early{number}")).status == 202
    cluster.receive(register())
    cluster.receive(invite())
    for _ in range(600):  # until nobody will answer Alice's call any more, and on
        cluster.now += 0.5
        cluster.tick()
    assert cluster.bill().state == "ended"
    tries = len(seen()) / 40
    assert 4 <= tries <= 14, "at full speed it were 580"


def test_what_waits_for_the_store_is_saved_though_a_service_goes_wrong_in_one_of_it(
    cluster, monkeypatch
):
    cluster.receive(register())
    for number in range(3):
        offered = cluster.one(invite(call_id=f"w{number}"))
        cluster.receive(answer(offered, 200))
    cluster.store.down = True
    for number in range(3):
        assert len(cluster.receive(in_dialog("BYE", call_id=f"w{number}"))) == 1
    cluster.store.down = False
    whole = Billing.handle

    def handle(self, event, entity):
        if entity.name == "w0":
            raise KeyError(entity)
        return whole(self, event, entity)

    monkeypatch.setattr(Billing, "handle", handle)
    cluster.tick()
    assert [cluster.bill(f"w{number}").state for number in range(3)] == [
        "answered",
        "ended",
        "ended",
    ]
    assert cluster.nodes["server1"].degraded.deferred == 0


def test_others_that_are_faster_twenty_times_are_no_fault_of_the_store(cluster):
    cluster.receive(register())
    save = cluster.store.save
    turns = iter(range(MOST_CONFLICTS + 5))

    def contended(changes):
        if any(change.kind == "bindings" for change in changes) and next(turns) < MOST_CONFLICTS:
            cluster.store.before_save = lambda: save(
                [ConditionalWrite("bindings", "sip:bob@failover.test", *_next(cluster))]
            )
        save(changes)

    def _next(cluster):
        row = cluster.store.get("bindings", "sip:bob@failover.test")
        return row.text, row.version

    cluster.store.save = contended
    assert cluster.one(register(cseq=2)).status == 503
    assert cluster.one(register(cseq=3)).status == 200


def test_a_server_whose_rows_others_change_all_the_time_is_not_ill(server, phones, monkeypatch):
    to = address_of(server)
    save = SqliteStore.save

    def contended(self, changes):
        if any(change.kind == "bindings" and "carol" in change.key for change in changes):
            raise Conflict("bindings")
        save(self, changes)

    monkeypatch.setattr(SqliteStore, "save", contended)
    for request in (
        register("carol", call_id="r-carol"),
        phone_request("OPTIONS", "sip:127.0.0.1:5070"),
        register(),
    ):
        phones.sendto(request.to_bytes(), to)
    assert sorted(each.status for each in gather(phones, 3)) == [200, 200, 503]
    assert status_page(server)["dropped"]["contended"] == 1


# -- rows and names --------------------------------------------------------------------------------


def test_a_row_that_cannot_be_read_is_the_trouble_of_its_user_alone(cluster):
    cluster.receive(register())
    cluster.receive(register("carol", "<sip:carol@127.0.0.1:4200>", call_id="r-carol"))
    row = cluster.store.rows["bindings", "sip:bob@failover.test"]
    cluster.store.rows["bindings", "sip:bob@failover.test"] = row._replace(text='{"aor": 7}')
    assert (
        cluster.one(register(cseq=2)).status == 500 and cluster.outcome.drop_reason == "bad_record"
    )
    assert cluster.one(invite(uri="sip:carol@failover.test")).method == "INVITE"
    assert (
        "bindings record 'sip:bob@failover.test' is damaged: not a bindings: aor cannot be 7"
        in str(cluster.failures[0])
    )


@pytest.mark.parametrize(
    "text", ["{}", "[]", "nonsense", '{"call_id": "due0", "expires": "late"}', "[" * 100_000]
)
def test_rows_that_cannot_be_read_hide_no_timer_that_is_due_after_them(cluster, text):
    cluster.store.save(
        [ConditionalWrite("call", f"due{number}", text, 0, 1.0) for number in range(40)]
    )
    cluster.receive(register())
    cluster.receive(invite())
    cluster.now += 210.0
    for _ in range(6):
        cluster.tick()
    assert cluster.bill().state == "ended"


def test_a_name_that_is_not_text_is_a_bad_request(cluster):
    data = message("ok", user="al\xffice").to_bytes().replace("al\xffice".encode(), b"al\xffice")
    assert cluster.one(data).status == 400 and cluster.outcome.drop_reason == "bad_name"


def test_a_members_row_that_cannot_be_read_is_written_anew(cluster):
    cluster.store.save([ConditionalWrite("member", "server1", "{", 0)])
    from slee_mock.cluster.membership import Membership
    from slee_mock.sip_adaptor import OptionsResponder

    member = Membership(Member("server1", "127.0.0.1:5070", started=5.0))
    member.sign(cluster.store, cluster.now, OptionsResponder(None))
    assert cluster.get(Member, "server1").alive(cluster.now)


# -- bills -----------------------------------------------------------------------------------------


def bill(number, **more):
    facts = {"why": "bob hung up", "carriers": (ServedBy("server1", WALL),), **more}
    return make_bill(f"c{number}", WALL + number, ended=WALL + number + 9, **facts)


@pytest.fixture
def damaged(cluster):
    """A store with five bills, of which three are damaged, each in its own way."""
    Transaction(cluster.store).commit(
        [bill(0), bill(1, tariff="a pound of flesh"), bill(2, carriers=()), bill(3), bill(4)]
    )
    row = cluster.store.rows["bill", "c3"]
    cluster.store.rows["bill", "c3"] = row._replace(
        text=row.text.replace('"offered":1800000003.0', '"offered":"noon"')
    )
    return cluster


def test_damaged_bills_do_not_end_retention(damaged):
    retention = Purge(tuple(each._replace(newest=0) for each in Billing.keeps))
    for _ in range(3):
        retention.delete_old(Transaction(damaged.store), WALL + 2 * DAY_SECONDS)
    assert [key for _, key, _ in damaged.store.walk("bill")] == ["c3"], (
        "which nobody can tell the age of"
    )


def test_damaged_bills_do_not_end_pages_metrics_or_the_export(damaged):
    reader = Queries(
        lambda: damaged.store,
        lambda: server_status(Member("server1", "a"), uptime=1.0, forwarder="f", counts={}),
        list,
        lambda: WALL + 60,
    )
    routes = management.routes(reader)
    shown = json.loads(routes["GET", "/snapshot"](None).body)
    assert [call["why"] for call in shown["calls"]["calls"]].count("bob hung up") == 2
    assert json.loads(routes["GET", "/calls"](None).body)["calls"]
    table = b"".join(routes["GET", "/calls.csv"](None).body).decode()
    assert routes["GET", "/metrics"](None).status == 200
    rows = table.splitlines()[1:]
    assert len(rows) == 5 and sum(",damaged," in row for row in rows) == 3
    assert "'a pound of flesh' is not a tariff" in table


def test_a_running_call_with_a_damaged_bill_can_be_hung_up(damaged):
    running = take_snapshot(
        Transaction(damaged.store),
        server_status(Member("server1", "a"), uptime=1.0, forwarder="f", counts={}),
        WALL + 60,
        OpenCalls(),
    )
    assert [call["call_id"] for call in running.calls["calls"]] == ["c4", "c0"]
    assert snapshot.bills(Transaction(damaged.store), 2, None, WALL)[0][1]["why"].startswith(
        "the store's bill record 'c3' is damaged"
    )


# -- a real server ---------------------------------------------------------------------------------


@pytest.fixture
def phones():
    """The socket that plays the forwarder."""
    with bind_udp(("127.0.0.1", 0)) as sock:
        sock.setblocking(True)
        sock.settimeout(5.0)
        yield sock


@pytest.fixture
def server(tmp_path, phones, free_port):
    made = Server(
        Settings(
            "server1",
            ("127.0.0.1", free_port()),
            phones.getsockname(),
            str(tmp_path / "cluster.db"),
            management=("127.0.0.1", free_port()),
            deploy=("test_stumbler",),
        )
    )
    made.start()
    yield made
    made.stop()


def gather(phones, count):
    return [parse(phones.recv(65_535)) for _ in range(count)]


def test_forty_registers_and_one_that_goes_wrong_are_all_answered(server, phones, caplog):
    to = address_of(server)
    for number in range(40):
        phones.sendto(register(f"u{number}", call_id=f"r{number}").to_bytes(), to)
        if number % 4 == 0:
            phones.sendto(message(number=number).to_bytes(), to)
    answers = gather(phones, 50)
    assert sorted(each.status for each in answers) == [200] * 40 + [500] * 10
    failures = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert 1 <= len(failures) <= 3, "a traceback a second"
    assert (
        "in a message" in caplog.text and "nothing of this event is saved: MESSAGE" in caplog.text
    )
    status = status_page(server)
    assert (status["dropped"]["service_failed"], status["store"]) == (10, "ok")
    assert status["services"]["stumbler"] == {"error": "KeyError: 'asked'"}
    metrics = management.routes(server._queries)["GET", "/metrics"](None).body.decode()
    assert 'slee_dropped_total{reason="service_failed"} 10' in metrics


def test_damaged_rows_and_names_never_make_a_heartbeat_hear_503(
    server, phones, tmp_path, eventually
):
    to = address_of(server)
    store = SqliteStore(str(tmp_path / "cluster.db"))
    store.save(
        [ConditionalWrite("call", "due", "{}", 0, 1.0), ConditionalWrite("bill", "due", "{", 0)]
    )
    store.close()
    with sqlite3.connect(tmp_path / "cluster.db", isolation_level=None) as raw:
        raw.execute(
            "INSERT INTO record (kind, key, version, text, due) VALUES ('call', 'blob', 1, "
            "CAST(x'ff' AS TEXT), 1)"
        )
    raw.close()
    bad = message("ok").to_bytes().replace(b"alice", b"al\xffice")
    for number in range(20):
        phones.sendto(bad.replace(b"mok1", f"b{number}".encode()), to)
        phones.sendto(
            phone_request("OPTIONS", "sip:127.0.0.1:5070", cseq=number + 1).to_bytes(), to
        )
        answers = gather(phones, 2)
        assert sorted(each.status for each in answers) == [200, 400]
    eventually(lambda: status_page(server)["dropped"].get("bad_record", 0) >= 2)
    phones.sendto(phone_request("OPTIONS", "sip:127.0.0.1:5070", cseq=99).to_bytes(), to)
    assert gather(phones, 1)[0].status == 200
    assert status_page(server)["store"] == "ok"


def test_a_row_that_is_not_text_hides_no_other(tmp_path):
    store = SqliteStore(str(tmp_path / "own.db"))
    store.save([ConditionalWrite("call", "c0", to_json(Call("c0", "t", 1, 1.0, ())), 0)])
    with sqlite3.connect(tmp_path / "own.db", isolation_level=None) as raw:
        for number, value in enumerate(("CAST(x'ff' AS TEXT)", "x'ff'", "7")):
            raw.execute(
                f"INSERT INTO record (kind, key, version, text) VALUES ('call', 'bad{number}', 1, "
                f"{value})"
            )
    raw.close()
    transaction = Transaction(store)
    assert [each.call_id for each in transaction.scan(Call)] == ["c0"] and len(
        transaction.walk(Call, 9)[0]
    ) == 4
    store.close()


@pytest.mark.long
def test_two_servers_of_one_name_say_so_and_the_older_goes_on_when_the_newer_is_gone(
    tmp_path, caplog, eventually, free_port
):
    path = str(tmp_path / "cluster.db")
    older, newer = (
        Server(Settings("twin", ("127.0.0.1", free_port()), ("127.0.0.1", 5060), path))
        for _ in range(2)
    )
    older.start()
    newer.start()
    try:
        for server in (older, newer):
            eventually(lambda server=server: "signs as twin too" in status_page(server)["warning"])
            assert status_page(server)["store"] == "ok"
        lock = sqlite3.connect(path, isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        eventually(lambda: "locked" in status_page(older)["store"])
        lock.execute("ROLLBACK")
        lock.close()
        eventually(lambda: status_page(older)["store"] == "ok", 3.0)
        assert not older._node.trouble, "though the newer one has the name still"
        store = SqliteStore(path)
        store.save(
            [
                ConditionalWrite(
                    "call",
                    "c1",
                    to_json(Call("c1", "t", 1, 1.0, (Leg("u", "t", "b", "w"),), expires=2.0)),
                    0,
                    2.0,
                )
            ]
        )
        newer.stop()
        eventually(lambda: not store.due(1e12, 9), 3.0)
        eventually(lambda: status_page(older)["warning"] == "", 3.0)
        member = Transaction(store).read(Member, "twin")
        assert member.address == status_page(older)["address"] and not member.stopped
        store.close()
    finally:
        older.stop()
        newer.stop()


def test_a_store_that_fails_in_the_middle_costs_no_timer_what_came_of_it(cluster):
    cluster.receive(register())
    for number in range(3):
        cluster.receive(invite(call_id=f"t{number}"))
    cluster.now += 210.0
    save, left = cluster.store.save, iter([True])

    def fail(changes):
        if changes[0].kind == "call" and not next(left, False):
            raise StoreDown("just now")
        save(changes)

    cluster.store.save = fail
    cluster.tick()
    assert len(cluster.fired) == 1 and cluster.fired[0].writes
    assert cluster.nodes["server1"].trouble == "just now"


def test_an_inbox_is_bounded_in_octets_too(monkeypatch):
    from plumbing.udp_batch import Channel, fastest_io
    from slee_mock import receive_queue as inbox

    monkeypatch.setattr(inbox, "MOST_OCTETS", 100_000)
    with (
        bind_udp(("127.0.0.1", 0)) as ours,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as theirs,
    ):
        theirs.connect(ours.getsockname())
        waiting, channel = inbox.ReceiveQueue(lambda: 1.0), Channel(ours, fastest_io())
        handled = 0
        for number in range(10):
            theirs.send(f"BYE {number} ".encode() + b"x" * 40_000)
            waiting.fill(channel)
        assert len(waiting) <= 3
        while waiting:
            handled += len(list(waiting.take(2)))
            waiting.fill(channel)
        assert handled > 3, "what had no room waits in the socket"
