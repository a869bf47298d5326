"""The ladder: what it keeps, shows, filters, says of one message, and what can be taken away."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QPlainTextEdit
from pytestqt.qtbot import QtBot

from stage.gui.message_ladder import CLOCK, DELTA, SINCE_KILL, Ladder
from stage.observation.observations import LadderRow, MessageForwarded, Remark

COLUMNS = ("Alice", "forwarder", "server1", "server2", "Bob")
INVITE = (
    "INVITE sip:bob@failover.test SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:4000;branch=z9hG4bKa\r\n"
    "From: <sip:alice@failover.test>;tag=a\r\nTo: <sip:bob@failover.test>\r\nCall-ID: c1\r\n"
    "CSeq: 1 INVITE\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
)


def row(at: float, method: str, call: str = "c1", replayed: bool = False) -> LadderRow:
    ends = "127.0.0.1:4000", "127.0.0.1:5070"
    text = INVITE if method == "INVITE" else ""
    return MessageForwarded(
        at, "Alice", "server1", method, None, call, "forwarder", replayed, *ends, text
    )


@pytest.fixture
def ladder(qtbot: QtBot) -> Ladder:
    made = Ladder(COLUMNS)
    qtbot.addWidget(made)
    made.resize(900, 400)
    made.show()
    for each in (
        row(1.0, "INVITE"),
        row(1.1, "OPTIONS"),
        row(1.2, "INVITE", "c2"),
        Remark(2.0, "server1 killed", "refusal"),
        row(2.01, "OPTIONS", replayed=True),
        row(2.5, "BYE"),
    ):
        made.add(each)
    return made


def labels(ladder: Ladder) -> list[str]:
    return [each.label for each in ladder.filter.shown()]


def test_the_demos_own_questions_are_hidden_but_not_what_was_sent_again(ladder: Ladder) -> None:
    assert labels(ladder) == ["INVITE", "INVITE", "server1 killed", "OPTIONS again", "BYE"]
    ladder.options.setChecked(True)
    assert "OPTIONS" in labels(ladder)


def test_rows_are_filtered_by_call_and_by_method(ladder: Ladder) -> None:
    ladder.calls.setCurrentIndex(ladder.calls.findData("c2"))
    assert labels(ladder) == ["INVITE", "server1 killed"]
    ladder.calls.setCurrentIndex(0)
    ladder.methods.setCurrentIndex(ladder.methods.findData("BYE"))
    assert labels(ladder) == ["server1 killed", "BYE"]


def show_times(ladder: Ladder, which: str) -> None:
    next(each for each in ladder.times.actions() if each.text() == which).trigger()


def test_times_are_since_the_kill_since_the_last_or_of_the_day(ladder: Ladder) -> None:
    assert [ladder.filter.time_of(number) for number in (0, 2, 4)] == ["-1.000", "+0.000", "+0.500"]
    show_times(ladder, DELTA)
    assert ladder.filter.time_of(3) == "+0.010"
    assert ladder.filter.time_of(1) == "+0.200", "since the message above, not since a hidden one"
    show_times(ladder, CLOCK)
    assert ladder.filter.time_of(0).count(":") == 2
    show_times(ladder, SINCE_KILL)


def test_a_selected_message_is_shown_whole_and_can_be_walked_by_keyboard(
    ladder: Ladder, qtbot: QtBot
) -> None:
    ladder.view.selectRow(0)
    shown = ladder.detail.toPlainText()
    assert ladder.detail.isVisible() and "Call-ID c1" in shown and "CSeq: 1 INVITE" in shown
    assert "127.0.0.1:4000 > 127.0.0.1:5070" in shown
    ladder.view.setFocus()
    qtbot.keyClick(ladder.view, Qt.Key.Key_Down)
    qtbot.keyClick(ladder.view, Qt.Key.Key_Down)
    assert ladder.detail.toPlainText() == "server1 killed"
    dialog = ladder.open_window(ladder.filter.index(0, 0))
    text = dialog.findChild(QPlainTextEdit)
    assert isinstance(text, QPlainTextEdit) and "CSeq: 1 INVITE" in text.toPlainText()
    dialog.close()


def test_every_row_can_be_read_out(ladder: Ladder) -> None:
    index = ladder.filter.index(0, 0)
    assert index.data(Qt.ItemDataRole.AccessibleTextRole) == "-1.000 Alice to server1: INVITE"
    assert [ladder.filter.index(0, column).data() for column in (1, 2, 3, 4)] == [
        "INVITE",
        "Alice",
        "server1",
        "c1",
    ]


def test_it_is_saved_as_text_and_as_a_picture(ladder: Ladder, tmp_path: Path) -> None:
    ladder.save("text", str(tmp_path / "a.txt"))
    text = (tmp_path / "a.txt").read_text(encoding="utf-8")
    assert "Alice -> server1  INVITE  127.0.0.1:4000 > 127.0.0.1:5070" in text
    assert "---- server1 killed ----" in text and "| CSeq: 1 INVITE" in text
    ladder.save("SVG", str(tmp_path / "a.svg"))
    svg = (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert svg.count("<text") >= len(COLUMNS) + 4 and "server1 killed" in svg


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
def test_the_pcap_is_opened_by_wireshark(ladder: Ladder, tmp_path: Path) -> None:
    ladder.save("pcap", str(tmp_path / "a.pcap"))
    fields = ["-T", "fields", "-e", "sip.Method", "-e", "sip.Call-ID", "-e", "udp.dstport"]
    command = ["tshark", "-r", str(tmp_path / "a.pcap"), "-d", "udp.port==5070,sip", *fields]
    out = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert out.splitlines() == ["INVITE\tc1\t5070", "INVITE\tc1\t5070"]


def test_rows_stand_in_the_order_of_their_times(ladder: Ladder) -> None:
    last = ladder.rows[-1].at
    ladder.add(Remark(last + 1.0, "server2 killed", "refusal"))
    ladder.add(MessageForwarded(last + 0.998, "Alice", "server2", "BYE", None, "c1"))
    assert [row.label for row in list(ladder.rows)[-2:]] == ["BYE", "server2 killed"]
