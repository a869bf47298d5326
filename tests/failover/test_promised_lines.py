"""A forwarded message differs from the received one by the promised lines, whatever it is like."""

from __future__ import annotations

import pytest
from forwarder_kit import ALICE, BOB, SERVERS, answer, make_core, request
from fuzz_kit import broken
from message_kit import messages, unpromised

from failover.config.settings import PHONES
from failover.upstream.health import REFUSED

S1, S2 = SERVERS["server1"], SERVERS["server2"]
CONTACT = f"sip:bob@{BOB[0]}:{BOB[1]}"
INVARIANT = "forwarded bytes differ from the received ones by exactly the promised lines"


def conversation(core):
    """(side, source, datagram) of a call's messages and of the odd ones, each of which this core
    forwards as it is."""
    hint = core.table.servers[0].hint
    ours = f"<sip:192.0.2.1:5060;lr;hint={hint}>"
    yield from ((PHONES, ALICE, data) for data in messages().values())
    yield PHONES, ALICE, request()
    yield PHONES, ALICE, request("REGISTER", hops="")
    yield PHONES, ALICE, request("BYE", to_tag="b", extra=(f"Route: {ours}",))
    yield PHONES, ALICE, request("BYE", to_tag="b", extra=(f"Route: {ours}, <sip:10.9.9.9;lr>",))
    yield (
        PHONES,
        ALICE,
        request(
            "BYE", to_tag="b", uri=f"sip:b2b@{S2[0]}:{S2[1]}", extra=(f"Route: <sip:{S2[0]};lr>",)
        ),
    )
    yield (
        PHONES,
        ALICE,
        request(
            "BYE", to_tag="b", uri=f"sip:192.0.2.1;lr;hint={hint}", extra=(f"Route: <{CONTACT}>",)
        ),
    )
    yield (
        PHONES,
        ALICE,
        request(
            via="Via: SIP/2.0/UDP 10.0.0.5;rport;branch=z9hG4bKn, SIP/2.0/TCP a;branch=z9hG4bKm"
        ),
    )
    yield (
        PHONES,
        ALICE,
        request().replace(
            b"Content-Length: 0\r\n\r\n", b"l: 4\r\n\r\nbody and what is no part of it"
        ),
    )
    yield PHONES, ALICE, b"\r\n\r\n" + request()
    yield PHONES, ALICE, request().replace(b"\r\n", b"\n")
    yield "server1", S1, request("INVITE", CONTACT, source=S1)
    (asked,) = core.receive(request(), PHONES, ALICE, 1.0).sends
    yield "server1", S1, answer(asked.data)
    (asked,) = core.receive(request("INVITE", CONTACT, source=S1), "server1", S1, 1.0).sends
    yield PHONES, BOB, answer(asked.data, "180 Ringing")


def dead_server(core):
    core.failover.signal("server2", REFUSED, 0.5, "refused")
    return core


def forwarded(core, side, source, data):
    """What was forwarded of it, its own answer to it aside; checks that it went to whom it may."""
    sends = core.receive(data, side, source, 1.0).sends
    assert len(sends) <= 1
    for send in sends:
        is_response = data.lstrip(b"\r\n")[:7].upper() == b"SIP/2.0"
        if send.data.startswith(b"SIP/2.0") and not is_response:
            assert send.to == side and (side != PHONES or send.target[0] == source[0]), (
                "an answer goes to who asked"
            )
        else:
            assert side != PHONES or is_response or send.to != PHONES, (
                "a phone's request goes to a server"
            )
            return send.data
    return None


@pytest.mark.parametrize(
    "make", [make_core, lambda: dead_server(make_core())], ids=["all live", "one is dead"]
)
def test_messages_as_they_come(make):
    passed = 0
    for side, source, data in conversation(make()):
        after = forwarded(make(), side, source, data)
        if after is not None:
            assert unpromised(data, after) == "", (data, after)
            passed += 1
    assert passed >= 45


@pytest.mark.parametrize(
    "make", [make_core, lambda: dead_server(make_core())], ids=["all live", "one is dead"]
)
@pytest.mark.parametrize("kind", range(3))
def test_messages_bent_anywhere(make, kind):
    sides = [(PHONES, ALICE), ("server1", S1), (PHONES, BOB)]
    side, source = sides[kind]
    core = make()
    samples = [data for one, where, data in conversation(core) if (one, where) == (side, source)]
    passed = 0
    for data in broken(samples, 4000 if kind == 0 else 1500, seed=kind + 7):
        after = forwarded(core, side, source, data)
        if after is not None:
            assert unpromised(data, after) == "", (INVARIANT, data, after)
            passed += 1
    assert passed > 100, "the samples are broken too badly to say much"
