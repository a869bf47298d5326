"""Stories of calls through two servers in memory: whichever of them sees a message, it goes the
same way."""

from __future__ import annotations

import contextlib
import time

import pytest
from fuzz_kit import broken
from slee_kit import (
    ADDRESSES,
    Cluster,
    answer,
    cluster_with_bob,
    in_dialog,
    invite,
    phone_request,
    register,
)

from plumbing.http_server import HttpResponse
from sip.digest import Challenge
from sip.digest import answer as solve
from sip.errors import RemoteProtocolError
from sip.message import Request, Response
from slee_mock.management.snapshot import OpenCalls, server_status, take_snapshot
from slee_mock.services.bill_record import Bill, total_at
from slee_mock.services.call_record import TIMER_C_SECONDS, Call
from slee_mock.store.interface import Transaction
from slee_mock.store.records import Member

BOB_AT = "sip:bob@127.0.0.1:4100"


@pytest.fixture
def cluster():
    return cluster_with_bob()


def ring(cluster, at="server1"):
    """Alice's INVITE as it leaves for Bob's phone."""
    return cluster.one(invite(), at)


def talk(cluster, at="server1"):
    """An answered call, acknowledged."""
    cluster.one(answer(ring(cluster, at), 200), at)
    cluster.one(in_dialog("ACK", cseq=1), at)


# -- set-up ----------------------------------------------------------------------------------------


def test_an_invite_goes_to_the_phone_that_registered(cluster):
    sent = ring(cluster)
    assert (sent.method, sent.uri, sent.max_forwards) == ("INVITE", BOB_AT, 68)
    assert [via.sent_by for via in sent.vias] == [
        ADDRESSES["server1"],
        "127.0.0.1:5060",
        "127.0.0.1:4000",
    ]
    assert sent.get("Record-Route") is None
    assert cluster.bill().state == "offered"


def test_only_the_proxys_own_lines_change(cluster):
    data = invite(fields=[("X-Odd", "  spaced   out  "), ("Subject", "caf\u00e9")]).to_bytes()
    sent = cluster.one(data)
    before, after = data.splitlines(), sent.to_bytes().splitlines()
    changed = {line.partition(b":")[0] for line in set(before) ^ set(after)}
    assert changed == {b"INVITE sip", b"Via", b"Max-Forwards", b"Session-Expires"}


def test_no_phone_rings_twice_a_retransmission_leaves_alike_from_any_member(cluster):
    first = ring(cluster)
    # a better phone, meanwhile
    cluster.one(register(contact="<sip:bob@127.0.0.1:4200>", call_id="r2", cseq=1))
    again = cluster.one(invite(), at="server2")
    assert again.uri == first.uri
    assert again.via.branch == first.via.branch
    assert [save.KIND for save in cluster.outcome.writes] == ["bill"], (
        "who carries it now, and nothing else"
    )


def test_two_members_that_get_the_same_invite_at_once_choose_the_same_phone(cluster):
    cluster.one(register(contact="<sip:bob@127.0.0.1:4200>;q=0.9", call_id="r2"))
    sent = []

    def other_first():
        sent.extend(cluster.receive(invite(), at="server2"))
        cluster.one(register(contact="<sip:bob@127.0.0.1:4300>", call_id="r3"))

    cluster.store.before_save = other_first
    sent += cluster.receive(invite(), at="server1")
    assert [each.uri for each in sent] == [BOB_AT, BOB_AT]
    assert sent[0].via.branch == sent[1].via.branch


def test_the_record_is_saved_before_the_invite_leaves(cluster):
    ring(cluster)
    assert [save.KIND for save in cluster.outcome.writes] == ["call", "bill"]


def test_answers_find_their_way_back_through_either_server(cluster):
    sent = ring(cluster, at="server1")
    ringing = cluster.one(answer(sent, 180), at="server2")
    assert (ringing.status, [via.sent_by for via in ringing.vias]) == (
        180,
        ["127.0.0.1:5060", "127.0.0.1:4000"],
    )
    assert cluster.bill().state == "ringing"
    cluster.now += 3
    ok = cluster.one(answer(sent, 200), at="server2")
    assert ok.status == 200
    assert cluster.bill().state == "answered"


def test_an_answer_nobody_here_asked_for_is_dropped(cluster):
    forged = answer(invite(), 200)
    assert cluster.receive(forged) == []
    assert cluster.outcome.drop_reason == "response_not_ours"
    assert cluster.get(Call, "c1") is None


