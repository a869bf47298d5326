"""Stories of where a call's messages may go: to no stranger, past whatever a phone writes oddly,
and to the phone that the tags name."""

from __future__ import annotations

import pytest
from slee_kit import Cluster, answer, cluster_with_bob, in_dialog, invite, phone_request, register

from slee_mock.services.bill_record import Bill
from slee_mock.services.call_record import Call

BOB_AT = "sip:bob@127.0.0.1:4100"
ALICE_AT = "sip:alice@127.0.0.1:4000"
OWN = "<sip:127.0.0.1:5060;lr;hint=x>"
STRANGER = "127.0.0.77:9999"
TO_STRANGER = f"<sip:{STRANGER};lr>"
METHODS = [
    "INFO",
    "BYE",
    "INVITE",
    "UPDATE",
    "OPTIONS",
    "MESSAGE",
    "NOTIFY",
    "REFER",
    "ACK",
    "PRACK",
]
IN_DIALOG = ["INFO", "INVITE", "UPDATE", "OPTIONS", "MESSAGE", "NOTIFY", "REFER", "PRACK"]


@pytest.fixture
def cluster():
    return cluster_with_bob()


def talk(cluster, recorded=(), behind=()):
    """An answered call. `recorded`: Record-Routes of proxies beside Bob's phone; `behind`: beside
    Alice's."""
    asked = invite(fields=[("Record-Route", value) for value in (OWN, *behind)])
    ok = answer(cluster.one(asked), 200)
    for value in (*recorded, OWN, *behind):
        ok.add("Record-Route", value)
    cluster.one(ok)
    cluster.one(in_dialog("ACK", cseq=1))


# -- Routes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["alice", "bob"])
@pytest.mark.parametrize("method", METHODS)
def test_a_route_that_nobody_recorded_is_not_followed(cluster, method, by):
    talk(cluster)
    contact = ALICE_AT if by == "alice" else BOB_AT
    request = in_dialog(method, by, cseq=9, contact=f"<{contact}>", fields=[("Route", TO_STRANGER)])
    sent = cluster.one(request)
    assert (sent.method, sent.get("Route")) == (method, None)
    assert sent.uri == (BOB_AT if by == "alice" else ALICE_AT)


@pytest.mark.parametrize(
    "route",
    [
        f"<sip:{STRANGER}>",
        f"<sip:192.0.2.9;lr;maddr=127.0.0.77>, {TO_STRANGER}",
        f"{OWN}, {TO_STRANGER}",
        f'"<sip:192.0.2.9;lr>" <sip:{STRANGER};lr>',
        f"sip:{STRANGER};lr",
        "<sip:192.0.2.9:5061;lr>",
        "<sip:[oops;lr>",
        '"open <sip:192.0.2.9;lr>',
    ],
)
def test_only_an_address_that_stood_in_a_record_route_is_a_way(cluster, route):
    talk(cluster, recorded=["<sip:192.0.2.9:5062;lr>"])
    sent = cluster.one(in_dialog("INFO", fields=[("Route", route)]))
    kept = sent.get("Route") or ""
    assert STRANGER not in kept and "192.0.2.9" not in kept.replace("192.0.2.9:5062", "")


def test_a_proxy_beside_bob_s_phone_is_gone_through_by_alice_s_requests(cluster):
    talk(cluster, recorded=["<sip:192.0.2.9;lr>"])
    for method, at in (("INFO", "server1"), ("INVITE", "server2"), ("BYE", "server2")):
        asked = in_dialog(
            method, contact=f"<{ALICE_AT}>", fields=[("Route", "<sip:192.0.2.9:5060;lr>")]
        )
        assert cluster.one(asked, at).get("Route") == "<sip:192.0.2.9:5060;lr>"


def test_a_phone_behind_an_outbound_proxy_of_its_own_is_reached_through_it(cluster):
    """Its proxy stands in the Record-Route of its INVITE, and so in Bob's Route."""
    talk(cluster, behind=["<sip:192.0.2.33;lr>"])
    bye = in_dialog("BYE", "bob", fields=[("Route", "<sip:192.0.2.33;lr>")])
    assert cluster.one(bye).get("Route") == "<sip:192.0.2.33;lr>"


def test_what_alice_writes_into_her_own_invite_is_no_way_for_her(cluster):
    talk(cluster, behind=[TO_STRANGER])
    assert cluster.one(in_dialog("INFO", fields=[("Route", TO_STRANGER)])).get("Route") is None


def test_her_cancel_and_her_ack_to_a_failure_go_no_other_way_either(cluster):
    offered = cluster.one(invite())
    strange = [("Route", TO_STRANGER)]
    assert (
        cluster.one(phone_request("CANCEL", "sip:bob@failover.test", fields=strange)).get("Route")
        is None
    )
    cluster.one(answer(offered, 487))
    ack = phone_request("ACK", "sip:bob@failover.test", to_tag="b1", fields=strange)
    assert (cluster.one(ack).get("Route"), cluster.outcome.sends[0].to) == (None, None)


