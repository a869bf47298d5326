"""Which phone asks the forwarder that has the address now, and when."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pytestqt.qtbot import QtBot
from stage_kit import Demonstration

from softphone.ua.events import RegistrationState
from stage.controller import DemoController
from stage.observation.observations import CallStateChanged, MessageForwarded, Registration
from stage.processes.cluster import Ports


@pytest.fixture
def demo(qtbot: QtBot) -> Iterator[Demonstration]:
    """Two forwarders, two servers and two registered phones."""
    made = Demonstration(qtbot, pair=True)
    try:
        made.registered()
        made.until(
            lambda: (made.server("forwarder1"), made.server("forwarder2")) == ("hot", "standby"),
            "their roles",
        )
        yield made
    finally:
        made.end()


def answers(demo: Demonstration) -> list[tuple[str, str]]:
    """(phone, method) of the answers that forwarder2 has passed on."""
    return [
        (row.target, row.method)
        for row in demo.window.ladder.rows
        if isinstance(row, MessageForwarded) and row.through == "forwarder2" and row.status
    ]


def test_a_forwarder_that_starts_as_the_active_one_is_asked_within_the_call(
    demo: Demonstration,
) -> None:
    demo.talk()
    demo.kill("forwarder2")
    demo.until(lambda: demo.server("forwarder2") == "dead", "the standby is dead")
    demo.kill("forwarder1")
    demo.until(lambda: demo.window.headline == "No forwarder is alive", "both are dead")
    demo.restart("forwarder2")
    demo.until(lambda: "7a" in demo.steps, "forwarder2 has the address and passes the call")
    # either phone may be the one that asks; the first answer passed on is the other phone's
    demo.until(
        lambda: {("Alice", "OPTIONS"), ("Bob", "OPTIONS")} & set(answers(demo)),
        "a phone's question is answered",
    )


def test_a_takeover_without_a_call_logs_no_phone_on(demo: Demonstration) -> None:
    alice = demo.show.phones["Alice"]
    alice.unregister()
    registered = demo.show.use_case.state.registered
    demo.until(lambda: not registered["Alice"], "Alice has logged off")
    demo.kill("forwarder1")
    demo.until(lambda: ("Bob", "REGISTER") in answers(demo), "Bob asks forwarder2")
    assert alice.snapshot().registration.state is RegistrationState.UNREGISTERED


class AskedPhone:
    """Notes what it is asked to do."""

    address = ("127.0.0.1", 0)

    def __init__(self, name: str, asked: list[tuple[str, str]]) -> None:
        self._name, self._asked = name, asked

    def probe(self) -> None:
        self._asked.append((self._name, "probe"))

    def register(self) -> None:
        self._asked.append((self._name, "register"))

    def media_stats(self) -> None:
        return None

    def stop(self, timeout: float) -> None:
        pass


@pytest.fixture
def show(qtbot: QtBot) -> Iterator[DemoController]:
    """Two forwarders, neither started."""
    made = DemoController(Ports.free(), pair=True)
    qtbot.addWidget(made.window)
    yield made
    made.stop()


@pytest.mark.parametrize(
    ("registered", "talking", "role", "expected"),
    [
        (("Alice", "Bob"), False, "active", [("Alice", "register")]),
        (("Bob",), False, "active", [("Bob", "register")]),
        ((), False, "active", []),
        (("Alice", "Bob"), False, "standby", []),
        (("Alice", "Bob"), True, "active", [("Alice", "probe")]),
        ((), True, "active", [("Alice", "probe")]),
        (("Alice", "Bob"), True, "standby", []),
    ],
)
def test_the_new_holder_of_the_address_is_asked_by_the_phone_that_talks_or_is_registered(
    show: DemoController,
    registered: tuple[str, ...],
    talking: bool,
    role: str,
    expected: list[tuple[str, str]],
) -> None:
    asked: list[tuple[str, str]] = []
    show.phones = {name: AskedPhone(name, asked) for name in show.phones}
    for name in show.phones:
        show.observe(Registration(1.0, name, name in registered))
        if talking:
            show.observe(CallStateChanged(2.0, name, "calling", "c"))
            show.observe(CallStateChanged(3.0, name, "talking", "c", 3.0))
    show.forwarders.pair["forwarder2"].alive = True
    show._forwarder_told("forwarder2", "takeover", {"to": role, "monotonic": 4.0})
    assert asked == expected
