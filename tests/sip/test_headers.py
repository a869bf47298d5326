"""sip.grammar, sip.header, sip.uri, sip.via, sip.branch: what stands in a line."""

import pytest

from sip.branch import is_branch_of, keyed_hash, make_branch
from sip.errors import RemoteProtocolError
from sip.grammar import format_params, parse_params, split_list
from sip.header import CSeq, NameAddr, canonical
from sip.message import parse
from sip.uri import Uri
from sip.via import Via


@pytest.mark.parametrize(
    "written, name",
    [
        ("i", "Call-ID"),
        ("CALL-id", "Call-ID"),
        ("cseq", "CSeq"),
        ("www-authenticate", "WWW-Authenticate"),
        ("X-y", "X-Y"),
    ],
)
def test_names_have_one_spelling(written, name):
    assert canonical(written) == name


def test_commas_inside_quotes_and_brackets_do_not_separate():
    assert split_list('"a,b" <sip:x?y=1,2>, <sip:z>;p="c,\\"d", e') == [
        '"a,b" <sip:x?y=1,2>',
        '<sip:z>;p="c,\\"d"',
        "e",
    ]
    with pytest.raises(RemoteProtocolError):
        split_list('"never closed, <sip:x>')


def test_parameters_survive_there_and_back():
    params = parse_params(';lr;TTL=1;text="a b;c";empty=')
    assert params == {"lr": None, "ttl": "1", "text": "a b;c", "empty": ""}
    assert parse_params(format_params(params)) == params


@pytest.mark.parametrize(
    "text",
    [
        "sip:alice@example.test",
        "sips:a:pw@h:5061;transport=tcp;lr?x=y",
        "sip:[2001:db8::1]:5060",
        "sip:+49;isub=1@h",
        "sip:h",
    ],
)
def test_uris_print_as_they_were_read(text):
    assert str(Uri.parse(text)) == text


def test_a_uri_tells_its_parts():
    uri = Uri.parse("sip:alice:secret@[2001:db8::1]:5070;lr;transport=udp?subject=x")
    assert (uri.user, uri.password, uri.host, uri.port) == ("alice", "secret", "2001:db8::1", 5070)
    assert (dict(uri.params), uri.headers) == ({"lr": None, "transport": "udp"}, "subject=x")
    assert (uri.address(), Uri.parse("sip:h").address()) == (("2001:db8::1", 5070), ("h", 5060))


@pytest.mark.parametrize(
    "text, status",
    [("tel:+49301234", 416), ("sip:", 400), ("sip:a@h:99999", 400), ("sip:a b@h", 400)],
)
def test_what_is_no_sip_uri_has_its_status(text, status):
    with pytest.raises(RemoteProtocolError) as caught:
        Uri.parse(text)
    assert caught.value.status == status


def test_addresses_of_record_are_canonical():
    assert Uri.parse("sips:%61lice@EXAMPLE.test:5060;x=1").aor() == "sip:alice@example.test"


# The examples of RFC 3261 19.1.4, first those that are equal, then those that are not.
@pytest.mark.parametrize(
    "one, other, same",
    [
        ("sip:%61lice@atlanta.com;transport=TCP", "sip:alice@AtLanTa.CoM;Transport=tcp", True),
        ("sip:carol@chicago.com", "sip:carol@chicago.com;newparam=5", True),
        ("sip:carol@chicago.com;security=on", "sip:carol@chicago.com;newparam=5", True),
        (
            "sip:alice@atlanta.com?subject=a&priority=urgent",
            "sip:alice@atlanta.com?priority=urgent&subject=a",
            True,
        ),
        ("SIP:ALICE@AtLanTa.CoM;Transport=udp", "sip:alice@AtLanTa.CoM;Transport=UDP", False),
        ("sip:bob@biloxi.com", "sip:bob@biloxi.com:5060", False),
        ("sip:bob@biloxi.com", "sip:bob@biloxi.com;transport=udp", False),
        ("sip:carol@chicago.com;security=on", "sip:carol@chicago.com;security=off", False),
        ("sip:carol@chicago.com", "sip:carol@chicago.com?Subject=next%20meeting", False),
    ],
)
def test_uris_are_compared_as_the_rfc_does(one, other, same):
    assert Uri.parse(one).same_as(Uri.parse(other)) is same
    assert Uri.parse(other).same_as(Uri.parse(one)) is same


