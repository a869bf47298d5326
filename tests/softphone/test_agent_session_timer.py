"""Session timers (RFC 4028): two phones, an hour on the fake clock, and what may happen to a
refresh."""

from __future__ import annotations

import pytest
from agent_kit import ALICE, BOB, SDP, Line, Network, Scripted, accepted, pair, talking
from parties_kit import Scene, absent
from wire import FORWARDER, World

from sip.message import Request, Response, reply
from softphone.phone import Account, Phone
from softphone.ua.events import CallState
from softphone.ua.session_timer import SessionExpires, SessionTimer
from softphone.ua.timers import NamedTimers

TALKING, ENDED = CallState.TALKING, CallState.ENDED
HALF = 900.0


def without_update(data: bytes) -> bytes:
    """As if both were older phones."""
    return data.replace(b", UPDATE\r\n", b"\r\n")


def asking_bob(data: bytes) -> bytes:
    """Alice's INVITE asks Bob to refresh."""
    return data.replace(b"Session-Expires: 1800\r\n", b"Session-Expires: 1800;refresher=uas\r\n")


def without_update_asking_bob(data: bytes) -> bytes:
    return without_update(asking_bob(data))


def since(network: Network, start: int) -> list[str]:
    return [f"{passage.source[1]} {passage.name}" for passage in network.passed[start:]]


def silence(line: Line) -> object:
    """Nothing that this phone sends arrives any more."""
    return lambda passage: passage.source == line.address


# -- what is agreed --------------------------------------------------------------------------------


def test_the_caller_asks_for_half_an_hour_and_refreshes():
    network, _, _ = talking()
    invite = network.passed[0].message
    ok = next(p.message for p in network.passed if p.name == "200 INVITE")
    assert (invite.get("Supported"), invite.get("Session-Expires"), invite.get("Min-SE")) == (
        "timer",
        "1800",
        None,
    )
    assert (ok.get("Require"), ok.get("Session-Expires")) == ("timer", "1800;refresher=uac")
    assert "UPDATE" in invite.values("Allow") and "UPDATE" in ok.values("Allow")


# RFC 4028 9, table 2: does the caller support timers, whom does it name, who refreshes.
@pytest.mark.parametrize(
    ("supported", "asked", "answered", "required"),
    [
        (False, None, None, None),
        (False, "1800", "1800;refresher=uas", None),
        (False, "1800;refresher=uac", "1800;refresher=uas", None),
        (False, "60", None, None),  # no one to tell 422
        (True, None, "1800;refresher=uac", "timer"),
        (True, "900", "900;refresher=uac", "timer"),
        (True, "900 ; Refresher=UAC", "900;refresher=uac", "timer"),
        (True, "900;refresher=uas", "900;refresher=uas", "timer"),
    ],
)
def test_the_called_phone_chooses_who_refreshes(supported, asked, answered, required):
    network, _, bob = pair()
    caller = Scripted(network, ("127.0.0.1", 5062), lambda request: [])
    fields = [("Supported", "100rel, timer")] if supported else []
    fields += [("Session-Expires", asked)] if asked else []
    network.send([(from_scratch(fields), bob.address)], caller.address)
    network.run(0.1)
    bob.answers()
    network.run(0.1)
    ok = next(m for m in caller.seen if isinstance(m, Response) and m.status == 200)
    assert (ok.get("Session-Expires"), ok.get("Require"), ok.get("Supported")) == (
        answered,
        required,
        "timer",
    )


def from_scratch(fields: list[tuple[str, str]]) -> bytes:
    head = [
        ("Via", "SIP/2.0/UDP 127.0.0.1:5062;branch=z9hG4bKx"),
        ("Max-Forwards", "70"),
        ("From", f"<{ALICE}>;tag=a"),
    ]
    head += [("To", f"<{BOB}>"), ("Call-ID", "c1"), ("CSeq", "1 INVITE"), ("Contact", f"<{ALICE}>")]
    return Request(
        "INVITE", BOB, [*head, *fields, ("Content-Type", "application/sdp")], SDP
    ).to_bytes()


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ([("Supported", "timer"), ("Session-Expires", "89")], 422),
        ([("k", "timer"), ("x", "89")], 422),
        ([("Session-Expires", "soon")], 400),
        ([("Session-Expires", "1800"), ("Min-SE", "-1")], 400),
    ],
)
def test_a_session_that_is_too_brief_or_unreadable_is_refused_before_the_phone_rings(
    fields, status
):
    network, _, bob = pair()
    network.send([(from_scratch(fields), bob.address)], ("127.0.0.1", 5062))
    network.run(0.1)
    refusal = network.passed[1].message
    assert isinstance(refusal, Response) and refusal.status == status and bob.state is None
    assert refusal.get("Min-SE") == ("90" if status == 422 else None)