def test_a_re_invite_teaches_no_way(cluster):
    """RFC 3261 12.2: the route set of a dialog never changes."""
    talk(cluster)
    again = cluster.one(in_dialog("INVITE", contact=f"<{ALICE_AT}>"))
    ok = answer(again, 200)
    ok.add("Record-Route", TO_STRANGER)
    cluster.one(ok)
    assert (
        cluster.one(in_dialog("INFO", cseq=3, fields=[("Route", TO_STRANGER)])).get("Route") is None
    )


@pytest.mark.parametrize("method", IN_DIALOG)
@pytest.mark.parametrize(
    "uri",
    [
        f"sip:bob@{STRANGER}",
        "sip:bob@127.0.0.1:4101",
        "sip:bob@127.0.0.1:4100;maddr=127.0.0.77",
        "sip:bob@127.0.0.77",
    ],
)
def test_a_request_uri_that_nobody_told_as_a_contact_is_refused(cluster, method, uri):
    talk(cluster)
    request = in_dialog(method, contact=f"<{ALICE_AT}>")
    request.uri = uri
    assert cluster.one(request).status == 404


def test_a_contact_without_a_user_is_asked_and_not_taken_for_the_server(cluster):
    cluster.one(answer(cluster.one(invite()), 200, contact="<sip:127.0.0.1:4100>"))
    for number, method in enumerate(("ACK", "OPTIONS", "BYE"), start=1):
        request = in_dialog(method, cseq=number)
        request.uri = "sip:127.0.0.1:4100"
        assert (cluster.one(request).method, cluster.outcome.sends[0].to) == (method, None)


# -- the right party's BYE ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("contact", "uri"),
    [
        ("<sip:bob@127.0.0.2>", "sip:bob@127.0.0.2:5060"),
        ("<sip:bob@127.0.0.2:5060>", "sip:bob@127.0.0.2"),
        ("<sip:bob@127.0.0.2;transport=udp>", "sip:bob@127.0.0.2"),
        ("<sip:b%6fb@127.0.0.2>", "sip:bob@127.0.0.2;transport=UDP;x=y"),
        ("<sip:[::1]:4100>", "sip:[0:0:0:0:0:0:0:1]:4100"),
    ],
)
@pytest.mark.parametrize("method", ["BYE", "INFO", "INVITE"])
def test_a_contact_is_the_same_with_and_without_what_changes_no_address(
    cluster, contact, uri, method
):
    cluster.one(answer(cluster.one(invite()), 200, contact=contact))
    ack = in_dialog("ACK", cseq=1)
    request = in_dialog(method, contact=f"<{ALICE_AT}>")
    ack.uri = request.uri = uri
    assert cluster.one(ack).uri == cluster.one(request).uri == uri
    assert (cluster.bill().state, cluster.bill().total) == (
        "ended" if method == "BYE" else "answered",
        "0.15",
    )


@pytest.mark.parametrize("by", ["alice", "bob"])
@pytest.mark.parametrize(
    "uri",
    [
        "sip:victim@192.0.2.66",
        "sip:bob@failover.test",
        "sip:[oops",
        "tel:+4930123",
        "sip:bob@127.0.0.1:4100transport=udp",
    ],
)
def test_a_bye_of_the_right_party_ends_the_bill_and_goes_to_the_other_phone_whatever_it_names(
    cluster, by, uri
):
    talk(cluster)
    cluster.now += 12
    bye = in_dialog("BYE", by)
    bye.uri = uri
    assert cluster.one(bye, at="server2").uri == (BOB_AT if by == "alice" else ALICE_AT)
    assert (cluster.bill().state, cluster.bill().seconds, cluster.bill().why) == (
        "ended",
        12,
        f"{by} hung up",
    )


@pytest.mark.parametrize(
    "more",
    [
        {"fields": [("Proxy-Require", "foo")]},
        {"fields": [("Session-Expires", "soon")]},
        {"fields": [("Contact", "<sip:")]},
        {"fields": [("Record-Route", '"open')]},
        {"hops": 0},
    ],
)
def test_a_bye_that_cannot_be_passed_on_or_read_in_full_ends_the_bill_too(cluster, more):
    talk(cluster)
    cluster.receive(in_dialog("BYE", **more))
    assert cluster.bill().final and cluster.get(Call, "c1").over


