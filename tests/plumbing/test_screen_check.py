"""Whether a window can be opened, by the environment and the platform."""

from __future__ import annotations

import pytest

from plumbing import screen_check


@pytest.mark.parametrize(
    ("environment", "platform", "reason"),
    [
        ({}, "linux", "neither DISPLAY nor WAYLAND_DISPLAY is set"),
        ({"DISPLAY": ":4711"}, "linux", "nobody answers at DISPLAY=:4711"),
        (
            {"DISPLAY": ":4711", "QT_QPA_PLATFORM": "offscreen"},
            "linux",
            "QT_QPA_PLATFORM is offscreen",
        ),
        ({"WAYLAND_DISPLAY": "wayland-0"}, "linux", ""),
        ({"DISPLAY": "far.example:0"}, "linux", ""),
        ({}, "darwin", ""),
        ({}, "win32", ""),
    ],
)
def test_a_missing_display_is_noticed_before_qt_would_abort(
    environment: dict[str, str], platform: str, reason: str
) -> None:
    said = screen_check.why_none(environment, platform)
    assert reason in said and bool(said) == bool(reason)
