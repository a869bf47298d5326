"""The figure: phones, forwarder, servers and store, with real messages travelling and the plug to
pull on each server.

With two forwarders (Figure 3 of the document) the address that they share is drawn apart, and each
has a plug too.

It shows what it is told, and asks for `kill` and `restart`; `phone` tells of a click on one. GUI
thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from PySide6.QtCore import QPointF, QRectF, QSize, QSizeF, Qt, QTimer, Signal
from PySide6.QtGui import QMouseEvent, QPainter, QPainterPath, QPaintEvent, QPen, QResizeEvent
from PySide6.QtWidgets import QSizePolicy, QWidget

from softphone.gui import icons
from softphone.gui.theme import GRID, Palette, Size, theme
from softphone.gui.widgets import FlatButton
from stage.gui import painting
from stage.gui.geometry import ONE, TWO, Geometry, lay_out
from stage.gui.message_animation import LASTS, AnimationQueue, Frame, MessageAnimation
from stage.gui.wording import LEGEND, said
from stage.gui.zoom import zoomed
from stage.observation.observations import MessageForwarded

MOVING = 16  # ms between frames while a message moves
FLOWING = 33  # ms between frames while only the audio flows
# How much larger than the window's text the figure may get where there is room, and in the
# presenter's mode, which is read from the back of a room.
LARGEST, LARGEST_PRESENTED = 1.3, 4.0
DASH = (5.0, 4.0)  # of the audio's line, in widths of the pen

# The appearance of a server, or of one of two forwarders: (icon, tone of icon and edge, width of
# the edge).
LOOKS = {
    "hot": ("dot", "hot", 3.0),
    "ready": ("ring", "alive", 1.5),
    "failing": ("warning", "warning", 2.0),
    "waking": ("ring", "warning", 1.5),
    "standby": ("ring", "alive", 1.5),
    "dead": ("crossed", "dead", 1.5),
}
ICONS = {"kill": "decline", "restart": "play"}
DASHED = ("standby", "dead")
# The appearance of a message: the tone of its lozenge.
TONES = {"request": "hot", "answer": "alive", "refusal": "stop", "replay": "warning"}


@dataclass(frozen=True)
class ServerAppearance:
    """`look` is a key of LOOKS, `words` say it; `kill` and `restart`: may it be done, and the
    tooltip."""

    look: str
    words: str
    address: str
    kill: tuple[bool, str]
    restart: tuple[bool, str]


@dataclass(frozen=True)
class PhoneAppearance:
    """`tone` and `icon` of the theme; `linked`: registered, so that its line to the forwarder is
    lit."""

    tone: str
    icon: str
    linked: bool


ABSENT = ServerAppearance(
    "waking", "starting ...", "", (False, "It is still starting"), (False, "It is still starting")
)


class TopologyView(QWidget):
    """`phones`, `servers` and `pair` are the names, left and right; `pair` is empty if there is but
    one forwarder."""

    phone = Signal(str)  # was clicked
    kill = Signal(str)
    restart = Signal(str)

    def __init__(
        self,
        phones: tuple[str, str],
        servers: tuple[str, str],
        port: int,
        clock: Callable[[], float] = time.monotonic,
        pair: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        who = "two forwarders" if pair else "the forwarder"
        self.setAccessibleName(f"The figure: two phones, {who}, two servers and their store")
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setFocusPolicy(Qt.FocusPolicy.ClickFocus)
        self.setToolTip(LEGEND)
        self._phones, self._servers, self._pair = phones, servers, pair
        self._port, self._clock = port, clock
        self._guests: tuple[str, ...] = ()
        self.phones = dict.fromkeys(phones, PhoneAppearance("dead", "call", False))
        self.programs = dict.fromkeys((*pair, *servers), ABSENT)  # with a plug to pull
        # the pair's holder of the address, and the server that serves; None: there is none, "": not
        # told yet
        self.active: str | None = ""
        self.hot: str | None = ""
        self._taken_at = -10.0  # when the active forwarder changed last
        self.talking = self.held = self.presented = False
        self.traffic = AnimationQueue()
        self._replayed: Frame | None = None
        self._moved_at = -10.0  # when the hot server changed last
        self._geometry = self._lay_out()
        self.buttons: dict[tuple[str, str], FlatButton] = {}
        for name in self.programs:
            self._make_buttons(name)
        self._frames = QTimer(self)
        self._frames.timeout.connect(self._frame)
        theme().changed.connect(self._animate)
        self._place_buttons()

    # -- what there is to show ---------------------------------------------------------------------

    def show_server(self, name: str, look: ServerAppearance) -> None:
        """Or one of two forwarders."""
        if look == self.programs[name]:
            return
        self.programs[name] = look
        kill, restart = self.buttons[name, "kill"], self.buttons[name, "restart"]
        # Only the hot server's plug is worth pulling at first sight.
        kill.set_face("Kill", kill.icon_name, self._kill_tone(name, "kill"))
        restart.set_allowed(look.restart[0] or restart.hasFocus(), look.restart[1])
        if kill.hasFocus() and not look.kill[0]:
            # The keyboard stays with this server: Qt would give it to the next button, which kills.
            restart.setEnabled(True)
            restart.setFocus(Qt.FocusReason.OtherFocusReason)
        kill.set_allowed(*look.kill)
        self.update()

    def _kill_tone(self, name: str, action: str) -> str:
        return "stop" if action == "kill" and self.programs[name].look == "hot" else ""

    def show_hot(self, name: str | None) -> None:
        """The path moves: the line to the new hot server lights up from the forwarder on. None:
        nobody serves."""
        if name != self.hot:
            self.hot = name
            self._moved_at = max(self._clock(), self._taken_at + LASTS)
            self._animate()

    def show_active(self, name: str | None) -> None:
        """The address moves: first the line to its new holder lights up, then the one from there to
        the hot server."""
        if name != self.active:
            self.active, self._taken_at = name, self._clock()
            self._moved_at = self._taken_at + LASTS
            self._animate()

    def show_phone(self, name: str, look: PhoneAppearance) -> None:
        if look != self.phones[name]:
            self.phones[name] = look
            self.update()

    def add_guest(self, name: str) -> None:
        """Another telephone, which is drawn beneath the others; twice is fine."""
        if name not in self.phones:
            self._guests += (name,)
            self.phones[name] = PhoneAppearance("hot", "call", False)
            self.rescale()

    def show_talking(self, talking: bool, held: bool = False) -> None:
        if (talking, held) != (self.talking, self.held):
            self.talking, self.held = talking, held
            self._animate()

    def show_replay(self, frame: Frame | None) -> None:
        """A moment of the slow replay instead of the messages of now; None: now again."""
        self._replayed = frame
        self._animate()

    def present(self, presented: bool) -> None:
        """As large as there is room, or in proportion to the window's text."""
        self.presented = presented
        self.rescale()

    def show_message(self, message: MessageForwarded) -> None:
        """Messages of one call travel one after the other, not on top of each other."""
        lane = message.method if message.method == "REGISTER" else message.call_id
        travel = MessageAnimation(message.nodes, message.label, message.kind)
        self.traffic.add(lane, travel, self._clock())
        self._animate()

    # -- construction and size ---------------------------------------------------------------------

    def _make_buttons(self, name: str) -> None:
        for action, icon in ICONS.items():
            label = action.capitalize()
            button = FlatButton(label, icon, parent=self, name=f"{action}_{name}")
            button.setAccessibleName(f"{label} {name}")
            button.clicked.connect(
                lambda _=False, action=action, name=name: getattr(self, action).emit(name)
            )
            button.set_allowed(False, "It is still starting")
            self.buttons[name, action] = button

    @property
    def _least(self) -> QSizeF:
        return (TWO if self._pair else ONE).least

    def _lay_out(self) -> Geometry:
        """The figure is laid out for text of one height, then scaled to the room there is."""
        text = painting.height_of(zoomed(Size.TEXT)) / painting.TEXT_HEIGHT
        most = LARGEST_PRESENTED if self.presented else LARGEST
        room = min(self.width() / self._least.width(), self.height() / self._least.height())
        self._scale = max(0.4, min(room, text * most))
        size = QSizeF(self.width() / self._scale, self.height() / self._scale)
        geometry = lay_out(size, self._phones, self._servers, self._pair)
        geometry.add_guests(self._guests, self._phones)
        return geometry

    def _place_buttons(self) -> None:
        height, edge = (3.5 * GRID, GRID // 2 + 2) if self._pair else (4 * GRID - 2, GRID)
        font = painting.figure_font(Size.SMALL, True, self._scale)
        for name in self.programs:
            box = self._geometry.boxes[name]
            row = box.adjusted(GRID, box.height() - height - edge, -GRID, -edge)
            kill = (row.width() - GRID) * 0.43
            places = {
                "kill": QRectF(row.left(), row.top(), kill, row.height()),
                "restart": row.adjusted(kill + GRID, 0, 0, 0),
            }
            for action, place in places.items():
                button = self.buttons[name, action]
                button.setFont(font)
                corner = place.topLeft() * self._scale
                button.setGeometry(QRectF(corner, place.size() * self._scale).toRect())
                # where the word alone has room, it goes without its picture
                needed = painting.width_of(button.text(), font) + 5.5 * GRID
                icon = ICONS[action] if button.width() >= needed else ""
                button.set_face(button.text(), icon, self._kill_tone(name, action))

    def rescale(self) -> None:
        """After a change of the text's size or of the room."""
        self._geometry = self._lay_out()
        self._place_buttons()
        self.update()

    def minimumSizeHint(self) -> QSize:
        return (self._least * 0.85).toSize()

    def sizeHint(self) -> QSize:
        return QSize(720, 480)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self.rescale()

    def mousePressEvent(self, event: QMouseEvent) -> None:
        place = event.position() / self._scale
        for name in self.phones:
            if self._geometry.boxes[name].contains(place):
                self.phone.emit(name)

    # -- motion ------------------------------------------------------------------------------------

    def _animate(self) -> None:
        """Draw anew, and go on drawing for as long as something moves."""
        now = self._clock()
        if self.traffic.busy or now < max(self._moved_at, self._taken_at) + LASTS:
            self._frames.start(MOVING)
        elif self.talking and not self.held and not theme().reduced_motion:
            self._frames.start(FLOWING)
        else:
            self._frames.stop()
        self.update()

    def _frame(self) -> None:
        if self._frames.interval() == FLOWING and not self.traffic.busy:
            box = self._geometry.audio.boundingRect().adjusted(-8, -16, 8, 16)
            corner, size = box.topLeft() * self._scale, box.size() * self._scale
            self.update(QRectF(corner, size).toAlignedRect())
        else:
            self.traffic.positions(self._clock())
            self._animate()

    # -- drawing -----------------------------------------------------------------------------------

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        self.draw(painter)

    def draw(self, painter: QPainter) -> None:
        palette, now = theme().palette, self._clock()
        painter.save()
        painter.scale(self._scale, self._scale)
        self._draw_links(painter, palette, now)
        self._draw_audio(painter, palette, now)
        self._draw_messages(painter)
        for name, phone in self.phones.items():
            tone = palette.tone(phone.tone)
            painting.phone(painter, self._geometry.boxes[name], name, tone, phone.icon)
        self._draw_forwarder(painter, palette)
        for name, look in self.programs.items():
            self._draw_program(painter, name, look, palette)
        painting.store(painter, self._geometry.boxes["store"])
        painter.restore()

    def _draw_links(self, painter: QPainter, palette: Palette, now: float) -> None:
        entrance = "address" if self._pair else "forwarder"
        for name, phone in self.phones.items():
            colour = palette.hot.colour if phone.linked else palette.line
            way = self._geometry.arrow(name, entrance)
            painting.arrow(painter, *way, colour, 2, dotted=not phone.linked)
        unlit = [(entrance, forwarder) for forwarder in self._pair]
        unlit += [(each, name) for name in self._servers for each in self._pair or (entrance,)]
        for ends in unlit:
            way = self._geometry.arrow(*ends)
            painting.arrow(painter, *way, palette.faint, 2, dotted=True, head=False)
        for name in self._servers:
            dead = self.programs[name].look == "dead"
            colour = palette.faint if dead else palette.muted
            way = self._geometry.arrow(name, "store")
            painting.arrow(painter, *way, colour, 1.5, dotted=dead, head=False)
        if self.active:
            self._draw_lit(painter, ("address", self.active), now - self._taken_at)
        if self.hot and (self.active or not self._pair):
            self._draw_lit(painter, (self.active or entrance, self.hot), now - self._moved_at)

    def _draw_lit(self, painter: QPainter, route: tuple[str, str], since: float) -> None:
        """A line that grew from its beginning on `since` seconds ago."""
        moved = 1.0 if theme().reduced_motion else min(1.0, since / LASTS)
        if moved > 0:
            start, end = self._geometry.arrow(*route)
            grown = start + (end - start) * moved
            painting.arrow(painter, start, grown, theme().palette.hot.colour, 3.5)

    def _draw_audio(self, painter: QPainter, palette: Palette, now: float) -> None:
        path, flows = self._geometry.audio, self.talking and not self.held
        pen = QPen(palette.alive.colour if flows else palette.line, 2.5 if flows else 1.5)
        if flows:
            pen.setDashPattern(DASH)
            if not theme().reduced_motion:
                pen.setDashOffset(-(now * 12) % sum(DASH))
        else:
            pen.setDashPattern([0.1, 4])
            pen.setCapStyle(Qt.PenCapStyle.RoundCap)
        painter.setPen(pen)
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.drawPath(path)
        words = "audio (RTP), from phone to phone" if flows else "no audio"
        words = "on hold" if self.held and self.talking else words
        ink = palette.alive.colour if flows else palette.muted
        painting.tag(painter, path.pointAtPercent(0.5), said(words), ink, palette.surface)

    def _draw_forwarder(self, painter: QPainter, palette: Palette) -> None:
        deserted = self.hot is None
        words = said("no live server: 503") if deserted else f"UDP {self._port}"
        tone = palette.warning if deserted else None
        if self.active is None:
            words, tone = "nobody has it", palette.warning
        name = "address" if self._pair else "forwarder"
        painting.forwarder(painter, self._geometry.boxes[name], words, tone, bool(self._pair))

    def _draw_program(
        self, painter: QPainter, name: str, look: ServerAppearance, palette: Palette
    ) -> None:
        box = self._geometry.boxes[name]
        icon, tone_name, width = LOOKS[look.look]
        tone = palette.tone(tone_name)
        dead = look.look == "dead"
        fill = tone.wash if look.look in ("hot", "dead") else palette.surface
        painting.card(painter, box, fill, tone.colour, width, dashed=look.look in DASHED)
        edge = GRID / 2 if self._pair else GRID
        head = QRectF(
            box.left() + 1.5 * GRID, box.top() + edge, box.width() - 3 * GRID, 2.75 * GRID
        )
        if dead:
            painting.cross(painter, box.adjusted(3, 3, -3, -3), tone.colour)
        icons.draw(
            painter, icon, QRectF(head.left(), head.top() + 3, 2 * GRID, 2 * GRID), tone.colour
        )
        title = head.adjusted(3 * GRID, 0, 0, 0)
        left, right = Qt.AlignmentFlag.AlignLeft, Qt.AlignmentFlag.AlignRight
        ink = tone.colour if dead else palette.text
        painting.text(painter, title, name, painting.figure_font(Size.TEXT, bold=True), ink, left)
        painting.text(
            painter, title, look.address, painting.figure_font(Size.SMALL), palette.muted, right
        )
        below = title.translated(0, (2.5 if self._pair else 2.75) * GRID)
        painting.text(
            painter, below, said(look.words), painting.figure_font(Size.SMALL), tone.colour, left
        )

    def _draw_messages(self, painter: QPainter) -> None:
        """Each beside its line; behind a box nothing is to be seen of it."""
        palette = theme().palette
        moving = [(each.travel, each.fraction) for each in self.traffic.positions(self._clock())]
        if self._replayed is not None:
            travel = self._replayed.travel
            moving = [(travel, self._replayed.fraction)] if travel else []
        for travel, passed in moving:
            route = self._geometry.route(self.nodes(travel.route))
            fraction = 0.5 if theme().reduced_motion else eased(passed)
            place = along(route, fraction)
            tone = palette.tone(TONES[travel.kind])
            pill = painting.label_box(place, travel.label)
            hidden = any(box.intersects(pill) for box in self._geometry.boxes.values())
            if not hidden or theme().reduced_motion:
                painting.pill(painter, pill, travel.label, tone, palette.surface)

    def nodes(self, route: tuple[str, ...]) -> list[str]:
        """The route, with the shared address between a phone and one of two forwarders."""
        nodes = [*route[:1]]
        for before, after in pairwise(route):
            if self._pair and (before in self.phones or after in self.phones):
                nodes.append("address")
            nodes.append(after)
        return nodes


def eased(fraction: float) -> float:
    """Slow at both ends, so that one sees where a message comes from and where it goes."""
    return fraction * fraction * (3 - 2 * fraction)


def along(path: QPainterPath, fraction: float) -> QPointF:
    return path.pointAtPercent(max(0.0, min(1.0, fraction)))
