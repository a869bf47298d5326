"""What core.py and quick.py do with a message, taken apart: the same functions, one stage after the other.

For benchmarks/profile.py, which holds what comes out against what the core gives.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from time import perf_counter_ns
from typing import Any
from unittest import mock

from benchmarks.flow import Step
from failover import quick
from failover.core import MAX_FORWARDS, Core
from failover.inflight import InFlight, echo_key, key_of
from failover.known import Sender
from failover.limit import Limit
from failover.networks import Networks
from failover.route import literal, way_back
from failover.settings import PHONES
from failover.templates import RequestTemplate, Template
from failover.validation import been_here, validate
from failover.ways import Memory
from sip.message import parse
from sip.uri import Uri


class Work:
    """One message on its way: `data` as it came, what the stages leave for the next ones, at last `out`."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.out = b""


Stage = Callable[[Any], None]


# -- core.py ----------------------------------------------------------------------------------------------------------


class ByParser:
    """The stages of messages that come by `step`, at `now` by the core's clock."""

    def __init__(self, core: Core, step: Step, now: float) -> None:
        self.core, self.step, self.now = core, step, now
        self.server: Any = core.table.by_name.get(step.leg)  # that sent them, if one did

    def of(self) -> list[tuple[str, Stage]]:
        """The column each counts for, in the core's order; a column may have several."""
        if self.step.is_answer:
            return [("parse", self.parse), ("sign", self.verify), ("in flight", self.settle), ("edit", self.pop_via),
                    ("choose", self.way_back), ("in flight", self.echo), ("edit", self.to_bytes)]  # fmt: skip
        onward: list[tuple[str, Stage]] = [("choose", self.target), ("edit", self.edit_to_phone)]
        if not self.server:
            onward = [("choose", self.choose), ("edit", self.edit_to_server), ("in flight", self.wait)]
        elif self.step.kind == "ACK":
            onward.insert(0, ("in flight", self.acknowledged))
        return [("parse", self.parse), ("validate", self.validate), ("sign", self.sign), ("choose", self.routes),
                ("validate", self.been_here), *onward]  # fmt: skip

    def row(self, work: Any, server: str) -> tuple[Any, ...]:
        return (server, work.data, self.step.leg, self.step.source, self.now, 0)

    def parse(self, work: Any) -> None:
        work.message = parse(work.data)

    def validate(self, work: Any) -> None:
        self.core.lines.complete_via(work.message, self.step.source)
        validate(work.message)

    def sign(self, work: Any) -> None:
        work.branch = self.core.lines.branch(work.message)
        if work.message.method == "ACK":
            self.core.lines.own_tag(work.branch)

    def routes(self, work: Any) -> None:
        hint = self.core.lines.restore_target(work.message)
        work.hint = self.core.lines.pop_routes(work.message) or hint

    def been_here(self, work: Any) -> None:
        been_here(self.core.lines.key, work.message, self.step.leg, self.core.lines.signed)

    def choose(self, work: Any) -> None:
        work.server = self.core._choose(work.message, work.branch, work.hint)[0]

    def edit_to_server(self, work: Any) -> None:
        lines, server = self.core.lines, work.server
        work.message.set("Max-Forwards", str((work.message.max_forwards or MAX_FORWARDS) - 1))
        own = lines.towards(self.step.source[0])
        lines.replace_dead(work.message, server)
        lines.record_route(work.message, own, server)
        lines.add_path(work.message, own)
        lines.push_via(work.message, lines.towards(server.address[0]), work.branch, PHONES)
        work.out = work.message.to_bytes()

    def wait(self, work: Any) -> None:
        if work.message.method == "ACK":
            key = echo_key(work.branch, "ACK", 0, work.message.to_tag)
            self.core.inflight.echo(key, self.row(work, work.server.name))
        else:
            self.core.inflight.wait(key_of(work.branch, work.message.method), self.row(work, work.server.name))

    def acknowledged(self, work: Any) -> None:
        key = echo_key(work.message.vias[:2][-1].branch, "ACK", 0, work.message.to_tag)
        self.server.has_handled(self.core.inflight.came_through(key))

    def target(self, work: Any) -> None:
        routes = work.message.routes
        target = (routes[0].uri if routes else Uri.parse(work.message.uri)).address()
        if target not in self.core.table.by_address:
            literal(target)

    def edit_to_phone(self, work: Any) -> None:
        lines = self.core.lines
        work.message.set("Max-Forwards", str((work.message.max_forwards or MAX_FORWARDS) - 1))
        own = lines.towards(self.step.source[0])
        lines.suit_strict_router(work.message)
        lines.record_route(work.message, own, self.server)
        lines.push_via(work.message, own, work.branch, self.step.leg)
        work.out = work.message.to_bytes()

    def verify(self, work: Any) -> None:
        self.core.lines.is_ours(work.message)
        work.method, work.branch = work.message.cseq.method, work.message.via.branch

    def settle(self, work: Any) -> None:
        if self.server:
            inflight, message = self.core.inflight, work.message
            key = echo_key(work.branch, work.method, message.status, message.to_tag)
            self.server.has_handled(inflight.came_through(key))
            if message.status >= 200:
                self.server.has_handled(inflight.answered(key_of(work.branch, work.method)))

    def pop_via(self, work: Any) -> None:
        work.message.pop("Via")

    def way_back(self, work: Any) -> None:
        target = way_back(work.message.via)
        work.server = self.core.table.by_address.get(target)
        if not work.server:
            literal(target)

    def echo(self, work: Any) -> None:
        if work.server:
            message = work.message
            key = echo_key(message.vias[:2][-1].branch, message.cseq.method, message.status, message.to_tag)
            self.core.inflight.echo(key, self.row(work, work.server.name))

    def to_bytes(self, work: Any) -> None:
        work.out = work.message.to_bytes()


