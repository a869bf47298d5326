"""The four transaction machines of RFC 3261 17 over UDP, with the Accepted states of RFC 6026.

The tables come first: every state has an entry for every event but the timers that do not run in
it, and what is not in them cannot happen. Beneath them one small machine walks a table; it is given
messages and the time, and answers with what is to be done. Timers are rows with a deadline, never
threads: ask `deadline`, and call `on_deadline(now)` when it has come. `now` and deadlines are
monotonic seconds.

Timer C belongs to proxies that keep transactions (16.6) and has no row here. No 100 is made after
200 ms (17.2.1): a transaction user here answers an INVITE at once, with 180 or a final response.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from math import inf
from typing import NamedTuple

from sip.errors import LocalProtocolError
from sip.grammar import canonical_host
from sip.message import Message, Request, Response
from sip.timing import PATIENCE, T1, T2, T4
from sip.via import MAGIC_COOKIE


class State(str, Enum):
    CALLING = "Calling"
    TRYING = "Trying"
    PROCEEDING = "Proceeding"
    ACCEPTED = "Accepted"
    COMPLETED = "Completed"
    CONFIRMED = "Confirmed"
    TERMINATED = "Terminated"


class Event(str, Enum):
    PROVISIONAL = "1xx"
    SUCCESS = "2xx"
    FAILURE = "300-699"
    FINAL = "200-699"
    REQUEST = "the request, again"
    ACK = "ACK"
    UNREACHABLE = "transport error"
    TIMER_A = "A"
    TIMER_B = "B"
    TIMER_D = "D"
    TIMER_E = "E"
    TIMER_F = "F"
    TIMER_G = "G"
    TIMER_H = "H"
    TIMER_I = "I"
    TIMER_J = "J"
    TIMER_K = "K"
    TIMER_L = "L"
    TIMER_M = "M"


class Do(Enum):
    """The actions of a step of a table."""

    SEND = auto()  # the response at hand goes out
    REPEAT = auto()  # what was sent last goes out once more
    ACKNOWLEDGE = auto()  # an ACK for the failure at hand goes out (17.1.1.3)
    DELIVER = auto()  # the message at hand goes up to the transaction user
    TIME_OUT = auto()  # the transaction user learns that nobody answered
    GIVE_UP = auto()  # the transaction user learns that nobody could be reached
    FORBID = auto()  # the transaction user has broken the rules


Step = tuple[State, tuple[Do, ...]]
Table = dict[State, dict[Event, Step]]


def to(state: State, *actions: Do) -> Step:
    return state, actions


CALLING, TRYING, PROCEEDING, ACCEPTED, COMPLETED, CONFIRMED, TERMINATED = State
PROVISIONAL, SUCCESS, FAILURE, FINAL, REQUEST, ACK, UNREACHABLE, *_timers = Event
TIMER_A, TIMER_B, TIMER_D, TIMER_E, TIMER_F, TIMER_G = _timers[:6]
TIMER_H, TIMER_I, TIMER_J, TIMER_K, TIMER_L, TIMER_M = _timers[6:]
SEND, REPEAT, ACKNOWLEDGE, DELIVER, TIME_OUT, GIVE_UP, FORBID = Do


class Timer(NamedTuple):
    """When a timer fires first, and the cap of its doubling interval (0: it fires once)."""

    first: float
    cap: float


# Table 4 of RFC 3261. A timer runs in the states that have an entry for it: entering the first of
# them starts it, leaving the last stops it.
TIMERS = {
    TIMER_A: Timer(T1, inf),
    TIMER_B: Timer(PATIENCE, 0),
    TIMER_D: Timer(PATIENCE, 0),
    TIMER_E: Timer(T1, T2),
    TIMER_F: Timer(PATIENCE, 0),
    TIMER_G: Timer(T1, T2),
    TIMER_H: Timer(PATIENCE, 0),
    TIMER_I: Timer(T4, 0),
    TIMER_J: Timer(PATIENCE, 0),
    TIMER_K: Timer(T4, 0),
    TIMER_L: Timer(PATIENCE, 0),
    TIMER_M: Timer(PATIENCE, 0),
}

# Figure 5 of RFC 3261 as replaced by figure 5 of RFC 6026.
INVITE_CLIENT: Table = {
    CALLING: {
        PROVISIONAL: to(PROCEEDING, DELIVER),
        SUCCESS: to(ACCEPTED, DELIVER),
        FAILURE: to(COMPLETED, ACKNOWLEDGE, DELIVER),
        UNREACHABLE: to(TERMINATED, GIVE_UP),
        TIMER_A: to(CALLING, REPEAT),
        TIMER_B: to(TERMINATED, TIME_OUT),
    },
    PROCEEDING: {
        PROVISIONAL: to(PROCEEDING, DELIVER),
        SUCCESS: to(ACCEPTED, DELIVER),
        FAILURE: to(COMPLETED, ACKNOWLEDGE, DELIVER),
        UNREACHABLE: to(PROCEEDING),
    },
    ACCEPTED: {  # RFC 6026 7.2: every further 2xx is the transaction user's, who acknowledges it
        PROVISIONAL: to(ACCEPTED),
        SUCCESS: to(ACCEPTED, DELIVER),
        FAILURE: to(ACCEPTED),
        UNREACHABLE: to(ACCEPTED),
        TIMER_M: to(TERMINATED),
    },
    COMPLETED: {
        PROVISIONAL: to(COMPLETED),
        SUCCESS: to(COMPLETED),
        FAILURE: to(COMPLETED, ACKNOWLEDGE),
        UNREACHABLE: to(TERMINATED, GIVE_UP),
        TIMER_D: to(TERMINATED),
    },
}

# Figure 6 of RFC 3261.
NON_INVITE_CLIENT: Table = {
    TRYING: {
        PROVISIONAL: to(PROCEEDING, DELIVER),
        FINAL: to(COMPLETED, DELIVER),
        UNREACHABLE: to(TERMINATED, GIVE_UP),
        TIMER_E: to(TRYING, REPEAT),
        TIMER_F: to(TERMINATED, TIME_OUT),
    },
    PROCEEDING: {
        PROVISIONAL: to(PROCEEDING, DELIVER),
        FINAL: to(COMPLETED, DELIVER),
        UNREACHABLE: to(TERMINATED, GIVE_UP),
        TIMER_E: to(PROCEEDING, REPEAT),
        TIMER_F: to(TERMINATED, TIME_OUT),
    },
    COMPLETED: {
        PROVISIONAL: to(COMPLETED),
        FINAL: to(COMPLETED),
        UNREACHABLE: to(COMPLETED),
        TIMER_K: to(TERMINATED),
    },
}

# Figure 7 of RFC 3261 as replaced by figure 7 of RFC 6026.
INVITE_SERVER: Table = {
    PROCEEDING: {
        REQUEST: to(PROCEEDING, REPEAT),
        ACK: to(PROCEEDING),
        PROVISIONAL: to(PROCEEDING, SEND),
        SUCCESS: to(ACCEPTED, SEND),
        FAILURE: to(COMPLETED, SEND),
        UNREACHABLE: to(TERMINATED, GIVE_UP),
    },
    # RFC 6026 7.1: the transaction user repeats the 2xx until an ACK comes (RFC 3261 13.3.1.4)
    ACCEPTED: {
        REQUEST: to(ACCEPTED),
        ACK: to(ACCEPTED, DELIVER),
        PROVISIONAL: to(ACCEPTED, FORBID),
        SUCCESS: to(ACCEPTED, SEND),
        FAILURE: to(ACCEPTED, FORBID),
        UNREACHABLE: to(ACCEPTED),
        TIMER_L: to(TERMINATED),
    },
    COMPLETED: {
        REQUEST: to(COMPLETED, REPEAT),
        ACK: to(CONFIRMED),
        PROVISIONAL: to(COMPLETED, FORBID),
        SUCCESS: to(COMPLETED, FORBID),
        FAILURE: to(COMPLETED, FORBID),
        UNREACHABLE: to(TERMINATED, GIVE_UP),
        TIMER_G: to(COMPLETED, REPEAT),
        TIMER_H: to(TERMINATED, TIME_OUT),
    },
    CONFIRMED: {
        REQUEST: to(CONFIRMED),
        ACK: to(CONFIRMED),
        PROVISIONAL: to(CONFIRMED, FORBID),
        SUCCESS: to(CONFIRMED, FORBID),
        FAILURE: to(CONFIRMED, FORBID),
        UNREACHABLE: to(CONFIRMED),
        TIMER_I: to(TERMINATED),
    },
}

# Figure 8 of RFC 3261.
NON_INVITE_SERVER: Table = {
    TRYING: {
        REQUEST: to(TRYING),
        PROVISIONAL: to(PROCEEDING, SEND),
        FINAL: to(COMPLETED, SEND),
        UNREACHABLE: to(TERMINATED, GIVE_UP),
    },
    PROCEEDING: {
        REQUEST: to(PROCEEDING, REPEAT),
        PROVISIONAL: to(PROCEEDING, SEND),
        FINAL: to(COMPLETED, SEND),
        UNREACHABLE: to(TERMINATED, GIVE_UP),
    },
    COMPLETED: {
        REQUEST: to(COMPLETED, REPEAT),
        PROVISIONAL: to(COMPLETED, FORBID),
        FINAL: to(COMPLETED, FORBID),
        UNREACHABLE: to(TERMINATED, GIVE_UP),
        TIMER_J: to(TERMINATED),
    },
}

for _table in (INVITE_CLIENT, NON_INVITE_CLIENT, INVITE_SERVER, NON_INVITE_SERVER):
    # Its owner forgets a terminated transaction; what still comes for it has no effect.
    _events = next(iter(_table.values())).keys() - TIMERS.keys()
    _table[TERMINATED] = {event: to(TERMINATED) for event in _events}


# -- what a transaction answers with ---------------------------------------------------------------


@dataclass(frozen=True)
class Transmit:
    """`message` is to go out; `repeated` if it already did."""

    message: Message
    repeated: bool = False


@dataclass(frozen=True)
class Deliver:
    """`message` is for the transaction user."""

    message: Message


@dataclass(frozen=True)
class TimedOut:
    """No answer came (to be treated as a 408, RFC 3261 8.1.3.1), or no ACK."""


@dataclass(frozen=True)
class Unreachable:
    """The transport could not send (to be treated as a 503)."""


Outcome = Transmit | Deliver | TimedOut | Unreachable


# -- the machine that walks a table ----------------------------------------------------------------


class Transaction:
    """The common part of the four transactions. `retransmissions` counts what went out again
    because a timer ran out."""

    def __init__(self, table: Table, state: State, request: Request) -> None:
        self.table = table
        self.state = state
        self.request = request
        self.retransmissions = 0
        self._timers: dict[Event, tuple[float, float]] = {}  # event -> (deadline, interval)

    @property
    def deadline(self) -> float | None:
        """When `on_deadline` is to be called next; None if nothing is awaited."""
        return min((due for due, _ in self._timers.values()), default=None)

    def on_deadline(self, now: float) -> list[Outcome]:
        """Fire the timers that are due, the earliest first."""
        done: list[Outcome] = []
        while self._timers:
            event, (due, interval) = min(self._timers.items(), key=lambda item: item[1][0])
            if due > now:
                break
            interval = self._interval_after(event, interval)
            if interval:
                # From `now`: a clock that jumped (a suspended computer) must not cause a burst of
                # repeats.
                self._timers[event] = (now + interval, interval)
            else:
                del self._timers[event]
            done += self._step(event, None, now)
        return done

    def on_unreachable(self, now: float) -> list[Outcome]:
        """The transport could not send."""
        return self._step(UNREACHABLE, None, now)

    def _interval_after(self, event: Event, interval: float) -> float:
        # RFC 3261 17.1.2.2: in Proceeding timer E goes on with T2.
        if event is TIMER_E and self.state is PROCEEDING:
            return T2
        return min(2 * interval, TIMERS[event].cap)

    def _enter(self, state: State, now: float) -> None:
        self.state = state
        timers = {event: TIMERS[event] for event in self.table[state] if event in TIMERS}
        self._timers = {
            event: self._timers.get(event, (now + timer.first, timer.first))
            for event, timer in timers.items()
        }

    def _step(self, event: Event, message: Message | None, now: float) -> list[Outcome]:
        state, actions = self.table[self.state][event]
        if FORBID in actions:
            raise LocalProtocolError(f"{message!r} in state {self.state.value} of {self.request!r}")
        if state is not self.state:
            self._enter(state, now)
        return [outcome for action in actions for outcome in self._do(action, event, message)]

    def _do(self, action: Do, event: Event, message: Message | None) -> list[Outcome]:
        if action is REPEAT:
            self.retransmissions += event in TIMERS
            last = self._last()
            return [Transmit(last, repeated=True)] if last else []
        if action is DELIVER and message:
            return [Deliver(message)]
        if action is SEND and message:
            return [Transmit(message)]
        if action is ACKNOWLEDGE and isinstance(message, Response):
            return [Transmit(make_ack(self.request, message))]
        return [TimedOut()] if action is TIME_OUT else [Unreachable()]

    def _class_of(self, response: Response) -> Event:
        if response.status < 200:
            return PROVISIONAL
        if FINAL in self.table[self.state]:
            return FINAL
        return SUCCESS if response.status < 300 else FAILURE

    def _last(self) -> Message | None:
        raise NotImplementedError


class ClientTransaction(Transaction):
    """A request of ours until it is answered (RFC 3261 17.1). `start` sends it."""

    def __init__(self, request: Request) -> None:
        invite = request.method == "INVITE"
        super().__init__(
            INVITE_CLIENT if invite else NON_INVITE_CLIENT, CALLING if invite else TRYING, request
        )

    def start(self, now: float) -> list[Outcome]:
        self._enter(self.state, now)
        return [Transmit(self.request)]

    def receive(self, response: Response, now: float) -> list[Outcome]:
        """A response whose `client_key` is this request's."""
        return self._step(self._class_of(response), response, now)

    @property
    def may_cancel(self) -> bool:
        """RFC 3261 9.1: a CANCEL waits for a provisional response and is pointless after a final
        one."""
        return self.table is INVITE_CLIENT and self.state is PROCEEDING

    def _last(self) -> Message:
        return self.request


