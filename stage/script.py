"""The use case of the document as nine steps, and what must be observed for each. Pure: observations in, rows out.

`STEPS` is the table; each step's judge reads the `Facts` and answers with words for the row and whether they fulfil it.
A step once fulfilled stays so until the next call begins.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import singledispatch
from typing import NamedTuple

from stage.seen import (
    Audio,
    Bill,
    CallSeen,
    Ended,
    Killed,
    MembersSeen,
    Passed,
    ProbeAnswer,
    Registration,
    ServersUp,
    TakenOver,
)

HEARD_GAP_MS = 400.0  # a pause of the audio that a listener would call an interruption
AUDIO_PACKETS = 40  # 0.8 s of audio at 20 ms a packet, to say that audio goes on
ACTIVE = ("calling", "ringing", "incoming", "talking")  # a phone in one of these states is in use
CLOCK_SLACK = 0.02  # s, between two processes' notes of one message


@dataclass(frozen=True)
class Cast:
    """Who plays: the caller, the callee, the server that crashes and the one that takes over."""

    caller: str = "Alice"
    callee: str = "Bob"
    first: str = "server1"
    second: str = "server2"


@dataclass
class Facts:
    """What the observations add up to. The upper half outlives a call, the lower belongs to the present one."""

    cast: Cast = field(default_factory=Cast)
    up: frozenset[str] = frozenset()
    hot: str | None = None
    members: frozenset[str] = frozenset()
    registered: dict[str, bool] = field(default_factory=dict)
    registrar: dict[str, str] = field(default_factory=dict)  # phone -> the server its last 200 to REGISTER came from

    placed_by: str | None = None
    placed_at: float = 0.0
    rang_at: float | None = None
    call_id: str | None = None
    calls: dict[str, CallSeen] = field(default_factory=dict)
    answered_through: str | None = None
    hung_up_by: str | None = None
    killed: Killed | None = None
    died: bool = False
    taken_over: TakenOver | None = None
    served_at: float | None = None  # first message of this call that came through the second server
    probed_through_second_at: float | None = None
    probes: list[ProbeAnswer] = field(default_factory=list)
    audio: dict[str, Audio] = field(default_factory=dict)
    audio_at_kill: dict[str, Audio] = field(default_factory=dict)
    bill: Bill | None = None

    def next_call(self) -> Facts:
        """The facts that hold at the start of another call."""
        return Facts(self.cast, self.up, self.hot, self.members, self.registered, self.registrar)

    def state(self, phone: str) -> str:
        return self.calls[phone].state if phone in self.calls else ""

    def both(self, *states: str) -> bool:
        return self.state(self.cast.caller) in states and self.state(self.cast.callee) in states

    @property
    def takeover_ms(self) -> float | None:
        """From just before the SIGKILL to the caller's answer, through the second server, to its in-dialog OPTIONS."""
        if self.killed is None or self.probed_through_second_at is None:
            return None
        earliest = self.probed_through_second_at - CLOCK_SLACK
        for probe in self.probes:
            if probe.status == 200 and probe.at >= max(earliest, self.killed.at):
                return (probe.at - self.killed.at) * 1000
        return None

    @property
    def talk_seconds(self) -> float | None:
        """On the wall: from the answer to the end, as the caller's phone saw both."""
        call = self.calls.get(self.cast.caller)
        if call is None or call.answered_at is None or call.ended_at is None:
            return None
        return call.ended_at - call.answered_at

    @property
    def longest_gap_ms(self) -> float | None:
        return max((audio.longest_gap_ms for audio in self.audio.values()), default=None)

    @property
    def lost(self) -> int | None:
        return sum(audio.lost for audio in self.audio.values()) if self.audio else None


class Verdict(NamedTuple):
    """A judge's answer: fulfilled or not, and the words beside the step."""

    observed: bool
    words: str = ""


NOT_YET = Verdict(False)


def two_servers(facts: Facts) -> Verdict:
    servers = {facts.cast.first, facts.cast.second}
    if servers <= facts.up and servers <= facts.members:
        return Verdict(True, f"{facts.hot} is hot")
    missing = sorted(servers - facts.up)
    return Verdict(False, f"{' and '.join(missing)} down" if missing and (facts.up or facts.members) else "")


