"""Prepaid callers: refused when they cannot pay, billed no further than they have paid, and each
unit once."""

from __future__ import annotations

import random
import re

import pytest
from prepaid import Account, Reservation, balance_end, money, read_balances
from slee_kit import ADDRESSES, Cluster, answer, invite, kept, phone_request, register
from wire import DELAY, World

from sip.message import Request, Response
from slee_mock.container.deployment import DeployError
from slee_mock.services.bill_record import Bill, total_at
from slee_mock.store.interface import Transaction

TARIFF = "0.10+0.05/10s"
BOB = "<sip:bob@127.0.0.1:4100>"


@pytest.fixture
def prepaid(tmp_path):
    """prepaid("alice:0.30") -> a cluster in which Bob can be called."""

    def make(*lines: str, store=None) -> Cluster:
        (tmp_path / "balances").write_text("\n".join(lines))
        cluster = Cluster(store=store, deploy=(f"prepaid:{tmp_path / 'balances'}",), tariff=TARIFF)
        cluster.one(register(expires="3600"))
        return cluster

    return make


def balance(cluster: Cluster, user: str = "alice", paid_in: int = 0) -> str:
    account = cluster.get(Account, user) or Account(user)
    return money(paid_in - account.used(cluster.now))


def of_alice(method: str, call_id: str = "c1", cseq: int = 2, **more) -> Request:
    """A request of hers within the dialog of `talk`."""
    return phone_request(
        method,
        "sip:bob@127.0.0.1:4100",
        to="<sip:bob@failover.test>",
        to_tag=f"b-{call_id}",
        tag=f"a-{call_id}",
        cseq=cseq,
        call_id=call_id,
        **more,
    )


def talk(cluster: Cluster, call_id: str = "c1", at: str = "server1") -> None:
    cluster.one(
        answer(
            cluster.one(invite(call_id=call_id, tag=f"a-{call_id}"), at), 200, tag=f"b-{call_id}"
        ),
        at,
    )
    cluster.one(of_alice("ACK", call_id, cseq=1), at)


def hang_up(cluster: Cluster, call_id: str = "c1", at: str = "server1") -> None:
    cluster.one(of_alice("BYE", call_id), at)


def test_who_cannot_pay_the_set_up_fee_and_the_first_unit_is_refused(prepaid):
    cluster = prepaid("alice:0.14", "carol:0.15")
    refused = cluster.one(invite())
    assert (refused.status, refused.reason) == (402, "Payment Required")
    assert cluster.get(Bill, "c1") is None, "what did not become a call has no bill"
    assert cluster.one(invite(user="carol", call_id="c2")).method == "INVITE"


def test_who_has_no_line_in_the_file_calls_without_limit(prepaid):
    cluster = prepaid("carol:0.00")
    talk(cluster)
    cluster.now += 1700
    cluster.tick()
    assert cluster.bill().units == 170 and not cluster.bill().unpaid
    assert cluster.get(Account, "alice") is None


def test_at_the_balances_end_the_bill_stops_growing_and_says_so(prepaid):
    cluster = prepaid("alice:0.25")
    talk(cluster)
    cluster.now += 30.0
    cluster.tick()
    assert (cluster.bill().units, cluster.bill().total, cluster.bill().unpaid) == (3, "0.25", False)
    cluster.now += 0.5
    cluster.tick("server2")  # server1, which set the timer, is dead
    assert (cluster.bill().total, cluster.bill().state, cluster.bill().unpaid) == (
        "0.25",
        "answered",
        True,
    )
    assert cluster.bill().why == "alice and bob are talking; alice's balance ended before"
    assert cluster.bill().carried == (("server1", 30),), "a timer makes nobody a carrier"
    cluster.now += 100
    hang_up(cluster, at="server2")
    bill = cluster.bill()
    assert (bill.total, bill.seconds, bill.why) == (
        "0.25",
        130,
        "alice hung up; alice's balance ended before",
    )
    assert balance(cluster, paid_in=250_000) == "0.00"


def test_a_balances_end_that_no_server_lived_to_see_is_found_at_the_hang_up(prepaid):
    cluster = prepaid("alice:0.32")
    talk(cluster)
    cluster.now += 500
    hang_up(cluster)
    assert (cluster.bill().total, cluster.bill().unpaid) == ("0.30", True)
    assert balance(cluster, paid_in=320_000) == "0.02"


def test_what_a_ringing_call_needs_is_kept_for_it_and_given_back_if_nobody_answers(prepaid):
    cluster = prepaid("alice:0.25")
    offered = cluster.one(invite())
    assert cluster.one(invite(call_id="c2", tag="a2")).status == 402
    cluster.one(answer(offered, 486))
    assert balance(cluster, paid_in=250_000) == "0.25"
    assert cluster.one(invite(call_id="c3", tag="a3")).method == "INVITE"