@pytest.mark.parametrize(
    ("uri", "status"),
    [
        ("sip:nobody@failover.test", 404),
        ("sip:failover.test", 404),
        ("sip:bob@elsewhere.test", 404),
        # a contact is no address-of-record: nothing is relayed to strangers
        ("sip:bob@127.0.0.1:4100", 404),
        ("tel:+4912345", 416),
        ("sips:bob@failover.test", 416),
    ],
)
def test_who_cannot_be_called(cluster, uri, status):
    to = "<sip:bob@failover.test>"
    assert cluster.one(invite(uri=uri, to=to)).status == status
    assert cluster.get(Call, "c1") is None


def test_a_known_user_without_a_phone_is_temporarily_unavailable(cluster):
    cluster.one(register(cseq=2, expires="0"))
    assert cluster.one(invite()).status == 480


def test_own_refusals_are_the_same_on_any_member_and_their_ack_ends_here(cluster):
    refused = cluster.one(invite(uri="sip:nobody@failover.test"), at="server1")
    again = cluster.one(invite(uri="sip:nobody@failover.test"), at="server2")
    assert again.to_bytes() == refused.to_bytes()
    ack = phone_request("ACK", "sip:nobody@failover.test", to_tag=refused.to.tag)
    assert cluster.receive(ack, at="server2") == []
    assert cluster.outcome.drop_reason == "ack_absorbed"


@pytest.mark.parametrize(
    ("more", "status"),
    [({"hops": 0}, 483), ({"fields": [("Proxy-Require", "foo")]}, 420), ({"contact": ""}, 400)],
)
def test_requests_that_break_the_rules(cluster, more, status):
    assert cluster.one(invite(**more)).status == status


@pytest.mark.parametrize(
    "uri", ["sip:bob@failover.test", "sip:bob@FAILOVER.test;x=y", "sip:b%6fb@failover.test:5060"]
)
def test_an_invite_that_comes_back_to_us_for_the_same_user_is_a_loop(cluster, uri):
    sent = ring(cluster)
    sent.uri = uri
    sent.push("Via", "SIP/2.0/UDP 127.0.0.1:5060;branch=z9hG4bKagain")
    assert cluster.one(sent, at="server2").status == 482


def test_the_same_invite_on_another_way_is_merged(cluster):
    ring(cluster)
    assert cluster.one(invite(branch="z9hG4bK-other-way")).status == 482


def test_another_callers_invite_cannot_take_over_a_running_call(cluster):
    """Two phones may make the same Call-ID: each has a call and a bill of its own."""
    talk(cluster)
    assert cluster.one(invite(tag="mallory"), at="server2").method == "INVITE"
    assert cluster.get(Call, "c1").caller_tag == "a1"
    assert (cluster.bill().state, cluster.bill("c1 mallory").state) == ("answered", "offered")


def test_a_call_with_another_callers_call_id_outlives_the_record_of_the_first(cluster):
    talk(cluster)
    cluster.one(in_dialog("BYE"))
    cluster.one(answer(cluster.one(invite(tag="second")), 200, tag="b2"))
    Transaction(cluster.store).commit(deleted=[cluster.get(Call, "c1")])
    parties = {"tag": "second", "to": "<sip:bob@failover.test>", "to_tag": "b2"}
    bye = phone_request("BYE", "sip:bob@127.0.0.1:4100", cseq=2, **parties)
    assert cluster.one(bye).method == "BYE"
    assert cluster.bill("c1 second").final


@pytest.mark.parametrize("cseq", [1, 7])
@pytest.mark.parametrize("tag", ["a1", "a2"])
@pytest.mark.parametrize("branch", ["", "z9hG4bKanew"])
def test_a_phone_that_makes_its_call_ids_anew_after_each_start_can_call_again(
    cluster, branch, tag, cseq
):
    talk(cluster)
    cluster.now += 20
    cluster.one(in_dialog("BYE"))
    cluster.now += 60
    again = cluster.one(invite(branch=branch, tag=tag, cseq=cseq), at="server2")
    assert (again.method, again.uri) == ("INVITE", "sip:bob@127.0.0.1:4100")
    cluster.one(answer(again, 200, tag="b2"))
    told = {"to": "<sip:bob@failover.test>", "to_tag": "b2", "tag": tag}
    cluster.one(
        phone_request("ACK", "sip:bob@127.0.0.1:4100", cseq=cseq, branch="z9hG4bKa", **told)
    )
    cluster.now += 30
    cluster.one(phone_request("BYE", "sip:bob@127.0.0.1:4100", cseq=cseq + 1, **told), at="server1")
    bills = [total_at(bill, cluster.now) for bill in Transaction(cluster.store).scan(Bill)]
    assert sorted((bill.state, bill.seconds) for bill in bills) == [("ended", 20), ("ended", 30)]
    assert not cluster.failures


