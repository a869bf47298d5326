"""The document's story and its variations, told with all cores joined in memory on one fake clock.
A server that dies at any message of a call or a registration is in test_crash_sweep.py."""

from __future__ import annotations

import random

import pytest
from agent_kit import Line
from slee_kit import FORWARDER
from wire import DAY, World

from slee_mock.services.bindings_record import Bindings
from softphone.ua.events import CallState, RegistrationState

RINGING, INCOMING, TALKING, ENDED = (
    CallState.RINGING,
    CallState.INCOMING,
    CallState.TALKING,
    CallState.ENDED,
)
REGISTERED, UNREACHABLE = RegistrationState.REGISTERED, RegistrationState.UNREACHABLE


def states(world: World) -> tuple[CallState | None, CallState | None]:
    return world.alice.state, world.bob.state


def test_two_phones_register_and_call_each_other_through_the_hot_server():
    world = World()
    world.talk()
    assert world.alice.agent.registration.sentence == "Registered through server1"
    assert states(world) == (TALKING, TALKING), world.network.ladder()
    assert world.bob.call.peer_name == "Alice"
    assert world.servers["server1"].handled and not world.servers["server2"].handled
    world.run(12.0)
    world.alice.does("hang_up")
    world.run()
    assert states(world) == (ENDED, ENDED)
    assert (world.bill.seconds, world.bill.final, world.phones_retransmissions) == (12, True, 0)


def test_every_message_of_a_call_passes_forwarder_and_server():
    world = World()
    world.talk()
    phones = {world.alice.address, world.bob.address}
    assert not [p for p in world.network.passed if {p.source, p.to} == phones]
    invite = next(
        p.message for p in world.network.passed if p.name == "INVITE" and p.to == world.bob.address
    )
    assert [via.port for via in invite.vias] == [5060, 5070, 5060, 5062]


def test_bye_after_server_death_is_billed_by_the_survivor():
    world = World()
    world.talk()
    world.run(7.0)
    world.kill("server1")
    world.run(5.0)
    assert states(world) == (TALKING, TALKING) and world.hot == "server2"
    world.alice.does("hang_up")
    world.run()
    assert (world.alice.sentence, world.bob.sentence) == ("You hung up", "Alice hung up")
    assert (world.bill.seconds, world.bill.final) == (12, True)
    assert [server for server, _ in world.bill.carried] == ["server1", "server2"]
    assert world.phones_retransmissions == 0


def test_a_probe_right_after_the_crash_comes_back_through_the_survivor():
    world = World()
    world.talk()
    world.kill("server1")
    world.alice.does("probe")
    world.run()
    (probe,) = world.alice.probes
    assert probe.status == 200 and probe.at - probe.sent_at < 0.02
    assert world.servers["server2"].handled and world.phones_retransmissions == 0


@pytest.mark.parametrize("number", range(8))
def test_the_server_may_die_at_any_datagram_of_a_registration(number):
    world = World({"alice": "secret", "bob": "hush"})
    world.at_datagram(number, lambda: world.kill("server1"))
    world.register(world.alice)
    assert world.alice.agent.registration.state is REGISTERED and world.phones_retransmissions == 0


def test_a_frozen_server_is_left_within_a_fifth_of_a_second_and_nobody_repeats_himself():
    world = World()
    world.register()
    world.freeze("server1")
    world.alice.calls("bob")
    world.run(0.25)
    assert states(world) == (RINGING, INCOMING) and world.hot == "server2"
    assert world.phones_retransmissions == 0


def test_what_a_thawed_server_says_is_stale_and_reaches_nobody():
    world = World()
    world.talk()
    world.freeze("server1")
    world.alice.does("hang_up")
    world.run(0.5)
    assert states(world) == (ENDED, ENDED)
    before = len(world.alice.messages) + len(world.bob.messages)
    world.servers["server1"].thaw()
    world.network.run(0.04)
    assert len(world.alice.messages) + len(world.bob.messages) == before
    world.run(1.0)
    assert world.hot == "server1" and world.bill.final


