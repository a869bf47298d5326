"""How much goes through: this forwarder beside Kamailio, under the same load, in turns.

    python -m benchmarks.throughput [--rounds 7] [--seconds 1] [--rate 2000] [--phones 2000]
                                    [--port 23900] [--only NAME ...] [--json]

Needs Linux and Python alone; Kamailio is measured where it is installed (Debian: apt install
kamailio; its settings are in benchmarks/kamailio/stateless.cfg). Everything stays on 127.0.0.1. All
stand ready at once and take turns in each round: as many requests as go through while 64 wait for
their answers, of one sender as on a trunk, then of many phones (many_phones.py); then a steady
rate, for the time that a forwarder adds. Each forwarder has one core, load and answering servers
have the others. Medians and ratios are printed, those of the ratios of each round [with quartiles],
for another round may see another computer.

Load and servers are Python as well. Where they are slower than what they measure, the forwarder's
core is not busy all the time: this is said, the requests a second are then the load's, and the CPU
a request is what counts. Exit status 1 if more than one in a thousand requests was not answered
with 200; 2 if it could not be measured.
"""

from __future__ import annotations

import argparse
import os
import random
import socket
import statistics
import struct
import sys
import time
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.command import Parser, aligned, free, print_json  # as a script, from anywhere
from benchmarks.load import METHODS, Address, Burst, Load, burst, lost, open_socket, request
from benchmarks.many_phones import crowd
from benchmarks.peers import ABSENT, Peer, available, scene

FORWARDERS = ("forwarder", "kamailio stateless")
WINDOW = 64  # requests that wait for their answers; more would wait in line, not go through
LULL = 0.2  # seconds without an answer after which what is missing counts as lost
BUSY = 0.95  # of its core's time: less, and the load is what could do no more
WARM_UP = 0.3  # seconds
Figures = dict[str, float]
ROWS = (
    ("rate", "requests/s", 0),
    ("busy", "its core busy, %", 0),
    ("cpu", "CPU a request, us", 1),
    ("phones_rate", "requests/s of many phones", 0),
    ("phones_busy", "its core busy then, %", 0),
    ("phones_cpu", "CPU a request then, us", 1),
    ("steady_cpu", "CPU a request at the steady rate, us", 1),
    ("p50", "added latency there, median, us", 0),
    ("p99", "added latency there, p99, us", 0),
    ("unanswered", "unanswered, %", 3),
    ("memory", "memory (PSS), MiB", 1),
)


# -- as many as go through -------------------------------------------------------------------------


def figures(burst: Burst, cpu: float) -> Figures:
    """`cpu`: seconds that the forwarder used meanwhile."""
    return {
        "rate": burst.answered / burst.seconds if burst.seconds else 0.0,
        "busy": 100 * cpu / burst.seconds if burst.seconds else 0.0,
        "cpu": cpu * 1e6 / max(1, burst.answered),
    }


def templates(own: str, word: str) -> list[bytes]:
    """A request for each method, its number left out three times."""
    return [request(method, own, "alice", "bob", f"{word}x%d", "t%d") for method in METHODS]


def trunk(target: Address, seconds: float) -> Burst:
    """All from one sender."""
    with open_socket(("127.0.0.1", 0)) as sock:
        sock.connect(target)
        # The kernel's own limit: Python's would ask poll() before every recv().
        sock.setsockopt(
            socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, int(LULL * 1e6))
        )
        texts = templates("{}:{}".format(*sock.getsockname()), f"burst{time.monotonic_ns()}")

        def send(number: int) -> None:
            sock.send(texts[number & 3] % (number, number, number))

        def receive() -> tuple[int, int]:
            try:
                return 1, sock.recv(65_535).startswith(b"SIP/2.0 200 ")
            except (BlockingIOError, ConnectionError):
                return 0, 0

        return burst(send, receive, seconds, WINDOW)


# -- a turn of each --------------------------------------------------------------------------------


