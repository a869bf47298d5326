"""What a person can see of a phone's work: its SIP messages, who answered last, the quality of a
call, and who is calling."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QFileDialog, QLabel, QPlainTextEdit, QPushButton
from qt_kit import FakePhone, FakeStats, find

from plumbing.pcap import CapturedDatagram, pcap
from softphone.gui.event_bridge import Bridge
from softphone.gui.phone_panel import PhonePanel
from softphone.gui.trace_window import TraceWindow
from softphone.gui.windows import PhonesWindow
from softphone.phone import Account, Phone
from softphone.ua.events import CallState, MessagePassed

HERE, THERE = ("127.0.0.1", 5062), ("127.0.0.1", 5060)
INVITE = (
    b"INVITE sip:bob@failover.test SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:5062;branch=z9hG4bKa\r\n"
    b"Max-Forwards: 70\r\nFrom: <sip:alice@failover.test>;tag=a\r\nTo: <sip:bob@failover.test>\r\n"
    b"Call-ID: one\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n"
)
RINGING = b"SIP/2.0 180 Ringing\r\nCall-ID: one\r\n\r\n"
SENT = MessagePassed(1.0, True, "INVITE sip:bob@failover.test", "one", False, INVITE, HERE, THERE)
ANSWER = MessagePassed(
    1.1, False, "180 Ringing (INVITE)", "one", False, RINGING, HERE, THERE, "server2"
)


@pytest.fixture
def phone(qtbot):
    bridge = Bridge()
    made = FakePhone(bridge)
    made.panel = PhonePanel("Alice", made, bridge, clock=made.clock)
    qtbot.addWidget(made.panel)
    with qtbot.waitExposed(made.panel):
        made.panel.show()
    return made


def opened(phone: FakePhone, qtbot) -> TraceWindow:
    qtbot.keyClick(phone.panel, Qt.Key.Key_M, Qt.KeyboardModifier.ControlModifier)
    return find(phone.panel, "trace_window", TraceWindow)


def test_messages_are_listed_and_the_whole_one_is_shown(phone, qtbot) -> None:
    phone.bridge.received.emit(SENT)
    window = opened(phone, qtbot)
    phone.bridge.received.emit(ANSWER)
    shown = [[window.model.index(row, column).data() for column in (1, 2, 3)] for row in (0, 1)]
    assert shown == [
        ["sent", "INVITE sip:bob@failover.test", "127.0.0.1:5062 -> 127.0.0.1:5060"],
        ["received", "180 Ringing (INVITE)", "127.0.0.1:5060 -> 127.0.0.1:5062"],
    ]
    text = find(window, "whole_message", QPlainTextEdit)
    assert text.toPlainText().startswith("SIP/2.0 180 Ringing"), "it follows the newest"
    qtbot.keyClick(window.table, Qt.Key.Key_Up)
    assert text.toPlainText().startswith("INVITE sip:bob")
    phone.bridge.received.emit(ANSWER)
    assert text.toPlainText().startswith("INVITE sip:bob"), "the choice stays"


def saved(phone, qtbot, monkeypatch, name: str, path) -> None:
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(path), ""))
    window = opened(phone, qtbot)
    qtbot.mouseClick(find(window, name, QPushButton), Qt.MouseButton.LeftButton)


def test_the_messages_are_saved_as_text(phone, qtbot, monkeypatch, tmp_path) -> None:
    for event in (SENT, ANSWER):
        phone.bridge.received.emit(event)
    saved(phone, qtbot, monkeypatch, "save_text", tmp_path / "trace.txt")
    text = (tmp_path / "trace.txt").read_text()
    assert text.count("--- ") == 2 and "INVITE sip:bob" in text and "180 Ringing" in text


def test_a_folder_that_cannot_be_written_is_told(phone, qtbot, monkeypatch, tmp_path) -> None:
    saved(phone, qtbot, monkeypatch, "save_text", tmp_path / "no" / "trace.txt")
    assert "cannot be written" in find(phone.panel, "said", QLabel).text()


@pytest.mark.skipif(not shutil.which("tshark"), reason="tshark is not installed")
def test_tshark_reads_what_is_saved(phone, qtbot, monkeypatch, tmp_path) -> None:
    for event in (SENT, ANSWER):
        phone.bridge.received.emit(event)
    saved(phone, qtbot, monkeypatch, "save_pcap", tmp_path / "trace.pcap")
    command = ["tshark", "-r", str(tmp_path / "trace.pcap"), "-o", "udp.check_checksum:TRUE"]
    fields = ["-T", "fields", "-e", "sip.Method", "-e", "udp.srcport", "-e", "udp.checksum.status"]
    read = subprocess.run(command + fields, capture_output=True, text=True, timeout=60)
    assert read.stdout.splitlines()[0].split("\t") == ["INVITE", "5062", "1"]
    assert len(read.stdout.splitlines()) == 2


def test_a_capture_file_has_both_families_and_leaves_out_what_has_no_address() -> None:
    one = CapturedDatagram(1.5, ("::1", 5062), ("::1", 5060), b"odd")
    two = CapturedDatagram(2.0, ("127.0.0.1", 1), ("127.0.0.1", 2), b"even")
    file = pcap([one, two, two._replace(source=("server", 5060))])
    assert len(file) == 24 + 16 + 40 + 8 + 3 + 16 + 20 + 8 + 4
    assert file[24:32] == (1).to_bytes(4, "little") + (500_000).to_bytes(4, "little")


def test_a_real_phone_traces_what_it_sends(qtbot, free_port) -> None:
    bridge = Bridge()
    account = Account("alice", "failover.test")
    phone = Phone(account, ("127.0.0.1", free_port()), ("127.0.0.1", 0), bridge.received.emit)
    panel = PhonePanel("Alice", phone, bridge)
    qtbot.addWidget(panel)
    phone.start()
    try:
        qtbot.waitUntil(lambda: len(panel.menu.trace) > 0)
    finally:
        phone.stop(0.5)
    first = next(iter(panel.menu.trace))
    assert first.text.startswith("REGISTER sip:failover.test SIP/2.0\nVia: ")
    assert first.message.local == phone.address


def test_the_server_that_answered_last_is_named_beside_the_registration(phone) -> None:
    registration = find(phone.panel, "registration", QLabel)
    phone.tell_registration()
    assert registration.text() == "Registered through server1"
    phone.bridge.received.emit(ANSWER)
    assert registration.text() == "Registered through server1; server2 answered last"


def test_the_quality_of_the_call_is_shown(phone, qtbot) -> None:
    phone.stats = FakeStats(500, 490, 10, 3.2, 21.4, codec="PCMA", round_trip_ms=12.3)
    phone.begin(CallState.CALLING)
    phone.become(CallState.TALKING)
    told = "Loss 2.0 %, jitter/RTT 3/12 ms"
    qtbot.waitUntil(lambda: "PCMA packets in 490" in find(phone.panel, "packets", QLabel).text())
    qtbot.waitUntil(lambda: find(phone.panel, "quality", QLabel).text() == told)


def test_the_title_says_who_is_calling_while_it_rings(qtbot) -> None:
    bridge = Bridge()
    phone = FakePhone(bridge)
    window = PhonesWindow([PhonePanel("Alice", phone, bridge)])
    window.show()
    phone.begin(CallState.INCOMING, "Bob is calling")
    assert window.windowTitle() == "Bob is calling - softphone"
    phone.become(CallState.TALKING)
    assert window.windowTitle() == "Alice - softphone"
    with qtbot.waitSignal(window.gone):
        window.close()
