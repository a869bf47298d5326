"""Session timers, the proxy's part (RFC 4028): who is asked for what, and which calls end by
themselves, and when."""

from __future__ import annotations

from functools import partial

import pytest
import slee_kit
from prepaid import Account
from slee_kit import Cluster, answer, in_dialog, invite, kept
from wire import World

from slee_mock.services.call_record import Call
from slee_mock.settings import SettingsError, parse_arguments

KNOWS = ("Supported", "timer")
cluster_with_bob = partial(slee_kit.cluster_with_bob, "3600")


def talk(*, alice: bool, bob: bool, **context) -> Cluster:
    """They talk, and know session timers or not."""
    cluster = cluster_with_bob(**context)
    offered = cluster.one(invite(fields=[KNOWS] * alice))
    accepted = answer(offered, 200)
    if bob:
        accepted.add("Session-Expires", "1800;refresher=" + ("uac" if alice else "uas"))
    cluster.one(accepted)
    cluster.one(in_dialog("ACK", cseq=1))
    return cluster


def refresh(cluster: Cluster, at: str, cseq: int = 2, status: int = 200) -> None:
    fields = [KNOWS, ("Session-Expires", "1800;refresher=uac")]
    accepted = answer(
        cluster.one(in_dialog("UPDATE", cseq=cseq, fields=fields), at), status, contact=""
    )
    accepted.add("Session-Expires", "1800;refresher=uac")
    cluster.one(accepted, at)


@pytest.mark.parametrize(
    ("fields", "forwarded"),
    [
        ([], {"Session-Expires": "1800"}),
        ([KNOWS], {"Session-Expires": "1800", "Supported": "timer"}),
        ([KNOWS, ("x", "600;refresher=uac")], {"Session-Expires": "600;refresher=uac"}),
        (
            [KNOWS, ("Session-Expires", "7200;refresher=uas")],
            {"Session-Expires": "1800;refresher=uas"},
        ),
        (
            [KNOWS, ("Session-Expires", "7200"), ("Min-SE", "3600")],
            {"Session-Expires": "3600", "Min-SE": "3600"},
        ),
        ([KNOWS, ("Min-SE", "2000")], {"Session-Expires": "2000", "Min-SE": "2000"}),
        # would not understand 422
        ([("Session-Expires", "30")], {"Session-Expires": "90", "Min-SE": "90"}),
    ],
)
def test_the_session_interval_that_an_invite_goes_on_with(fields, forwarded):
    sent = cluster_with_bob().one(invite(fields=fields))
    assert {name: sent.get(name) for name in forwarded} == forwarded
    assert len(sent.all("Session-Expires")) == 1


def test_a_phone_that_asks_for_too_short_a_session_hears_the_shortest():
    cluster = cluster_with_bob()
    refused = cluster.one(invite(fields=[KNOWS, ("Session-Expires", "89")]))
    assert (refused.status, refused.get("Min-SE")) == (422, "90")
    assert cluster.get(Call, "c1") is None
    assert cluster.one(invite(cseq=2, fields=[KNOWS, ("Session-Expires", "90")])).method == "INVITE"


def test_a_malformed_interval_is_the_phones_fault_and_costs_no_answered_call():
    cluster = cluster_with_bob()
    assert cluster.one(invite(fields=[("Session-Expires", "soon")])).status == 400
    accepted = answer(cluster.one(invite(cseq=2, call_id="c2")), 200)
    accepted.add("Session-Expires", "soon")
    assert cluster.one(accepted).status == 200


def test_without_session_timers_nothing_is_asked_for():
    cluster = cluster_with_bob(session_expires=0)
    assert cluster.one(invite(fields=[KNOWS])).get("Session-Expires") is None


@pytest.mark.parametrize("at", ["server1", "server2"])
def test_the_caller_refreshes_for_a_callee_that_does_not_know_timers(at):
    cluster = cluster_with_bob()
    offered = cluster.one(invite(fields=[KNOWS]))
    for _ in range(2):  # a retransmission too
        accepted = cluster.one(answer(offered, 200), at)
        assert (accepted.get("Session-Expires"), accepted.get("Require")) == (
            "1800;refresher=uac",
            "timer",
        )


