"""The registrar's stories: RFC 3261 10.3 with failover in mind. Real cores, a dict store, a clock
set by hand."""

from __future__ import annotations

import pytest
from message_kit import messages
from slee_kit import Cluster, invite, register

from sip import VERSION
from slee_mock.management.snapshot import OpenCalls, server_status, take_snapshot
from slee_mock.store.interface import Transaction
from slee_mock.store.records import Member

BOB = "sip:bob@failover.test"


def contacts(response):
    return response.all("Contact")


def test_bob_registers_and_is_told_until_when():
    cluster = Cluster()
    ok = cluster.one(register(expires="300"))
    assert ok.status == 200
    assert contacts(ok) == ["<sip:bob@127.0.0.1:4100>;expires=300;q=1"]
    assert cluster.bindings(BOB) == ["sip:bob@127.0.0.1:4100"]


def test_a_registration_taken_by_one_server_is_known_to_the_other():
    cluster = Cluster()
    cluster.one(register(), at="server1")
    cluster.now += 100
    asked = cluster.one(register(contact="", cseq=2, expires=""), at="server2")
    assert contacts(asked) == ["<sip:bob@127.0.0.1:4100>;expires=200;q=1"]


def test_bindings_expire():
    cluster = Cluster()
    cluster.one(register(expires="300"))
    cluster.now += 299.5
    assert cluster.bindings(BOB) == ["sip:bob@127.0.0.1:4100"]
    cluster.now += 0.5
    assert cluster.bindings(BOB) == []


def test_several_phones_of_one_user_are_listed_best_first():
    cluster = Cluster()
    cluster.one(register(contact="<sip:bob@127.0.0.1:4100>;q=0.5"))
    ok = cluster.one(register(contact="<sip:bob@127.0.0.1:4200>;q=0.8;expires=60", call_id="r2"))
    assert contacts(ok) == [
        "<sip:bob@127.0.0.1:4200>;expires=60;q=0.8",
        "<sip:bob@127.0.0.1:4100>;expires=300;q=0.5",
    ]


def test_a_retransmission_is_answered_alike_by_any_member_and_saves_nothing():
    cluster = Cluster(server_header=True)
    first = cluster.one(register(), at="server1")
    again = cluster.one(register(), at="server2")
    assert [each.get("Server") for each in (first, again)] == [
        f"call-failover-slee/{VERSION} ({name})" for name in ("server1", "server2")
    ]
    again.set("Server", first.get("Server"))
    assert again.to_bytes() == first.to_bytes(), "but for who says it"
    assert cluster.outcome.writes == ()


def test_a_malformed_expiry_means_an_hour():
    # RFC 3261 10.2.1.1
    cluster = Cluster()
    for cseq, more in enumerate(
        ({"expires": "soon"}, {"contact": "<sip:bob@127.0.0.1:4100>;expires=soon"}), 1
    ):
        assert "expires=3600" in contacts(cluster.one(register(cseq=cseq, **more)))[0]
    assert cluster.one(register(cseq=3, contact="*", expires="soon")).status == 400


def test_a_stale_register_changes_nothing():
    cluster = Cluster()
    cluster.one(register(cseq=5, expires="300"))
    stale = cluster.one(register(cseq=4, expires="0"))
    assert stale.status == 500
    assert cluster.bindings(BOB) == ["sip:bob@127.0.0.1:4100"]


def test_a_thawed_servers_old_register_does_not_bring_a_removed_binding_back():
    cluster = Cluster()
    cluster.one(register(cseq=1))
    cluster.one(register(cseq=2, expires="0"))
    assert cluster.bindings(BOB) == []
    again = cluster.one(register(cseq=1), at="server2")
    assert again.status == 500
    assert cluster.bindings(BOB) == []


def test_an_expired_binding_is_not_revived_by_its_own_retransmission():
    cluster = Cluster()
    cluster.one(register(expires="20"))
    cluster.now += 21
    assert contacts(cluster.one(register(expires="20"))) == []
    assert contacts(cluster.one(register(expires="60", cseq=2))) == [
        "<sip:bob@127.0.0.1:4100>;expires=60;q=1"
    ]


def test_a_rebooted_phone_with_a_new_call_id_may_begin_with_a_low_cseq():
    cluster = Cluster()
    cluster.one(register(cseq=900))
    assert cluster.one(register(cseq=1, call_id="after-boot")).status == 200


def test_removing_one_of_two():
    cluster = Cluster()
    cluster.one(register())
    cluster.one(register(contact="<sip:bob@127.0.0.1:4200>", call_id="r2"))
    ok = cluster.one(register(contact="<sip:bob@127.0.0.1:4100>;expires=0", cseq=2))
    assert contacts(ok) == ["<sip:bob@127.0.0.1:4200>;expires=300;q=1"]


