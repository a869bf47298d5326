"""INVARIANT: the fast path (failover/proxy/fast_path.py) and core.py beside it are one and the same
forwarder.

Two cores are told the same things in the same order. One takes the short way wherever it can, the
other never does. Whatever comes, both send the same octets to the same place and remember the same.
`--fuzz-seconds 60` does it for so long, `--fuzz-seed` with other dice.
"""

from __future__ import annotations

import random
import re
import time
from unittest import mock

import pytest
from forwarder_kit import (
    ALICE,
    BOB,
    KEY,
    OWN,
    SERVERS,
    answer,
    answerable,
    field,
    head,
    lines,
    make_core,
    make_table,
    request,
)
from fuzz_kit import broken
from message_kit import messages

from failover.config.settings import CALL_ID, FIRST_LIVE, PHONES
from failover.proxy.core import Core
from failover.proxy.fast_path import FRESH_SECONDS, MAX_KEY
from failover.proxy.fast_path_patterns import POSSESSIVE, Reader
from failover.upstream.health import ANSWER, MISS, REFUSED
from failover.upstream.server_table import AdminState

S1, S2 = SERVERS.values()
SIDES = {PHONES: ALICE, **SERVERS}
ROUND = 300
SDP = b"v=0\r\no=- 1 1 IN IP4 192.0.2.7\r\ns=-\r\nc=IN IP4 192.0.2.7\r\nt=0 0\r\nm=audio 40000 RTP/AVP 8\r\n"


class Twins:
    """`quick` counts the messages that took the short way."""

    def __init__(self, policy=FIRST_LIVE, path=False):
        self.now, self.step, self.quick = 100.0, 0.05, 0
        self.cores = [make_core(policy), make_core(policy)]
        for core in self.cores:
            core.table.path = path

    def __call__(self, data, side=PHONES, source=None):
        """What both send."""
        source = source or SIDES[side]
        self.now += self.step
        short, long = self.cores
        send = short.quick(data, side, source, self.now)
        self.quick += send is not None
        sends = (send,) if send else short.receive(data, side, source, self.now).sends
        assert sends == long.receive(data, side, source, self.now).sends, data
        self.same(data)
        return sends

    def both(self, function):
        """Does something else to both; what they send then is the same too."""
        first, second = [function(core) for core in self.cores]
        assert first == second
        self.same(function)
        return first

    def same(self, why):
        first, second = map(remembered, self.cores)
        assert first == second, why


def remembered(core):
    flight = core.pending
    servers = [
        (s.name, s.requests, s.responses, s.last_heard_at, s.handled) for s in core.table.servers
    ]
    kept = (flight._requests, flight.one_way, flight._ended)
    rows = [{key: tuple(row) for key, row in rows.items()} for rows in kept]
    calls = core.orphans._ringing.items()
    ringing = {key: (c.server.name, c.data, c.target, c.since, c.rings) for key, c in calls}
    return (
        dict(core.counters),
        servers,
        rows,
        ringing,
        flight._refusals,
        list(flight.moved),
        flight._octets,
        dict(core.outage_queue._proven),
        dict(core.outage_queue._unproven),
        list(core.failover.records),
        core.lines.own,
    )


# -- what phones and servers say -------------------------------------------------------------------


def written(
    method,
    names,
    n=1,
    source=ALICE,
    to_tag="",
    route="",
    uri="sip:bob@failover.test",
    body=b"",
    rport=";rport",
):
    """A request with these header lines in this order, as somebody's phone would write it."""
    values = {
        "Via": f"SIP/2.0/UDP {source[0]}:{source[1]}{rport};branch=z9hG4bK-{n}",
        "Max-Forwards": "70",
        "From": f'"Alice" <sip:alice@failover.test>;tag=from{n}',
        "To": "<sip:bob@failover.test>" + (f";tag={to_tag}" if to_tag else ""),
        "Call-ID": f"call-{n}@{source[0]}",
        "CSeq": f"{n} {method}",
        "Contact": f"<sip:alice@{source[0]}:{source[1]};ob>",
        "Route": route,
        "Content-Length": str(len(body)),
    }
    return lines(
        f"{method} {uri} SIP/2.0",
        *(f"{name}: {values.get(name, 'x, y;z=1')}" for name in names if values.get(name) != ""),
        body=body,
    )


