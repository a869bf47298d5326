"""Where the microseconds go: what each stage of one message costs, inside one process, by the messages of calls.

    python -m benchmarks.profile [--calls 200] [--rounds 7] [--json]

Calls go through the forwarder's core, message by message: half of them the quick way, half by the parser. Of each half
one half is timed as a whole ("core"). Of the other half the stages are timed: those of the parser's path one after the
other, those of the quick way in place. "The rest" is what they do not add up to. Receive and send are the system's,
over sockets on 127.0.0.1. Medians of the rounds.
Exit status 1 if an ordinary message does not take the quick way; 2 if it could not be measured.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import socket
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.columns import aligned  # as a script, from anywhere
from benchmarks.flow import Step, make_core, play
from benchmarks.stages import ByParser, Meter, Work, unlimited
from failover.settings import PHONES
from plumbing.batch import LARGEST, SLOTS, Manner, best

PAUSE = 0.2  # seconds from step to step by the core's clock, which learns no two new shapes of messages in one moment
STAGES = ("parse", "validate", "sign", "choose", "edit", "in flight")
SYSTEM = ("receive", "send", "receive many", "send many")
COLUMNS = ("receive", "limit", *STAGES, "the rest", "core", "send", "in all")
WAYS = ("quick", "parser")
TITLES = {"quick": "The quick way, for ordinary messages", "parser": "The parser's path, for all others"}
LEGEND = f"""\
receive, send    the system: recvfrom() of one datagram, sendto() of one
limit            may its source send so many (phones only)
parse            bytes to a message; the quick way: the pattern of its shape finds the fields
validate         RFC 3261 16.3, the sender's Via completed, has it been here before
sign             our branch made, or an answer's verified; the quick way: and its way back noted, or looked up
choose           which server, or which phone: Route, hint, policy, Via
edit             Max-Forwards, Via, Record-Route; back to bytes
in flight        what the server owes now, or has just settled
the rest         counters and what is told; the quick way: all that stands in one function, such as validate
Where there is a backlog, {SLOTS} datagrams are moved by one call"""
TWICE = (1, 2)
FEW = 10  # messages in a stage at a time: more would crowd the memory as in the core they never do
T = TypeVar("T")


def timed(function: Callable[[T], object], items: Sequence[T]) -> float:
    """Microseconds an item."""
    began = time.thread_time_ns()
    for item in items:
        function(item)
    return (time.thread_time_ns() - began) / 1000 / len(items)


def system(data: bytes, many: Manner) -> dict[str, float]:
    """Microseconds to receive and to send one datagram, and one of many in a single call of the system."""
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
            "send many": timed(lambda _: many.send(here, batch, False), TWICE) / SLOTS,
            "receive many": timed(lambda _: many.receive(there, None), TWICE) / SLOTS,
        }


class Profile:
    """`costs`: by way, step and column the microseconds a message, one a round. `slow`: steps of which a message did
    not take the quick way, whose stages cannot be told."""

    def __init__(self) -> None:
        self.core = make_core()
        self.many = best()
        self.meter = Meter()
        self.now = 100.0
        self.costs: dict[str, dict[str, dict[str, list[float]]]] = {way: {} for way in WAYS}
        self.octets: dict[str, int] = {}
        self.slow: set[str] = set()

    def through(self, step: Step, messages: list[bytes]) -> list[bytes]:
        """A quarter each: the quick way as a whole and by stages, by the parser as a whole and by stages."""
        self.now += PAUSE
        gc.collect()  # a great collection would else meet the same step in every round
        self.octets[str(step)] = len(messages[0])
        share = system(messages[0], self.many)
        passed: list[bytes] = [b""] * len(messages)
        for at, way in enumerate(WAYS):
            costs = self.costs[way].setdefault(str(step), defaultdict(list))
            passed[2 * at :: 4] = self._whole(costs, way, step, messages[2 * at :: 4])
            passed[2 * at + 1 :: 4] = self._staged(costs, way, step, messages[2 * at + 1 :: 4])
            for name in SYSTEM:
                costs[name].append(share[name])
        return passed

    def _whole(self, costs: dict[str, list[float]], way: str, step: Step, messages: list[bytes]) -> list[bytes]:
        passed: list[bytes] = []
        core, leg, source, now = self.core, step.leg, step.source, self.now
        if way == "parser":
            costs["core"].append(timed(lambda data: passed.append(self._by_parser(step, data)), messages))
            return passed
        sends = [core.quick(messages[0], leg, source, now)]
        cost = timed(lambda data: sends.append(core.quick(data, leg, source, now)), messages[1:])
        costs["core"].append(cost)
        if None in sends:
            self.slow.add(str(step))
        return [s.data if s else self._by_parser(step, data) for s, data in zip(sends, messages, strict=True)]

    def _staged(self, costs: dict[str, list[float]], way: str, step: Step, messages: list[bytes]) -> list[bytes]:
        works = [Work(data) for data in messages]
        nothing = timed(lambda work: None, works)
        limit, host = unlimited(), step.source[0]
        cost = timed(lambda work: limit.admits(work.data, host, self.now), works) - nothing
        costs["limit"].append(cost if step.leg == PHONES else 0.0)
        if way == "parser":
            spent = self._stages(step, works)
            passed = self._whole(defaultdict(list), way, step, messages)
            if passed != [work.out for work in works]:
                raise RuntimeError(f"{step}: these stages are not what the core does any more")
        else:
            with self.meter.attached():
                passed = self._whole(defaultdict(list), way, step, messages)
            spent = {name: cost / len(messages) for name, cost in self.meter.spent.items()}
        for name in STAGES:
            costs[name].append(spent.get(name, 0.0))
        return passed

    def _stages(self, step: Step, works: list[Work]) -> dict[str, float]:
        stages = ByParser(self.core, step, self.now).of()
        spent = dict.fromkeys(STAGES, 0.0)
        for first in range(0, len(works), FEW):
            few = works[first : first + FEW]
            nothing = timed(lambda work: None, few)
            for name, stage in stages:
                spent[name] += (timed(stage, few) - nothing) * len(few) / len(works)
        return spent

    def _by_parser(self, step: Step, data: bytes) -> bytes:
        outcome = self.core.receive(data, step.leg, step.source, self.now)
        if len(outcome.sends) != 1:
            raise RuntimeError(f"{step} does not pass: {outcome}")
        return outcome.sends[0].data

    def medians(self, way: str) -> dict[str, dict[str, float]]:
        """By step and column. The first round warmed up."""
        told: dict[str, dict[str, float]] = {}
        for step, costs in self.costs[way].items():
            medians = told[step] = {name: statistics.median(each[1:]) for name, each in costs.items()}
            medians["the rest"] = medians["core"] - sum(medians[name] for name in STAGES)
            medians["in all"] = sum(medians[name] for name in ("receive", "limit", "core", "send"))
        return told


def table(profile: Profile, way: str) -> str:
    told = profile.medians(way)
    columns = [name for name in COLUMNS if any(costs[name] for costs in told.values())]
    rows = [["", "octets", *columns]]
    for step, costs in told.items():
        figures = [f"{costs[name]:.1f}" if costs[name] else "" for name in columns]
        if way == "quick" and step in profile.slow:
            figures = ["not taken", *[""] * (len(columns) - 1)]
        rows.append([step, f"{profile.octets[step]:,}", *figures])
    return f"{TITLES[way]}\n\n{aligned(rows)}"


def text(profile: Profile, options: argparse.Namespace) -> str:
    every = profile.medians("quick").values()
    receive, send, receives, sends = (statistics.median(costs[name] for costs in every) for name in SYSTEM)
    python = platform.python_version()
    head = f"microseconds a message; {options.rounds} rounds of {options.calls} calls; Python {python}"
    many = f"{receives:.1f} instead of {receive:.1f} to receive, {sends:.1f} instead of {send:.1f} to send."
    return "\n\n".join([head, *(table(profile, way) for way in WAYS), f"{LEGEND}: {many}"])


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    number = {"type": int, "metavar": "N"}
    parser.add_argument("--calls", default=200, choices=range(10, 5001), help="in each quarter (default 200)", **number)
    parser.add_argument("--rounds", default=7, choices=range(1, 101), help="1 to 100 (default 7)", **number)
    parser.add_argument("--json", action="store_true", help="print everything measured as one JSON object")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    options = parse(argv)
    profile = Profile()
    try:
        for number in range(options.rounds + 1):
            first = 10_000_000 + number * 4 * options.calls
            play(profile.core, profile.through, range(first, first + 4 * options.calls))
    except (OSError, RuntimeError) as error:
        print(f"cannot measure: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps({**vars(options), "python": platform.python_version(), "slow": sorted(profile.slow),
                          "octets": profile.octets, **{way: profile.medians(way) for way in WAYS}}))  # fmt: skip
    else:
        print(text(profile, options))
    return int(bool(profile.slow))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
