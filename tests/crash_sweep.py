"""Where the crash may fall: every message that a server handles in every flow of calls, and what
became of the call.

    python3 tests/crash_sweep.py [--processes] [--seeds N] [--flow NAME ...] [--json]

One server dies when it has received the message, or when it has saved what comes of it and sent
nothing. In memory, on one fake clock, it is killed for good, killed and back after two seconds,
frozen for two seconds, or answers heartbeats and nothing else; with --processes the real programs
run and it is killed by SIGKILL. --seeds plays all of it again in N networks that lose every twelfth
datagram and let others overtake. --outage has both servers die at each message instead, and come
back after two or ten seconds, or one of them; meanwhile people hang up, answer or do nothing.
Printed is what the phones' people noticed, and by how much the bill differs from their talk. The
exit status is 1 if a call was lost or billed wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "kits"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from outage_sweep_kit import BOTH, MAIN_DEEDS, OUTAGES, sweep_outages
from sweep_kit import BACK, FATES, FLOWS, FROZEN, KILLED, POINTS, ZOMBIE, Cell, Flow, sweep
from sweep_process_kit import sweep_process_outages, sweep_processes

COLUMNS = [(point, fate) for point in POINTS for fate in (*FATES, *OUTAGES)]
SHORT = {KILLED: "killed", BACK: "back", FROZEN: "frozen", ZOMBIE: "zombie"}
SHORT |= dict(zip(OUTAGES, ("both, 2 s", "both, 10 s", "one back"), strict=True))


def played(flows: list[Flow], options: argparse.Namespace) -> Iterator[Cell]:
    if options.outage and options.processes:
        yield from sweep_process_outages(fates=[BOTH], deeds=MAIN_DEEDS)
        return
    if options.outage:
        yield from sweep_outages()
        return
    if options.processes:
        yield from sweep_processes([flow for flow in flows if not flow.timed])
        return
    for seed in (None, *range(options.seeds)):
        for flow in flows:
            yield from sweep(flow, seed)


def line(cell: Cell) -> str:
    seed = "" if cell.seed is None else f"  (network {cell.seed})"
    bill = f"; bill {cell.bill_error:+.3f} s" if cell.bill_error else ""
    where = f"{cell.flow}: {cell.step}"
    return (
        f"{where:40} {cell.point:16} {cell.fate:24} "
        f"{cell.verdict}{'' if cell.trouble else bill}{seed}"
    )


def table(cells: list[Cell]) -> Iterator[str]:
    """One row a step: how late it was and by how much the bill is off, for each kind of crash that
    was tried."""
    columns = [
        column for column in COLUMNS if any((cell.point, cell.fate) == column for cell in cells)
    ]
    yield " " * 38 + "".join(f"{point + ',':>18}" for point, _ in columns)
    yield f"{'step':38}" + "".join(f"{SHORT[fate]:>18}" for _, fate in columns)
    for (flow, step), row in groupby(cells, lambda cell: (cell.flow, cell.step)):
        known = {(cell.point, cell.fate): brief(cell) for cell in row}
        yield f"{flow + ': ' + step:38}" + "".join(
            f"{known.get(column, ''):>18}" for column in columns
        )


def brief(cell: Cell) -> str:
    if cell.trouble:
        return "LOST"
    bill = f", {cell.bill_error:+.2f} s" if abs(cell.bill_error) >= 0.005 else ""
    return cell.verdict.removeprefix("delayed by ") + bill


def summary(cells: list[Cell]) -> str:
    lost = [cell for cell in cells if cell.trouble]
    kept = [cell for cell in cells if not cell.trouble]
    worst = max((cell.delay for cell in kept), default=0.0)
    bill = max((abs(cell.bill_error) for cell in kept), default=0.0)
    calls = f"{len(cells)} crashes: {len(kept)} calls kept, {len(lost)} lost or billed wrong"
    return (
        f"{calls}; delayed by {worst * 1000:.0f} ms at most, bills {bill:.3f} s off the talk at "
        "most"
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--processes", action="store_true", help="real programs, real sockets, SIGKILL"
    )
    parser.add_argument(
        "--outage", action="store_true", help="both servers die, of flows of their own"
    )
    parser.add_argument(
        "--seeds", type=int, default=0, choices=range(1001), metavar="N", help="bad networks (none)"
    )
    parser.add_argument(
        "--flow", nargs="+", choices=list(FLOWS), metavar="NAME", help=", ".join(FLOWS)
    )
    parser.add_argument("--json", action="store_true", help="print every cell as one JSON object")
    options = parser.parse_args()
    flows = [FLOWS[name] for name in options.flow or FLOWS]
    try:
        cells = list(played(flows, options))
    except (OSError, RuntimeError, AssertionError) as error:
        print(f"cannot measure: {error}", file=sys.stderr)
        return 1
    lost = [cell for cell in cells if cell.trouble]
    if options.json:
        print(json.dumps({"summary": summary(cells), "cells": [cell.as_json() for cell in cells]}))
        return 1 if lost else 0
    print("\n".join(table([cell for cell in cells if cell.seed is None])))
    for cell in lost:
        print(line(cell))
    for bad, group in groupby(cells, lambda cell: cell.seed is not None):
        print(("In networks that lose and reorder, " if bad else "") + summary(list(group)))
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
