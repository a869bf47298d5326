"""Session timers, the proxy's part (RFC 4028 8): they end the call of phones that have vanished.

The proxy asks for a session interval in every INVITE and UPDATE. Phones that know session timers
then refresh the session in time; if only the caller's does, it is told to. If neither does, the
call is presumed over when none of its messages has passed for that interval.
"""

from __future__ import annotations

import re

from sip.errors import RemoteProtocolError
from sip.message import Message, Request, Response

LEAST = 90  # seconds; RFC 4028 5: no Min-SE may be smaller
REFRESHING = ("INVITE", "UPDATE")

_SECONDS = re.compile(r"([0-9]{1,9})\s*(;.*)?")


class SessionTimers:
    """Negotiates session intervals. `interval`: seconds after which a session that nobody refreshes
    is over; 0: none is."""

    def __init__(self, interval: int) -> None:
        self._interval = interval
        self.bound = float(interval)  # seconds of silence that end a call nobody refreshes; 0: none
        self.least = min(LEAST, interval)  # a shorter one is for tests

    def is_too_short(self, request: Request) -> bool:
        """Does a phone that knows timers ask for too short an interval? 422 tells it the Min-SE."""
        theirs = _seconds(request, "Session-Expires")
        return theirs is not None and theirs < self.least and knows_timers(request)

    def request_interval(self, request: Request) -> int:
        """Chooses the interval with which the request goes on: never longer than the phone's own,
        unless that was too short."""
        if not self._interval:
            return 0
        theirs = _seconds(request, "Session-Expires")
        wanted = self._interval if theirs is None else min(theirs, self._interval)
        return max(wanted, self.least, _seconds(request, "Min-SE") or 0)

    def write_request(self, onward: Request) -> None:
        """Writes `request_interval` into the request."""
        asked, theirs = self.request_interval(onward), _seconds(onward, "Session-Expires")
        if asked in (0, theirs):
            return
        if theirs is not None and theirs < asked:  # of a phone that would not understand 422
            onward.set("Min-SE", str(asked))
        _, semicolon, params = (onward.get("Session-Expires") or "").partition(";")
        onward.set("Session-Expires", f"{asked}{semicolon}{params}")

    def accept(self, onward: Response, asked: int, is_known_to_asker: bool) -> int | None:
        """Reads the interval that a 2xx to a request with `asked` puts into force; None: no phone
        will refresh the session within this server's own, so that its silence has to tell its end.
        Where only the asker knows timers, the response is to tell it that it refreshes."""
        if not (self._interval and asked):
            return None
        try:
            theirs = _seconds(onward, "Session-Expires")
        except RemoteProtocolError:
            return None  # an answered call is not lost for a malformed number
        if theirs is not None and theirs > self._interval:
            return None  # a phone may ask for years (Min-SE)
        if theirs is not None:
            return max(theirs, self.least)
        if not is_known_to_asker:
            return None
        onward.set("Session-Expires", f"{asked};refresher=uac")
        onward.add("Require", "timer")
        return asked if asked <= self._interval else None


def knows_timers(message: Message) -> bool:
    return any("timer" in _options(message, name) for name in ("Supported", "Require"))


def _options(message: Message, name: str) -> list[str]:
    try:
        return [each.lower() for each in message.values(name)]
    except RemoteProtocolError:
        return []  # an open quotation mark: it is for the other phone to read


def _seconds(message: Message, name: str) -> int | None:
    value = message.get(name)
    if value is None:
        return None
    match = _SECONDS.fullmatch(value.strip())
    if not match:
        raise RemoteProtocolError(f"not a number of seconds: {name}: {value[:20]!r}")
    return int(match[1])
