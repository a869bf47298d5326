"""What core.py and quick.py do with a message, taken apart: the same functions, one stage after the other.

For benchmarks/profile.py, which holds what comes out against what the core gives.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any
from zlib import crc32

from benchmarks.flow import Step
from failover.core import MAX_FORWARDS, Core
from failover.inflight import NO_STATUS, echo_key, key_of
from failover.limit import Limit
from failover.networks import Networks
from failover.quick import BRANCH_SIZE, COOKIE, FEWER, FROM_PHONES, FROM_SERVERS, OF_BRANCH, _written
from failover.route import literal, way_back
from failover.settings import PHONES
from failover.shapes import branch_of
from failover.validation import been_here, validate
from failover.ways import NO_ROUTES
from sip.branch import verify_branch
from sip.message import parse
from sip.uri import Uri


class Work:
    """One message on its way: `data` as it came, what the stages leave for the next ones, at last `out`."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.out = b""


Stage = Callable[[Any], None]


class Stages:
    """Of messages that come by `step`, at `now` by the core's clock. `of()`: the column each counts for, in the core's
    order; a column may have several."""

    def __init__(self, core: Core, step: Step, now: float) -> None:
        self.core, self.step, self.now = core, step, now
        self.server: Any = core.table.by_name.get(step.leg)  # that sent them, if one did
        self._limit = Limit(10**9, 10**9, Networks(()), Counter())

    def of(self) -> list[tuple[str, Stage]]:
        raise NotImplementedError

    def limit(self, work: Any) -> None:
        self._limit.admits(work.data, self.step.source[0], self.now)

    def row(self, work: Any, server: str) -> tuple[Any, ...]:
        return (server, work.data, self.step.leg, self.step.source, self.now, 0)


# -- core.py ----------------------------------------------------------------------------------------------------------


class ByParser(Stages):
    def of(self) -> list[tuple[str, Stage]]:
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
        verify_branch(self.core.lines.key, work.message, self.core.lines.signed)
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


class Quickly(Stages):
    def __init__(self, core: Core, step: Step, now: float) -> None:
        super().__init__(core, step, now)
        self.quick, self.memory = core._quick, core._quick._memory

    def of(self) -> list[tuple[str, Stage]]:
        if self.step.is_answer:
            return [("sign", self.way), ("parse", self.scan_answer), ("validate", self.agrees),
                    ("in flight", self.heard), ("edit", self.cut), ("in flight", self.echo)]  # fmt: skip
        onward: list[tuple[str, Stage]] = [("choose", self.choose), ("edit", self.top), ("in flight", self.account)]
        if self.server:
            onward = [("choose", self.phone), ("edit", self.record), ("in flight", self.acknowledged)]
        return [("parse", self.scan), ("sign", self.sign), ("choose", self.target), ("validate", self.loop), *onward,
                ("in flight", self.passed), ("edit", self.write)]  # fmt: skip

    def scan(self, work: Any) -> None:
        work.shape, work.match = self.quick._matched(work.data, (self.step.source, work.data[:4]), self.now)
        (work.method, work.uri, work.host, work.left, work.branch, work.right, work.others, work.hops, work.tag,
         work.length, work.routes, work.records) = work.match.group(*work.shape.wanted)  # fmt: skip

    def sign(self, work: Any) -> None:
        memory, key = self.memory, (work.left, work.right, self.step.source)
        work.sender = memory.senders.get(key) or memory.sender(*key)
        signing = work.sender.signing.copy()
        signing.update(work.branch[len(COOKIE) :] + work.sender.ending)
        work.signed = COOKIE + signing.hexdigest().encode()
        if work.method == b"ACK":
            self.quick._is_own_tag(work.tag, work.signed)

    def target(self, work: Any) -> None:
        memory, routes = self.memory, work.routes
        work.target = memory.targets.get(work.host) or memory.target(work.host)
        work.route = (memory.routes.get(routes) or memory.route(routes)) if routes else NO_ROUTES

    def loop(self, work: Any) -> None:
        work.word = b"%08x" % crc32(work.route.asked, crc32(work.uri, FROM_SERVERS if self.server else FROM_PHONES))
        if work.hops not in FEWER or b";lr" in work.uri or (work.others and work.word in work.others):
            raise RuntimeError(f"{self.step}: not for the quick way")

    def choose(self, work: Any) -> None:
        work.server = self.quick._choose(work.match, work.signed, work.method, work.tag, work.route, work.target)

    def phone(self, work: Any) -> None:
        work.back = self.quick._phone(work.route.target or work.target, self.step.source)

    def top(self, work: Any) -> None:
        own = self.memory.own(self.step.source[0], self.now)
        work.top = self.quick._top(work.shape, work.server, work.method, work.tag, work.records, own)
        work.own = self.memory.own(work.server.address[0], self.now)

    def record(self, work: Any) -> None:
        work.own = self.memory.own(work.back[0], self.now)
        work.top = self.quick._record(self.server, work.method, work.tag, work.records, work.own)

    def account(self, work: Any) -> None:
        self.quick._account(work.server, work.signed, work.method, work.tag, self.row(work, work.server.name))

    def acknowledged(self, work: Any) -> None:
        if work.method == b"ACK":
            key = (branch_of(work.others), b"ACK", NO_STATUS, work.tag or b"")
            self.server.has_handled(self.core.inflight.came_through(key))

    def passed(self, work: Any) -> None:
        work.vias = work.sender.left + work.branch + work.sender.right + work.others
        first = branch_of(work.others) if work.others else work.branch
        self.memory.passed(work.signed, (work.vias, work.method, work.sender.target, work.sender.server, first))

    def write(self, work: Any) -> None:
        lines = b"Via: SIP/2.0/UDP %b;branch=%b;loop=%b\r\n%b" % (work.own, work.signed, work.word, work.vias)
        work.out = _written(work.data, work.shape, work.match, work.top, lines, len(work.others), FEWER[work.hops],
                            work.route.kept)  # fmt: skip

    def way(self, work: Any) -> None:
        at = work.data.find(b";branch=") + OF_BRANCH
        work.signed = work.data[at : at + BRANCH_SIZE]
        way: Any = self.memory.way(work.signed)
        work.beneath, work.asked, work.back, work.server, work.first = way

    def scan_answer(self, work: Any) -> None:
        key = (self.step.source, work.asked, work.data[8:11])
        work.shape, work.match = self.quick._matched(work.data, key, self.now)
        work.own, work.branch, work.others, work.status, work.tag, work.method, work.length = work.match.group(
            *work.shape.wanted
        )

    def agrees(self, work: Any) -> None:
        if work.others != work.beneath or work.branch != work.signed or work.own not in self.memory.texts:
            raise RuntimeError(f"{self.step}: not for the quick way")

    def heard(self, work: Any) -> None:
        if self.server:
            self.quick._heard(self.server, work.branch, work.method, work.status, work.tag or b"", self.now)

    def cut(self, work: Any) -> None:
        start, end = work.match.span(work.shape.via)
        work.out = work.data[:start] + work.data[end:]

    def echo(self, work: Any) -> None:
        if work.server:
            key = (work.first, work.method, work.status, work.tag or b"")
            self.core.inflight.echo(key, self.row(work, work.server.name))
