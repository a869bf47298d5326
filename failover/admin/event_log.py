"""The log, and the subscribers of /events: both hear of every event of the core.

Rules
  1. Everything here runs on the `sip` thread.
  2. A line that a stranger can cause is written once a second at most and says how many were left
     out; the counters have them all.
  3. Texts of the network pass `plain` before they reach a terminal.
  4. A subscriber that is slow loses events (counted as events.lost); it never delays a message.
"""

from __future__ import annotations

import logging
import queue
import time
from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType

from failover.admin import status
from failover.net.active_standby import ACTIVE, HaState
from failover.proxy.events import (
    Dropped,
    Event,
    FailoverRecord,
    Passed,
    Queued,
    Released,
    Resumed,
    StateChanged,
)
from failover.upstream.health import ALIVE
from plumbing.address import format_address
from plumbing.shorten_text import shortened
from plumbing.throttled_log import ThrottledLog

log = logging.getLogger("forwarder")
# (name, JSON object) of an event; None: the forwarder stops
Subscriber = queue.Queue["tuple[str, object] | None"]


class EventLog:
    """Counts in `counters`: `takeovers`, `trouble.*`, `events.lost`."""

    def __init__(self, counters: Counter[str]) -> None:
        self._counters = counters
        self._subscribers: dict[Subscriber, bool] = {}  # does it want the text of messages?
        self._verbose = log.isEnabledFor(logging.DEBUG)
        self._throttled = ThrottledLog(log)

    @property
    def wants_messages(self) -> bool:
        """Must every message that passes be reported? That takes the time of the slow path."""
        return bool(self._subscribers) or self._verbose

    def subscribe(self, subscriber: Subscriber, with_text: bool = False) -> None:
        self._subscribers[subscriber] = with_text

    def unsubscribe(self, subscriber: Subscriber) -> None:
        self._subscribers.pop(subscriber, None)

    def close(self) -> None:
        """Tells the subscribers that there are no more events."""
        for subscriber in self._subscribers:
            try:
                subscriber.put_nowait(None)
            except queue.Full:
                continue
        self._subscribers.clear()

    def record(self, event: Event) -> None:
        """Logs an event and passes it to the subscribers."""
        match event:
            case Passed():
                if self._verbose:
                    log.debug("%s", _passed(event))
            case Dropped():
                self.throttled(event.at, event.reason, _dropped(event))
            case Queued():
                self.throttled(event.at, "kept", _queued(event))
            case Released():
                log.warning("%s", _released(event))
            case StateChanged():  # throttled, for a server may flap
                kind = f"{event.server} {event.state}"
                self.throttled(event.at, kind, _state_changed(event), _level(event))
            case FailoverRecord():
                level = logging.WARNING if event.successor else logging.ERROR
                log.log(level, "%s", _failover(event))
            case Resumed():
                log.warning("%s", _resumed(event.failover))
        if self._subscribers:
            published = status.event(event, time.time() - time.monotonic())
            if published:
                text = status.message_text(event) if isinstance(event, Passed) else {}
                self._publish(published, text)

    def role_changed(self, state: HaState, is_takeover: bool) -> None:
        """Logs that the forwarder is active or on standby; not `is_takeover`: since the start."""
        before = "on standby" if state.role is ACTIVE else "active"
        after = f"; it was {before} for {state.waited:.3f} s" if is_takeover else ""
        level = logging.WARNING if is_takeover else logging.INFO
        log.log(level, "%s: %s%s", state.role.value, state.why, after)
        if is_takeover:
            self._counters["takeovers"] += state.role is ACTIVE
            offset = time.time() - time.monotonic()
            self._publish(("takeover", status.takeover(state, offset)))

    def trouble(self, operation: str, text: str) -> None:
        """Counts and logs that the operating system refused an operation."""
        self._counters[f"trouble.{operation}"] += 1
        text = f"cannot {operation}: {text}"
        self.throttled(time.monotonic(), operation, text, logging.WARNING)

    def warn(self, text: str) -> None:
        """Logs an event of the forwarder's own, which is rare."""
        log.warning("%s", text)

    def throttled(self, now: float, kind: str, text: str, level: int = logging.INFO) -> None:
        """Logs a text, at most one of a kind a second."""
        self._throttled.say(kind, level, text, now=now)

    def _publish(
        self,
        event: tuple[str, dict[str, object]],
        text: Mapping[str, object] = MappingProxyType({}),
    ) -> None:
        name, value = event
        for subscriber, with_text in self._subscribers.items():
            try:
                subscriber.put_nowait((name, {**value, **text} if with_text else value))
            except queue.Full:
                self._counters["events.lost"] += 1


# -- an event as a line of the log -----------------------------------------------------------------


def _message(event: Passed | Queued) -> str:
    return event.method if event.status is None else f"{event.status} ({event.method})"


def _passed(event: Passed) -> str:
    session = f" session={plain(event.affinity_key)}" if event.affinity_key else ""
    way = f"{event.from_side} -> {event.to_side} {format_address(event.target)} ({event.why})"
    return f"call={plain(event.call_id)}{session} {_message(event)} {way}"


def _queued(event: Queued) -> str:
    call, source = plain(event.call_id), format_address(event.source)
    message = f"keeps {_message(event)} call={call} of {source}"
    if event.pause:
        return f"each server that had it failed: {message} for {event.pause:g} s"
    return f"no server lives: {message} until one does"


def _released(event: Released) -> str:
    after = _duration(event.oldest)
    return f"a server lives again: {event.messages} kept messages go on, the first after {after}"


def _dropped(event: Dropped) -> str:
    call = f" {plain(event.call)}" if event.call else ""
    source = f"{event.side} {format_address(event.source)}"
    return f"dropped ({event.reason}) from {source}{call}: {plain(event.note)}"


def _state_changed(event: StateChanged) -> str:
    return f"{event.server} is {event.state}: {event.why}; hot is {event.hot or 'nobody'}"


def _level(event: StateChanged) -> int:
    if not event.hot:
        return logging.ERROR
    return logging.INFO if event.state in (state.value for state in ALIVE) else logging.WARNING


def _failover(event: FailoverRecord) -> str:
    heard = "never heard"
    if event.last_answer is not None:
        heard = f"last heard {_duration(event.at - event.last_answer)} before"
    next_one = f"{event.successor} takes over" if event.successor else "NOBODY IS LEFT TO TAKE OVER"
    return (
        f"failover: {event.lost} is gone ({event.noticed}), {heard}; {next_one}; "
        f"{event.replayed} of {event.in_flight} in flight sent on"
    )


def _resumed(event: FailoverRecord) -> str:
    """A failover whose `gap` and `first_answer` are known by now."""
    since = ""
    if event.silence is not None:
        since = f", {_duration(event.silence)} after the last of {event.lost}"
    waited = f"to a request that had waited {_duration(event.gap or 0.0)}"
    return f"failover over: first answer of {event.successor}, {waited}{since}"


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 10 else f"{seconds:.0f} s"


def plain(text: str, most: int = 80) -> str:
    """A text of the network made fit for a terminal: printable ASCII, `most` characters."""
    return shortened(text, most).encode("ascii", "backslashreplace").decode().translate(_CONTROLS)


_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), 127)}
