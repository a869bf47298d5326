"""The use case of the document as nine steps, and what must be observed for each. Pure:
observations in, rows out.

`STEPS` is the table; each step's judge reads the `Facts` and answers with words for the row and
whether they fulfil it. A step once fulfilled stays so until the next call begins. With two
forwarders there is one step more, PAIR.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from stage.observation.observations import Audio, CallSeen
from stage.scenes.state import Cast, Facts, note

HEARD_GAP_MS = 400.0  # a pause of the audio that a listener would call an interruption
AUDIO_PACKETS = 40  # 0.8 s of audio at 20 ms a packet, to say that audio goes on
ACTIVE = ("calling", "ringing", "incoming", "talking")  # a phone in one of these states is in use


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
    return Verdict(
        False, f"{' and '.join(missing)} down" if missing and (facts.up or facts.members) else ""
    )


def registered(facts: Facts) -> Verdict:
    phones = (facts.cast.caller, facts.cast.callee)
    if not all(facts.registered.get(phone) for phone in phones):
        return NOT_YET
    elsewhere = [
        f"{phone} through {facts.registrar[phone]}"
        for phone in phones
        if facts.registrar.get(phone, facts.cast.first) != facts.cast.first
    ]
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
    return Verdict(
        True,
        f"{facts.cast.callee} rings after {milliseconds((facts.rang_at - facts.placed_at) * 1000)}",
    )


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
    # killed before the answer: nothing to probe yet
    if facts.served_at is not None and not facts.both("talking"):
        return Verdict(True, milliseconds((facts.served_at - facts.killed.at) * 1000))
    moved = milliseconds((facts.taken_over.at - facts.killed.at) * 1000)
    return Verdict(False, f"{facts.taken_over.target} hot after {moved}")


def uninterrupted(facts: Facts) -> Verdict:
    if facts.killed is None or facts.taken_over is None or not facts.both("talking"):
        return NOT_YET
    silence = Audio(0.0, "", 0, 0.0, 0)
    fresh = [
        audio.packets - facts.audio_at_kill.get(phone, silence).packets
        for phone, audio in facts.audio.items()
    ]
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


def address_taken(facts: Facts) -> Verdict:
    killed = facts.forwarder_killed
    if killed is None:
        return NOT_YET
    if facts.heir in (None, killed.program):
        return Verdict(
            False,
            f"{killed.program} dead" if facts.heir is None else f"no standby for {killed.program}",
        )
    if facts.forwarder_takeover_ms is None or not facts.passed_heir:
        return Verdict(False, f"{facts.heir} is active")
    after = milliseconds(facts.forwarder_takeover_ms)
    if killed.program != facts.cast.forwarders[0]:
        return Verdict(False, f"{facts.heir} took over after {after}")
    return Verdict(True, after)


Number = int | str  # of a step: the document's nine are counted


@dataclass(frozen=True)
class Step:
    number: Number
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

PAIR = Step("7a", "Forwarder1 crashes, forwarder2 takes over the address.", address_taken)


def steps_of(cast: Cast) -> tuple[Step, ...]:
    """In the order in which they are played; the document's keep their numbers."""
    return (*STEPS[:7], PAIR, *STEPS[7:]) if cast.forwarders else STEPS


@dataclass(frozen=True)
class Row:
    """One step as shown: `words` is what was measured, or why it is not (yet) fulfilled."""

    number: Number
    text: str
    observed: bool = False
    words: str = ""


class Script:
    """Keeps the facts and the rows. One thread."""

    def __init__(self, cast: Cast | None = None) -> None:
        self.facts = Facts(cast or Cast())
        self.steps = steps_of(self.facts.cast)
        self.rows = [Row(step.number, step.text) for step in self.steps]

    @property
    def complete(self) -> bool:
        return all(row.observed for row in self.rows)

    def observe(self, seen: object) -> list[Row]:
        """Take one observation in; returns the steps it fulfilled, in order."""
        if isinstance(seen, CallSeen) and self._begins(seen):
            self.facts = self.facts.next_call()
            self.rows = [Row(step.number, step.text) for step in self.steps]
            self._judge()  # what still holds is not told again
        note(seen, self.facts)
        return self._judge()

    def _begins(self, seen: CallSeen) -> bool:
        """A call not seen before, at a phone that is free. Either phone may be the first to tell of
        it."""
        if seen.state not in ("calling", "incoming") or seen.call_id == self.facts.call_id:
            return False
        busy = [phone for phone in self.facts.calls if self.facts.state(phone) in ACTIVE]
        return seen.phone not in busy if seen.state == "calling" else not busy

    def _judge(self) -> list[Row]:
        fulfilled = []
        for index, step in enumerate(self.steps):
            row, (observed, words) = self.rows[index], step.judge(self.facts)
            if observed or not row.observed:
                self.rows[index] = replace(row, observed=observed, words=words)
            if observed and not row.observed:
                fulfilled.append(self.rows[index])
        return fulfilled


def milliseconds(value: float) -> str:
    """1.9 ms, 21 ms, 1.2 s: as precise as it matters."""
    if value < 10:
        return f"{value:.1f} ms"
    return f"{value:.0f} ms" if value < 1000 else f"{value / 1000:.1f} s"