def test_nothing_is_required_of_a_caller_that_does_not_know_timers():
    cluster = cluster_with_bob()
    accepted = cluster.one(answer(cluster.one(invite()), 200))
    assert accepted.get("Session-Expires") is accepted.get("Require") is None


@pytest.mark.parametrize(("alice", "bob"), [(True, True), (True, False), (False, True)])
def test_a_call_whose_phones_vanished_ends_with_its_last_message(alice, bob):
    cluster = talk(alice=alice, bob=bob)
    cluster.now += 125.5
    cluster.one(in_dialog("INFO"))
    cluster.now += 1800 - 125.5 - 1
    cluster.tick("server2")
    assert cluster.bill().state == "answered"
    cluster.now += 2
    cluster.tick("server2")
    bill = cluster.bill()
    assert (bill.state, bill.seconds, bill.units, bill.final) == ("ended", 125, 13, True)
    assert bill.why == "the phones of alice and bob fell silent; counted to their last message"
    assert bill.carried == (("server1", 125),)


def test_a_refreshed_call_goes_on_for_another_interval():
    cluster = talk(alice=True, bob=True)
    for number in range(4):
        cluster.now += 900
        refresh(cluster, at=("server1", "server2")[number % 2], cseq=2 + number)
        cluster.tick()
    cluster.now += 1799
    cluster.tick()
    assert cluster.bill().state == "answered"
    cluster.now += 1
    cluster.tick()
    assert (cluster.bill().state, cluster.bill().seconds) == ("ended", 3600)


def test_a_refresh_that_was_refused_is_none():
    cluster = talk(alice=True, bob=True)
    cluster.now += 900
    refresh(cluster, at="server1", status=500)
    cluster.now += 900
    cluster.tick()
    assert (cluster.bill().state, cluster.bill().seconds) == ("ended", 900)


def test_a_call_of_phones_that_know_no_timers_is_presumed_over_after_as_long_a_silence():
    cluster = talk(alice=False, bob=False)
    cluster.now += 700
    cluster.one(in_dialog("INFO"))
    cluster.now += 1799
    cluster.tick("server2")
    assert cluster.bill().state == "answered", "each message of it puts the end off"
    cluster.now += 2
    cluster.tick("server2")
    bill = cluster.bill()
    assert (bill.state, bill.seconds, bill.units, bill.final, bill.presumed) == (
        "ended",
        700,
        70,
        True,
        True,
    )
    assert bill.why == "the phones of alice and bob fell silent; counted to their last message"
    assert cluster.get(Call, "c1").due is None


@pytest.mark.parametrize("by", ["alice", "bob"])
def test_phones_that_talked_all_the_same_are_billed_to_their_hang_up(by):
    cluster = talk(alice=False, bob=False)
    cluster.now += 5000
    cluster.tick()
    assert cluster.bill().seconds == 0
    cluster.now += 2000
    assert cluster.one(in_dialog("BYE", by=by), "server2").method == "BYE"
    bill = cluster.bill()
    assert (bill.seconds, bill.units, bill.why, bill.presumed) == (
        7000,
        700,
        f"{by} hung up",
        False,
    )
    cluster.now += 5
    cluster.one(in_dialog("BYE", by=by))
    assert cluster.bill().seconds == 7000, "a hang-up that was heard stands"


def test_a_message_of_phones_that_know_no_timers_proves_that_they_go_on_and_they_have_the_same_bound_again():
    cluster = talk(alice=False, bob=False)
    cluster.now += 5000
    cluster.tick()
    cluster.one(in_dialog("INFO", by="bob"))
    assert (cluster.bill().state, cluster.bill().seconds) == ("answered", 5000)
    cluster.now += 1801
    cluster.tick()
    assert (cluster.bill().state, cluster.bill().seconds, cluster.bill().presumed) == (
        "ended",
        5000,
        True,
    )


def test_no_bound_of_any_kind_without_session_timers():
    cluster = talk(alice=False, bob=False, session_expires=0)
    cluster.now += 20_000
    cluster.tick()
    assert cluster.bill().state == "answered" and cluster.get(Call, "c1").due is None


