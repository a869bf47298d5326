"""Who is told what happened: the log, and those who read /events. Used on the `sip` thread only."""

from __future__ import annotations

import logging
import queue
import time

from failover import status
from failover.core import Core
from failover.outcome import Dropped, Event, Failover, Passed, StateChanged
from plumbing.address import format_address

log = logging.getLogger("forwarder")
Reader = queue.Queue["tuple[str, object] | None"]
QUIET = 1.0  # seconds between two lines of what a stranger can cause


class Chronicle:
    def __init__(self) -> None:
        self.readers: list[Reader] = []
        self._next_line: dict[str, float] = {}  # by reason, of which there are a dozen and four a server
        self._untold: dict[str, int] = {}

    def tell(self, core: Core, event: Event) -> None:
        """Logs an event and passes it to the readers."""
        if isinstance(event, Passed):
            if log.isEnabledFor(logging.DEBUG):
                log.debug("%s", _decision(event))
        elif isinstance(event, Dropped):
            self._rarely(event.at, event.reason, _drop(event))
        elif isinstance(event, StateChanged):
            self._rarely(event.at, f"{event.server} {event.state.value}", _state(event))  # one on the edge flaps
        else:
            log.warning("%s", _failover(event))
        if self.readers:
            told = status.event(event, time.time() - time.monotonic())
            if told:
                self._pass_on(core, told)

    def trouble(self, core: Core, what: str, text: str) -> None:
        """The operating system would not do something."""
        core.counters[f"trouble.{what}"] += 1
        self._rarely(time.monotonic(), what, f"cannot {what}: {text}")

    def leave(self, reader: Reader) -> None:
        if reader in self.readers:
            self.readers.remove(reader)

    def end(self) -> None:
        """Tells every reader that nothing more will come."""
        for reader in self.readers:
            try:
                reader.put_nowait(None)
            except queue.Full:
                continue
        self.readers.clear()

    def _pass_on(self, core: Core, told: tuple[str, object]) -> None:
        for reader in self.readers:
            try:
                reader.put_nowait(told)
            except queue.Full:
                core.counters["events.lost"] += 1

    def _rarely(self, now: float, reason: str, text: str) -> None:
        """At most one line a second and reason; it says how many there were meanwhile."""
        if now < self._next_line.get(reason, 0.0):
            self._untold[reason] = self._untold.get(reason, 0) + 1
            return
        self._next_line[reason] = now + QUIET
        untold = self._untold.pop(reason, 0)
        log.info("%s%s", text, f" (and {untold} more since the last such line)" if untold else "")


def _decision(event: Passed) -> str:
    what = event.method if event.status is None else f"{event.status} ({event.method})"
    return (
        f"call={_plain(event.call_id)} {what} {event.came} -> {event.went} {format_address(event.target)} ({event.why})"
    )


def _drop(event: Dropped) -> str:
    return f"dropped ({event.reason}) from {event.leg} {format_address(event.source)}: {_plain(event.note)}"


def _state(event: StateChanged) -> str:
    return f"{event.server} is {event.state.value}: {event.why}; hot is {event.hot or 'nobody'}"


def _failover(event: Failover) -> str:
    heir = f"{event.taken_by} takes over" if event.taken_by else "nobody is left to take over"
    return f"failover: {event.lost} is gone ({event.noticed}); {heir}, {event.replayed} in flight sent on"


def _plain(text: str) -> str:
    """A stranger's words, fit for a terminal: printable ASCII, and not too many."""
    return text[:80].encode("ascii", "backslashreplace").decode().translate(_CONTROLS)


_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), 127)}