def test_an_invite_that_rang_for_long_is_no_new_call_just_after_its_end(cluster):
    """A proxy sends it to the next server, if the first dies as it has saved the refusal, and does
    not say how old it is, as our forwarder does (Failover-Kept)."""
    offered = ring(cluster)
    cluster.one(answer(offered, 180))
    cluster.now += 70
    cluster.one(answer(offered, 486))
    refused = cluster.get(Bill, "c1")
    assert cluster.receive(invite(), at="server2") == []
    assert cluster.get(Bill, "c1") == refused


def test_an_invite_of_a_long_talk_is_no_new_call_just_after_its_end(cluster):
    talk(cluster)
    cluster.now += 70
    cluster.one(in_dialog("BYE"))
    assert cluster.receive(invite(), at="server2") == []
    assert cluster.bill().seconds == 70


def test_a_b2bua_s_second_try_leaves_the_caller_s_call_alone(cluster):
    """It keeps the Call-ID, with a tag of its own; Carol is busy, and it asks her again."""
    cluster.one(register("carol", "<sip:carol@127.0.0.1:4200>", call_id="r-carol"))
    talk(cluster)
    on = {"uri": "sip:carol@failover.test", "tag": "pbx", "contact": "<sip:bob@127.0.0.1:4100>"}
    cluster.one(answer(cluster.one(invite(cseq=1, user="bob", **on)), 486))
    cluster.one(invite(cseq=2, user="bob", **on))
    assert cluster.one(in_dialog("BYE")).method == "BYE" and cluster.bill().final


def test_busy_then_calling_again_with_the_same_call_id(cluster):
    busy = cluster.one(answer(ring(cluster), 486))
    assert busy.status == 486
    assert (cluster.bill().state, cluster.bill().why) == ("ended", "bob is busy")
    assert cluster.receive(invite()) == [], (
        "a late retransmission must not make the phone ring again"
    )
    assert cluster.one(invite(cseq=2)).uri == BOB_AT
    assert cluster.bill().state == "offered"


@pytest.mark.parametrize("cseq", [1, 2])
@pytest.mark.parametrize("tag", ["a1", "a2"])
def test_a_missed_call_keeps_its_bill_when_its_call_id_comes_again(cluster, tag, cseq):
    cluster.one(answer(ring(cluster), 486))
    missed = cluster.get(Bill, "c1")
    cluster.now += 70
    cluster.one(answer(cluster.one(invite(tag=tag, cseq=cseq), at="server2"), 486))
    bills = Transaction(cluster.store).scan(Bill)
    assert sorted(bill.offered for bill in bills) == [missed.offered, missed.offered + 70]
    assert {cluster.bill(bill.call_id).why for bill in bills} == {"bob is busy"}


def test_a_phone_that_answers_after_it_was_busy_costs_nothing_and_can_still_part(cluster):
    """The caller has been told that it is refused; RFC 3261 16.7 step 5 has the 2xx passed on all
    the same."""
    offered = ring(cluster)
    cluster.one(answer(offered, 486))
    cluster.now += 1.0
    refused = cluster.get(Bill, "c1")
    assert cluster.one(answer(offered, 180), at="server2").status == 180
    assert cluster.one(answer(offered, 200), at="server2").status == 200
    assert cluster.get(Bill, "c1") == refused
    assert (cluster.bill().state, cluster.bill().why, cluster.bill().total) == (
        "ended",
        "bob is busy",
        "0.00",
    )
    assert cluster.one(in_dialog("ACK", cseq=1)).method == "ACK"
    cluster.now += 32.0
    assert cluster.one(in_dialog("BYE", by="bob")).method == "BYE"
    assert (cluster.bill().why, cluster.bill().units) == ("bob is busy", 0)


def test_an_answer_after_the_time_in_which_anybody_answers_counts(cluster):
    offered = ring(cluster)
    cluster.now += TIMER_C_SECONDS + 1.0
    cluster.tick()
    assert (cluster.bill().state, cluster.bill().why) == ("ended", "bob did not answer")
    cluster.one(answer(offered, 200))
    cluster.one(in_dialog("ACK", cseq=1))
    assert (cluster.bill().state, cluster.bill().units) == ("answered", 1)


