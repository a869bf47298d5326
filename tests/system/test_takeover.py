"""Two forwarders on two hosts share an address that keepalived moves: whatever befalls the one that
has it, the call that is going on ends with a BYE that is answered and a bill that is right, and new
requests are soon answered again.

Real keepalived with exactly the files of examples/keepalived, real forwarders, servers and phones,
on the network of hosts_kit.py. Each test prints its outage: the time between the last request that
was answered before it and the first one after, of one every four milliseconds, none of which is
ever repeated.
"""

from __future__ import annotations

import contextlib
import time

import pytest
from hosts_kit import HOSTS, SHARED, Meter, Pair, deafen, entered, has_address, hear, unfit

from slee_mock.services.bill_record import Bill
from slee_mock.store.interface import Transaction
from slee_mock.store.sqlite_store import SqliteStore
from softphone.phone import Phone
from softphone.ua.account import Account
from softphone.ua.events import (
    CallChanged,
    CallState,
    ProbeAnswered,
    RegistrationChanged,
    RegistrationState,
)

pytestmark = pytest.mark.long

FIRST, SECOND = "forwarder1", "forwarder2"
HASTE = 0.4  # seconds that an outage may take
SLACK = 0.15  # seconds for a computer with other things to do
BOTH_CLOCKS = 0.02  # seconds between two readings of what a bill is made from


class Handset(Phone):
    """A phone and what it told."""

    def __init__(self, user):
        self.events = []
        super().__init__(
            Account(user, "failover.test"), SHARED, (HOSTS["phones"], 0), self.events.append
        )

    def _last(self, kind):
        return next((event for event in reversed(self.events) if isinstance(event, kind)), None)

    def registered(self):
        last = self._last(RegistrationChanged)
        return last and last.state is RegistrationState.REGISTERED

    def state(self):
        last = self._last(CallChanged)
        return last and last.call.state

    def probed(self):
        """The statuses of the answers to what was asked within the call."""
        return [event.status for event in self.events if isinstance(event, ProbeAnswered)]


class Story:
    """Alice calls Bob and they talk while `fault` strikes the pair; then she hangs up."""

    def __init__(self, eventually, pair, meter, alice, bob):
        self._eventually, self.pair, self.meter, self._alice, self._bob = (
            eventually,
            pair,
            meter,
            alice,
            bob,
        )

    def begins(self):
        self._eventually(lambda: self._alice.registered() and self._bob.registered())
        self.calls()
        self.serves()

    def calls(self):
        self._alice.call("bob")
        self._eventually(lambda: self._bob.state() is CallState.INCOMING)
        self._picked_up = time.monotonic()
        self._bob.answer()
        self._all_are(CallState.TALKING)
        self._heard = time.monotonic()

    def serves(self, count=100):
        """From now on, and without a gap for a while."""
        now = time.monotonic()
        self._eventually(lambda: self.meter.serves(now, count), 10.0)

    def is_at(self, *hosts):
        self._eventually(
            lambda: [host for host in (FIRST, SECOND) if has_address(host)] == list(hosts), 10.0
        )

    def has_said(self, host, words):
        """Its keepalived."""
        log = self.pair.folder / f"{host}-keepalived.log"
        self._eventually(lambda: words in log.read_text(), 10.0)

    def ends(self):
        """The call is still one for both sides, its BYE is answered, and it is billed from the
        answer to its end."""
        for phone in (self._alice, self._bob):
            phone.probe()
            self._eventually(phone.probed)
            assert phone.probed() == [200]
        self.hangs_up()

    def hangs_up(self):
        hung_up = time.monotonic()
        self._alice.hang_up()
        self._all_are(CallState.ENDED)
        over = time.monotonic()
        store = SqliteStore(str(self.pair.store))
        try:
            (bill,) = Transaction(store).scan(Bill)
        finally:
            store.close()
        talked = (hung_up - self._heard - BOTH_CLOCKS, over - self._picked_up + BOTH_CLOCKS)
        assert talked[0] <= bill.ended - bill.answered <= talked[1], bill

    def _all_are(self, state):
        self._eventually(lambda: self._alice.state() is state and self._bob.state() is state)


