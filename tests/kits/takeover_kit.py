"""A call through two forwarders on two hosts, whose address keepalived moves."""

from __future__ import annotations

import time

from hosts_kit import HOSTS, SHARED, entered, has_address
from phone_kit import Owner

from slee_mock.services.bill_record import Bill
from slee_mock.store.interface import Transaction
from slee_mock.store.sqlite_store import SqliteStore
from softphone.ua.events import CallState, ProbeAnswered

FIRST, SECOND = "forwarder1", "forwarder2"
HASTE = 0.4  # seconds that an outage may take
SLACK = 0.15  # seconds for a computer with other things to do
BOTH_CLOCKS = 0.02  # seconds between two readings of what a bill is made from


def phones_started(stack):
    """Alice's and Bob's, on the phones' host; the stack ends them."""
    with entered("phones"):
        phones = [
            Owner(user, SHARED, register=True, listen=(HOSTS["phones"], 0))
            for user in ("alice", "bob")
        ]
    for phone in phones:
        stack.callback(phone.stop)
    return phones


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
        self._eventually(lambda: self._alice.registered and self._bob.registered)
        self.calls()
        self.serves()

    def calls(self):
        self._alice.phone.call("bob")
        self._eventually(lambda: self._bob.state is CallState.INCOMING)
        self._picked_up = time.monotonic()
        self._bob.phone.answer()
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
            phone.phone.probe()
            probed = self._eventually(lambda phone=phone: phone.told(ProbeAnswered))
            assert [probe.status for probe in probed] == [200]
        self.hangs_up()

    def hangs_up(self):
        hung_up = time.monotonic()
        self._alice.phone.hang_up()
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
        self._eventually(lambda: self._alice.state is state and self._bob.state is state)