def test_an_invite_repeated_after_its_time_does_not_ring_again(cluster):
    ring(cluster)
    cluster.now += 33
    assert cluster.receive(invite(), at="server2") == []
    assert cluster.outcome.drop_reason == "invite_too_late"


def test_the_ack_to_a_failure_follows_its_invite(cluster):
    sent = ring(cluster)
    cluster.one(answer(sent, 486))
    ack = cluster.one(phone_request("ACK", "sip:bob@failover.test", to_tag="b1"), at="server2")
    assert (ack.uri, ack.via.branch) == (BOB_AT, sent.via.branch)


# -- cancel ----------------------------------------------------------------------------------------


def test_cancel_follows_its_invite_with_its_branch_from_any_member(cluster):
    sent = ring(cluster, at="server1")
    cancel = cluster.one(phone_request("CANCEL", "sip:bob@failover.test"), at="server2")
    assert (cancel.uri, cancel.via.branch) == (BOB_AT, sent.via.branch)
    assert (cluster.bill().state, cluster.bill().why) == ("ended", "alice gave up before an answer")


def test_an_answer_that_crosses_the_cancel_makes_a_call_after_all(cluster):
    sent = ring(cluster)
    cluster.one(phone_request("CANCEL", "sip:bob@failover.test"))
    cluster.now += 1
    cluster.one(answer(sent, 200))
    assert cluster.bill().state == "answered"
    cluster.now += 2
    cluster.one(in_dialog("BYE"))
    assert (cluster.bill().seconds, cluster.bill().why) == (2, "alice hung up")


def test_cancel_of_nothing_is_481(cluster):
    assert cluster.one(phone_request("CANCEL", "sip:bob@failover.test")).status == 481


def test_cancel_of_a_merged_invite_does_not_end_the_real_one(cluster):
    ring(cluster)
    assert (
        cluster.one(phone_request("CANCEL", "sip:bob@failover.test", branch="z9hG4bK-other")).status
        == 481
    )
    assert cluster.bill().state == "offered"


# -- within the dialog -----------------------------------------------------------------------------


def test_hanging_up_after_server_death_is_billed_by_the_survivor(cluster):
    talk(cluster, at="server1")
    cluster.now += 12
    cluster.sign("server2")
    bye = cluster.one(in_dialog("BYE"), at="server2")
    assert (bye.method, bye.uri) == ("BYE", BOB_AT)
    bill = cluster.bill()
    assert (bill.state, bill.why, bill.seconds, bill.units, bill.total) == (
        "ended",
        "alice hung up",
        12,
        2,
        "0.20",
    )


def test_bob_hangs_up(cluster):
    talk(cluster)
    cluster.now += 5
    bye = cluster.one(in_dialog("BYE", by="bob", cseq=1))
    assert bye.uri == "sip:alice@127.0.0.1:4000"
    assert cluster.bill().why == "bob hung up"


def test_a_repeated_bye_passes_and_the_first_hang_up_time_wins(cluster):
    talk(cluster)
    cluster.now += 5
    first = cluster.one(in_dialog("BYE"), at="server1")
    cluster.now += 30
    again = cluster.one(in_dialog("BYE"), at="server2")
    assert again.via.branch == first.via.branch
    assert cluster.bill().seconds == 5


def test_hold_moves_the_contact_and_later_requests_follow_it(cluster):
    talk(cluster)
    hold = cluster.one(in_dialog("INVITE", contact="<sip:alice@127.0.0.1:4999>"), at="server2")
    assert hold.uri == BOB_AT
    cluster.one(answer(hold, 200, contact="<sip:bob@127.0.0.1:4777>"))
    moved = in_dialog("BYE", cseq=3)
    moved.uri = "sip:bob@127.0.0.1:4777"
    assert cluster.one(moved).uri == "sip:bob@127.0.0.1:4777"
    to_alice = in_dialog("OPTIONS", by="bob")
    to_alice.uri = "sip:alice@127.0.0.1:4999"
    assert cluster.one(to_alice).uri == "sip:alice@127.0.0.1:4999"


def test_a_hold_that_is_refused_does_not_end_the_call(cluster):
    talk(cluster)
    hold = cluster.one(in_dialog("INVITE", contact="<sip:alice@127.0.0.1:4000>"))
    cluster.one(answer(hold, 488))
    assert cluster.bill().state == "answered"