def test_a_server_that_was_restarted_gets_the_next_call():
    world = World()
    world.talk()
    world.kill("server1")
    world.run(2.0)
    world.restart("server1")
    world.run(2.0)
    assert world.hot == "server1" and states(world) == (TALKING, TALKING)
    world.alice.does("hang_up")
    world.run()
    assert world.bill.final
    handled = world.servers["server2"].handled
    world.bob.calls("alice")
    world.run()
    assert states(world) == (INCOMING, RINGING) and world.servers["server2"].handled == handled


def test_a_call_begun_on_the_second_server_survives_its_death_too():
    world = World()
    world.register()
    world.kill("server1")
    world.alice.calls("bob")
    world.run()
    world.bob.answers()
    world.run(3.0)
    world.restart("server1")
    world.run(1.0)
    world.kill("server2")
    world.run(1.0)
    world.bob.does("hang_up")
    world.run()
    assert states(world) == (ENDED, ENDED) and (world.bill.seconds, world.bill.final) == (5, True)


def test_with_both_servers_dead_the_person_is_told_and_the_phones_come_back_by_themselves():
    world = World()
    world.kill("server1")
    world.kill("server2")
    world.run()
    world.register()
    assert world.alice.agent.registration.state is UNREACHABLE
    assert world.alice.agent.registration.sentence == "No server answers; trying again in 2 s"
    world.alice.calls("bob")
    world.run()
    assert (world.alice.state, world.alice.sentence) == (
        ENDED,
        "No server can take the call right now",
    )
    world.restart("server2")
    world.run(10.0)
    assert world.alice.agent.registration.state is world.bob.agent.registration.state is REGISTERED
    world.alice.calls("bob")
    world.run()
    assert states(world) == (RINGING, INCOMING)


def test_a_call_outlives_both_servers_and_is_billed_when_one_is_back():
    world = World()
    world.talk()
    world.kill("server1")
    world.kill("server2")
    world.run(3.0)
    assert states(world) == (TALKING, TALKING)
    world.restart("server1")
    world.run(1.0)
    world.alice.does("hang_up")
    world.run()
    assert states(world) == (ENDED, ENDED) and world.bill.final


def test_a_registration_made_with_one_server_is_known_to_the_other():
    world = World({"alice": "secret", "bob": "hush"})
    world.register()
    world.kill("server1")
    world.alice.calls("bob")
    world.run()
    assert states(world) == (RINGING, INCOMING)
    world.run(160.0)
    assert world.bob.agent.registration.state is REGISTERED
    assert not [text for text in world.bob.registration_sentences if "answers" in text], (
        "refreshed unnoticed"
    )


@pytest.mark.parametrize("leaves", [True, False])
def test_a_registration_that_a_thawed_server_comes_to_late_changes_nothing(leaves):
    world = World()
    world.register()
    world.freeze("server1")
    world.bob.does("unregister")
    world.run(1.0)
    # started anew: the same contact, another Call-ID
    anew = Line(world.network, "bob", 5064, FORWARDER, seed=1)
    world.register(anew)
    if leaves:
        anew.does("unregister")
        world.run()
    kept = world.cluster.get(Bindings, "sip:bob@failover.test")
    world.servers["server1"].thaw()
    world.run(1.0)
    assert world.cluster.get(Bindings, "sip:bob@failover.test") == kept
    assert len(kept.bindings) == (0 if leaves else 1)
    world.alice.calls("bob")
    world.run()
    assert world.alice.state is (ENDED if leaves else RINGING)


def test_a_binding_is_refreshed_through_whichever_server_lives_and_expires_once_when_the_phone_is_gone():
    world = World()
    world.register()
    for dead, back in (("server1", "server2"), ("server2", "server1"), ("server1", "server2")):
        world.kill(dead)
        world.restart(back)
        world.run(160.0)  # refreshed at least once
    bindings = world.cluster.get(Bindings, "sip:bob@failover.test")
    assert len(bindings.bindings) == 1
    assert world.bob.agent.registration.state is REGISTERED
    world.network.lose = lambda passage: world.bob.address in (passage.source, passage.to)
    world.run(bindings.bindings[0].expires_at - DAY - world.network.now + 1.0)
    world.alice.calls("bob")
    world.run()
    assert (world.alice.sentence, world.alice.call.status) == (
        "Bob cannot be reached right now",
        480,
    )