def test_the_wildcard_removes_all_and_its_retransmission_spares_what_came_later():
    cluster = Cluster()
    cluster.one(register())
    cluster.one(register(contact="<sip:bob@127.0.0.1:4200>", call_id="r2"))
    ok = cluster.one(register(contact="*", cseq=2, expires="0"))
    assert (ok.status, contacts(ok)) == (200, [])
    cluster.one(register(contact="<sip:bob@127.0.0.1:4300>", call_id="r3"))
    assert cluster.one(register(contact="*", cseq=2, expires="0")).status == 200
    assert cluster.bindings(BOB) == ["sip:bob@127.0.0.1:4300"]


@pytest.mark.parametrize(
    ("contact", "expires"), [("*", "300"), ("*", ""), ("*, <sip:bob@127.0.0.1:4100>", "0")]
)
def test_the_wildcard_needs_expires_zero_and_stands_alone(contact, expires):
    cluster = Cluster()
    cluster.one(register())
    assert cluster.one(register(contact=contact, cseq=2, expires=expires)).status == 400
    assert cluster.bindings(BOB) == ["sip:bob@127.0.0.1:4100"]


def test_too_brief_is_refused_with_the_least_that_would_do():
    cluster = Cluster()
    refused = cluster.one(register(expires="3"))
    assert (refused.status, refused.get("Min-Expires")) == (423, "10")
    assert cluster.bindings(BOB) == []


def test_all_or_nothing_when_one_contact_of_two_is_refused():
    cluster = Cluster()
    cluster.one(register(cseq=7))
    both = "<sip:bob@127.0.0.1:4200>, <sip:bob@127.0.0.1:4100>;expires=0"
    assert cluster.one(register(contact=both, cseq=6)).status == 500
    assert cluster.bindings(BOB) == ["sip:bob@127.0.0.1:4100"]


@pytest.mark.parametrize(
    ("contact", "expires", "granted"),
    [
        ("<sip:bob@127.0.0.1:4100>", "", 3600),
        ("<sip:bob@127.0.0.1:4100>;expires=soon", "300", 3600),
        ("<sip:bob@127.0.0.1:4100>;expires=77", "300", 77),
        ("<sip:bob@127.0.0.1:4100>", "4294967295", 3600),
    ],
)
def test_how_long_a_binding_lasts(contact, expires, granted):
    ok = Cluster().one(register(contact=contact, expires=expires))
    assert contacts(ok) == [f"<sip:bob@127.0.0.1:4100>;expires={granted};q=1"]


def test_the_same_contact_written_differently_is_one_binding():
    cluster = Cluster()
    cluster.one(register(contact="<sip:bob@[2001:DB8::0:1]:4100>"))
    ok = cluster.one(register(contact="<sip:b%6Fb@[2001:db8::1]:4100>", cseq=2))
    assert len(contacts(ok)) == 1


def test_unknown_extensions_are_named():
    refused = Cluster().one(register(fields=[("Require", "gruu, outbound")]))
    assert (refused.status, refused.get("Unsupported")) == (420, "gruu, outbound")


def test_eleven_phones_are_too_many():
    cluster = Cluster()
    for number in range(10):
        assert (
            cluster.one(
                register(contact=f"<sip:bob@127.0.0.1:{4100 + number}>", call_id=f"r{number}")
            ).status
            == 200
        )
    assert cluster.one(register(contact="<sip:bob@127.0.0.1:4999>", call_id="r11")).status == 403
    assert len(cluster.bindings(BOB)) == 10


@pytest.mark.parametrize(
    "contact", ["<mailto:bob@x>", "<sip:bob@x>;q=7", '"Bob <sip:bob@x>', "<sip:bob@x:99999>"]
)
def test_broken_contacts_are_refused_and_nothing_is_saved(contact):
    cluster = Cluster()
    assert cluster.one(register(contact=contact)).status in (400, 416)
    assert cluster.store.rows == {}


def test_two_servers_registering_two_phones_at_the_same_moment_keep_both():
    cluster = Cluster()
    other = register(contact="<sip:bob@127.0.0.1:4200>", call_id="r2")
    cluster.store.before_save = lambda: cluster.receive(other, at="server2")
    assert cluster.one(register(), at="server1").status == 200
    assert sorted(cluster.bindings(BOB)) == ["sip:bob@127.0.0.1:4100", "sip:bob@127.0.0.1:4200"]


def test_without_the_store_a_phone_hears_503_and_when_to_try_again():
    cluster = Cluster()
    cluster.store.down = True
    refused = cluster.one(register())
    assert (refused.status, refused.get("Retry-After")) == (503, "2")


