"""The observations of the stage: frozen facts with a time, told by a phone, the forwarder, a
server's page or a process.

`phone`, `server`, `forwarder` and `program` are names ("Alice", "server1"); all times are monotonic
seconds of this computer.
"""

from __future__ import annotations

from dataclasses import dataclass

from sip.reasons import REASONS

# labels, shorter than RFC 3261's reason phrases
SHORT_REASONS = {
    401: "Who?",
    402: "Payment",
    404: "Unknown",
    407: "Who?",
    408: "Timeout",
    480: "Absent",
    481: "No call",
    486: "Busy",
    487: "Cancelled",
    503: "No server",
    603: "Declined",
}


@dataclass(frozen=True)
class ServersUp:
    """The forwarder's word: who answers its heartbeats, and who gets new calls."""

    at: float
    up: frozenset[str]
    hot: str | None


@dataclass(frozen=True)
class MembersSeen:
    """A server's word: who shares its store and lives."""

    at: float
    members: frozenset[str]


@dataclass(frozen=True)
class Registration:
    at: float
    phone: str
    registered: bool


@dataclass(frozen=True)
class MessageForwarded:
    """A message that crossed the forwarder `through`; `source` and `target` are names of phones or
    servers. `replayed`: the forwarder has sent it again, to another server. `text` is the whole
    message."""

    at: float
    source: str
    target: str
    method: str
    status: int | None
    call_id: str
    through: str = "forwarder"
    replayed: bool = False
    source_address: str = ""
    target_address: str = ""
    text: str = ""

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes on the message's way; a phone has sent a replayed one once only."""
        way = (self.through, self.target)
        return way if self.replayed else (self.source, *way)

    @property
    def sender(self) -> str:
        return self.nodes[0]

    @property
    def label(self) -> str:
        """The words of a message on its way: INVITE, INVITE again, 180 Ringing, 200 OK."""
        words = self.method
        if self.status is not None:
            reason = SHORT_REASONS.get(self.status) or REASONS.get(self.status, "")
            words = f"{self.status} {reason}".rstrip()
        return f"{words} again" if self.replayed else words

    @property
    def kind(self) -> str:
        """ "request", "answer", "refusal" or "replay"."""
        if self.replayed:
            return "replay"
        if self.status is None:
            return "request"
        return "answer" if self.status < 300 else "refusal"


@dataclass(frozen=True)
class Remark:
    """A line among the messages that tells of a program's fate; `kind` as a message's."""

    at: float
    label: str
    kind: str


@dataclass(frozen=True)
class CallStateChanged:
    """A phone's call, named by its Call-ID, moved to `state`."""

    at: float
    phone: str
    state: str
    call_id: str
    answered_at: float | None = None
    ended_at: float | None = None
    held: bool = False
    peer: str = ""


@dataclass(frozen=True)
class ProcessKilled:
    """SIGKILL, or SIGSTOP if it was `frozen`."""

    at: float
    program: str
    pid: int
    frozen: bool = False


@dataclass(frozen=True)
class ProcessBack:
    """A program runs again: restarted, or continued after it was frozen."""

    at: float
    program: str


@dataclass(frozen=True)
class ProcessExited:
    """A process is gone; `status` as of subprocess, -9 for SIGKILL."""

    at: float
    program: str
    status: int


@dataclass(frozen=True)
class ServerFailover:
    """The forwarder's record of one failover, told at `at`, when it noticed, and once more when
    the first answer came through the other server."""

    at: float
    source: str
    target: str
    replayed: int
    in_flight: int = 0
    noticed: str = ""
    last_answer_at: float | None = None
    first_answer_at: float | None = None


@dataclass(frozen=True)
class ForwarderActivated:
    """A forwarder's own word: it has the address that two of them share."""

    at: float
    forwarder: str


@dataclass(frozen=True)
class Audio:
    """One phone's count of received RTP packets, its longest pause and its losses so far."""

    at: float
    phone: str
    packets: int
    longest_gap_ms: float
    lost: int


@dataclass(frozen=True)
class Bill:
    """One call as a server's management page shows it. `carried`: each server with its seconds;
    `terms`: how the total came about; `page`: the address of the page; `answered` in seconds since
    the epoch."""

    at: float
    server: str
    call_id: str
    seconds: int
    total: str
    currency: str
    final: bool
    carried: tuple[tuple[str, float], ...] = ()
    caller: str = ""
    callee: str = ""
    why: str = ""
    terms: str = ""
    page: str = ""
    answered: float = 0.0

    @property
    def carriers(self) -> str:
        return " and ".join(name for name, seconds in self.carried if seconds) or self.server


LadderRow = MessageForwarded | Remark
