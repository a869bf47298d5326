"""A server leaves the forwarder's list while calls ring through it: its line is removed, or its
registration ends. What phones say to it from then on goes to another server, for the way back of an
answer is in the answer (RFC 3261 16.7, 16.11). Literals."""

from __future__ import annotations

import pytest
from forwarder_kit import (
    BOB,
    KEY,
    OWN,
    SERVERS,
    answer,
    field,
    head,
    make_core,
    make_table,
    request,
)

from failover.config.settings import FIRST_LIVE, PHONES
from failover.proxy.core import Core

S1, S2 = SERVERS.values()


def ringing_at_bob(core):
    """The INVITE as Bob's phone has it: Alice's, passed on by server1."""
    (asked,) = core.receive(request(), PHONES, ("192.0.2.7", 5060), 100.0).sends
    vias = b"Via: SIP/2.0/UDP 192.0.2.11:5070;branch=z9hG4bKs1\r\nVia:"
    onward = asked.data.replace(b"sip:bob@failover.test SIP", b"sip:bob@192.0.2.8 SIP", 1)
    (send,) = core.receive(onward.replace(b"Via:", vias, 1), "server1", S1, 100.0).sends
    assert send.target == BOB
    return send.data


def leave(core, *names, now=101.0):
    """These servers leave the list."""
    rest = {name: address for name, address in SERVERS.items() if name not in names}
    return core.replace_table(make_table(FIRST_LIVE, rest), 3, 2, now)


@pytest.mark.parametrize("status", ["180 Ringing", "200 OK", "486 Busy Here"])
def test_bob_s_answer_goes_to_the_server_that_is_left(status):
    core = make_core()
    at_bob = ringing_at_bob(core)
    leave(core, "server1")
    (taken,) = core.receive(answer(at_bob, status), PHONES, BOB, 110.0).sends
    assert taken.to == "server2" and head(taken.data)[0] == f"SIP/2.0 {status}"
    assert core.counters["dropped.not-ours"] == 0


def test_while_no_server_is_left_it_waits_for_one():
    core = make_core()
    at_bob = ringing_at_bob(core)
    leave(core, *SERVERS)
    assert core.receive(answer(at_bob), PHONES, BOB, 110.0).sends == ()
    sends = leave(core, "server1", now=112.0).sends
    assert "SIP/2.0 200 OK" in [head(send.data)[0] for send in sends if send.to == "server2"]


def test_a_forwarder_that_was_started_anew_and_has_heard_one_registration_knows_it_too():
    at_bob = ringing_at_bob(make_core())
    core = Core(make_table(FIRST_LIVE, {"server2": S2}), KEY, lambda host: OWN)
    (taken,) = core.receive(answer(at_bob), PHONES, BOB, 110.0).sends
    assert taken.to == "server2"


def test_an_answer_goes_to_the_phone_that_asked_whose_address_is_a_server_s_now():
    """It was the address of a phone when the request was signed, so it is one on the way back."""
    core = make_core(servers={"server1": S1})
    (asked,) = core.receive(request(source=S2), PHONES, S2, 100.0).sends
    table = make_table()
    core.replace_table(
        type(table)([core.table.servers[0], table.servers[1]], FIRST_LIVE), 3, 2, 101
    )
    (told,) = core.receive(answer(asked.data), "server1", S1, 102.0).sends
    assert (told.to, told.target) == (PHONES, S2)


def test_what_comes_back_from_a_phone_as_the_server_had_sent_it_is_a_loop_still():
    core = make_core()
    at_bob = ringing_at_bob(core)
    leave(core, "server1")
    again = at_bob.replace(b"sip:bob@192.0.2.8 SIP", b"sip:bob@failover.test SIP", 1)
    (refused,) = core.receive(again, PHONES, BOB, 102.0).sends
    assert head(refused.data)[0] == "SIP/2.0 482 Loop Detected"
    assert field(refused.data, "CSeq") == "1 INVITE"


@pytest.mark.parametrize("moves", [False, True])
@pytest.mark.parametrize("method", ["BYE", "ACK", "INFO"])
def test_a_call_that_names_it_in_route_or_contact_goes_to_the_one_that_takes_it(method, moves):
    """A Kamailio stands in the Routes of its calls, an Asterisk in their Contacts. `moves`: its line
    gets another address, as where its name does."""
    core = make_core()
    hint = core.table.servers[0].hint
    fields = (
        f"Route: <sip:{OWN[0]}:{OWN[1]};lr;hint={hint}>",
        "Route: <sip:192.0.2.11:5070;lr>",
        "Route: <sip:192.0.2.1:5060;lr>",
    )
    data = request(method, "sip:192.0.2.11:5070", BOB, extra=fields, to_tag="b")
    new = ("192.0.2.77", 5070)
    servers = {"server1": new, "server2": S2} if moves else {"server2": S2}
    core.replace_table(make_table(FIRST_LIVE, servers), 3, 2, 101.0)
    name, (host, port) = ("server1", new) if moves else ("server2", S2)
    at = PHONES, BOB, 102.0
    sent = core.quick(data, *at) or core.receive(data, *at).sends[0]
    assert sent.to == name
    assert field(sent.data, "Route") == f"<sip:{host}:{port};lr>"
    assert head(sent.data)[0] == f"{method} sip:{host}:{port} SIP/2.0"


def test_a_new_call_to_where_a_server_once_was_is_not_sent_elsewhere():
    """A phone or a gateway may have the address by now. Only calls that began before mean the
    server."""
    core = make_core()
    core.replace_table(make_table(FIRST_LIVE, {"server2": S2}), 3, 2, 101.0)
    data = request("INVITE", f"sip:+4930@{S1[0]}:{S1[1]}")
    at = PHONES, BOB, 102.0
    sent = core.quick(data, *at) or core.receive(data, *at).sends[0]
    assert sent.to == "server2"
    assert head(sent.data)[0] == f"INVITE sip:+4930@{S1[0]}:{S1[1]} SIP/2.0"


def test_once_it_is_back_in_the_list_its_address_is_its_own():
    core = make_core()
    leave(core, "server1")
    assert list(core.table.former) == [S1]
    leave(core)
    assert not core.table.former
