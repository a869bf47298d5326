"""The phone beside foreign ones (baresip, linphonec, SIPp), all that two people do with two phones:
(a) through our forwarder to two mock servers, of which one is killed in mid-call, and (b) directly
at a Kamailio that knows nothing of us.

The table of docs/phones.txt is what this run shows.
"""

from __future__ import annotations

import pytest
from interop_kit import PASSWORDS, Baresip, Linphone, Ours, no_baresip
from parties_kit import DOMAIN, SCENARIOS, Scene, Sipp, absent
from process_kit import free_port, is_taken, wait_until

from plumbing.address import format_address, parse_address
from softphone.ua.events import CallState

CHAIN, KAMAILIO = "our chain", "Kamailio"
TALKING, RINGING, INCOMING, ENDED = (
    CallState.TALKING,
    CallState.RINGING,
    CallState.INCOMING,
    CallState.ENDED,
)
pytestmark = pytest.mark.long


def needs(*programs):
    return pytest.mark.skipif(bool(absent(*programs)), reason=absent(*programs) or "-")


NETWORKS = [CHAIN, pytest.param(KAMAILIO, marks=needs("kamailio"))]
PHONES = [
    pytest.param(Baresip, marks=pytest.mark.skipif(bool(no_baresip()), reason=no_baresip() or "-")),
    pytest.param(Linphone, marks=needs("linphonec")),
]


def proxy_of(scene, network, challenged="REGISTER|INVITE") -> tuple[str, int]:
    """Starts the servers; where phones send everything. A SIPp is not challenged for an INVITE."""
    if network == KAMAILIO:
        address = f"127.0.0.1:{scene.ports['server1']}"
        file = scene.folder / "registrar.cfg"
        text = (SCENARIOS / "registrar.cfg").read_text().replace("LISTEN", address)
        file.write_text(text.replace("REGISTER|INVITE", challenged))
        folder = str(scene.folder)
        more = ["-w", folder, "-Y", folder, "-m", "32", "-M", "4"]
        started = scene.start("kamailio", ["kamailio", "-DD", "-E", "-f", str(file), *more])
        wait_until(
            lambda: started.status is None and is_taken(scene.ports["server1"]),
            note=lambda: started.said,
        )
        return parse_address(address)
    users = scene.folder / "users"
    users.write_text("".join(f"{user}:{password}\n" for user, password in PASSWORDS.items()))
    scene.forwarder("heartbeat.fall=10")
    for name in ("server1", "server2"):
        scene.mock(name, *(["--users", str(users)] if "INVITE" in challenged else []))
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
                each.stop()


def hear_each_other(alice, bob):
    alice.hears()
    bob.hears()


def kill_the_server_of(scene, alice):
    """kill -9 of the one that the phone registered through, which is the one that carries its
    call."""
    scene.processes[
        "server1" if "server1" in alice.phone.snapshot().registration.sentence else "server2"
    ].kill()


def we_call_and_the_server_dies(scene, network, alice, bob):
    """Tone, digits and hold both ways; with our servers the one that carries the call is killed
    in between."""
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
        kill_the_server_of(scene, alice)
    alice.hears()
    bob.hears_again()
    for digit in "7*":
        bob.dial(digit)
        wait_until(
            lambda digit=digit: alice.digits.endswith(digit),
            note=lambda: (alice.digits, bob.said[-900:]),
        )
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


# -- SIPp: a strict phone, which fails at whatever its scenario does not expect --------------------


class Strict:
    """SIPps that play bob, each for one call, with their ear at their mouth."""

    def __init__(self, scene, proxy, network):
        self._scene, self._proxy, self._network = scene, format_address(proxy), network
        self._port = free_port()

    def plays(self, scenario, user="bob", pause=0, port=0) -> Sipp:
        """A SIPp with this scenario. A called one is ready when this returns."""
        more = ["-rtp_echo", *self._credentials]
        known = {"user": user, "pause": pause, "caller": f"bob@{DOMAIN}", "more": more}
        sipp = Sipp(self._scene, scenario, self._proxy, port or self._port, 1, **known)
        self._scene.processes[f"sipp {len(self._scene.processes)}"] = sipp.process
        wait_until(
            lambda: is_taken(self._port) or sipp.process.status is not None, note=lambda: sipp.said
        )
        return sipp

    @property
    def _credentials(self) -> list[str]:
        return [
            "-key",
            "contact_port",
            str(self._port),
            "-au",
            "bob",
            "-ap",
            PASSWORDS["bob"],
            "-auth_uri",
            DOMAIN,
        ]

    def registers(self) -> None:
        self.plays(
            "digest_register" if self._network == KAMAILIO else "register", port=free_port()
        ).end()


@pytest.mark.parametrize("network", NETWORKS)
@needs("sipp")
def test_the_same_with_a_strict_phone(network, tmp_path):
    with Scene(tmp_path) as scene:
        proxy = proxy_of(scene, network, "REGISTER")
        people = alice, carol = Ours("alice", proxy), Ours("carol", proxy)
        bob = Strict(scene, proxy, network)
        try:
            bob.registers()
            wait_until(lambda: alice.registered and carol.registered)
            we_call_a_strict_phone(scene, network, alice, bob)
            a_strict_phone_calls(alice, bob)
            strict_calls_that_come_to_nothing(network, alice, carol, bob)
        finally:
            for each in people:
                each.stop()


def we_call_a_strict_phone(scene, network, alice, bob):
    called = bob.plays("phone_callee")
    alice.calls("bob")
    alice.comes(TALKING)
    alice.hears()  # itself, so the other side has heard it
    for digit in "15#":
        alice.phone.dtmf(digit)
    wait_until(lambda: alice.digits == "15#", note=lambda: alice.digits)
    alice.phone.hold()
    alice.sees(lambda call: call.held_here)
    alice.phone.resume()
    alice.sees(lambda call: not call.held_here)
    if network == CHAIN:
        kill_the_server_of(scene, alice)
    alice.hears()
    alice.phone.probe()
    alice.sees(lambda call: call.held_there)
    alice.sees(lambda call: not call.held_there)
    alice.hears()
    alice.phone.hang_up()
    alice.comes(ENDED)
    called.end()


def a_strict_phone_calls(alice, bob):
    caller = bob.plays("phone_caller", user="alice", pause=1500)
    alice.comes(INCOMING)
    alice.phone.answer()
    alice.comes(TALKING)
    alice.hears()
    alice.comes(ENDED)
    caller.end()


def strict_calls_that_come_to_nothing(network, alice, carol, bob):
    caller = bob.plays("declined_caller", user="alice")
    alice.comes(INCOMING)
    alice.phone.decline()
    caller.end()

    for scenario, sentence in (
        ("declining_callee", "bob declined the call"),
        ("busy_callee", "bob is busy"),
    ):
        called = bob.plays(scenario)
        alice.calls("bob")
        alice.comes(ENDED)
        assert alice.call.sentence.lower() == sentence, alice.seen
        called.end()

    called = bob.plays("cancel_callee" if network == CHAIN else "cancel_callee_of_one_proxy")
    alice.calls("bob")
    alice.comes(RINGING)
    alice.phone.hang_up()
    alice.comes(ENDED)
    called.end()

    alice.forgets()
    caller = bob.plays("cancel_caller", user="alice")
    alice.comes(ENDED)
    assert alice.call.sentence == "Missed call from bob"
    caller.end()

    carol.calls("alice")
    alice.comes(INCOMING)
    alice.phone.answer()
    carol.comes(TALKING)
    bob.plays("busy_caller", user="alice").end()
    assert alice.call.state is TALKING
