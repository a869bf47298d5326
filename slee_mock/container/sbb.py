"""What a service is: the events it takes, what names the entity that handles them, and what it does
with them.

Pure. A SLEE calls the first two initial-event selection: of each event that a service takes it
computes the convergence name, and the entity of that name handles the event. Here an entity is
nothing but its records in the store, so it lives on whichever server the event reaches.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from slee_mock.container.events import (
    CallEvent,
    Event,
    Outcome,
    RequestEvent,
    ResponseEvent,
    TimerEvent,
)
from slee_mock.store.interface import StoreDown, Transaction
from slee_mock.store.records import Record


def always(event: Any) -> bool:
    return True


@dataclass(frozen=True)
class On:
    """Takes events of type `event`, its subtypes too, `when` that is true of them; `name` makes the
    convergence name. Both may raise RemoteProtocolError."""

    event: type
    name: Callable[[Any], str]
    when: Callable[[Any], bool] = always


class Service(Protocol):
    """A service of the SLEE. What it must keep from one event to the next it saves as records."""

    @property
    def name(self) -> str: ...

    @property
    def takes(self) -> tuple[On, ...]: ...

    def handle(self, event: Event, entity: str, transaction: Transaction) -> Outcome:
        """`entity` is the convergence name. May be asked twice about one event, so it must change
        nothing itself."""


@runtime_checkable
class Telling(Protocol):
    """A service that has something to tell in /status."""

    def tells(self, transaction: Transaction, wall: float) -> Any:
        """JSON-able. Called on another thread than `handle`: of the service itself only what never
        changes."""


def told(service: Telling, transaction: Transaction, wall: float) -> Any:
    """What it tells, or why it cannot: /status is there for everybody."""
    try:
        tells = service.tells(transaction, wall)
        json.dumps(tells)
        return tells
    except StoreDown:
        raise
    except (Exception, SystemExit) as error:
        return {"error": f"{type(error).__name__}: {error}"}


def takers(services: Sequence[Service], event: type) -> list[tuple[Service, On]]:
    """Who takes events of this type, in the services' order, by which of their lines."""
    return [
        (service, each)
        for service in services
        for each in service.takes
        if issubclass(event, each.event)
    ]


# -- words for `takes` -----------------------------------------------------------------------------


def the_call(event: RequestEvent | ResponseEvent | CallEvent) -> str:
    """A call's entity has the name of its Call-ID."""
    if isinstance(event, RequestEvent):
        return event.request.call_id
    return event.response.call_id if isinstance(event, ResponseEvent) else event.call_id


def timer_of(kind: type[Record]) -> On:
    """The timers of this kind of record; the record's key is the convergence name."""

    def is_of_kind(event: TimerEvent) -> bool:
        return event.kind == kind.KIND

    return On(TimerEvent, name=lambda event: str(event.key), when=is_of_kind)
