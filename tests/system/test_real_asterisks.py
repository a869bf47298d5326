"""Calls through two real Asterisks, installed as docs/operations.txt tells, with the files of
examples/asterisk.

They run where one is installed, or where ASTERISK_ROOT names the folder of a system that has it,
as Debian's unstable:

    debootstrap --variant=minbase --include=asterisk,odbc-postgresql sid FOLDER
    ASTERISK_ROOT=FOLDER python3 demo.py test -m long -k asterisks

The computer needs PostgreSQL. Tried here is what holds for Asterisk; the forwarder's part is tried
with literals in test_orphaned_invites.py and test_pending_messages.py.
"""

from __future__ import annotations

import re

import pytest
from asterisk_kit import DOMAIN, Caller, Office, await_, unfit

from softphone.ua.events import CallState

pytestmark = [
    pytest.mark.long,
    pytest.mark.slow,
    pytest.mark.skipif(bool(unfit()), reason=unfit() or "-"),
]
TALKING, ENDED, INCOMING, RINGING = (
    CallState.TALKING,
    CallState.ENDED,
    CallState.INCOMING,
    CallState.RINGING,
)


@pytest.fixture(scope="class")
def quiet_office():
    """For the tests in which nobody dies."""
    with Office() as office:
        yield office


@pytest.fixture
def office():
    with Office() as office:
        yield office


def ring(caller: Caller, called: Caller) -> None:
    caller.phone.call(called.phone.account.user)
    await_(
        lambda: called.is_in(INCOMING) and caller.is_in(RINGING),
        lambda: (caller.calls, called.calls),
    )


def pick_up(caller: Caller, called: Caller) -> None:
    called.phone.answer()
    await_(
        lambda: caller.is_in(TALKING) and called.is_in(TALKING),
        lambda: (caller.calls, called.calls),
    )
    hear_each_other(caller, called)


def hear_each_other(*phones: Caller) -> None:
    before = [phone.heard for phone in phones]
    await_(
        lambda: all(phone.heard > heard + 10 for phone, heard in zip(phones, before, strict=True))
    )


def hang_up(one: Caller, other: Caller) -> None:
    one.phone.hang_up()
    await_(lambda: one.is_in(ENDED) and other.is_in(ENDED), lambda: (one.calls, other.calls))


def call(caller: Caller, called: Caller) -> None:
    """A whole one."""
    ring(caller, called)
    pick_up(caller, called)
    hang_up(caller, called)


# -- all is well -----------------------------------------------------------------------------------


class TestAllIsWell:
    def test_both_call_each_other_and_either_hangs_up(self, quiet_office):
        with quiet_office.phones("alice", "bob") as (alice, bob):
            assert quiet_office.database.bindings() == ["alice at asterisk1", "bob at asterisk1"]
            ring(alice, bob)
            assert bob.calls[-1].peer_uri == f"sip:alice@{DOMAIN}", (
                "an address that can be called back whoever is dead"
            )
            pick_up(alice, bob)
            shown = quiet_office.asterisks["asterisk1"].cli("core show channels concise")
            assert "asterisk1-" in shown, "the uniqueid, which the other's never equals"
            hang_up(alice, bob)
            ring(bob, alice)
            pick_up(bob, alice)
            hang_up(alice, bob)
            assert (
                alice.phone.snapshot().retransmissions == bob.phone.snapshot().retransmissions == 0
            )
        assert quiet_office.status["failovers"] == []

    def test_who_is_not_there_is_unavailable_and_has_not_declined(self, quiet_office):
        with quiet_office.phones("alice") as (alice,):
            for user in ("bob", "nobody"):
                alice.phone.call(user)
                await_(lambda: alice.is_in(ENDED))
            heard = re.findall(
                r" (\d{3}) \(INVITE\) server1 -> phones", quiet_office.forwarder.said
            )
            assert heard[-1] == "480" and "603" not in heard

    def test_a_phone_that_comes_back_from_other_ports_again_and_again_is_always_welcome(
        self, quiet_office
    ):
        """It has no time to take back its registrations, as in a power cut, and three are
        allowed."""
        phones = [Caller("bob") for _ in range(5)]
        try:
            for phone in phones:
                await_(
                    lambda phone=phone: phone.registered,
                    lambda phone=phone: phone.phone.snapshot().registration,
                )
            assert len(quiet_office.database.bindings()) == 3
        finally:
            for phone in phones:
                phone.stop()


# -- one dies --------------------------------------------------------------------------------------


def test_after_kill_9_the_next_call_is_set_up_at_once_and_the_one_started_again_finds_all_bindings(
    office,
):
    with office.phones("alice", "bob") as (alice, bob):
        office.asterisks["asterisk1"].kill()
        call(alice, bob)
        assert alice.phone.snapshot().retransmissions == 0
        bob.phone.register()
        await_(lambda: "bob at asterisk2" in office.database.bindings())
        office.asterisks["asterisk1"].start()
        await_(lambda: office.status["hot"] == "server1")
        call(alice, bob)
        call(bob, alice)
        [failover] = office.status["failovers"]
        assert (failover["from"], failover["to"]) == ("server1", "server2")


