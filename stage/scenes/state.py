"""What the observations add up to, for the checks of `use_case.py`:
who plays, and the state so far. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import singledispatch

from stage.observation.observations import (
    AddressAnswered,
    Audio,
    Bill,
    CallStateChanged,
    ForwarderActivated,
    MembersSeen,
    MessageForwarded,
    ProbeAnswer,
    ProcessExited,
    ProcessKilled,
    Registration,
    ServerFailover,
    ServersUp,
)

CLOCK_SLACK = 0.02  # s, between two processes' notes of one message


@dataclass(frozen=True)
class Roles:
    """Who plays: the caller, the callee, the server that crashes and the one that takes over; with
    two `forwarders` the one that has the address at first and its standby."""

    caller: str = "Alice"
    callee: str = "Bob"
    first: str = "server1"
    second: str = "server2"
    forwarders: tuple[str, ...] = ()


@dataclass
class DemoState:
    """What the observations add up to. The upper half outlives a call, the lower belongs to the
    present one."""

    cast: Roles = field(default_factory=Roles)
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
    calls: dict[str, CallStateChanged] = field(default_factory=dict)
    answered_through: str | None = None
    hung_up_by: str | None = None
    killed: ProcessKilled | None = None
    died: bool = False
    taken_over: ServerFailover | None = None
    served_at: float | None = None  # first message of this call that came through the second server
    probed_through_second_at: float | None = None
    probes: list[ProbeAnswer] = field(default_factory=list)
    forwarder_killed: ProcessKilled | None = None  # the active one, of two
    successor: str | None = None  # the forwarder that had the address next
    knocked: AddressAnswered | None = None
    passed_successor: bool = False  # a message of this call did
    audio: dict[str, Audio] = field(default_factory=dict)
    audio_at_kill: dict[str, Audio] = field(default_factory=dict)
    bill: Bill | None = None

    def next_call(self) -> DemoState:
        """The state that holds at the start of another call."""
        return DemoState(
            self.cast, self.up, self.hot, self.active, self.members, self.registered, self.registrar
        )

    def call_state(self, phone: str) -> str:
        return self.calls[phone].state if phone in self.calls else ""

    def both(self, *states: str) -> bool:
        return (
            self.call_state(self.cast.caller) in states
            and self.call_state(self.cast.callee) in states
        )

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
        if killed is None or knocked is None or self.successor in (None, killed.program):
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
def apply(seen: object, state: DemoState) -> None:
    """Write an observation into the state; what is no observation of ours changes nothing."""


@apply.register
def _(seen: ServersUp, state: DemoState) -> None:
    state.up, state.hot = seen.up, seen.hot


@apply.register
def _(seen: MembersSeen, state: DemoState) -> None:
    state.members = seen.members


@apply.register
def _(seen: Registration, state: DemoState) -> None:
    state.registered[seen.phone] = seen.registered


@apply.register
def _(seen: MessageForwarded, state: DemoState) -> None:
    cast = state.cast
    if seen.method == "REGISTER":
        if seen.status is not None and 200 <= seen.status < 300:
            state.registrar[seen.target] = seen.source
        return
    if not state.call_id or seen.call_id != state.call_id:
        return
    if state.forwarder_killed and seen.at >= state.forwarder_killed.at:
        state.passed_successor = (
            state.passed_successor or seen.through != state.forwarder_killed.program
        )
    if (
        seen.method == "INVITE"
        and seen.status == 200
        and state.answered_through is None
        and seen.target == cast.caller
    ):
        state.answered_through = seen.source
    if seen.method == "BYE" and seen.status is None and seen.source in (cast.caller, cast.callee):
        state.hung_up_by = state.hung_up_by or seen.source
    if state.killed and seen.source == cast.second and seen.at >= state.killed.at:
        state.served_at = state.served_at or seen.at
        if seen.method == "OPTIONS" and seen.status == 200 and seen.target == cast.caller:
            state.probed_through_second_at = state.probed_through_second_at or seen.at


@apply.register
def _(seen: CallStateChanged, state: DemoState) -> None:
    state.call_id = state.call_id or seen.call_id
    if seen.call_id != state.call_id:
        return  # a call that was turned away while this one goes on
    state.calls[seen.phone] = seen
    if seen.state == "calling" and state.placed_by is None:
        state.placed_by, state.placed_at = seen.phone, seen.at
    if seen.state == "incoming" and state.rang_at is None:
        state.rang_at = seen.at


@apply.register
def _(seen: ProcessKilled, state: DemoState) -> None:
    if seen.program == state.active:
        state.active = None
        if state.forwarder_killed is None and not state.both("ended"):
            state.forwarder_killed = seen
    if seen.program == state.cast.first and state.killed is None and not state.both("ended"):
        state.killed = seen
        state.audio_at_kill = dict(state.audio)


@apply.register
def _(seen: ProcessExited, state: DemoState) -> None:
    if state.killed and seen.program == state.killed.program and seen.status < 0:
        state.died = True


@apply.register
def _(seen: ServerFailover, state: DemoState) -> None:
    if state.killed and seen.target == state.cast.second and state.taken_over is None:
        state.taken_over = seen


@apply.register
def _(seen: ProbeAnswer, state: DemoState) -> None:
    if state.killed and len(state.probes) < 100:
        state.probes.append(seen)


@apply.register
def _(seen: ForwarderActivated, state: DemoState) -> None:
    state.active = seen.forwarder
    if state.forwarder_killed:
        state.successor = state.successor or seen.forwarder


@apply.register
def _(seen: AddressAnswered, state: DemoState) -> None:
    if state.forwarder_killed and state.knocked is None and seen.began >= state.forwarder_killed.at:
        state.knocked = seen


@apply.register
def _(seen: Audio, state: DemoState) -> None:
    state.audio[seen.phone] = seen


@apply.register
def _(seen: Bill, state: DemoState) -> None:
    if state.call_id and seen.call_id == state.call_id:
        state.bill = seen
