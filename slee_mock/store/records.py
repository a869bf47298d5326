"""What the cluster keeps: bindings, calls, bills, members, its key. Frozen dataclasses, stored as
JSON.

Pure. A reader ignores fields it does not know and takes defaults for those that are missing, so
servers of two versions can share one store. All times are wall seconds (a record outlives the
process that wrote it).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, TypeVar

SIGN_OF_LIFE = 0.5  # seconds between two of a member's signs
PRESUMED_DEAD = 2.0  # a member silent for longer is taken for dead


@dataclass(frozen=True)
class Record:
    """A kind of row in the store. The first field of every record is its key."""

    KIND: ClassVar[str]

    @property
    def key(self) -> str:
        return str(next(iter(vars(self).values())))

    @property
    def due(self) -> float | None:
        """The record's timer: when a TimerEvent is to say that it has run out, whichever server
        lives then."""
        return None

    def is_due(self, wall: float) -> bool:
        return self.due is not None and self.due <= wall


@dataclass(frozen=True)
class Member(Record):
    """A server of the cluster and its last sign of life."""

    KIND: ClassVar[str] = "member"
    name: str
    address: str
    management: str = ""
    started: float = 0.0
    last_seen: float = 0.0
    stopped: bool = False  # said goodbye
    role: str = ""  # hot, live or replica, as a forwarder told it at `role_since`
    role_since: float = 0.0

    def alive(self, wall: float) -> bool:
        return not self.stopped and wall - self.last_seen <= PRESUMED_DEAD


@dataclass(frozen=True)
class ClockOffset(Record):
    """What makes cluster time of a computer's steady clock: `offset` seconds more. Of one start of
    that computer."""

    KIND: ClassVar[str] = "anchor"
    boot: str
    offset: float


@dataclass(frozen=True)
class ClusterKey(Record):
    """The cluster's key, made once by whichever server came first."""

    KIND: ClassVar[str] = "secret"
    name: str
    value: str


R = TypeVar("R", bound=Record)
D = TypeVar("D")


def replace(record: D, **changes: Any) -> D:
    """dataclasses.replace at a fifth of its cost, for records and what is in them: nothing there is
    computed when they are made."""
    made = object.__new__(type(record))
    values = vars(made)
    values.update(vars(record), **changes)
    if len(values) > len(vars(record)):
        kind = getattr(record, "KIND", type(record).__name__)
        raise TypeError(f"a {kind} has no such fields: {', '.join(changes)}")
    return made


_ENCODER = json.JSONEncoder(default=vars, separators=(",", ":"), check_circular=False)
MOST_KEPT, LONGEST_KEPT = 1024, 4096  # records; characters
LONGEST_TOLD = 80  # characters of a fault
JSON_TYPES: dict[Any, tuple[type, ...]] = {
    str: (str,),
    int: (int,),
    float: (float, int),
    bool: (bool,),
    type(None): (type(None),),
    tuple: (list,),
}
# What was written or read last is what will be read next: by its text, the oldest first.
_recent: dict[str, Record] = {}


def to_json(record: Record) -> str:
    text = _ENCODER.encode(record)
    _remember(text, record)
    return text


def _remember(text: str, record: Record) -> None:
    if len(text) <= LONGEST_KEPT:
        _recent[text] = record
        if len(_recent) > MOST_KEPT:
            with contextlib.suppress(KeyError, RuntimeError):  # another thread was quicker
                del _recent[next(iter(_recent))]


def from_json(kind: type[R], text: str) -> R:
    """Raises ValueError if `text` does not hold such a record."""
    known = _recent.get(text)
    if isinstance(known, kind):
        return known
    try:
        record = _build(kind, json.loads(text))
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"not a {kind.KIND}: {error}") from None
    assert isinstance(record, kind)
    _remember(text, record)
    return record


def _build(kind: Any, values: Mapping[str, Any]) -> Any:
    allowed, restorers = _shape(kind)
    kept = {name: value for name, value in values.items() if name in allowed}
    for name, value in kept.items():
        if not isinstance(value, allowed[name]):
            raise TypeError(f"{name} cannot be {value!r}"[:LONGEST_TOLD])
    for name, restore in restorers:
        if name in kept:
            kept[name] = restore(kept[name])
    return kind(**kept)


@lru_cache(maxsize=32)
def _shape(kind: Any) -> tuple[dict[str, tuple[type, ...]], list[tuple[str, Callable[[Any], Any]]]]:
    """The fields with the types that their values may have in JSON, and what makes a value of its
    JSON where that is something else: tuples come back from lists, records in them from objects."""
    hints = typing.get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    tuples = [name for name in names if typing.get_origin(hints[name]) is tuple]
    return {name: _types(hints[name]) for name in names}, [
        (name, _restorer(hints[name])) for name in tuples
    ]


def _types(hint: Any) -> tuple[type, ...]:
    """object for what is not known here, as a deployed service may have it."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return tuple(each for part in typing.get_args(hint) for each in _types(part))
    if origin in JSON_TYPES or hint in JSON_TYPES:
        return JSON_TYPES[origin or hint]
    return (object,)


def _restorer(hint: Any) -> Callable[[Any], Any]:
    item = typing.get_args(hint)[0]
    if isinstance(item, type) and dataclasses.is_dataclass(item):
        return lambda value: tuple(_build(item, each) for each in value)
    return tuple
