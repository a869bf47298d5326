"""benchmarks/failover.py runs and says what it promises to say."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from process_kit import three_ports

from benchmarks.failover import ROWS, cell, table

ROOT = Path(__file__).resolve().parents[2]


def bench(port, *more, timeout=60):
    argv = [
        sys.executable,
        "-S",
        str(ROOT / "benchmarks" / "failover.py"),
        "--runs",
        "1",
        "--port",
        str(port),
        *more,
    ]
    return subprocess.run(argv, capture_output=True, text=True, timeout=timeout)


def test_medians_least_and_most_and_what_never_happened_share_a_cell():
    assert cell([1.0, 5.0, 2.0]) == "2 [1..5]"
    assert cell([1.0, None]) == "1 [1..1, 1x never]"
    assert cell([None, None]) == "never"


def test_the_table_has_a_row_for_each_figure_and_a_column_for_each_forwarder():
    run = dict.fromkeys((key for key, _ in ROWS), 1.0)
    lines = table({"a": [run], "b": [run]}).splitlines()
    assert len(lines) == len(ROWS) + 1 and lines[0].split() == ["a", "b"]


@pytest.mark.long
@pytest.mark.parametrize("name", ["forwarder", "kamailio dispatcher", "kamailio fast"])
def test_a_short_run_gives_every_figure(name):
    if name.startswith("kamailio") and not shutil.which("kamailio"):
        pytest.skip("kamailio is not installed")
    done = bench(three_ports(), "--rate", "200", "--json", "--only", name)
    assert done.returncode == 0, done.stderr
    (run,) = json.loads(done.stdout)["results"][name]
    assert set(run) == {key for key, _ in ROWS}
    assert run["kill.lost"] == run["stop.lost"] == 0 and run["both.refused"] is not None


def test_a_number_out_of_range_is_told_with_its_limits_alone():
    done = bench(21900, "--runs", "0")
    assert done.returncode == 2
    assert done.stderr.endswith("argument --runs: 0 is not between 1 and 100\n")