def test_a_phone_that_does_not_ask_for_timers_still_keeps_those_of_others():
    network = Network()
    alice, bob = Line(network, "alice", 5062), Line(network, "bob", 5064, session_expires=0)
    bob.calls(ALICE)
    network.run(0.1)
    alice.answers()
    network.run(0.1)
    assert network.passed[0].message.get("Session-Expires") is None
    network.run(HALF)
    assert network.names()[-2:] == ["UPDATE", "200 UPDATE"], "Alice asked, so Bob refreshes"


def refusing(network: Network, least: list[str]) -> Scripted:
    """A phone, or a proxy before it, that names these Min-SE in turn, and then agrees."""
    wanted = iter(least)

    def react(request: Request) -> list[Response]:
        if request.method != "INVITE":
            return [] if request.method == "ACK" else [reply(request, 200)]
        minimum = next(wanted, None)
        return (
            [accepted(request, "b")]
            if minimum is None
            else [reply(request, 422, to_tag="r", fields=[("Min-SE", minimum)])]
        )

    return Scripted(network, ("127.0.0.1", 5064), react)


def test_a_caller_who_asked_for_too_little_asks_again_for_what_is_wanted():
    network = Network()
    alice = Line(network, "alice", 5062, session_expires=90)
    peer = refusing(network, ["120", "3600"])
    alice.calls(BOB)
    network.run(0.5)
    first, second, third = peer.requests("INVITE")
    assert (second.get("Session-Expires"), second.get("Min-SE")) == ("120", "120")
    assert (third.get("Session-Expires"), third.get("Min-SE")) == ("3600", "3600")
    assert (
        first.call_id == third.call_id
        and first.from_.tag == third.from_.tag
        and first.body == third.body
    )
    assert [r.cseq.number for r in (first, second, third)] == [1, 2, 3] and alice.state is TALKING


@pytest.mark.parametrize("least", [["90"] * 3, ["soon"], [str(90 + n) for n in range(1, 50)]])
def test_a_422_that_leads_nowhere_ends_the_call(least):
    network = Network()
    alice = Line(network, "alice", 5062, session_expires=90)
    peer = refusing(network, least)
    alice.calls(BOB)
    network.run(1)
    assert alice.state is ENDED and len(peer.requests("INVITE")) <= 6


# -- refreshing ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("edit", "refresher", "update"),
    [
        (bytes, 5062, True),
        (without_update, 5062, False),
        (asking_bob, 5064, True),
        (without_update_asking_bob, 5064, False),
    ],
)
def test_whoever_is_to_refresh_does_so_at_half_time_and_the_call_goes_on_for_hours(
    edit, refresher, update
):
    network, alice, bob = talking(edit)
    start, plans, versions = (
        len(network.passed),
        (alice.call.media, bob.call.media),
        origins(network),
    )
    told = len(alice.sentences), len(bob.sentences)
    network.run(4 * HALF + 10)
    other = 5062 + 5064 - refresher
    one = [f"{refresher} UPDATE", f"{other} 200 UPDATE"]
    if not update:
        one = [f"{refresher} INVITE", f"{other} 200 INVITE", f"{refresher} ACK"]
    assert since(network, start) == one * 4, network.ladder()
    assert (alice.state, bob.state) == (TALKING, TALKING)
    assert (alice.call.media, bob.call.media) == plans and (
        len(alice.sentences),
        len(bob.sentences),
    ) == told
    refresh = network.passed[start].message
    assert refresh.get("Session-Expires") == "1800;refresher=uac", (
        "who refreshes is the client of the refresh"
    )
    if not update:
        last = {who: origins(network)[who][-1] for who in versions}
        assert {who: len({o for o in os if o}) for who, os in origins(network, start).items()} == {
            5062: 1,
            5064: 1,
        }
        assert last[refresher] == versions[refresher][-1], (
            "what does not change keeps its version (RFC 4028 7.4)"
        )