@pytest.mark.parametrize(
    "value, display, uri, tag",
    [
        ('"Mr. \\"X\\"" <sip:x@h;lr>;tag=1', 'Mr. "X"', "sip:x@h;lr", "1"),
        ("Alice Smith   <sip:a@h>", "Alice Smith", "sip:a@h", ""),
        ("sip:a@h;tag=2", "", "sip:a@h", "2"),
        ("<sip:a@h> ; TAG=3", "", "sip:a@h", "3"),
    ],
)
def test_name_addr_comes_in_four_ways(value, display, uri, tag):
    parsed = NameAddr.parse(value)
    assert (parsed.display, str(parsed.uri), parsed.tag) == (display, uri, tag)
    assert NameAddr.parse(str(parsed)) == parsed


@pytest.mark.parametrize("value", ["", '"x" sip:a@h', "<sip:a@h", "<sip:a@h>junk", '"x <sip:a@h>'])
def test_broken_addresses_are_refused(value):
    with pytest.raises(RemoteProtocolError):
        NameAddr.parse(value)


@pytest.mark.parametrize("value", ["", "x INVITE", "1", "4294967296 INVITE", "1 IN VITE"])
def test_broken_cseqs_are_refused(value):
    with pytest.raises(RemoteProtocolError):
        CSeq.parse(value)


def test_a_via_answers_to_where_the_request_came_from():
    via = Via.parse("SIP / 2.0 / UDP  phone.example.test:5062 ;rport;branch=z9hG4bKx")
    assert via.reply_address() == ("phone.example.test", 5062)
    seen = via.with_source("198.51.100.7", 1024)
    assert (
        str(seen)
        == "SIP/2.0/UDP phone.example.test:5062;rport=1024;branch=z9hG4bKx;received=198.51.100.7"
    )
    assert Via.parse(str(seen)).reply_address() == ("198.51.100.7", 1024)


def test_without_rport_only_a_wrong_host_is_corrected():
    via = Via.parse("SIP/2.0/UDP 192.0.2.7:5062;branch=z9hG4bKx")
    assert via.with_source("192.0.2.7", 1024) == via
    assert via.with_source("192.0.2.8", 1024).reply_address() == ("192.0.2.8", 5062)


def test_a_received_that_the_sender_wrote_itself_does_not_stay():
    via = Via.parse("SIP/2.0/UDP 192.0.2.7;branch=z9hG4bKx;received=203.0.113.99")
    assert via.with_source("192.0.2.7", 5060).reply_address() == ("192.0.2.7", 5060)


def request(via, method="INVITE", cseq=1):
    return parse(
        f"{method} sip:bob@h SIP/2.0\r\nVia: {via}\r\nFrom: <sip:a@h>;tag=f\r\nTo: <sip:bob@h>\r\n"
        f"Call-ID: c\r\nCSeq: {cseq} {method}\r\n\r\n".encode()
    )


NEW, OLD = "SIP/2.0/UDP h;branch=z9hG4bK1", "SIP/2.0/UDP h;branch=1"


def test_retransmission_cancel_and_ack_to_a_failure_share_their_invites_branch():
    for via in (NEW, OLD):
        invite = make_branch(b"key", request(via))
        assert invite.startswith("z9hG4bK") and invite == make_branch(b"key", request(via))
        assert (
            invite
            == make_branch(b"key", request(via, "CANCEL"))
            == make_branch(b"key", request(via, "ACK"))
        )


def test_other_transactions_and_other_keys_have_other_branches():
    invite = make_branch(b"key", request(NEW))
    assert invite != make_branch(b"other", request(NEW))
    assert invite != make_branch(b"key", request("SIP/2.0/UDP h;branch=z9hG4bK2"))
    assert invite != make_branch(b"key", request("SIP/2.0/UDP elsewhere;branch=z9hG4bK1"))
    assert make_branch(b"key", request(OLD, cseq=1)) != make_branch(b"key", request(OLD, cseq=2))


@pytest.mark.parametrize("via", [NEW, OLD])
def test_only_an_answer_to_what_we_forwarded_is_ours(via):
    message = request(via)
    message.push("Via", f"SIP/2.0/UDP me;branch={make_branch(b'key', message)}")
    ours, beneath = (Via.parse(each) for each in message.values("Via"))
    assert is_branch_of(b"key", ours, beneath, message)
    assert not is_branch_of(b"other", ours, beneath, message)
    assert not is_branch_of(b"key", ours, Via.parse("SIP/2.0/UDP victim;branch=z9hG4bK1"), message)
    assert not is_branch_of(b"key", beneath, beneath, message)


def test_keyed_hashes_keep_their_parts_apart():
    assert keyed_hash(b"k", "ab", "c") != keyed_hash(b"k", "a", "bc")
    assert len(keyed_hash(b"k", "x")) == 32 and int(keyed_hash(b"k", "x"), 16)
