"""What the forwarder does with each torture message of RFC 4475 and RFC 5118: one table, walked.

FORWARD: it leaves as it came but for the promised lines. A status: it is answered with that and
goes no further. DROP: no answer, as every response to nothing that was asked. Where the RFC leaves
a choice, the forwarder leaves to the server what it does not need itself: dates, contacts, bodies,
URIs of schemes that it never looks into.
"""

from __future__ import annotations

import pytest
from forwarder_kit import ALICE, SERVERS, field, head, make_core
from message_kit import messages, unpromised

from failover.config.settings import PHONES
from sip.message import Response, parse
from sip.uri import Uri
from sip.via import Via

FORWARD, SHORTENED, DROP = "forward", "forward without its URI headers", "drop"
MESSAGES = messages()

# name -> what is done, where the RFC has it, what is odd about it
TABLE = {
    # RFC 4475 3.1.1: unusual, and right
    "folded-everywhere": (FORWARD, "3.1.1.1 wsinv"),
    "every-character-a-token-may-have": (FORWARD, "3.1.1.2 intmeth"),
    "percent-escapes": (FORWARD, "3.1.1.3 esc01"),
    "escaped-nulls-in-uris": (FORWARD, "3.1.1.4 escnull"),
    "percent-that-is-no-escape": (FORWARD, "3.1.1.5 esc02"),
    "no-space-before-the-angle-bracket": (FORWARD, "3.1.1.6 lwsdisp"),
    "long-values": (FORWARD, "3.1.1.7 longreq"),
    "second-request-after-the-first": (
        FORWARD,
        "3.1.1.8 dblreq: the first; what follows is cut off",
    ),
    "semicolon-in-the-user-part": (FORWARD, "3.1.1.9 semiuri"),
    "vias-of-many-transports": (FORWARD, "3.1.1.10 transports"),
    "binary-body-in-parts": (
        FORWARD,
        "3.1.1.11 mpart01: its Route is left to the server, never followed",
    ),
    "reason-phrase-beyond-ascii": (DROP, "3.1.1.12 unreason: a response to nothing of ours"),
    "reason-phrase-empty": (DROP, "3.1.1.13 noreason: likewise"),
    # RFC 4475 3.1.2: wrong
    "separators-without-values": (
        400,
        "3.1.2.1 badinv01: its answer could not find the way back by such Vias",
    ),
    "content-length-beyond-the-datagram": (400, "3.1.2.2 clerr"),
    "content-length-negative": (400, "3.1.2.3 ncl"),
    "numbers-too-large-in-a-request": (400, "3.1.2.4 scalar02"),
    "numbers-too-large-in-a-response": (DROP, "3.1.2.5 scalarlg"),
    "quotation-mark-not-closed": (400, "3.1.2.6 quotbal"),
    "request-uri-in-angle-brackets": (400, "3.1.2.7 ltgtruri"),
    "request-uri-with-a-space": (400, "3.1.2.8 lwsruri"),
    "start-line-with-double-spaces": (400, "3.1.2.9 lwsstart"),
    "start-line-with-trailing-spaces": (400, "3.1.2.10 trws"),
    "request-uri-with-escaped-headers": (
        SHORTENED,
        "3.1.2.11 escruri: they neither go on nor are acted on",
    ),
    "time-zone-that-is-not-gmt": (FORWARD, "3.1.2.12 baddate: not needed here"),
    "contact-headers-without-angle-brackets": (
        FORWARD,
        "3.1.2.13 regbadct: the registrar's business",
    ),
    "spaces-inside-angle-brackets": (FORWARD, "3.1.2.14 badaspec: can be read all the same"),
    "comma-in-an-unquoted-name": (FORWARD, "3.1.2.15 baddn: likewise"),
    "version-seven": (505, "3.1.2.16 badvers"),
    "cseq-of-another-method": (400, "3.1.2.17 mismatch01"),
    "cseq-of-another-method-than-an-unknown-one": (400, "3.1.2.18 mismatch02"),
    "status-code-beyond-32-bits": (DROP, "3.1.2.19 bigcode"),
    # RFC 4475 3.2, 3.3, 3.4: right in itself
    "branch-of-nothing-but-the-cookie": (
        FORWARD,
        "3.2.1 badbranch: taken for a client of before RFC 3261",
    ),
    "mandatory-fields-missing": (400, "3.3.1 insuf"),
    "request-uri-of-an-unknown-scheme": (
        FORWARD,
        "3.3.2 unkscm: the server says 416 if it has no use for it",
    ),
    "request-uri-of-a-known-scheme-that-is-not-sip": (FORWARD, "3.3.3 novelsc: likewise"),
    "from-and-to-of-unknown-schemes": (FORWARD, "3.3.4 unksm2: tel: in a From is everyday"),
    "extensions-that-no-proxy-has": (420, "3.3.5 bext01"),
    "body-of-an-unknown-type": (FORWARD, "3.3.6 invut"),
    "authorization-of-an-unknown-scheme": (FORWARD, "3.3.7 regaut01"),
    "single-fields-that-come-twice": (400, "3.3.8 multi01"),
    "two-content-lengths": (400, "3.3.9 mcl01"),
    "response-whose-second-via-is-broadcast": (DROP, "3.3.10 bcast"),
    "max-forwards-zero": (483, "3.3.11 zeromf"),
    "contact-parameter-outside-the-uri": (FORWARD, "3.3.12 cparam01"),
    "contact-parameter-inside-the-uri": (FORWARD, "3.3.13 cparam02"),
    "contact-with-an-escaped-header": (FORWARD, "3.3.14 regescrt"),
    "accept-that-leaves-out-sdp": (FORWARD, "3.3.15 sdp01"),
    "invite-as-rfc-2543-had-it": (FORWARD, "3.4.1 inv2543: gets the Max-Forwards it lacks"),
    # RFC 5118
    "ipv6-reference": (FORWARD, "4.1"),
    "ipv6-without-brackets": (400, "4.2"),
    "ipv6-port-inside-the-brackets": (FORWARD, "4.3: an address that ends in 5070"),
    "ipv6-port-outside-the-brackets": (FORWARD, "4.4"),
    "ipv6-received-in-brackets": (FORWARD, "4.5"),
    "ipv6-received-without-brackets": (FORWARD, "4.5"),
    "ipv6-in-the-session-description": (FORWARD, "4.6"),
    "ipv6-and-ipv4-vias": (FORWARD, "4.7"),
    "ipv6-and-ipv4-media": (FORWARD, "4.8"),
    "ipv6-mapped-ipv4": (FORWARD, "4.9"),
    "ipv6-of-three-colons": (FORWARD, "4.10: to be tolerated, and passed on as it is"),
    "ipv6-of-two-colons": (FORWARD, "4.10"),
}
FORWARDED = [name for name, row in TABLE.items() if row[0] == FORWARD]
REFUSED = [name for name, row in TABLE.items() if isinstance(row[0], int)]
DROPPED = [name for name, row in TABLE.items() if row[0] == DROP]