# Orders in which phones write their lines, after the phones named. What SIPp really writes is in
# test_real_parties.py.
ORDERS = {
    "loadgen": "Via Max-Forwards From To Call-ID CSeq Contact User-Agent Allow Supported Content-Type Content-Length",
    "sipp": "Via From To Call-ID CSeq Contact Max-Forwards Route Subject Content-Type Content-Length",
    "baresip": "Via Contact Max-Forwards Route To From Call-ID CSeq User-Agent Allow Content-Type Content-Length",
    "linphone": "Via From To CSeq Call-ID Max-Forwards Route Supported Allow Content-Type Content-Length Contact",
    "pjsip": "Via Max-Forwards From To Contact Call-ID CSeq Route Allow Supported Session-Expires Content-Length",
    "twinkle": "Via Max-Forwards Route To From Call-ID CSeq Contact Content-Type Allow User-Agent Content-Length",
}
METHODS = ["INVITE", "OPTIONS", "REGISTER", "MESSAGE", "SUBSCRIBE", "CANCEL", "ACK", "BYE", "INFO"]


def onward(data, source, branch, uri=f"sip:bob@{BOB[0]}:{BOB[1]}"):
    """A request as a proxying server sends it on, its Route gone, to a phone."""
    first, *rest = head(data)
    rest = [line for line in rest if not line.startswith("Route:")]
    at = next(n for n, line in enumerate(rest) if line.startswith("Via:"))
    rest.insert(at, f"Via: SIP/2.0/UDP {source[0]}:{source[1]};branch={branch}")
    return lines(
        first.replace(first.split(" ")[1], uri, 1), *rest, body=data.partition(b"\r\n\r\n")[2]
    )


def without_top_via(data):
    first, *rest = head(data)
    rest.remove(next(line for line in rest if line.startswith("Via:")))
    return lines(first, *rest, body=data.partition(b"\r\n\r\n")[2])


def hint(core):
    return f"<sip:{OWN[0]}:{OWN[1]};lr;hint={core.table.servers[0].hint}>"


@pytest.mark.parametrize("who", ORDERS)
@pytest.mark.parametrize("method", METHODS)
def test_an_ordinary_message_of_that_phone_takes_the_short_way(who, method):
    twins = Twins()
    in_dialog = method in ("ACK", "BYE", "INFO")
    for n in range(1, 4):
        route = hint(twins.cores[0]) if in_dialog else ""
        body = SDP if method == "INVITE" else b""
        (send,) = twins(
            written(method, ORDERS[who].split(), n, to_tag="b" * in_dialog, route=route, body=body)
        )
        assert send.to == "server1"
        if method != "ACK":
            for status in ("180 Ringing", "200 OK"):
                assert [s.target for s in twins(answer(send.data, status), "server1")] == [ALICE]
    assert twins.quick == (3 if method == "ACK" else 9)


def test_a_length_with_room_for_more_digits_takes_the_short_way():
    """As SIPp writes it, which formats its numbers five wide."""
    twins = Twins()
    padded = [b"Content-Length:" + f"{len(SDP):{width}}\r\n".encode() for width in (4, 5, 9)]
    for n, length in enumerate(padded, 1):
        plain = written("INVITE", ORDERS["sipp"].split(), n, body=SDP)
        (send,) = twins(plain.replace(f"Content-Length: {len(SDP)}\r\n".encode(), length))
        assert length in send.data
        (back,) = twins(answer(send.data), "server1")
        assert back.target == ALICE
    assert twins.quick == 6


def in_one_line(data):
    """The same with all its Vias in one line."""
    vias = [line for line in head(data) if line.startswith("Via: ")]
    rest = [line for line in head(data) if not line.startswith("Via: ")]
    return lines(rest[0], "Via: " + ", ".join(line[5:] for line in vias), *rest[1:])


@pytest.mark.parametrize("more", ["", ";received=192.0.2.1", ";received=192.0.2.1;rport=5060"])
@pytest.mark.parametrize("listed", [False, True])
def test_an_answer_with_all_vias_in_one_line_or_more_in_ours_takes_it_too(more, listed):
    twins = Twins()
    for n in range(1, 4):
        (send,) = twins(written("INVITE", ORDERS["sipp"].split(), n, body=SDP))
        said = re.sub(rb"(;loop=[0-9a-f]{8})", rb"\1" + more.encode(), answer(send.data))
        (back,) = twins(in_one_line(said) if listed else said, "server1")
        assert back.target == ALICE and back.data.count(b"Via:") == 1
    assert twins.quick == 6


