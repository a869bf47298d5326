"""sip.message: what a datagram says, and that it leaves as it came."""

import pytest
from fuzz_kit import broken

from sip.errors import LocalProtocolError, RemoteProtocolError
from sip.header import make_line
from sip.message import BrokenRequest, Request, Response, parse, reply

INVITE = (
    b"INVITE sip:bob@example.test SIP/2.0\r\n"
    b"v:  SIP/2.0/UDP 192.0.2.7:5060;rport;branch=z9hG4bKa , SIP/2.0/UDP 192.0.2.9\r\n"
    b"MAX-FORWARDS: 70\r\n"
    b'From: "A, \\"B\\"" <sip:alice@example.test;x=1>;tag=f\r\n'
    b"t:\t<sip:bob@example.test>\r\n"
    b"Call-ID: one\r\n"
    b"CSeq: 1 INVITE\r\n"
    b"Subject: folded\r\n   and going on\r\n"
    b"X-Broken-\xff: \xfe\r\n".replace(b"-\xff", b"")
    + b"Record-Route: <sip:192.0.2.9;lr>\r\n"
    b"l: 4\r\n\r\nbody"
)


def test_an_untouched_message_leaves_byte_for_byte():
    assert parse(INVITE).to_bytes() == INVITE


def test_line_feeds_alone_end_lines_too_and_stay():
    data = INVITE.replace(b"\r\n", b"\n")
    message = parse(data)
    message.check()
    assert message.to_bytes() == data


def test_an_edit_changes_its_own_line_only():
    message = parse(INVITE)
    message.set("Max-Forwards", "69")
    message.push("Via", "SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKb")
    before, after = INVITE.split(b"\r\n"), message.to_bytes().split(b"\r\n")
    assert [line for line in after if line not in before] == [
        b"Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKb",
        b"Max-Forwards: 69",
    ]
    assert [line for line in before if line not in after] == [b"MAX-FORWARDS: 70"]


def test_pop_takes_one_value_of_a_list_and_keeps_the_senders_spelling():
    message = parse(INVITE)
    assert message.pop("Via") == "SIP/2.0/UDP 192.0.2.7:5060;rport;branch=z9hG4bKa"
    assert b"\r\nv: SIP/2.0/UDP 192.0.2.9\r\n" in message.to_bytes()
    assert message.pop("Via") == "SIP/2.0/UDP 192.0.2.9"
    with pytest.raises(RemoteProtocolError):
        message.pop("Via")


def test_fields_are_found_by_any_of_their_names():
    message = parse(INVITE)
    assert message.get("TO") == message.get("t") == "<sip:bob@example.test>"
    assert message.get("subject") == "folded and going on"
    assert [via.host for via in message.vias] == ["192.0.2.7", "192.0.2.9"]
    assert (message.from_.display, message.from_.tag) == ('A, "B"', "f")
    assert (message.cseq.number, message.cseq.method, message.max_forwards) == (1, "INVITE", 70)


def test_bytes_after_the_content_length_are_cut_off():
    assert parse(INVITE + b"more").body == b"body"


def test_without_a_content_length_the_body_reaches_to_the_end():
    assert parse(INVITE.replace(b"l: 4\r\n", b"")).body == b"body"


def test_empty_lines_before_the_start_line_are_ignored():
    assert parse(b"\r\n\r\n" + INVITE).to_bytes() == INVITE


BROKEN = {
    "empty": (b"", 400),
    "no empty line": (b"OPTIONS sip:a SIP/2.0\r\nTo: x\r\n", 400),
    "body shorter than said": (INVITE[:-1], 400),
    "negative length": (INVITE.replace(b"l: 4", b"l: -4"), 400),
    "two lengths": (INVITE.replace(b"l: 4", b"l: 4\r\nContent-Length: 3"), 400),
    "not sip": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "version 3": (INVITE.replace(b"SIP/2.0\r\nv", b"SIP/3.0\r\nv"), 505),
    "uri in brackets": (
        INVITE.replace(b"sip:bob@example.test SIP", b"<sip:bob@example.test> SIP"),
        400,
    ),
    "line without colon": (INVITE.replace(b"Call-ID: one", b"Call-ID one"), 400),
    "first line folded": (b"OPTIONS sip:a SIP/2.0\r\n To: x\r\n\r\n", 400),
    "carriage return inside a line": (INVITE.replace(b"one", b"one\rVia: x"), 400),
    "status 999": (b"SIP/2.0 999 Nothing\r\n\r\n", 400),
    "too many fields": (b"OPTIONS sip:a SIP/2.0\r\n" + b"X: y\r\n" * 300 + b"\r\n", 513),
}


