"""Nobody can have the forwarder send where he likes: not by Route, Request-URI, maddr, Via,
received or a response."""

from __future__ import annotations

import pytest
from forwarder_kit import ALICE, BOB, SERVERS, answer, field, head, make_core, request

from failover.config.settings import PHONES
from plumbing.address import literal

VICTIM = "203.0.113.66"
S1 = SERVERS["server1"]


def via(text):
    return f"Via: SIP/2.0/UDP {text};branch=z9hG4bKv"


# each names the victim wherever a phone can name somebody
NAMING = {
    "request-uri": request(uri=f"sip:x@{VICTIM}"),
    "request-uri with a port": request(uri=f"sip:{VICTIM}:53"),
    "request-uri with maddr": request(uri=f"sip:x@failover.test;maddr={VICTIM}"),
    "request-uri over sips": request(uri=f"sips:x@{VICTIM}"),
    "route": request(extra=(f"Route: <sip:{VICTIM};lr>",)),
    "strict route": request(extra=(f"Route: <sip:{VICTIM}>",)),
    "route behind ours": request(extra=(f"Route: <sip:192.0.2.1;lr>, <sip:{VICTIM};lr>",)),
    "route with maddr": request(extra=(f"Route: <sip:192.0.2.1;lr;maddr={VICTIM}>",)),
    "our record-route as request-uri": request(
        uri="sip:192.0.2.1;lr;hint=HINT", extra=(f"Route: <sip:{VICTIM};lr>",)
    ),
    "record-route": request(extra=(f"Record-Route: <sip:{VICTIM};lr>",)),
    "contact": request(extra=(f"Contact: <sip:{VICTIM}>",)),
    "via host": request(via=via(VICTIM)),
    "via host with rport": request(via=via(f"{VICTIM};rport")),
    "via received": request(via=via(f"192.0.2.7;received={VICTIM}")),
    "via received and rport": request(via=via(f"192.0.2.7;rport=53;received={VICTIM}")),
    "via received twice": request(via=via(f"192.0.2.7;received={VICTIM};received={VICTIM}")),
    "via maddr": request(via=via(f"192.0.2.7;maddr={VICTIM}")),
    "second via": request(via=f"{via('192.0.2.7')}\r\n{via(VICTIM)}2"),
    "list of vias": request(via=f"{via('192.0.2.7')}, SIP/2.0/UDP {VICTIM};branch=z9hG4bKw"),
    "via host in capitals": request(via=via(f"192.0.2.7;RECEIVED={VICTIM};MADDR={VICTIM}")),
    "via of another family": request(via=via("[2001:db8::66]:53;received=[2001:db8::66]")),
}


def named(core, name):
    return NAMING[name].replace(b"HINT", core.table.servers[0].hint.encode())


@pytest.mark.parametrize("name", NAMING)
def test_a_phone_s_request_goes_to_a_server_and_its_answer_to_that_phone(name):
    core = make_core()
    (sent,) = core.receive(named(core, name), PHONES, ALICE, 1.0).sends
    assert (sent.to, sent.target) == ("server1", None)
    (back,) = core.receive(answer(sent.data), "server1", S1, 1.1).sends
    assert (back.to, back.target[0]) == (PHONES, ALICE[0])


@pytest.mark.parametrize("name", NAMING)
def test_nor_do_the_forwarder_s_own_answers_go_anywhere_else(name):
    core = make_core()
    data = named(core, name).replace(b"Max-Forwards: 70", b"Max-Forwards: 0")
    (refused,) = core.receive(data, PHONES, ALICE, 1.0).sends
    assert refused.target[0] == ALICE[0] and head(refused.data)[0] == "SIP/2.0 483 Too Many Hops"
    assert len(refused.data) < 1.5 * len(data), "and they make little more of it than it was"


