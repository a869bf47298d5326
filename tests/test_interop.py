"""The phone beside foreign ones (baresip, linphonec, SIPp), all that two people do with two phones: (a) through our
forwarder to two mock servers, of which one is killed in mid-call, and (b) directly at a Kamailio that knows nothing of us.

The table of docs/phones.txt is what this run shows.
"""

from __future__ import annotations

import pytest
from interop_kit import MODULES, PASSWORDS, Baresip, Linphone, Ours
from parties_kit import SCENARIOS, Scene, absent, is_taken, wait_until

from plumbing.address import parse_address
from softphone.agent.event import CallState

CHAIN, KAMAILIO = "our chain", "Kamailio"
TALKING, RINGING, INCOMING, ENDED = CallState.TALKING, CallState.RINGING, CallState.INCOMING, CallState.ENDED
pytestmark = pytest.mark.long


def needs(*programs):
    return pytest.mark.skipif(bool(absent(*programs)), reason=absent(*programs) or "-")


NETWORKS = [CHAIN, pytest.param(KAMAILIO, marks=needs("kamailio"))]
PHONES = [pytest.param(Baresip, marks=[needs("baresip"), pytest.mark.skipif(not MODULES, reason="no modules")]),
          pytest.param(Linphone, marks=needs("linphonec"))]  # fmt: skip


def proxy_of(scene, network) -> tuple[str, int]:
    """Starts the servers; where phones send everything."""
    if network == KAMAILIO:
        address = f"127.0.0.1:{scene.ports['server1']}"
        file = scene.folder / "registrar.cfg"
        file.write_text((SCENARIOS / "registrar.cfg").read_text().replace("LISTEN", address))
        started = scene.start("kamailio", ["kamailio", "-DD", "-E", "-f", str(file), "-w", str(scene.folder),
                                           "-Y", str(scene.folder), "-m", "32", "-M", "4"])  # fmt: skip
        wait_until(lambda: started.status is None and is_taken(scene.ports["server1"]), note=lambda: started.said)
        return parse_address(address)
    users = scene.folder / "users"
    users.write_text("".join(f"{user}:{password}\n" for user, password in PASSWORDS.items()))
    scene.forwarder("heartbeat.fall=10")
    for name in ("server1", "server2"):
        scene.mock(name, "--users", str(users))
    scene.up("server1", "server2")
    return parse_address(scene.address)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("kind", PHONES)
def test_all_that_two_people_do_with_two_phones(kind, network, tmp_path):
    with Scene(tmp_path) as scene:
        proxy = proxy_of(scene, network)
        people = alice, carol = Ours("alice", proxy), Ours("carol", proxy)
        bob = kind(scene, proxy)
        try:
            bob.registers()
            wait_until(lambda: alice.registered and carol.registered)
            we_call_and_the_server_dies(scene, network, alice, bob)
            they_call_and_hang_up(alice, bob)
            calls_that_come_to_nothing(alice, bob)
            who_is_busy_says_so(alice, bob, carol)
        finally:
            bob.stop()
            for each in people:
                each.phone.stop()


def hear_each_other(alice, bob):
    alice.hears()
    bob.hears()


def we_call_and_the_server_dies(scene, network, alice, bob):
    """Tone, digits and hold both ways; with our servers the one that carries the call is killed in between."""
    bob.mark()
    alice.calls("bob")
    bob.rings()
    alice.comes(RINGING)
    bob.answer()
    alice.comes(TALKING)
    bob.talks()
    hear_each_other(alice, bob)
    for digit in "15#":
        alice.phone.dtmf(digit)
        bob.gets_digit(digit)
    alice.phone.hold()
    alice.sees(lambda call: call.held_here)
    alice.phone.resume()
    alice.sees(lambda call: not call.held_here)
    if network == CHAIN:
        server = "server1" if "server1" in alice.phone.snapshot().registration.sentence else "server2"
        scene.processes[server].kill()
    alice.hears()
    bob.hears_again()
    for digit in "7*":
        bob.dial(digit)
        wait_until(lambda digit=digit: alice.digits.endswith(digit), note=lambda: (alice.digits, bob.said[-900:]))
    bob.hold()
    alice.sees(lambda call: call.held_there)
    bob.resume()
    alice.sees(lambda call: not call.held_there)
    alice.hears()
    bob.hears_again()
    alice.phone.hang_up()
    bob.is_free()
    alice.comes(ENDED)


def they_call_and_hang_up(alice, bob):
    bob.call("alice")
    alice.comes(INCOMING)
    alice.phone.answer()
    alice.comes(TALKING)
    bob.talks()
    hear_each_other(alice, bob)
    bob.hang_up()
    alice.comes(ENDED)
    assert alice.call.sentence == "Bob hung up"
    bob.is_free()


def calls_that_come_to_nothing(alice, bob):
    """Declined, and given up while it rings; both ways."""
    bob.call("alice")
    alice.comes(INCOMING)
    alice.phone.decline()
    bob.is_told(603)
    bob.is_free()

    bob.mark()
    alice.calls("bob")
    bob.rings()
    bob.decline()
    alice.comes(ENDED)
    assert bob.rejects in alice.call.sentence, alice.seen
    bob.is_free()

    bob.mark()
    alice.calls("bob")
    bob.rings()
    alice.comes(RINGING)
    alice.phone.hang_up()
    bob.is_free()
    alice.comes(ENDED)

    bob.call("alice")
    alice.comes(INCOMING)
    bob.cancel()
    alice.comes(ENDED)
    assert alice.call.sentence == "Missed call from Bob"
    bob.is_free()


def who_is_busy_says_so(alice, bob, carol):
    bob.mark()
    carol.calls("bob")
    bob.rings()
    bob.answer()
    carol.comes(TALKING)
    bob.talks()
    alice.calls("bob")
    alice.comes(ENDED)
    assert alice.call.sentence == "Bob is busy", alice.seen
    carol.phone.hang_up()
    bob.is_free()

    carol.calls("alice")
    alice.comes(INCOMING)
    alice.phone.answer()
    carol.comes(TALKING)
    bob.call("alice")
    bob.is_told(486)
    assert alice.call.state is TALKING
    carol.phone.hang_up()
    alice.comes(ENDED)
