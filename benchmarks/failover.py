"""Measures the cost of a failover to callers: this forwarder beside Kamailio, under the same load,
in one run.

    python benchmarks/failover.py [--runs 5] [--rate 1000] [--port 21900] [--only NAME ...] [--json]

Needs Python alone; Kamailio is measured where it is installed (Debian: apt install kamailio; its
settings are in benchmarks/kamailio/). Everything stays on 127.0.0.1. A run takes twenty seconds a
forwarder: requests at a steady rate while the first server is killed; is frozen and thawed; both
are killed and started again. Medians [least..most] are printed. Exit status 1 if this forwarder
lost a request while one of the servers lived; 2 if it could not be measured.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

# as a script, from anywhere
from benchmarks.command import Parser, aligned, free, print_json
from benchmarks.load import Address, Load, Server, gap, lost, repeated, stale
from benchmarks.peers import ABSENT, available, scene

Figures = dict[str, float | None]
ROWS = (
    ("kill.gap", "kill -9: longest time without an answer, ms"),
    ("kill.repeated", "kill -9: requests that had to be retransmitted"),
    ("kill.lost", "kill -9: requests never answered"),
    ("stop.gap", "SIGSTOP: longest time without an answer, ms"),
    ("stop.repeated", "SIGSTOP: requests that had to be retransmitted"),
    ("stop.lost", "SIGSTOP: requests never answered"),
    ("stop.stale", "SIGCONT: stale messages of the thawed server"),
    ("both.refused", "both down: first 503 after, ms"),
    ("both.unanswered", "both down: requests that got no answer at all"),
    ("both.back", "both back: first answer after, ms"),
)
FORWARDERS = ("forwarder", "kamailio dispatcher", "kamailio fast")


# -- what is done to their servers -----------------------------------------------------------------


def killed(listen: Address, servers: list[Server], rate: float) -> Figures:
    load = Load(listen, rate)
    asked = load.run(2.5, [(0.5, servers[0].kill)], patience=2.0)
    return {
        "kill.gap": gap(asked, load.began + 0.45, load.began + 2.5) * 1000,
        "kill.repeated": repeated(asked),
        "kill.lost": lost(asked),
    }


def frozen(listen: Address, servers: list[Server], rate: float) -> Figures:
    load = Load(listen, rate)
    asked = load.run(3.0, [(0.5, servers[0].freeze), (2.0, servers[0].thaw)], patience=2.0)
    return {
        "stop.gap": gap(asked, load.began + 0.45, load.began + 2.0) * 1000,
        "stop.repeated": repeated(asked),
        "stop.lost": lost(asked),
        "stop.stale": stale(asked, load.began + 2.0, servers[0].name),
    }


def both(listen: Address, servers: list[Server], rate: float) -> Figures:
    load = Load(listen, rate)
    asked = load.run(
        4.5,
        [
            (0.5, lambda: [server.kill() for server in servers]),
            (2.0, lambda: [server.restart() for server in servers]),
        ],
        patience=0.5,
    )
    down, back = load.began + 0.5, load.began + 2.0
    refused = [
        at for one in asked for at, status, _ in one.answers if status == 503 and down <= at < back
    ]
    served = [at for one in asked for at, status, _ in one.answers if status < 300 and at >= back]
    return {
        "both.refused": (min(refused) - down) * 1000 if refused else None,
        "both.unanswered": sum(not one.answers for one in asked if down <= one.sent < back),
        "both.back": (min(served) - back) * 1000 if served else None,
    }


def measure(name: str, port: int, rate: float) -> Figures:
    figures: Figures = {}
    for play in (killed, frozen, both):
        with scene(name, port) as peer:
            figures |= play(peer.listen, peer.servers, rate)
    return figures


# -- the table -------------------------------------------------------------------------------------


def cell(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "never"
    never = f", {len(values) - len(known)}x never" if len(known) < len(values) else ""
    return f"{statistics.median(known):.0f} [{min(known):.0f}..{max(known):.0f}{never}]"


def table(results: dict[str, list[Figures]]) -> str:
    rows = [["", *results]]
    rows += [
        [text, *(cell([run[key] for run in runs]) for runs in results.values())]
        for key, text in ROWS
    ]
    return aligned(rows)


def main() -> int:
    parser = Parser(__doc__, 21900, "the two after it")
    parser.number("--runs", 5, 100, "runs of each forwarder")
    parser.number("--rate", 1000, 5000, "requests a second", least=10)
    parser.names(FORWARDERS)
    options = parser.parse_args()
    names = options.only or available(FORWARDERS)
    try:
        free(options.port, 3)
        results: dict[str, list[Figures]] = {name: [] for name in names}
        for run in range(options.runs):
            for name in names:
                print(f"run {run + 1} of {options.runs}: {name}", file=sys.stderr)
                results[name].append(measure(name, options.port, options.rate))
    except (OSError, OverflowError, RuntimeError, StopIteration) as error:
        print(f"cannot measure: {error}", file=sys.stderr)
        return 2
    if options.json:
        print_json(options, results=results)
    else:
        print(f"{options.rate} requests a second, {options.runs} runs; median [least..most]\n")
        print(table(results))
        if len(available(FORWARDERS)) < len(FORWARDERS):
            print(f"\n{ABSENT}")
    return int(any(run["kill.lost"] or run["stop.lost"] for run in results.get("forwarder", ())))


if __name__ == "__main__":
    sys.exit(main())
