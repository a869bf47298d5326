"""Every scene plays by itself, without a screen, and what it expects is so."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from stage.scenes.catalogue import SCENES

ROOT = Path(__file__).resolve().parents[2]
SHORT = ("while-ringing",)  # the others take their time; .ci/run plays them all

CRASH = "server1 is killed."
# of some scenes, lines that must be said in this order
IN_ORDER = {
    "while-ringing": (
        "Bob's phone rings.",
        CRASH,
        "The other server has the call.",
        "Bob answers.",
    ),
    "before-200": ("Bob's phone rings.", "Bob answers.", CRASH, "Alice and Bob talk."),
    "at-bye": ("Alice and Bob talk.", "Alice hangs up.", CRASH, "The call is over at both phones."),
    "frozen": ("Alice and Bob talk.", "server1 is frozen.", "server1 runs on."),
}


def run(*arguments: str, seconds: float = 180) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "DISPLAY"}
    environment["QT_QPA_PLATFORM"] = "offscreen"
    return subprocess.run(
        [sys.executable, "-m", "stage", "play", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in SHORT else pytest.mark.long) for name in SCENES],
)
def test_a_scene_is_as_expected(name: str) -> None:
    process = run("--scene", name, "--json", "--free-ports")
    assert process.returncode == 0, process.stdout + process.stderr
    lines = process.stdout.splitlines()
    told = json.loads(lines[-1])
    assert told["scene"] == name and told["passed"]
    order = IN_ORDER.get(name, ())
    assert tuple(line for line in lines if line in order) == order
    assert lines[-2].startswith("Measured: ")
    if "takeover_ms" in told and told["takeover_ms"] is not None and name == "while-talking":
        assert 0 < told["takeover_ms"] < 500, "slower than T1, after which a phone asks again"
    if name == "hundred-calls":
        assert (told["kept"], told["lost"]) == (100, 0)
        assert told["gap_p50_ms"] <= told["gap_p99_ms"] < 5000


@pytest.mark.parametrize("optimized", ["0", "2"])
def test_the_scenes_are_listed_with_what_each_shows(
    monkeypatch: pytest.MonkeyPatch, optimized: str
) -> None:
    monkeypatch.setenv("PYTHONOPTIMIZE", optimized)
    process = run("--scenes")
    told = [line.split(maxsplit=1) for line in process.stdout.splitlines()]
    assert process.returncode == 0
    assert told == [[name, scene.moral] for name, scene in SCENES.items()]


def test_an_unknown_scene_is_told_with_those_there_are() -> None:
    process = run("--scene", "nonsense")
    assert process.returncode == 2 and "while-talking" in process.stdout


@pytest.mark.long
def test_the_story_is_one_file_that_needs_nothing_else(tmp_path: Path) -> None:
    report = tmp_path / "story.html"
    process = run("--talk", "4", "--free-ports", "--report", str(report))
    assert process.returncode == 0, process.stdout + process.stderr
    page = report.read_text(encoding="utf-8")
    assert re.findall(r"<figcaption>(\d)", page) == list("123456789")
    assert page.count("<svg") >= 10, "a figure per step, the time axis, the ladder"
    for part in ("Flight record of forwarder", "The bill", "INVITE", "Versions", "server1 killed"):
        assert part in page
    assert "src=" not in page and "<link" not in page and "<script" not in page


@pytest.mark.long
def test_a_call_that_does_not_come_about_is_told_with_the_reason(tmp_path: Path) -> None:
    balances = tmp_path / "balances.txt"
    balances.write_text("alice:0.12\n")
    process = run("--talk", "3", "--free-ports", "--deploy", f"prepaid:{balances}")
    assert process.returncode == 1
    assert "Alice calls Bob." in process.stderr and "balance is too small" in process.stderr