@pytest.mark.parametrize("oddity", BROKEN)
def test_what_is_no_message_is_the_peers_fault(oddity):
    data, status = BROKEN[oddity]
    with pytest.raises(RemoteProtocolError) as caught:
        parse(data)
    assert caught.value.status == status


@pytest.mark.parametrize(
    "old, new",
    [
        (b"CSeq: 1 INVITE", b"CSeq: 1 BYE"),
        (b"CSeq: 1 INVITE", b"CSeq: 99999999999 INVITE"),
        (b"Call-ID: one\r\n", b""),
        (b"Call-ID: one\r\n", b"Call-ID: one\r\ni: two\r\n"),
        (b"MAX-FORWARDS: 70", b"MAX-FORWARDS: -1"),
        (b"t:\t<sip:bob@example.test>", b't: "bob <sip:bob@example.test>'),
    ],
)
def test_check_wants_the_mandatory_fields_once_and_readable(old, new):
    assert old in INVITE
    with pytest.raises(RemoteProtocolError):
        parse(INVITE.replace(old, new)).check()


def test_a_reply_copies_what_the_rfc_says_and_counts_its_body():
    request = parse(INVITE)
    response = parse(
        reply(
            request, 200, to_tag="t1", fields=[("Contact", "<sip:bob@192.0.2.4>")], body=b"x"
        ).to_bytes()
    )
    assert response.values("Via") == request.values("Via")
    assert (response.to.tag, response.call_id, response.reason, response.body) == (
        "t1",
        "one",
        "OK",
        b"x",
    )
    assert response.get("Record-Route") == "<sip:192.0.2.9;lr>"
    assert reply(request, 404).get("Record-Route") is None
    assert reply(request, 100, to_tag="t1").to.tag == ""


def test_our_own_messages_cannot_smuggle_a_header():
    with pytest.raises(LocalProtocolError):
        make_line("Subject", "x\r\nVia: y")
    with pytest.raises(LocalProtocolError):
        Response(200, "OK\r\nVia: y")
    with pytest.raises(LocalProtocolError):
        Request("INVITE", "sip:a SIP/2.0\r\nVia: y")


@pytest.mark.parametrize(
    "old, new, status",
    [
        (b"sip:bob@example.test SIP", b"<sip:bob@example.test> SIP", 400),
        (b" SIP/2.0\r\n", b" SIP/3.0\r\n", 505),
        (b" SIP/2.0\r\n", b" SIP/2.0 \r\n", 400),
        (b"MAX-FORWARDS: 70", b"no header line", 400),
        (b"l: 4\r\n", b"l: 400\r\n", 400),
        (b"l: 4\r\n", b"x:y\r\n" * 300, 513),
    ],
)
def test_a_broken_request_keeps_what_its_answer_needs(old, new, status):
    with pytest.raises(BrokenRequest) as caught:
        parse(INVITE.replace(old, new, 1))
    assert caught.value.status == status
    answer, good = reply(caught.value.request, status, to_tag="t"), parse(INVITE)
    assert [answer.all(name) for name in ("Via", "From", "Call-ID", "CSeq")] == [
        good.all(name) for name in ("Via", "From", "Call-ID", "CSeq")
    ]


def test_an_answer_repeats_what_it_cannot_read_and_leaves_out_what_is_not_there():
    odd = parse(
        INVITE.replace(b"t:\t<sip:bob@example.test>", b't: "never closed <sip:bob@example.test>')
    )
    assert reply(odd, 400, to_tag="t").get("To") == '"never closed <sip:bob@example.test>'
    less = parse(
        INVITE.replace(b"Call-ID: one\r\n", b"").replace(b"t:\t<sip:bob@example.test>\r\n", b"")
    )
    assert reply(less, 400, to_tag="t").get("To") is None


def test_a_header_far_beyond_what_anybody_sends_is_not_read():
    huge = INVITE.replace(b"CSeq", b"X: " + b"x" * 20_000 + b"\r\nCSeq")
    with pytest.raises(RemoteProtocolError, match="larger than 16384") as caught:
        parse(huge)
    assert caught.value.status == 513


def test_any_bytes_either_parse_or_raise_remote_protocol_error():
    """Invariant: any bytes either parse, and then leave as they came, or raise
    RemoteProtocolError."""
    parsed = 0
    for data in broken([INVITE], 4000):
        try:
            message = parse(data)
            assert data.lstrip(b"\r\n").startswith(message.to_bytes())
            message.check()
            _ = (
                message.contacts,
                message.routes,
                message.record_routes,
                message.expires,
                message.vias,
            )
            parsed += 1
        except RemoteProtocolError:
            continue
    assert parsed > 400, "the samples are broken too badly to say much"