def registered(facts: Facts) -> Verdict:
    phones = (facts.cast.caller, facts.cast.callee)
    if not all(facts.registered.get(phone) for phone in phones):
        return NOT_YET
    elsewhere = [f"{phone} through {facts.registrar[phone]}" for phone in phones
                 if facts.registrar.get(phone, facts.cast.first) != facts.cast.first]
    if elsewhere:
        return Verdict(False, ", ".join(elsewhere))
    return Verdict(all(phone in facts.registrar for phone in phones), f"through {facts.cast.first}")


def called(facts: Facts) -> Verdict:
    if facts.placed_by is None:
        return NOT_YET
    if facts.placed_by != facts.cast.caller:
        return Verdict(False, f"{facts.placed_by} called, not {facts.cast.caller}")
    if facts.rang_at is None:
        return NOT_YET
    return Verdict(True, f"{facts.cast.callee} rings after {milliseconds((facts.rang_at - facts.placed_at) * 1000)}")


def answered(facts: Facts) -> Verdict:
    if facts.placed_by != facts.cast.caller or not facts.both("talking"):
        return NOT_YET
    return Verdict(True, f"through {facts.answered_through}" if facts.answered_through else "")


def crashed(facts: Facts) -> Verdict:
    if facts.killed is None or not facts.died:
        return NOT_YET
    return Verdict(True, f"SIGKILL to process {facts.killed.pid}")


def taken_over(facts: Facts) -> Verdict:
    if facts.killed is None or facts.taken_over is None:
        return NOT_YET
    if facts.takeover_ms is not None:  # in the dialog, hence the call lives at both ends
        return Verdict(True, milliseconds(facts.takeover_ms))
    if facts.served_at is not None and not facts.both("talking"):  # killed before the answer: nothing to probe yet
        return Verdict(True, milliseconds((facts.served_at - facts.killed.at) * 1000))
    moved = milliseconds((facts.taken_over.at - facts.killed.at) * 1000)
    return Verdict(False, f"{facts.taken_over.target} hot after {moved}")


def uninterrupted(facts: Facts) -> Verdict:
    if facts.killed is None or facts.taken_over is None or not facts.both("talking"):
        return NOT_YET
    silence = Audio(0.0, "", 0, 0.0, 0)
    fresh = [audio.packets - facts.audio_at_kill.get(phone, silence).packets for phone, audio in facts.audio.items()]
    gap, lost = facts.longest_gap_ms, facts.lost
    if len(fresh) < 2 or gap is None or lost is None:
        return NOT_YET
    words = f"gap {milliseconds(gap)}, {lost or 'none'} lost"
    return Verdict(min(fresh) >= AUDIO_PACKETS and gap <= HEARD_GAP_MS, words)


def hung_up(facts: Facts) -> Verdict:
    if facts.hung_up_by is None or not facts.both("ended"):
        return NOT_YET
    if facts.hung_up_by != facts.cast.caller:
        return Verdict(False, f"{facts.hung_up_by} hung up")
    talk = facts.talk_seconds
    return Verdict(True, f"after {talk:.1f} s" if talk is not None else "")


def billed(facts: Facts) -> Verdict:
    bill = facts.bill
    if bill is None or not bill.final or bill.server != facts.cast.second:
        return NOT_YET
    return Verdict(True, f"{bill.total} {bill.currency}")


@dataclass(frozen=True)
class Step:
    number: int
    text: str
    judge: Callable[[Facts], Verdict]


STEPS = (
    Step(1, "Two servers run and share one cluster.", two_servers),
    Step(2, "Both phones register with server1.", registered),
    Step(3, "Alice calls Bob.", called),
    Step(4, "Bob answers.", answered),
    Step(5, "Server1 crashes.", crashed),
    Step(6, "Server2 takes over, unnoticed by both phones.", taken_over),
    Step(7, "The call continues uninterrupted.", uninterrupted),
    Step(8, "Alice hangs up.", hung_up),
    Step(9, "Server2's management page shows the total bill.", billed),
)


@dataclass(frozen=True)
class Row:
    """One step as shown: `words` is what was measured, or why it is not (yet) fulfilled."""

    number: int
    text: str
    observed: bool = False
    words: str = ""


