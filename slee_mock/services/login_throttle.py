"""Failed logins are counted; after ten for one user name from one address each further one costs
a wait.

- The wait doubles from 1 s to 64 s, and ends an hour after the last failure. A right password
  clears the count.
- It is counted per name and address, so nobody can lock a user out from another address (phones
  behind one NAT share a count), and for unknown names as for known ones.
- The counts are in the store, so the next server goes on counting. They are hashed into a fixed
  number of rows of a fixed length: a flood of names cannot fill the store. To push a count out of
  its row takes some `SLOTS * MOST_PER_SLOT` failures, for ten more guesses.
- A guess that is not looked at writes nothing, nor does a retransmitted one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar
from zlib import crc32

from sip.branch import keyed_hash
from slee_mock.store.interface import Transaction
from slee_mock.store.records import Record

FREE_FAILURES = 10  # failures without a wait
MOST_DOUBLINGS = 6  # 64 seconds
MEMORY_SECONDS = 3600.0  # seconds since the last failure
SLOTS = 1024
MOST_PER_SLOT = 16  # guessers remembered in each


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
    """The failed logins of one guesser, and of others in the same row."""

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

    def is_repeated(self, response: str) -> bool:
        """Is this the last wrong response again? Then the network repeats it, or a server that
        takes over."""
        return self.guesser.failures > 0 and self._hashed(response) == self.guesser.response

    def wait(self, now: float) -> float:
        """Computes the seconds until the next password is checked. A clock that was set is no
        reason to wait longer."""
        over = self._failures(now) - FREE_FAILURES
        return 2.0 ** min(over, MOST_DOUBLINGS) - abs(now - self.guesser.last) if over >= 0 else 0.0

    def failed(self, response: str, now: float) -> FailedLoginSlot:
        """Counts a failure. Returns the row to save."""
        mine = replace(
            self.guesser,
            failures=self._failures(now) + 1,
            last=now,
            response=self._hashed(response),
        )
        others = [each for each in self.others if abs(now - each.last) <= MEMORY_SECONDS]
        return FailedLoginSlot(self.slot, (mine, *others)[:MOST_PER_SLOT])

    def cleared(self) -> tuple[FailedLoginSlot, ...]:
        """Forgets the failures. Returns the row to save, if there were any."""
        return (FailedLoginSlot(self.slot, self.others),) if self.guesser.failures else ()

    def _failures(self, now: float) -> int:
        return self.guesser.failures if abs(now - self.guesser.last) <= MEMORY_SECONDS else 0

    def _hashed(self, response: str) -> str:
        return keyed_hash(self.key, "response", response)
