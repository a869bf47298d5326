"""The cluster's records, frozen dataclasses, and their JSON.

Servers of two versions can share one store: a reader ignores fields that it does not know, and
takes the default for a field that is missing. So a new field needs a default, and KIND and the
names of fields never change. All times are cluster time in seconds. No I/O.
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
        """The record's timer: a TimerEvent comes at that time, to any living server."""
        return None

    def is_due(self, now: float) -> bool:
        return self.due is not None and self.due <= now


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

    def alive(self, now: float) -> bool:
        return not self.stopped and now - self.last_seen <= PRESUMED_DEAD


@dataclass(frozen=True)
class ClockOffset(Record):
    """Cluster time is the steady clock of a computer plus `offset`, for one boot of it."""

    KIND: ClassVar[str] = "anchor"
    boot: str
    offset: float


@dataclass(frozen=True)
class ClusterKey(Record):
    """The cluster's key, made once by its first server; hexadecimal."""

    KIND: ClassVar[str] = "secret"
    name: str
    value: str


R = TypeVar("R", bound=Record)
D = TypeVar("D")


def replace(record: D, **changes: Any) -> D:
    """dataclasses.replace at a fifth of its cost, for dataclasses without __post_init__."""
    made = object.__new__(type(record))
    values = vars(made)
    values.update(vars(record), **changes)
    if len(values) > len(vars(record)):
        kind = getattr(record, "KIND", type(record).__name__)
        raise TypeError(f"a {kind} has no such fields: {', '.join(changes)}")
    return made


_ENCODER = json.JSONEncoder(default=vars, separators=(",", ":"), check_circular=False)
MOST_CACHED, LONGEST_CACHED = 1024, 4096  # records; characters of their JSON
LONGEST_FAULT = 80  # characters
JSON_TYPES: dict[Any, tuple[type, ...]] = {
    str: (str,),
    int: (int,),
    float: (float, int),
    bool: (bool,),
    type(None): (type(None),),
    tuple: (list,),
}
# The records that were written or read last, by their JSON: they are read again soon. The oldest is
# first. Shared by all threads: an entry never changes, and a lost one is only read anew.
_recent: dict[str, Record] = {}


def to_json(record: Record) -> str:
    text = _ENCODER.encode(record)
    _remember(text, record)
    return text


def _remember(text: str, record: Record) -> None:
    if len(text) <= LONGEST_CACHED:
        _recent[text] = record
        if len(_recent) > MOST_CACHED:
            with contextlib.suppress(KeyError, RuntimeError):  # another thread was faster
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
            raise TypeError(f"{name} cannot be {value!r}"[:LONGEST_FAULT])
    for name, restore in restorers:
        if name in kept:
            kept[name] = restore(kept[name])
    return kind(**kept)


@lru_cache(maxsize=32)
def _shape(kind: Any) -> tuple[dict[str, tuple[type, ...]], list[tuple[str, Callable[[Any], Any]]]]:
    """The fields with the types of their values in JSON, and functions that restore tuples from
    lists, with the records in them."""
    hints = typing.get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    tuples = [name for name in names if typing.get_origin(hints[name]) is tuple]
    return {name: _types(hints[name]) for name in names}, [
        (name, _restorer(hints[name])) for name in tuples
    ]


def _types(hint: Any) -> tuple[type, ...]:
    """`object` for a type that is not known here; a deployed service may have one."""
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