def from_phone(core, name):
    return core.receive(MESSAGES[name], PHONES, ALICE, 100.0)


def test_every_message_has_its_row_and_every_row_its_message():
    assert set(TABLE) == set(MESSAGES)


@pytest.mark.parametrize("name", FORWARDED)
def test_forwarded_with_the_promised_lines_and_no_other_change(name):
    (send,) = from_phone(make_core(), name).sends
    assert send.to == "server1"
    assert unpromised(MESSAGES[name], send.data) == ""


@pytest.mark.parametrize("name", FORWARDED)
def test_its_answer_goes_to_where_it_really_came_from_with_the_sender_s_via_on_top(name):
    core = make_core()
    asked = parse(from_phone(core, name).sends[0].data)
    copied = [
        (f.name, f.value)
        for f in asked.fields
        if f.name in ("Via", "From", "To", "Call-ID", "CSeq")
    ]
    (back,) = core.receive(
        Response(200, fields=copied).to_bytes(), "server1", SERVERS["server1"], 100.1
    ).sends
    assert (back.to, back.target[0]) == (PHONES, ALICE[0])
    vias = parse(back.data).vias
    assert vias[0].received == ALICE[0]
    assert vias[1:] == parse(MESSAGES[name]).vias[1:]


@pytest.mark.parametrize("name", FORWARDED)
def test_a_retransmission_leaves_with_the_same_branch(name):
    core, twin = make_core(), make_core()
    vias = {field(from_phone(one, name).sends[0].data, "Via") for one in (core, core, twin)}
    assert len(vias) == 1


