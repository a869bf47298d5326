"""What two people do in the middle of a call, on a network that repeats and shuffles, and while the
server dies."""

from __future__ import annotations

import random

import pytest
from agent_kit import BOB, DELAY, Line, Network, pair, talking
from wire import World

from softphone.ua.events import CallState

TALKING, ENDED = CallState.TALKING, CallState.ENDED


# -- the network alone -----------------------------------------------------------------------------


def live_through_a_call(network: Network, alice: Line, bob: Line) -> None:
    """Call, answer, hold by either, resume, an hour of talk, goodbye."""
    alice.calls(BOB)
    network.run_until(lambda: bob.state is CallState.INCOMING)
    bob.answers()
    network.run_until(lambda: alice.state is TALKING)
    network.run(3)
    ways = ((alice, bob), (bob, alice))
    for held, (line, other) in [(True, way) for way in ways] + [(False, way) for way in ways]:
        wish = "hold" if held else "resume"
        line.does(wish)
        network.run_until(lambda other=other, held=held: other.call.held_there is held)
        network.run(3)
        assert (line.call.held_here, other.call.held_there) == (held, held), network.ladder()
    network.run(3600)
    assert (alice.state, bob.state) == (TALKING, TALKING), network.ladder()
    alice.does("hang_up")
    network.run(40)
    assert (alice.state, bob.state) == (ENDED, ENDED), network.ladder()
    assert (alice.sentence, bob.sentence) == ("You hung up", "Alice hung up")
    network.run(40)
    assert alice.deadline is None and bob.deadline is None


def test_a_network_that_delivers_everything_twice_changes_nothing():
    network, alice, bob = pair()
    network.delays = lambda passage: (DELAY, 3 * DELAY)
    live_through_a_call(network, alice, bob)
    assert sum(event.call.state is TALKING for event in alice.events if hasattr(event, "call")) < 10
    assert (
        bob.sentences.count("Alice is calling") == 1
        and len(bob.agent.calls) == len(alice.agent.calls) == 1
    )


@pytest.mark.parametrize("seed", range(12))
def test_a_network_that_loses_repeats_and_shuffles_costs_time_and_nothing_else(seed):
    network, alice, bob = pair()
    dice = random.Random(seed)
    network.lose = lambda passage: dice.random() < 0.15
    network.delays = lambda passage: [
        dice.uniform(0.001, 0.7) for _ in range(dice.choice((1, 1, 1, 2)))
    ]
    live_through_a_call(network, alice, bob)


def test_a_bye_that_is_answered_twice_ends_the_call_once():
    network, alice, _ = talking()
    network.delays = lambda passage: (DELAY, 2.0) if passage.name == "200 BYE" else (DELAY,)
    alice.does("hang_up")
    network.run(60)
    assert alice.sentences[-2:] == ["Hanging up ...", "You hung up"] and alice.deadline is None


# -- with the servers between, one of which dies ---------------------------------------------------


def talk(world: World) -> None:
    """As World.talk, with time for a frozen server to be noticed."""
    world.register()
    world.run(0.4)
    world.alice.calls("bob")
    world.run(0.5)
    world.bob.answers()
    world.run(0.5)
    assert (world.alice.state, world.bob.state) == (TALKING, TALKING), world.network.ladder()


def both_hang_up_at_once(world: World) -> None:
    talk(world)
    world.alice.does("hang_up")
    world.bob.does("hang_up")


@pytest.mark.parametrize("fate", ["kill", pytest.param("freeze", marks=pytest.mark.long)])
@pytest.mark.parametrize("number", range(24, 40))
def test_the_server_may_die_or_freeze_at_any_datagram_of_two_that_hang_up_at_once(
    number: int, fate: str
):
    """All other flows are in the crash sweep (tests/system/test_crash_sweep.py)."""
    world = World()
    world.at_datagram(number, lambda: getattr(world, fate)("server1"))
    both_hang_up_at_once(world)
    world.run(2)
    assert (world.alice.state, world.bob.state) == (ENDED, ENDED), world.network.ladder()
    assert world.bill.final and world.bill.seconds <= 10
