"""What the core hands back: what to send, and what to tell whoever watches."""

from __future__ import annotations

from typing import NamedTuple

from failover.health import State
from plumbing.address import Address


class Send(NamedTuple):
    """`to` is a leg: PHONES or a server's name. `target` is None on a server's leg, whose socket is connected."""

    to: str
    data: bytes
    target: Address | None = None


class Passed(NamedTuple):
    """A message went through. `came` and `went` are legs; `status` is None for a request; `why` is the decision."""

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


class Dropped(NamedTuple):
    """A datagram went no further. `reason` is also the counter's name; `note` may hold a stranger's words."""

    at: float
    reason: str
    leg: str
    source: Address
    note: str


class StateChanged(NamedTuple):
    """A server's health, or whether it takes new calls, is not what it was. `hot` is the hot server's name now."""

    at: float
    server: str
    state: State
    why: str
    hot: str | None


class Failover(NamedTuple):
    """`lost` went down and `taken_by` (None: nobody) has its work now. `gap`: how long the first request that the
    successor answered had waited, in seconds; None until there is one."""

    at: float
    lost: str
    taken_by: str | None
    noticed: str
    replayed: int
    gap: float | None = None


Event = Passed | Dropped | StateChanged | Failover


class Outcome(NamedTuple):
    sends: tuple[Send, ...] = ()
    events: tuple[Event, ...] = ()


NOTHING = Outcome()