@pytest.mark.parametrize(
    ("more", "status"), [({"fields": [("Proxy-Require", "foo")]}, 420), ({"hops": 0}, 483)]
)
def test_the_other_phone_hears_a_bye_that_no_proxy_passes_on_since_the_bill_ends(
    cluster, more, status
):
    talk(cluster)
    passed, refused = cluster.receive(in_dialog("BYE", **more))
    assert (passed.method, passed.uri, passed.get("Proxy-Require")) == ("BYE", BOB_AT, None)
    assert passed.max_forwards == 1, "the forwarder has to pass it on, and takes one more"
    assert refused.status == status


@pytest.mark.parametrize("field", [b"From: <sip:bad@[>;tag=a1", b"From: <tel:+4930>;tag=a1"])
def test_nor_does_it_need_a_from_that_can_be_read(cluster, field):
    talk(cluster)
    bye = in_dialog("BYE").to_bytes().replace(b"From: <sip:alice@failover.test>;tag=a1", field)
    assert cluster.one(bye).method == "BYE" and cluster.bill().final


def test_a_stranger_s_bye_ends_nothing(cluster):
    talk(cluster)
    for odd in (
        {"tag": "guess"},
        {"to_tag": "guess"},
        {"call_id": "c2"},
        {"to_tag": "a1", "tag": "a1"},
    ):
        tags = {"to_tag": "b1", "cseq": 2, **odd}
        assert cluster.one(phone_request("BYE", BOB_AT, **tags)).status == 481
    assert cluster.bill().state == "answered"


def test_a_phone_of_before_there_were_tags_can_hang_up_and_be_hung_up_on(cluster):
    """RFC 3261 12.1: a tag that is missing is one that is empty."""
    for call_id, by in (("c1", "alice"), ("c2", "bob")):
        ok = answer(cluster.one(invite(call_id=call_id)), 200)
        ok.set("To", "<sip:bob@failover.test>")
        cluster.one(ok)
        bob = {"user": "bob", "tag": "", "to_tag": "a1", "to": "<sip:alice@failover.test>"}
        who = {} if by == "alice" else bob
        ack = phone_request("ACK", BOB_AT, to="<sip:bob@failover.test>", call_id=call_id)
        assert cluster.one(ack).uri == BOB_AT
        bye = phone_request("BYE", ALICE_AT if who else BOB_AT, cseq=2, call_id=call_id, **who)
        if who:
            bye.set("From", "<sip:bob@failover.test>")
        assert cluster.one(bye).method == "BYE"
        assert cluster.bill(call_id).why == f"{by} hung up"


# -- answers ------------------------------------------------------------------------------------


ODD = [
    ("Contact", "<sip:bob@127.0.0.1:6002transport=udp>"),
    ("Contact", '"open <sip:bob@127.0.0.1>'),
    ("Contact", "*"),
    ("Contact", "<tel:+4930123>"),
    ("From", "<sip:al ice@[>;tag=a1"),
    ("From", "<tel:+4930123>;tag=a1"),
    ("To", "<sip:bob@host:port>;tag=b1"),
    ("To", "<http://bob.example>;tag=b1"),
    ("Session-Expires", "an hour"),
    ("Record-Route", "<sip:[oops;lr>"),
    ("Record-Route", '"open'),
    ("Require", '"open'),
    ("Supported", '"open'),
    ("Expires", "soon"),
    ("Max-Forwards", "many"),
    ("Date", "yesterday"),
    ("Allow", '"open'),
]


@pytest.mark.parametrize("status", [180, 200])
@pytest.mark.parametrize(("name", "value"), ODD)
def test_what_cannot_be_read_in_an_answer_is_passed_on_untouched(cluster, status, name, value):
    plain = answer(
        cluster.one(invite()), status, contact="" if name == "Contact" else f"<{BOB_AT}>"
    )
    plain.set(name, value)
    passed = cluster.one(plain)
    assert (passed.status, passed.get(name)) == (status, value)
    assert cluster.bill().state == ("ringing" if status == 180 else "answered")
    if status == 200:
        assert cluster.one(in_dialog("ACK", cseq=1)).uri == BOB_AT
        assert cluster.one(in_dialog("BYE")).uri == BOB_AT and cluster.bill().final


def test_lines_that_are_no_header_fields_pass_too(cluster):
    plain = answer(cluster.one(invite()), 200).to_bytes()
    odd = plain.replace(b"Contact:", b"an odd line\r\nContact:")
    ((send,),) = [outcome.sends for outcome in cluster.turn([odd])]
    assert b"an odd line\r\n" in send.data and cluster.bill().state == "answered"


@pytest.mark.parametrize("raw", [b"CSeq: one INVITE", b"CSeq: 1", b'To: "open <sip:bob@x>;tag=b1'])
def test_an_answer_whose_call_cannot_be_told_is_still_its_caller_s(cluster, raw):
    plain = answer(cluster.one(invite()), 200).to_bytes()
    name = raw.partition(b":")[0] + b":"
    odd = b"\r\n".join(raw if line.startswith(name) else line for line in plain.split(b"\r\n"))
    assert cluster.one(odd).status == 200


