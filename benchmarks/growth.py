"""How the cost of one message grows: with its size, its Vias, the servers there are, the calls in flight.

    python -m benchmarks.growth [--messages 100] [--rounds 7] [--only NAME ...] [--json]

Inside one process, by an INVITE from a phone and the server's 200 to it, the quick way (and what that leaves to the
parser's path) and by the parser's path alone. It is this thread's CPU time that counts; the least of all rounds, in
which all take turns. Each row says what is expected and whether it holds: "flat" if the most costs less than twice the
least, "linear" if what the last costs beyond the first is at most half as much again as the last but one lets expect.
Exit status 1 if a row grows worse than expected; 2 if it could not be measured.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from itertools import chain, count
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.columns import aligned  # as a script, from anywhere
from benchmarks.flow import ALICE, answered, make_core, request
from failover.core import Core
from failover.inflight import MAX_ROWS
from failover.outcome import Send
from failover.settings import CALL_ID, FIRST_LIVE, PHONES
from plumbing.address import Address

PAUSE = 0.01  # seconds between the core's ten messages: it does not learn two new shapes of them in one moment
NUMBERS = count(10_000_000, 10_000_000)  # no two cores see a line that another has had read before
AT_ONCE = 10  # calls of which the INVITE is under way before the first is answered
LINE = 62  # octets of one of flow.request's own lines
FLAT, LINEAR = "flat", "linear"
NOISE = 0.2  # of what the first point costs: a smaller difference to the last but one tells nothing
Way = Callable[[Core, bytes, str, Address, float], tuple[Send, bool]]


class Point(NamedTuple):
    """One thing to measure: `value` is what is shown above it."""

    value: int
    servers: int = 2
    policy: str = FIRST_LIVE
    vias: int = 1
    lines: int = 0
    body: int = 0
    waiting: int = 0


class Sweep(NamedTuple):
    """`expected`: of the quick way, of the parser's path."""

    title: str
    points: tuple[Point, ...]
    expected: tuple[str, str]


SWEEPS = {
    "body": Sweep("octets of body", tuple(Point(n, body=n) for n in (0, 1000, 2000, 4000, 8000)), (FLAT, FLAT)),
    "lines": Sweep(
        f"header lines that nobody here knows, {LINE} octets each",
        tuple(Point(n, lines=n) for n in (0, 8, 32, 64, 128)), (LINEAR, LINEAR),
    ),
    "vias": Sweep("Vias in the request", tuple(Point(n, vias=n) for n in (1, 2, 8, 32, 64)), (LINEAR, LINEAR)),
    "servers": Sweep("servers, forwarder.policy=first-live", tuple(Point(n, n) for n in (2, 8, 64)), (FLAT, FLAT)),
    "spread": Sweep(
        "servers, forwarder.policy=call-id", tuple(Point(n, n, CALL_ID) for n in (2, 8, 64)), (LINEAR, LINEAR)
    ),
    "waiting": Sweep("calls in flight", tuple(Point(n, waiting=n) for n in (0, 10_000, 100_000)), (FLAT, FLAT)),
}  # fmt: skip


# -- measuring --------------------------------------------------------------------------------------------------------


def quickly(core: Core, data: bytes, leg: str, source: Address, now: float) -> tuple[Send, bool]:
    """What is sent, and was it the quick way."""
    send = core.quick(data, leg, source, now)
    return (send, True) if send else (by_parser(core, data, leg, source, now)[0], False)


def by_parser(core: Core, data: bytes, leg: str, source: Address, now: float) -> tuple[Send, bool]:
    outcome = core.receive(data, leg, source, now)
    if len(outcome.sends) != 1:
        raise RuntimeError(f"a message does not pass: {outcome}")
    return outcome.sends[0], True


WAYS: dict[str, Way] = {"quick": quickly, "parser": by_parser}
MESSAGES = ("INVITE", "200")


class Cell:
    """One point, one way. `costs`: the least microseconds of any round, of each of MESSAGES. `taken`: did all of them
    take this way?"""

    def __init__(self, point: Point, way: Way) -> None:
        self._point, self._way = point, way
        self._body = "v" * point.body
        self._next, self._now = next(NUMBERS), 100.0
        self._rounds: list[list[float]] = []
        self.taken = [True] * len(MESSAGES)
        self.core = make_core(point.servers, point.policy)
        for number in range(point.waiting):
            quickly(self.core, request("INVITE", -1 - number), PHONES, ALICE, self._now)

    @property
    def costs(self) -> list[float]:
        """The first round warmed up."""
        return [min(each) for each in zip(*self._rounds[1:], strict=True)]

    @property
    def held(self) -> int:
        return len(self.core.inflight)

    @property
    def fell(self) -> int:
        """Datagrams that fell out of what is held for a replay."""
        return self.core.counters["inflight.overflow"]

    def round(self, messages: int) -> None:
        spent = [0] * len(MESSAGES)
        self.taken = [True] * len(MESSAGES)
        for _ in range(0, messages, AT_ONCE):
            self._calls(spent)
        self._rounds.append([each / 1000 / messages for each in spent])

    def _calls(self, spent: list[int]) -> None:
        """Adds the nanoseconds for AT_ONCE INVITEs and for their 200s."""
        point, table = self._point, self.core.table
        numbers = range(self._next, self._next + AT_ONCE)
        self._next += AT_ONCE
        invites = [request("INVITE", n, vias=point.vias, lines=point.lines, body=self._body) for n in numbers]
        sends = self._pass(0, [(invite, PHONES, ALICE) for invite in invites], spent)
        answers = [(answered(s.data, "200 OK", self._body), s.to, table.by_name[s.to].address) for s in sends]
        self._pass(1, answers, spent)

    def _pass(self, at: int, messages: list[tuple[bytes, str, Address]], spent: list[int]) -> list[Send]:
        core, way = self.core, self._way
        self._now = now = self._now + PAUSE
        began = time.thread_time_ns()
        passed = [way(core, *message, now) for message in messages]
        spent[at] += time.thread_time_ns() - began
        self.taken[at] = self.taken[at] and all(taken for _, taken in passed)
        return [send for send, _ in passed]


