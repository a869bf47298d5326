"""The cluster's time: a computer's steady clock plus an offset that all its servers share, whatever
is done to the time of day meanwhile. So a clock that is set, or jumps, makes no bill longer or
shorter.

Pure. The offset is a record, one per start of the computer; a server that returns from a crash goes
by it again.
"""

from __future__ import annotations

from collections.abc import Sequence

from slee_mock.store.records import PRESUMED_DEAD, ClockOffset, Member

# seconds without a sign of any member, after which the time of day is believed again
UNUSED = 600.0
BACKWARDS = 10.0  # a sign so far ahead is from before the computer was started anew


def anchored(
    known: ClockOffset | None, members: Sequence[Member], boot: str, steady: float, system: float
) -> ClockOffset:
    """What a server that starts goes by. `system` is the time of day, `steady` counts since the
    computer's start. The time of day is believed where the cluster is new, was stopped on purpose,
    or has been dead for long."""
    signs = [member.last_seen for member in members if not member.stopped]
    if known and signs and -BACKWARDS <= known.offset + steady - max(signs) <= UNUSED:
        return known
    return ClockOffset(boot, system - steady)


def told_by_others(before: Sequence[Member], after: Sequence[Member], wall: float) -> float | None:
    """The time that living members go by, if `wall` is so far from it that we would take each other
    for dead. Alive is who has given a sign between `before` and `after`, whatever time it told."""
    signs = {member.name: member.last_seen for member in before}
    told = [
        member.last_seen
        for member in after
        if member.last_seen > signs.get(member.name, member.last_seen)
    ]
    return max(told) if told and abs(max(told) - wall) > PRESUMED_DEAD else None
