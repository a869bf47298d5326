"""What a dead B2BUA had ringing ends in time, and nothing else does.

Literals, by both ways through the core.
"""

from __future__ import annotations

import pytest
from forwarder_kit import ALICE, BOB, SERVERS, answer, head, make_core, request

from failover.config.settings import PHONES
from failover.upstream.health import REFUSED
from sip.message import parse

S1, S2 = SERVERS["server1"], SERVERS["server2"]
HERE = f"sip:bob@{BOB[0]}:{BOB[1]}"


class Story:
    """A core, and the messages of a call through B2BUAs."""

    def __init__(self, short):
        self.core = make_core()
        self._short = short
        self.now = 100.0
        self.told = []

    def take(self, data, side, source):
        """The datagrams that leave for it."""
        self.now += 0.001
        send = self.core.quick(data, side, source, self.now) if self._short else None
        if send:
            return [send]
        outcome = self.core.receive(data, side, source, self.now)
        self.told += outcome.events
        return outcome.sends

    def call(self, n=1, caller="alice"):
        """Alice calls; returns her INVITE as server1 has it."""
        asked = request(branch=f"z9hG4bKcall{n}", call_id=f"call-{n}")
        asked = asked.replace(b"<sip:alice@", f"<sip:{caller}@".encode())
        [send] = self.take(asked, PHONES, ALICE)
        return send

    def own_invite(self, server, n, caller="alice", uri=HERE, **options):
        """An INVITE that a B2BUA begins itself."""
        source, options = (
            SERVERS[server],
            {"branch": f"z9hG4bK{server}-{n}", "call_id": f"leg-{n}-{server}", **options},
        )
        data = request(uri=uri, source=source, **options)
        data = data.replace(b"<sip:alice@failover.test>", f"<sip:{caller}@192.0.2.1>".encode())
        return self.take(
            data.replace(b"<sip:bob@failover.test>", f"<{uri}>".encode()), server, source
        )

    def rings(self, n=1, caller="alice"):
        """Bob's phone rings for the call; returns server1's INVITE as it has it."""
        called = self.call(n, caller)
        [invite] = self.own_invite("server1", n, caller)
        self.take(answer(invite.data, "180 Ringing"), PHONES, BOB)
        self.take(answer(called.data, "180 Ringing"), "server1", S1)
        return invite.data

    def kill(self, name="server1"):
        """Returns what of it was replayed."""
        self.now += 0.01
        sends = list(
            self.core.failover.signal(name, REFUSED, self.now, "its port refused a message").sends
        )
        while self.core.pending.moved:
            sends += self.core.failover.replay(self.now).sends
        return sends

    def replayed_invite(self):
        return next(send for send in self.kill() if send.data.startswith(b"INVITE")).data

    def wait(self, seconds):
        self.now += seconds
        return list(self.core.failover.on_timer(self.now).sends)


@pytest.fixture(params=["as it is read", "the short way"])
def story(request):
    return Story(request.param == "the short way")


def is_cancel(send, invite):
    """Is this the CANCEL that RFC 3261 9.1 makes of the INVITE?"""
    assert (send.to, send.target) == (PHONES, BOB)
    cancel, invited = parse(send.data), parse(invite, in_passing=True)
    cancel.check()
    same = all(cancel.get(name) == invited.get(name) for name in ("From", "To", "Call-ID"))
    vias = cancel.all("Via") == invited.values("Via")[:1]
    counted = (cancel.cseq.number, cancel.cseq.method) == (invited.cseq.number, "CANCEL")
    return cancel.method == "CANCEL" and same and vias and counted and cancel.uri == invited.uri


# -- it ends ---------------------------------------------------------------------------------------


def test_the_survivor_challenges_the_caller_and_the_dead_one_s_ringing_ends(story):
    """As Asterisk does, to which the caller's credentials mean nothing: the nonce was the dead
    one's."""
    ghost = story.rings()
    again = story.replayed_invite()
    cancel, challenge = story.take(answer(again, "401 Unauthorized"), "server2", S2)
    assert is_cancel(cancel, ghost)
    assert challenge.target == ALICE and head(challenge.data)[0].startswith("SIP/2.0 401")
    assert story.core.counters["orphans.ended"] == 1
    assert any(
        event.method == "CANCEL" and "server1 had it ringing" in event.why
        for event in story.told[-3:]
    )


