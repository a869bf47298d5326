"""Where the microseconds go: what each stage of one message costs, inside one process, by the messages of calls.

    python -m benchmarks.profile [--calls 200] [--rounds 7] [--json]

Calls go through the forwarder's core, message by message: a third of them the quick way, a third by the parser, a third
by the parser's path stage by stage, the same functions one after the other. What the stages do not add up to is "the
rest". Receive and send are the system's, over sockets on 127.0.0.1. It is this thread's CPU time that counts; medians
of the rounds.
Exit status 1 if an ordinary message does not take the quick way.
"""

from __future__ import annotations

import argparse
import json
import platform
import socket
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.columns import aligned  # as a script, from anywhere
from benchmarks.flow import Step, make_core, play
from failover.core import MAX_FORWARDS, Core
from failover.inflight import Row
from failover.limit import Limit
from failover.networks import Networks
from failover.outcome import Send
from failover.route import literal, way_back
from failover.settings import PHONES
from failover.table import Server
from failover.validation import been_here, validate
from plumbing.batch import LARGEST, SLOTS, best
from sip.branch import verify_branch
from sip.message import parse
from sip.uri import Uri

PAUSE = 0.2  # seconds from step to step by the core's clock, which learns no two new shapes of messages in one moment
STAGES = ("limit", "parse", "validate", "sign", "choose", "edit", "in flight")
COLUMNS = ("receive", *STAGES, "the rest", "send")
LEGEND = """\
receive, send    the system: recvfrom() of one datagram, sendto() of one
limit            may its source send so many (phones only)
parse            bytes to a message
validate         RFC 3261 16.3, the sender's Via completed, has it been here before
sign             our branch made, or an answer's verified
choose           which server, or which phone: Route, hint, policy, Via
edit             Max-Forwards, Via, Record-Route; back to bytes
in flight        what the server owes now, or has just settled"""
T = TypeVar("T")
Costs = dict[str, dict[str, list[float]]]  # step -> column -> microseconds a message, one a round


@dataclass(slots=True)
class Work:
    """One message on its way through the stages."""

    data: bytes
    message: Any = None
    branch: str = ""
    hint: str = ""
    server: Server | None = None
    out: bytes = b""


def timed(function: Callable[[T], object], items: Sequence[T]) -> float:
    """Microseconds an item."""
    began = time.thread_time_ns()
    for item in items:
        function(item)
    return (time.thread_time_ns() - began) / 1000 / len(items)


# -- the stages of the parser's path, as core.py has them in a row ----------------------------------------------------


