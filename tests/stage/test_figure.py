"""The figure and the sheets below it: where things stand, what travels, what each state looks like
and says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import combinations

import pytest
from PySide6.QtCore import QPoint, QSize, QSizeF, Qt
from PySide6.QtWidgets import QComboBox, QLineEdit, QTabBar, QToolButton
from pytestqt.qtbot import QtBot
from qt_kit import FakePhone, colours
from stage_kit import text_of

from softphone.gui.event_bridge import Bridge
from softphone.gui.phone_panel import PhonePanel
from softphone.gui.theme import DARK, LIGHT, Palette
from softphone.gui.widgets import FlatButton
from stage.gui import painting, wording
from stage.gui.geometry import ONE, TWO, lay_out
from stage.gui.main_window import BILL_PAGE, MESSAGES_PAGE, Window
from stage.gui.main_window import LEAST as LEAST_WINDOW
from stage.gui.message_animation import LASTS, WAITING, AnimationQueue, MessageAnimation
from stage.gui.message_ladder import ROWS_KEPT
from stage.gui.presenter import forwarder_look, headline, phone_look, phone_note, server_look
from stage.gui.topology_view import LOOKS, TONES, PhoneAppearance, ServerAppearance, TopologyView
from stage.observation.from_events import bill_from_json, person
from stage.observation.observations import (
    SHORT_REASONS,
    Audio,
    CallStateChanged,
    ForwarderActivated,
    MessageForwarded,
    ProcessBack,
    ProcessKilled,
    Registration,
    ServerFailover,
    ServersUp,
)
from stage.scenes.director import FIGURES
from stage.scenes.state import DemoState, ProgramState, Roles
from stage.scenes.use_case import UseCase, steps_of

PHONES, SERVERS, PAIR = ("Alice", "Bob"), ("server1", "server2"), ("forwarder1", "forwarder2")
INVITE = MessageAnimation(("Alice", "forwarder", "server1"), "INVITE", "request")
RINGING = MessageAnimation(("server1", "forwarder", "Alice"), "180 Ringing", "answer")
YES, NO = (True, "it can be done"), (False, "it cannot be done")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def figure(qtbot: QtBot, clock: Clock) -> TopologyView:
    made = TopologyView(PHONES, SERVERS, 5060, clock=clock)
    qtbot.addWidget(made)
    made.resize(720, 480)
    made.show()
    return made


@pytest.fixture
def pair(qtbot: QtBot, clock: Clock) -> Iterator[TopologyView]:
    """A figure with two forwarders, at rest."""
    made = TopologyView(PHONES, SERVERS, 5060, clock=clock, pair=PAIR)
    qtbot.addWidget(made)
    made.resize(680, 467)
    made.show()
    made.show_hot("server1")
    made.show_active("forwarder1")
    clock.now += 10
    yield made


@pytest.fixture(params=[(), PAIR], ids=["one forwarder", "two forwarders"])
def window(qtbot: QtBot, request: pytest.FixtureRequest) -> Window:
    bridges = [Bridge(), Bridge()]
    panels = [
        PhonePanel(name, FakePhone(bridge), bridge)
        for name, bridge in zip(PHONES, bridges, strict=True)
    ]
    steps = steps_of(Roles(forwarders=request.param))
    figure = TopologyView(PHONES, SERVERS, 5060, pair=request.param)
    made = Window(panels[0], panels[1], figure, ("Alice", "forwarder", *SERVERS, "Bob"), steps)
    qtbot.addWidget(made)
    made.show()
    return made


# -- messages on their way


def test_a_message_takes_its_time_from_one_end_to_the_other() -> None:
    traffic = AnimationQueue()
    traffic.add("call", INVITE, 10.0)
    (half,) = traffic.positions(10.0 + LASTS / 2)
    assert half.travel is INVITE and half.fraction == pytest.approx(0.5)
    assert traffic.positions(10.0 + LASTS) == [] and not traffic.busy


def test_messages_of_one_call_follow_each_other_and_two_calls_do_not_wait() -> None:
    traffic = AnimationQueue()
    for call in ("one", "one", "two"):
        traffic.add(call, INVITE if call == "one" else RINGING, 10.0)
    assert [position.travel for position in traffic.positions(10.1)] == [INVITE, RINGING]
    (second,) = traffic.positions(10.0 + LASTS * 1.5)
    assert second.travel is INVITE and second.fraction == pytest.approx(0.5)


def test_a_crowd_hurries_and_is_bounded() -> None:
    traffic = AnimationQueue()
    for _ in range(WAITING * 3):
        traffic.add("call", INVITE, 10.0)
    assert traffic.positions(10.0 + WAITING * LASTS) == [], "later ones take half the time"


def test_nothing_lingers_however_rarely_one_looks() -> None:
    traffic = AnimationQueue()
    traffic.add("call", INVITE, 10.0)
    traffic.add("call", RINGING, 10.0)
    assert traffic.positions(1000.0) == [] and not traffic.busy


@pytest.mark.parametrize(
    ("status", "replayed", "label", "kind"),
    [
        (None, False, "INVITE", "request"),
        (None, True, "INVITE again", "replay"),
        (180, False, "180 Ringing", "answer"),
        (486, False, "486 Busy", "refusal"),
        (299, False, "299", "answer"),
    ],
)
def test_a_message_is_called_what_it_is(
    status: int | None, replayed: bool, label: str, kind: str
) -> None:
    message = MessageForwarded(1.0, "Alice", "server1", "INVITE", status, "call", replayed=replayed)
    assert (message.label, message.kind) == (label, kind)
    assert kind in TONES


def test_every_known_reason_is_short_enough_to_travel() -> None:
    assert all(len(reason) <= 10 for reason in SHORT_REASONS.values())


# -- where things stand


@pytest.mark.parametrize(
    "size", [ONE.least, QSizeF(432, 340), QSizeF(720, 480), QSizeF(1400, 900), QSizeF(432, 900)]
)
def test_no_box_touches_another_or_leaves_the_figure(size: QSizeF) -> None:
    boxes = lay_out(size, PHONES, SERVERS).boxes
    for one, other in combinations(boxes.values(), 2):
        assert not one.adjusted(-4, -4, 4, 4).intersects(other)
    for box in boxes.values():
        assert (
            box.left() >= 0
            and box.right() <= size.width()
            and box.top() >= 0
            and box.bottom() <= size.height()
        )


@pytest.mark.parametrize("size", [TWO.least, QSizeF(432, 373), QSizeF(680, 467), QSizeF(1400, 900)])
def test_two_forwarders_have_room_too(size: QSizeF) -> None:
    boxes = lay_out(size, PHONES, SERVERS, PAIR).boxes
    for one, other in combinations(boxes.values(), 2):
        assert not one.adjusted(-4, -4, 4, 4).intersects(other)
    for name, box in boxes.items():
        name_below = 22 if name in PHONES else 0
        assert (
            box.left() >= 0
            and box.right() <= size.width()
            and box.top() >= 0
            and box.bottom() <= size.height()
        )
        assert not any(
            box.adjusted(0, 0, 0, name_below).intersects(boxes[other])
            for other in (*PAIR, *SERVERS)
            if other != name
        )


def test_a_route_runs_from_edge_to_edge_through_the_forwarder() -> None:
    geometry = lay_out(QSizeF(720, 480), PHONES, SERVERS)
    route = geometry.route(("Bob", "forwarder", "server2"))
    start, end = route.pointAtPercent(0), route.pointAtPercent(1)
    assert start.x() < geometry.boxes["Bob"].left() and end.y() < geometry.boxes["server2"].top()
    assert any(
        geometry.boxes["forwarder"].contains(route.pointAtPercent(step / 100))
        for step in range(101)
    )


# -- the figure


def test_kill_and_restart_are_buttons_on_the_server_and_say_which(
    figure: TopologyView, qtbot: QtBot
) -> None:
    figure.show_server("server1", ServerAppearance("hot", "hot", ":5070", YES, NO))
    kill, restart = figure.buttons["server1", "kill"], figure.buttons["server1", "restart"]
    assert kill.accessibleName() == "Kill server1" and restart.accessibleName() == "Restart server1"
    assert not restart.isEnabled() and restart.toolTip() == "it cannot be done"
    with qtbot.waitSignal(figure.kill) as clicked:
        qtbot.mouseClick(kill, Qt.MouseButton.LeftButton)
    assert clicked.args == ["server1"]


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_every_state_of_a_server_looks_different(
    figure: TopologyView, look: str, palette: Palette
) -> None:
    pictures = []
    with colours(palette):
        for state in ("hot", look):
            figure.show_server("server1", ServerAppearance(state, state, ":5070", YES, YES))
            pictures.append(figure.grab().toImage())
    assert (pictures[0] == pictures[1]) is (look == "hot")


def test_the_lit_path_grows_to_the_new_hot_server_and_then_rests(
    figure: TopologyView, clock: Clock, qtbot: QtBot
) -> None:
    figure.show_hot("server1")
    clock.now += 1
    before = figure.grab().toImage()
    figure.show_hot("server2")
    clock.now += LASTS / 2
    half = figure.grab().toImage()
    clock.now += LASTS
    whole = figure.grab().toImage()
    assert before != half != whole
    qtbot.waitUntil(lambda: not figure._frames.isActive(), timeout=1000)


def test_each_of_two_forwarders_has_its_plug_in_the_order_of_reading(
    pair: TopologyView, qtbot: QtBot
) -> None:
    pair.show_server("forwarder2", ServerAppearance("standby", "standby", "", YES, NO))
    assert [name for name, action in pair.buttons if action == "kill"] == [*PAIR, *SERVERS]
    with qtbot.waitSignal(pair.kill) as clicked:
        qtbot.mouseClick(pair.buttons["forwarder2", "kill"], Qt.MouseButton.LeftButton)
    assert clicked.args == ["forwarder2"]
    assert pair.buttons["forwarder2", "kill"].accessibleName() == "Kill forwarder2"
    assert pair.buttons["forwarder2", "restart"].toolTip() == "it cannot be done"


def test_the_address_moves_first_to_its_new_holder_and_then_on_to_the_server(
    pair: TopologyView, clock: Clock, qtbot: QtBot
) -> None:
    pictures = []
    pair.show_active("forwarder2")
    for _ in range(4):
        clock.now += LASTS / 2 + 0.01
        pictures.append(pair.grab().toImage())
    first, second, third, last = pictures
    assert first != second != third != last
    lower = pair._geometry.boxes["forwarder2"].toRect().bottom()
    below = [
        picture.copy(0, lower, picture.width(), picture.height() - lower) for picture in pictures
    ]
    assert below[0] != below[3], "the line to the server came afterwards"
    assert pair.grab().toImage() == last
    qtbot.waitUntil(lambda: not pair._frames.isActive(), timeout=1000)


def test_with_reduced_motion_the_address_has_moved_at_once(
    pair: TopologyView, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALL_FAILOVER_MOTION", "reduced")
    pair.show_active("forwarder2")
    at_once = pair.grab().toImage()
    clock.now += 10
    assert pair.grab().toImage() == at_once


@pytest.mark.parametrize(
    ("message", "nodes"),
    [
        (("Alice", "server1", "BYE", None), ["Alice", "address", "forwarder1", "server1"]),
        (("server1", "Alice", "BYE", 200), ["server1", "forwarder1", "address", "Alice"]),
        (("Alice", "server1", "BYE", None, True), ["forwarder1", "server1"]),
        (("Guest1", "server1", "BYE", None), ["Guest1", "address", "forwarder1", "server1"]),
        (("server1", "Guest1", "BYE", 200), ["server1", "forwarder1", "address", "Guest1"]),
    ],
)
def test_a_message_passes_the_address_that_two_forwarders_share(
    pair: TopologyView, message: tuple[str, str, str, int | None], nodes: list[str]
) -> None:
    pair.add_guest("Guest1")
    source, target, method, status, *replayed = message
    sent = MessageForwarded(1.0, source, target, method, status, "c", "forwarder1", *replayed)
    assert pair.nodes(sent.nodes) == nodes


def test_an_address_that_nobody_has_looks_different(pair: TopologyView) -> None:
    before = pair.grab().toImage()
    pair.show_active(None)
    assert pair.grab().toImage() != before


def test_with_reduced_motion_a_message_is_shown_in_place_and_the_audio_stands(
    figure: TopologyView, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALL_FAILOVER_MOTION", "reduced")
    figure.show_talking(True)
    figure.show_message(MessageForwarded(100.0, "Alice", "server1", "INVITE", None, "call"))
    clock.now += LASTS * 0.2
    early = figure.grab().toImage()
    clock.now += LASTS * 0.6
    assert figure.grab().toImage() == early
    clock.now += LASTS
    assert figure.grab().toImage() != early, "it is gone when its time is over"
    figure._frame()
    assert not figure._frames.isActive()


# -- what is said


def state(*seen: object) -> DemoState:
    script = UseCase()
    for one in (
        ServersUp(0, frozenset(SERVERS), "server1"),
        Registration(0, "Alice", True),
        Registration(0, "Bob", True),
        *seen,
    ):
        script.observe(one)
    return script.state


def running(**changes: bool) -> dict[str, ProgramState]:
    return {
        name: ProgramState(name, 5070, 4711, True, False, forwarder_state="UP", **changes)
        for name in SERVERS
    }


def test_the_headline_leads_through_a_call() -> None:
    calling = CallStateChanged(1, "Alice", "calling", "c")
    incoming = CallStateChanged(2, "Bob", "incoming", "c")
    talking = [CallStateChanged(3, name, "talking", "c", 3.0) for name in PHONES]
    told = [
        headline(state(*seen), running(), {}).words
        for seen in (
            [],
            [calling],
            [calling, incoming],
            [calling, incoming, *talking],
            [calling, *talking, CallStateChanged(9, "Alice", "ended", "c", 3.0, 9.0)],
            [CallStateChanged(9, "Bob", "calling", "d")],
        )
    ]
    assert told == [
        "Ready",
        "Alice calls",
        "Bob's phone rings",
        "Server1 carries the call",
        "The call is over",
        "Bob calls",
    ]


def test_with_no_server_alive_the_headline_says_so_even_while_they_talk() -> None:
    dead = {name: ProgramState(name, 5070, 4711, False, False, True, "DOWN") for name in SERVERS}
    talking = [CallStateChanged(3, name, "talking", "c", 3.0) for name in PHONES]
    told = headline(
        state(
            CallStateChanged(1, "Alice", "calling", "c"), *talking, ServersUp(4, frozenset(), None)
        ),
        dead,
        {},
    )
    assert told.words == "No server is alive" and "sound goes on" in told.hint


@pytest.mark.parametrize(
    ("server", "look", "words"),
    [
        (ProgramState("server1", 5070), "waking", "starting ..."),
        (
            ProgramState("server1", 5070, 1, True, False, forwarder_state="UP"),
            "hot",
            "hot: gets new calls",
        ),
        (
            ProgramState("server2", 5080, 1, True, False, forwarder_state="UP"),
            "ready",
            "replica: ready",
        ),
        (
            ProgramState("server2", 5080, 1, True, False, forwarder_state="FAILING"),
            "failing",
            "misses heartbeats",
        ),
        (
            ProgramState("server2", 5080, 1, True, False, forwarder_state="RECOVERING"),
            "waking",
            "not trusted yet",
        ),
        (
            ProgramState("server2", 5080, 1, True, False, forwarder_state="EJECTED"),
            "failing",
            "answers heartbeats only",
        ),
        (ProgramState("server1", 5070, 1, False, False, True), "dead", "crashed (SIGKILL)"),
        (ProgramState("server1", 5070, 1, False, False, False), "dead", "not running"),
        (ProgramState("server1", 5070, None, False, False, False), "dead", "not running"),
    ],
)
def test_a_server_says_its_state_and_why_a_button_is_off(
    server: ProgramState, look: str, words: str
) -> None:
    shown = server_look(server, "server1")
    assert (shown.look, shown.words) == (look, words)
    assert shown.kill[1] and shown.restart[1]
    assert shown.kill[0] == server.alive
    assert shown.restart[0] == (not server.alive and not server.starting and server.pid is not None)


ON, OFF = {"alive": True, "starting": False}, {"alive": False, "starting": False}


@pytest.mark.parametrize(
    ("changes", "look", "words"),
    [
        ({}, "waking", "starting ..."),
        ({**ON, "forwarder_state": "active"}, "hot", "active"),
        ({**ON, "forwarder_state": "standby"}, "standby", "standby"),
        ({**ON, "forwarder_state": ""}, "waking", "not heard of yet"),
        ({**OFF, "crashed": True}, "dead", "crashed (SIGKILL)"),
        (OFF, "dead", "not running"),
    ],
)
def test_a_forwarder_says_its_role(changes: dict[str, bool | str], look: str, words: str) -> None:
    shown = forwarder_look(ProgramState("forwarder1", 5060, 4711, **changes))  # type: ignore[arg-type]
    assert (shown.look, shown.words) == (look, words)
    assert shown.kill[1] and shown.restart[1]


def forwarders(first: str, second: str) -> dict[str, ProgramState]:
    return {
        name: ProgramState(name, 5060, 1, bool(role), False, not role, role)
        for name, role in zip(PAIR, (first, second), strict=True)
    }


def with_pair(*seen: object) -> DemoState:
    script = UseCase(Roles(forwarders=PAIR))
    calling = CallStateChanged(1, "Alice", "calling", "c")
    talking = [CallStateChanged(3, name, "talking", "c", 3.0) for name in PHONES]
    for one in (
        ForwarderActivated(0, "forwarder1"),
        ServersUp(0, frozenset(SERVERS), "server1"),
        calling,
        *talking,
        *seen,
    ):
        script.observe(one)
    return script.state


TAKEN_OVER = (
    ProcessKilled(5, "server1", 1),
    ServerFailover(5.01, "server1", "server2", 0, first_answer_at=5.02),
    MessageForwarded(5.02, "server2", "Alice", "OPTIONS", 200, "c"),
)
ADDRESS_TAKEN = (
    ProcessKilled(8, "forwarder1", 1),
    ForwarderActivated(8.02, "forwarder2"),
    MessageForwarded(8.025, "server2", "Alice", "OPTIONS", 200, "c", "forwarder2"),
)


def test_the_headline_leads_to_the_second_plug_and_tells_what_became_of_the_address() -> None:
    both = forwarders("active", "standby")
    assert "Kill on server1" in headline(with_pair(), running(), both).hint
    told = headline(with_pair(*TAKEN_OVER), running(), both)
    assert told.words.startswith("Server2 took over") and "crash forwarder1 too" in told.hint
    alone = headline(with_pair(*TAKEN_OVER), running(), forwarders("active", ""))
    assert "so that forwarder1 has a standby again" in alone.hint
    told = headline(with_pair(*TAKEN_OVER, *ADDRESS_TAKEN), running(), forwarders("", "active"))
    assert told.words == "Forwarder2 took over in 25 ms" and "through forwarder2" in told.hint
    told = headline(with_pair(*ADDRESS_TAKEN), running(), forwarders("", "active"))
    assert told.words.startswith("Forwarder2 took over") and "crash server1 too" in told.hint
    later = (ProcessKilled(9, "server1", 1), ServerFailover(9.01, "server1", "server2", 0))
    assert (
        headline(with_pair(*ADDRESS_TAKEN, *later), running(), forwarders("", "active")).words
        == "Server2 takes over"
    )


def test_with_no_forwarder_alive_the_headline_says_what_still_goes_on_and_what_to_do() -> None:
    told = headline(with_pair(), running(), forwarders("", ""))
    assert (
        told.words == "No forwarder is alive"
        and "sound goes on" in told.hint
        and "Restart either" in told.hint
    )
    assert "Restart either" in headline(state(), running(), forwarders("", "")).hint


def test_the_phones_of_the_figure_follow_the_call() -> None:
    ringing = state(
        CallStateChanged(1, "Alice", "calling", "c"),
        CallStateChanged(2, "Bob", "incoming", "c"),
        ProcessKilled(3, "server1", 1),
    )
    assert phone_look(ringing, "Alice") == PhoneAppearance("ringing", "out", True)
    assert phone_look(ringing, "Bob") == PhoneAppearance("ringing", "in", True)


# -- the bill and the ladder


CALL = {
    "call_id": "c",
    "caller": "Alice",
    "callee": "bob",
    "seconds": 12,
    "carried": [{"server": "server1", "seconds": 7}, {"server": "server2", "seconds": 5}],
    "why": "Alice hung up",
    "total": "0.20",
    "currency": "EUR",
    "final": True,
    "tariff": "0.10+0.05/10s",
    "units": 2,
}


def test_the_bill_says_who_how_long_carried_by_whom_and_how_much(window: Window) -> None:
    window.bill.show_bill(bill_from_json(CALL, "server2", "http://127.0.0.1:8072/"))
    assert text_of(window.bill, "bill_total") == "Total 0.20 EUR"
    assert text_of(window.bill, "bill_parts") == "server1 7 s + server2 5 s"
    assert 'href="http://127.0.0.1:8072/"' in text_of(window.bill, "bill_source")
    assert window.bill.bill is not None
    assert window.bill.bill.terms == "0.10 set-up + 2 × 0.05 per started 10 s"
    assert (window.bill.bill.caller, window.bill.bill.callee) == ("Alice", "Bob")


def test_a_running_call_has_a_sum_so_far_and_a_strange_tariff_is_not_guessed_at(
    window: Window,
) -> None:
    window.bill.show_bill(
        bill_from_json({**CALL, "final": False, "tariff": "free"}, "server2", "http://x/")
    )
    assert text_of(window.bill, "bill_total") == "0.20 EUR so far"
    assert window.bill.bill is not None and window.bill.bill.terms == ""


@pytest.mark.parametrize(
    ("uri", "name"), [("sip:alice@failover.test", "Alice"), ("Bob", "Bob"), ("", "")]
)
def test_people_are_called_by_name(uri: str, name: str) -> None:
    assert person(uri) == name


def test_the_ladder_keeps_a_bounded_number_of_messages_and_follows_the_newest(
    window: Window, qtbot: QtBot
) -> None:
    window.show_page(MESSAGES_PAGE)
    for number in range(ROWS_KEPT + 50):
        window.ladder.add(MessageForwarded(number, "Alice", "server1", "INVITE", None, "c"))
    bar = window.ladder.view.verticalScrollBar()
    qtbot.waitUntil(lambda: bar.maximum() > 0 and bar.value() == bar.maximum(), timeout=2000)
    assert len(window.ladder.rows) == ROWS_KEPT
    assert window.ladder.filter.time_of(0) == "+50.000", "time zero stays when rows fall out"


# -- the window


@pytest.mark.parametrize(
    "size", [(960, 620), (1024, 700), (1280, 720), (1280, 800), (1920, 1080), (2560, 1440)]
)
@pytest.mark.parametrize("zoomed", [1.0, 1.4])
def test_nothing_overlaps_or_is_cut(
    window: Window, qtbot: QtBot, size: tuple[int, int], zoomed: float
) -> None:
    window.change_zoom(zoomed)
    window.resize(*size)
    qtbot.waitUntil(lambda: (window.width(), window.height()) == size)
    qtbot.wait(1)
    parts = [*window._sides, window.figure, window._below]
    boxes = [part.rect().translated(part.mapTo(window, part.rect().topLeft())) for part in parts]
    for one, other in combinations(boxes, 2):
        assert not one.intersects(other)
    assert all(window.rect().contains(box) for box in boxes)
    for box in window.figure._geometry.boxes.values():
        corner = box.bottomRight() * window.figure._scale
        assert corner.x() <= window.figure.width() and corner.y() <= window.figure.height()
    if zoomed == 1.0:
        assert all(row.height() >= row.minimumSizeHint().height() for row in window.steps.rows)
        for panel in window.panels:
            assert panel.height() >= panel.minimumSizeHint().height()
    window.change_zoom(0)


def test_the_figures_of_a_hundred_calls_are_whole_in_the_smallest_window(window: Window) -> None:
    figures = [
        FIGURES["kept"].format(100),
        FIGURES["lost"].format(0),
        FIGURES["gap_p50_ms"].format(14.2),
        FIGURES["gap_p99_ms"].format(38.7),
        FIGURES["billed_seconds"].format(612),
        FIGURES["talked_seconds"].format(660.4),
    ]
    window.resize(960, 620)
    window.show_calls(lambda: ["ended"] * 100)
    window.dots.show_result(figures)
    dots = window.dots
    picture = painting.svg_of(dots.size(), lambda painter: dots.render(painter, QPoint()))
    lines = re.findall(r'<text [^>]* y="([^"]*)"[^>]*>([^<]*)<', picture)
    assert " ".join(words.strip() for _, words in lines) == " ".join([dots.words, *figures])
    assert max(float(y) for y, _ in lines) < dots.height()


def test_the_window_is_never_larger_than_the_screen_and_its_text_grows_with_it(
    window: Window, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = QSize(1280, 720)
    monkeypatch.setattr(window, "_room", lambda: room - QSize(16, 40))
    window.resize(4000, 3000)
    window._fitted = False
    window.hide()
    window.show()
    assert window.width() <= room.width() and window.height() <= room.height()
    assert LEAST_WINDOW.width() <= 960 and LEAST_WINDOW.height() <= 620
    window.resize(960, 620)
    small = window._headline.font().pointSizeF()
    window.resize(2560, 1440)
    assert window._headline.font().pointSizeF() > 1.5 * small


def test_the_presenters_view_shows_figure_headline_and_two_numbers(window: Window) -> None:
    window.tell_numbers("16 ms to the first answer", "longest pause 21 ms")
    window.present(True)
    assert not any(panel.isVisible() for panel in window.panels)
    assert window.figure.isVisible() and all(label.isVisible() for label in window._numbers)
    window.present(False)
    assert all(panel.isVisible() for panel in window.panels)
    assert not any(label.isVisible() for label in window._numbers)


def test_a_call_is_made_and_ended_in_the_presenters_view(window: Window, qtbot: QtBot) -> None:
    pressed: list[str] = []
    window.allow_phones(True)
    for panel in window.panels:
        panel.primary.setEnabled(True)
        panel.primary.clicked.disconnect()
        panel.primary.clicked.connect(lambda _=False, name=panel.label: pressed.append(name))
    window.present(True)
    figure = window.figure
    place = figure._geometry.boxes["Bob"].center() * figure._scale
    qtbot.mouseClick(figure, Qt.MouseButton.LeftButton, pos=place.toPoint())
    qtbot.keyClick(window, "1", Qt.KeyboardModifier.ControlModifier)
    assert pressed == ["Bob", "Alice"]
    rings = [
        CallStateChanged(1, "Alice", "calling", "c"),
        CallStateChanged(2, "Bob", "incoming", "c"),
        ServersUp(2, frozenset({"server1"}), "server1"),
    ]
    hint = headline(state(*rings), running(), {}, presented=True).hint
    assert hint.startswith("Click Bob to answer.") and "phone" not in hint
    qtbot.keyClick(window, Qt.Key.Key_Escape)
    assert not window.presented and all(panel.isVisible() for panel in window.panels)
    window.present(True)
    qtbot.keyClick(window, "m", Qt.KeyboardModifier.AltModifier)
    assert not window.presented and window.tabs.tabText(window.tabs.currentIndex()) == MESSAGES_PAGE


def test_the_tabs_are_reached_by_keyboard(window: Window, qtbot: QtBot) -> None:
    for key, page in (("m", MESSAGES_PAGE), ("b", BILL_PAGE)):
        qtbot.keyClick(window, key, Qt.KeyboardModifier.AltModifier)
        assert window.tabs.tabText(window.tabs.currentIndex()) == page


def test_after_a_kill_the_keyboard_stays_with_that_server(figure: TopologyView) -> None:
    alive = ServerAppearance("hot", "hot", ":1", YES, NO)
    for name in SERVERS:
        figure.show_server(name, alive)
    figure.buttons["server1", "kill"].setFocus()
    figure.show_server("server1", ServerAppearance("dead", "crashed", ":1", NO, YES))
    assert figure.buttons["server1", "restart"].hasFocus()
    figure.show_server("server1", ServerAppearance("waking", "starting", ":1", NO, NO))
    assert figure.buttons["server1", "restart"].hasFocus(), "not on a button that kills"


def test_light_and_dark_switch_live(window: Window, qtbot: QtBot) -> None:
    with colours(LIGHT):
        qtbot.wait(1)
        light = window.grab().toImage().pixelColor(4, 4)
    with colours(DARK):
        qtbot.wait(1)
        dark = window.grab().toImage().pixelColor(4, 4)
    assert light.lightness() > 200 and dark.lightness() < 60


def test_every_control_has_a_name_for_those_who_cannot_see_it(window: Window) -> None:
    for kind in (FlatButton, QToolButton, QComboBox, QLineEdit):
        for control in window.findChildren(kind):
            if isinstance(control.parent(), QTabBar | QLineEdit):  # their own
                continue
            assert control.accessibleName() or control.text(), control.objectName()


def test_plain_words_come_first_and_the_technical_ones_on_request(figure: TopologyView) -> None:
    assert wording.said("replica: ready") == "spare, ready"
    plain = figure.grab().toImage()
    wording.choose(True)
    assert wording.said("replica: ready") == "replica: ready"
    assert figure.grab().toImage() != plain
    wording.choose(False)


def test_a_server_that_does_not_start_is_said_until_it_does() -> None:
    servers = running()
    servers["server1"] = ProgramState("server1", 5070, 4711, False, False)
    servers["server1"].trouble = "127.0.0.1:5070 is in use."
    told = headline(state(), servers, {})
    assert told.words == "Server1 does not start" and told.hint == "127.0.0.1:5070 is in use."
    servers["server1"].starting = True
    assert headline(state(), servers, {}).words != told.words


def test_the_phone_is_told_what_it_cannot_know() -> None:
    registered = MessageForwarded(0, "server1", "Alice", "REGISTER", 200, "r")
    killed = ProcessKilled(1, "server1", 1)
    alive = frozenset({"server2"})
    assert phone_note(state(registered), "Alice") == ""
    note = phone_note(state(registered, killed, ServersUp(1, alive, "server2")), "Alice")
    assert note == "Server1 is down; the shared store keeps the registration."
    note = phone_note(state(registered, killed, ServersUp(1, frozenset(), None)), "Alice")
    assert note == "No server answers now: it can neither call nor be called."


def test_on_hold_nothing_is_said_to_flow(figure: TopologyView) -> None:
    talking = [CallStateChanged(3, name, "talking", "c", 3.0, held=True) for name in PHONES]
    held = state(CallStateChanged(1, "Alice", "calling", "c"), *talking)
    assert headline(held, running(), {}).words == "On hold, through server1"
    figure.show_talking(True)
    flowing = figure.grab().toImage()
    figure.show_talking(True, held=True)
    assert figure.grab().toImage() != flowing
    figure._frame()
    assert not figure._frames.isActive(), "nothing moves"


def test_after_a_restart_and_a_second_kill_the_headline_follows_the_carrier() -> None:
    talking = [CallStateChanged(3, name, "talking", "c", 3.0) for name in PHONES]
    seen: list[object] = [
        CallStateChanged(1, "Alice", "calling", "c"),
        MessageForwarded(2, "server1", "Alice", "INVITE", 200, "c"),
        *talking,
        ProcessKilled(5, "server1", 1),
        ServerFailover(5.01, "server1", "server2", 0, first_answer_at=5.02),
        ServersUp(5.03, frozenset({"server2"}), "server2"),
    ]
    told = headline(state(*seen), running(), {})
    assert told.words == "Server2 took over in 20 ms" and "kill" not in told.hint
    seen += [ProcessBack(8, "server1"), ServersUp(8, frozenset(SERVERS), "server1")]
    assert headline(state(*seen), running(), {}).words == "Server1 carries it again"
    seen += [
        ProcessKilled(9, "server2", 1),
        ServersUp(9, frozenset({"server1"}), "server1"),
    ]
    told = headline(state(*seen), running(), {})
    assert told.words == "Server1 carries it again"
    assert "only one alive" in told.hint and "server2" in told.hint


def test_a_takeover_while_the_phone_rang_does_not_count_the_time_until_the_answer() -> None:
    talking = [CallStateChanged(6, name, "talking", "c", 6.0) for name in PHONES]
    killed = [
        CallStateChanged(1, "Alice", "calling", "c"),
        ProcessKilled(5, "server1", 1),
        ServerFailover(5.01, "server1", "server2", 0, 0, first_answer_at=5.9),
        ServersUp(5.03, frozenset({"server2"}), "server2"),
        *talking,
    ]
    told = headline(state(*killed), running(), {})
    assert told.words == "Server2 took over"
    ringing_on = MessageForwarded(5.012, "server2", "Bob", "INVITE", None, "c")
    told = headline(state(*killed[:2], ringing_on, *killed[2:]), running(), {})
    assert told.words == "Server2 took over in 12 ms" and "next message" in told.hint


@pytest.mark.parametrize(("gap", "noticed"), [(21.0, False), (900.0, True)])
def test_that_neither_phone_noticed_is_said_once_the_audio_has_shown_it(
    gap: float, noticed: bool
) -> None:
    crash = [
        CallStateChanged(1, "Alice", "calling", "c"),
        *(CallStateChanged(2, name, "talking", "c", 2.0) for name in PHONES),
        *(Audio(4.9, name, 100, 21.0, 0) for name in PHONES),
        ProcessKilled(5, "server1", 1),
        ServerFailover(5.01, "server1", "server2", 0, 0, first_answer_at=5.02),
        ServersUp(5.03, frozenset({"server2"}), "server2"),
    ]
    assert "Neither phone noticed" not in headline(state(*crash), running(), {}).hint
    heard = [Audio(6.5, name, 175, gap, 0) for name in PHONES]
    said = headline(state(*crash, *heard), running(), {}).hint
    assert ("Neither phone noticed" in said) is not noticed
    assert ("Longest pause of the sound so far: 900 ms" in said) is noticed