@pytest.mark.parametrize("name", NAMING)
def test_when_no_server_lives_they_stay_with_the_phone_too(name):
    core = make_core(servers={})
    data = named(make_core(), name)
    (refused,) = core.receive(data, PHONES, ALICE, 1.0).sends
    assert (
        refused.target[0] == ALICE[0] and head(refused.data)[0] == "SIP/2.0 503 Service Unavailable"
    )


def forged_responses():
    core = make_core()
    (asked,) = core.receive(request(), PHONES, ALICE, 1.0).sends
    ours, own = field(asked.data, "Via"), "SIP/2.0/UDP 192.0.2.1:5060;branch="
    good = answer(asked.data)
    beneath = f"Via: {field(request(), 'Via')}".encode()
    yield "no via of ours", answer(request())
    yield (
        "our address and a made up branch",
        good.replace(ours.encode(), f"{own}z9hG4bK{'a' * 26}".encode()),
    )
    yield "our branch over the victim's via", good.replace(beneath, via(VICTIM).encode())
    yield "our branch over another port", good.replace(beneath, beneath.replace(b":5060", b":53"))
    yield (
        "our branch over a received",
        good.replace(beneath, beneath + f";received={VICTIM}".encode()),
    )
    yield "our branch over a maddr", good.replace(beneath, beneath + f";maddr={VICTIM}".encode())
    yield "our branch over a rport", good.replace(beneath, beneath + b";rport=53")
    yield "our via alone", good.replace(beneath + b"\r\n", b"")
    yield "our via twice", good.replace(beneath, f"Via: {ours}\r\nVia: {ours}".encode())
    yield (
        "another one's via on top",
        good.replace(b"Via:", via("192.0.2.99").encode() + b"\r\nVia:", 1),
    )


@pytest.mark.parametrize("data", [pytest.param(data, id=name) for name, data in forged_responses()])
@pytest.mark.parametrize("side", [PHONES, "server1"])
def test_a_response_without_our_signature_over_its_way_back_goes_nowhere(data, side):
    core = make_core()
    assert core.receive(data, side, S1 if side == "server1" else BOB, 1.0).sends == ()
    assert core.counters["dropped.not-ours"] + core.counters["dropped.malformed"] == 1


def test_the_signature_of_another_secret_is_none():
    other = make_core()
    other.lines.key = b"another forwarder's"
    (asked,) = other.receive(request(), PHONES, ALICE, 1.0).sends
    assert make_core().receive(answer(asked.data), "server1", S1, 1.0).sends == ()


@pytest.mark.parametrize(
    "host",
    [
        "bob.example",
        "localhost",
        "2130706433",
        "0x7f.1",
        "127.1",
        "224.0.0.1",
        "ff02::1",
        "0.0.0.0",
        "::",
        "",
        "a" * 300,
        "255.255.255.255",
        "192.0.2.1%0",
        "192.0.2.1 ",
        "１９２.0.2.1",
    ],
)
def test_only_one_computer_s_plain_address_is_an_address(host):
    assert not literal((host, 5060))


@pytest.mark.parametrize(
    "uri", [f"sip:x@{VICTIM};maddr=224.0.0.1", f"sip:x@{VICTIM};maddr=host.example"]
)
def test_a_server_may_name_an_address_but_not_by_maddr(uri):
    core = make_core()
    (sent,) = core.receive(request("MESSAGE", uri, source=S1), "server1", S1, 1.0).sends
    assert sent.target == (VICTIM, 5060)


@pytest.mark.parametrize(
    "host", ["host.example", "localhost", "224.0.0.5", "127.1", "[2001:db8::1]"]
)
def test_a_server_that_names_what_is_no_address_here_is_told_so(host):
    core = make_core()
    (sent,) = core.receive(request("MESSAGE", f"sip:x@{host}", source=S1), "server1", S1, 1.0).sends
    assert sent.to == "server1" and head(sent.data)[0] == "SIP/2.0 502 Bad Gateway"
