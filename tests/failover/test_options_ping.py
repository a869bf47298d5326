"""What a heartbeat says, and what counts as an answer to it."""

from __future__ import annotations

from forwarder_kit import answer, field, head

from failover.net.options_ping import Answer, OptionsPing
from sip.message import parse

SERVER, OWN = ("192.0.2.11", 5070), ("192.0.2.1", 40000)


def ping():
    return OptionsPing(SERVER, OWN, "0123456789abcdef")


def test_a_heartbeat_is_a_proper_options_request_to_the_server_itself():
    asked = ping().request(100.0, 0.2)
    request = parse(asked)
    request.check()
    assert (request.method, request.uri) == ("OPTIONS", "sip:192.0.2.11:5070")
    assert request.via.branch.startswith("z9hG4bK") and "rport" in request.via.params
    assert request.to_bytes() == asked


def test_every_heartbeat_is_a_transaction_of_its_own():
    pings = ping()
    first, second = pings.request(100.0, 0.2), pings.request(100.05, 0.2)
    assert field(first, "Via") != field(second, "Via") and field(first, "CSeq") != field(
        second, "CSeq"
    )
    assert field(first, "Call-ID") == field(second, "Call-ID")


def test_any_final_or_provisional_response_is_an_answer_and_says_when_it_was_asked():
    for status in (
        "200 OK",
        "404 Not Found",
        "483 Too Many Hops",
        "503 Service Unavailable",
        "100 Trying",
    ):
        pings = ping()
        asked = pings.request(100.0, 0.2)
        assert pings.response(answer(asked, status), 100.01, 0.2) == Answer(100.0, int(status[:3]))


def test_an_answer_counts_once_and_while_it_is_young():
    pings = ping()
    first, second = pings.request(100.0, 0.2), pings.request(100.05, 0.2)
    assert pings.response(answer(second), 100.1, 0.2).asked == 100.05
    assert pings.response(answer(second), 100.1, 0.2) is None
    assert pings.response(answer(first), 100.21, 0.2) is None


def test_the_memory_of_heartbeats_that_nobody_answers_is_bounded():
    pings = ping()
    for n in range(1000):
        pings.request(100.0 + n * 0.05, 0.2)
    assert len(pings._pending) <= 6


def test_what_answers_nothing_of_ours_proves_nothing():
    pings = ping()
    asked = pings.request(100.0, 0.2)
    good = answer(asked)
    for other in (
        asked,
        b"",
        b"SIP/2.0 200 OK\r\n\r\n",
        good.replace(b"0123456789abcdef@", b"another@"),
        good.replace(b"CSeq: 1 ", b"CSeq: 2 "),
        good.replace(b"CSeq: 1 ", b"CSeq: one "),
    ):
        assert pings.response(other, 100.01, 0.2) is None
    assert pings.response(good, 100.01, 0.2) == Answer(100.0, 200)


def test_heartbeats_go_to_ipv6_addresses_in_brackets():
    asked = OptionsPing(("::1", 5070), ("::1", 40000), "0123456789abcdef").request(1.0, 0.2)
    assert head(asked)[0] == "OPTIONS sip:[::1]:5070 SIP/2.0" and "[::1]:40000" in field(
        asked, "Via"
    )
    parse(asked).check()
