"""Runs the demonstration: starts the programs and the two phones, gathers what is observed, and
lets the window show it.

GUI thread, but for what waits: programs are started on a loop's thread (`cluster`), pages and
events are read by threads of their own (`observation/http_readers.py`), the phones have theirs.
All of them hand this object a function through its signal `posted`.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from PySide6.QtCore import QObject, QTimer, Signal

from plumbing.address import format_address
from plumbing.event_loop import Loop
from softphone.gui.event_bridge import Bridge
from softphone.gui.phone_panel import PhonePanel
from softphone.phone import Account, Phone
from stage.guests import Guests
from stage.gui import presenter
from stage.gui.main_window import Window
from stage.gui.topology_view import TopologyView
from stage.observation import observations
from stage.observation.forwarder_roles import ForwarderRoles
from stage.observation.from_events import (
    bill_from_json,
    failover_from_json,
    from_forwarder_message,
    from_phone_event,
)
from stage.observation.http_readers import Pages, read_page
from stage.processes.cluster import DOMAIN, HOST, SERVERS, Cluster, Ports, port_in_use
from stage.processes.program import StartError
from stage.scenes.state import ProgramState, Roles
from stage.scenes.use_case import UseCase

PHONES = ("Alice", "Bob")
TICK = 100  # ms between two looks at the audio
# asked again that often, a tick apart, until one has come through the server that took over
PROBES = 20


class DemoController(QObject):
    """`users` is what the servers know, `passwords` what the phones say, `more` further arguments
    of the servers. `pair`: two forwarders (observation/forwarder_roles.py). `servers`: how many
    there are; with one there is no failover. `lan`: the forwarder's address beyond loopback, for
    other people's telephones, and then everybody has a password."""

    failed = Signal(str)
    fulfilled = Signal(object)  # a Row, each once per call
    message = Signal(object)  # a MessageForwarded, the moment it is told
    posted = Signal(object)  # a function, carried by other threads into the GUI thread

    def __init__(
        self,
        ports: Ports | None = None,
        users: Mapping[str, str] | None = None,
        passwords: Mapping[str, str] | None = None,
        more: Sequence[str] = (),
        pair: bool = False,
        servers: int = len(SERVERS),
        lan: str = "",
    ) -> None:
        super().__init__()
        ports = ports or Ports()
        self.guests = Guests((lan, ports.forwarder), PHONES) if lan else None
        users = self.guests.users if self.guests else users
        self._host, self._domain = (lan, lan) if lan else (HOST, DOMAIN)
        self._announced: tuple[str, str] | None = None  # a scene's title and words
        self._scene_over = False
        self.posted.connect(self._run_posted)
        self.cluster = Cluster(ports, users, self._program_ended, more, pair, servers, self._host)
        self.forwarders = ForwarderRoles(self.cluster, self._forwarder_told)
        self.use_case = UseCase(Roles(*PHONES, *SERVERS, tuple(self.forwarders.pair)))
        self.servers = {
            name: ProgramState(
                name, self.cluster.addresses[name][1], starting=name in self.cluster.running
            )
            for name in SERVERS
        }
        self.bridges = {name: Bridge() for name in PHONES}
        said = passwords or users or {}
        self.phones = {name: self._make_phone(name, said.get(name.lower(), "")) for name in PHONES}
        self.window = self._make_window()
        self._worker = Loop("cluster", on_error=self._post(self._on_error))
        pages = [f"{url}/snapshot" for url in self.cluster.management.values()]
        self._pages = Pages(pages, self._post(self._on_page))
        self._ticks = QTimer(self)
        self._ticks.timeout.connect(self._tick)
        self._probes_left = 0
        self._own_calls: set[str] = set()  # Call-IDs of our phones
        self._talker = ""  # the phone of ours that asks within a call, while there is one
        self._stage = "new"  # then starting, running or failed, stopped

    # -- construction ------------------------------------------------------------------------------

    def _make_phone(self, name: str, password: str) -> Phone:
        bridge = self.bridges[name]
        bridge.received.connect(lambda event: self._hear_phone(name, event))
        account = Account(name.lower(), self._domain, password, name)
        return Phone(account, self.cluster.forwarder, (self._host, 0), bridge.received.emit)

    def _make_window(self) -> Window:
        alice, bob = PHONES
        pair = tuple(self.forwarders.pair)
        figure = TopologyView(
            (alice, bob), (SERVERS[0], SERVERS[1]), self.cluster.ports.forwarder, pair=pair
        )
        figure.kill.connect(self.kill)
        figure.restart.connect(self.restart)
        panels = [
            PhonePanel(name, self.phones[name], self.bridges[name], target=other.lower())
            for name, other in ((alice, bob), (bob, alice))
        ]
        window = Window(
            panels[0],
            panels[1],
            figure,
            (alice, *(pair or ("forwarder",)), *SERVERS, bob),
            self.use_case.steps,
        )
        if self.guests:
            window.show_guests(self.guests.address, self.guests.password)
        window.again.clicked.connect(self.start_again)
        window.presenting.connect(self._refresh)
        window.allow_phones(False)
        self._refresh(window)
        return window

    @property
    def _programs(self) -> dict[str, ProgramState]:
        """Those that may be killed and restarted."""
        return self.forwarders.pair | self.servers

    # -- start and end -----------------------------------------------------------------------------

    def start(self) -> None:
        """Returns at once; the steps, or `failed`, tell how it went."""
        self._stage = "starting"
        self._worker.start()
        self._worker.post(self._start_programs)

    def stop(self) -> None:
        """End the call, the phones, every program. Waits; twice is fine."""
        if self._stage == "stopped":
            return
        self._stage = "stopped"
        self._ticks.stop()
        self.cluster.abort_start()
        try:
            for phone in self.phones.values():
                phone.stop(1.5)
            self.forwarders.stop()
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
            is_taken = self.cluster.ports == Ports() and self.cluster.ports.taken()
            self._post(self._on_failed)(port_in_use(str(error)) if is_taken else str(error))
            return
        self._post(self._run)()

    def _run(self) -> None:
        """The programs are ready: listen to them, and let the phones register once both servers are
        up."""
        self._stage = "running"
        for name, program in self._programs.items():
            if name not in self.cluster.running:
                continue
            program.alive, program.starting = True, False
            program.pid = self.cluster.programs[name].pid
        self.forwarders.start()
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

    # -- what a person wishes ----------------------------------------------------------------------

    def kill(self, name: str) -> None:
        """The crash, at any moment a person chooses."""
        program = self._programs[name]
        if program.alive and not program.crashed:
            program.crashed, program.frozen = True, False
            self._stopped(name, self.cluster.programs[name].send(signal.SIGKILL), frozen=False)

    def freeze(self, name: str) -> None:
        """The process neither answers nor dies."""
        program = self._programs[name]
        if program.alive and not program.frozen:
            program.frozen = True
            self._stopped(name, self.cluster.programs[name].send(signal.SIGSTOP), frozen=True)
            self._probe()

    def _probe(self) -> None:
        """Any thread: the phone that talks asks whether its call still answers; one without a call
        asks nothing."""
        self.phones[self._talker or PHONES[0]].probe()

    def _stopped(self, name: str, at: float, frozen: bool) -> None:
        self._probes_left = PROBES
        self._remark(at, f"{name} {'frozen' if frozen else 'killed'}", "refusal")
        pid = self._programs[name].pid or 0
        self.observe(observations.ProcessKilled(at, name, pid, frozen))

    def thaw(self, name: str) -> None:
        if self._programs[name].frozen:
            self.cluster.programs[name].send(signal.SIGCONT)
            self._programs[name].frozen = False
            self._back(name, "runs on")

    def start_again(self) -> None:
        """Restart what is dead, and begin the list of steps anew."""
        self._forget_scene()
        for name, program in self._programs.items():
            self.thaw(name)
            if not program.alive:
                self.restart(name)
        if not self.use_case.state.talking:
            self.use_case.start_again()
        self._refresh()

    def _forget_scene(self) -> None:
        if self._scene_over:
            self._announced = None

    def _back(self, name: str, words: str) -> None:
        self._remark(time.monotonic(), f"{name} {words}", "answer")
        self.observe(observations.ProcessBack(time.monotonic(), name))

    def _remark(self, at: float, words: str, kind: str) -> None:
        """A line across the ladder."""
        self.window.ladder.add(observations.Remark(at, words, kind))

    def _program_ended(self, name: str, status: int) -> None:
        """On the program's own thread, the moment its process is gone.

        A phone asks at once whether its call still answers: the answer is the first one through the
        other server, which ends `takeover_ms`. Asked any earlier, the question could be swallowed
        by the dying process's socket.
        """
        if name in SERVERS and status < 0:
            self._probe()
        self._post(self._on_ended)(name, status)

    def _forwarder_told(self, name: str, kind: str, told: dict[str, Any]) -> None:
        """Takes an event of a forwarder, on the thread that reads its events.

        A phone asks the new holder of the address at once: the answer ends `forwarder_takeover_ms`.
        """
        if kind == "takeover" and told.get("to") == "active":
            self._ask_forwarder()
        self._post(self._on_event)(name, kind, told)

    def _ask_forwarder(self) -> None:
        """Any thread: the phone that talks asks within its call; without a call, one that is
        registered refreshes that. A phone that has logged off stays so."""
        if self._talker:
            self._probe()
            return
        registered = self.use_case.state.registered
        phone = next((name for name in PHONES if registered.get(name)), None)
        if phone:
            self.phones[phone].register()

    def restart(self, name: str, zombie: bool = False) -> None:
        program = self._programs[name]
        if program.alive or program.starting or self._stage != "running":
            return
        program.starting, program.trouble = True, ""
        self._worker.post(lambda: self._restart(name, zombie))
        self._refresh()

    def _restart(self, name: str, zombie: bool) -> None:
        """Worker thread."""
        trouble = f"{name} could not be started."
        try:
            self.cluster.restart(name, zombie=zombie)
            trouble = ""
        except StartError as error:
            trouble = str(error)
        finally:
            self._post(self._on_restarted)(name, trouble)

    # -- what is told ------------------------------------------------------------------------------

    def observe(self, observed: object) -> None:
        """Take an observation into the script and show what it changes."""
        call = self.use_case.state.call_id
        fulfilled = self.use_case.observe(observed)
        state = self.use_case.state
        self._talker = next(iter(state.calls)) if state.talking else ""
        if state.call_id != call:
            self._forget_scene()
        self._refresh()
        for row in fulfilled:
            self.fulfilled.emit(row)

    def _post(self, method: Callable[..., None]) -> Callable[..., None]:
        """For other threads: the same function, run in the GUI thread."""
        return lambda *arguments: self.posted.emit(partial(method, *arguments))

    def _run_posted(self, act: Callable[[], None]) -> None:
        if self._stage != "stopped":
            act()

    def _on_event(self, forwarder: str, kind: str, told: dict[str, Any]) -> None:
        """Takes an event of a forwarder's stream."""
        told["forwarder"] = forwarder
        handlers = {
            "hello": self._on_hello,
            "state": self._on_state,
            "message": self._on_message,
            "failover": self._on_failover,
            "resumed": self._on_failover,
            "kept": self._on_kept,
            "takeover": self._on_takeover,
        }
        if kind in handlers:
            handlers[kind](told)

    def _on_failed(self, sentence: str) -> None:
        self._stage = "failed"
        for program in self._programs.values():
            program.starting = False
        self._refresh()
        self.failed.emit(sentence)

    def _on_error(self, error: Exception) -> None:
        """Of the worker; only while it starts the programs does everything depend on it."""
        if self._stage == "starting":
            self._on_failed(f"The programs cannot be started: {error}.")

    def _on_ended(self, name: str, status: int) -> None:
        if self._stage != "running":
            return
        if name not in self._programs:
            self.failed.emit(
                f"The forwarder ended by itself: {self.cluster.programs[name].last_words()}"
            )
            return
        program = self._programs[name]
        if program.starting:
            return
        program.alive, program.frozen, program.crashed = False, False, status < 0
        if name in self.forwarders.pair:
            self.forwarders.gone(name)
            self.window.figure.show_active(self.forwarders.active)
        self.observe(observations.ProcessExited(time.monotonic(), name, status))

    def _on_restarted(self, name: str, trouble: str) -> None:
        program = self._programs[name]
        # it may have died between its first word and now, or not have started at all
        program.alive = not trouble and self.cluster.programs[name].alive
        program.starting, program.crashed, program.trouble = False, False, trouble
        program.pid = self.cluster.programs[name].pid
        if program.alive:
            self._back(name, "restarted")
        if self.forwarders.settle(name):
            self._found_active()
        self._refresh()

    def _on_hello(self, told: dict[str, Any]) -> None:
        if self.forwarders.hello(told):
            self._found_active()
        self._servers_up(time.monotonic())

    def _on_state(self, told: dict[str, Any]) -> None:
        self.forwarders.state(told)
        self._servers_up(float(told["at"]))

    def _on_takeover(self, told: dict[str, Any]) -> None:
        if self.forwarders.takeover(told):
            self._taken(float(told["monotonic"]))
            self._servers_up(float(told["monotonic"]))
        self._refresh()

    def _found_active(self) -> None:
        """A forwarder had the address before its event stream was read: no takeover event made a
        phone ask it."""
        self._taken(time.monotonic())
        state = self.use_case.state
        if state.forwarder_killed and state.answered_by_successor_at is None:
            self._ask_forwarder()

    def _taken(self, at: float) -> None:
        """The active one of two forwarders is another than it was."""
        name = self.forwarders.active or ""
        self.window.figure.show_active(name)
        if self.window.ladder.rows:  # not the first time
            self._remark(at, f"{name} has the address", "answer")
        self.observe(observations.ForwarderActivated(at, name))

    def _servers_up(self, at: float) -> None:
        """As the active forwarder sees them; while there is none, as the last one saw them."""
        if not self.forwarders.active:
            return
        hot, states = self.forwarders.view.hot, self.forwarders.view.states
        for name, server in self.servers.items():
            server.forwarder_state = states.get(name, "DOWN")
        up = frozenset(
            name
            for name, server in self.servers.items()
            if server.forwarder_state == "UP" or name == hot  # which may miss a heartbeat
        )
        self.observe(observations.ServersUp(at, up, hot))
        self.window.figure.show_hot(hot)
        wanted = sum(name in self.cluster.running for name in SERVERS)
        if len(up) == wanted and not any(phone.address[1] for phone in self.phones.values()):
            self._start_phones()

    def _on_failover(self, told: dict[str, Any]) -> None:
        """When it is noticed, and once more when the first answer came through the other server."""
        failover = failover_from_json(told)
        if failover is not None:
            self.observe(failover)

    def _on_kept(self, told: dict[str, Any]) -> None:
        words = f"the forwarder keeps {told.get('method')} until a server lives"
        self._remark(float(told["at"]), words, "replay")

    def _on_message(self, told: dict[str, Any]) -> None:
        guest = self.guests.learn(told) if self.guests else None
        if guest:
            self.window.add_guest(guest)
        message = from_forwarder_message(told, self._name)
        if message is None:
            return
        self.message.emit(message)
        self.window.figure.show_message(message)
        self.window.ladder.add(message)
        self.observe(message)
        if message.method == "BYE":
            self._pages.look()

    def _name(self, leg: str, address: str) -> str | None:
        """The figure's name for one end of a message; None for a phone not ours."""
        if leg in self.servers:
            return leg
        for name, phone in self.phones.items():
            if address == format_address(phone.address):
                return name
        return self.guests.names.get(address) if self.guests else None

    def _on_page(self, url: str, page: dict[str, Any] | None) -> None:
        """Takes a server's snapshot: its calls and the cluster's members."""
        if page is None:
            return
        members = page["members"]["members"]
        alive = frozenset(str(member["name"]) for member in members if member["alive"])
        if alive != self.use_case.state.members:
            self.observe(observations.MembersSeen(time.monotonic(), alive))
        server, reader = str(page["status"]["name"]), self.use_case.state.second
        if server == reader or not self.servers[reader].alive:
            self._on_calls(server, page["calls"]["calls"])

    def _on_calls(self, server: str, told: list[dict[str, Any]]) -> None:
        """The bill as the second server tells it; by the first only while the second is dead. Of
        guests the one answered last."""
        calls = [call for call in told if call.get("answered") is not None]
        ours = [call for call in calls if call["call_id"] == self.use_case.state.call_id]
        guests = [call for call in calls if self.guests and call["call_id"] not in self._own_calls]
        guests.sort(key=lambda call: float(call["answered"]))
        for call in ours[:1] + guests[-1:]:
            self.observe(bill_from_json(call, server, f"{self.cluster.management[server]}/"))

    def _hear_phone(self, name: str, event: object) -> None:
        if self._stage == "stopped":
            return
        told = from_phone_event(name, event)
        if isinstance(told, observations.CallStateChanged):
            self._own_calls.add(told.call_id)
            self._look_at_audio(name)
        if told is not None:
            self.observe(told)
        if isinstance(told, observations.CallStateChanged) and told.state == "ended":
            self._pages.look()

    # -- from time to time -------------------------------------------------------------------------

    def _tick(self) -> None:
        state = self.use_case.state
        if state.talking:
            for name in state.calls:
                self._look_at_audio(name)
            if state.killed and state.takeover_ms is None and self._probes_left and state.hot:
                self._probes_left -= 1
                # before that, `_program_ended` has asked
                if time.monotonic() > state.killed.at + TICK / 1000:
                    self._probe()

    def _look_at_audio(self, name: str) -> None:
        stats = self.phones[name].media_stats()
        if stats is not None and self.use_case.state.call_state(name) == "talking":
            gap = stats.longest_gap_ms
            self.observe(
                observations.Audio(time.monotonic(), name, stats.packets_received, gap, stats.lost)
            )

    # -- what is shown -----------------------------------------------------------------------------

    def _refresh(self, window: Window | None = None) -> None:
        presenter.show(
            window or self.window,
            self.use_case.state,
            self.servers,
            self.forwarders.pair,
            self.use_case.rows,
            self._announced,
        )

    def announce(self, title: str, line: str, over: bool = False) -> None:
        """A scene's words instead of advice; the last ones stay until somebody does something."""
        self.window.setWindowTitle(f"Call Failover - {title}: {line}")
        self._announced, self._scene_over = (title, line), over
        self._refresh()

    @property
    def running(self) -> bool:
        return self._stage == "running"

    def bills(self) -> dict[str, float]:
        """Seconds billed by Call-ID, of final bills, as a server that lives has them."""
        for name, url in self.cluster.management.items():
            page = read_page(f"{url}/calls") if self.servers[name].alive else None
            if page is not None:
                calls = [call for call in page.get("calls", ()) if call.get("final")]
                return {
                    str(call["call_id"]): sum(float(part["seconds"]) for part in call["carried"])
                    for call in calls
                }
        return {}