def test_two_calls_of_one_caller_share_the_balance(prepaid):
    cluster = prepaid("alice:0.55")
    talk(cluster, "c1")
    cluster.now += 15  # 0.20
    # 0.35, then 0.40 at 20, 0.45 at 25, 0.50 at 30, 0.55 at 35, and 40 is too much
    talk(cluster, "c2", at="server2")
    cluster.now += 25.1
    cluster.tick("server2")
    assert [cluster.bill(each).total for each in ("c1", "c2")] == ["0.30", "0.25"]
    assert [cluster.bill(each).unpaid for each in ("c1", "c2")] == [True, False]
    cluster.now += 60
    hang_up(cluster, "c1", at="server2")
    hang_up(cluster, "c2")
    assert [cluster.bill(each).total for each in ("c1", "c2")] == ["0.30", "0.25"]
    assert balance(cluster, paid_in=550_000) == "0.00"


def test_a_top_up_lets_the_running_call_go_on(prepaid):
    cluster = prepaid("alice:0.25")
    talk(cluster)
    cluster.now += 25
    cluster = restarted(prepaid, cluster, "alice:0.40")
    cluster.now += 10
    cluster.tick()
    assert (cluster.bill().total, cluster.bill().unpaid) == ("0.30", False)
    cluster.now += 30
    cluster.tick()
    assert (cluster.bill().total, cluster.bill().unpaid) == ("0.40", True)


def restarted(prepaid, cluster: Cluster, *lines: str) -> Cluster:
    wall = cluster.now
    cluster = prepaid(*lines, store=cluster.store)
    cluster.now = wall
    return cluster


def test_no_more_calls_at_once_than_an_account_can_hold(prepaid):
    cluster = prepaid("alice:100")
    for number in range(8):
        assert cluster.one(invite(call_id=f"c{number}", tag=f"a{number}")).method == "INVITE"
    assert (
        refused := cluster.one(invite(call_id="c8", tag="a8"))
    ).status == 403 and "8 Calls" in refused.reason


@pytest.mark.parametrize("seed", range(60))
def test_the_accounts_equal_the_bills_whatever_is_repeated_lost_or_handled_twice(prepaid, seed):
    """Three calls of one caller; every message may come again, to either server, in the middle of
    another's saving, or after its server died between saving and sending. Timers run out late or
    not at all, answers stay without their ACK, hang-ups were kept while no server lived, phones
    fall silent and talk on."""
    dice = random.Random(seed)
    paid_in = dice.choice(("0.15", "0.40", "0.75", "1.23", "9.00"))
    cluster = prepaid(f"alice:{paid_in}")

    def handle(message) -> list:
        at = dice.choice(list(ADDRESSES))
        if dice.random() < 0.3:  # the other server is faster with the same message
            other = next(name for name in ADDRESSES if name != at)
            cluster.store.before_save = lambda: cluster.receive(message, other)
        sent = cluster.receive(message, at)
        cluster.store.before_save = None
        while dice.random() < 0.3:  # it died before it sent anything, or the message was sent again
            sent = cluster.receive(message, dice.choice(list(ADDRESSES)))
        cluster.now += dice.choice((0.0, 0.2, 3.7, 10.0, 21.3))
        if dice.random() < 0.4:
            cluster.tick(dice.choice(list(ADDRESSES)))
        return sent

    def call(call_id: str):
        (offered,) = handle(invite(call_id=call_id, tag=f"a-{call_id}"))
        yield
        if isinstance(offered, Response):
            assert offered.status == 402
            return
        if dice.random() < 0.2:
            handle(answer(offered, 486))
            return
        handle(answer(offered, 200, tag=f"b-{call_id}"))
        cluster.now += dice.choice((0.0, 0.1, 40.0))
        if dice.random() < 0.8:
            handle(of_alice("ACK", call_id, cseq=1))
        for _ in range(dice.randrange(3)):
            yield
            cluster.now += dice.choice((0.0, 0.0, 2000.0))
            handle(of_alice("INFO", call_id))
        yield
        if dice.random() < 0.9:
            handle(kept(of_alice("BYE", call_id, cseq=3), dice.choice((0, 0, 4.2, 1999.0))))

    running = [call(f"c{number}") for number in range(3)]
    while running:
        each = dice.choice(running)
        if next(each, "over") == "over":
            running.remove(each)
    cluster.now += 2000
    cluster.tick()
    cluster.tick()
    account = cluster.get(Account, "alice") or Account("alice")
    assert account.calls == () and account.due is None
    totals = [total_at(bill, cluster.now).total for bill in Transaction(cluster.store).scan(Bill)]
    assert account.spent == sum(millionths(each) for each in totals)
    # Each call that seemed over and was not has its set-up fee and first unit, whatever the others
    # used meanwhile.
    assert account.spent <= millionths(paid_in) + 3 * 150_000


def millionths(text: str) -> int:
    whole, _, rest = text.partition(".")
    return int(whole + rest.ljust(6, "0"))


