"""Who is told what happened: the log, and those who read /events. Used on the `sip` thread only."""

from __future__ import annotations

import logging
import queue
import time

from failover.admin import status
from failover.net.active_standby import ACTIVE, HaState, Takeover
from failover.proxy.core import Core
from failover.proxy.events import (
    Dropped,
    Event,
    Failover,
    Passed,
    Queued,
    Released,
    Resumed,
    StateChanged,
)
from failover.upstream.health import ALIVE
from plumbing.address import format_address
from plumbing.shorten_text import shortened

log = logging.getLogger("forwarder")
Reader = queue.Queue["tuple[str, object] | None"]
QUIET = 1.0  # seconds between two lines of what a stranger can cause
MOST_REASONS = 1_000  # servers that register themselves bring names of their own


class Chronicle:
    def __init__(self) -> None:
        self.readers: list[Reader] = []
        self._verbose = log.isEnabledFor(logging.DEBUG)
        # by reason, of which there are a dozen and four a server
        self._next_line: dict[str, float] = {}
        self._untold: dict[str, int] = {}

    @property
    def listened_to(self) -> bool:
        """Does anybody want to hear of messages that pass?"""
        return bool(self.readers) or self._verbose

    def tell(self, core: Core, event: Event) -> None:
        """Logs an event and passes it to the readers."""
        if isinstance(event, Passed):
            if self._verbose:
                log.debug("%s", _decision(event))
        elif isinstance(event, Dropped):
            self.rarely(event.at, event.reason, _drop(event))
        elif isinstance(event, Queued):
            self.rarely(event.at, "kept", _queued(event))
        elif isinstance(event, Released):
            oldest = _time(event.oldest)
            log.warning(
                "a server lives again: %d kept messages go on, the first after %s",
                event.messages,
                oldest,
            )
        elif isinstance(event, StateChanged):
            # it may flap
            self.rarely(event.at, f"{event.server} {event.state}", _state(event), _level(event))
        elif isinstance(event, Resumed):
            log.warning("%s", _resumed(event.failover))
        else:
            log.log(logging.WARNING if event.taken_by else logging.ERROR, "%s", _failover(event))
        if self.readers:
            told = status.event(event, time.time() - time.monotonic())
            if told:
                self._pass_on(core, told)

    def stands(self, core: Core, standing: HaState, takeover: Takeover | None) -> None:
        """The forwarder's own part is another now, or known for the first time."""
        was = "on standby" if standing.role is ACTIVE else "active"
        after = f"; it was {was} for {takeover.waited:.3f} s" if takeover else ""
        log.log(
            logging.WARNING if takeover else logging.INFO,
            "%s: %s%s",
            standing.role.value,
            standing.why,
            after,
        )
        if takeover:
            core.counters["takeovers"] += takeover.role is ACTIVE
            self._pass_on(
                core, ("takeover", status.takeover(takeover, time.time() - time.monotonic()))
            )

    def trouble(self, core: Core, what: str, text: str) -> None:
        """The operating system would not do something."""
        core.counters[f"trouble.{what}"] += 1
        self.rarely(time.monotonic(), what, f"cannot {what}: {text}", logging.WARNING)

    def note(self, text: str) -> None:
        """Something rare of our own."""
        log.warning("%s", text)

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

    def rarely(self, now: float, reason: str, text: str, level: int = logging.INFO) -> None:
        """At most one line a second and reason; it says how many there were meanwhile."""
        if now < self._next_line.get(reason, 0.0):
            self._untold[reason] = self._untold.get(reason, 0) + 1
            return
        if len(self._next_line) > MOST_REASONS:
            self._next_line = {each: due for each, due in self._next_line.items() if due > now}
            self._untold = {
                each: count for each, count in self._untold.items() if each in self._next_line
            }
        self._next_line[reason] = now + QUIET
        untold = self._untold.pop(reason, 0)
        log.log(
            level, "%s%s", text, f" (and {untold} more since the last such line)" if untold else ""
        )


def _decision(event: Passed) -> str:
    what = event.method if event.status is None else f"{event.status} ({event.method})"
    named = f"call={plain(event.call_id)}" + (
        f" session={plain(event.session)}" if event.session else ""
    )
    return (
        f"{named} {what} {event.came} -> {event.went} {format_address(event.target)} ({event.why})"
    )


def _queued(event: Queued) -> str:
    what = event.method if event.status is None else f"{event.status} ({event.method})"
    source = format_address(event.source)
    return f"no server lives: keeps {what} call={plain(event.call_id)} of {source} until one does"


def _drop(event: Dropped) -> str:
    what = f" {plain(event.call)}" if event.call else ""
    return (
        f"dropped ({event.reason}) from {event.side} {format_address(event.source)}{what}: "
        f"{plain(event.note)}"
    )


def _level(event: StateChanged) -> int:
    if not event.hot:
        return logging.ERROR
    return logging.INFO if event.state in (state.value for state in ALIVE) else logging.WARNING


def _state(event: StateChanged) -> str:
    return f"{event.server} is {event.state}: {event.why}; hot is {event.hot or 'nobody'}"


def _failover(event: Failover) -> str:
    heir = f"{event.taken_by} takes over" if event.taken_by else "NOBODY IS LEFT TO TAKE OVER"
    heard = (
        "never heard"
        if event.last_answer is None
        else f"last heard {_time(event.at - event.last_answer)} before"
    )
    return (
        f"failover: {event.lost} is gone ({event.noticed}), {heard}; {heir}; "
        f"{event.replayed} of {event.in_flight} in flight sent on"
    )


def _resumed(event: Failover) -> str:
    """`gap` and `first_answer` are known by now."""
    since = (
        f", {_time(event.silence)} after the last of {event.lost}"
        if event.silence is not None
        else ""
    )
    answer = (
        f"first answer of {event.taken_by}, to a request that had waited {_time(event.gap or 0.0)}"
    )
    return f"failover over: {answer}{since}"


def _time(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 10 else f"{seconds:.0f} s"


def plain(text: str, most: int = 80) -> str:
    """A stranger's words, fit for a terminal: printable ASCII, and not too many, cut at a word."""
    return shortened(text, most).encode("ascii", "backslashreplace").decode().translate(_CONTROLS)


_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), 127)}