def origins(network: Network, start: int = 0) -> dict[int, list[str]]:
    """The o= lines that each port said."""
    said: dict[int, list[str]] = {5062: [], 5064: []}
    for passage in network.passed[start:]:
        said[passage.source[1]] += [
            line for line in passage.message.body.decode().split("\r\n") if line[:2] == "o="
        ]
    return said


def test_a_phone_without_session_timers_is_sent_nothing():
    network = Network()
    alice = Line(network, "alice", 5062)
    peer = Scripted(
        network, ("127.0.0.1", 5064), lambda r: [accepted(r, "b")] if r.method == "INVITE" else []
    )
    alice.calls(BOB)
    network.run(10 * HALF)
    assert [m.method for m in peer.seen] == ["INVITE", "ACK"] and alice.state is TALKING


def test_a_proxy_that_keeps_time_for_a_phone_without_timers_is_refreshed():
    network = Network()
    alice = Line(network, "alice", 5062)

    def react(request: Request) -> list[Response]:
        answer = accepted(request, "b")
        answer.add("Require", "timer")
        answer.add("Session-Expires", "100;refresher=uac")
        return [answer] if request.method == "INVITE" else []

    peer = Scripted(network, ("127.0.0.1", 5064), react)
    alice.calls(BOB)
    network.run(101)
    first, *again = peer.requests("INVITE")
    assert len(again) == 2 and alice.state is TALKING
    assert {r.get("Session-Expires") for r in again} == {"100;refresher=uac"}
    assert {r.body for r in again} == {first.body}


def test_a_hold_stays_a_hold_through_refreshes_by_either_kind():
    for edit in (lambda data: data, without_update):
        network, alice, bob = talking()
        alice.does("hold")
        network.run(0.1)
        assert "200 INVITE" in network.names(bob.address)
        network.edit = edit
        network.run(5 * HALF)
        assert alice.call.held_here and bob.call.held_there and not bob.call.held_here
        alice.does("resume")
        network.run(1)
        assert (alice.sentence, bob.sentence) == ("Talking with Bob", "Talking with Alice")


def test_a_hold_is_a_refresh_too():
    network, _, bob = talking()
    network.run(HALF - 10)
    start = len(network.passed)
    bob.does("hold")
    network.run(HALF - 20)
    assert since(network, start) == ["5064 INVITE", "5062 200 INVITE", "5064 ACK"]
    assert network.passed[start].message.get("Session-Expires") == "1800;refresher=uas", (
        "Alice stays the one"
    )
    network.run(40)
    assert since(network, start)[3:] == ["5062 UPDATE", "5064 200 UPDATE"]


def test_a_hold_wished_for_during_a_refresh_is_done_after_it():
    network, alice, bob = talking()
    network.lose = lambda p: p.name == "UPDATE" and p.at < network.passed[0].at + HALF + 1
    network.run_until(lambda: "UPDATE" in network.names(), within=HALF + 1)
    alice.does("hold")
    network.run(4)
    assert alice.call.held_here and bob.call.held_there
    network.run(3 * HALF)
    assert (alice.state, bob.state) == (TALKING, TALKING)


# -- refreshes that fail ---------------------------------------------------------------------------


def test_a_refresh_that_crosses_a_hold_is_made_again():
    network, alice, bob = talking()
    network.edit = without_update
    alice.does("hold")  # by which Alice learns that Bob has no UPDATE
    network.run(HALF + 0.1)
    alice.does("resume")
    network.run(1)
    start = len(network.passed)
    network.run_until(lambda: "5062 INVITE" in since(network, start), within=HALF + 1)
    bob.does("hold")
    network.run(10)
    assert {"5062 491 INVITE", "5064 491 INVITE"} <= set(since(network, start)), network.ladder()
    assert bob.call.held_here and alice.call.held_there
    network.run(4 * HALF)
    assert (alice.state, bob.state) == (TALKING, TALKING)


