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

from sip.timing import PATIENCE

UNACKNOWLEDGED = PATIENCE  # seconds that a callee waits for the ACK to its 2xx (RFC 3261 13.3.1.4)
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
class Binding:
    """One contact of an address-of-record (RFC 3261 10), and the REGISTER that brought it."""

    contact: str
    call_id: str
    cseq: int
    expires_at: float
    refreshed_at: float
    q: float = 1.0
    server: str = ""

    def alive(self, wall: float) -> bool:
        return self.expires_at > wall


@dataclass(frozen=True)
class Heard:
    """The last REGISTER with this Call-ID that was carried out, and when."""

    call_id: str
    cseq: int
    wall: float


@dataclass(frozen=True)
class Bindings(Record):
    """All bindings of one address-of-record. `heard`, the latest first, outlives them for a while:
    a stale REGISTER, of a phone that has started anew or gone since then, cannot bring back what is
    over."""

    KIND: ClassVar[str] = "bindings"
    aor: str
    display: str = ""
    bindings: tuple[Binding, ...] = ()
    heard: tuple[Heard, ...] = ()

    def live(self, wall: float) -> list[Binding]:
        """Best first: highest q, then freshest."""
        alive = (binding for binding in self.bindings if binding.alive(wall))
        return sorted(alive, key=lambda binding: (-binding.q, -binding.refreshed_at))


@dataclass(frozen=True)
class Dialog:
    """A dialog that the call's INVITE made. There are several where it was forked behind a binding
    (RFC 3261 13.2.2.4)."""

    tag: str  # the callee's
    contacts: tuple[str, ...] = ()  # the callee's, the latest first
    routes: tuple[str, ...] = ()  # addresses of the Record-Routes on the callee's side
    confirmed: bool = False  # a 2xx to the caller has passed
    heard: bool = False  # it was confirmed first, or its caller has acknowledged it
    over: bool = False
    aside: bool = False  # made on a further leg alone: it is not the caller's


@dataclass(frozen=True)
class Leg:
    """A way of the call's INVITE to one user. There are several where a phone or PBX sends it on to
    another user of ours (a spiral, RFC 3261 16.3)."""

    request_uri: str  # as it came here
    target: str  # the contact chosen
    branch: str  # of the caller's own Via
    way: str = ""  # the branch that this cluster's Via has for it
    routes: tuple[str, ...] = ()  # addresses of the Record-Routes it came with, the nearest first
    attempt: int = 0  # bindings that did not answer before `target` was tried
    searched: bool = False  # other bindings are tried after `target`: there is a Search


@dataclass(frozen=True)
class Call(Record):
    """What the proxy must know to pass any message of a call on as the first server did."""

    KIND: ClassVar[str] = "call"
    call_id: str
    caller_tag: str
    cseq: int  # the INVITE's number
    branch: str  # the caller's own Via branch: tells a retransmission from a merged request
    request_uri: str  # as the caller wrote it
    target: str  # the contact chosen, once
    offered: float
    caller: str = ""  # names for sentences
    callee: str = ""
    callee_tag: str = ""
    caller_contacts: tuple[str, ...] = ()
    callee_contacts: tuple[str, ...] = ()
    confirmed: bool = False  # a 2xx has passed
    over: bool = False  # a final failure or a BYE has passed, or its session has expired
    seen: float = 0.0  # a message of it passed last; to the second
    # nobody will answer it any more; or its session is over unless it is refreshed
    expires: float | None = None
    interval: int = 0  # seconds; the session interval that was asked for last
    caller_timed: bool = False  # this one's phone knows session timers (RFC 4028)
    callee_timed: bool = False
    untimed: bool = False  # no phone refreshes the session: every message of it puts `expires` off
    lapsed: float | None = None  # `expires` when it ran out: the call's end is presumed
    way: str = ""  # as in Leg, of the first leg; so are the next three
    routes: tuple[str, ...] = ()
    attempt: int = 0
    searched: bool = False
    legs: tuple[Leg, ...] = ()  # the further ones
    dialogs: tuple[Dialog, ...] = ()  # `callee_tag` and `callee_contacts` are those of the last
    given_up: bool = False  # CANCEL has passed

    @property
    def due(self) -> float | None:
        return self.expires

    def began_with(self, from_tag: str, number: int) -> bool:
        """Is it the INVITE with this CSeq number that began the call?"""
        return (from_tag, number) == (self.caller_tag, self.cseq)


@dataclass(frozen=True)
class Search(Record):
    """An INVITE to a user with several bindings, which are tried one after the other."""

    KIND: ClassVar[str] = "search"
    way: str  # as in Leg
    call_id: str  # of the Call
    began: float
    request: str  # as it came here, one character an octet
    tried: tuple[str, ...]  # contacts, in their order
    by: tuple[str, ...]  # the addresses of the servers that sent the INVITE there
    heard: int = -1  # which of `tried` was the first that answered anything
    next_at: float | None = None  # if nobody has answered by then, the next is tried
    failed: tuple[int, ...] = ()  # which of `tried` nobody is at

    @property
    def due(self) -> float | None:
        return self.next_at


@dataclass(frozen=True)
class Carrier:
    """`server` handled the call's messages from `since` on, until the next carrier's `since`."""

    server: str
    since: float


@dataclass(frozen=True)
class Bill(Record):
    """The facts a bill is made from; `billing.summed` does the sums."""

    KIND: ClassVar[str] = "bill"
    call_id: str
    caller: str
    caller_uri: str
    callee: str
    callee_uri: str
    tariff: str
    currency: str
    offered: float
    rang: float | None = None
    answered: float | None = None
    given_up: float | None = None  # CANCEL passed; void if the answer crossed it
    ended: float | None = None
    why: str = ""
    # at most so many are billed: the caller's balance ended with them
    paid_units: int | None = None
    carriers: tuple[Carrier, ...] = ()
    acknowledged: float | None = 0.0  # seconds from the answer to the caller's ACK; None: none yet
    presumed: bool = False  # `ended` is a timer's; a message of the call may prove it wrong

    @property
    def due(self) -> float | None:
        """When the callee gives up, as nobody acknowledges the answer."""
        if self.answered is None or self.acknowledged is not None or self.ended is not None:
            return None
        return self.answered + UNACKNOWLEDGED


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


@dataclass(frozen=True)
class Guesser:
    """Somebody at one address who gave wrong passwords for one user's name. Hashes, for the store
    is no list of typing errors."""

    who: str  # of name and address
    failures: int = 0
    last: float = 0.0  # when
    response: str = ""  # of the last wrong one: a retransmission is no guess


@dataclass(frozen=True)
class Guesses(Record):
    """The guessers whose hashes fall into this slot, the latest first."""

    KIND: ClassVar[str] = "guesses"
    slot: str
    guessers: tuple[Guesser, ...] = ()


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