def test_the_survivor_calls_the_phone_anew_and_it_hears_the_end_of_the_first_call_before(
    story,
):
    """A phone with one line would say that it is busy."""
    ghost = story.rings()
    story.replayed_invite()
    cancel, invite = story.own_invite("server2", 1)
    assert is_cancel(cancel, ghost)
    assert invite.data.startswith(b"INVITE") and b"leg-1-server2" in invite.data


def test_what_is_answered_under_its_branch_to_another_method_goes_on(story):
    """A phone without magic cookie may use one branch for all of a call (RFC 3261 17.2.3)."""
    ghost = story.rings()
    again = story.replayed_invite()
    story.take(answer(again, "401 Unauthorized"), "server2", S2)
    told = answer(ghost).replace(b" INVITE\r\n", b" INFO\r\n")
    assert len(story.take(told, PHONES, BOB)) == 1


def test_its_final_answer_is_acknowledged_and_goes_to_no_server_that_knows_nothing_of_it(story):
    ghost = story.rings()
    again = story.replayed_invite()
    cancel, _ = story.take(answer(again, "401 Unauthorized"), "server2", S2)
    assert story.take(answer(cancel.data), PHONES, BOB) == ()
    for _ in range(2):  # it repeats that until it is acknowledged
        [ack] = story.take(answer(ghost, "487 Request Terminated"), PHONES, BOB)
        acknowledged = parse(ack.data)
        acknowledged.check()
        assert (acknowledged.method, ack.target, acknowledged.to_tag) == ("ACK", BOB, "b")
        assert acknowledged.all("Via") == parse(ghost).values("Via")[:1], "RFC 3261 17.1.1.3"
    assert story.wait(1.0) == [], "and it is cancelled no more"


def test_who_picks_it_up_in_that_moment_is_not_left_in_silence(story):
    """RFC 3261 15: a 2xx that crosses the CANCEL is acknowledged, and the call hung up."""
    ghost = story.rings()
    again = story.replayed_invite()
    story.take(answer(again, "401 Unauthorized"), "server2", S2)
    picked_up = answer(ghost).replace(
        b"Content-Length", b"Contact: <sip:bob@192.0.2.8:5060;ob>\r\nContent-Length"
    )
    ack, bye = (parse(send.data) for send in story.take(picked_up, PHONES, BOB))
    for each in (ack, bye):
        each.check()
        assert (
            each.uri == "sip:bob@192.0.2.8:5060;ob"
            and each.to_tag == "b"
            and each.call_id == "leg-1-server1"
        )
    assert (ack.method, ack.cseq.number, bye.method, bye.cseq.number) == ("ACK", 1, "BYE", 2)
    assert len({parse(ghost).via.branch, ack.via.branch, bye.via.branch}) == 3
    assert story.take(answer(bye.to_bytes()), PHONES, BOB) == ()
    assert not story.core.counters["dropped.not-ours"]


def test_a_cancel_that_is_lost_is_said_again(story):
    ghost = story.rings()
    story.replayed_invite()
    cancel, _ = story.own_invite("server2", 1)
    repeated = [send for _ in range(50) for send in story.wait(0.1)]
    assert [send.data for send in repeated] == [cancel.data] * 3, (
        "after 0.5, 1 and 2 s (RFC 3261 17.1.2.2)"
    )
    assert is_cancel(repeated[-1], ghost)
    for _ in range(400):
        story.wait(0.1)
    assert not story.core.orphans.watchful, "nor for ever"


def test_a_phone_that_has_said_nothing_yet_is_cancelled_when_it_does(story):
    """RFC 3261 9.1: not before a provisional answer. Server1 died with its INVITE hardly sent."""
    called = story.call()
    [invite] = story.own_invite("server1", 1)
    story.take(answer(called.data, "100 Trying"), "server1", S1)
    again = story.replayed_invite()
    [challenge] = story.take(answer(again, "401 Unauthorized"), "server2", S2)
    assert challenge.target == ALICE
    [cancel] = story.take(answer(invite.data, "180 Ringing"), PHONES, BOB)
    assert is_cancel(cancel, invite.data)
    assert story.take(answer(invite.data, "180 Ringing"), PHONES, BOB) == ()