@pytest.mark.parametrize(
    ("status", "fields", "seconds"),
    [
        (500, [], 10),
        (503, [("Retry-After", "3")], 3),
        (422, [("Min-SE", "2400")], 0),
        (405, [], 0),
        (501, [], 0),
    ],
)
def test_a_refresh_that_is_refused_is_tried_again_while_there_is_time(status, fields, seconds):
    network, alice, bob = talking()
    truth = network.parties[bob.address]
    refusals = []

    def react(request: Request) -> list[Response]:
        refusals.append(request)
        network.parties[bob.address] = truth
        return [reply(request, status, fields=fields)]

    network.run(HALF - 1)
    Scripted(network, bob.address, react)
    start = len(network.passed)
    network.run(seconds + 2)
    names = since(network, start)
    assert names[:2] == ["5062 UPDATE", f"5064 {status} UPDATE"] and len(names) >= 4
    again = network.passed[start + 2]
    assert again.name == ("INVITE" if status in (405, 501) else "UPDATE")
    assert (
        again.message.get("Session-Expires")
        == ("2400" if status == 422 else "1800") + ";refresher=uac"
    )
    assert again.message.cseq.number == refusals[0].cseq.number + 1
    network.run(2 * HALF)
    assert (alice.state, bob.state) == (TALKING, TALKING), network.ladder()


def test_a_peer_that_forgot_the_call_ends_it_at_the_refresh_with_a_bye_for_those_on_the_way():
    network, alice, bob = talking()
    network.leave(bob.address)
    Scripted(network, bob.address, lambda r: [reply(r, 481)] if r.method != "ACK" else [])
    network.run(HALF + 1)
    assert (alice.state, alice.sentence) == (ENDED, "The call with Bob was lost")
    assert network.names().count("BYE") == 1


def test_a_peer_that_forgot_the_call_ends_it_at_a_digit_by_info_with_a_bye():
    network, alice, bob = talking()
    network.leave(bob.address)

    def react(request):
        allow = ("Allow", "INVITE, ACK, BYE, INFO, UPDATE")
        if request.method == "UPDATE":
            return [reply(request, 200, fields=[allow])]
        return [reply(request, 481)]

    Scripted(network, bob.address, react)
    network.run(HALF + 1)
    alice.does("digit", "5")
    network.run(1.0)
    assert (alice.state, alice.sentence) == (ENDED, "The call with Bob was lost")
    assert network.names()[-4:] == ["INFO", "481 INFO", "BYE", "481 BYE"]


def test_a_peer_that_vanished_is_noticed_at_the_refresh_and_left_with_a_bye():
    network, alice, bob = talking()
    network.leave(bob.address)
    network.run(HALF + 33)
    assert (alice.state, alice.sentence) == (ENDED, "The call with Bob was lost")
    assert "BYE" in network.names()
    network.run(60)
    assert alice.deadline is None


def test_who_waits_in_vain_for_a_refresh_hangs_up_shortly_before_the_end():
    network, alice, bob = talking()
    start = network.now
    network.lose = silence(alice)
    network.run_until(lambda: bob.state is ENDED, within=1800)
    assert 1767 < network.now - start <= 1768, "32 s before"
    assert bob.sentence == "The connection to Alice was lost: nothing was heard for 29 minutes"
    assert network.passed[-1].name == "BYE" and network.passed[-1].source == bob.address


def test_who_refreshes_in_vain_hangs_up_at_that_time_too():
    network, alice, bob = talking()
    network.leave(bob.address)
    Scripted(network, bob.address, lambda r: [reply(r, 503)] if r.method == "UPDATE" else [])
    network.run(1700)
    assert alice.state is TALKING
    network.run(70)
    assert alice.state is ENDED and alice.sentence.startswith(
        "The connection to Bob was lost: nothing was heard for"
    )
    assert "BYE" in network.names(alice.address)


def test_a_call_that_is_over_is_not_refreshed():
    network, alice, bob = talking()
    alice.does("hang_up")
    network.run(40)
    start = len(network.passed)
    network.run(4 * HALF)
    assert len(network.passed) == start and alice.deadline is None and bob.deadline is None


# -- UPDATE ----------------------------------------------------------------------------------------


