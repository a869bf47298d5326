"""The look that every window shares: colours that mean states, three text sizes, an 8 px grid,
light and dark.

`theme()` is the look of the application. Widgets read `theme().palette` while they paint, so a
switch of the system between light and dark reaches them with the next paint event.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from string import Template

from PySide6.QtCore import QObject, Qt, Signal
from PySide6.QtGui import QColor, QFont, QFontDatabase, QFontMetricsF, QGuiApplication, QPalette
from PySide6.QtWidgets import QApplication

GRID = 8  # px: every margin, gap and height is a multiple or a half of it
RADIUS = 8.0  # px, corners of cards and buttons
SMALLEST_TEXT = 10.0  # pt: some desktops report 9 pt, which the back of a room cannot read
# read by the style sheet, which has pictures from files only; grey, for light and dark
ARROW = (Path(__file__).parent / "arrow_down.svg").as_posix()
TONES = ("alive", "hot", "ringing", "warning", "dead", "stop")  # what a colour can mean


class Size(Enum):
    """The three text sizes, as factors of the system's."""

    TITLE = 1.5
    TEXT = 1.0
    SMALL = 0.9


@dataclass(frozen=True)
class Tone:
    """One state's colour: `colour` for shapes and words, `ink` for words on `colour`, `wash` as a
    pale ground."""

    colour: QColor
    ink: QColor
    wash: QColor


@dataclass(frozen=True)
class Palette:
    """All colours of one scheme. The six tones are the hues of Okabe and Ito, made light or dark
    enough to read."""

    dark: bool
    window: QColor
    surface: QColor
    raised: QColor
    line: QColor
    text: QColor
    muted: QColor
    faint: QColor
    alive: Tone
    hot: Tone
    ringing: Tone
    warning: Tone
    dead: Tone
    stop: Tone

    def tone(self, name: str) -> Tone:
        """The colour of a state, which is one of TONES."""
        tone: Tone = getattr(self, name)
        return tone


def _tone(colour: str, ink: str, wash: str) -> Tone:
    return Tone(QColor(colour), QColor(ink), QColor(wash))


LIGHT = Palette(
    dark=False,
    window=QColor("#F1F3F5"),
    surface=QColor("#FFFFFF"),
    raised=QColor("#E4E7EC"),
    line=QColor("#C9CED6"),
    text=QColor("#14171C"),
    muted=QColor("#525964"),
    faint=QColor("#868D98"),
    alive=_tone("#00755A", "#FFFFFF", "#E1F3EC"),
    hot=_tone("#0067A3", "#FFFFFF", "#E0F0FA"),
    ringing=_tone("#95416F", "#FFFFFF", "#F8E8F1"),
    warning=_tone("#855600", "#FFFFFF", "#FCF1DA"),
    dead=_tone("#5A5F68", "#FFFFFF", "#ECEEF0"),
    stop=_tone("#AF4200", "#FFFFFF", "#FCEADF"),
)
DARK = Palette(
    dark=True,
    window=QColor("#14171B"),
    surface=QColor("#1E2329"),
    raised=QColor("#2C333B"),
    line=QColor("#3D4650"),
    text=QColor("#ECEEF2"),
    muted=QColor("#A9B0BB"),
    faint=QColor("#747D89"),
    alive=_tone("#2DBE93", "#0B0F12", "#173329"),
    hot=_tone("#56B4E9", "#0B0F12", "#16303F"),
    ringing=_tone("#E09BC2", "#0B0F12", "#3A2431"),
    warning=_tone("#E69F00", "#0B0F12", "#392B10"),
    dead=_tone("#9AA1AC", "#0B0F12", "#262B31"),
    stop=_tone("#F47B36", "#0B0F12", "#3D2616"),
)


# The style sheet of everything that Qt draws for us; `$name`: a colour of the palette.
STYLE = Template("""
QLabel[tone="muted"] { color: $muted }
QLabel:disabled { color: $faint }
QPushButton { background: $raised; color: $text; border: 2px solid transparent;
              border-radius: 8px; padding: 2px 8px }
QPushButton:hover { background: $raised_hover }
QPushButton:pressed { background: $raised_pressed }
QPushButton:checked, QDialog QPushButton:default:enabled { background: $text; color: $surface }
QPushButton:disabled { background: $window; color: $faint; border-color: $raised }
QPushButton:focus { border-color: $text }
QPushButton:checked:focus, QDialog QPushButton:default:focus { border-color: $hot }
QPushButton[ring="false"]:focus { border-color: transparent }
QPushButton::menu-indicator { image: none; width: 0 }
QLineEdit, QComboBox { background: $surface; border: 1px solid $faint;
                       border-radius: 8px; padding: 5px 8px }
QLineEdit:focus, QComboBox:focus { border: 2px solid $hot; padding: 4px 7px }
QComboBox:disabled { background: $window; color: $faint; border-color: $raised }
QComboBox::drop-down { border: none; width: 24px }
QComboBox::down-arrow { image: url($arrow); width: 12px }
QHeaderView::section { background: $window; border: none; padding: 4px 8px }
QDialog QTableView::item { padding: 0 5px }
QProgressBar { background: $raised; border: none; border-radius: 4px }
QProgressBar::chunk { background: $alive; border-radius: 4px }
QDialogButtonBox { dialogbuttonbox-buttons-have-icons: 0 }
QDialog QPushButton { min-width: 56px; min-height: 24px; padding: 0 12px }
""")
TONE_STYLE = Template("""
QLabel[tone="$name"] { color: $colour }
QPushButton[tone="$name"] { background: $colour; color: $ink }
QPushButton[tone="$name"]:hover { background: $colour_hover }
QPushButton[tone="$name"]:pressed { background: $colour_pressed }
QPushButton[tone="$name"]:disabled { background: $raised; color: $faint }
""")