@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if row[0] == SHORTENED])
@pytest.mark.parametrize("side", [PHONES, "server1"])
def test_escaped_headers_of_a_request_uri_go_no_further(name, side):
    core, received = make_core(), MESSAGES[name]
    if side == "server1":
        received = received.replace(b"user@example.com", b"user@192.0.2.8", 1)
    (send,) = core.receive(received, side, ALICE if side == PHONES else SERVERS[side], 100.0).sends
    start, _, rest = received.partition(b"\r\n")
    assert unpromised(start.partition(b"?")[0] + b" SIP/2.0\r\n" + rest, send.data) == ""
    assert b"Route: <sip:example.com>" not in send.data


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_its_status_towards_where_it_really_came_from(name):
    (send,) = from_phone(make_core(), name).sends
    assert (send.to, send.target[0]) == (PHONES, ALICE[0])
    answer = parse(send.data)
    assert answer.status == TABLE[name][0]
    sender = Via.parse(answer.values("Via")[0])
    assert (sender.received, answer.get("Content-Length")) == (ALICE[0], "0")


@pytest.mark.parametrize("name", REFUSED)
def test_an_ack_that_is_as_broken_gets_no_answer(name):
    method = MESSAGES[name].split()[0]
    ack = MESSAGES[name].replace(method, b"ACK", 1).replace(b" " + method, b" ACK")
    if TABLE[name][0] != 420:  # Proxy-Require is not looked at in an ACK
        assert make_core().receive(ack, PHONES, ALICE, 100.0).sends == ()


@pytest.mark.parametrize("name", DROPPED)
@pytest.mark.parametrize("side", [PHONES, "server1"])
def test_dropped_without_a_word(name, side):
    core = make_core()
    source = ALICE if side == PHONES else SERVERS[side]
    assert core.receive(MESSAGES[name], side, source, 100.0).sends == ()
    assert (
        sum(count for reason, count in core.counters.items() if reason.startswith("dropped.")) == 1
    )


def test_what_is_not_supported_is_named_in_the_420():
    answer = from_phone(make_core(), "extensions-that-no-proxy-has").sends[0].data
    assert field(answer, "Unsupported") == "noProxiesSupportThis, norDoAnyProxiesSupportThis"


@pytest.mark.parametrize("name", ["reason-phrase-beyond-ascii", "reason-phrase-empty"])
def test_an_odd_response_to_what_we_forwarded_goes_back_byte_for_byte(name):
    core = make_core()
    via = parse(MESSAGES[name]).values("Via")[0]
    ask = parse(MESSAGES["ipv6-reference"])
    ask.replace_top("Via", via)
    address = (parse(MESSAGES[name]).via.host, 5060)
    (asked,) = core.receive(ask.to_bytes(), PHONES, address, 100.0).sends
    ours = f"Via: {parse(asked.data).values('Via')[0]}\r\n".encode()
    response = MESSAGES[name].replace(b"Via:", ours + b"Via:", 1)
    (back,) = core.receive(response, "server1", SERVERS["server1"], 100.1).sends
    assert (back.data, back.target) == (MESSAGES[name], address)


@pytest.mark.parametrize("name", FORWARDED)
def test_a_server_that_sends_it_is_sent_to_an_address_or_told_why_not(name):
    outcome = make_core().receive(MESSAGES[name], "server1", SERVERS["server1"], 100.0)
    (send,) = outcome.sends
    if send.to == "server1":
        assert head(send.data)[0].startswith(("SIP/2.0 502", "SIP/2.0 416"))
        return
    message = parse(MESSAGES[name])
    hop = message.routes[0].uri if message.routes else Uri.parse(message.uri)
    assert (send.to, send.target) == (PHONES, hop.address())
    assert message.routes or unpromised(MESSAGES[name], send.data) == ""
