"""Programs of the stage: ready in time or a sentence why not, a real SIGKILL, nothing left behind
whatever happens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from stage.processes.cleanup_process import read_wishes
from stage.processes.cluster import Cluster, Ports
from stage.processes.program import CleanupProcess, Program, StartError

ROOT = Path(__file__).resolve().parents[2]
WAITS = "import signal, sys; print('hello'); print('ready: yes', flush=True); signal.pause()"
DEAF = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print('ready: deaf', flush=True)
while True: signal.pause()
"""


def script(text: str, name: str = "server1", **options: object) -> Program:
    return Program(name, [sys.executable, "-S", "-c", text], **options)  # type: ignore[arg-type]


def gone(pid: int) -> bool:
    """True when no such process runs; an unreaped one (the container's first process may never
    reap) counts as gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return sys.platform == "linux"


def test_start_returns_once_the_program_says_it_is_ready() -> None:
    program = script(WAITS)
    program.start()
    assert program.alive
    program.stop()
    assert not program.alive
    program.stop()


def test_a_kill_is_sigkill_and_the_end_is_reaped_and_told() -> None:
    ended: list[int] = []
    told = threading.Event()
    program = script(WAITS, on_end=lambda who, status: (ended.append(status), told.set()))
    program.start()
    before = time.monotonic()
    assert before <= program.send(signal.SIGKILL) <= time.monotonic()
    assert told.wait(5)
    assert ended == [-signal.SIGKILL] and program.status == -signal.SIGKILL and not program.alive
    program.stop()


def test_a_killed_program_starts_again_as_it_was() -> None:
    program = script(WAITS)
    program.start()
    first = program.pid
    program.send(signal.SIGKILL)
    program.stop()
    program.start()
    assert program.alive and program.pid != first
    program.stop()


def test_a_program_that_fails_is_quoted_in_its_own_words() -> None:
    program = script(
        "import sys; print('listening'); sys.exit('127.0.0.1:5060 is taken by another program.')"
    )
    with pytest.raises(StartError, match=r"^127\.0\.0\.1:5060 is taken by another program\.$"):
        program.start()
    assert not program.alive
    program.stop()


def test_a_program_that_fails_without_a_word_is_named_with_its_status() -> None:
    program = script("raise SystemExit(3)")
    with pytest.raises(StartError, match="server1 ended with status 3 before it was ready"):
        program.start()


def test_a_program_that_never_gets_ready_is_stopped_at_the_deadline() -> None:
    program = script(
        "import signal, sys; print('still busy', file=sys.stderr, flush=True); signal.pause()"
    )
    with pytest.raises(StartError, match=r"server1 was not ready after 0.5 s. It said: still busy"):
        program.start(timeout=0.5)
    assert not program.alive


def test_a_program_that_does_not_exist_is_a_sentence() -> None:
    with pytest.raises(StartError, match="server1 cannot be started"):
        Program("server1", ["/no/such/program"]).start()


def test_a_program_deaf_to_sigterm_is_killed_after_the_timeout() -> None:
    program = script(DEAF)
    program.start()
    program.stop(timeout=0.2)
    assert program.status == -signal.SIGKILL


def test_starting_twice_is_refused() -> None:
    program = script(WAITS)
    program.start()
    with pytest.raises(StartError, match="already running"):
        program.start()
    program.stop()


def test_the_keeper_forgets_programs_that_ended() -> None:
    assert read_wishes(["keep 7\n", "keep 8\n", "forget 7\n", "folder /tmp/a b\n"]) == (
        {8},
        ["/tmp/a b"],
    )


def test_the_keeper_removes_what_is_left_when_it_is_closed(
    tmp_path: Path, eventually: Callable[..., None]
) -> None:
    cleanup = CleanupProcess()
    left = subprocess.Popen([sys.executable, "-S", "-c", WAITS], stdout=subprocess.DEVNULL)
    folder = tmp_path / "store"
    folder.mkdir()
    (folder / "calls.db").write_text("x")
    cleanup.keep(left.pid)
    cleanup.folder(folder)
    reaper = threading.Thread(target=left.wait)  # it is ours: only we can make its number free
    reaper.start()
    cleanup.close()
    reaper.join()
    assert left.returncode == -signal.SIGKILL
    assert not folder.exists()
    cleanup.close()


STAGE = """
import sys, time
sys.path.insert(0, {root!r})
from stage.processes.program import CleanupProcess, Program
cleanup = CleanupProcess()
cleanup.folder({folder!r})
program = Program("server1", [sys.executable, "-S", "-c", {waits!r}], cleanup=cleanup)
program.start()
print(program.pid, flush=True)
time.sleep(60)
"""


def test_programs_and_folder_go_with_a_stage_that_is_killed(
    tmp_path: Path, eventually: Callable[..., None]
) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    stage = subprocess.Popen(
        [sys.executable, "-c", STAGE.format(root=str(ROOT), folder=str(folder), waits=WAITS)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert stage.stdout is not None
    with stage.stdout:
        pid = int(stage.stdout.readline())
        assert not gone(pid)
        stage.kill()
        stage.wait()
    eventually(lambda: gone(pid))
    eventually(lambda: not folder.exists())


def test_a_demonstration_ended_while_it_starts_gives_up_and_leaves_nothing() -> None:
    cluster = Cluster(Ports.free())
    cluster.abort_start()
    with pytest.raises(StartError, match="ended while it started"):
        cluster.start()
    cluster.stop()
    assert not any(program.alive for program in cluster.programs.values())
    assert not cluster.folder.exists()


def test_the_cluster_runs_and_a_killed_server_comes_back_as_it_was(
    eventually: Callable[..., object],
) -> None:
    ended: list[tuple[str, int]] = []
    cluster = Cluster(Ports.free(), on_end=lambda name, status: ended.append((name, status)))
    try:
        cluster.start()
        first = cluster.programs["server1"].pid
        cluster.programs["server1"].send(signal.SIGKILL)
        eventually(lambda: ended == [("server1", -signal.SIGKILL)])
        cluster.restart("server1")
        cluster.restart("server1")
        assert cluster.programs["server1"].alive and cluster.programs["server1"].pid != first
    finally:
        cluster.stop()
    cluster.stop()
    assert [name for name, _ in ended][1:] and not cluster.folder.exists()


@pytest.mark.parametrize("pair", [False, True])
def test_an_address_that_another_demonstration_has_is_refused_and_not_waited_for(
    pair: bool,
) -> None:
    first = Cluster(Ports.free())
    second = Cluster(replace(Ports.free(), forwarder=first.ports.forwarder), pair=pair)
    try:
        first.programs["forwarder"].start()
        with pytest.raises(StartError, match="in use"):
            second.start()
        second.stop()
        assert second.ports.taken(), "so the option --free-ports is named"
        assert not Ports.free().taken()
    finally:
        second.stop()
        first.stop()
    assert not any(program.alive for program in second.programs.values())
