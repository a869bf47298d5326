"""What the observations add up to, for the judges of `script.py`: who plays, and the facts so far.
Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import singledispatch

from stage.observation.observations import (
    AddressTaken,
    Audio,
    Bill,
    CallSeen,
    Ended,
    Killed,
    Knocked,
    MembersSeen,
    Passed,
    ProbeAnswer,
    Registration,
    ServersUp,
    TakenOver,
)

CLOCK_SLACK = 0.02  # s, between two processes' notes of one message


@dataclass(frozen=True)
class Cast:
    """Who plays: the caller, the callee, the server that crashes and the one that takes over; with
    two `forwarders` the one that has the address at first and its standby."""

    caller: str = "Alice"
    callee: str = "Bob"
    first: str = "server1"
    second: str = "server2"
    forwarders: tuple[str, ...] = ()


@dataclass
class Facts:
    """What the observations add up to. The upper half outlives a call, the lower belongs to the
    present one."""

    cast: Cast = field(default_factory=Cast)
    up: frozenset[str] = frozenset()
    hot: str | None = None
    active: str | None = None  # the forwarder that has the address, of two
    members: frozenset[str] = frozenset()
    registered: dict[str, bool] = field(default_factory=dict)
    # phone -> the server its last 200 to REGISTER came from
    registrar: dict[str, str] = field(default_factory=dict)

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
    forwarder_killed: Killed | None = None  # the active one, of two
    heir: str | None = None  # the forwarder that had the address next
    knocked: Knocked | None = None
    passed_heir: bool = False  # a message of this call did
    audio: dict[str, Audio] = field(default_factory=dict)
    audio_at_kill: dict[str, Audio] = field(default_factory=dict)
    bill: Bill | None = None

    def next_call(self) -> Facts:
        """The facts that hold at the start of another call."""
        return Facts(
            self.cast, self.up, self.hot, self.active, self.members, self.registered, self.registrar
        )

    def state(self, phone: str) -> str:
        return self.calls[phone].state if phone in self.calls else ""

    def both(self, *states: str) -> bool:
        return self.state(self.cast.caller) in states and self.state(self.cast.callee) in states

    @property
    def takeover_ms(self) -> float | None:
        """From just before the SIGKILL to the caller's answer, through the second server, to its
        in-dialog OPTIONS."""
        if self.killed is None or self.probed_through_second_at is None:
            return None
        earliest = self.probed_through_second_at - CLOCK_SLACK
        for probe in self.probes:
            if probe.status == 200 and probe.at >= max(earliest, self.killed.at):
                return (probe.at - self.killed.at) * 1000
        return None

    @property
    def forwarder_takeover_ms(self) -> float | None:
        """From just before the SIGKILL of the active forwarder to the first request answered
        through its standby."""
        killed, knocked = self.forwarder_killed, self.knocked
        if killed is None or knocked is None or self.heir in (None, killed.program):
            return None
        return (knocked.at - killed.at) * 1000

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
    if facts.forwarder_killed and seen.at >= facts.forwarder_killed.at:
        facts.passed_heir = facts.passed_heir or seen.through != facts.forwarder_killed.program
    if (
        seen.method == "INVITE"
        and seen.status == 200
        and facts.answered_through is None
        and seen.target == cast.caller
    ):
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
    if seen.program == facts.active:
        facts.active = None
        if facts.forwarder_killed is None and not facts.both("ended"):
            facts.forwarder_killed = seen
    if seen.program == facts.cast.first and facts.killed is None and not facts.both("ended"):
        facts.killed = seen
        facts.audio_at_kill = dict(facts.audio)


@note.register
def _(seen: Ended, facts: Facts) -> None:
    if facts.killed and seen.program == facts.killed.program and seen.status < 0:
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
def _(seen: AddressTaken, facts: Facts) -> None:
    facts.active = seen.forwarder
    if facts.forwarder_killed:
        facts.heir = facts.heir or seen.forwarder


@note.register
def _(seen: Knocked, facts: Facts) -> None:
    if facts.forwarder_killed and facts.knocked is None and seen.began >= facts.forwarder_killed.at:
        facts.knocked = seen


@note.register
def _(seen: Audio, facts: Facts) -> None:
    facts.audio[seen.phone] = seen


@note.register
def _(seen: Bill, facts: Facts) -> None:
    if facts.call_id and seen.call_id == facts.call_id:
        facts.bill = seen
