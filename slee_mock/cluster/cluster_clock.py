"""The clock of a server: cluster time for everything that is kept (clock_offset.py says what that
is)."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import replace

from slee_mock.cluster.clock_offset import anchored, told_by_others
from slee_mock.store.interface import Conflict, Store, Transaction
from slee_mock.store.records import SIGN_OF_LIFE, ClockOffset, Member

LISTENED = 2.5 * SIGN_OF_LIFE  # seconds in which a living member gives a sign
NOTICEABLE = 1.0  # seconds


def steady_clock() -> float:
    """Seconds since the computer's start, the same for all its processes; where the system can
    tell, asleep or not."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


def boot_id() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:  # not Linux: anchored() sees by the signs that the computer was started anew
        return platform.node() or "this computer"


class Clock:
    """`now()` is the time of day until `join`, cluster time from then on."""

    def __init__(
        self,
        system: Callable[[], float] = time.time,
        steady: Callable[[], float] = steady_clock,
        boot: str = "",
        wait: Callable[[float], object] = time.sleep,
    ) -> None:
        self._system, self._steady, self._wait = system, steady, wait
        self._anchor = ClockOffset(boot or boot_id(), system() - steady())
        self._said = 0.0

    def now(self) -> float:
        return self._steady() + self._anchor.offset

    @property
    def offset(self) -> float:
        """Seconds by which cluster time is ahead of this computer's time of day."""
        return self.now() - self._system()

    def join(self, store: Store) -> None:
        """Agrees with the servers of this computer, or else with those of others. May raise
        StoreDown."""
        while True:
            transaction = Transaction(store)
            known = transaction.read_if_intact(ClockOffset, self._anchor.boot)
            members = transaction.scan(Member)
            self._anchor = anchored(
                known, members, self._anchor.boot, self._steady(), self._system()
            )
            if self._anchor == known:
                return
            self._listen(store, [member for member in members if not member.stopped])
            try:
                transaction.commit([self._anchor])
                return
            except Conflict:
                continue  # another server of this computer was faster

    def _listen(self, store: Store, before: list[Member]) -> None:
        """Only who finds members that it cannot tell from dead ones has to wait for their signs."""
        if not before or any(member.alive(self.now()) for member in before):
            return
        self._wait(LISTENED)
        told = told_by_others(before, Transaction(store).scan(Member), self.now())
        if told is not None:
            self._anchor = replace(self._anchor, offset=told - self._steady())

    def jumped(self) -> str:
        """A sentence if the time of day has moved away from cluster time since the last one, else
        nothing."""
        offset = self.offset
        if abs(offset - self._said) < NOTICEABLE:
            return ""
        self._said = offset
        where = f"{abs(offset):.1f} s {'ahead of' if offset > 0 else 'behind'}"
        return (
            f"cluster time is {where} this computer's clock; calls are billed by cluster time, "
            "which does not jump"
        )