class Script:
    """Keeps the facts and the rows. One thread."""

    def __init__(self, cast: Cast | None = None) -> None:
        self.facts = Facts(cast or Cast())
        self.rows = [Row(step.number, step.text) for step in STEPS]

    @property
    def complete(self) -> bool:
        return all(row.observed for row in self.rows)

    def observe(self, seen: object) -> list[Row]:
        """Take one observation in; returns the steps it fulfilled, in order."""
        if isinstance(seen, CallSeen) and self._begins(seen):
            self.facts = self.facts.next_call()
            self.rows = [Row(step.number, step.text) for step in STEPS]
            self._judge()  # what still holds is not told again
        note(seen, self.facts)
        return self._judge()

    def _begins(self, seen: CallSeen) -> bool:
        """A call not seen before, at a phone that is free. Either phone may be the first to tell of it."""
        if seen.state not in ("calling", "incoming") or seen.call_id == self.facts.call_id:
            return False
        busy = [phone for phone in self.facts.calls if self.facts.state(phone) in ACTIVE]
        return seen.phone not in busy if seen.state == "calling" else not busy

    def _judge(self) -> list[Row]:
        fulfilled = []
        for index, step in enumerate(STEPS):
            row, (observed, words) = self.rows[index], step.judge(self.facts)
            if observed or not row.observed:
                self.rows[index] = replace(row, observed=observed, words=words)
            if observed and not row.observed:
                fulfilled.append(self.rows[index])
        return fulfilled


@singledispatch
def note(seen: object, facts: Facts) -> None:
    """Write an observation into the facts; what is no observation of ours changes nothing."""


@note.register
def _(seen: ServersUp, facts: Facts) -> None:
    facts.up, facts.hot = seen.up, seen.hot


@note.register
def _(seen: MembersSeen, facts: Facts) -> None:
    facts.members = seen.members


@note.register
def _(seen: Registration, facts: Facts) -> None:
    facts.registered[seen.phone] = seen.registered


@note.register
def _(seen: Passed, facts: Facts) -> None:
    cast = facts.cast
    if seen.method == "REGISTER":
        if seen.status is not None and 200 <= seen.status < 300:
            facts.registrar[seen.target] = seen.source
        return
    if not facts.call_id or seen.call_id != facts.call_id:
        return
    if seen.method == "INVITE" and seen.status == 200 and facts.answered_through is None and seen.target == cast.caller:
        facts.answered_through = seen.source
    if seen.method == "BYE" and seen.status is None and seen.source in (cast.caller, cast.callee):
        facts.hung_up_by = facts.hung_up_by or seen.source
    if facts.killed and seen.source == cast.second and seen.at >= facts.killed.at:
        facts.served_at = facts.served_at or seen.at
        if seen.method == "OPTIONS" and seen.status == 200 and seen.target == cast.caller:
            facts.probed_through_second_at = facts.probed_through_second_at or seen.at


@note.register
def _(seen: CallSeen, facts: Facts) -> None:
    facts.call_id = facts.call_id or seen.call_id
    if seen.call_id != facts.call_id:
        return  # a call that was turned away while this one goes on
    facts.calls[seen.phone] = seen
    if seen.state == "calling" and facts.placed_by is None:
        facts.placed_by, facts.placed_at = seen.phone, seen.at
    if seen.state == "incoming" and facts.rang_at is None:
        facts.rang_at = seen.at


@note.register
def _(seen: Killed, facts: Facts) -> None:
    if seen.server == facts.cast.first and facts.killed is None and not facts.both("ended"):
        facts.killed = seen
        facts.audio_at_kill = dict(facts.audio)


@note.register
def _(seen: Ended, facts: Facts) -> None:
    if facts.killed and seen.server == facts.killed.server and seen.status < 0:
        facts.died = True


@note.register
def _(seen: TakenOver, facts: Facts) -> None:
    if facts.killed and seen.target == facts.cast.second and facts.taken_over is None:
        facts.taken_over = seen


@note.register
def _(seen: ProbeAnswer, facts: Facts) -> None:
    if facts.killed and len(facts.probes) < 100:
        facts.probes.append(seen)


@note.register
def _(seen: Audio, facts: Facts) -> None:
    facts.audio[seen.phone] = seen


@note.register
def _(seen: Bill, facts: Facts) -> None:
    if facts.call_id and seen.call_id == facts.call_id:
        facts.bill = seen


def milliseconds(value: float) -> str:
    """1.9 ms, 21 ms, 1.2 s: as precise as it matters."""
    if value < 10:
        return f"{value:.1f} ms"
    return f"{value:.0f} ms" if value < 1000 else f"{value / 1000:.1f} s"