# -- what a thawed server still has in its queue ---------------------------------------------------


# a phone that was started anew
ANEW = {"call_id": "after-boot", "contact": "<sip:bob@127.0.0.1:4100>"}


def test_the_last_word_before_a_reboot_said_again_does_not_take_the_phone_away():
    cluster = Cluster()
    cluster.one(register(cseq=1), at="server1")
    goodbye = register(cseq=2, expires="0")
    cluster.one(goodbye, at="server2")  # server1 froze with it, and the forwarder asked the next
    cluster.one(register(cseq=1, **ANEW), at="server2")
    for stale in (goodbye, register(cseq=1)):
        cluster.one(stale, at="server1")
        assert cluster.bindings(BOB) == ["sip:bob@127.0.0.1:4100"]
        assert cluster.outcome.writes == ()
    assert cluster.one(register(cseq=2, expires="0", **ANEW)).all("Contact") == []


def test_a_binding_that_another_phones_wildcard_removed_comes_back_by_a_refresh_and_by_nothing_stale():
    cluster = Cluster()
    other = {"contact": "<sip:bob@127.0.0.1:4200>", "call_id": "r2"}
    cluster.one(register(cseq=7, **other))
    cluster.one(register(contact="*", cseq=1, expires="0"))
    assert cluster.one(register(cseq=7, **other), at="server2").status == 200
    assert cluster.one(register(cseq=6, **other), at="server2").status == 500
    assert cluster.bindings(BOB) == []
    cluster.one(register(cseq=8, **other), at="server2")
    cluster.one(register(contact="*", cseq=1, expires="0"), at="server1")
    assert cluster.bindings(BOB) == ["sip:bob@127.0.0.1:4200"], "the wildcard was carried out once"


def test_a_wildcard_that_found_nothing_removes_nothing_later():
    cluster = Cluster()
    wildcard = register(contact="*", expires="0")
    assert cluster.one(wildcard, at="server2").status == 200
    cluster.one(register(contact="<sip:bob@127.0.0.1:4200>", call_id="r2"), at="server2")
    assert cluster.one(wildcard, at="server1").status == 200
    assert cluster.bindings(BOB) == ["sip:bob@127.0.0.1:4200"]


def test_a_phone_that_had_gone_before_its_registration_was_handled_stays_gone():
    cluster = Cluster()
    cluster.one(register(cseq=2, expires="0"), at="server2")
    assert cluster.one(register(cseq=1), at="server1").status == 500
    assert cluster.bindings(BOB) == []


@pytest.mark.parametrize("first", ["server1", "server2"])
def test_of_two_refreshes_at_the_same_moment_the_newer_one_holds(first):
    cluster = Cluster()
    cluster.one(register())
    second = "server2" if first == "server1" else "server1"
    older, newer = register(cseq=2, expires="60"), register(cseq=3, expires="600")
    cluster.store.before_save = lambda: cluster.receive(newer, at=second)
    assert cluster.one(older, at=first).status == 500
    assert contacts(cluster.one(register(contact="", cseq=4))) == [
        "<sip:bob@127.0.0.1:4100>;expires=600;q=1"
    ]


def test_the_same_refresh_on_two_servers_at_once_is_one():
    cluster = Cluster()
    cluster.one(register())
    refresh, heard = register(cseq=2, expires="60"), []
    cluster.store.before_save = lambda: heard.append(cluster.one(refresh, at="server2"))
    heard.append(cluster.one(refresh, at="server1"))
    assert [(each.status, contacts(each)) for each in heard] == [
        (200, ["<sip:bob@127.0.0.1:4100>;expires=60;q=1"])
    ] * 2
    assert cluster.outcome.writes == ()


def test_an_expired_binding_is_neither_called_nor_shown_by_any_server():
    cluster = Cluster()
    cluster.one(register(expires="60"), at="server1")
    cluster.now += 60
    assert cluster.one(invite(), at="server2").status == 480
    health = server_status(Member("server2", ""), uptime=1.0, forwarder="", counts={})
    assert (
        take_snapshot(Transaction(cluster.store), health, cluster.now, OpenCalls()).bindings[
            "bindings"
        ]
        == []
    )


def test_a_phone_with_a_new_call_id_each_time_does_not_grow_the_record_for_ever():
    cluster = Cluster()
    sizes = []
    for number in range(200):
        cluster.now += 50
        assert cluster.one(register(call_id=f"fresh-{number:04}")).status == 200
        sizes.append(len(cluster.store.get("bindings", BOB).text))
    assert max(sizes) == max(sizes[:50]) < 3000