@pytest.mark.parametrize(
    ("asked", "granted"), [("Min-SE", "999999999"), ("Subject", "999999999"), ("Subject", "soon")]
)
def test_no_phone_can_ask_for_a_session_that_outlives_both_of_them_for_years(asked, granted):
    cluster = cluster_with_bob()
    offered = cluster.one(invite(fields=[KNOWS, (asked, "999999999")]))
    accepted = answer(offered, 200)
    accepted.add("Session-Expires", granted)
    cluster.one(accepted)
    cluster.one(in_dialog("ACK", cseq=1))
    cluster.now += 1801
    cluster.tick()
    assert (cluster.bill().state, cluster.bill().units) == ("ended", 1)


def test_a_call_that_began_before_there_was_a_bound_gets_one_with_its_next_message():
    cluster = talk(alice=False, bob=False, session_expires=0)
    wall = cluster.now + 100
    cluster = Cluster(store=cluster.store)
    cluster.now = wall
    cluster.one(in_dialog("INFO"))
    cluster.now += 1801
    cluster.tick()
    assert (cluster.bill().state, cluster.bill().seconds) == ("ended", 100)


@pytest.mark.parametrize("knows", [True, False])
def test_a_hang_up_that_was_kept_while_no_server_lived_counts_though_the_timer_was_first(knows):
    cluster = talk(alice=knows, bob=knows)
    cluster.now += 1790  # no server lives; alice hangs up, and both are back 20 s later
    cluster.now += 20
    cluster.tick()
    assert (cluster.bill().state, cluster.bill().seconds) == ("ended", 0)
    cluster.one(kept(in_dialog("BYE"), 20))
    bill = cluster.bill()
    assert (bill.seconds, bill.why, bill.presumed) == (1790, "alice hung up", False)


def test_a_refresh_that_was_kept_while_no_server_lived_keeps_the_call():
    cluster = talk(alice=True, bob=True)
    cluster.now += 1810
    cluster.tick()
    fields = [KNOWS, ("Session-Expires", "1800;refresher=uac")]
    offered = cluster.one(kept(in_dialog("UPDATE", fields=fields), 20))
    cluster.tick()
    assert cluster.bill().state == "answered"
    accepted = answer(offered, 200, contact="")
    accepted.add("Session-Expires", "1800;refresher=uac")
    cluster.one(accepted)
    cluster.now += 1799
    cluster.tick()
    assert cluster.bill().state == "answered"


def test_who_hangs_up_is_not_found_silent_later():
    cluster = talk(alice=True, bob=True)
    cluster.now += 60
    cluster.one(in_dialog("BYE"))
    cluster.now += 2000
    cluster.tick()
    assert (cluster.bill().seconds, cluster.bill().why) == (60, "alice hung up")


def test_a_late_bye_still_passes_and_leaves_the_bill_as_it_is():
    cluster = talk(alice=True, bob=True)
    cluster.now += 1800
    cluster.tick()
    assert cluster.one(in_dialog("BYE")).method == "BYE"
    assert (cluster.bill().seconds, cluster.bill().units) == (0, 1)


def test_a_call_that_nobody_answers_ends_in_the_record_too():
    cluster = cluster_with_bob()
    offered = cluster.one(invite())
    cluster.one(answer(offered, 180))
    cluster.now += 201
    cluster.tick("server2")
    bill = cluster.bill()
    assert (bill.state, bill.why, bill.total, bill.final) == (
        "ended",
        "bob did not answer",
        "0.00",
        True,
    )
    assert cluster.get(Call, "c1").due is None


def test_an_answer_after_all_that_time_is_billed_all_the_same():
    cluster = cluster_with_bob()
    offered = cluster.one(invite())
    cluster.now += 201
    cluster.tick()
    cluster.one(answer(offered, 200))
    cluster.one(in_dialog("ACK", cseq=1))
    cluster.now += 11
    cluster.one(in_dialog("BYE"))
    assert (cluster.bill().seconds, cluster.bill().units) == (11, 2)


def test_a_prepaid_call_that_vanished_is_paid_to_its_last_message(tmp_path):
    (tmp_path / "balances").write_text("alice:100")
    cluster = talk(alice=True, bob=True, deploy=(f"prepaid:{tmp_path / 'balances'}",))
    cluster.now += 15
    cluster.one(in_dialog("INFO"))
    cluster.now += 2000
    cluster.tick()
    account = cluster.get(Account, "alice")
    assert account.calls == () and account.due is None and account.spent == 200_000
    assert cluster.bill().total == "0.20"


