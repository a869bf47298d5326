"""`python -m stage play` as a program: what it prints, saves and leaves behind, however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from process_kit import wait_until
from PySide6.QtGui import QImage
from stage_kit import processes_of

from stage.options import parse
from stage.processes.cluster import port_in_use

ROOT = Path(__file__).resolve().parents[2]
Run = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """run("play", ...) -> the program, its temporary folder in `tmp_path`; killed if the test
    leaves it running."""
    started: list[subprocess.Popen[str]] = []
    environment = {
        key: value for key, value in os.environ.items() if key not in ("DISPLAY", "WAYLAND_DISPLAY")
    }
    environment |= {"TMPDIR": str(tmp_path), "QT_QPA_PLATFORM": "offscreen"}

    def start(*arguments: str) -> subprocess.Popen[str]:
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "stage", *arguments, "--free-ports"],
                cwd=ROOT,
                env=environment,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        )
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def until_line(process: subprocess.Popen[str], beginning: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(beginning):
            return
    pytest.fail(f"it ended without saying {beginning!r}")


@pytest.mark.long
def test_the_play_observes_all_nine_steps_and_measures_them(run: Run, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    process = run("play", "--json", "--talk", "4", "--screenshots", str(pictures))
    out, errors = process.communicate(timeout=60)
    lines = out.splitlines()
    assert process.returncode == 0, out + errors
    assert [line.partition(".")[0] for line in lines[:-1]] == [
        str(number) for number in range(1, 10)
    ]
    told = json.loads(lines[-1])
    assert list(told) == [
        "steps",
        "talk_seconds",
        "bill",
        "takeover_ms",
        "rtp_longest_gap_ms",
        "rtp_lost",
        "retransmissions",
    ]
    assert [(step["number"], step["observed"]) for step in told["steps"]] == [
        (n, True) for n in range(1, 10)
    ]
    assert (
        told["bill"]["server"] == "server2"
        and float(told["bill"]["total"]) > 0
        and told["bill"]["currency"]
    )
    assert abs(told["bill"]["seconds"] - told["talk_seconds"]) <= 1
    assert 0 < told["takeover_ms"] < 500, (
        "slower than T1, after which a phone would have asked again"
    )
    assert told["rtp_lost"] == 0 and told["retransmissions"] == 0 and told["rtp_longest_gap_ms"] > 0
    for number in range(1, 10):
        picture = QImage(str(pictures / f"step-{number}.png"))
        assert (picture.width(), picture.height()) == (1280, 800)
        assert (
            len({picture.pixel(x, y) for x in range(0, 1280, 16) for y in range(0, 800, 16)}) > 10
        )
    assert not processes_of(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["pictures"]


@pytest.mark.long
def test_the_play_with_two_forwarders_observes_one_step_more(run: Run, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    process = run("play", "--pair", "--json", "--talk", "5", "--screenshots", str(pictures))
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 0, out + errors
    told = json.loads(out.splitlines()[-1])
    numbers = [1, 2, 3, 4, 5, 6, 7, "7a", 8, 9]
    assert [(step["number"], step["observed"]) for step in told["steps"]] == [
        (number, True) for number in numbers
    ]
    assert [line.partition(".")[0] for line in out.splitlines()[:-1]] == [
        str(number) for number in numbers
    ]
    assert 0 < told["forwarder_takeover_ms"] < 500 and 0 < told["takeover_ms"] < 500, (
        "slower than T1"
    )
    assert told["rtp_lost"] == 0 and told["retransmissions"] == 0
    assert (
        told["bill"]["server"] == "server2"
        and abs(told["bill"]["seconds"] - told["talk_seconds"]) <= 1
    )
    assert sorted(path.name for path in pictures.iterdir()) == sorted(
        f"step-{number}.png" for number in numbers
    )
    assert not processes_of(tmp_path)


@pytest.mark.long
def test_without_a_display_the_window_is_not_missed_and_the_play_begins(run: Run) -> None:
    process = run("--talk", "3")
    out, errors = process.communicate(timeout=60)
    assert out.startswith("There is no display: ") and "plays by itself" in out.splitlines()[0]
    assert (
        "9. Server2's management page shows the total bill." in out and process.returncode == 0
    ), errors


@pytest.mark.long
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_a_play_ended_in_the_middle_has_not_observed_the_rest(
    run: Run, tmp_path: Path, ending: int
) -> None:
    process = run("play", "--json")
    until_line(process, "4.")
    process.send_signal(ending)
    out, errors = process.communicate(timeout=20)
    told = json.loads(out.splitlines()[-1])
    assert process.returncode == 1 and errors == "Stopped before the end.\n"
    assert [step["number"] for step in told["steps"] if step["observed"]] == [1, 2, 3, 4]
    assert told["bill"] is None and told["takeover_ms"] is None
    assert not processes_of(tmp_path) and not list(tmp_path.iterdir())


def test_ended_while_starting_it_leaves_nothing(run: Run, tmp_path: Path) -> None:
    process = run("play")
    wait_until(lambda: processes_of(tmp_path), 20.0)
    process.terminate()
    process.communicate(timeout=20)
    assert process.returncode == 1
    assert not processes_of(tmp_path) and not list(tmp_path.iterdir())


@pytest.mark.long
def test_everything_goes_with_a_stage_that_is_killed(
    run: Run, tmp_path: Path, eventually: Callable[..., object]
) -> None:
    process = run("play")
    until_line(process, "4.")
    assert len(processes_of(tmp_path)) == 3
    process.kill()
    process.wait()
    eventually(lambda: not processes_of(tmp_path))
    eventually(lambda: not list(tmp_path.iterdir()))


def test_a_talk_too_short_to_crash_a_server_in_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        parse(["play", "--talk", "1"])
    assert "between 3 and 3600 seconds" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "path"),
    [("--report", "/nonexist/x.html"), ("--report", "/proc/x"), ("--screenshots", "/proc/x")],
)
def test_a_place_where_nothing_can_be_saved_is_told_before_the_play(
    run: Run, option: str, path: str
) -> None:
    out, errors = run("play", option, path).communicate(timeout=20)
    assert not out and errors.startswith(f"{option} {path}: ") and errors.count("\n") == 1


def test_a_second_demo_is_told_which_one_is_running(tmp_path: Path) -> None:
    complaint = (
        "Address already in use (127.0.0.1:5060): sipsak (pid 4713) has this port; stop it, or "
        "choose another in forwarder.properties"
    )
    folder = tmp_path / "call-failover-4711-x7k"
    folder.mkdir()
    settings = folder / "forwarder.properties"
    settings.write_text("forwarder.listen=127.0.0.1:40123\n")  # it took --free-ports
    other = port_in_use(complaint, tmp_path)
    assert other.endswith("sipsak (pid 4713) has this port: end it, or add --free-ports.")
    settings.write_text("forwarder.listen=127.0.0.1:5060\n")
    demo = "Another demo is running (pid 4711): end it, or add --free-ports."
    assert port_in_use(complaint, tmp_path) == demo


DEMO = [sys.executable, str(ROOT / "demo.py"), "play", "--free-ports"]
GREETER = """
from slee_mock.container.events import RequestEvent
from slee_mock.container.sbb import InitialEvent

class Greeter:
    name = "greeter"
    events = (InitialEvent(RequestEvent, name=str, when=lambda event: False),)
    handle = None

def deploy(context, argument):
    assert argument == "Hello"
    return Greeter()
"""


@pytest.mark.long
def test_a_service_and_a_store_are_those_of_the_persons_folder(tmp_path: Path) -> None:
    (tmp_path / "greeter.py").write_text(GREETER)
    wishes = ["--talk", "3", "--deploy", "greeter:Hello", "--store", "my.db"]
    done = subprocess.run(
        [*DEMO, *wishes], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "my.db").exists()


@pytest.mark.parametrize("seconds", [0.15, 0.4, 0.8, 1.2])
def test_ctrl_c_while_it_starts_is_answered_with_a_sentence(seconds: float) -> None:
    process = subprocess.Popen(
        DEMO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    time.sleep(seconds)  # a moment, no condition: while another program of the start-up imports
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode in (1, 128 + signal.SIGINT)
    assert "topped" in errors and errors.count("\n") == 1
