"""The story of a run as one HTML file that needs nothing else: a picture of the figure per step,
the time axis, the messages with their words, the forwarders' flight record, the bill, the versions.

Pictures are SVG, drawn by the same code as the window's. It opens on a telephone and prints on A4.
"""

from __future__ import annotations

import html
import json
import platform
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from PySide6 import __version__ as qt_version
from PySide6.QtCore import QRectF, QSize
from PySide6.QtWidgets import QFileDialog, QMessageBox

from sip import VERSION
from softphone.gui.theme import LIGHT, theme
from stage.controller import DemoController
from stage.gui.failover_view import draw_axis
from stage.gui.painting import svg_of
from stage.observation.http_readers import read_json
from stage.observation.observations import Remark
from stage.scenes.use_case import Number, Row, milliseconds

AXIS_SIZE = QSize(720, 90)

STYLE = """
body { font: 16px/1.45 system-ui, sans-serif; max-width: 860px; margin: 0 auto; padding: 16px;
       color: #14171c; background: #fff; }
h1 { font-size: 1.6em; margin: .2em 0; } h2 { font-size: 1.15em; margin: 1.6em 0 .4em; }
figure { margin: 8px 0; display: inline-block; width: 49%; vertical-align: top; }
figcaption { font-weight: 600; min-height: 3em; }
figcaption small { display: block; font-weight: 400; }
svg { max-width: 100%; height: auto; display: block; }
table { border-collapse: collapse; width: 100%; } .wide { overflow-x: auto; }
td, th { text-align: left; padding: 3px 10px 3px 0; vertical-align: top;
         border-top: 1px solid #c9ced6; }
.done { color: #00755a; } .open, small { color: #525964; }
summary { cursor: pointer; font-variant-numeric: tabular-nums; }
pre { background: #f1f3f5; padding: 8px; overflow-x: auto; font-size: 12px; }
.mark { background: #fceadf; font-weight: 600; padding: 2px 6px; }
@media (max-width: 600px) { figure { width: 100%; } }
@media print { body { max-width: none; font-size: 11pt; } figure, tr { break-inside: avoid; }
               @page { size: A4; margin: 15mm; } }
"""


class Story:
    """Keeps a picture of the figure for each step as it is fulfilled, from its making on."""

    def __init__(self, controller: DemoController) -> None:
        self._controller = controller
        self._pictures: dict[Number, tuple[Row, str]] = {}
        self._headline = ""
        controller.fulfilled.connect(self._on_step)

    def _on_step(self, row: Row) -> None:
        if row.number == 3:
            self._pictures = {key: self._pictures[key] for key in (1, 2) if key in self._pictures}
        self._pictures[row.number] = row, self._figure()

    def _figure(self) -> str:
        figure = self._controller.window.figure
        return svg_of(figure.size(), figure.draw)

    def ask_and_save(self) -> None:
        path, _ = QFileDialog.getSaveFileName(
            self._controller.window, "Save the story", "call-failover.html", "HTML (*.html)"
        )
        if path and (trouble := self.save(Path(path))):
            QMessageBox.warning(self._controller.window, "Save the story", trouble)

    def save(self, path: Path) -> str:
        """A sentence if it cannot be written."""
        try:
            path.write_text(self.html(), encoding="utf-8")
        except OSError as error:
            return f"{path} could not be written: {error.strerror}."
        return ""

    def html(self) -> str:
        window = self._controller.window
        was = theme().palette
        theme().use(LIGHT)
        try:
            parts = [*self._steps(), *self._failovers(), *self._bill(), *self._messages()]
        finally:
            theme().use(was if was is not LIGHT else None)
        return (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>Call Failover</title><style>{STYLE}</style></head><body>"
            f"<h1>{html.escape(window.headline)}</h1><p>{html.escape(window.hint)}</p>"
            f"{''.join(parts)}{self._versions()}</body></html>\n"
        )

    def _steps(self) -> Iterable[str]:
        rows = self._controller.use_case.rows
        yield "<h2>What was observed</h2><table>"
        for row in rows:
            mark = '<td class="done">&#10003;</td>' if row.observed else '<td class="open">-</td>'
            words = f"<td>{row.number}</td><td>{html.escape(row.text)}</td>"
            yield f"<tr>{mark}{words}<td>{html.escape(row.words)}</td></tr>"
        yield "</table>"
        for shown in rows:  # in the order of the steps, not of the observations
            if shown.number not in self._pictures:
                continue
            row, picture = self._pictures[shown.number]
            row = shown if shown.observed else row  # of a call that somebody has put away
            words = f"{row.number}. {html.escape(row.text)}<small>{html.escape(row.words)}</small>"
            yield f"<figure><figcaption>{words}</figcaption>{picture}</figure>"

    def _failovers(self) -> Iterable[str]:
        state = self._controller.use_case.state
        for failover in state.failovers:
            moments = state.time_axis(failover)
            outage = state.outage_ms(failover)
            yield f"<h2>{html.escape(failover.source)} to {html.escape(failover.target)}</h2>"
            if outage is not None:
                yield f"<p>{milliseconds(outage)} from the kill to {state.counted_to}.</p>"
            box = QRectF(0, 0, AXIS_SIZE.width(), AXIS_SIZE.height())
            yield svg_of(AXIS_SIZE, partial(draw_axis, box=box, moments=moments))
        for name, url in self._controller.cluster.admins.items():
            record = read_json(f"{url}/failovers")
            if record:
                words = html.escape(json.dumps(record, indent=2))
                yield f"<h2>Flight record of {name}</h2><pre>{words}</pre>"

    def _bill(self) -> Iterable[str]:
        bill = self._controller.window.bill.bill
        if bill is not None:
            carried = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in bill.carried)
            rows = {
                "Call": f"{bill.caller} to {bill.callee}",
                "Seconds": str(bill.seconds),
                "Carried by": carried,
                "Sum": bill.terms,
                "Total": f"{bill.total} {bill.currency}" + ("" if bill.final else " so far"),
                "Read from": f"{bill.server}'s management page",
            }
            lines = (f"<tr><th>{k}</th><td>{html.escape(v)}</td></tr>" for k, v in rows.items())
            yield f"<h2>The bill</h2><table>{''.join(lines)}</table>"

    def _messages(self) -> Iterable[str]:
        ladder = self._controller.window.ladder
        yield "<h2>Messages</h2><p><small>Seconds since the kill. Each opens.</small></p>"
        rows = ladder.filter.shown()
        yield f'<div class="wide">{ladder.svg()}</div>'
        for row in rows:
            when = ladder.filter.since_zero(row.at)
            if isinstance(row, Remark):
                yield f'<p class="mark">{when} {html.escape(row.label)}</p>'
                continue
            words = f"{when} {row.sender} &rarr; {row.target}: "
            text = html.escape(ladder.describe(row))
            yield f"<details><summary>{words}{html.escape(row.label)}</summary><pre>{text}</pre>"
            yield "</details>"

    @staticmethod
    def _versions() -> str:
        lines = (
            f"Call Failover {VERSION}, Python {platform.python_version()}, Qt {qt_version}",
            f"{platform.system()} {platform.release()}, {platform.machine()}",
            time.strftime("%Y-%m-%d %H:%M:%S"),
        )
        return f"<h2>Versions</h2><p><small>{'<br>'.join(map(html.escape, lines))}</small></p>"