def test_in_dialog_options_passes_the_survivor(cluster):
    talk(cluster, at="server1")
    probe = cluster.one(in_dialog("OPTIONS"), at="server2")
    ok = cluster.one(answer(probe, 200), at="server2")
    assert (probe.uri, ok.status) == (BOB_AT, 200)


@pytest.mark.parametrize("method", ["BYE", "INVITE", "OPTIONS", "INFO"])
def test_nothing_is_relayed_to_strangers(cluster, method):
    talk(cluster)
    victim = in_dialog(method, contact="<sip:alice@127.0.0.1:4000>")
    victim.uri = "sip:victim@192.0.2.66"
    if method != "BYE":  # with which Alice has hung up, whatever else she says
        assert cluster.one(victim).status == 404
    outsider = in_dialog(method, tag="guess", contact="<sip:alice@127.0.0.1:4000>")
    assert cluster.one(outsider).status == 481
    unknown = in_dialog(method, call_id="c2", contact="<sip:alice@127.0.0.1:4000>")
    assert cluster.one(unknown).status == 481
    assert cluster.bill().state == "answered"


def test_an_ack_to_a_stranger_is_dropped_not_answered(cluster):
    assert cluster.receive(in_dialog("ACK", call_id="c2")) == []


# -- without a call --------------------------------------------------------------------------------


def test_a_heartbeat_is_answered_at_once_to_where_it_came_from(cluster):
    ok = cluster.one(phone_request("OPTIONS", "sip:127.0.0.1:5070"))
    assert ok.status == 200
    assert cluster.outcome.sends[0].to == ("127.0.0.1", 5060)


@pytest.mark.parametrize("method", ["INVITE", "OPTIONS", "MESSAGE"])
def test_no_way_that_a_stranger_wrote_is_taken(cluster, method):
    elsewhere = [
        ("Route", "<sip:192.0.2.66;lr>, <sip:192.0.2.67;lr>"),
        ("Contact", "<sip:alice@127.0.0.1:4000>"),
    ]
    sent = cluster.one(phone_request(method, "sip:bob@failover.test", fields=elsewhere))
    assert (sent.method, sent.uri, sent.get("Route")) == (method, BOB_AT, None)


def test_the_way_that_a_dialog_recorded_is_kept(cluster):
    recorded = "<sip:192.0.2.9;lr>"  # a proxy beside Bob's phone, say
    ok = answer(ring(cluster), 200)
    ok.add("Record-Route", recorded)
    cluster.one(ok)
    assert cluster.one(in_dialog("BYE", fields=[("Route", recorded)])).get("Route") == recorded


def test_options_to_a_user_is_passed_on_without_a_record(cluster):
    sent = cluster.one(phone_request("OPTIONS", "sip:bob@failover.test"))
    assert (sent.method, sent.uri, cluster.outcome.writes) == ("OPTIONS", BOB_AT, ())
    assert cluster.one(answer(sent, 200)).status == 200


def test_a_caller_with_a_telephone_number_for_an_address_is_not_left_without_an_answer(cluster):
    from_a_gateway = invite().to_bytes().replace(b"<sip:alice@failover.test>", b"<tel:+4930123>")
    sent = cluster.one(from_a_gateway)
    assert (sent.uri, sent.get("From")) == (BOB_AT, "<tel:+4930123>;tag=a1")
    assert cluster.one(answer(sent, 200)).status == 200
    bill = cluster.get(Bill, "c1")
    assert (bill.caller, bill.caller_uri, bill.callee) == ("+4930123", "tel:+4930123", "bob")


@pytest.mark.parametrize("scheme", [b"tel:+4930123", b"isbn:2983792873", b"http://www.example.com"])
def test_a_call_to_bob_is_a_call_to_bob_whatever_its_to_says(cluster, scheme):
    # RFC 3261 16.3: a proxy goes by the Request-URI
    call = invite().to_bytes().replace(b"To: <sip:bob@failover.test>", b"To: <%s>" % scheme)
    sent = cluster.one(call)
    assert (sent.uri, sent.get("To")) == (BOB_AT, f"<{scheme.decode()}>")
    assert cluster.one(answer(sent, 200)).status == 200