@dataclass
class Stages:
    """Each method is one stage of one message that came by `step`. `inflight` is a core's own."""

    core: Core
    step: Step
    now: float
    limit_: Limit = field(default_factory=lambda: Limit(10**9, 10**9, Networks(()), Counter()))

    def of(self) -> list[tuple[str, Callable[[Work], object]]]:
        """In the order of core.py; a column may have several."""
        around = [("limit", self.limit)] if self.step.leg == PHONES else []
        if self.step.kind[0].isdigit():
            return [*around, ("parse", self.parse), ("sign", self.verify), ("in flight", self.settle),
                    ("edit", self.pop_via), ("choose", self.way_back), ("in flight", self.echo),
                    ("edit", self.to_bytes)]  # fmt: skip
        side = self.to_server if self.step.leg == PHONES else self.from_server
        return [*around, ("parse", self.parse), ("validate", self.validate), ("sign", self.sign),
                ("choose", self.routes), ("validate", self.been_here), *side()]  # fmt: skip

    def to_server(self) -> list[tuple[str, Callable[[Work], object]]]:
        return [("choose", self.choose), ("edit", self.edit_to_server), ("in flight", self.wait)]

    def from_server(self) -> list[tuple[str, Callable[[Work], object]]]:
        acknowledged = [("in flight", self.acknowledged)] if self.step.kind == "ACK" else []
        return [*acknowledged, ("choose", self.target), ("edit", self.edit_to_phone)]

    def limit(self, work: Work) -> None:
        self.limit_.admits(work.data, self.step.source[0], self.now)

    def parse(self, work: Work) -> None:
        work.message = parse(work.data)

    def validate(self, work: Work) -> None:
        self.core.lines.complete_via(work.message, self.step.source)
        validate(work.message)

    def sign(self, work: Work) -> None:
        work.branch = self.core.lines.branch(work.message)
        if work.message.method == "ACK":
            self.core.lines.own_tag(work.branch)

    def routes(self, work: Work) -> None:
        hint = self.core.lines.restore_target(work.message)
        work.hint = self.core.lines.pop_routes(work.message) or hint

    def been_here(self, work: Work) -> None:
        been_here(self.core.lines.key, work.message, self.step.leg, self.core.lines.signed)

    def choose(self, work: Work) -> None:
        work.server = self.core._choose(work.message, work.branch, work.hint)[0]

    def edit_to_server(self, work: Work) -> None:
        lines, server = self.core.lines, work.server
        assert server
        work.message.set("Max-Forwards", str((work.message.max_forwards or MAX_FORWARDS) - 1))
        own = lines.towards(self.step.source[0])
        lines.replace_dead(work.message, server)
        lines.record_route(work.message, own, server)
        lines.push_via(work.message, lines.towards(server.address[0]), work.branch, PHONES)
        work.out = work.message.to_bytes()

    def wait(self, work: Work) -> None:
        assert work.server
        row = Row(work.server.name, work.data, PHONES, self.step.source, self.now)
        if work.message.method == "ACK":
            self.core.inflight.echo((work.branch, "ACK", 0, work.message.to_tag), row)
        else:
            self.core.inflight.wait((work.branch, work.message.method), row)

    def acknowledged(self, work: Work) -> None:
        beneath = work.message.vias[:2][-1].branch
        self.core.table.by_name[self.step.leg].has_handled(
            self.core.inflight.came_through((beneath, "ACK", 0, work.message.to_tag))
        )

    def target(self, work: Work) -> None:
        routes = work.message.routes
        target = (routes[0].uri if routes else Uri.parse(work.message.uri)).address()
        if target not in self.core.table.by_address:
            literal(target)

    def edit_to_phone(self, work: Work) -> None:
        lines = self.core.lines
        work.message.set("Max-Forwards", str((work.message.max_forwards or MAX_FORWARDS) - 1))
        own = lines.towards(self.step.source[0])
        lines.suit_strict_router(work.message)
        lines.record_route(work.message, own, self.core.table.by_name[self.step.leg])
        lines.push_via(work.message, own, work.branch, self.step.leg)
        work.out = work.message.to_bytes()

    def verify(self, work: Work) -> None:
        verify_branch(self.core.lines.key, work.message, self.core.lines.signed)

    def settle(self, work: Work) -> None:
        message = work.message
        method, branch = message.cseq.method, message.via.branch
        if self.step.leg != PHONES:
            server = self.core.table.by_name[self.step.leg]
            server.has_handled(self.core.inflight.came_through((branch, method, message.status, message.to_tag)))
            if message.status >= 200:
                server.has_handled(self.core.inflight.answered((branch, method)))

    def pop_via(self, work: Work) -> None:
        work.message.pop("Via")

    def way_back(self, work: Work) -> None:
        target = way_back(work.message.via)
        work.server = self.core.table.by_address.get(target)
        if not work.server:
            literal(target)

    def echo(self, work: Work) -> None:
        if work.server:
            message = work.message
            key = (message.vias[:2][-1].branch, message.cseq.method, message.status, message.to_tag)
            self.core.inflight.echo(key, Row(work.server.name, work.data, PHONES, self.step.source, self.now))

    def to_bytes(self, work: Work) -> None:
        work.out = work.message.to_bytes()


# -- the system's share -----------------------------------------------------------------------------------------------


def system(data: bytes) -> dict[str, float]:
    """Microseconds to receive and to send one datagram, and one of many in a single call of the system."""
    many = best()
    with ExitStack() as ending:
        there, here = (ending.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(2))
        for sock in (there, here):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            sock.bind(("127.0.0.1", 0))
            sock.setblocking(False)
        target = there.getsockname()
        batch = [(data, target)] * SLOTS
        return {
            "send": timed(lambda _: here.sendto(data, target), batch),
            "receive": timed(lambda _: there.recvfrom(LARGEST), batch),
            "send many": timed(lambda _: many.send(here, batch, False), range(1)) / SLOTS,
            "receive many": timed(lambda _: many.receive(there, None), range(1)) / SLOTS,
        }


# -- all of it --------------------------------------------------------------------------------------------------------


