"""benchmarks/profile.py and growth.py: that they measure what the core does, and what "grows as expected" means."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import profile
from benchmarks.flow import Step, make_core, play
from benchmarks.growth import FLAT, LINEAR, SWEEPS, Line, holds
from failover.inflight import MAX_ROWS
from failover.settings import PHONES

ROOT = Path(__file__).resolve().parent.parent


def run(module, *argv):
    return subprocess.run([sys.executable, "-S", "-m", f"benchmarks.{module}", *argv], cwd=ROOT, capture_output=True,
                          text=True, timeout=60)  # fmt: skip


def test_the_calls_that_are_measured_pass_and_leave_nothing_in_flight():
    core, steps = make_core(), []

    def through(step, messages):
        steps.append(step)
        return [core.receive(data, step.leg, step.source, 100.0).sends[0].data for data in messages]

    play(core, through, range(3), vias=4, lines=5)
    assert core.counters["passed.requests"] + core.counters["passed.responses"] == sum(core.counters.values()) == 3 * 16
    assert len(core.inflight) == 0
    kinds = {(step.kind.split()[0], step.leg == PHONES) for step in steps}
    assert {(kind, side) for kind in ("INVITE", "180", "200", "ACK", "BYE") for side in (True, False)} < kinds


def test_every_kind_of_message_has_its_stages_and_takes_the_quick_way():
    done = run("profile", "--calls", "10", "--rounds", "1", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told["slow"] == [] and len(told["octets"]) == 16
    for way in profile.WAYS:
        assert told[way].keys() == told["octets"].keys()
        assert all(set(costs) >= set(profile.COLUMNS) and costs["parse"] > 0 for costs in told[way].values())


def test_the_table_of_the_stages_has_a_line_for_each_kind_of_message():
    done = run("profile", "--calls", "10", "--rounds", "1")
    assert done.returncode == 0, done.stderr
    for step in (Step("INVITE", PHONES, ("", 0)), Step("200 (BYE)", "server1", ("", 0))):
        assert sum(line.startswith(f"{step} ") for line in done.stdout.splitlines()) == len(profile.WAYS)


@pytest.mark.parametrize("expected, costs, verdict", [
    (FLAT, [5.0, 9.0, 6.0], True),
    (FLAT, [5.0, 6.0, 11.0], False),
    (LINEAR, [5.0, 10.0, 20.0], True),
    (LINEAR, [5.0, 20.0, 260.0], False),  # four times as many, sixteen times as dear
    (LINEAR, [5.0, 5.0, 80.0], False),
])  # fmt: skip
def test_what_is_expected_holds_or_does_not(expected, costs, verdict):
    assert holds(expected, list(zip([0, 16, 64], costs, strict=True))) is verdict


def test_where_the_parser_had_to_help_the_table_says_so():
    line = Line("INVITE", "quick", LINEAR, True, [5.0, 90.0], [True, False])
    assert line.cells() == ["  INVITE, quick", "5.0", "parser's", "linear: holds"]


def test_growth_is_told_with_its_verdicts():
    done = run("growth", "--messages", "10", "--rounds", "1", "--only", "vias", "--json")
    told = json.loads(done.stdout)["sweeps"]["vias"]
    verdicts = [line["holds"] for line in told["lines"]]
    assert done.returncode == (0 if all(verdicts) else 1) and len(verdicts) == 4
    assert told["values"] == [1, 2, 8, 32, 64]


@pytest.mark.long
def test_with_a_hundred_thousand_calls_in_flight_the_bound_steps_in():
    done = run("growth", "--messages", "10", "--rounds", "1", "--only", "waiting", "--json")
    told = json.loads(done.stdout)["sweeps"]["waiting"]
    assert max(told["held"]) <= MAX_ROWS < told["fell"][-1]


def test_growth_prints_a_table_for_each_sweep():
    done = run("growth", "--messages", "10", "--rounds", "1", "--only", "servers")
    assert done.returncode in (0, 1), done.stderr
    assert done.stdout.splitlines()[2].startswith(SWEEPS["servers"].title)