def test_a_prepaid_call_that_only_seemed_over_is_paid_to_its_hang_up_and_no_further_than_the_balance(
    tmp_path,
):
    (tmp_path / "balances").write_text("alice:100")
    cluster = talk(alice=False, bob=False, deploy=(f"prepaid:{tmp_path / 'balances'}",))
    cluster.now += 2000
    cluster.tick()
    assert cluster.get(Account, "alice").spent == 150_000
    cluster.one(in_dialog("INFO"))
    assert cluster.get(Account, "alice").used(cluster.now) == 10_100_000
    cluster.now += 100_000
    cluster.tick()  # both timers: the call's, and the balance's end
    cluster.one(in_dialog("BYE", cseq=3))
    account = cluster.get(Account, "alice")
    assert (cluster.bill().total, cluster.bill().unpaid, account.spent) == (
        "100.00",
        True,
        100_000_000,
    )
    assert account.calls == () and account.due is None


def test_what_was_kept_for_a_call_that_nobody_answered_is_given_back_and_charged_if_somebody_does(
    tmp_path,
):
    (tmp_path / "balances").write_text("alice:0.20")
    cluster = cluster_with_bob(deploy=(f"prepaid:{tmp_path / 'balances'}",))
    offered = cluster.one(invite())
    cluster.now += 201
    cluster.tick()
    assert cluster.get(Account, "alice").used(cluster.now) == 0
    cluster.one(answer(offered, 200))
    cluster.now += 11
    cluster.one(in_dialog("BYE"))
    assert cluster.get(Account, "alice").spent == 200_000


@pytest.mark.parametrize("text", ["89", "soon", "-1", "1.5"])
def test_an_interval_shorter_than_the_rfc_allows_is_refused(text):
    with pytest.raises(
        SettingsError, match=r"--session-expires: .* is not a whole number of seconds from 90 on"
    ):
        parse_arguments([f"--session-expires={text}"])
    assert parse_arguments(["--session-expires", "0"]).session_expires == 0


# -- with the phones of softphone/ua on the fake clock ------------------------------------------


def test_phones_that_know_timers_keep_their_call_through_a_crash_as_long_as_they_like():
    world = World(session_expires=90)
    world.talk()
    world.run(50)
    world.kill("server1")
    world.run(400)
    assert world.bill.state == "answered"
    world.alice.does("hang_up")
    world.run(1)
    assert (world.bill.state, world.bill.why) == (
        "ended",
        "Alice hung up",
    ) and 449 <= world.bill.seconds <= 451


def test_a_call_whose_phones_are_cut_off_is_billed_to_its_last_message():
    world = World(session_expires=90)
    world.talk()
    world.run(60)
    for phone in (world.alice, world.bob):
        world.network.leave(phone.address)
    world.kill("server1")
    world.run(150)
    bill = world.bill
    assert bill.state == "ended" and "fell silent" in bill.why and 40 <= bill.seconds <= 61


@pytest.mark.parametrize("by", ["alice", "bob"])
def test_a_caller_who_never_refreshes_pays_to_the_hang_up_if_the_other_phone_knows_no_timers(by):
    """She alone was to refresh the session; whoever talks on has not given the call up."""
    cluster = cluster_with_bob()
    offered = cluster.one(invite(fields=[KNOWS, ("Session-Expires", "90")]))
    assert cluster.one(answer(offered, 200)).get("Session-Expires") == "90;refresher=uac"
    cluster.one(in_dialog("ACK", cseq=1))
    cluster.now += 91
    cluster.tick("server2")
    assert (cluster.bill().state, cluster.bill().presumed) == ("ended", True)
    cluster.now += 3600 - 91
    cluster.one(in_dialog("BYE", by=by, cseq=7))
    assert (cluster.bill().seconds, cluster.bill().why) == (3600, f"{by} hung up")


def test_an_answer_cannot_make_the_session_shorter_than_the_rfc_allows():
    cluster = cluster_with_bob()
    accepted = answer(cluster.one(invite(fields=[KNOWS])), 200)
    accepted.add("Session-Expires", "1;refresher=uac")
    cluster.one(accepted)
    cluster.one(in_dialog("ACK", cseq=1))
    cluster.now += 89
    cluster.tick()
    assert cluster.bill().state == "answered"
    cluster.now += 2
    cluster.tick()
    assert cluster.bill().state == "ended"