def test_a_phone_that_writes_its_topmost_via_otherwise_from_time_to_time_is_understood_each_time():
    twins = Twins()
    for n, rport in enumerate([";rport", ";rport", ";maddr=192.0.2.7", ";rport"], 1):
        via = f"Via: SIP/2.0/UDP {ALICE[0]}:{ALICE[1]};branch=z9hG4bK-{n}{rport}".encode()
        asked = re.sub(rb"Via: [^\r]*", via, written("OPTIONS", ORDERS["loadgen"].split(), n))
        (send,) = twins(asked)
        (back,) = twins(answer(send.data), "server1")
        assert back.target == ALICE
    assert twins.quick == 8


@pytest.mark.parametrize("who", ORDERS)
def test_a_call_through_a_proxying_server_takes_the_short_way_from_end_to_end(who):
    twins = Twins()
    order = ORDERS[who].split()
    route = hint(twins.cores[0])
    (offer,) = twins(written("INVITE", order, body=SDP))
    (at_bob,) = twins(onward(offer.data, S1, "z9hG4bKs1"), "server1")
    assert at_bob.target == BOB
    for status in ("180 Ringing", "200 OK", "200 OK"):
        (to_server,) = twins(answer(at_bob.data, status), PHONES, BOB)
        assert to_server.to == "server1"
        (to_alice,) = twins(without_top_via(to_server.data), "server1")
        assert to_alice.target == ALICE
    for n, method in ((2, "ACK"), (3, "BYE")):
        (there,) = twins(
            written(method, order, n, to_tag="b", route=route, uri=f"sip:bob@{BOB[0]}:{BOB[1]}")
        )
        (on,) = twins(onward(there.data, S1, f"z9hG4bKs{n}"), "server1")
        assert on.target == BOB
    (back,) = twins(answer(on.data), PHONES, BOB)
    twins(without_top_via(back.data), "server1")
    assert twins.quick == 14, twins.quick


def test_calls_over_ipv6_take_it_too():
    twins, alice, bob = Twins(), ("2001:db8::7", 5060), ("2001:db8::8", 5062)
    asked = written("INVITE", ORDERS["loadgen"].split(), source=("[2001:db8::7]", 5060))
    (offer,) = twins(asked, source=alice)
    (back,) = twins(answer(offer.data), "server1")
    assert back.target == alice
    on = onward(offer.data, ("[2001:db8::11]", 5070), "z9hG4bKs1", uri="sip:bob@[2001:db8::8]:5062")
    (there,) = twins(on, "server1", ("2001:db8::11", 5070))
    assert there.target == bob and twins.quick == 3


def test_what_died_in_between_is_replayed_alike():
    twins = Twins()
    for n in range(1, 30):
        twins(written("INVITE", ORDERS["loadgen"].split(), n))
    moved = twins.both(
        lambda core: core.failover.signal("server1", REFUSED, twins.now, "gone").sends
    )
    assert len(moved) == 16 and {send.to for send in moved} == {"server2"}
    rest = twins.both(lambda core: core.failover.replay(twins.now).sends)
    (resumed,) = twins(answer(rest[0].data), "server2")
    assert resumed.target == ALICE and twins.cores[0].failover.records[-1].gap


def test_the_answer_that_a_server_which_has_left_the_list_waited_for_goes_to_another_alike():
    twins = Twins()
    (asked,) = twins(written("INVITE", ORDERS["loadgen"].split()))
    (at_bob,) = twins(onward(asked.data, S1, "z9hG4bKs1"), "server1")
    rest = {"server2": S2}
    twins.both(lambda core: core.replace_table(make_table(FIRST_LIVE, rest), 3, 2, twins.now).sends)
    (taken,) = twins(answer(at_bob.data), PHONES, BOB)
    assert taken.to == "server2"


# -- templates -------------------------------------------------------------------------------------


def caches_of(twins):
    """Of the core that takes the short way."""
    fast = twins.cores[0]._fast_path
    return [fast._own, fast._own_to_server, fast._vias, fast._routes, fast._records, fast._goals]


