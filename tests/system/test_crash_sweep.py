"""Wherever the crash falls, the call goes on and its bill is right: the crash sweep (sweep_kit.py),
cell by cell.

The default run kills the server for good at every message of every flow. The rest are long tests: a
server that is back after two seconds or was only frozen, a network that loses and reorders, and
real processes. In a total outage (outage_sweep_kit.py) both servers die at the same message, and
people hang up and answer while none lives.
"""

from __future__ import annotations

import sys

import pytest
from outage_sweep_kit import BOTH, BOTH_LATE, MAIN_DEEDS, Plan, strike_both, sweep_outages
from outage_sweep_kit import FLOWS as OUTAGE_FLOWS
from sweep_kit import (
    BACK,
    FLOWS,
    FROZEN,
    KILLED,
    POINTS,
    RECEIVED,
    SAVED,
    ZOMBIE,
    Fault,
    MemoryStage,
    Play,
    play_calmly,
    strike,
    sweep,
)
from sweep_process_kit import sweep_process_outages, sweep_processes

from slee_mock.services import bill_record
from slee_mock.sip_adaptor import Forwarders

QUICK = ("caller hangs up", "cancel", "digest")  # the flows whose every fate is in the default run


def troubles(cells):
    """What went wrong, as a list to be read; a sweep that tried nothing is wrong too."""
    cells = list(cells)
    assert cells
    return [
        f"{cell.flow}, {cell.step}, {cell.point}, {cell.fate}: {cell.verdict}"
        for cell in cells
        if cell.trouble
    ]


@pytest.mark.parametrize("flow", FLOWS.values(), ids=lambda flow: flow.name)
def test_a_server_that_dies_at_any_message_costs_no_call_and_no_bill(flow):
    assert troubles(sweep(flow, fates=[KILLED])) == []


@pytest.mark.parametrize(
    "flow",
    [
        pytest.param(flow, marks=[] if flow.name in QUICK else pytest.mark.long)
        for flow in FLOWS.values()
        if not flow.timed
    ],
    ids=lambda flow: flow.name,
)
def test_a_server_that_answers_heartbeats_alone_from_any_message_on_costs_three_seconds_at_most(
    flow,
):
    cells = list(sweep(flow, fates=[ZOMBIE]))
    assert troubles(cells) == []
    assert max(cell.delay for cell in cells) < 3.0


@pytest.mark.long
@pytest.mark.parametrize("flow", FLOWS.values(), ids=lambda flow: flow.name)
def test_a_server_that_comes_back_or_thaws_after_any_message_costs_no_call_and_no_bill(flow):
    assert troubles(sweep(flow, fates=[BACK, FROZEN])) == []


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("flow", FLOWS.values(), ids=lambda flow: flow.name)
def test_a_crash_in_a_network_that_loses_and_reorders_costs_no_call_and_no_bill(flow, seed):
    assert troubles(sweep(flow, seed, [KILLED, FROZEN])) == []


@pytest.mark.long
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs all of 127/8 to answer")
@pytest.mark.parametrize(
    "flow", [flow for flow in FLOWS.values() if not flow.timed], ids=lambda flow: flow.name
)
def test_real_servers_that_die_at_any_message_cost_no_call_and_no_bill(flow):
    assert troubles(sweep_processes([flow])) == []


# -- no server lives for a while -------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("name", OUTAGE_FLOWS)
def test_both_servers_die_at_any_message_and_no_hang_up_is_lost_and_no_bill_is_without_talk(name):
    assert (
        troubles(sweep_outages(names=[name], fates=[BOTH_LATE], points=[SAVED], deeds=MAIN_DEEDS))
        == []
    )


@pytest.mark.long
@pytest.mark.parametrize("name", OUTAGE_FLOWS)
def test_whatever_people_do_while_no_server_lives_each_call_ends_and_is_billed_for_its_talk(name):
    assert troubles(sweep_outages(names=[name])) == []


@pytest.mark.long
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs all of 127/8 to answer")
@pytest.mark.parametrize("deed", MAIN_DEEDS)
@pytest.mark.parametrize("name", ["caller hangs up", "cancel"])
def test_both_real_servers_die_at_any_message_and_no_hang_up_is_lost_nor_talk_invented(name, deed):
    assert troubles(sweep_process_outages(names=[name], fates=[BOTH], deeds=[deed])) == []


def test_the_sweep_notices_a_hang_up_that_is_billed_when_it_was_passed_on(monkeypatch):
    plan = Plan("caller hangs up", "nobody does anything", "BYE", Fault(7, RECEIVED, BOTH_LATE))
    assert not strike_both(plan).trouble
    monkeypatch.setattr(Forwarders, "seconds_kept", lambda *_: 0.0)
    assert "s from the hang-up" in strike_both(plan).trouble


def test_the_sweep_notices_a_bill_without_talk(monkeypatch):
    plan = Plan("caller hangs up", "alice hangs up", "200 INVITE", Fault(5, SAVED, BOTH))
    assert not strike_both(plan).trouble
    monkeypatch.setattr(bill_record, "is_billed", lambda bill: bill.answered is not None)
    assert "a bill without talk" in strike_both(plan).trouble


def test_the_sweep_notices_a_hang_up_that_the_forwarder_refuses(monkeypatch):
    plan = Plan("caller hangs up", "nobody does anything", "BYE", Fault(7, RECEIVED, BOTH_LATE))
    monkeypatch.setattr("failover.proxy.outage_queue.OutageQueue.release", lambda *_: [])
    assert strike_both(plan).trouble


# -- would the sweep notice? -----------------------------------------------------------------------


def test_a_flow_tells_the_messages_that_the_server_is_given():
    assert play_calmly(FLOWS["cancel"]).steps == [
        "REGISTER",
        "REGISTER",
        "INVITE",
        "180 INVITE",
        "CANCEL",
        "200 CANCEL",
        "487 INVITE",
        "ACK",
    ]


@pytest.mark.parametrize("point", POINTS)
def test_the_sweep_notices_a_call_that_nobody_takes_over(point, monkeypatch):
    flow = FLOWS["caller hangs up"]
    calm = play_calmly(flow)
    # The forwarder forgets what was in flight.
    monkeypatch.setattr("failover.proxy.pending_messages.PendingMessages.move_all", lambda *_: 0)
    for number in (calm.steps.index("INVITE") + 1, calm.steps.index("BYE") + 1):
        assert strike(flow, Fault(number, point), calm).trouble


def test_the_sweep_notices_a_bill_that_begins_too_late(monkeypatch):
    flow = FLOWS["caller hangs up"]
    with MemoryStage(flow) as stage:
        play = Play(stage)
        flow.tell(play)
        (bill,) = stage.bills()
        late = type(bill)(**{**vars(bill), "answered": play.alice.view.answered_at + 0.1})
        monkeypatch.setattr(stage, "bills", lambda: [late])
        with pytest.raises(AssertionError, match="the answer is billed"):
            play.check(1)