def test_all_the_phones_of_the_called_user_stop_to_ring(story):
    other = ("192.0.2.9", 5060)
    called = story.call()
    invites = [
        story.own_invite("server1", n, uri=f"sip:bob@{host}:{port}")[0]
        for n, (host, port) in enumerate((BOB, other))
    ]
    for invite in invites:
        story.take(answer(invite.data, "180 Ringing"), PHONES, invite.target)
    story.take(answer(called.data, "180 Ringing"), "server1", S1)
    again = story.replayed_invite()
    sends = story.take(answer(again, "480 Temporarily Unavailable"), "server2", S2)
    assert [send.target for send in sends if send.data.startswith(b"CANCEL")] == [BOB, other]


# -- it does not -----------------------------------------------------------------------------------


def test_nothing_ends_before_the_survivor_shows_that_it_knows_nothing_of_it(story):
    """Servers that share their calls go on with it: bob picks up, and the survivor hears of it."""
    ghost = story.rings()
    assert not any(send.data.startswith(b"CANCEL") for send in story.kill())
    assert story.wait(1.0) == []
    [picked_up] = story.take(answer(ghost), PHONES, BOB)
    assert picked_up.to == "server2" and head(picked_up.data)[0] == "SIP/2.0 200 OK"


def test_a_survivor_that_repeats_the_invite_has_taken_it_over(story):
    ghost = story.rings()
    again = story.replayed_invite()
    [repeated] = story.own_invite("server2", 1, branch="z9hG4bKserver1-1", call_id="leg-1-server1")
    assert parse(repeated.data).via.branch == parse(ghost).via.branch, (
        "the phone takes it for the same"
    )
    [refusal] = story.take(answer(again, "486 Busy Here"), "server2", S2)
    assert refusal.target == ALICE


def test_what_a_proxy_had_ringing_is_its_successor_s(story):
    """Beneath its Via is the caller's: the survivor asks the phone with the branch that the phone
    knows."""
    called = story.call()
    via = f"Via: SIP/2.0/UDP {S1[0]}:{S1[1]};branch=z9hG4bKproxy\r\nVia: ".encode()
    onward = called.data.replace(b"INVITE sip:bob@failover.test", f"INVITE {HERE}".encode())
    [invite] = story.take(onward.replace(b"Via: ", via, 1), "server1", S1)
    story.take(answer(invite.data, "180 Ringing"), PHONES, BOB)
    again = story.replayed_invite()
    [refusal] = story.take(answer(again, "486 Busy Here"), "server2", S2)
    assert refusal.target == ALICE


def test_other_callers_ringing_is_left_alone(story):
    story.rings(1)
    carols = story.rings(2, caller="carol")
    again = next(
        send
        for send in story.kill()
        if b"call-1\r\n" in send.data and send.data.startswith(b"INVITE")
    )
    cancel, _ = story.take(answer(again.data, "401 Unauthorized"), "server2", S2)
    assert b"leg-1-server1" in cancel.data
    [picked_up] = story.take(answer(carols), PHONES, BOB)
    assert picked_up.to == "server2"


def test_what_the_phone_has_declined_or_answered_is_over_already(story):
    ghost = story.rings()
    story.take(answer(ghost, "486 Busy Here"), PHONES, BOB)
    again = story.replayed_invite()
    [refusal] = story.take(answer(again, "486 Busy Here"), "server2", S2)
    assert refusal.target == ALICE


def test_what_the_phone_s_computer_has_refused_rings_nowhere(story):
    [invite] = story.own_invite("server1", 1)
    [refusal] = story.core.undelivered(invite.data, PHONES, 503, story.now).sends
    assert refusal.to == "server1" and not story.core.orphans._ringing


def test_a_phone_whose_computer_refuses_the_cancel_is_told_no_more(story):
    story.rings()
    again = story.replayed_invite()
    cancel, _ = story.take(answer(again, "401 Unauthorized"), "server2", S2)
    counted = dict(story.core.counters)
    outcome = story.core.undelivered(cancel.data, PHONES, 503, story.now)
    assert (outcome.sends, outcome.events) == ((), ()) and story.core.counters == counted
    assert story.wait(1.0) == []