@pytest.mark.parametrize(
    ("calls", "paid_in", "end"),
    [
        ([], 10, None),
        ([Reservation("c1", "0+0.05/10s", 100.0)], 0.05, 110.0),
        # the first unit began; too late to be sorry
        ([Reservation("c1", "0+0.05/10s", 100.0)], 0.04, 110.0),
        ([Reservation("c1", "0.10+0.05/10s", 100.0)], 1.00, 280.0),
        ([Reservation("c1", "0.10+0/10s", 100.0)], 0.10, None),
        ([Reservation("c1", "1+0.000001/1s", 100.5)], 9_999, 100.5 + 9_998_000_000),
        # one unit is kept for c2
        ([Reservation("c1", "0+1/10s", 100.0), Reservation("c2", "0+1/10s")], 3, 120.0),
        ([Reservation("c1", "0+1/10s", 100.0), Reservation("c2", "0+1/7s", 105.0)], 4, 119.0),
        ([Reservation("c1", "0+1/10s", 100.0), Reservation("c2", "0+1/10s", 50.0, 2)], 4, 120.0),
    ],
)
def test_when_the_balance_ends(calls, paid_in, end):
    assert balance_end(Account("alice", 0, tuple(calls)), round(paid_in * 1_000_000)) == end


def test_alices_balance_ends_while_the_survivor_carries_her_call(tmp_path):
    (tmp_path / "balances").write_text("# ours\nalice: 0.30\n")
    world = World(deploy=(f"prepaid:{tmp_path / 'balances'}",))
    world.talk()
    world.run(15)
    world.kill("server1")
    world.run(60)
    assert (world.bill.state, world.bill.total, world.bill.unpaid) == ("answered", "0.30", True)
    world.alice.does("hang_up")
    world.run(1)
    assert (world.bill.state, world.bill.total) == (
        "ended",
        "0.30",
    ) and world.bill.seconds == pytest.approx(75, abs=1)
    world.restart("server1")
    world.run(1)
    world.alice.calls("bob")
    world.run(10 * DELAY)
    assert (
        world.alice.sentence == "Your balance is too small for this call" and len(world.bills) == 1
    )


def test_a_balance_is_written_with_as_many_digits_as_it_takes():
    assert [money(each) for each in (0, 50_000, 1_234_567, -250_000, 999_999_999_000_000)] == [
        "0.00",
        "0.05",
        "1.234567",
        "-0.25",
        "999999999.00",
    ]


def test_the_file_of_balances_may_have_blank_lines_and_remarks(tmp_path):
    (tmp_path / "balances").write_text("# who: how much\n\nalice:5\n  bob : 0.5 \n")
    assert read_balances(str(tmp_path / "balances")) == {"alice": 5_000_000, "bob": 500_000}


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ("alice:5\nalice:6", "balances:2: there are two lines for alice; keep one"),
        ("alice", "balances:1: a line is user:money, as in alice:5.00"),
        ("alice:-5", "balances:1: a line is user:money"),
        ("alice:1e3", "balances:1: a line is user:money"),
        (
            None,
            "prepaid: cannot read .*balances: No such file or directory; write lines user:money",
        ),
    ],
)
def test_a_fault_in_the_file_of_balances_is_named(tmp_path, lines, sentence):
    path = tmp_path / "balances"
    if lines is not None:
        path.write_text(lines)
    with pytest.raises(DeployError, match=sentence):
        Cluster(deploy=(f"prepaid:{path}",))


def test_without_a_file_it_says_what_to_write():
    with pytest.raises(DeployError, match=re.escape("prepaid: cannot read a file without a name")):
        Cluster(deploy=("prepaid",))


@pytest.mark.long
@pytest.mark.parametrize("number", range(1, 26))
def test_wherever_in_the_call_the_server_dies_alice_pays_once(tmp_path, number):
    """Number 1 is the INVITE, 24 the last answer to the BYE."""
    (tmp_path / "balances").write_text("alice:1.00")
    world = World(deploy=(f"prepaid:{tmp_path / 'balances'}",))
    world.register()
    world.at_datagram(number, lambda: world.kill("server1"))
    world.alice.calls("bob")
    world.run(1)
    world.bob.answers()
    world.run(12)
    world.alice.does("hang_up")
    world.run(5)
    account = Transaction(world.cluster.store).read(Account, "alice")
    assert (world.bill.state, world.bill.total) == ("ended", "0.20")
    assert account.spent == 200_000 and account.calls == () and account.due is None


def test_a_further_call_of_one_call_id_is_admitted_once_like_any_other(prepaid):
    """A B2BUA keeps the Call-ID; what is kept for its call is not asked of it again."""
    cluster = prepaid("pbx:0.15")
    cluster.one(register("carol", "<sip:carol@127.0.0.1:4300>", call_id="r-carol", expires="3600"))
    cluster.one(invite())
    beside = {"user": "pbx", "tag": "p1", "branch": "z9hG4bKb2b", "uri": "sip:carol@failover.test"}
    assert [cluster.one(invite(**beside), at).method for at in ("server1", "server2")] == [
        "INVITE"
    ] * 2
