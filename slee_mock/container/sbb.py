"""Service building blocks (SBBs): the events one handles, the entity that handles them, and its
records.

For each event that an SBB declares, the container computes the convergence name and hands the event
to the entity of that name (JAIN SLEE: initial event selection). An entity is its records in the
store, under that name: a server makes it for one event and forgets it afterwards, so the next event
finds it on whichever server it reaches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from slee_mock.container.events import (
    CallEvent,
    Event,
    Outcome,
    RequestEvent,
    ResponseEvent,
    TimerEvent,
)
from slee_mock.store.interface import Transaction
from slee_mock.store.records import R, Record


class Entity(NamedTuple):
    """An SBB entity while it handles one event. `name` is the convergence name."""

    name: str
    transaction: Transaction
    records: tuple[type[Record], ...]  # the SBB's own kinds

    def get(self, kind: type[R]) -> R | None:
        """Reads its own record of this kind, whose key is its name; None: there is none yet.
        Another SBB's is read by `transaction.read(kind, key)`."""
        self.check(kind)
        return self.transaction.read(kind, self.name)

    def check(self, kind: type[Record]) -> None:
        """Raises TypeError if this kind of record is not the SBB's own."""
        if kind not in self.records:
            raise TypeError(f"{kind.__name__} is not among the SBB's records")


@dataclass(frozen=True)
class InitialEvent:
    """Selects events of type `event`, its subtypes too, `when` that is true of them; `name`
    computes the convergence name. Both may raise RemoteProtocolError."""

    event: type
    name: Callable[[Any], str]
    when: Callable[[Any], bool] = lambda event: True


class Sbb(Protocol):
    """A service building block. If it keeps something between events it declares the kinds of its
    records as `records`, and rules for their purge as `keeps` (store/purge.py). If it shows
    something in /status it has a method `status(transaction, now)`, which returns it as JSON can
    hold it. That is called on another thread than `handle`: it may use what never changes in the
    SBB, and its records."""

    @property
    def name(self) -> str: ...

    @property
    def events(self) -> tuple[InitialEvent, ...]: ...

    def handle(self, event: Event, entity: Entity) -> Outcome:
        """May be called again for the same event, after a conflict with another server. So it must
        have no effect but its outcome."""


# -- for `events` ----------------------------------------------------------------------------------


def the_call(event: RequestEvent | ResponseEvent | CallEvent) -> str:
    """The Call-ID as the convergence name."""
    if isinstance(event, RequestEvent):
        return event.request.call_id
    return event.response.call_id if isinstance(event, ResponseEvent) else event.call_id


def timer_of(kind: type[Record]) -> InitialEvent:
    """Selects the timers of this kind of record; its key is the convergence name."""

    def is_of_kind(event: TimerEvent) -> bool:
        return event.kind == kind.KIND

    return InitialEvent(TimerEvent, name=lambda event: str(event.key), when=is_of_kind)