def within_the_call(
    network: Network, line: Line, other: Line, method: str, seq: int, body: bytes = b""
) -> Request:
    """What `other` could ask of `line` within their call."""
    to, from_ = next(
        (p.message.from_, p.message.to) for p in network.passed if p.name == "200 INVITE"
    )
    if line.user == "bob":
        to, from_ = from_, to
    fields = [
        ("Via", f"SIP/2.0/UDP 127.0.0.1:{other.address[1]};branch=z9hG4bKu{seq}"),
        ("Max-Forwards", "70"),
    ]
    fields += [
        ("From", str(from_)),
        ("To", str(to)),
        ("Call-ID", network.passed[0].message.call_id),
    ]
    fields += [
        ("CSeq", f"{seq} {method}"),
        ("Contact", f"<sip:{other.user}@127.0.0.1:{other.address[1]}>"),
    ]
    fields += [("Content-Type", "application/sdp")] if body else []
    return Request(method, f"sip:{line.user}@127.0.0.1:{line.address[1]}", fields, body)


def test_an_update_may_bring_an_offer():
    network, alice, bob = talking()
    offer = network.passed[0].message.body.replace(b"a=sendrecv", b"a=sendonly")
    assert b"a=sendonly" in offer
    network.send(
        [(within_the_call(network, bob, alice, "UPDATE", 50, offer).to_bytes(), bob.address)],
        alice.address,
    )
    network.run(0.01)
    answer = network.passed[-1].message
    assert isinstance(answer, Response) and answer.status == 200 and b"a=recvonly" in answer.body
    assert (
        answer.contacts and bob.call.held_there and bob.sentence == "Alice has put the call on hold"
    )


def test_an_update_to_a_ringing_phone_changes_nothing():
    network, alice, bob = pair()
    alice.calls(BOB)
    network.run(0.1)
    ringing = network.passed[1].message
    for number, body, status in ((50, b"", 200), (51, SDP, 500)):
        request = within_ringing(ringing, number, body)
        network.send([(request.to_bytes(), bob.address)], alice.address)
        network.run(0.01)
        answer = network.passed[-1].message
        assert (
            isinstance(answer, Response)
            and answer.status == status
            and answer.get("Session-Expires") is None
        )
    bob.answers()
    network.run(0.1)
    assert (alice.state, bob.state) == (TALKING, TALKING)


def within_ringing(ringing: Request | Response, seq: int, body: bytes) -> Request:
    fields = [("Via", f"SIP/2.0/UDP 127.0.0.1:5062;branch=z9hG4bKr{seq}"), ("Max-Forwards", "70")]
    fields += [("From", str(ringing.from_)), ("To", str(ringing.to)), ("Call-ID", ringing.call_id)]
    fields += [
        ("CSeq", f"{seq} UPDATE"),
        ("Contact", f"<{ALICE}>"),
        ("Supported", "timer"),
        ("Session-Expires", "90"),
    ]
    fields += [("Content-Type", "application/sdp")] if body else []
    return Request("UPDATE", BOB, fields, body)


# -- with the servers between, one of which dies ---------------------------------------------------


def refreshing(update: bool, held: bool) -> World:
    """Alice and Bob talk through the servers; the next refresh is a moment away."""
    world = World(session_expires=90)
    if not update:
        world.network.edit = without_update
    world.talk()
    if held:
        world.alice.does("hold")
    world.run(44 if held else 44.1)
    assert (world.alice.state, world.bob.state) == (TALKING, TALKING)
    return world


# of a refresh by UPDATE, by re-INVITE: each passes the forwarder twice, a server once
DATAGRAMS = {True: 8, False: 12}


@pytest.mark.parametrize("update", [True, False])
def test_the_story_below_tries_every_datagram(update):
    world = refreshing(update, False)
    before = len(world.network.passed)
    world.run(2)
    assert len(world.network.passed) - before == DATAGRAMS[update], world.network.ladder()


