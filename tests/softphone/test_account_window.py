"""One's own phone: set up in a window, tried at a server, kept in a file, opened by a double
click."""

from __future__ import annotations

import gc
import hashlib
import os
import re
import socket
import stat
import threading

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QAction
from PySide6.QtWidgets import QApplication, QDialogButtonBox, QLabel, QLineEdit, QPushButton
from qt_kit import FakePhone, find

from sip.message import Request, parse, reply
from softphone.gui import account_dialog, app
from softphone.gui.account_dialog import AccountDialog
from softphone.gui.app import Softphone
from softphone.gui.event_bridge import Bridge
from softphone.gui.phone_panel import PhonePanel
from softphone.options import account_options, options_given, parse_phones, parser
from softphone.settings import DeviceChoice, SavedAccount, Settings, load, save
from softphone.ua.events import RegistrationState

# QtMultimedia tries one sound system after another
pytestmark = pytest.mark.qt_log_ignore("(?i)pipewire|pulse", extend=True)
CHALLENGE = 'Digest realm="example.org", nonce="n1", qop="auth", algorithm=MD5'


def md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


class Registrar:
    """A server that registers alice, whose password is wonder, and nobody else."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.socket.getsockname()[1]}"
        self.registered = 0
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self) -> None:
        try:
            while True:
                data, source = self.socket.recvfrom(65535)
                if data == b"end":
                    return
                if not data.strip():
                    continue  # a keep-alive
                request = parse(data)
                if isinstance(request, Request) and request.method == "REGISTER":
                    status, fields = self.judge(request)
                    answer = reply(request, status, to_tag="r", fields=fields)
                    self.socket.sendto(answer.to_bytes(), source)
        except OSError:
            return  # closed

    def judge(self, request: Request) -> tuple[int, list[tuple[str, str]]]:
        if request.to.uri.user != "alice":
            return 404, []
        proof = dict(re.findall(r'(\w+)="?([^",]*)"?', request.get("Authorization") or ""))
        one, two = md5("alice:example.org:wonder"), md5(f"REGISTER:{proof.get('uri', '')}")
        nonce = f"{proof.get('nonce')}:{proof.get('nc')}:{proof.get('cnonce')}:auth"
        if proof.get("response") != md5(f"{one}:{nonce}:{two}"):
            return 401, [("WWW-Authenticate", CHALLENGE)]
        self.registered += request.get("Expires") != "0"
        return 200, [("Contact", request.get("Contact")), ("Expires", "60")]

    def close(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
            end.sendto(b"end", self.socket.getsockname())
        self.thread.join(2)
        self.socket.close()


@pytest.fixture
def registrar():
    made = Registrar()
    yield made
    made.close()


@pytest.fixture
def sheet(qtbot):
    dialog = AccountDialog()
    qtbot.addWidget(dialog)
    with qtbot.waitExposed(dialog):
        dialog.show()
    return dialog


def fill(qtbot, dialog, **fields: str) -> None:
    for name, text in fields.items():
        edit = find(dialog, name, QLineEdit)
        edit.clear()
        qtbot.keyClicks(edit, text)


def tried(qtbot, dialog) -> str:
    qtbot.mouseClick(find(dialog, "test", QPushButton), Qt.MouseButton.LeftButton)
    result = find(dialog, "result", QLabel)
    qtbot.waitUntil(lambda: result.text() not in ("", "Asking the server ..."), timeout=8000)
    return result.text()


def press_ok(qtbot, dialog) -> None:
    box = dialog.findChild(QDialogButtonBox)
    qtbot.mouseClick(box.button(QDialogButtonBox.StandardButton.Ok), Qt.MouseButton.LeftButton)


# -- the sheet -------------------------------------------------------------------------------------


def running_tests() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "account-test"]


def test_a_window_may_be_closed_and_gone_while_its_test_goes_on(free_port, qtbot) -> None:
    for _ in range(5):
        dialog = AccountDialog(SavedAccount("alice@example.org", f"127.0.0.1:{free_port()}"))
        qtbot.mouseClick(find(dialog, "test", QPushButton), Qt.MouseButton.LeftButton)
        dialog.reject()
        del dialog
        gc.collect()
    assert running_tests()
    qtbot.waitUntil(lambda: not running_tests())


def test_what_is_right_works(sheet, registrar, qtbot) -> None:
    fill(qtbot, sheet, user="alice@example.org", password="wonder", server=registrar.address)
    assert tried(qtbot, sheet) == "It works: the server has registered this phone."
    assert registrar.registered == 1


def test_a_wrong_password_is_told_at_its_field(sheet, registrar, qtbot) -> None:
    fill(qtbot, sheet, user="alice@example.org", password="land", server=registrar.address)
    assert tried(qtbot, sheet) == "The password of alice is wrong"
    assert sheet.focusWidget() is find(sheet, "password")


def test_an_unknown_user_is_told_at_its_field(sheet, registrar, qtbot) -> None:
    fill(qtbot, sheet, user="carol@example.org", server=registrar.address)
    assert tried(qtbot, sheet) == "The server does not know carol"
    assert sheet.focusWidget() is find(sheet, "user")


def test_a_server_that_does_not_answer_is_told_at_its_field(
    sheet, free_port, qtbot, monkeypatch
) -> None:
    monkeypatch.setattr(account_dialog, "PATIENCE_SECONDS", 0.5)
    fill(qtbot, sheet, user="alice@example.org", server=f"127.0.0.1:{free_port()}")
    assert "No server answers at 127.0.0.1:" in tried(qtbot, sheet)
    assert sheet.focusWidget() is find(sheet, "server")


def test_a_server_whose_name_is_looked_up_for_long_is_told_like_one_that_does_not_answer(
    sheet, qtbot, monkeypatch
) -> None:
    found = threading.Event()
    look_up = socket.getaddrinfo

    def slow(*asked, **more):
        found.wait(20.0)
        return look_up(*asked, **more)

    monkeypatch.setattr(account_dialog, "PATIENCE_SECONDS", 0.5)
    monkeypatch.setattr(socket, "getaddrinfo", slow)
    try:
        fill(qtbot, sheet, user="alice@example.org", server="localhost")
        assert "No server answers at localhost" in tried(qtbot, sheet)
        assert find(sheet, "test", QPushButton).isEnabled()
    finally:
        found.set()
        for thread in running_tests():
            thread.join(5.0)


@pytest.mark.parametrize("server", ["no-such-computer.invalid", "two..dots"])
def test_a_server_without_an_address_is_told_at_its_field(sheet, qtbot, server: str) -> None:
    fill(qtbot, sheet, user="alice", server=server)
    assert f"{server}:5060 cannot be found" in tried(qtbot, sheet)
    assert sheet.focusWidget() is find(sheet, "server")


@pytest.mark.parametrize(
    ("fields", "told", "field"),
    [
        ({"user": "", "server": "127.0.0.1"}, "a name is missing", "user"),
        ({"user": "alice"}, "is missing, such as example.org", "server"),
        ({"user": "alice", "server": "127.0.0.1:99999"}, "Server: ", "server"),
        ({"user": "a b", "server": "127.0.0.1"}, "not a user", "user"),
    ],
)
def test_what_cannot_be_is_said_before_anybody_is_asked(sheet, qtbot, fields, told, field) -> None:
    fill(qtbot, sheet, **fields)
    press_ok(qtbot, sheet)
    assert told in find(sheet, "result", QLabel).text()
    assert sheet.focusWidget() is find(sheet, field) and sheet.isVisible()


def test_ok_keeps_what_was_written(sheet, qtbot) -> None:
    fill(qtbot, sheet, display_name="Alice", user="alice", password=" x ", server="127.0.0.1")
    with qtbot.waitSignal(sheet.saved) as saved:
        press_ok(qtbot, sheet)
    assert saved.args == [SavedAccount("alice", "127.0.0.1", "Alice", " x ")]


# -- the file --------------------------------------------------------------------------------------


def test_the_file_is_for_its_owner_only_and_says_all_again(tmp_path) -> None:
    path = tmp_path / "folder" / "softphone.json"
    settings = Settings(
        SavedAccount("älice", "server", "Ä", "s3cret"), DeviceChoice("01", "", "02")
    )
    save(path, Settings())
    save(path, settings)
    assert load(path) == settings
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "s3cret" not in repr(settings)


def test_no_file_is_no_fault_and_a_damaged_one_has_a_sentence(tmp_path) -> None:
    path = tmp_path / "softphone.json"
    assert load(path) == Settings()
    for text in ("{", "[]", '{"account": {"user": "a"}}'):
        path.write_text(text)
        with pytest.raises(ValueError, match="damaged: remove it"):
            load(path)


def test_which_phone_an_account_makes() -> None:
    one = account_options(SavedAccount("alice", "192.0.2.1"))
    assert (one.account.user, one.account.domain, one.proxy) == (
        "alice",
        "192.0.2.1",
        ("192.0.2.1", 5060),
    )
    two = account_options(SavedAccount("alice@example.org", "", "Alice", "x"))
    assert (two.account.domain, two.proxy, two.account.display_name) == (
        "example.org",
        ("example.org", 5060),
        "Alice",
    )


def test_one_s_own_phone_opens_only_where_nothing_else_is_asked_for() -> None:
    for given, expected in (([], False), (["-v"], False), (["--pair"], True), (["--tone"], True)):
        assert options_given(parser().parse_args(given)) is expected


# -- the panel -------------------------------------------------------------------------------------


@pytest.fixture
def panel(qtbot):
    bridge = Bridge()
    phone = FakePhone(bridge)
    panel = PhonePanel("Alice", phone, bridge, target="bob", clock=phone.clock)
    panel.phone = phone
    qtbot.addWidget(panel)
    with qtbot.waitExposed(panel):
        panel.show()
    return panel


@pytest.mark.parametrize("way", ["click", "enter"])
def test_a_refused_password_has_its_field_in_place(panel, qtbot, way: str) -> None:
    field = find(panel, "password", QLineEdit)
    assert not field.isVisible()
    panel.phone.tell_registration(RegistrationState.REFUSED, "The password of alice is wrong", True)
    assert field.isVisible() and field.echoMode() is QLineEdit.EchoMode.Password
    field.setFocus()
    qtbot.keyClicks(field, "wonder")
    with qtbot.waitSignal(panel.password_given) as given:
        if way == "enter":
            qtbot.keyClick(field, Qt.Key.Key_Return)
        else:
            qtbot.mouseClick(find(panel, "use_password"), Qt.MouseButton.LeftButton)
    assert panel.phone.wishes == [("set_password", "wonder")] and given.args == ["wonder"]
    panel.phone.tell_registration()
    assert not field.isVisible() and field.text() == ""


def test_registering_again_and_logging_off(panel) -> None:
    panel.phone.tell_registration()
    panel.findChild(QAction, "register").trigger()
    panel.menu.log_off.trigger()
    assert panel.phone.wishes == [("register",), ("unregister",)]
    panel.phone.tell_registration(RegistrationState.UNREGISTERED, "Not registered")
    assert not panel.menu.log_off.isEnabled()


# -- the program -----------------------------------------------------------------------------------


@pytest.fixture
def program(qapp, tmp_path, free_port):
    pair = parse_phones(parser().parse_args(["--proxy", f"127.0.0.1:{free_port()}"]))
    made = Softphone(qapp, tmp_path, pair)
    made.pair = pair
    yield made
    if made.window is not None and made.window.isVisible():
        made.window.gone.disconnect(made._on_gone)
        made.window.close()
        made.window._goodbye.join(3)
    made.stop()


def entry(program: Softphone, name: str):
    (action,) = [
        each for each in program.window.panels[0].menu.actions() if each.objectName() == name
    ]
    return action


def set_up(program, registrar, qtbot, password: str) -> None:
    entry(program, "account").trigger()
    sheet = program.window.findChild(AccountDialog)
    fill(qtbot, sheet, user="alice@example.org", password=password, server=registrar.address)
    press_ok(qtbot, sheet)
    qtbot.waitUntil(lambda: len(program.window.panels) == 1, timeout=8000)


def says(program, name: str) -> str:
    return find(program.window.panels[0], name, QLabel).text()


def test_set_up_once_it_opens_instead_of_the_pair(program, registrar, qtbot, tmp_path) -> None:
    program.open(program.pair)
    assert len(program.window.panels) == 2 and program.own_phone() == []
    set_up(program, registrar, qtbot, "wonder")
    qtbot.waitUntil(lambda: says(program, "registration") == "Registered as alice", timeout=8000)
    again = Softphone(QApplication.instance(), tmp_path, program.pair)
    assert [one.account.user for one in again.own_phone()] == ["alice"]
    again.stop()
    entry(program, "pair").trigger()
    qtbot.waitUntil(lambda: len(program.window.panels) == 2, timeout=8000)


def test_a_program_that_is_ended_while_it_says_what_cannot_start_opens_no_other_window(
    program, qtbot, monkeypatch
) -> None:
    ended: list[bool] = []
    program.open(program.pair)
    first = program.window
    monkeypatch.setattr(program._app, "quit", lambda: ended.append(True))
    monkeypatch.setattr(app, "complain", lambda sentence: program.close())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        here = f"127.0.0.1:{taken.getsockname()[1]}"
        program._reopen(parse_phones(parser().parse_args(["--user", "alice", "--listen", here])))
        qtbot.waitUntil(lambda: bool(ended) or program.window is not first, timeout=8000)
    assert ended


def test_the_right_password_typed_in_the_panel_is_kept(program, registrar, qtbot) -> None:
    program.open(program.pair)
    set_up(program, registrar, qtbot, "wrong")
    told = "The password of alice is wrong"
    qtbot.waitUntil(lambda: says(program, "registration") == told, timeout=8000)
    field = find(program.window.panels[0], "password", QLineEdit)
    qtbot.keyClicks(field, "wonder")
    qtbot.mouseClick(find(program.window.panels[0], "use_password"), Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: says(program, "registration") == "Registered as alice", timeout=8000)
    assert load(program._file).account.password == "wonder"
    entry(program, "log_off").trigger()
    qtbot.waitUntil(lambda: says(program, "registration") == "Not registered", timeout=8000)
    entry(program, "register").trigger()
    qtbot.waitUntil(lambda: says(program, "registration") == "Registered as alice", timeout=8000)


def test_a_device_that_is_lost_is_said_by_the_window_that_is_open(
    program, registrar, qtbot
) -> None:
    program.open(program.pair)
    set_up(program, registrar, qtbot, "wonder")
    program.devices.said.emit("The ringer was lost; the call goes on without it.")
    assert "The ringer was lost" in says(program, "note")
    entry(program, "pair").trigger()
    qtbot.waitUntil(lambda: len(program.window.panels) == 2, timeout=8000)
    program.devices.said.emit("The ringer was lost; the call goes on without it.")