def measure(sweep: Sweep, messages: int, rounds: int) -> dict[str, list[Cell]]:
    """All points in turns, so that what else the computer does meets all alike."""
    cells = {way: [Cell(point, function) for point in sweep.points] for way, function in WAYS.items()}
    for _ in range(rounds + 1):
        for each in chain.from_iterable(cells.values()):
            each.round(messages)
    return cells


# -- what is told -----------------------------------------------------------------------------------------------------


def holds(expected: str, points: Sequence[tuple[int, float]]) -> bool:
    """`points`: value and cost. None: nothing that could be otherwise."""
    costs = [cost for _, cost in points]
    if not costs or max(costs) < 2 * min(costs):
        return True
    if expected == FLAT or len(points) < 3:
        return False
    (first, least), *_, (middle, before), (last, most) = points
    return most - least <= 1.5 * (last - first) / (middle - first) * max(before - least, NOISE * least)


class Line(NamedTuple):
    """One message by one way through all of a sweep's points. `taken`: at which of them it took that way; it is for
    these that what is expected has to hold."""

    message: str
    way: str
    expected: str
    holds: bool
    costs: list[float]
    taken: list[bool]

    def cells(self) -> list[str]:
        verdict = f"{self.expected}: {'holds' if self.holds else 'DOES NOT HOLD'}" if any(self.taken) else "not taken"
        costs = [f"{cost:.1f}" if taken else "parser's" for cost, taken in zip(self.costs, self.taken, strict=True)]
        return [f"  {self.message}, {self.way}", *costs, verdict]


def lines_of(sweep: Sweep, cells: dict[str, list[Cell]]) -> list[Line]:
    lines = []
    for at, message in enumerate(MESSAGES):
        for (way, each), expected in zip(cells.items(), sweep.expected, strict=True):
            costs, taken = [cell.costs[at] for cell in each], [cell.taken[at] for cell in each]
            these = [(point.value, cost) for point, cost, took in zip(sweep.points, costs, taken, strict=True) if took]
            lines.append(Line(message, way, expected, holds(expected, these), costs, taken))
    return lines


def table(sweep: Sweep, lines: list[Line], cells: dict[str, list[Cell]]) -> str:
    rows = [[sweep.title, *(f"{point.value:,}" for point in sweep.points), ""], *(line.cells() for line in lines)]
    if any(point.waiting for point in sweep.points):
        each = next(iter(cells.values()))
        rows.append(["  held for a replay", *(f"{cell.held:,}" for cell in each), f"bound: {MAX_ROWS:,}"])
        rows.append(["  fell out, oldest first", *(f"{cell.fell:,}" for cell in each), ""])
    return aligned(rows)


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    number = {"type": int, "metavar": "N"}
    tens = range(10, 501, 10)
    parser.add_argument("--messages", default=100, choices=tens, help="in a round (default 100)", **number)
    parser.add_argument("--rounds", default=7, choices=range(1, 21), help="1 to 20 (default 7)", **number)
    parser.add_argument("--only", nargs="+", choices=list(SWEEPS), metavar="NAME", help=", ".join(SWEEPS))
    parser.add_argument("--json", action="store_true", help="print everything measured as one JSON object")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    options = parse(argv)
    told: dict[str, object] = {}
    good = True
    if not options.json:
        python = platform.python_version()
        print(f"microseconds a message; {options.rounds} rounds of {options.messages}; Python {python}")
    for name in options.only or SWEEPS:
        sweep = SWEEPS[name]
        try:
            cells = measure(sweep, options.messages, options.rounds)
        except RuntimeError as error:
            print(f"cannot measure: {error}", file=sys.stderr)
            return 2
        lines = lines_of(sweep, cells)
        good = good and all(line.holds for line in lines)
        held, fell = zip(*((cell.held, cell.fell) for cell in cells["quick"]), strict=True)
        told[name] = {"values": [point.value for point in sweep.points], "held": held, "fell": fell,
                      "lines": [line._asdict() for line in lines]}  # fmt: skip
        if not options.json:
            print(f"\n{table(sweep, lines, cells)}")
    if options.json:
        print(json.dumps({**vars(options), "python": platform.python_version(), "sweeps": told}))
    return int(not good)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
