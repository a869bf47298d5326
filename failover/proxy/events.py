"""The results of the core: datagrams to send, and events for the log and for /events."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from plumbing.address import Address


class Send(NamedTuple):
    """A datagram to send. `to` is a side: PHONES or a server's name. `target` is None on a server's
    side, whose socket is connected."""

    to: str
    data: bytes
    target: Address | None = None


class Passed(NamedTuple):
    """A message was passed on. `status` is None for a request; `why` is the decision;
    `affinity_key` is "" where it is the Call-ID; `data` is the message as it was sent on."""

    at: float
    from_side: str
    to_side: str
    source: Address
    target: Address
    method: str
    status: int | None
    call_id: str
    replayed: bool
    why: str
    affinity_key: str = ""
    data: bytes = b""


class Dropped(NamedTuple):
    """A datagram was not passed on. `reason` is also the counter's name. `note` and `call` (the
    method and the Call-ID, if it could be read) may hold a stranger's words."""

    at: float
    reason: str
    side: str
    source: Address
    note: str
    call: str = ""


class Queued(NamedTuple):
    """A message is kept until a server is up, or (`pause`) for so many seconds, because each server
    that had it failed. `status` is None for a request."""

    at: float
    side: str
    source: Address
    method: str
    status: int | None
    call_id: str
    pause: float = 0.0


class Released(NamedTuple):
    """A server is up again, so the kept `messages` go on. `oldest`: seconds since the first
    came."""

    at: float
    messages: int
    oldest: float


class StateChanged(NamedTuple):
    """A server's health has changed, or whether it takes new calls. `state`: its health's name, or
    EJECTED; `hot`: the name of the server that new calls go to now."""

    at: float
    server: str
    state: str
    why: str
    hot: str | None


class FailoverRecord(NamedTuple):
    """Server `lost` went down, and `successor` (None: no server is left) has its work now.

    Of `in_flight` datagrams that it owed, `replayed` were sent on at once, or `kept` are kept until
    a server is up. `gap`: how long the first request that the successor answered had waited,
    seconds; `first_answer`: when that was; both None until then. `last_answer`: when the lost
    server was heard last, if ever.
    """

    at: float
    lost: str
    successor: str | None
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
    failover: FailoverRecord


Event = Passed | Dropped | Queued | Released | StateChanged | FailoverRecord | Resumed


class Outcome(NamedTuple):
    sends: tuple[Send, ...] = ()
    events: tuple[Event, ...] = ()


NOTHING = Outcome()


def joined(outcomes: Iterable[Outcome]) -> Outcome:
    """One outcome of several, in their order."""
    some = [outcome for outcome in outcomes if outcome is not NOTHING]
    if len(some) < 2:
        return some[0] if some else NOTHING
    sends = tuple(send for outcome in some for send in outcome.sends)
    return Outcome(sends, tuple(event for outcome in some for event in outcome.events))