UNREADABLE = ("X Foo: bar",)


def test_a_line_that_cannot_be_read_in_a_dead_one_s_invite_refuses_no_other_one(story):
    called = story.call()
    [ghost] = story.own_invite("server1", 1, extra=UNREADABLE)
    story.take(answer(ghost.data, "180 Ringing"), PHONES, BOB)
    story.take(answer(called.data, "180 Ringing"), "server1", S1)
    story.kill()
    cancel, invite = story.own_invite("server2", 1)
    assert is_cancel(cancel, ghost.data) and invite.data.startswith(b"INVITE")


def test_nor_does_one_in_the_caller_s_keep_the_refusal_from_it(story):
    [called] = story.take(
        request(branch="z9hG4bKcall", call_id="call", extra=UNREADABLE), PHONES, ALICE
    )
    [ghost] = story.own_invite("server1", 1)
    story.take(answer(ghost.data, "180 Ringing"), PHONES, BOB)
    story.take(answer(called.data, "180 Ringing"), "server1", S1)
    again = story.replayed_invite()
    cancel, busy = story.take(answer(again, "486 Busy Here"), "server2", S2)
    assert is_cancel(cancel, ghost.data) and head(busy.data)[0] == "SIP/2.0 486 Busy Here"


def test_a_remembered_invite_that_cannot_be_read_at_all_costs_no_other_call_anything(story):
    story.rings()
    ghost = story.rings(2)
    first = next(iter(story.core.orphans._ringing.values()))
    first.data = first.data.replace(b"INVITE sip:bob", b"INVITE  sip:bob", 1).replace(
        b"\r\nCSeq", b"\r\nCSeq?"
    )
    story.kill()
    *cancels, invite = story.own_invite("server2", 3)
    assert [is_cancel(send, ghost) for send in cancels] == [True] and invite.data.startswith(
        b"INVITE"
    )


def test_who_picks_it_up_and_says_no_sip_address_is_hung_up_on_as_well(story):
    ghost = story.rings()
    again = story.replayed_invite()
    story.take(answer(again, "401 Unauthorized"), "server2", S2)
    picked_up = answer(ghost).replace(b"Content-Length", b"Contact: <tel:+1>\r\nContent-Length")
    for _ in range(2):
        ack, bye = (parse(send.data) for send in story.take(picked_up, PHONES, BOB))
        assert (ack.method, bye.method) == ("ACK", "BYE") and ack.uri == bye.uri == HERE


def test_a_second_call_while_all_is_well_ends_no_first(story):
    story.rings()
    [invite] = story.own_invite("server1", 2)
    assert invite.data.startswith(b"INVITE")


def test_a_stranger_cannot_have_anything_acknowledged(story):
    """Only the phone knows the branch, which is signed with the secret."""
    ghost = story.rings()
    again = story.replayed_invite()
    story.take(answer(again, "401 Unauthorized"), "server2", S2)
    branch = parse(ghost).via.branch
    forged = answer(ghost, "487 Request Terminated").replace(
        branch.encode(), b"z9hG4bK" + b"0" * 32
    )
    assert story.take(forged, PHONES, ("192.0.2.66", 5060)) == ()
    assert story.core.counters["dropped.not-ours"] == 1


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr("failover.proxy.orphaned_invites.MAX_CALLS", 10)
    story = Story(short=False)
    for n in range(50):
        story.own_invite("server1", n)
    assert len(story.core.orphans._ringing) == 10
    story.wait(301.0)
    assert not story.core.orphans._ringing and story.core.orphans._octets == 0


def test_two_calls_to_one_phone_and_each_way_through_the_core_remembers_the_same():
    first, second = Story(short=False), Story(short=True)
    for story in (first, second):
        for n in range(4):
            story.rings(n)
            story.own_invite("server1", f"more-{n}")
    rows = [
        {
            branch: (call.server.name, call.data, call.target, call.rings)
            for branch, call in s.core.orphans._ringing.items()
        }
        for s in (first, second)
    ]
    assert rows[0] == rows[1] and len(rows[0]) == 8