def by_parser(core: Core, step: Step, data: bytes, now: float) -> bytes:
    outcome = core.receive(data, step.leg, step.source, now)
    if len(outcome.sends) != 1:
        raise RuntimeError(f"{step} does not pass: {outcome}")
    return outcome.sends[0].data


class Profile:
    """`slow`: steps of which a message did not take the quick way."""

    def __init__(self) -> None:
        self.core = make_core()
        self.now = 100.0
        self.costs: Costs = {}
        self.octets: dict[str, int] = {}
        self.slow: set[str] = set()

    def through(self, step: Step, messages: list[bytes]) -> list[bytes]:
        """A third as a whole by the parser, a third stage by stage, a third the quick way."""
        self.now += PAUSE
        costs = self.costs.setdefault(str(step), defaultdict(list))
        self.octets[str(step)] = len(messages[0])
        passed: list[bytes] = [b""] * len(messages)
        passed[0::3] = self._whole(costs, step, messages[0::3])
        passed[1::3] = self._staged(costs, step, messages[1::3])
        passed[2::3] = self._quick(costs, step, messages[2::3])
        for name, cost in system(messages[0]).items():
            costs[name].append(cost)
        return passed

    def _whole(self, costs: dict[str, list[float]], step: Step, messages: list[bytes]) -> list[bytes]:
        passed: list[bytes] = []
        costs["parser"].append(timed(lambda data: passed.append(by_parser(self.core, step, data, self.now)), messages))
        return passed

    def _staged(self, costs: dict[str, list[float]], step: Step, messages: list[bytes]) -> list[bytes]:
        works = [Work(data) for data in messages]
        spent: dict[str, float] = defaultdict(float)
        for name, stage in Stages(self.core, step, self.now).of():
            spent[name] += timed(stage, works)
        for name in STAGES:
            costs[name].append(spent[name])
        passed = [by_parser(self.core, step, data, self.now) for data in messages]
        if passed != [work.out for work in works]:
            raise RuntimeError(f"{step}: these stages are not what the core does any more")
        return passed

    def _quick(self, costs: dict[str, list[float]], step: Step, messages: list[bytes]) -> list[bytes]:
        sends: list[Send | None] = []
        quick, leg, source, now = self.core.quick, step.leg, step.source, self.now
        costs["quick"].append(timed(lambda data: sends.append(quick(data, leg, source, now)), messages))
        if None in sends:
            self.slow.add(str(step))
        pairs = zip(sends, messages, strict=True)
        return [send.data if send else by_parser(self.core, step, data, now) for send, data in pairs]

    def medians(self) -> dict[str, dict[str, float]]:
        """The first round warmed up. "the rest" is what the stages of the core leave of it."""
        told: dict[str, dict[str, float]] = {}
        for step, costs in self.costs.items():
            medians = told[step] = {name: statistics.median(each[1:]) for name, each in costs.items()}
            medians["the rest"] = medians["parser"] - sum(medians[name] for name in STAGES if name != "limit")
        return told


def table(profile: Profile) -> str:
    rows = [["", "octets", *COLUMNS, "core: parser", "quick way"]]
    for step, costs in profile.medians().items():
        figures = [f"{costs[name]:.1f}" if costs[name] else "" for name in (*COLUMNS, "parser", "quick")]
        if step in profile.slow:
            figures[-1] = "not taken"
        rows.append([step, f"{profile.octets[step]:,}", *figures])
    return aligned(rows)


def parse_options(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    number = {"type": int, "metavar": "N"}
    parser.add_argument("--calls", default=200, choices=range(10, 5001), help="in a third (default 200)", **number)
    parser.add_argument("--rounds", default=7, choices=range(1, 101), help="1 to 100 (default 7)", **number)
    parser.add_argument("--json", action="store_true", help="print everything measured as one JSON object")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    options = parse_options(argv)
    profile = Profile()
    try:
        for number in range(options.rounds + 1):
            first = number * 3 * options.calls
            play(profile.core, profile.through, range(first, first + 3 * options.calls))
    except (OSError, RuntimeError) as error:
        print(f"cannot measure: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps({**vars(options), "python": platform.python_version(), "slow": sorted(profile.slow),
                          "octets": profile.octets, "microseconds": profile.medians()}))  # fmt: skip
    else:
        python = platform.python_version()
        print(f"microseconds a message; {options.rounds} rounds of {options.calls} calls; Python {python}\n")
        print(f"{table(profile)}\n\n{LEGEND}")
    return int(bool(profile.slow))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