class ServerTransaction(Transaction):
    """A request of theirs until it is answered (RFC 3261 17.2). The request itself has already been
    taken up."""

    def __init__(self, request: Request) -> None:
        invite = request.method == "INVITE"
        super().__init__(
            INVITE_SERVER if invite else NON_INVITE_SERVER,
            PROCEEDING if invite else TRYING,
            request,
        )
        self.response: Response | None = None

    def receive(self, request: Request, now: float) -> list[Outcome]:
        """A request whose `server_key` is this one's: the same once more, or the ACK to an
        INVITE."""
        if request.method == "ACK" and self.table is not INVITE_SERVER:
            return []
        return self._step(ACK if request.method == "ACK" else REQUEST, request, now)

    def respond(self, response: Response, now: float) -> list[Outcome]:
        """The transaction user answers; LocalProtocolError after a final response (a 2xx may be
        repeated)."""
        done = self._step(self._class_of(response), response, now)
        if self.state is not TERMINATED:
            self.response = response
        return done

    @property
    def answered(self) -> bool:
        return self.state not in (TRYING, PROCEEDING)

    def _last(self) -> Message | None:
        return self.response


# -- matching (RFC 3261 17.1.3, 17.2.3) and the two requests made from another ---------------------


def client_key(message: Message) -> tuple[str, str]:
    """Equal for a request and the responses to it: branch and CSeq method."""
    return message.via.branch, message.cseq.method


