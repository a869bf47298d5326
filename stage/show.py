"""The show: starts the programs and the two phones, gathers what is observed, and lets the window show it.

GUI thread, but for what waits: programs are started on a loop's thread (`cluster`), pages and events are read by
threads of their own (`watch.py`), the phones have theirs. All of them reach this object through `Wire`'s signal.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from PySide6.QtCore import QObject, QTimer, Signal

from plumbing.loop import Loop
from softphone.agent.event import (
    CallChanged,
    CallState,
    CallView,
    ProbeAnswered,
    RegistrationChanged,
    RegistrationState,
)
from softphone.phone import Account, Phone
from softphone.qt.bridge import Bridge
from softphone.qt.panel import PhonePanel
from stage.bill import look_of
from stage.cluster import DOMAIN, HOST, SERVERS, Cluster, Ports
from stage.figure import Figure
from stage.ladder import Rung
from stage.looks import ServerFacts, phone_look, server_look, story
from stage.process import StartError
from stage.script import Cast, Row, Script
from stage.seen import (
    Audio,
    Bill,
    CallSeen,
    Ended,
    Killed,
    MembersSeen,
    Passed,
    ProbeAnswer,
    Registration,
    ServersUp,
    TakenOver,
)
from stage.travel import Travel, kind_of, label_of
from stage.watch import Events, Pages
from stage.window import Window

PHONES = ("Alice", "Bob")
TICK = 100  # ms between two looks at the audio
PROBES = 20  # asked again that often, a tick apart, until one has come through the server that took over


class Wire(QObject):
    """Carries what other threads have to say into the GUI thread."""

    told = Signal(str, object)


class Show(QObject):
    """`users` is what the servers know, `passwords` what the phones say, `more` further arguments of the servers.
    `ready`: both servers are up."""

    ready = Signal()
    failed = Signal(str)
    fulfilled = Signal(object)  # a Row, each once per call

    def __init__(self, ports: Ports | None = None, users: Mapping[str, str] | None = None,
                 passwords: Mapping[str, str] | None = None, more: Sequence[str] = ()) -> None:
        super().__init__()
        self.script = Script(Cast(*PHONES, *SERVERS))
        self._wire = Wire()
        self._wire.told.connect(self._hear)
        self.cluster = Cluster(ports, users, self._program_ended, more)
        self.servers = {name: ServerFacts(name, self.cluster.addresses[name][1]) for name in SERVERS}
        self.bridges = {name: Bridge() for name in PHONES}
        said = passwords or users or {}
        self.phones = {name: self._make_phone(name, said.get(name.lower(), "")) for name in PHONES}
        self.window = self._make_window()
        self._worker = Loop("cluster", on_error=lambda error: self._wire.told.emit("error", error))
        self._events = Events(self.cluster.admin, lambda kind, told: self._wire.told.emit(kind, told))
        pages = [f"{url}/{page}" for url in self.cluster.management.values() for page in ("calls", "members")]
        self._pages = Pages(pages, lambda url, page: self._wire.told.emit("page", (url, page)))
        self._ticks = QTimer(self)
        self._ticks.timeout.connect(self._tick)
        self._probes_left = 0
        self._stage = "new"  # then starting, running or failed, stopped

    # -- construction ---------------------------------------------------------------------------------------------

    def _make_phone(self, name: str, password: str) -> Phone:
        bridge = self.bridges[name]
        bridge.event.connect(lambda event: self._hear_phone(name, event))
        account = Account(name.lower(), DOMAIN, password, name)
        return Phone(account, self.cluster.forwarder, (HOST, 0), bridge.event.emit)

    def _make_window(self) -> Window:
        alice, bob = PHONES
        figure = Figure((alice, bob), (SERVERS[0], SERVERS[1]), self.cluster.ports.forwarder)
        figure.kill.connect(self.kill)
        figure.restart.connect(self.restart)
        panels = [PhonePanel(name, self.phones[name], self.bridges[name], target=other.lower())
                  for name, other in ((alice, bob), (bob, alice))]
        window = Window(panels[0], panels[1], figure, (alice, "forwarder", *SERVERS, bob))
        window.allow_phones(False)
        self._refresh(window)
        return window

    # -- start and end --------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Returns at once; `ready` or `failed` tells how it went."""
        self._stage = "starting"
        self._worker.start()
        self._worker.post(self._start_programs)

    def stop(self) -> None:
        """End the call, the phones, every program. Waits; twice is fine."""
        if self._stage == "stopped":
            return
        self._stage = "stopped"
        self._ticks.stop()
        self.cluster.hurry()
        try:
            for phone in self.phones.values():
                phone.stop(1.5)
            self._events.stop()
            self._pages.stop()
            self._worker.stop(20.0)
        finally:
            self.cluster.stop()

    def _start_programs(self) -> None:
        """Worker thread."""
        try:
            self.cluster.start()
        except StartError as error:
            self.cluster.stop()
            self._wire.told.emit("failed", str(error))
            return
        self._wire.told.emit("started", None)

    def _run(self) -> None:
        """The programs are ready: listen to them, and let the phones register once both servers are up."""
        self._stage = "running"
        for name, server in self.servers.items():
            server.alive, server.starting, server.pid = True, False, self.cluster.programs[name].pid
        self._events.start()
        self._pages.start()
        self._ticks.start(TICK)

    def _start_phones(self) -> None:
        for name, phone in self.phones.items():
            try:
                phone.start()
            except OSError as error:
                self.failed.emit(f"{name}'s phone cannot start: {error}.")
                return
        self.window.allow_phones(True)
        self.ready.emit()

    # -- what a person wishes -------------------------------------------------------------------------------------

    def kill(self, name: str) -> None:
        """The crash, at any moment a person chooses."""
        server = self.servers[name]
        if not server.alive:
            return
        at = self.cluster.kill(name)
        server.crashed = True
        self._probes_left = PROBES
        self.window.ladder.add(Rung(at, "", "", f"{name} killed"))
        self.observe(Killed(at, name, server.pid or 0))

    def _program_ended(self, name: str, status: int) -> None:
        """On the program's own thread, the moment its process is gone.

        Alice's phone asks at once whether her call still answers, which is what `takeover_ms` times. Asked any earlier,
        the question could be swallowed by the dying process's socket and would time the next heartbeat instead.
        """
        if name in SERVERS and status < 0:
            self.phones[PHONES[0]].probe()
        self._wire.told.emit("ended", (name, status))

    def restart(self, name: str) -> None:
        server = self.servers[name]
        if server.alive or server.starting or self._stage != "running":
            return
        server.starting = True
        self._worker.post(lambda: self._restart(name))
        self._refresh()

    def _restart(self, name: str) -> None:
        """Worker thread."""
        try:
            self.cluster.restart(name)
            self._wire.told.emit("restarted", (name, ""))
        except StartError as error:
            self._wire.told.emit("restarted", (name, str(error)))

    # -- what is told ---------------------------------------------------------------------------------------------

    def observe(self, seen: object) -> None:
        """Take an observation into the script and show what it changes."""
        call = self.script.facts.call_id
        fulfilled = self.script.observe(seen)
        if self.script.facts.call_id != call:
            self.window.bill.show_bill(None)
        self._refresh()
        for row in fulfilled:
            self.fulfilled.emit(row)

    def _hear(self, kind: str, told: Any) -> None:
        if self._stage == "stopped":
            return
        handlers: dict[str, Callable[[Any], None]] = {
            "started": self._on_started, "failed": self._on_failed, "ended": self._on_ended,
            "restarted": self._on_restarted, "page": self._on_page, "hello": self._on_hello, "state": self._on_state,
            "message": self._on_message, "failover": self._on_failover,
            "error": lambda error: self._on_failed(f"The programs cannot be started: {error}."),
        }
        if kind in handlers:
            handlers[kind](told)

    def _on_started(self, _: object) -> None:
        self._run()

    def _on_failed(self, sentence: str) -> None:
        self._stage = "failed"
        if "in use" in sentence and self.cluster.ports == Ports():
            sentence = f"{sentence.rstrip('.')}. The option --free-ports takes ports that nobody uses."
        for server in self.servers.values():
            server.starting = False
        self._refresh()
        self.failed.emit(sentence)

    def _on_ended(self, told: tuple[str, int]) -> None:
        name, status = told
        if self._stage != "running":
            return
        if name not in self.servers:
            self.failed.emit(f"The forwarder ended by itself: {self.cluster.programs[name].last_words()}")
            return
        server = self.servers[name]
        if server.starting:
            return
        server.alive, server.crashed = False, status < 0
        self.observe(Ended(time.monotonic(), name, status))

    def _on_restarted(self, told: tuple[str, str]) -> None:
        name, trouble = told
        server = self.servers[name]
        server.starting, server.alive = False, not trouble
        server.crashed = False
        server.pid = self.cluster.programs[name].pid
        self._refresh()
        if trouble:
            self.window.tell("warning", "stop", f"{name} does not start", trouble)

    def _on_hello(self, status: dict[str, Any]) -> None:
        for server in status.get("servers", ()):
            if server.get("name") in self.servers:
                self.servers[server["name"]].heard = str(server.get("state"))
        self._servers_up(time.monotonic(), status.get("hot"))

    def _on_state(self, told: dict[str, Any]) -> None:
        if told.get("server") in self.servers:
            self.servers[told["server"]].heard = str(told.get("state"))
        self._servers_up(float(told["at"]), told.get("hot"))

    def _servers_up(self, at: float, hot: str | None) -> None:
        up = frozenset(name for name, server in self.servers.items() if server.heard == "UP")
        self.observe(ServersUp(at, up, hot))
        self.window.figure.show_hot(hot)
        if len(up) == len(SERVERS) and not any(phone.address[1] for phone in self.phones.values()):
            self._start_phones()

    def _on_failover(self, told: dict[str, Any]) -> None:
        if told.get("to"):
            self.observe(TakenOver(float(told["monotonic"]), str(told["from"]), str(told["to"]),
                                   int(told.get("replayed") or 0)))

    def _on_message(self, told: dict[str, Any]) -> None:
        source = self._name(told["from"], told["source"])
        target = self._name(told["to"], told["target"])
        if not source or not target:
            return
        method, status, call = str(told["method"]), told.get("status"), str(told["call_id"])
        label, kind = label_of(method, status), kind_of(status, bool(told.get("replayed")))
        lane = call if method != "REGISTER" else method  # one after the other, not on top of each other
        if kind == "replay":  # sent once by the phone, and again by the forwarder
            self.window.figure.show_message(lane, Travel(("forwarder", target), f"{label} again", kind))
            self.window.ladder.add(Rung(float(told["at"]), "forwarder", target, f"{label} again", kind))
        else:
            self.window.figure.show_message(lane, Travel((source, "forwarder", target), label, kind))
            self.window.ladder.add(Rung(float(told["at"]), source, target, label, kind))
        self.observe(Passed(float(told["at"]), source, target, method, status, call))
        if method == "BYE":
            self._pages.look()

    def _name(self, leg: str, address: str) -> str | None:
        """The figure's name for one end of a passage; None for a phone that is not one of ours."""
        if leg in self.servers:
            return leg
        port = address.rpartition(":")[2]
        return next((name for name, phone in self.phones.items() if str(phone.address[1]) == port), None)

    def _on_page(self, told: tuple[str, dict[str, Any] | None]) -> None:
        url, page = told
        if page is None:
            return
        if url.endswith("/members"):
            alive = frozenset(str(m["name"]) for m in page.get("members", ()) if m.get("alive"))
            if alive != self.script.facts.members:
                self.observe(MembersSeen(time.monotonic(), alive))
            return
        server = str(page.get("server"))
        heir = self.script.facts.cast.second
        if server == heir or not self.servers[heir].alive:
            self._on_calls(server, page)

    def _on_calls(self, server: str, page: dict[str, Any]) -> None:
        """The bill as the second server tells it; by the first only while the second is dead."""
        call = next((c for c in page.get("calls", ()) if c.get("call_id") == self.script.facts.call_id), None)
        if call is None or call.get("answered") is None:
            self.window.bill.show_bill(None)
            return
        page_address, started = f"{self.cluster.management[server]}/", self.script.facts.answered_through or ""
        self.window.bill.show_bill(look_of(call, server, page_address, started))
        self.observe(Bill(time.monotonic(), server, str(call["call_id"]), int(call["seconds"]), str(call["total"]),
                          str(call["currency"]), bool(call["final"])))

    def _hear_phone(self, name: str, event: object) -> None:
        if self._stage == "stopped":
            return
        if isinstance(event, RegistrationChanged):
            self.observe(Registration(event.at, name, event.state is RegistrationState.REGISTERED))
        elif isinstance(event, CallChanged):
            self._on_call(name, event.at, event.call)
        elif isinstance(event, ProbeAnswered) and name == PHONES[0]:
            self.observe(ProbeAnswer(event.at, event.sent_at, event.status))

    def _on_call(self, name: str, at: float, call: CallView) -> None:
        self._look_at_audio(name)
        self.observe(CallSeen(at, name, call.state.value, call.id, call.answered_at, call.ended_at))
        if call.state is CallState.ENDED:
            self._pages.look()

    # -- from time to time ----------------------------------------------------------------------------------------

    def _tick(self) -> None:
        facts = self.script.facts
        if facts.both("talking"):
            for name in PHONES:
                self._look_at_audio(name)
            if facts.killed and facts.takeover_ms is None and self._probes_left and facts.hot:
                self._probes_left -= 1
                if time.monotonic() > facts.killed.at + TICK / 1000:  # before that, `_program_ended` has asked
                    self.phones[PHONES[0]].probe()

    def _look_at_audio(self, name: str) -> None:
        stats = self.phones[name].media_stats()
        if stats is not None and self.script.facts.state(name) == "talking":
            self.observe(Audio(time.monotonic(), name, stats.packets_received, stats.longest_gap_ms, stats.lost))

    # -- what is shown --------------------------------------------------------------------------------------------

    def _refresh(self, window: Window | None = None) -> None:
        window = window or self.window
        facts = self.script.facts
        for name, server in self.servers.items():
            window.figure.show_server(name, server_look(server, facts.hot))
        for name in PHONES:
            window.figure.show_phone(name, phone_look(facts, name))
        window.figure.show_talking(facts.both("talking"))
        window.steps.show_rows(self.script.rows)
        window.tell(*story(facts, self.servers))

    @property
    def rows(self) -> list[Row]:
        return self.script.rows