@pytest.fixture
def story(eventually):
    """story(unicast=False): everything runs, they talk, requests are being counted."""
    reason = unfit()
    if reason:
        pytest.skip(reason)
    with contextlib.ExitStack() as stack:

        def begin(**options):
            pair = stack.enter_context(Pair(**options))
            with entered("phones"):
                phones = [Handset(user) for user in ("alice", "bob")]
                for phone in phones:
                    phone.start()
                    stack.callback(phone.stop)
            told = Story(eventually, pair, stack.enter_context(Meter()), *phones)
            told.begins()
            return told

        yield begin


@pytest.fixture
def outage(capsys):
    """outage(story, what, limit): seconds without an answer until now, printed and held to the
    limit. None was a refusal."""

    def tell(story, what, limit):
        seconds = story.meter.outage()
        with capsys.disabled():
            print(f"\n  {what}: {seconds * 1000:.0f} ms without an answer", end=" ")
        assert seconds <= limit + SLACK
        assert story.meter.refused == [], "nobody is refused because the address moves"

    return tell


def test_the_active_forwarder_is_killed(story, outage):
    told = story()
    told.pair.forwarders[FIRST].kill()
    told.is_at(SECOND)
    told.serves()
    told.ends()
    outage(told, "forwarder killed", HASTE)


def test_a_forwarder_that_comes_back_stands_by_and_takes_over_when_its_turn_comes(story, outage):
    told = story(unicast=True)
    told.pair.forwarders[FIRST].kill()
    told.is_at(SECOND)
    told.pair.forwarders[FIRST].is_ready_again()
    told.serves()
    told.is_at(SECOND)
    told.pair.forwarders[SECOND].kill()
    told.is_at(FIRST)
    told.serves()
    told.ends()
    outage(told, "one killed after the other", HASTE)


def test_keepalived_of_the_active_one_is_killed_and_leaves_the_address_behind(story, outage):
    told = story()
    told.pair.keepers[FIRST].kill()
    told.is_at(FIRST, SECOND)
    told.is_at(SECOND)  # once systemd has started it again
    told.serves()
    told.ends()
    outage(told, "keepalived killed", HASTE)


def test_the_link_of_the_active_one_is_unplugged(story, outage):
    told = story()
    told.pair.network.unplug(FIRST)
    told.is_at(SECOND)
    told.serves()
    told.pair.network.plug(FIRST)
    told.serves()
    told.is_at(SECOND)
    told.ends()
    outage(told, "unplugged, and plugged in again", HASTE)


def test_the_active_one_vanishes_in_a_black_hole_and_comes_back(story, outage):
    told = story()
    told.pair.network.blackhole(FIRST)
    told.is_at(FIRST, SECOND)  # nobody has told it
    told.serves()
    told.pair.network.mend(FIRST)
    told.is_at(SECOND)  # of two that have it the one that sees servers keeps it
    told.serves()
    told.ends()
    outage(told, "black hole, and back", HASTE)


def test_who_hangs_up_while_nobody_has_the_address_is_heard_and_billed_all_the_same(story, outage):
    told = story()
    told.pair.network.blackhole(FIRST)
    told.hangs_up()
    told.is_at(FIRST, SECOND)
    told.serves()
    outage(told, "black hole, and a BYE into it", HASTE)


def test_both_have_the_address_and_then_hear_of_one_another(story, outage):
    told = story()
    for host in (FIRST, SECOND):
        deafen(host)
    told.is_at(FIRST, SECOND)
    told.serves()
    for host in (FIRST, SECOND):
        hear(host)
    told.is_at(FIRST)
    told.serves()
    told.ends()
    outage(told, "split brain, and healed", HASTE)


def test_a_polite_stop(story, outage):
    told = story()
    told.pair.forwarders[FIRST].stop()
    told.is_at(SECOND)
    told.serves()
    told.ends()
    outage(told, "polite stop", 0.1)


def test_a_forwarder_that_hangs_is_found_out_by_asking_it(story, outage):
    told = story()
    told.pair.forwarders[FIRST].freeze()
    told.is_at(SECOND)
    told.serves()
    told.pair.forwarders[FIRST].thaw()
    told.serves()
    told.is_at(SECOND)
    told.ends()
    outage(told, "forwarder frozen, with no watchdog to end it", 4.0)