def reader_of(twins):
    """Of the core that takes the short way."""
    return twins.cores[0]._fast_path._reader


def dialogue(twins, who, n):
    """What comes in, and where from: an INVITE through a proxying server, its answers, and a BYE in
    its dialog."""
    order, route = ORDERS[who].split(), hint(twins.cores[0])
    heard = []

    def hear(data, side=PHONES, source=ALICE):
        heard.append((data, side, source))
        (send,) = twins(data, side, source)
        return send.data

    at_bob = hear(
        onward(hear(written("INVITE", order, n, body=SDP)), S1, f"z9hG4bKs{n}"), "server1", S1
    )
    for status in ("180 Ringing", "200 OK"):
        hear(without_top_via(hear(answer(at_bob, status), PHONES, BOB)), "server1", S1)
    hear(written("BYE", order, n, to_tag="b", route=route, uri=f"sip:bob@{BOB[0]}:{BOB[1]}"))
    return heard


@pytest.mark.parametrize("who", ORDERS)
def test_what_one_says_again_with_other_words_is_not_read_again(who, monkeypatch):
    twins = Twins()
    for n in range(11, 17):
        if n == 14:  # a template is made of what was seen twice
            reader = reader_of(twins)
            for form in (reader._request, reader._answer):
                monkeypatch.setattr(form, "match", lambda *_: pytest.fail("it is read"))
        dialogue(twins, who, n)


def test_a_caller_who_calls_others_each_time_is_not_read_again():
    twins, order = Twins(), ORDERS["loadgen"].split()
    form = reader_of(twins)._request
    with mock.patch.object(form, "match", side_effect=form.match) as read:
        for n in range(100, 130):
            (send,) = twins(written("INVITE", order, n, uri=f"sip:+49301234{n}@failover.test"))
            assert f"INVITE sip:+49301234{n}@failover.test SIP/2.0".encode() in send.data
    assert read.call_count < 5


@pytest.mark.parametrize("who", ["linphone", "twinkle"])
def test_what_tells_the_way_is_no_word_that_may_change(who):
    twins, order = Twins(), ORDERS[who].split()
    for n in range(11, 17):
        route = f"{hint(twins.cores[0])}, <sip:u{n}@192.0.2.33;lr>"
        data = written("INFO", order, n, to_tag="b", route=route, rport="")
        (send,) = twins(data)
        assert f"<sip:u{n}@192.0.2.33;lr>" in field(send.data, "Route")
        data = written("INFO", order, n, rport="").replace(
            b"z9hG4bK-", b"z9hG4bK-%d;branch=z9hG4bK-" % n
        )
        (send,) = twins(data)
        assert f"z9hG4bK-{n};branch=z9hG4bK-{n}" in send.data.decode()
    assert twins.quick == 12


ODD = b"\0\r\n\t \"#'(),/0:;<=>@A`z~\x7f\x80\xff"


@pytest.mark.parametrize("who", ORDERS)
def test_with_any_octet_changed_a_message_still_goes_the_same_way(who, request):
    dice = random.Random(f"{request.config.getoption('--fuzz-seed')} {who}")
    octets = 1 if request.config.getoption("--fuzz-seconds") < 10 else 5
    twins = Twins()
    for n in range(11, 14):
        heard = dialogue(twins, who, n)
    reader = reader_of(twins)
    reader._next = float("inf")  # nothing more is learned
    templates = dict(reader._templates)
    assert len(templates) == 7
    for data, side, source in heard:
        for at in range(data.index(b"\r\n\r\n") + 5):
            for octet in dice.sample(ODD, octets):
                twins(data[:at] + bytes([octet]) + data[at + 1 :], side, source)
    assert reader._templates == templates


@pytest.mark.parametrize("policy", [FIRST_LIVE, CALL_ID])
def test_answers_take_the_short_way_again_after_an_idle_restart_of_server1(policy):
    """Nothing was in flight, server1 is back before anybody calls, and server2 never has anything
    to answer."""
    twins = Twins(policy)
    twins.both(
        lambda core: core.failover.signal(
            "server1", REFUSED, twins.now, "its port refused a heartbeat"
        )
    )
    for _ in range(2):
        twins.now += 0.05
        twins.both(
            lambda core: core.failover.signal("server1", ANSWER, twins.now, "answers heartbeats")
        )
    order = ORDERS["baresip"].split()
    answered = []
    for n in range(40):
        (sent,) = twins(written("OPTIONS", order, n))
        if sent.to == "server1":
            before = twins.quick
            assert twins(answer(sent.data), "server1")[0].target == ALICE
            answered.append(twins.quick - before)
    assert len(answered) > 10 and sum(answered) >= len(answered) - 2, (
        "the first ones of their kind may be read"
    )
    (failover,) = twins.cores[0].failover.records
    assert failover.in_flight == 0 and failover.gap is None, "nobody waited for anything"


