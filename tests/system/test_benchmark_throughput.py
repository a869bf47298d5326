"""benchmarks/throughput.py runs, says what it promises to say, and says when it was itself the
limit."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from process_kit import three_ports

from benchmarks.load import METHODS
from benchmarks.many_phones import texts
from benchmarks.throughput import ROWS, limited, main, parse, ratio, table
from sip.message import parse as parse_message

ROOT = Path(__file__).resolve().parents[2]


def figures(**some):
    return {**{key: 1.0 for key, *_ in ROWS}, "phones_busy": 99.0, **some}


def test_a_ratio_is_the_median_of_the_rounds_ratios_with_quartiles():
    ours, theirs = [figures(cpu=float(n)) for n in (1, 2, 3, 4, 100)], [figures(cpu=2.0)] * 5
    assert ratio(ours, theirs, "cpu") == "1.50 [1.00..2.00]"
    assert ratio(ours, [figures(cpu=0.0)] * 5, "cpu") == "-"


def test_the_table_has_a_column_for_each_forwarder_and_one_for_the_ratios():
    lines = table({"a": [figures()], "b": [figures()]}).splitlines()
    assert len(lines) == len(ROWS) + 1 and lines[0].split() == ["a", "b", "a", "/", "b"]


def test_it_is_said_when_not_the_forwarder_but_the_load_could_do_no_more():
    busy = figures(busy=99.0)
    (told,) = limited({"a": [busy], "b": [{**busy, "busy": 70.0, "cpu": 20.0}]})
    assert (
        told.startswith("b: the load was the limit")
        and "70 %" in told
        and "50,000 requests/s" in told
    )
    (told,) = limited({"a": [{**busy, "phones_busy": 70.0, "phones_cpu": 20.0}]})
    assert (
        told.startswith("a: the load of many phones was the limit") and "50,000 requests/s" in told
    )


def test_every_phone_says_all_that_a_parser_wants_in_its_own_way():
    said = [
        text % (7, 7, 7)
        for number in range(40)
        for text in texts(number, f"127.0.0.1:{20_000 + number}", "w")
    ]
    read = [parse_message(text) for text in said]
    assert {message.method for message in read} == set(METHODS)
    assert all(int(message.get("Content-Length")) == len(message.body) for message in read)
    assert len({message.call_id for message in read}) == 40, (
        "a phone is told from the others by its Call-ID"
    )
    assert len({tuple(field.name for field in message.fields) for message in read}) > 8
    assert len({len(text) for text in said}) > 60


@pytest.mark.parametrize("argv", [["--seconds", "100"], ["--rounds", "0"], ["--only", "nobody"]])
def test_what_is_beyond_reason_is_refused(argv, capsys):
    with pytest.raises(SystemExit) as refused:
        parse(argv)
    assert refused.value.code == 2 and argv[0] in capsys.readouterr().err


def test_a_port_that_is_taken_is_an_exit_status_of_two(capsys):
    assert main(["--port", "70000"]) == 2
    assert "cannot measure" in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
@pytest.mark.parametrize("name", ["forwarder", "kamailio stateless"])
def test_a_short_run_gives_every_figure(name):
    if name.startswith("kamailio") and not shutil.which("kamailio"):
        pytest.skip("kamailio is not installed")
    argv = [
        sys.executable,
        "-S",
        "-m",
        "benchmarks.throughput",
        "--rounds",
        "1",
        "--seconds",
        "0.3",
        "--rate",
        "200",
    ]
    argv += ["--phones", "50"]
    argv += ["--port", str(three_ports()), "--only", name, "--json"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = json.loads(done.stdout)["results"][name]
    assert set(run) == {key for key, *_ in ROWS}
    assert run["rate"] > 0 and run["cpu"] > 0 and run["memory"] > 1 and run["unanswered"] < 0.1
