"""Calls with SIPp: a party that cannot be talked into anything its scenario does not say."""

from __future__ import annotations

import pytest
from parties_kit import Scene, absent

from softphone.ua.events import CallState

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(absent("sipp")), reason=absent("sipp") or "-"),
]


@pytest.fixture
def alice(owners):
    return owners("alice")


def test_a_caller_that_requires_reliable_responses_is_rung_answered_and_left(
    alice, tmp_path, eventually
):
    with Scene(tmp_path) as scene:
        remote = f"127.0.0.1:{alice.phone.address[1]}"
        sipp = scene.sipp("reliable_caller", remote=remote, user="alice", pause=300)
        eventually(lambda: alice.state is CallState.INCOMING)
        alice.phone.answer()
        sipp.end()
        eventually(lambda: alice.state is CallState.ENDED)
    assert alice.phone.snapshot().retransmissions == 0


def test_a_gateway_that_announces_reliably_is_acknowledged_and_talked_to(
    alice, tmp_path, eventually
):
    with Scene(tmp_path) as scene:
        sipp, port = scene.callee("reliable_callee", 1)
        alice.phone.call(f"sip:gateway@127.0.0.1:{port}")
        eventually(lambda: alice.state is CallState.TALKING)
        alice.phone.hang_up()
        sipp.end()
        eventually(lambda: alice.state is CallState.ENDED)