def server_key(request: Request) -> tuple[str, ...]:
    """Equal for a request, its retransmissions and, if it is an INVITE, the ACK to a failure."""
    via, method = request.via, "INVITE" if request.method == "ACK" else request.method
    if via.branch.startswith(MAGIC_COOKIE) and via.branch != MAGIC_COOKIE:
        return via.branch, canonical_host(via.host), str(via.port or ""), method
    # The branch of an RFC 2543 phone need not be unique: the fields of 17.2.3 stand in for it.
    sent_by = (canonical_host(via.host), str(via.port or ""), via.branch)
    return (
        request.uri,
        request.from_.tag,
        request.call_id,
        str(request.cseq.number),
        *sent_by,
        method,
    )


def make_ack(invite: Request, response: Response) -> Request:
    """The ACK to a failure, sent by the INVITE's own transaction (17.1.1.3)."""
    return _companion(invite, "ACK", response.get("To") or "")


def make_cancel(invite: Request) -> Request:
    """The CANCEL of an INVITE that got a provisional response (9.1)."""
    return _companion(invite, "CANCEL", invite.get("To") or "")


def _companion(invite: Request, method: str, to_value: str) -> Request:
    fields = [
        ("Via", invite.values("Via")[0]),
        *(("Route", value) for value in invite.all("Route")),
    ]
    fields += [("Max-Forwards", "70"), ("From", invite.get("From") or ""), ("To", to_value)]
    fields += [("Call-ID", invite.call_id), ("CSeq", f"{invite.cseq.number} {method}")]
    return Request(method, invite.uri, fields)
