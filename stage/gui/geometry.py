"""Where everything stands in the figure, worked out from its size alone.

    Alice ----------> forwarder <---------- Bob      with the audio in an arc above
                     /         \\
                server1       server2                with Kill and Restart on them
                     \\         /
                    shared store

With two forwarders the address that they share stands between the phones, and the two beneath it,
over the servers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from PySide6.QtCore import QPointF, QRectF, QSizeF
from PySide6.QtGui import QPainterPath

from softphone.gui.theme import GRID

PHONE = QSizeF(56, 56)
GUEST = QSizeF(36, 36)  # another person's phone
MOST_AUDIO = 4.0 * GRID  # px that the arc of the audio may rise where there is room


@dataclass(frozen=True)
class Sizes:
    """Of what stands in the middle. `audio`: px above it, for the arc of the audio and its words;
    `gaps`: px between two rows, at least and at most."""

    middle: QSizeF
    program: QSizeF
    store: QSizeF
    audio: float
    gaps: tuple[float, float]
    rows: int  # of programs

    @property
    def heights(self) -> list[float]:
        programs = [self.program.height()] * self.rows
        return [PHONE.height(), *programs, self.store.height()]

    @property
    def least(self) -> QSizeF:
        """The size of the figure in which everything has just room."""
        gaps = (self.rows + 1) * self.gaps[0]
        tall = self.audio + sum(self.heights) + gaps + GRID
        return QSizeF(2 * self.program.width() + 3 * GRID, tall)


ONE = Sizes(QSizeF(168, 56), QSizeF(204, 96), QSizeF(184, 56), 36.0, (24.0, 160.0), 1)
# With two forwarders there is one row more, and so each is lower.
TWO = Sizes(QSizeF(160, 40), QSizeF(204, 82), QSizeF(184, 50), 28.0, (22.0, 96.0), 2)


@dataclass(frozen=True)
class Geometry:
    """Boxes and arrows by the names of the nodes."""

    boxes: dict[str, QRectF]
    audio: QPainterPath

    def arrow(self, start: str, end: str) -> tuple[QPointF, QPointF]:
        """The straight line from edge to edge, with a small gap at both ends."""
        one, other = self.boxes[start], self.boxes[end]
        return leave(one, anchor(one, other)), leave(other, anchor(other, one))

    def add_guests(self, guests: tuple[str, ...], phones: tuple[str, str]) -> None:
        """Beside the store, from the edges inwards: left, right, left, right."""
        for number, name in enumerate(guests):
            edge = self.boxes[phones[number % 2]]
            inwards = (number // 2) * (GUEST.width() + 2 * GRID) * (1 if number % 2 == 0 else -1)
            y = self.boxes["store"].center().y() - 1.5 * GRID
            self.boxes[name] = around(QPointF(edge.center().x() + inwards, y), GUEST)

    def route(self, names: Sequence[str]) -> QPainterPath:
        """One path along the arrows between `names`, straight through the boxes between."""
        path = QPainterPath()
        for index, (start, end) in enumerate(pairwise(names)):
            begin, finish = self.arrow(start, end)
            if index == 0:
                path.moveTo(begin)
            else:
                path.lineTo(self.boxes[start].center())
                path.lineTo(begin)
            path.lineTo(finish)
        return path


def anchor(box: QRectF, towards: QRectF) -> QPointF:
    """Where a line from `box` to `towards` begins: level boxes meet at their sides, others at top
    and bottom."""
    here, there = box.center(), towards.center()
    if abs(there.y() - here.y()) < (box.height() + towards.height()) / 2:
        return QPointF(box.right() if there.x() > here.x() else box.left(), here.y())
    # A quarter of the way out, so that the two lines of a box do not start from one point.
    reach = box.width() / 4
    x = here.x() + max(-reach, min(reach, (there.x() - here.x()) / 2))
    return QPointF(x, box.bottom() if there.y() > here.y() else box.top())


def leave(box: QRectF, point: QPointF, gap: float = 6.0) -> QPointF:
    """`point` of the edge moved outwards."""
    if point.x() <= box.left() or point.x() >= box.right():
        return QPointF(point.x() + (gap if point.x() >= box.right() else -gap), point.y())
    return QPointF(point.x(), point.y() + (gap if point.y() >= box.bottom() else -gap))


def lay_out(
    size: QSizeF,
    phones: tuple[str, str],
    servers: tuple[str, str],
    forwarders: tuple[str, ...] = (),
) -> Geometry:
    """The places of boxes and lines in a figure of `size`. Boxes keep their sizes, the space
    between them grows up to a point. `forwarders`: the two of a pair."""
    sizes = TWO if forwarders else ONE
    heights, middle = sizes.heights, size.width() / 2
    spread = max(sizes.program.width() / 2 + GRID, min(size.width() * 0.22, 280.0))
    edge = max(PHONE.width() / 2 + 2 * GRID, middle - 480)
    spare = size.height() - sizes.least.height()
    above = sizes.audio + max(0.0, min(MOST_AUDIO, spare / 4))
    tall, gaps = above + sum(heights), len(heights) - 1
    gap = max(sizes.gaps[0], min(sizes.gaps[1], (size.height() - tall - GRID) / gaps))
    top = (size.height() - tall - gaps * gap) / 2
    rows = [top + above + PHONE.height() / 2]
    for upper, lower in pairwise(heights):
        rows.append(rows[-1] + upper / 2 + gap + lower / 2)
    boxes = {
        phones[0]: around(QPointF(edge, rows[0]), PHONE),
        phones[1]: around(QPointF(size.width() - edge, rows[0]), PHONE),
        "address" if forwarders else "forwarder": around(QPointF(middle, rows[0]), sizes.middle),
    }
    for level, pair in zip(
        rows[1:], (forwarders, servers) if forwarders else (servers,), strict=False
    ):
        boxes[pair[0]] = around(QPointF(middle - spread, level), sizes.program)
        boxes[pair[1]] = around(QPointF(middle + spread, level), sizes.program)
    boxes["store"] = around(QPointF(middle, rows[-1]), sizes.store)
    return Geometry(boxes, arc(boxes[phones[0]], boxes[phones[1]], top + 1.5 * GRID))


def around(centre: QPointF, size: QSizeF) -> QRectF:
    """A box on whole pixels, so that its lines are sharp."""
    corner = QPointF(round(centre.x() - size.width() / 2), round(centre.y() - size.height() / 2))
    return QRectF(corner, size)


def arc(left: QRectF, right: QRectF, height: float) -> QPainterPath:
    """From the top of the left phone over the forwarder to the top of the right one, flat at
    `height`."""
    start = QPointF(left.center().x(), left.top() - 6)
    end = QPointF(right.center().x(), right.top() - 6)
    bend = min(6.0 * GRID, max(GRID, start.y() - height))
    path = QPainterPath(start)
    path.quadTo(QPointF(start.x(), height), QPointF(start.x() + bend, height))
    path.lineTo(QPointF(end.x() - bend, height))
    path.quadTo(QPointF(end.x(), height), end)
    return path
