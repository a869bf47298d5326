"""What the core hands back: what to send, and what to tell whoever watches."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from plumbing.address import Address


class Send(NamedTuple):
    """`to` is a side: PHONES or a server's name. `target` is None on a server's side, whose socket
    is connected."""

    to: str
    data: bytes
    target: Address | None = None


class Passed(NamedTuple):
    """A message went through. `came` and `went` are sides; `status` is None for a request; `why` is
    the decision. `session`: what names its session, where that is not the Call-ID."""

    at: float
    came: str
    went: str
    source: Address
    target: Address
    method: str
    status: int | None
    call_id: str
    replayed: bool
    why: str
    session: str = ""


class Dropped(NamedTuple):
    """A datagram went no further. `reason` is also the counter's name; `note` and `call` (the
    method and the Call-ID of what could be read as a message) may hold a stranger's words."""

    at: float
    reason: str
    side: str
    source: Address
    note: str
    call: str = ""


class Queued(NamedTuple):
    """A message is kept until a server lives. `status` is None for a request."""

    at: float
    side: str
    source: Address
    method: str
    status: int | None
    call_id: str


class Released(NamedTuple):
    """A server lives again: so many kept `messages` go on. `oldest`: seconds since the first
    came."""

    at: float
    messages: int
    oldest: float


class StateChanged(NamedTuple):
    """A server's health, or whether it takes new calls, is not what it was. `state`: its health's
    name, or EJECTED; `hot` is the hot server's name now."""

    at: float
    server: str
    state: str
    why: str
    hot: str | None


class Failover(NamedTuple):
    """`lost` went down and `taken_by` (None: nobody) has its work now. Of `in_flight` datagrams
    that it owed, `replayed` were sent on at once, or `kept` are kept until a server lives. `gap`:
    how long the first request that the successor answered had waited, in seconds; `first_answer`:
    when that was; None until there is one. `last_answer`: when the lost server was heard last, if
    ever."""

    at: float
    lost: str
    taken_by: str | None
    noticed: str
    replayed: int
    gap: float | None = None
    in_flight: int = 0
    last_answer: float | None = None
    first_answer: float | None = None
    kept: int = 0

    @property
    def silence(self) -> float | None:
        """Seconds between the last answer before and the first after."""
        if self.first_answer is None or self.last_answer is None:
            return None
        return self.first_answer - self.last_answer


class Resumed(NamedTuple):
    """The successor has answered for the first time."""

    at: float
    failover: Failover


Event = Passed | Dropped | Queued | Released | StateChanged | Failover | Resumed


class Outcome(NamedTuple):
    sends: tuple[Send, ...] = ()
    events: tuple[Event, ...] = ()


NOTHING = Outcome()


def joined(outcomes: Iterable[Outcome]) -> Outcome:
    """One after the other."""
    some = [outcome for outcome in outcomes if outcome is not NOTHING]
    if len(some) < 2:
        return some[0] if some else NOTHING
    sends = tuple(send for outcome in some for send in outcome.sends)
    return Outcome(sends, tuple(event for outcome in some for event in outcome.events))
