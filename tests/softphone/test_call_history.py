"""The list of the last calls: what each came to, and that no kill, no full disk and no damage loses another's entry."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from softphone import call_history
from softphone.call_history import MAX_CALLS, CallHistory, Outcome, PastCall, past_call
from softphone.ua.events import CallState, CallView, Direction

CALL_TRANSITIONS = PastCall(
    "sip:bob@failover.test", "Bob", Outcome.PLACED, 1_700_000_000.0, 12.5, "Bob hung up"
)


def view(direction, status=None, answered_at=None, ended_at=50.0):
    sentence = "It is over"
    return CallView(
        "id",
        direction,
        "Bob",
        "sip:bob@failover.test",
        CallState.ENDED,
        sentence,
        50.0,
        answered_at,
        ended_at,
        status=status,
    )


@pytest.mark.parametrize(
    ("direction", "status", "answered_at", "outcome"),
    [
        (Direction.INCOMING, 200, 38.0, Outcome.ANSWERED),
        (Direction.INCOMING, 603, None, Outcome.DECLINED),
        (Direction.INCOMING, 487, None, Outcome.MISSED),
        (Direction.INCOMING, 480, None, Outcome.MISSED),
        (Direction.OUTGOING, 200, 38.0, Outcome.PLACED),
        (Direction.OUTGOING, 486, None, Outcome.UNANSWERED),
    ],
)
def test_what_a_call_came_to(direction, status, answered_at, outcome):
    entry = past_call(view(direction, status, answered_at), 51.0, 1000.0)
    assert (entry.outcome, entry.reason) == (outcome, "It is over")
    assert entry.seconds == (12.0 if answered_at else 0.0)
    assert entry.started == (987.0 if answered_at else 999.0)


def test_a_hundred_are_kept():
    history = CallHistory()
    for number in range(MAX_CALLS + 20):
        history.add(replace(CALL_TRANSITIONS, name=str(number)))
    assert MAX_CALLS == 100 and len(history) == 100


def test_the_newest_stands_first_in_memory_and_in_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(call_history, "MAX_CALLS", 10)
    history = CallHistory(tmp_path / "calls.jsonl")
    for number in range(25):
        history.add(replace(CALL_TRANSITIONS, name=str(number)))
    assert [call.name for call in history] == [str(number) for number in range(24, 14, -1)]
    again = CallHistory(tmp_path / "calls.jsonl")
    assert list(again) == list(history)
    assert len((tmp_path / "calls.jsonl").read_text().splitlines()) == 10


def test_a_call_that_has_ended_survives_kill_9(tmp_path):
    program = (
        "import os, signal, sys; from pathlib import Path; from softphone.call_history import *\n"
        "history = CallHistory(Path(sys.argv[1]))\n"
        "history.add(PastCall('sip:bob@failover.test', 'Bob', Outcome.MISSED, 1.0, 0.0, 'Nobody answered'))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = tmp_path / "not there yet" / "calls.jsonl"
    root = Path(__file__).resolve().parents[2]
    ended = subprocess.run([sys.executable, "-c", program, str(path)], cwd=root, timeout=30)
    assert ended.returncode == -signal.SIGKILL
    assert [call.outcome for call in CallHistory(path)] == [Outcome.MISSED]
    assert os.stat(path).st_mode & 0o077 == 0, "whom one calls is nobody else's business"


def test_half_a_line_costs_that_entry_alone(tmp_path):
    path = tmp_path / "calls.jsonl"
    history = CallHistory(path)
    history.add(CALL_TRANSITIONS)
    history.add(replace(CALL_TRANSITIONS, name="Carol"))
    path.write_bytes(path.read_bytes()[:-30])
    history = CallHistory(path)
    assert [call.name for call in history] == ["Bob"]
    history.add(replace(CALL_TRANSITIONS, name="Dave"))
    assert [call.name for call in CallHistory(path)] == ["Dave", "Bob"]


def test_a_file_that_cannot_be_written_is_a_sentence_and_the_calls_are_remembered(tmp_path):
    (tmp_path / "file").write_text("")
    history = CallHistory(tmp_path / "file" / "calls.jsonl")
    history.add(CALL_TRANSITIONS)
    assert "cannot be kept in" in history.fault and len(history) == 1


def test_all_can_be_forgotten(tmp_path):
    history = CallHistory(tmp_path / "calls.jsonl")
    history.add(CALL_TRANSITIONS)
    history.clear()
    assert not len(history) and not list(CallHistory(tmp_path / "calls.jsonl"))


def test_letters_of_every_script_come_back(tmp_path):
    history = CallHistory(tmp_path / "calls.jsonl")
    history.add(replace(CALL_TRANSITIONS, name="Jörg 李 \ud800"))
    assert next(iter(CallHistory(tmp_path / "calls.jsonl"))).name == "Jörg 李 ?"