def test_a_refresh_finds_its_contact_and_the_others_stay_as_they_were():
    cluster = Cluster()
    cluster.one(register(contact="<sip:bob@127.0.0.1:4200>;expires=77", call_id="r2"), at="server1")
    cluster.one(register(expires="300"), at="server1")
    cluster.now += 7
    assert sorted(contacts(cluster.one(register(cseq=2, expires="300"), at="server2"))) == [
        "<sip:bob@127.0.0.1:4100>;expires=300;q=1",
        "<sip:bob@127.0.0.1:4200>;expires=70;q=1",
    ]


# -- a phone that was started anew, and late words -------------------------------------------------


@pytest.mark.parametrize("over", ["removed", "expired"])
@pytest.mark.parametrize("cseq", [1, 7])
def test_a_phone_that_begins_anew_with_its_old_call_id_registers_once_its_binding_is_over(
    over, cseq
):
    # RFC 3261 10.3 step 7 compares with the bindings there are
    cluster = Cluster()
    cluster.one(register(cseq=7, expires="60"))
    if over == "removed":
        cluster.one(register(cseq=8, expires="0"))
    cluster.now += 61
    assert cluster.one(register(cseq=cseq), at="server2").status == 200
    assert cluster.bindings(BOB) == ["sip:bob@127.0.0.1:4100"]


def test_a_phone_that_comes_back_at_another_port_with_its_old_call_id_is_a_second_binding():
    cluster = Cluster()
    cluster.one(register(cseq=7))
    cluster.now += 40
    assert cluster.one(register(cseq=1, contact="<sip:bob@127.0.0.1:4300>")).status == 200
    assert cluster.one(register(cseq=6)).status == 500, "that binding has heard 7"
    assert sorted(cluster.bindings(BOB)) == ["sip:bob@127.0.0.1:4100", "sip:bob@127.0.0.1:4300"]


def test_what_a_server_says_late_is_kept_out_for_as_long_as_anybody_repeats_it():
    cluster = Cluster()
    cluster.one(register(cseq=7))
    cluster.one(register(cseq=8, expires="0"), at="server2")
    cluster.now += 31.9  # 64*T1: neither phone nor forwarder says it after that
    assert cluster.one(register(cseq=7), at="server1").status == 500
    assert cluster.bindings(BOB) == []


# -- contacts that no call could reach -------------------------------------------------------------


@pytest.mark.parametrize(
    "contact",
    [
        "<sip:bob@phone.local>",
        "sip:bob@localhost:4100",
        "<sip:bob@0.0.0.0>",
        "<sip:bob@224.0.0.1>",
        "<sip:bob@[::]>",
        "<sip:bob@127.1>",
        "<tel:+4930123>",
        "<mailto:bob@x>",
        "<sips:bob@127.0.0.1>",
        "<sip:bob@phone.local;maddr=127.0.0.1>",
        "<sip:bob@127.0.0.1:4100>, <sip:bob@phone.local>",
    ],
)
def test_a_phone_whose_contact_could_not_be_called_is_told_so_when_it_registers(contact):
    cluster = Cluster()
    refused = cluster.one(register(contact=contact))
    assert (refused.status, refused.reason) == (400, "Contact Cannot Be Reached")
    assert "register" in refused.get("Warning") and refused.get("Warning").startswith("399 ")
    assert cluster.store.rows == {}


def test_a_name_that_an_earlier_version_took_can_still_be_removed():
    cluster = Cluster()
    assert cluster.one(register(contact="<sip:bob@phone.local>", expires="0")).status == 200


@pytest.mark.parametrize(
    "scheme", ["tel:+4930123", "isbn:2983792873", "http://www.example.com", "urn:x:y"]
)
def test_whoever_is_registered_has_a_sip_address_whatever_the_others_have(scheme):
    cluster = Cluster()
    foreign = register().to_bytes()
    to = foreign.replace(b"To: <sip:bob@failover.test>", b"To: <%s>" % scheme.encode())
    assert cluster.one(to).status == 400, "RFC 3261 10.2: To is a SIP URI; RFC 4475 3.3.4"
    line = foreign.replace(b"REGISTER sip:failover.test", b"REGISTER " + scheme.encode())
    assert cluster.one(line).status == 416, "RFC 3261 8.2.2.1"
    assert cluster.store.rows == {}
    by = foreign.replace(b"From: <sip:bob@failover.test>", b"From: <%s>" % scheme.encode())
    assert cluster.one(by).status == 200, "who registers somebody may have any address"


def test_the_torture_test_with_unknown_schemes_everywhere_is_a_bad_request():
    torture = messages()["from-and-to-of-unknown-schemes"]
    assert Cluster().one(torture).status == 400, "RFC 4475 3.3.4"