@pytest.mark.parametrize(
    "contact", ["sip:alice@127.0.0.1:4000transport=udp", "sip:", "tel:+4930123"]
)
def test_a_caller_whose_contact_names_no_host_is_found_where_its_invite_came_from(cluster, contact):
    offered = cluster.one(invite(contact=f"<{contact}>"))
    assert offered.get("Contact") == f"<{contact}>", "the other phone may make something of it"
    assert cluster.one(answer(offered, 200)).status == 200
    bye = in_dialog("BYE", by="bob")
    bye.uri = contact
    assert cluster.one(bye).uri == "sip:alice@127.0.0.1:4000"


@pytest.mark.parametrize("supported", ["timer,", ",", 'timer, "'])
def test_a_malformed_list_of_extensions_costs_no_call(cluster, supported):
    assert cluster.one(invite(fields=[("Supported", supported)])).get("Supported") == supported


def test_what_it_does_not_do_is_said(cluster):
    refused = cluster.one(phone_request("PUBLISH", "sip:alice@failover.test"))
    assert refused.status == 405
    assert "INVITE" in refused.get("Allow")
    early = cluster.one(phone_request("SUBSCRIBE", "sip:bob@failover.test", call_id="mwi"))
    assert early.status == 405 and "SUBSCRIBE" not in early.get("Allow"), (
        "what is refused is not allowed"
    )


# -- when things go wrong --------------------------------------------------------------------------


def test_without_the_store_requests_hear_503_and_final_answers_wait(cluster):
    sent = ring(cluster)
    cluster.store.down = True
    assert cluster.one(invite(call_id="c2")).status == 503
    assert cluster.receive(in_dialog("ACK")) == []
    assert cluster.receive(answer(sent, 200)) == []
    cluster.store.down = False
    # the phone repeats it until it is acknowledged
    assert cluster.one(answer(sent, 200)).status == 200


def test_a_call_that_ends_while_the_store_is_down_at_a_server_new_to_it_is_billed_until_the_bye_is_said_again(
    cluster,
):
    talk(cluster)
    cluster.store.down = True
    assert (
        cluster.receive(in_dialog("BYE"), at="server2") == []
        and cluster.outcome.drop_reason == "store_down"
    )
    cluster.store.down = False
    cluster.now += 2
    assert cluster.one(in_dialog("BYE")).method == "BYE"
    assert (cluster.bill().state, cluster.bill().seconds) == ("ended", 2)


def test_a_datagram_full_of_vias_does_not_keep_the_others_waiting(cluster):
    vias = [("Via", ", ".join(f"SIP/2.0/UDP h{number}" for number in range(700)))]
    crowded = Request(
        "OPTIONS",
        "sip:bob@failover.test",
        [
            *vias,
            *(
                (field.name, field.value)
                for field in phone_request("OPTIONS", "sip:bob@failover.test").fields
                if field.name != "Via"
            ),
        ],
    ).to_bytes()
    began = time.process_time()
    assert cluster.one(crowded).status == 483
    assert time.process_time() - began < 0.5, (
        "seconds in which it would miss its heartbeats, as the next one would"
    )


def test_a_member_that_decided_on_an_old_reading_decides_again(cluster):
    sent = ring(cluster)
    cluster.store.before_save = lambda: cluster.receive(answer(sent, 180), at="server2")
    cluster.one(answer(sent, 200), at="server1")
    call = cluster.get(Call, "c1")
    assert call.confirmed and [dialog.tag for dialog in call.dialogs] == ["b1"]
    assert cluster.bill().state == "answered"


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x01\x02",
        b"INVITE sip:bob@failover.test SIP/2.0\r\n\r\n",
        b"INVITE sip:bob@failover.test SIP/2.0\r\nVia: SIP/2.0/UDP h\r\nFrom: x\r\nTo: y\r\n\r\n",
        b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKx\r\n\r\n",
        b"OPTIONS sip:[ SIP/2.0\r\n\r\n",
        b"REGISTER tel:1 SIP/2.0\r\nVia: SIP/2.0/UDP h\r\nFrom: <tel:1>\r\nTo: <tel:1>\r\nCall-ID: "
        b"x\r\n"
        b"CSeq: 1 REGISTER\r\n\r\n",
    ],
)
def test_a_stranger_never_causes_a_traceback(cluster, data):
    sent = cluster.receive(data)
    assert all(isinstance(each, Response) and each.status >= 400 for each in sent)
    assert not cluster.failures