def style_sheet(palette: Palette) -> str:
    """Flat buttons and fields, in the colours of their states where they have one."""

    def shades(name: str, ground: QColor) -> dict[str, str]:
        hover = ground.lighter(112) if palette.dark else ground.darker(107)
        pressed = ground.darker(118)
        return {
            name: ground.name(),
            f"{name}_hover": hover.name(),
            f"{name}_pressed": pressed.name(),
        }

    names = ("window", "surface", "line", "text", "muted", "faint")
    colours = {name: getattr(palette, name).name() for name in names}
    colours |= shades("raised", palette.raised)
    sheet = STYLE.substitute(
        colours, hot=palette.hot.colour.name(), alive=palette.alive.colour.name(), arrow=ARROW
    )
    for name in TONES:
        tone = palette.tone(name)
        own = shades("colour", tone.colour) | {"name": name, "ink": tone.ink.name()}
        sheet += TONE_STYLE.substitute(colours | own)
    return sheet


def qt_palette(colours: Palette) -> QPalette:
    """The one QPalette from which the Fusion style draws line edits, tooltips, scroll bars and
    menus."""
    role = QPalette.ColorRole
    normal = {
        role.WindowText: colours.text,
        role.Base: colours.surface,
        role.Text: colours.text,
        role.ButtonText: colours.text,
        role.ToolTipBase: colours.text,
        role.ToolTipText: colours.surface,
        role.PlaceholderText: colours.muted,
        role.Highlight: colours.hot.colour,
        role.HighlightedText: colours.hot.ink,
        role.Link: colours.hot.colour,
        role.Mid: colours.line,
    }
    palette = QPalette(colours.raised, colours.window)  # Qt computes the other roles
    for key, colour in normal.items():
        palette.setColor(QPalette.ColorGroup.All, key, colour)
    for key in (role.WindowText, role.Text, role.ButtonText, role.PlaceholderText):
        palette.setColor(QPalette.ColorGroup.Disabled, key, colours.faint)
    return palette


class Theme(QObject):
    """The application's current look. `changed` is emitted after the palette or the wish for motion
    changed."""

    changed = Signal()

    def __init__(self, app: QApplication) -> None:
        super().__init__(app)
        self._app = app
        self._forced: Palette | None = None
        was_dark = app.palette().color(QPalette.ColorRole.Window).lightness() < 128
        self._system = DARK if was_dark else LIGHT  # where Qt cannot tell which it is
        app.setStyle("fusion")
        self._base = QFont(app.font())
        self._base.setPointSizeF(max(self._base.pointSizeF(), SMALLEST_TEXT))
        app.setFont(self._base)
        hints = QGuiApplication.styleHints()
        hints.colorSchemeChanged.connect(self._follow)
        self._follow(hints.colorScheme())
        # Qt 6.12 and later say what the system thinks of motion (6.10 and 6.11 know of contrast
        # only). They are kept: their accessibility object dies with the Python object that gave it
        # out.
        self._hints = hints
        self._accessibility: object = getattr(hints, "accessibility", lambda: None)()
        motion = getattr(self._accessibility, "motionPreferenceChanged", None)
        if motion is not None:
            motion.connect(self.changed)

    def use(self, palette: Palette | None) -> None:
        """Force light or dark; None follows the system again."""
        self._forced = palette
        self._follow(QGuiApplication.styleHints().colorScheme())

    @property
    def reduced_motion(self) -> bool:
        """Nothing on the screen may move by itself if this is true."""
        if os.environ.get("CALL_FAILOVER_MOTION", "") in ("0", "off", "reduced"):
            return True
        said = getattr(self._accessibility, "motionPreference", None)
        return said is not None and bool(said().name == "ReducedMotion")

    def font(self, size: Size = Size.TEXT, bold: bool = False, tabular: bool = False) -> QFont:
        """A font of one of the three sizes; `tabular`: all digits equally wide, so that a counter
        does not jump."""
        font = QFont(self._base)
        font.setPointSizeF(self._base.pointSizeF() * size.value)
        font.setWeight(QFont.Weight.DemiBold if bold else QFont.Weight.Normal)
        return _with_tabular_digits(font) if tabular else font

    def _follow(self, scheme: Qt.ColorScheme) -> None:
        known = {Qt.ColorScheme.Light: LIGHT, Qt.ColorScheme.Dark: DARK}
        self.palette = self._forced or known.get(scheme, self._system)
        self._app.setPalette(qt_palette(self.palette))
        self._app.setStyleSheet(style_sheet(self.palette))
        self.changed.emit()


def _with_tabular_digits(font: QFont) -> QFont:
    font.setFeature(QFont.Tag("tnum"), 1)
    metrics = QFontMetricsF(font)
    if len({metrics.horizontalAdvance(digit) for digit in "0123456789"}) == 1:
        return font
    fixed = QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont)
    fixed.setPointSizeF(font.pointSizeF())
    fixed.setWeight(font.weight())
    return fixed


@cache
def theme() -> Theme:
    """The application's look, which the first call gives it. GUI thread only."""
    app = QApplication.instance()
    if not isinstance(app, QApplication):
        raise RuntimeError("there is no QApplication yet, so there is no theme")
    return Theme(app)