def latency(target: Address, rate: float, seconds: float) -> tuple[float, float, float, int]:
    """(median, 99th of a hundred) in microseconds, at a steady rate; requests, those never
    answered."""
    asked = Load(target, rate).run(seconds, patience=0.5)
    times = sorted((one.answered - one.sent) * 1e6 for one in asked if one.answered is not None)
    if not times:
        raise RuntimeError(f"nothing at all is answered at {rate:g} requests/s")
    return statistics.median(times), times[len(times) * 99 // 100], len(asked), lost(asked)


def turn(peer: Peer, rate: float, phones: int, seconds: float) -> Figures:
    """All but what only makes sense beside the load's own delay."""
    before = peer.cpu()
    single = trunk(peer.listen, seconds)
    after_trunk = peer.cpu()
    many = crowd(peer.listen, phones, seconds, WINDOW, LULL)
    after_phones = peer.cpu()
    p50, p99, steady, missing = latency(peer.listen, rate, seconds)
    after = peer.cpu()
    unanswered = single.sent - single.answered + many.sent - many.answered + missing
    return {
        **figures(single, after_trunk - before),
        **{
            f"phones_{key}": value
            for key, value in figures(many, after_phones - after_trunk).items()
        },
        "steady_cpu": (after - after_phones) * 1e6 / max(1, steady - missing),
        "p50": p50,
        "p99": p99,
        "unanswered": 100 * unanswered / (single.sent + many.sent + steady),
        "memory": peer.memory(),
    }


def measure(names: list[str], options: argparse.Namespace) -> dict[str, list[Figures]]:
    results: dict[str, list[Figures]] = {name: [] for name in names}
    cores = sorted(os.sched_getaffinity(0))
    theirs, rest = (cores[:1], cores[1:]) if len(cores) > 1 else ((), cores)
    os.sched_setaffinity(0, rest)
    with ExitStack() as ending:
        ending.callback(os.sched_setaffinity, 0, cores)
        peers = {
            name: ending.enter_context(scene(name, options.port + 3 * n, theirs))
            for n, name in enumerate(names)
        }
        for peer in peers.values():
            trunk(peer.listen, WARM_UP)
            crowd(peer.listen, options.phones, WARM_UP, WINDOW, LULL)
        for number in range(options.rounds):
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
            direct = latency(peers[names[0]].servers[0].address, options.rate, options.seconds / 2)
            for name in random.sample(names, len(names)):
                figures = turn(peers[name], options.rate, options.phones, options.seconds)
                figures["p50"], figures["p99"] = (
                    figures["p50"] - direct[0],
                    figures["p99"] - direct[1],
                )
                results[name].append(figures)
    return results


# -- what is told ----------------------------------------------------------------------------------


def ratio(ours: list[Figures], theirs: list[Figures], key: str) -> str:
    """Median of the rounds' ratios [quartiles]."""
    found = sorted(a[key] / b[key] for a, b in zip(ours, theirs, strict=True) if b[key] > 0)
    if not found:
        return "-"
    quarter = len(found) // 4
    return f"{statistics.median(found):.2f} [{found[quarter]:.2f}..{found[-1 - quarter]:.2f}]"


def table(results: dict[str, list[Figures]]) -> str:
    ours, *others = results
    rows = [["", *results, *(f"{ours} / {other}" for other in others)]]
    for key, text, digits in ROWS:
        medians = [
            f"{statistics.median(run[key] for run in runs):,.{digits}f}"
            for runs in results.values()
        ]
        rows.append(
            [text, *medians, *(ratio(results[ours], results[other], key) for other in others)]
        )
    return aligned(rows)


def limited(results: dict[str, list[Figures]]) -> list[str]:
    """A sentence for each forwarder that could have done more than it was asked."""
    told = []
    for name, runs in results.items():
        for whose, kind in (("", ""), (" of many phones", "phones_")):
            busy, cpu = (
                statistics.median(run[kind + key] for run in runs) for key in ("busy", "cpu")
            )
            if busy < 100 * BUSY:
                told.append(
                    f"{name}: the load{whose} was the limit, its core was busy for {busy:.0f} % of "
                    "the time. "
                    f"By its CPU a request it could do {1e6 / cpu:,.0f} requests/s."
                )
    return told


def text(results: dict[str, list[Figures]], options: argparse.Namespace) -> str:
    lines = [
        f"{WINDOW} requests waiting all the time, of one sender, then of {options.phones} phones; "
        "then "
        f"{options.rate} a second; {options.rounds} rounds of three times {options.seconds:g} s; "
        "medians, ratios [quartiles]",
        "",
        table(results),
        "",
    ]
    lines += limited(results)
    if len(os.sched_getaffinity(0)) < 2:
        lines.append(
            "One core for all: load and servers take their share of it, so that requests/s mean "
            "little."
        )
    if len(available(FORWARDERS)) < len(FORWARDERS):
        lines.append(ABSENT)
    return "\n".join(lines).rstrip()


def parse(argv: list[str]) -> argparse.Namespace:
    parser = Parser(__doc__, 23900, "the five after it")
    parser.number("--rounds", 7, 100, "turns of each forwarder")
    parser.add_argument(
        "--seconds",
        type=float,
        default=1.0,
        help="of each of the three parts of a turn (0.1 to 10)",
    )
    parser.number("--rate", 2000, 5000, "the steady rate, requests a second", least=10)
    parser.number("--phones", 2000, 10_000, "phones")
    parser.names(FORWARDERS)
    options = parser.parse_args(argv)
    if not 0.1 <= options.seconds <= 10:
        parser.error("--seconds: 0.1 to 10")
    return options


def main(argv: list[str]) -> int:
    options = parse(argv)
    names = options.only or available(FORWARDERS)
    if not hasattr(os, "sched_getaffinity"):
        print("cannot measure: /proc and cores to choose are what Linux has", file=sys.stderr)
        return 2
    try:
        free(options.port, 3 * len(names))
        results = measure(names, options)
    except (OSError, OverflowError, RuntimeError, StopIteration) as error:
        print(f"cannot measure: {error}", file=sys.stderr)
        return 2
    if options.json:
        print_json(options, results=results, limited=limited(results))
    else:
        print(text(results, options))
    return int(
        any(statistics.median(run["unanswered"] for run in runs) > 0.1 for runs in results.values())
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