@pytest.mark.parametrize("policy", [FIRST_LIVE, CALL_ID])
def test_nor_does_what_was_sent_on_and_is_never_answered_keep_answers_from_it_for_ever(policy):
    twins = Twins(policy)
    order = ORDERS["baresip"].split()
    owed = [twins(written("OPTIONS", order, n))[0] for n in range(8)]
    twins.both(
        lambda core: core.failover.signal(
            "server1", REFUSED, twins.now, "its port refused a message"
        )
    )
    assert (
        any(sent.to == "server1" for sent in owed) and twins.cores[0].failover.records[-1].replayed
    )
    for _ in range(2):
        twins.now += 0.05
        twins.both(
            lambda core: core.failover.signal("server1", ANSWER, twins.now, "answers heartbeats")
        )
    twins.now += 33.0
    answered = []
    for n in range(100, 140):
        (sent,) = twins(written("OPTIONS", order, n))
        if sent.to == "server1":
            before = twins.quick
            twins(answer(sent.data), "server1")
            answered.append(twins.quick - before)
    assert sum(answered) >= len(answered) - 2 > 8


# -- anything at all -------------------------------------------------------------------------------


def bent(data, dice):
    """A message with its lines changed so that it nearly is one still, or is one of another
    kind."""
    top, blank, body = data.partition(b"\r\n\r\n")
    rows = top.split(b"\r\n")
    at = dice.randrange(len(rows))
    row, kind = rows[at], dice.randrange(16)
    name, colon, value = row.partition(b":")
    changed = {
        0: [row, row],
        1: [],
        2: [name.lower() + colon + value],
        3: [name[:1] + colon + value],
        4: [name + b" " + colon + value],
        5: [name + colon + value[1:]],
        6: [name + colon + b"  " + value + b" "],
        7: [row, b" folded"],
        8: [row + b"\rx"],
        9: [row.replace(b"1", b"\n", 1)],
        10: [row + b", " + value.strip()],
        11: [row + b";tag=z;branch=z9hG4bKother;lr;loop=1;maddr=192.0.2.99"],
        12: [
            re.sub(
                rb"\d+",
                dice.choice([b"0", b"007", b"70000", b"5060", b"4294967296"]),
                row,
                count=dice.randrange(1, 3),
            )
        ],
        13: [row.replace(b"sip:", dice.choice([b"sips:", b"tel:", b"SIP:", b""]))],
        14: [
            row.replace(
                b"192.0.2.7", dice.choice([b"192.0.2.11", b"192.0.2.1", b"alice.example", b"[::1]"])
            )
        ],
        15: [
            row.replace(b"<", b'"x\\" " <')
            if dice.random() < 0.5
            else row.replace(b"<", b"").replace(b">", b"")
        ],
    }[kind]
    rows[at : at + 1] = changed
    if dice.random() < 0.2:
        dice.shuffle(rows)
    if dice.random() < 0.1:
        extra = [
            b"Proxy-Require: x",
            b"t: <sip:x>",
            b"l: 0",
            b"Path: <sip:x>",
            b"Record-Route: <sip:192.0.2.1;lr>",
            b"Route: <sip:192.0.2.11:5070;lr>",
            b"Max-Forwards: 3",
            b"Via: SIP/2.0/UDP x;branch=z9hG4bKx",
        ]
        rows.insert(dice.randrange(len(rows) + 1), dice.choice(extra))
    return b"\r\n".join(rows) + dice.choice([blank, blank, blank, b"\n\n", b"\r\n"]) + body


