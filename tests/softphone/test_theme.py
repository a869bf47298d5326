"""The theme: readable in light and dark, tabular digits, switches while windows are open."""

from __future__ import annotations

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QColor, QFontMetricsF, QGuiApplication, QPalette
from PySide6.QtWidgets import QApplication, QLabel

from softphone.gui.theme import DARK, LIGHT, TONES, Palette, Size, Theme
from softphone.gui.theme import theme as installed

CONTRAST = 4.5  # WCAG 2.1, 1.4.3: text against what is behind it


def contrast(one: QColor, other: QColor) -> float:
    """Contrast ratio of two opaque colours, 1 to 21 (WCAG 2.1, relative luminance)."""

    def luminance(colour: QColor) -> float:
        parts = (colour.redF(), colour.greenF(), colour.blueF())
        red, green, blue = (
            p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.fixture
def theme(qapp: QApplication):
    theme = installed()
    yield theme
    theme.use(None)


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_every_word_can_be_read_on_every_ground(palette: Palette) -> None:
    tones = [palette.tone(name) for name in TONES]
    grounds = [palette.window, palette.surface]
    pairs = [
        (word, ground)
        for word in (palette.text, palette.muted)
        for ground in [*grounds, palette.raised]
    ]
    pairs += [(tone.colour, ground) for tone in tones for ground in [*grounds, tone.wash]]
    pairs += [(tone.ink, tone.colour) for tone in tones]
    pairs += [(word, tone.wash) for word in (palette.text, palette.muted) for tone in tones]
    poor = [
        (a.name(), b.name(), round(contrast(a, b), 2))
        for a, b in pairs
        if contrast(a, b) < CONTRAST
    ]
    assert not poor


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_words_on_a_disabled_button_are_grey_but_visible(palette: Palette) -> None:
    assert contrast(palette.faint, palette.surface) >= 3.0  # the bound for shapes, WCAG 2.1, 1.4.11


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_the_states_are_six_different_colours(palette: Palette) -> None:
    assert len({palette.tone(name).colour.name() for name in TONES}) == 6


def test_open_windows_follow_the_system_from_light_to_dark_and_back(theme: Theme, qtbot) -> None:
    label = QLabel("Registered through server1")
    qtbot.addWidget(label)
    label.show()
    hints = QGuiApplication.styleHints()
    hints.colorSchemeChanged.emit(Qt.ColorScheme.Dark)
    assert theme.palette is DARK
    qtbot.waitUntil(lambda: label.palette().color(QPalette.ColorRole.Window) == DARK.window)
    hints.colorSchemeChanged.emit(Qt.ColorScheme.Light)
    assert theme.palette is LIGHT
    qtbot.waitUntil(lambda: label.palette().color(QPalette.ColorRole.WindowText) == LIGHT.text)


def test_a_switch_tells_those_who_paint_themselves(theme: Theme, qtbot) -> None:
    with qtbot.waitSignal(theme.changed):
        theme.use(DARK)


def test_there_are_three_sizes_and_none_is_tiny(theme: Theme) -> None:
    title, text, small = (theme.font(size).pointSizeF() for size in Size)
    assert title > text > small >= 9.0


def test_digits_of_a_counter_are_equally_wide(theme: Theme) -> None:
    metrics = QFontMetricsF(theme.font(Size.TITLE, tabular=True))
    assert len({metrics.horizontalAdvance(digit) for digit in "0123456789"}) == 1


def test_a_person_can_ask_for_no_motion(theme: Theme, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not theme.reduced_motion
    monkeypatch.setenv("CALL_FAILOVER_MOTION", "reduced")
    assert theme.reduced_motion