def test_somebody_who_found_the_right_password_after_ten_wrong_ones_is_let_in_by_itself_a_little_later():
    world = World({"alice": "secret", "bob": "hush"})
    for number in range(10):
        if number == 5:
            world.kill("server1")
        world.register(world.phone("bob", 5064, f"guess{number}"))
    bob = world.phone("bob", 5064, "hush")
    world.register(bob)
    assert bob.agent.registration.state is not REGISTERED
    world.register(world.alice)
    assert world.alice.agent.registration.state is REGISTERED, "another name at the same address"
    world.run(2.0)
    assert bob.agent.registration.state is REGISTERED


@pytest.mark.parametrize(
    ("story", "sentence", "status"),
    [
        ("busy", "Bob is busy", 486),
        ("declines", "Bob declined the call", 603),
        ("nobody", "No such user: carol", 404),
    ],
)
def test_refusals_come_through_the_servers(story, sentence, status):
    world = World()
    world.register()
    carol = world.phone("carol", 5066)
    if story == "busy":
        world.register(carol)
        carol.calls("bob")
        world.run()
    world.alice.calls("carol" if story == "nobody" else "bob")
    world.run()
    if story == "declines":
        world.bob.does("decline")
        world.run()
    assert (world.alice.sentence, world.alice.call.status) == (sentence, status)
    assert world.phones_retransmissions == 0


def test_a_wrong_password_is_refused_by_any_server():
    world = World({"alice": "secret", "bob": "hush"})
    mallory = world.phone("alice", 5070 + 100, "guess")
    world.register(mallory)
    assert mallory.agent.registration.sentence == "The password of alice is wrong"
    world.kill("server1")
    mallory.does("register")
    world.run()
    assert mallory.agent.registration.sentence == "The password of alice is wrong"


def test_a_phone_that_leaves_is_not_called_any_more():
    world = World()
    world.register()
    world.bob.does("unregister")
    world.run()
    world.alice.calls("bob")
    world.run()
    assert world.alice.state is ENDED and not world.bob.agent.calls


def test_a_name_with_odd_letters_arrives_as_it_was_written():
    world = World()
    name = 'Zo\u00eb "Z" \u0645\u0631\u064a\u0645'
    odd = Line(world.network, "zoe", 5068, ("127.0.0.1", 5060), display_name=name)
    world.register(world.bob, odd)
    odd.calls("bob")
    world.run()
    assert world.bob.call.peer_name == name and world.bob.sentence == f"{name} is calling"


@pytest.mark.parametrize("seed", range(10))
def test_a_lossy_network_and_a_crash_cost_time_and_nothing_else(seed):
    dice = random.Random(seed)
    world = World()
    world.network.lose = lambda passage: dice.random() < 0.1
    world.register()
    world.run(30.0)
    world.alice.calls("bob")
    world.network.run_until(lambda: world.bob.state is INCOMING)
    world.bob.answers()
    world.network.run_until(lambda: world.alice.state is TALKING)
    world.run(5.0)
    world.kill("server1")
    world.run(5.0)
    world.alice.does("hang_up")
    world.network.run_until(lambda: states(world) == (ENDED, ENDED))
    world.run(40.0)
    assert world.bill.final and 9 <= world.bill.seconds <= 50
    assert len(world.bob.agent.calls) == 1


@pytest.mark.parametrize("seed", range(6))
def test_calls_spread_over_both_servers_survive_the_death_of_either(seed):
    world = World(policy="call-id")
    world.alice = Line(world.network, "alice", 5062, ("127.0.0.1", 5060), seed=seed)
    world.talk()
    world.run(2.0)
    ((carrier, _),) = world.bill.carried
    world.kill(carrier)
    world.run(3.0)
    world.alice.does("hang_up")
    world.run()
    assert states(world) == (ENDED, ENDED) and world.bill.final
    assert len(world.bill.carried) == 2
