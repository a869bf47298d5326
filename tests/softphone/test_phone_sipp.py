"""Calls with SIPp: a party that cannot be talked into anything its scenario does not say."""

from __future__ import annotations

import pytest
from parties_kit import Scene, absent

from softphone.phone import Account, Phone
from softphone.ua.events import CallChanged, CallState

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(absent("sipp")), reason=absent("sipp") or "-"),
]


@pytest.fixture
def alice():
    events: list[object] = []
    account = Account("alice", "failover.test", "", "Alice")
    phone = Phone(account, None, ("127.0.0.1", 0), events.append, register=False)
    phone.start()
    yield phone, events
    phone.stop()


def last(events: list[object]):
    calls = [event.call for event in events if isinstance(event, CallChanged)]
    return calls[-1] if calls else None


def test_a_caller_that_requires_reliable_responses_is_rung_answered_and_left(
    alice, tmp_path, eventually
):
    phone, events = alice
    with Scene(tmp_path) as scene:
        remote = f"127.0.0.1:{phone.address[1]}"
        sipp = scene.sipp("reliable_caller", remote=remote, user="alice", pause=300)
        eventually(lambda: last(events) and last(events).state is CallState.INCOMING)
        phone.answer()
        sipp.end()
        eventually(lambda: last(events).state is CallState.ENDED)
    assert phone.snapshot().retransmissions == 0


def test_a_gateway_that_announces_reliably_is_acknowledged_and_talked_to(
    alice, tmp_path, eventually
):
    phone, events = alice
    with Scene(tmp_path) as scene:
        sipp, port = scene.callee("reliable_callee", 1)
        phone.call(f"sip:gateway@127.0.0.1:{port}")
        eventually(lambda: last(events) and last(events).state is CallState.TALKING)
        phone.hang_up()
        sipp.end()
        eventually(lambda: last(events).state is CallState.ENDED)