@pytest.mark.parametrize("fate", ["kill", pytest.param("freeze", marks=pytest.mark.long)])
@pytest.mark.parametrize(
    ("update", "number"),
    [(update, number) for update, many in DATAGRAMS.items() for number in range(many)],
)
def test_the_server_may_die_or_freeze_at_any_datagram_of_a_refresh(update, number, fate):
    world = refreshing(update, held=number % 2 == 1)
    held = world.alice.call.held_here
    world.at_datagram(number, lambda: getattr(world, fate)("server1"))
    start = len(world.network.passed)
    world.run(5)
    method = "UPDATE" if update else "INVITE"
    answers = [
        p
        for p in world.network.passed[start:]
        if p.to == world.alice.address and p.name == f"200 {method}"
    ]
    assert answers, world.network.ladder()
    world.run(50)
    assert (world.alice.state, world.bob.state) == (TALKING, TALKING)
    assert (world.alice.call.held_here, world.bob.call.held_there) == (held, held)
    world.bob.does("hang_up")
    world.run(1)
    assert (world.alice.state, world.bob.state) == (ENDED, ENDED) and len(world.bills) == 1


def test_both_servers_may_be_dead_at_the_time_of_a_refresh():
    world = refreshing(True, False)
    world.kill("server1")
    world.kill("server2")
    world.run(10)
    assert (world.alice.state, world.bob.state) == (TALKING, TALKING)
    world.restart("server2")
    world.run(100)
    assert (world.alice.state, world.bob.state) == (TALKING, TALKING)


@pytest.mark.parametrize("survivor", ["server1", "server2"])
def test_a_call_whose_phones_both_vanish_is_closed_and_billed_to_the_last_sign_of_life(survivor):
    world = refreshing(True, False)
    world.run(50)  # refreshed at 45 and 90 seconds
    world.network.leave(world.alice.address)
    world.network.leave(world.bob.address)
    if survivor == "server2":
        world.kill("server1")
    world.run(84)
    assert world.bill.state == "answered"
    world.run(5)
    assert (world.bill.state, world.bill.seconds, world.bill.final) == ("ended", 90, True)
    assert (
        world.bill.why == "the phones of Alice and Bob fell silent; counted to their last message"
    )


@pytest.mark.parametrize("asks", [0, 90])
def test_of_two_phones_one_vanishes_and_the_other_ends_the_call_for_both(asks):
    world = World(session_expires=90)
    world.bob = (
        world.phone("bob", 5064)
        if asks
        else Line(world.network, "bob", 5064, FORWARDER, session_expires=0)
    )
    world.talk()
    world.network.leave(world.bob.address)
    world.run(80)
    assert world.alice.state is ENDED and world.alice.sentence.startswith(
        "The connection to Bob was lost"
    )
    assert world.bill.state == "ended" and 45 <= world.bill.seconds <= 78


def test_what_was_agreed_is_one_line_on_the_wire():
    """The rules alone, without a call."""
    rows, fired = NamedTimers(), []
    timer = SessionTimer(
        0, rows, lambda now: fired.append("refresh"), lambda now: fired.append("leave")
    )
    assert (
        timer.request_fields() == [("Supported", "timer")]
        and str(SessionExpires(90, "uas")) == "90;refresher=uas"
    )
    timer.agreed(Response(200, "OK", [("Session-Expires", "90;refresher=uac")]), now=0.0)
    rows.fire(44.9)
    assert fired == []
    rows.fire(60.0)
    assert fired == ["refresh", "leave"], (
        "a third of the time before the end, where that is less than 32 s"
    )


# -- with somebody else's phone --------------------------------------------------------------------


@pytest.mark.skipif(bool(absent("sipp")), reason=absent("sipp") or "-")
def test_session_timers_are_agreed_on_with_sipp(tmp_path, eventually):
    events: list[object] = []
    with Scene(tmp_path) as scene:
        sipp, port = scene.callee("timer_callee", 1)
        phone = Phone(
            Account("alice", "failover.test"),
            None,
            ("127.0.0.1", 0),
            events.append,
            register=False,
            session_expires=90,
        )
        phone.start()
        try:
            phone.call(f"sip:bob@127.0.0.1:{port}")
            sipp.end()
            eventually(lambda: phone.snapshot().calls[-1].state is ENDED)
            (call,) = phone.snapshot().calls
            assert call.sentence == "Bob hung up", (
                "the call was refreshed, and ended as the other side wished"
            )
        finally:
            phone.stop()
