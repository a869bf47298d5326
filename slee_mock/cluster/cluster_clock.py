"""Cluster time: the clock of everything that is kept in the store.

It is a computer's steady clock plus an offset, which all servers of that computer share in the
store. So it goes on evenly when somebody sets the time of day, and no bill gets longer or shorter.
The offset is one record per boot: a server that is restarted after a crash finds it again.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from slee_mock.store.interface import Conflict, Store, Transaction
from slee_mock.store.records import PRESUMED_DEAD, SIGN_OF_LIFE, ClockOffset, Member

LISTEN_SECONDS = 2.5 * SIGN_OF_LIFE  # in which each running server gives a sign of life
NOTICEABLE_SECONDS = 1.0  # a jump of the time of day that is logged
UNUSED_SECONDS = 600.0  # without a sign of any server; then the time of day is believed again
RESTARTED_SECONDS = 10.0  # a sign so far in the future is from before the computer was restarted


def choose_offset(
    known: ClockOffset | None, members: Sequence[Member], boot: str, steady: float, system: float
) -> ClockOffset:
    """Chooses the offset for a server that starts. `system` is the time of day, `steady` the
    seconds since the computer's start. The known offset is taken unless the cluster is new, was
    stopped on purpose, or has been dead for long: then the time of day is."""
    signs = [member.last_seen for member in members if not member.stopped]
    if known and signs:
        silent = known.offset + steady - max(signs)
        if -RESTARTED_SECONDS <= silent <= UNUSED_SECONDS:
            return known
    return ClockOffset(boot, system - steady)


def running_servers_time(
    before: Sequence[Member], after: Sequence[Member], now: float
) -> float | None:
    """Finds the running servers' time, if ours is more than PRESUMED_DEAD off; else None. A server
    runs if its last_seen grew between the two reads, whatever time that is."""
    signs = {member.name: member.last_seen for member in before}
    fresh = [
        member.last_seen
        for member in after
        if member.last_seen > signs.get(member.name, member.last_seen)
    ]
    return max(fresh) if fresh and abs(max(fresh) - now) > PRESUMED_DEAD else None


def steady_clock() -> float:
    """Seconds since the computer's start, the same for all its processes. Counts on while the
    computer sleeps, where the system has such a clock."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


def boot_id() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:  # not Linux: choose_offset() sees a restart by the signs of life
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
        self._offset = ClockOffset(boot or boot_id(), system() - steady())
        self._reported = 0.0

    def now(self) -> float:
        return self._steady() + self._offset.offset

    @property
    def offset(self) -> float:
        """Seconds by which cluster time is ahead of this computer's time of day."""
        return self.now() - self._system()

    def join(self, store: Store) -> None:
        """Takes the offset of this computer's servers, or else the time of other computers' ones.
        May raise StoreDown."""
        while True:
            transaction = Transaction(store)
            known = transaction.read_if_intact(ClockOffset, self._offset.boot)
            members = transaction.scan(Member)
            self._offset = choose_offset(
                known, members, self._offset.boot, self._steady(), self._system()
            )
            if self._offset == known:
                return
            self._listen(store, [member for member in members if not member.stopped])
            try:
                transaction.commit([self._offset])
                return
            except Conflict:
                continue  # another server of this computer was faster

    def _listen(self, store: Store, before: list[Member]) -> None:
        """Waits for signs of life if all servers look dead by our clock, which may be the wrong
        one."""
        if not before or any(member.alive(self.now()) for member in before):
            return
        self._wait(LISTEN_SECONDS)
        running = running_servers_time(before, Transaction(store).scan(Member), self.now())
        if running is not None:
            self._offset = replace(self._offset, offset=running - self._steady())

    def jumped(self) -> str:
        """Returns a sentence if the time of day has moved against cluster time since the last one,
        else ""."""
        offset = self.offset
        if abs(offset - self._reported) < NOTICEABLE_SECONDS:
            return ""
        self._reported = offset
        where = f"{abs(offset):.1f} s {'ahead of' if offset > 0 else 'behind'}"
        return (
            f"cluster time is {where} this computer's clock; calls are billed by cluster time, "
            "which does not jump"
        )
