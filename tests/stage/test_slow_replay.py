"""The slow replay: what was observed around a kill, in its order, and never before the answer."""

from __future__ import annotations

import pytest
from PySide6.QtCore import Qt
from pytestqt.qtbot import QtBot

from stage.gui.message_animation import Frame
from stage.gui.slow_replay import SlowReplay, moments_of
from stage.observation.observations import (
    CallStateChanged,
    MessageForwarded,
    ProcessKilled,
    ServerFailover,
    ServersUp,
)
from stage.scenes.state import DemoState
from stage.scenes.use_case import UseCase

ROWS = (
    MessageForwarded(8.0, "Alice", "server1", "INVITE", None, "c"),
    MessageForwarded(9.0005, "Alice", "server1", "OPTIONS", None, "c"),
    MessageForwarded(9.0012, "Alice", "server2", "OPTIONS", None, "c", replayed=True),
    MessageForwarded(9.0018, "server2", "Alice", "OPTIONS", 200, "c"),
)


def crashed(first_answer: float | None) -> DemoState:
    use_case = UseCase()
    for seen in (
        ServersUp(0, frozenset({"server1", "server2"}), "server1"),
        CallStateChanged(1, "Alice", "calling", "c"),
        CallStateChanged(2, "Alice", "talking", "c", 2.0),
        ProcessKilled(9.0, "server1", 1),
        ServerFailover(9.001, "server1", "server2", 1, 1, "", 8.98, first_answer),
    ):
        use_case.observe(seen)
    return use_case.state


@pytest.fixture
def replay(qtbot: QtBot) -> SlowReplay:
    made = SlowReplay()
    qtbot.addWidget(made)
    return made


def frames_of(replay: SlowReplay) -> list[object]:
    """Begins to play; returns the frames that it shows from now on."""
    replay.show_moments(moments_of(crashed(9.0018), ROWS))
    frames: list[object] = []
    replay.frame.connect(frames.append)
    replay.button.click()
    return frames


def test_there_is_nothing_to_replay_before_the_first_answer() -> None:
    assert moments_of(crashed(None), ROWS) == []


def test_the_moments_are_those_observed_in_their_order() -> None:
    words = [moment.words for moment in moments_of(crashed(9.0018), ROWS)]
    assert words == [
        "Last answer from server1.",
        "Server1 killed.",
        "OPTIONS is sent to server1, where nobody listens: refused.",
        "Noticed by the forwarder.",
        "The forwarder sends OPTIONS again, to server2.",
        "server2 reads the call from the shared store: who talks, and since when.",
        "server2 to Alice: 200 OK.",
        "server2 has answered.",
    ]


def test_it_plays_pauses_and_follows_the_slider(replay: SlowReplay, qtbot: QtBot) -> None:
    assert not replay.isEnabled() and replay.toolTip()
    frames = frames_of(replay)
    qtbot.waitUntil(lambda: len(frames) > 3)
    replay.button.click()
    seen = len(frames)
    qtbot.wait(60)
    assert len(frames) == seen and replay.button.text() == "Go on"
    qtbot.keyClick(replay.slider, Qt.Key.Key_End)
    frame = frames[-1]
    assert isinstance(frame, Frame) and not replay.playing
    assert (frame.when, frame.words) == ("1.8 ms after the kill", "server2 has answered.")


@pytest.mark.parametrize("key", [None, Qt.Key.Key_PageUp], ids=["where it stood", "moved"])
def test_it_goes_on_from_the_sliders_place(
    replay: SlowReplay, qtbot: QtBot, key: Qt.Key | None
) -> None:
    frames = frames_of(replay)
    qtbot.waitUntil(lambda: replay.slider.value() > 20)
    replay.button.click()
    if key is not None:
        qtbot.keyClick(replay.slider, key)
    position = replay.slider.value()
    frames.clear()
    replay.button.click()
    assert frames == [replay.frame_at(position)] and replay.button.text() == "Pause"
    qtbot.waitUntil(lambda: replay.slider.value() > position + 5)
    assert None not in frames


def test_a_new_call_ends_a_replay_that_stands_still(replay: SlowReplay, qtbot: QtBot) -> None:
    frames = frames_of(replay)
    qtbot.waitUntil(lambda: len(frames) > 3)
    replay.button.click()
    replay.show_moments([])
    assert frames[-1] is None and replay.slider.value() == 0 and not replay.isEnabled()
    assert replay.button.text() == "Replay slowly"
