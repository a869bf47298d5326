"""The forwarders as the stage knows them: one, or with --pair an active one and its standby, which
share an address.

Each tells its own role and what it sees of the servers in its event stream; what counts is the
active one's word. GUI thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from stage.observation.http_readers import Events
from stage.processes.cluster import Cluster
from stage.scenes.state import ProgramState

ALONE = "forwarder"


@dataclass
class View:
    """The reports of one forwarder: its role if it is one of two, the hot server, and each server's
    state."""

    role: str = ""
    hot: str | None = None
    states: dict[str, str] = field(default_factory=dict)


class ForwarderRoles:
    """`on_event(name, kind, told)` is called on other threads; `pair` is empty if there is but
    one."""

    def __init__(
        self, cluster: Cluster, on_event: Callable[[str, str, dict[str, Any]], None]
    ) -> None:
        names = list(cluster.admins)
        self.pair = {
            name: ProgramState(name, cluster.ports.forwarder) for name in names if name != ALONE
        }
        self.active = None if self.pair else ALONE
        self._views = {name: View() for name in names}
        self._events = [
            Events(url, partial(on_event, name)) for name, url in cluster.admins.items()
        ]

    def start(self) -> None:
        for events in self._events:
            events.start()

    def stop(self) -> None:
        """Twice is fine."""
        for events in self._events:
            events.stop()

    @property
    def view(self) -> View:
        """The active one's; while there is none, that nobody is hot."""
        return self._views[self.active] if self.active else View()

    def hello(self, told: dict[str, Any]) -> bool:
        """The status of one, first in its stream. True if it turns out to be the active one."""
        states = {
            str(server.get("name")): str(server.get("state")) for server in told.get("servers", ())
        }
        self._views[told["forwarder"]] = View(str(told.get("role")), told.get("hot"), states)
        return self.settle(told["forwarder"])

    def state(self, told: dict[str, Any]) -> None:
        view = self._views[told["forwarder"]]
        view.states[str(told.get("server"))] = str(told.get("state"))
        view.hot = told.get("hot")

    def takeover(self, told: dict[str, Any]) -> bool:
        """One of two has another role now. True if it is the active one."""
        self._views[told["forwarder"]].role = str(told.get("to"))
        return self.settle(told["forwarder"])

    def settle(self, name: str) -> bool:
        """Believe what one of two said, if it is known to run. True if it has just become the
        active one."""
        state = self.pair.get(name)
        if state is None or state.crashed or not state.alive:
            return False
        state.forwarder_state = self._views[name].role
        if state.forwarder_state == "active" and self.active != name:
            self.active = name
            return True
        if state.forwarder_state != "active" and self.active == name:
            self.active = None
        return False

    def gone(self, name: str) -> None:
        if self.active == name:
            self.active = None
        self.pair[name].forwarder_state = self._views[name].role = ""
