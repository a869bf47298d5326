"""Guessing slowed: after ten wrong passwords for one user's name from one address, each further one
costs a wait.

Pure. The wait doubles from a second to about a minute and is over an hour after the last failure; a
right password forgets all failures. It is counted per name and address, so that nobody can lock a
user out from elsewhere (behind one NAT they share their fate), and for names that do not exist just
as for others.

The counts are in the store: the next server goes on counting. They are hashed into a fixed number
of rows of a fixed length, so a flood of names and addresses cannot fill it. Whoever wants to be
forgotten sooner has to push his count out of its row, which takes some `SLOTS * MOST` failures
under other names for ten more guesses. A guess that is not looked at writes nothing, nor does a
retransmitted one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar
from zlib import crc32

from sip.branch import keyed_hash
from slee_mock.store.interface import Transaction
from slee_mock.store.records import Record

FREE = 10  # failures without a wait
LONGEST_DOUBLING = 6  # 64 seconds
MEMORY = 3600.0  # seconds since the last failure
SLOTS = 1024
MOST = 16  # guessers remembered in each


@dataclass(frozen=True)
class FailedLogin:
    """Somebody at one address who gave wrong passwords for one user's name. Hashes, for the store
    is no list of typing errors."""

    who: str  # of name and address
    failures: int = 0
    last: float = 0.0  # when
    response: str = ""  # of the last wrong one: a retransmission is no guess


@dataclass(frozen=True)
class FailedLoginSlot(Record):
    """The guessers whose hashes fall into this slot, the latest first."""

    KIND: ClassVar[str] = "guesses"
    slot: str
    guessers: tuple[FailedLogin, ...] = ()


@dataclass(frozen=True)
class FailedLogins:
    """What is known of one guesser, and of those in the same row."""

    key: bytes
    guesser: FailedLogin
    others: tuple[FailedLogin, ...]
    slot: str

    @staticmethod
    def read(transaction: Transaction, key: bytes, user: str, address: str) -> FailedLogins:
        who = keyed_hash(key, "guesser", user, address)
        slot = str(crc32(who.encode()) % SLOTS)
        row = transaction.read(FailedLoginSlot, slot) or FailedLoginSlot(slot)
        mine = next((each for each in row.guessers if each.who == who), FailedLogin(who))
        return FailedLogins(
            key, mine, tuple(each for each in row.guessers if each is not mine), slot
        )

    def was_told(self, response: str) -> bool:
        """Is this the last wrong one again? Then the network repeats it, or a server that takes
        over."""
        return self.guesser.failures > 0 and self._hashed(response) == self.guesser.response

    def wait(self, wall: float) -> float:
        """Seconds until the next password will be looked at. A clock that was set is no reason to
        wait longer."""
        over = self._failures(wall) - FREE
        return (
            2.0 ** min(over, LONGEST_DOUBLING) - abs(wall - self.guesser.last) if over >= 0 else 0.0
        )

    def failed(self, response: str, wall: float) -> FailedLoginSlot:
        """The row to save."""
        mine = replace(
            self.guesser,
            failures=self._failures(wall) + 1,
            last=wall,
            response=self._hashed(response),
        )
        others = [each for each in self.others if abs(wall - each.last) <= MEMORY]
        return FailedLoginSlot(self.slot, (mine, *others)[:MOST])

    def forgotten(self) -> tuple[FailedLoginSlot, ...]:
        """The row to save, if there was anything to forget."""
        return (FailedLoginSlot(self.slot, self.others),) if self.guesser.failures else ()

    def _failures(self, wall: float) -> int:
        return self.guesser.failures if abs(wall - self.guesser.last) <= MEMORY else 0

    def _hashed(self, response: str) -> str:
        return keyed_hash(self.key, "response", response)