# -- quick.py ---------------------------------------------------------------------------------------------------------

PARTS: tuple[tuple[str, Any, str], ...] = (
    ("parse", Template, "parts"),
    ("parse", RequestTemplate, "asked"),
    ("parse", Memory, "asked"),
    ("parse", Memory, "answered"),
    ("sign", Sender, "sign"),
    ("sign", Memory, "way"),
    ("sign", Memory, "passed"),
    ("sign", Memory, "settled"),
    ("sign", quick.Quick, "_is_own_tag"),
    ("choose", quick.Quick, "_quick_choice"),
    ("edit", quick.Quick, "_quick_server"),
    ("edit", quick.Quick, "_quick_phone"),
    ("edit", quick, "_without_ours"),
    ("in flight", InFlight, "wait"),
    ("in flight", quick.Quick, "_quick_heard"),
    ("in flight", InFlight, "echo"),
    ("in flight", InFlight, "came_through"),
)


class Meter:
    """Measures PARTS where they are called, the outermost of them that is being called, in `spent` microseconds by
    column. What it takes itself is taken off."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self._inside = False
        self._own = 0
        nothing = self._measured("nothing", lambda *_: None)
        for _ in range(1000):
            nothing(1, 2, 3)
        self._own = int(self.spent.pop("nothing"))

    @contextmanager
    def attached(self) -> Iterator[None]:
        self.spent = {}
        with ExitStack() as ending:
            for column, owner, name in PARTS:
                measured = self._measured(column, getattr(owner, name))
                ending.enter_context(mock.patch.object(owner, name, measured))
            yield

    def _measured(self, column: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def measured(*arguments: Any) -> Any:
            if self._inside:
                return function(*arguments)
            self._inside = True
            began = perf_counter_ns()
            try:
                return function(*arguments)
            finally:
                took = perf_counter_ns() - began - self._own
                self.spent[column] = self.spent.get(column, 0.0) + took / 1000
                self._inside = False

        return measured


def unlimited() -> Limit:
    return Limit(10**9, 10**9, Networks(()), Counter())