def good(dice, core):
    """An ordinary request, of somebody's."""
    n = dice.randrange(60)
    method, order = dice.choice(METHODS), dice.choice(list(ORDERS.values())).split()
    source = dice.choice([ALICE, ALICE, BOB, S1, ("192.0.2.9", 65_000)])
    server1, server2 = (f"sip:{host}:{port}" for host, port in SERVERS.values())
    route = dice.choice(
        ["", hint(core), f"{hint(core)}, <{server1};lr>", f"<{server2};lr>", "<sip:x>"]
    )
    uri = dice.choice(
        [
            "sip:bob@failover.test",
            f"sip:bob@{BOB[0]}:{BOB[1]};ob",
            server2,
            "sip:192.0.2.1",
            "sip:bob@192.0.2.8:05060",
            "sip:bob@192.0.2.8:70000",
            "sip:bob@[2001:db8::8]:5062",
            "sip:[::1",
            "tel:+49301",
        ]
    )
    return written(
        method,
        order,
        n,
        source,
        dice.choice(["", "", "b"]),
        route,
        uri,
        dice.choice([b"", SDP]),
        dice.choice(["", ";rport", ";rport=5", ";received=1.2.3.4;rport", ";maddr=192.0.2.9"]),
    )


def shake(twins, dice):
    """Something happens to a server, or to the list of them."""
    name, kind = dice.choice(list(twins.cores[0].table.by_name)), dice.randrange(10)
    signal, leaving = dice.choice([ANSWER, ANSWER, MISS, REFUSED]), dice.choice([None, True, False])
    wish, policy = dice.choice(list(AdminState)), dice.choice([CALL_ID, FIRST_LIVE])
    if kind < 7:
        twins.both(
            lambda core: core.failover.signal(name, signal, twins.now, "dice", leaving).sends
        )
    elif kind < 9:
        twins.both(lambda core: core.failover.set_admin_state(name, wish, twins.now).sends)
    else:
        listed = dict(dice.sample(list(SERVERS.items()), dice.choice([1, 2, 2])))
        twins.both(
            lambda core: core.replace_table(make_table(policy, listed), 3, 2, twins.now).sends
        )
    while twins.cores[0].pending.moved:
        twins.both(lambda core: core.failover.replay(twins.now).sends)


def answered(send, dice):
    """What comes of it: an answer, a server's passing on, or the same again."""
    if send.data.startswith(b"SIP/"):
        return (
            without_top_via(send.data)
            if send.to != PHONES and b"\r\nVia:" in send.data
            else send.data
        )
    if send.to != PHONES and dice.random() < 0.4:
        return onward(send.data, SERVERS[send.to], f"z9hG4bKs{dice.randrange(9)}")
    said = answer(
        send.data,
        dice.choice(["180 Ringing", "200 OK", "200 OK", "486 Busy Here"]),
        dice.choice("bc"),
    )
    if dice.random() < 0.2:
        said = re.sub(rb"(;loop=[0-9a-f]{8})", rb"\1;received=192.0.2.1", said)
    return in_one_line(said) if dice.random() < 0.2 else said


def play(twins, dice, core, heard):
    """One more datagram; what comes of it is heard later."""
    choice = dice.random()
    if heard and choice < 0.6:
        data, side, source = dice.choice(heard)
    else:
        data = good(dice, core) if choice < 0.9 else dice.choice(OLD)
        side = dice.choice([PHONES, PHONES, *SERVERS])
        source = SIDES[side] if side != PHONES else dice.choice([ALICE, BOB])
    if dice.random() < 0.3:
        data = (
            bent(data, dice)
            if dice.random() < 0.7
            else next(broken([data], 1, dice.randrange(2**32)))
        )
    for send in twins(data, side, source):
        if answerable(send.data):
            to = (send.to, SERVERS[send.to]) if send.to != PHONES else (PHONES, send.target)
            heard.append((answered(send, dice), *to))
    heard.append((data, side, source))


OLD = list(messages().values())


@pytest.mark.parametrize("policy", [FIRST_LIVE, CALL_ID])
def test_both_ways_send_the_same_and_remember_the_same_whatever_comes(request, policy):
    seconds, seed = (
        request.config.getoption("--fuzz-seconds"),
        request.config.getoption("--fuzz-seed"),
    )
    dice, until, rounds, quick = (
        random.Random(f"{seed} {policy}"),
        time.monotonic() + seconds / 2,
        0,
        0,
    )
    while time.monotonic() < until or rounds < 4:
        rounds += 1
        twins, heard = Twins(policy, path=rounds % 2 == 0), []
        for _ in range(ROUND):
            play(twins, dice, twins.cores[0], heard)
            heard = heard[-40:]
            if dice.random() < 0.01:
                shake(twins, dice)
        quick += twins.quick
    assert quick > rounds * ROUND / 50, "the dice have to be such that the short way is taken"


