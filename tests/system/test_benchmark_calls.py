"""benchmarks/calls.py: what it takes for a wrong bill, and a small run of it with a real kill
-9."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from contextlib import suppress
from decimal import Decimal
from pathlib import Path

import pytest
from slee_kit import make_bill

from benchmarks.calls import PORTS, Talk, cost, parse, read_talks, wrong
from benchmarks.command import free
from slee_mock.services.bill_record import ServedBy

ROOT = Path(__file__).resolve().parents[2]


SERVER1 = (ServedBy("server1", 99.0),)


def bill(answered=100.0, ended=103.0, carriers=SERVER1):
    return make_bill("c", 99.0, answered=answered, ended=ended, carriers=carriers)


def test_a_bill_of_the_time_that_was_talked_is_right_whoever_carried_the_call():
    both = (ServedBy("server1", 99.0), ServedBy("server2", 101.5))
    assert (
        wrong(bill(), Talk("c", 100.01, 103.01))
        == wrong(bill(carriers=both), Talk("c", 100.01, 102.7))
        == ""
    )


@pytest.mark.parametrize(
    "faulty", [bill(ended=104.0), bill(ended=102.0), bill(ended=None), bill(answered=None)]
)
def test_a_bill_of_another_time_or_without_an_end_is_wrong(faulty):
    assert "talked 3.000 s" in wrong(faulty, Talk("c", 100.0, 103.0))


def test_the_price_is_worked_out_anew():
    assert [cost(seconds) for seconds in (-0.4, 0.0, 9.9, 10.0, 10.1, 20.5)] == [
        Decimal(text) for text in ("0.15", "0.15", "0.15", "0.15", "0.20", "0.25")
    ]


def test_what_sipp_wrote_down_is_read_to_the_microsecond(tmp_path):
    (tmp_path / "talks").write_text(
        "1-2@127.0.0.1 1700000000.000000 250000.000000 1700000003.000000 500000.000000\n"
    )
    (talk,) = read_talks(tmp_path / "talks")
    assert talk.call_id == "1-2@127.0.0.1" and talk.seconds == pytest.approx(3.25)


def test_a_number_beyond_reason_is_refused(capsys):
    with pytest.raises(SystemExit):
        parse(["--rate", "100000"])
    assert "--rate" in capsys.readouterr().err


def first_of(count):
    """The first of so many ports that nobody uses; above what the system gives to others."""
    for port in range(61_000, 65_000, count):
        with suppress(OSError):
            free(port, count)
            return port
    pytest.skip(f"no {count} free ports in a row")


@pytest.mark.long
@pytest.mark.skipif(not shutil.which("sipp"), reason="sipp is not installed")
def test_at_thirty_calls_a_second_a_killed_server_costs_no_call_and_no_bill():
    argv = ["--rate", "30", "--seconds", "8", "--talk", "2", "--json"]
    argv += ["--port", str(first_of(len(PORTS)))]
    done = subprocess.run(
        [sys.executable, "-S", "-m", "benchmarks.calls", *argv],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told["placed"] == told["completed"] == told["bills"] == 240
    assert told["failed"] == told["missing"] == 0 and told["wrong"] == []
    assert any(each.startswith("server1 ") for each in told["failovers"])
    assert {"forwarder", "server1", "server2"} <= set(told["cpu"])
