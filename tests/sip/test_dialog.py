"""Dialogs: route sets, strict and loose routers, CSeq order, target refresh (RFC 3261 12)."""

from __future__ import annotations

import pytest

from sip.dialog import Dialog, DialogState, next_hop
from sip.errors import RemoteProtocolError
from sip.message import Request, Response, reply

ALICE = "<sip:alice@192.0.2.1:5062>"


def invite(*record_routes: str, cseq: int = 1, contact: str = ALICE, to_tag: str = "") -> Request:
    fields = [("Via", "SIP/2.0/UDP 192.0.2.1:5062;branch=z9hG4bKa")]
    fields += [("Record-Route", value) for value in record_routes]
    fields += [("From", '"Alice" <sip:alice@failover.test>;tag=a')]
    fields += [("To", "<sip:bob@failover.test>" + (f";tag={to_tag}" if to_tag else ""))]
    fields += [("Call-ID", "c1"), ("CSeq", f"{cseq} INVITE")]
    fields += [("Contact", contact)] if contact else []
    return Request("INVITE", "sip:bob@failover.test", fields)


def answer(
    request: Request, status: int = 200, contact: str = "<sip:bob@192.0.2.2:5064>", tag: str = "b"
) -> Response:
    return reply(request, status, to_tag=tag, fields=[("Contact", contact)] if contact else [])


def both(*record_routes: str) -> tuple[Dialog, Dialog]:
    request = invite(*record_routes)
    return Dialog.uac(request, answer(request)), Dialog.uas(request, "b")


def test_both_sides_hold_the_same_dialog_from_their_own_end():
    caller, called = both()
    assert caller.id == ("c1", "a", "b") and called.id == ("c1", "b", "a")
    assert (
        str(caller.target) == "sip:bob@192.0.2.2:5064"
        and str(called.target) == "sip:alice@192.0.2.1:5062"
    )
    bye = caller.request("BYE")
    assert bye.uri == "sip:bob@192.0.2.2:5064" and str(bye.cseq) == "2 BYE"
    assert (bye.from_.tag, bye.to.tag, bye.call_id) == ("a", "b", "c1")
    assert str(called.request("BYE").cseq) == "1 BYE", "each side counts its own requests"


def test_the_caller_reverses_the_route_set_and_the_called_side_does_not():
    caller, called = both("<sip:p2.test;lr>", "<sip:p1.test;lr>")
    assert caller.request("BYE").values("Route") == ["<sip:p1.test;lr>", "<sip:p2.test;lr>"]
    assert called.request("BYE").values("Route") == ["<sip:p2.test;lr>", "<sip:p1.test;lr>"]
    assert str(next_hop(caller.request("OPTIONS"))) == "sip:p1.test;lr"


def test_a_list_in_one_record_route_line_counts_as_several():
    caller, _ = both("<sip:p2.test;lr>, <sip:p1.test;lr;hint=server1>")
    assert caller.request("BYE").values("Route") == [
        "<sip:p1.test;lr;hint=server1>",
        "<sip:p2.test;lr>",
    ]


def test_a_strict_router_gets_its_own_address_as_request_uri_and_the_target_comes_last():
    # RFC 3261 16.12.1.1 shows such a path.
    caller, _ = both("<sip:p2.test;lr>", "<sip:strict.test;method=INVITE>")
    bye = caller.request("BYE")
    assert bye.uri == "sip:strict.test"
    assert bye.values("Route") == ["<sip:p2.test;lr>", "<sip:bob@192.0.2.2:5064>"]
    assert next_hop(bye).host == "p2.test"


def test_a_lone_strict_router_is_sent_to_by_the_request_uri():
    caller, _ = both("<sip:strict.test>")
    bye = caller.request("BYE")
    assert bye.values("Route") == ["<sip:bob@192.0.2.2:5064>"]
    assert next_hop(bye).host == "strict.test"


def test_without_routes_requests_go_straight_to_the_contact():
    caller, _ = both()
    assert next_hop(caller.request("BYE")).address() == ("192.0.2.2", 5064)


def test_an_early_dialog_takes_its_route_set_anew_when_it_is_confirmed():
    request = invite("<sip:early.test;lr>")
    caller = Dialog.uac(request, answer(request, 180, contact="<sip:bob@192.0.2.77>"))
    assert caller.state is DialogState.EARLY and caller.routes
    final = answer(invite("<sip:final.test;lr>"))
    caller.confirm(final)
    assert caller.state is DialogState.CONFIRMED
    assert [str(route) for route in caller.routes] == ["<sip:final.test;lr>"]
    assert str(caller.target) == "sip:bob@192.0.2.2:5064"


def test_an_early_dialog_needs_no_contact_and_a_confirmed_one_does():
    request = invite()
    assert (
        str(Dialog.uac(request, answer(request, 180, contact="")).target) == "sip:bob@failover.test"
    )
    with pytest.raises(RemoteProtocolError):
        Dialog.uac(request, answer(request, contact=""))
    with pytest.raises(RemoteProtocolError):
        Dialog.uas(invite(contact=""), "b")


def test_an_old_phone_without_tags_can_still_be_talked_to():
    request = invite()
    dialog = Dialog.uac(request, answer(request, tag=""))
    assert dialog.id == ("c1", "a", "") and dialog.request("BYE").to.tag == ""


def test_requests_out_of_order_are_refused_and_gaps_are_fine():
    _, called = both()
    called.take(invite(cseq=5, to_tag="b"))
    with pytest.raises(RemoteProtocolError) as late:
        called.take(invite(cseq=4, to_tag="b"))
    assert late.value.status == 500
    with pytest.raises(RemoteProtocolError) as twice:
        called.take(invite(cseq=5, to_tag="b"))
    assert twice.value.status == 482


def test_the_first_request_of_the_called_side_may_have_any_number():
    caller, called = both()
    called.local_seq = 3000
    assert caller.remote_seq is None
    caller.take(called.request("OPTIONS"))
    assert caller.remote_seq == 3001


def test_a_re_invite_moves_the_target_and_an_options_does_not():
    _, called = both()
    called.take(invite(cseq=2, contact="<sip:alice@192.0.2.9:7000>", to_tag="b"))
    assert called.request("BYE").uri == "sip:alice@192.0.2.9:7000"
    options = Request(
        "OPTIONS", "sip:bob@192.0.2.2", [*((f.name, f.value) for f in invite(cseq=3).fields)]
    )
    options.set("CSeq", "3 OPTIONS")
    options.set("Contact", "<sip:elsewhere@192.0.2.66>")
    called.take(options)
    assert called.request("BYE").uri == "sip:alice@192.0.2.9:7000"


def test_an_ack_takes_the_number_of_its_invite_and_costs_none():
    caller, _ = both()
    assert str(caller.request("ACK", seq=1).cseq) == "1 ACK"
    assert str(caller.request("BYE").cseq) == "2 BYE"