def test_kill_9_in_mid_call_they_talk_on_and_after_hanging_up_the_next_call_is_good(office):
    with office.phones("alice", "bob") as (alice, bob):
        ring(alice, bob)
        pick_up(alice, bob)
        await_(lambda: office.status["in_flight"] == 0)
        office.asterisks["asterisk1"].kill()
        await_(lambda: office.status["hot"] == "server2")
        hear_each_other(alice, bob)
        [failover] = office.status["failovers"]
        assert (failover["in_flight"], failover["replayed"]) == (0, 0), "it owed nobody anything"
        alice.phone.hang_up()
        await_(lambda: alice.is_in(ENDED))
        assert bob.is_in(TALKING), "nobody is left who could tell him"
        bob.phone.hang_up()
        await_(lambda: bob.is_in(ENDED))
        answers = re.findall(r" (\d{3}) \(BYE\) server2 -> phones", office.forwarder.said)
        assert answers == ["481", "481"]
        call(alice, bob)
        call(bob, alice)
        assert alice.phone.snapshot().retransmissions == bob.phone.snapshot().retransmissions == 0


def test_kill_9_while_it_rings_and_the_phone_rings_on_for_one_call_only(office):
    """Our phones have one line: were the first call still ringing there, the second would be told
    that it is busy."""
    with office.phones("alice", "bob") as (alice, bob):
        ring(alice, bob)
        office.asterisks["asterisk1"].kill()
        await_(lambda: [each.state for each in bob.calls] == [ENDED, INCOMING], lambda: bob.calls)
        pick_up(alice, bob)
        assert [each.state for each in alice.calls] == [TALKING], "to her it is one call"
        hang_up(bob, alice)
        assert office.status["counters"]["orphans.ended"] == 1
        assert " 486 " not in office.forwarder.said
        assert alice.phone.snapshot().retransmissions == bob.phone.snapshot().retransmissions == 0


def test_kill_9_while_it_rings_and_the_caller_gives_up(office):
    with office.phones("alice", "bob") as (alice, bob):
        ring(alice, bob)
        office.asterisks["asterisk1"].kill()
        await_(lambda: len(bob.calls) == 2)
        alice.phone.hang_up()
        await_(
            lambda: alice.is_in(ENDED) and all(each.state is ENDED for each in bob.calls),
            lambda: bob.calls,
        )


def test_a_frozen_one_that_thaws_keeps_no_ghosts_of_calls_that_have_ended(office):
    """By the session timers of pjsip.conf. Without them it would say so for ever, and never stop
    gracefully."""
    frozen = office.asterisks["asterisk1"]
    with office.phones("alice", "bob") as (alice, bob):
        ring(alice, bob)
        pick_up(alice, bob)
        frozen.freeze()
        await_(lambda: office.status["hot"] == "server2")
        for phone in (alice, bob):
            phone.phone.hang_up()
        await_(lambda: alice.is_in(ENDED) and bob.is_in(ENDED))
        frozen.thaw()
        await_(lambda: office.status["servers"][0]["state"] == "UP")
        assert "2 active channels" in frozen.cli("core show channels")
        await_(lambda: "0 active channels" in frozen.cli("core show channels"), within=70.0)


# -- it is taken out -------------------------------------------------------------------------------


def test_core_stop_gracefully_drains_it(office):
    """It answers heartbeats with 503, keeps its calls, and ends with the last one: nothing fails
    over."""
    leaving = office.asterisks["asterisk1"]
    with office.phones("alice", "bob") as (alice, bob):
        ring(alice, bob)
        pick_up(alice, bob)
        leaving.stop_gracefully()
        await_(lambda: office.status["hot"] == "server2")
        assert "503" in office.status["servers"][0]["why"]
        bob.phone.register()
        await_(lambda: "bob at asterisk2" in office.database.bindings())
        assert leaving.runs
        hang_up(alice, bob)
        await_(lambda: not leaving.runs)
        call(alice, bob)
        assert " 481 " not in office.forwarder.said
        leaving.start()
        await_(lambda: office.status["hot"] == "server1")


# -- the database ----------------------------------------------------------------------------------


def test_without_the_database_phones_believe_to_be_registered_and_nobody_can_be_called(office):
    """As the manual says: heartbeats tell nothing of it. Once it is back all is well."""
    with office.phones("alice", "bob") as (alice, bob):
        office.database.stop()
        bob.phone.register()
        alice.phone.call("bob")
        await_(lambda: alice.is_in(ENDED), within=40.0)
        assert [server["state"] for server in office.status["servers"]] == ["UP", "UP"]
        assert (
            re.findall(r" (\d{3}) \(INVITE\) server1 -> phones", office.forwarder.said)[-1] == "480"
        )
        office.database.start()
        for phone in (alice, bob):
            phone.phone.register()
        await_(lambda: len(office.database.bindings()) == 2 and alice.registered and bob.registered)
        call(alice, bob)
