"""The softphone's windows and its command line: what opens, what closes, and what is said when
neither can be done."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from PySide6.QtCore import Qt, QTimer
from PySide6.QtWidgets import QApplication, QMessageBox
from qt_kit import FakePhone, find

from softphone.gui import app
from softphone.gui.event_bridge import Bridge
from softphone.gui.phone_panel import PhonePanel
from softphone.gui.unix_signals import Interrupt
from softphone.gui.windows import PhonesWindow
from softphone.options import PhoneOptions, parse_phones, parser
from softphone.password import password_of
from softphone.ua.account import Account
from softphone.ua.events import CallState


def seat(label: str, target: str = "") -> PhonePanel:
    bridge = Bridge()
    return PhonePanel(label, FakePhone(bridge), bridge, target=target)


@pytest.fixture
def pair(qtbot):
    left, right = seat("Alice", "bob"), seat("Bob", "alice")
    window = PhonesWindow([left, right])
    with qtbot.waitExposed(window):
        window.show()
    yield window, left.phone, right.phone
    if window.isVisible():
        with qtbot.waitSignal(window.gone):
            window.close()


def wanted(*arguments: str) -> list[PhoneOptions]:
    return parse_phones(parser().parse_args(arguments))


# -- windows ---------------------------------------------------------------------------------------


def test_two_phones_stand_side_by_side_and_offer_each_other(pair) -> None:
    window, _, _ = pair
    alice, bob = window.panels
    assert alice.x() < bob.x()
    assert find(alice, "target").text() == "bob"
    assert find(bob, "target").text() == "alice"


def test_what_one_phone_says_is_shown_on_its_own_panel_only(pair) -> None:
    window, _, bob = pair
    bob.begin(CallState.INCOMING, "Alice is calling", name="Alice")
    assert window.panels[0].call is None
    assert window.panels[1].call is not None


def test_control_digits_choose_the_phone(pair, qtbot) -> None:
    window, _, bob = pair
    qtbot.keyClick(window, "2", Qt.KeyboardModifier.ControlModifier)
    assert window.focusWidget() is window.panels[1].target
    bob.begin(CallState.INCOMING)
    qtbot.keyClick(window, "1", Qt.KeyboardModifier.ControlModifier)
    qtbot.keyClick(window, "2", Qt.KeyboardModifier.ControlModifier)
    qtbot.keyClick(window.focusWidget(), Qt.Key.Key_Return)
    assert bob.wishes == [("answer",)]


def test_closing_stops_the_phones_and_the_window_does_not_freeze(pair, qtbot) -> None:
    window, alice, bob = pair
    alice.stop_takes = bob.stop_takes = 0.3
    before = time.monotonic()
    with qtbot.waitSignal(window.gone, timeout=3000):
        window.close()
        assert time.monotonic() - before < 0.2  # the close itself returned at once
        assert not window.isVisible()
    assert alice.stopped
    assert bob.stopped


def test_the_phones_of_a_pair_stop_at_the_same_time(pair, qtbot) -> None:
    window, alice, bob = pair
    both = threading.Barrier(2, timeout=3.0)
    alice.stop = bob.stop = lambda timeout: both.wait()
    with qtbot.waitSignal(window.gone, timeout=8000):
        window.close()
    assert not both.broken


def test_a_phone_that_fails_to_stop_does_not_keep_the_window_from_going(qtbot) -> None:
    lonely = seat("Alice")
    window = PhonesWindow([lonely])

    def broken(timeout: float) -> None:
        raise RuntimeError("stuck")

    lonely.phone.stop = broken
    window.show()
    with qtbot.waitSignal(window.gone):
        window.close()
        window.close()  # an impatient second click


def test_a_signal_reaches_a_window_that_is_doing_nothing(qtbot) -> None:
    heard: list[int] = []
    interrupt = Interrupt(lambda: heard.append(1))
    try:
        signal.raise_signal(signal.SIGTERM)
        qtbot.waitUntil(lambda: bool(heard))
    finally:
        interrupt.close()


# -- the command line ------------------------------------------------------------------------------


def test_without_a_user_there_are_alice_and_bob_behind_the_forwarder() -> None:
    alice, bob = wanted()
    assert (alice.account.user, alice.target, bob.account.user, bob.target) == (
        "alice",
        "bob",
        "bob",
        "alice",
    )
    assert alice.proxy == bob.proxy == ("127.0.0.1", 5060)
    assert alice.account.domain == "failover.test"
    assert alice.listen == ("127.0.0.1", 0)


def test_a_user_with_a_domain_is_sent_to_that_domain() -> None:
    (one,) = wanted("--user", "carol@example.test", "--password", "secret")
    assert (one.account.user, one.account.domain, one.proxy) == (
        "carol",
        "example.test",
        ("example.test", 5060),
    )
    assert one.listen == ("0.0.0.0", 0)
    assert one.account.display_name == "Carol"
    assert not one.tone


def test_a_proxy_of_ipv6_is_talked_to_over_ipv6() -> None:
    (one,) = wanted("--user", "alice", "--proxy", "[::1]:5070")
    assert (one.proxy, one.listen) == (("::1", 5070), ("::1", 0))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--password", "x"], "--user"),
        (["--password-file", "x"], "--password-file is for one phone"),
        (["--ask-password"], "--ask-password is for one phone"),
        (["--user", "alice", "--password-file", "/no/such/file"], "/no/such/file cannot be read"),
        (["--user", "alice", "--password-file", os.devnull], "is empty"),
        (["--user", ""], "alice"),
        (["--user", "a b"], "not a user"),
        (["--user", "alice", "--proxy", "127.0.0.1:99999"], "--proxy"),
        (["--user", "alice", "--listen", "::1:5060"], "brackets"),
        (["--session-expires", "60"], "at least 90"),
    ],
)
def test_wrong_options_are_answered_with_a_sentence(arguments: list[str], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        wanted(*arguments)


def password(*arguments: str, ask=None, **environment: str) -> str:
    options = parser().parse_args(["--user", "alice", *arguments])
    return password_of(options, environment, ask or (lambda question: pytest.fail("asked")))


def test_the_password_comes_from_a_file_a_question_or_the_environment(tmp_path) -> None:
    file = tmp_path / "password"
    file.write_text(" wonder land\r\nsecond line\n", encoding="utf-8")
    (one,) = wanted("--user", "alice", "--password-file", str(file))
    assert one.account.password == " wonder land", "a blank may be part of it"
    assert password("--ask-password", ask=lambda question: question) == "Password of alice: "
    assert password(SOFTPHONE_PASSWORD="from outside") == "from outside"
    assert password("--password", "x", SOFTPHONE_PASSWORD="from outside") == "x"
    assert password() == ""


def test_the_password_is_not_handed_on_nor_written_down() -> None:
    environment = {"SOFTPHONE_PASSWORD": "from outside"}
    assert password_of(parser().parse_args(["--user", "alice"]), environment) == "from outside"
    assert environment == {}, "what we start does not inherit it"
    (one,) = wanted("--user", "alice", "--password", "secret")
    assert "secret" not in repr(one) + repr(Account("alice", "failover.test", "secret"))


def test_a_question_without_a_terminal_names_the_way_out() -> None:
    def nobody(question: str) -> str:
        raise EOFError

    with pytest.raises(ValueError, match="use --password-file"):
        password("--ask-password", ask=nobody)


def test_a_file_that_is_no_text_is_named(tmp_path) -> None:
    file = tmp_path / "password"
    file.write_bytes(b"\xff\xfe\n")
    with pytest.raises(ValueError, match="not a text in UTF-8"):
        password("--password-file", str(file))


def test_a_password_that_others_can_see_is_warned_of(tmp_path) -> None:
    told = run_softphone("--user", "alice", "--password", "secret").stderr
    assert "--password-file" in told and "SOFTPHONE_PASSWORD" in told and "secret" not in told
    file = tmp_path / "password"
    file.write_text("secret\n")
    for mode, warned in ((0o600, False), (0o644, os.name == "posix")):
        file.chmod(mode)
        told = run_softphone("--user", "alice", "--password-file", str(file)).stderr
        assert ("chmod 600" in told) is warned


def run_softphone(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {
        k: v
        for k, v in os.environ.items()
        if k not in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
    }
    command = [sys.executable, "-m", "softphone", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=30, env=kept | environment
    )


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="there is always a screen")
def test_without_a_screen_it_says_so_instead_of_aborting() -> None:
    result = run_softphone()
    assert result.returncode == 1
    assert "no display" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_an_address_in_use_is_one_sentence(free_port) -> None:
    port = free_port()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", port))
        arguments = ("--user", "alice", "--listen", f"127.0.0.1:{port}", "--tone")
        result = run_softphone(*arguments, QT_QPA_PLATFORM="offscreen")
    assert result.returncode == 1
    assert f"127.0.0.1:{port}" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_program_that_cannot_start(
    number, qapp, free_port, tmp_path, monkeypatch
) -> None:
    boxes: list[str] = []

    def look() -> None:
        box = QApplication.activeModalWidget()
        if isinstance(box, QMessageBox) and not boxes:
            boxes.append(box.text())
            signal.raise_signal(number)
            QTimer.singleShot(2000, box, lambda: (boxes.append("still open"), box.close()))

    monkeypatch.setattr(app, "SCREENLESS", ())
    monkeypatch.setattr(app, "settings_folder", lambda: tmp_path)
    timer = QTimer(interval=50)
    timer.timeout.connect(look)
    timer.start()
    port = free_port()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", port))
        status = app.run(wanted("--user", "alice", "--listen", f"127.0.0.1:{port}", "--tone"))
    timer.stop()
    assert status == 1
    assert len(boxes) == 1 and "The phone cannot start" in boxes[0], boxes


@pytest.mark.skipif(os.name != "posix", reason="needs SIGTERM")
def test_the_pair_opens_and_ends_on_sigterm() -> None:
    environment = os.environ | {"QT_QPA_PLATFORM": "offscreen"}
    command = [sys.executable, "-m", "softphone", "-v", "--proxy", "127.0.0.1:9"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as running:
        assert running.stderr is not None
        for line in running.stderr:
            if "window is open" in line:
                break
        running.terminate()
        _, errors = running.communicate(timeout=10)
    assert running.returncode == 0
    assert "Traceback" not in errors