def test_a_2xx_to_a_hold_with_an_odd_contact_is_a_hold(cluster):
    talk(cluster)
    hold = cluster.one(in_dialog("INVITE", contact=f"<{ALICE_AT}>"))
    assert cluster.one(answer(hold, 200, contact="<sip:bob@[>")).status == 200
    assert cluster.one(in_dialog("BYE", cseq=3)).uri == BOB_AT


def test_a_phone_that_uses_the_odd_contact_as_it_stands_reaches_the_other(cluster):
    odd = "sip:bob@127.0.0.1:6002transport=udp"
    cluster.one(answer(cluster.one(invite()), 200, contact=f"<{odd}>"))
    for method, number in (("ACK", 1), ("INFO", 2), ("BYE", 3)):
        request = in_dialog(method, cseq=number)
        request.uri = odd
        assert cluster.one(request).uri == BOB_AT
    assert cluster.bill().final and cluster.bill().total == "0.15"


# -- before the answer --------------------------------------------------------------------------


def test_prack_and_update_pass_while_it_rings(cluster):
    """RFC 3262, RFC 3311: by their tags, in either direction."""
    ringing = answer(cluster.one(invite()), 183)
    ringing.add("RSeq", "1")
    ringing.add("Require", "100rel")
    assert cluster.one(ringing).get("RSeq") == "1"
    prack = cluster.one(in_dialog("PRACK", fields=[("RAck", "1 1 INVITE")]), at="server2")
    assert (prack.uri, prack.get("RAck")) == (BOB_AT, "1 1 INVITE")
    assert cluster.one(answer(prack, 200)).cseq.method == "PRACK"
    for by, contact in (("alice", BOB_AT), ("bob", ALICE_AT)):
        update = cluster.one(in_dialog("UPDATE", by, cseq=3, contact=f"<sip:{by}@127.0.0.1:4500>"))
        assert update.uri == contact
        assert cluster.one(answer(update, 200, contact="")).status == 200
    assert cluster.bill().state == "ringing", "none of it is an answer to the call"


def test_prack_passes_though_the_183_told_no_contact(cluster):
    cluster.one(answer(cluster.one(invite()), 183, contact=""))
    prack = in_dialog("PRACK")
    prack.uri = "sip:bob@failover.test"
    assert cluster.one(prack).uri == BOB_AT


def test_an_ack_to_the_answer_counts_though_its_phone_writes_it_like_one_to_a_refusal(cluster):
    """With the INVITE's branch and Request-URI, as phones do that take RFC 3261 17.1.1.3 for
    all."""
    cluster.one(answer(cluster.one(invite()), 200))
    ack = in_dialog("ACK", cseq=1)
    ack.uri = "sip:bob@failover.test"
    assert cluster.one(ack).uri == BOB_AT
    cluster.now += 12
    cluster.one(in_dialog("BYE", by="bob"))
    assert (cluster.bill().seconds, cluster.bill().total) == (12, "0.20")


# -- a CANCEL that crosses the answer -----------------------------------------------------------


CANCEL = phone_request("CANCEL", "sip:bob@failover.test")


@pytest.mark.parametrize("is_acknowledged", [True, False])
@pytest.mark.parametrize("cancel_first", [True, False])
@pytest.mark.parametrize("session_expires", [1800, 0])
def test_a_cancel_crosses_the_answer_and_both_phones_fall_silent(
    session_expires, cancel_first, is_acknowledged
):
    cluster = Cluster(session_expires=session_expires)
    cluster.one(register(expires="3600"))
    offered = cluster.one(invite())
    cluster.now += 3
    if cancel_first:
        cluster.one(CANCEL)
    cluster.one(answer(offered, 200))
    if not cancel_first:
        cluster.one(CANCEL)
    if is_acknowledged:
        cluster.one(in_dialog("ACK", cseq=1), at="server2")
    for _ in range(70):
        cluster.now += 0.5
        cluster.tick("server2")
    bill = cluster.get(Bill, "c1")
    assert bill.ended is not None and bill.ended - bill.offered <= 35.5
    assert (cluster.bill().final, cluster.bill().total) == (True, "0.00")


def test_phones_that_talk_although_a_cancel_crossed_the_answer_are_billed_to_their_hang_up(cluster):
    offered = cluster.one(invite())
    cluster.one(CANCEL)
    cluster.one(answer(offered, 200))
    cluster.one(in_dialog("ACK", cseq=1))
    cluster.now += 20
    cluster.one(in_dialog("INFO"))
    for _ in range(300):
        cluster.now += 1
        cluster.tick()
    cluster.one(in_dialog("BYE", cseq=3))
    assert (cluster.bill().seconds, cluster.bill().why) == (320, "alice hung up")
