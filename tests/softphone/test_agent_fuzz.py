"""Invariant: whatever bytes come, an agent raises nothing, and a call that the bytes did not belong
to goes on."""

from __future__ import annotations

import random

import pytest
from agent_kit import BOB, Line, Network, pair, talking

from softphone.ua.events import CallState

STRANGER = ("127.0.0.1", 5099)
ODD = (
    b"\0",
    b"\xff",
    b"\r\n",
    b"\n",
    b" ",
    b";",
    b",",
    b":",
    b"<",
    b">",
    b'"',
    b"@",
    b"=",
    b"%",
    b"-1",
    b"4294967296",
    b"\xe2\x80\xae",
    b";lr",
    b"sip:",
    b"[::1]",
    b"z9hG4bK",
)


def mutated(data: bytes, dice: random.Random) -> bytes:
    """A few small changes: bytes replaced, inserted, cut, lines doubled, swapped or gone."""
    for _ in range(dice.randint(1, 4)):
        at, kind = dice.randrange(len(data) + 1), dice.randrange(6)
        if kind == 0:
            data = data[:at] + dice.choice(ODD) + data[at + 1 :]
        elif kind == 1:
            data = data[:at] + dice.choice(ODD) + data[at:]
        elif kind == 2:
            data = data[:at] + data[at + dice.randint(1, 40) :]
        else:
            lines = data.split(b"\r\n")
            line, other = dice.randrange(len(lines)), dice.randrange(len(lines))
            if kind == 3:
                lines.insert(other, lines[line])
            elif kind == 4:
                lines[line], lines[other] = lines[other], lines[line]
            else:
                del lines[line]
            data = b"\r\n".join(lines)
    return data


def recorded() -> list[bytes]:
    """The datagrams of a call with hold, probe, cancel and refusal."""
    network, alice, bob = talking()
    for wish in ("hold", "resume", "probe", "hang_up"):
        alice.does(wish)
        network.run(0.1)
    bob.calls("sip:alice@127.0.0.1:5062")
    network.run(0.1)
    bob.does("hang_up")
    network.run(0.1)
    alice.calls(BOB)
    network.run(0.1)
    bob.does("decline")
    network.run(0.1)
    return [passage.data for passage in network.passed]


def in_state(state: str) -> tuple[Network, Line]:
    if state == "talking":
        network, alice, bob = talking()
        alice.does("hold")  # sent, and not yet received
    else:
        network, alice, bob = pair()
        if state == "ringing here":
            alice.calls(BOB)
        elif state == "calling":
            bob.calls("sip:alice@127.0.0.1:5062")
        network.run(0.1)
        if state == "calling":
            alice.answers()
        elif state == "ringing here":
            alice.does("hang_up")
    return network, bob


@pytest.mark.parametrize("state", ["idle", "ringing here", "calling", "talking"])
@pytest.mark.parametrize("seed", range(5))
def test_mutated_messages_never_raise(state, seed):
    dice = random.Random(f"{state} {seed}")
    sources = recorded()
    network, bob = in_state(state)
    live = [passage.data for passage in network.passed]
    for _ in range(400):
        data = mutated(dice.choice(sources + live * 3), dice)
        for send in bob.receive(data, STRANGER, network.now):
            assert send[0]
        network.now += dice.choice((0.0, 0.01, 1.0))
        bob.on_deadline(network.now)
    for wish in ("hold", "resume", "probe", "decline", "hang_up", "unregister"):
        bob.does(wish)
    bob.answers()
    network.parties.clear()
    while bob.deadline is not None:
        bob.on_deadline(bob.deadline)
    assert all(call.state is CallState.ENDED for call in bob.agent.calls)


def test_pure_noise_never_raises():
    dice = random.Random(7)
    _, bob = in_state("talking")
    for _ in range(3000):
        bob.receive(dice.randbytes(dice.randrange(200)), STRANGER, 1001.0)
    assert bob.state is CallState.TALKING and len(bob.agent.dropped) <= 101