def test_before_python_3_11_the_patterns_find_the_same():
    dice, twins, heard = random.Random(10), Twins(), []
    twins.cores[0]._fast_path._reader = Reader(possessive=False)
    for _ in range(2 * ROUND):
        play(twins, dice, twins.cores[0], heard)
        heard = heard[-40:]
    assert twins.quick > 20


def test_the_odd_messages_and_all_their_neighbours(request):
    seed, twins = request.config.getoption("--fuzz-seed"), Twins()
    dice = random.Random(seed)
    for data in OLD:
        for side in SIDES:
            twins(data, side)
            twins(bent(data, dice), side)


# -- strangers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("possessive", [False, POSSESSIVE])
def test_no_datagram_takes_long_to_be_found_odd(possessive):
    """It took minutes without possessive repeats, as long as a branch could be divided in many
    ways."""
    core, names = (
        make_core(),
        ["Via", "Max-Forwards", "From", "To", "Call-ID", "CSeq", "X-Other", "Content-Length"],
    )
    core._fast_path._reader = Reader(possessive)
    assert core.quick(written("OPTIONS", names), PHONES, ALICE, 100.0)
    began = time.process_time()
    for filling in (b"a", b"a.", b";a", b";a=", b'"', b" ", b"<", b"@", b":1", b"/", b"\n", b"-%"):
        for name in (
            b"OPTIONS sip:",
            b"branch=z9hG4bK",
            b"From: ",
            b"To: ",
            b"CSeq: ",
            b"Call-ID: ",
            b"X-Other: ",
        ):
            data = written("OPTIONS", names).replace(
                name, name + filling * (30_000 // len(filling)), 1
            )
            for place in (b"Max-", b"From: ", b"CSeq: ", b"1 OPTIONS\r\n", b"Content-Length: "):
                assert not core.quick(data.replace(place, b"\r" + place), PHONES, ALICE, 101.0)
    assert time.process_time() - began < 1.0


def test_what_is_long_is_not_kept():
    names, twins = ORDERS["loadgen"].split(), Twins()
    routed = ["Via", "Route", *names[1:]]
    [sent] = twins(written("INVITE", names))
    for data in (
        written("INVITE", names, rport=f";rport;x={'x' * 3_000}"),
        written("INVITE", routed, route=f"<sip:{OWN[0]}:{OWN[1]};lr;x={'x' * 3_000}>"),
        written("INVITE", names).replace(
            b"\r\nVia", b"\r\nRecord-Route: <sip:192.0.2.9;lr;x=%s>\r\nVia" % (b"x" * 3_000)
        ),
    ):
        before = twins.quick
        assert twins(data) and twins.quick == before
    long = b"".join(
        b"Via: SIP/2.0/UDP 192.0.2.%d;branch=z9hG4bK%s\r\n" % (n, b"x" * 1_500) for n in range(1, 5)
    )
    [sent] = twins(written("INVITE", names).replace(b"Max-", long + b"Max-"))
    assert twins(answer(sent.data), "server1")
    assert max(len(repr(key)) for cache in caches_of(twins) for key in cache) <= MAX_KEY


def test_an_address_that_becomes_the_forwarder_s_own_is_so_for_both_ways():
    own = set()
    short, long = (
        Core(make_table(), KEY, lambda host: OWN, is_own=lambda address: address in own)
        for _ in range(2)
    )
    route = "Route: <sip:192.0.2.99:5060;lr>"

    def both(now):
        asked = request("OPTIONS", branch=f"z9hG4bK{now:.0f}", extra=(route,))
        send = short.quick(asked, PHONES, ALICE, now)
        assert send and (send,) == long.receive(asked, PHONES, ALICE, now).sends
        return route.encode() in send.data

    assert both(100.0)
    own.add(("192.0.2.99", 5060))
    assert not both(101.0 + FRESH_SECONDS)
    own.clear()
    assert both(102.0 + 2 * FRESH_SECONDS)