def test_bytes_that_are_no_text_do_not_reach_the_store(cluster):
    odd = invite().to_bytes().replace(b"Call-ID: c1", b"Call-ID: c\xff1")
    assert cluster.one(odd).status == 400
    named = invite(call_id="c2").to_bytes().replace(b"From: <", b'From: "Al\xffice" <')
    assert cluster.one(named).method == "INVITE"
    assert cluster.get(Call, "c2").caller == "Al?ice"


# -- passwords -------------------------------------------------------------------------------------


@pytest.fixture
def guarded():
    return Cluster(users={"alice": "wonderland", "bob": "builder"})


def authorised(
    request: Request, challenged: Response, user: str, password: str, header: str
) -> Request:
    """The request again, with the answer to the first challenge."""
    name = "WWW-Authenticate" if header == "Authorization" else "Proxy-Authenticate"
    challenge = Challenge.parse(challenged.get(name) or "")
    credentials = solve(challenge, request.method, request.uri, user, password, cnonce="cn")
    request.add(header, str(credentials))
    return request


def test_a_phone_with_its_password_registers_through_either_server(guarded):
    challenged = guarded.one(register(), at="server1")
    assert challenged.status == 401
    assert [Challenge.parse(value).algorithm for value in challenged.all("WWW-Authenticate")] == [
        "MD5"
    ]
    again = authorised(register(cseq=2), challenged, "bob", "builder", "Authorization")
    assert guarded.one(again, at="server2").status == 200


def test_unknown_users_wrong_passwords_and_no_credentials_hear_the_same(guarded):
    plain = guarded.one(register())
    wrong = guarded.one(authorised(register(cseq=2), plain, "bob", "guess", "Authorization"))
    unknown = guarded.one(
        authorised(
            register(user="eve", call_id="r-bob", cseq=2), plain, "eve", "guess", "Authorization"
        )
    )
    assert plain.status == wrong.status == unknown.status == 401
    assert (
        wrong.all("WWW-Authenticate")
        == unknown.all("WWW-Authenticate")
        == plain.all("WWW-Authenticate")
    )


def test_a_known_user_cannot_register_or_call_as_another(guarded):
    challenged = guarded.one(register())
    stolen = authorised(register(cseq=2), challenged, "alice", "wonderland", "Authorization")
    assert guarded.one(stolen).status == 403
    challenged = guarded.one(invite())
    assert challenged.status == 407
    stolen = authorised(invite(cseq=2), challenged, "bob", "builder", "Proxy-Authorization")
    assert guarded.one(stolen).status == 403


@pytest.mark.parametrize("made", [register, invite])
def test_a_to_tag_does_not_open_the_gate(guarded, made):
    request = made()
    request.set("To", f"{request.get('To')};tag=made-up")
    assert guarded.one(request).status in (401, 481)
    assert guarded.store.rows == {}


# -- the digest's uri: for whom the password is given ----------------------------------------------


def with_digest(request, challenged, uri, user="alice", password="wonderland"):
    is_register = request.method == "REGISTER"
    challenge = challenged.get("WWW-Authenticate" if is_register else "Proxy-Authenticate")
    credentials = solve(Challenge.parse(challenge), request.method, uri, user, password, "cn")
    request.add("Authorization" if is_register else "Proxy-Authorization", str(credentials))
    return request


@pytest.mark.parametrize(
    "uri",
    [
        "sip:bob@failover.test:5060",
        "sip:bob@FAILOVER.test;transport=udp",
        "sip:failover.test",
        "failover.test",
        "sip:b%6fb@failover.test",
        "sips:bob@failover.test",
        "sip:bob@127.0.0.1",
        "sip:127.0.0.1:5060",
    ],
)
def test_a_phone_may_write_the_digests_uri_otherwise_than_the_request_line(guarded, uri):
    challenged = guarded.one(invite())
    assert guarded.one(with_digest(invite(cseq=2), challenged, uri)).status == 480, (
        "let in; bob has no phone"
    )


@pytest.mark.parametrize(
    "uri", ["sip:failover.test:5060", "sip:bob@failover.test", "sip:127.0.0.1", "failover.test"]
)
def test_so_it_may_when_it_registers(guarded, uri):
    challenged = guarded.one(register())
    assert (
        guarded.one(with_digest(register(cseq=2), challenged, uri, "bob", "builder")).status == 200
    )


@pytest.mark.parametrize(
    "uri", ["sip:carol@failover.test", "sip:carol@failover.test:5060", "tel:+4930123", ":"]
)
def test_a_password_given_for_another_user_opens_nothing(guarded, uri):
    challenged = guarded.one(invite())
    refused = guarded.one(with_digest(invite(cseq=2), challenged, uri))
    assert (refused.status, refused.reason) == (400, "Digest For Another URI")


