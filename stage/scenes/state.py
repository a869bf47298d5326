"""The state of the demo, from its observations: who takes part, the present call, and the failovers
in it. Pure.

The upper half of `DemoState` outlives a call, the lower half belongs to the present one. Programs
tell of one moment in any order: the forwarder of a failover before or after the process is known to
be dead, two phones of one call in either order. So `apply` notes, and never assumes an order.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from stage.observation.observations import (
    Audio,
    Bill,
    CallStateChanged,
    ForwarderActivated,
    MembersSeen,
    MessageForwarded,
    ProcessBack,
    ProcessExited,
    ProcessKilled,
    Registration,
    ServerFailover,
    ServersUp,
)

AROUND_CRASH_SECONDS = 2.0  # a pause of the audio later than that is not the crash's


@dataclass(frozen=True)
class Roles:
    """The phones, the two servers in the order of the forwarder's list, and the two forwarders if
    there are two: the one that has the address at first and its standby."""

    caller: str = "Alice"
    callee: str = "Bob"
    first: str = "server1"
    second: str = "server2"
    forwarders: tuple[str, ...] = ()


@dataclass
class ProgramState:
    """The state of one program. `forwarder_state`: the health that the forwarder reports for a
    server (UP, EJECTED ...); for one of two forwarders its role, active or standby."""

    name: str
    port: int
    pid: int | None = None
    alive: bool = False
    starting: bool = True
    crashed: bool = False
    forwarder_state: str = "DOWN"
    frozen: bool = False
    trouble: str = ""  # why it did not start again


@dataclass
class DemoState:
    cast: Roles = field(default_factory=Roles)
    up: frozenset[str] = frozenset()
    hot: str | None = None
    active: str | None = None  # the forwarder that has the address, of two
    members: frozenset[str] = frozenset()
    registered: dict[str, bool] = field(default_factory=dict)
    # phone -> the server its last 200 to REGISTER came from
    registrar: dict[str, str] = field(default_factory=dict)
    down: dict[str, ProcessKilled] = field(default_factory=dict)  # killed or frozen, not yet back

    began_at: float | None = None
    placed_by: str | None = None
    placed_at: float = 0.0
    rang_at: float | None = None
    call_id: str | None = None
    calls: dict[str, CallStateChanged] = field(default_factory=dict)
    answered_through: str | None = None
    hung_up_by: str | None = None
    killed: ProcessKilled | None = None  # the first server that carried this call and was killed
    died: bool = False
    rang_at_kill: bool = False  # not yet answered
    failovers: list[ServerFailover] = field(default_factory=list)
    kills: list[ProcessKilled] = field(default_factory=list)  # of servers, in this call
    served_at: float | None = None  # first message of this call that came through the second server
    answered_through_second: bool = False  # an OPTIONS within the call
    forwarder_killed: ProcessKilled | None = None  # the active one, of two
    successor: str | None = None  # the forwarder that had the address next
    answered_by_successor_at: float | None = None  # the first answer that it passed on
    passed_successor: bool = False  # a message of this call did
    audio: dict[str, Audio] = field(default_factory=dict)
    audio_at_kill: dict[str, Audio] = field(default_factory=dict)
    audio_after_kill: dict[str, Audio] = field(default_factory=dict)  # not later than 2 s
    bill: Bill | None = None
    guests_bill: Bill | None = None  # of a call in which neither of our phones takes part

    def next_call(self) -> DemoState:
        """The state that holds at the start of another call."""
        return DemoState(
            self.cast,
            self.up,
            self.hot,
            self.active,
            self.members,
            self.registered,
            self.registrar,
            self.down,
        )

    # -- the call ----------------------------------------------------------------------------------

    def call_state(self, phone: str) -> str:
        return self.calls[phone].state if phone in self.calls else ""

    def both(self, *states: str) -> bool:
        """So at each of our phones that takes part; the other may be a guest."""
        return bool(self.calls) and all(call.state in states for call in self.calls.values())

    @property
    def talking(self) -> bool:
        """Both of ours, or one of ours with a guest's phone."""
        ours = (self.cast.caller, self.cast.callee)
        guest = any(call.peer not in ("", *ours) for call in self.calls.values())
        return self.both("talking") and (guest or len(self.calls) == len(ours))

    @property
    def over(self) -> bool:
        return self.both("ended")

    @property
    def held(self) -> bool:
        return any(call.held for call in self.calls.values())

    @property
    def caller(self) -> str:
        """The caller; before a call, the one who will call by the document."""
        if self.placed_by or not self.calls:
            return self.placed_by or self.cast.caller
        return next(call.peer for call in self.calls.values()) or "A guest"

    @property
    def callee(self) -> str:
        if self.placed_by is None and self.calls:
            return next(iter(self.calls))
        if self.placed_by and self.call_state(self.placed_by):
            peer = self.calls[self.placed_by].peer
            if peer and peer not in (self.cast.caller, self.cast.callee):
                return peer
        return self.cast.caller if self.placed_by == self.cast.callee else self.cast.callee

    # -- the servers -------------------------------------------------------------------------------

    @property
    def first(self) -> str:
        """The server that dies in this call; before that, the one that carries it."""
        if self.killed:
            return self.killed.program
        return self.carrier or self.cast.first

    @property
    def second(self) -> str:
        """The server that takes over from the first."""
        if self.taken_over:
            return self.taken_over.target
        return self.cast.first if self.first == self.cast.second else self.cast.second

    @property
    def carrier(self) -> str | None:
        """The server to which the next message of the call goes: the one on which it began while
        that lives, else the hot one; of servers killed here nobody needs to tell."""
        began = None if self.over else self.answered_through
        successor = self.failovers[-1].target if self.failovers else None
        alive = self.up - set(self.down)
        return next((each for each in (began, self.hot, successor) if each in alive), self.hot)

    @property
    def spare(self) -> tuple[str, ...]:
        """Servers that would take over from the carrier."""
        return tuple(sorted(self.up - set(self.down) - {self.carrier}))

    @property
    def taken_over(self) -> ServerFailover | None:
        """The failover from the first server that died in this call."""
        if self.killed is None:
            return None
        killed = self.killed.program
        return next((each for each in self.failovers if each.source == killed), None)

    @property
    def takeover_ms(self) -> float | None:
        """From just before the SIGKILL until `over_at` of the failover, once the call itself has
        been answered through the other server."""
        if self.killed is None or not (self.rang_at_kill or self.answered_through_second):
            return None
        return self.outage_ms(self.taken_over)

    def killed_at(self, failover: ServerFailover) -> float | None:
        """When what the forwarder noticed happened; None if nobody here did it."""
        same = [each.at for each in self.failovers if each.source == failover.source]
        before = max((at for at in same if at < failover.at), default=0.0)
        killed = [kill.at for kill in self.kills if kill.program == failover.source]
        return max((at for at in killed if before < at <= failover.at + 0.05), default=None)

    def over_at(self, failover: ServerFailover) -> float | None:
        """The first answer through the other server, by the forwarder's record. In a call that
        rings there is nothing to ask: its first message that comes from the other server."""
        if self.rang_at_kill and failover is self.taken_over:
            return self.served_at
        return failover.first_answer_at

    def outage_ms(self, failover: ServerFailover | None) -> float | None:
        if failover is None:
            return None
        killed, over = self.killed_at(failover), self.over_at(failover)
        return None if killed is None or over is None else max(0.0, (over - killed) * 1000)

    @property
    def counted_to(self) -> str:
        """The end of the time that `outage_ms` tells of."""
        return "its next message" if self.rang_at_kill else "the first answer"

    @property
    def forwarder_takeover_ms(self) -> float | None:
        """Milliseconds from just before the SIGKILL of the active forwarder to the first response
        that its standby passes on."""
        killed, answered_at = self.forwarder_killed, self.answered_by_successor_at
        if killed is None or answered_at is None or self.successor in (None, killed.program):
            return None
        return (answered_at - killed.at) * 1000

    def time_axis(self, failover: ServerFailover) -> list[tuple[str, float]]:
        """The moments of one failover in order, the last one its end if that is known; each with
        its milliseconds since the kill, or since it was noticed where nobody here killed
        anything."""
        killed = self.killed_at(failover)
        zero = failover.at if killed is None else killed
        moments = [
            (f"last answer\nfrom {failover.source}", failover.last_answer_at),
            (f"{failover.source}\n{'frozen' if self._frozen(failover) else 'killed'}", killed),
            ("noticed by\nthe forwarder", failover.at),
            (f"{self.counted_to}\nfrom {failover.target}", self.over_at(failover)),
        ]
        known = [(name, (at - zero) * 1000) for name, at in moments if at is not None]
        return sorted(known, key=lambda moment: moment[1])

    def _frozen(self, failover: ServerFailover) -> bool:
        return any(kill.frozen for kill in self.kills if kill.program == failover.source)

    # -- the talk ----------------------------------------------------------------------------------

    @property
    def talk_seconds(self) -> float | None:
        """On the wall: from the answer to the end, as the caller's phone saw both."""
        call = self.calls.get(self.caller) or next(iter(self.calls.values()), None)
        if call is None or call.answered_at is None or call.ended_at is None:
            return None
        return call.ended_at - call.answered_at

    @property
    def longest_gap_ms(self) -> float | None:
        """The longest pause of the audio from the answer until two seconds after the crash."""
        heard = self.audio_after_kill or self.audio
        return max((audio.longest_gap_ms for audio in heard.values()), default=None)

    @property
    def lost(self) -> int | None:
        heard = self.audio_after_kill or self.audio
        return sum(audio.lost for audio in heard.values()) if heard else None

    @property
    def shown_bill(self) -> Bill | None:
        """That of the call of ours that is under way, else of the call answered last."""
        if self.calls and not self.over:
            return self.bill
        bills = [bill for bill in (self.bill, self.guests_bill) if bill]
        return max(bills, key=lambda bill: bill.answered, default=None)

    # -- what is observed --------------------------------------------------------------------------

    def apply(self, seen: object) -> None:
        """Take an observation in; what is none of ours changes nothing."""
        if isinstance(seen, MessageForwarded):
            self._count_for_successor(seen)
        match seen:
            case ServersUp():
                self.up, self.hot = seen.up, seen.hot
            case MembersSeen():
                self.members = seen.members
            case Registration():
                self.registered[seen.phone] = seen.registered
            case MessageForwarded(method="REGISTER"):
                if seen.status is not None and 200 <= seen.status < 300:
                    self.registrar[seen.target] = seen.source
            case MessageForwarded():
                if self.call_id and seen.call_id == self.call_id:
                    self._message(seen)
            case CallStateChanged():
                self._call(seen)
            case ProcessKilled():
                self._killed(seen)
            case ProcessBack():
                self.down = {key: kill for key, kill in self.down.items() if key != seen.program}
            case ProcessExited():
                if self.killed and seen.program == self.killed.program and seen.status < 0:
                    self.died = True
            case ServerFailover():
                self._failover(seen)
            case ForwarderActivated():
                self.active = seen.forwarder
                if self.forwarder_killed:
                    self.successor = self.successor or seen.forwarder
            case Audio():
                self.audio[seen.phone] = seen
                if self.killed and seen.at <= self.killed.at + AROUND_CRASH_SECONDS:
                    self.audio_after_kill[seen.phone] = seen
            case Bill():
                if self.call_id and seen.call_id == self.call_id:
                    self.bill = seen
                else:
                    self.guests_bill = seen

    def _count_for_successor(self, seen: MessageForwarded) -> None:
        """Notes a message that the other forwarder passed on after the active one was killed."""
        killed = self.forwarder_killed
        if killed is None or seen.at < killed.at or seen.through == killed.program:
            return
        if seen.status is not None and self.answered_by_successor_at is None:
            self.answered_by_successor_at = seen.at
        if seen.call_id == self.call_id:
            self.passed_successor = True

    def _message(self, seen: MessageForwarded) -> None:
        """One of the present call."""
        phones = (self.cast.caller, self.cast.callee)
        if seen.method == "INVITE" and seen.status == 200 and self.answered_through is None:
            servers = (self.cast.first, self.cast.second)
            self.answered_through = seen.source if seen.source in servers else None
        if seen.method == "BYE" and seen.status is None and seen.source in phones:
            self.hung_up_by = self.hung_up_by or seen.source
        if self.killed and seen.source == self.second and seen.at >= self.killed.at:
            self.served_at = self.served_at or seen.at
            if seen.method == "OPTIONS" and seen.status == 200 and seen.target in phones:
                self.answered_through_second = True

    def _call(self, seen: CallStateChanged) -> None:
        if self.call_id is None:
            self.call_id, self.began_at = seen.call_id, seen.at
        if seen.call_id != self.call_id:
            return  # a call that was turned away while this one goes on
        self.calls[seen.phone] = seen
        if seen.state == "calling" and self.placed_by is None:
            self.placed_by, self.placed_at = seen.phone, seen.at
        if seen.state == "ending":
            self.hung_up_by = self.hung_up_by or seen.phone
        if seen.state == "incoming" and self.rang_at is None:
            self.rang_at = seen.at

    def _killed(self, seen: ProcessKilled) -> None:
        before = self.carrier
        self.down = {**self.down, seen.program: seen}
        if seen.program == self.active:
            self.active = None
            if self.forwarder_killed is None and not self.over:
                self.forwarder_killed = seen
        if seen.program not in (self.cast.first, self.cast.second):
            return
        self.kills.append(seen)
        carried = seen.program == before and bool(self.calls) and not self.over
        if carried and self.killed is None:
            self.killed, self.died = seen, seen.frozen
            self.rang_at_kill = not any(call.answered_at for call in self.calls.values())
            self.audio_at_kill = dict(self.audio)

    def _failover(self, seen: ServerFailover) -> None:
        if self.began_at is not None and seen.at < self.began_at:
            return  # told once more, of a failover before this call
        for index, known in enumerate(self.failovers):
            if (known.source, known.target) == (seen.source, seen.target) and known.at == seen.at:
                self.failovers[index] = replace(
                    seen, first_answer_at=seen.first_answer_at or known.first_answer_at
                )
                return
        self.failovers.append(seen)