@pytest.mark.parametrize(
    "uri", ["sip:failover.test", "sip:bob@failover.test", "failover.test", "sip:127.0.0.1"]
)
@pytest.mark.parametrize(
    ("method", "target"), [("INVITE", "carol"), ("MESSAGE", "bob"), ("OPTIONS", "bob")]
)
def test_who_overhears_a_password_for_one_call_can_use_it_for_no_other(
    guarded, uri, method, target
):
    call = with_digest(invite(cseq=2), guarded.one(invite()), uri)
    assert guarded.one(call).status == 480
    overheard = call.get("Proxy-Authorization")
    other = phone_request(
        method, f"sip:{target}@failover.test", contact="<sip:alice@127.0.0.1:6666>", call_id="c9"
    )
    other.add("Proxy-Authorization", overheard)
    assert guarded.one(other).status in (400, 407)


def test_a_phone_that_gives_the_domain_alone_is_asked_anew_for_its_next_call(guarded):
    challenged = guarded.one(invite())
    second = {"uri": "sip:eve@failover.test", "call_id": "c2"}
    asked = guarded.one(with_digest(invite(**second), challenged, "sip:failover.test"))
    assert asked.status == 407 and Challenge.parse(asked.get("Proxy-Authenticate")).stale, (
        "by itself, not its owner"
    )
    assert (
        guarded.one(with_digest(invite(cseq=2, **second), asked, "sip:failover.test")).status == 404
    )


def test_a_caller_with_a_telephone_number_is_no_user_with_a_password(guarded):
    call = with_digest(invite(cseq=2), guarded.one(invite()), "sip:bob@failover.test").to_bytes()
    assert guarded.one(call.replace(b"<sip:alice@failover.test>", b"<tel:alice>")).status == 403


def test_an_old_nonce_is_stale_not_wrong(guarded):
    challenged = guarded.one(register())
    guarded.now += 301
    late = guarded.one(authorised(register(cseq=2), challenged, "bob", "builder", "Authorization"))
    assert late.status == 401
    assert Challenge.parse(late.get("WWW-Authenticate")).stale


def test_the_password_of_the_caller_does_not_travel_to_the_callee(guarded):
    challenged = guarded.one(register())
    guarded.one(authorised(register(cseq=2), challenged, "bob", "builder", "Authorization"))
    challenged = guarded.one(invite())
    call = authorised(invite(cseq=2), challenged, "alice", "wonderland", "Proxy-Authorization")
    guarded.now += 290
    sent = guarded.one(call)
    assert (sent.uri, sent.get("Proxy-Authorization")) == (BOB_AT, None)
    guarded.now += 15
    assert guarded.one(call, at="server2").uri == BOB_AT, "a retransmission is not challenged anew"


def test_with_a_password_file_known_means_listed(guarded):
    challenged = guarded.one(invite())
    call = authorised(invite(cseq=2), challenged, "alice", "wonderland", "Proxy-Authorization")
    assert guarded.one(call).status == 480
    call = authorised(
        invite(uri="sip:eve@failover.test", cseq=2),
        challenged,
        "alice",
        "wonderland",
        "Proxy-Authorization",
    )
    assert guarded.one(call).status == 404


def test_any_bytes_are_answered_counted_or_refused_and_the_store_can_be_read_afterwards(cluster):
    sent = ring(cluster)
    samples = [
        register(),
        register(contact="*", expires="0", cseq=9),
        invite(),
        invite(cseq=2),
        answer(sent, 200),
        in_dialog("BYE"),
        in_dialog("INVITE", contact="<sip:a@b>"),
        phone_request("OPTIONS", "sip:x"),
        phone_request("CANCEL", "sip:bob@failover.test"),
        in_dialog("ACK"),
    ]
    for number, data in enumerate(broken([each.to_bytes() for each in samples], 2000)):
        with contextlib.suppress(RemoteProtocolError):  # an answer is passed on, whatever it says
            cluster.receive(data, at=("server1", "server2")[number % 2])
    assert not cluster.failures
    shown = take_snapshot(
        Transaction(cluster.store),
        server_status(Member("server1", ""), uptime=1.0, forwarder="", counts={}),
        cluster.now,
        OpenCalls(),
    )
    assert HttpResponse.json(shown.as_json()).status == 200
