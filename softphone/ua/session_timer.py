"""Session timers (RFC 4028): by refreshing the call in time each side knows that the other still
lives.

`SessionTimer` holds what the two agreed on and its two timers: half of the interval, when the one
who refreshes does, and shortly before its end, when whoever has heard nothing hangs up. How a
refresh is sent is the call's business.
"""

from __future__ import annotations

from dataclasses import dataclass

from sip.errors import RemoteProtocolError
from sip.grammar import is_number
from sip.message import Message, Request, Response
from softphone.ua.optional_fields import listed, retry_after
from softphone.ua.timers import Action, NamedTimers

DEFAULT_INTERVAL = 1800  # seconds; what RFC 4028 4.2 recommends
SHORTEST = 90  # seconds; RFC 4028 5: no Min-SE and no session is below
MOST_REFUSALS = 5  # every proxy on the way may ask for a longer interval once; not for ever
RETRY = 10.0  # seconds until a refresh that was refused is tried again
SUPPORTED = ("Supported", "timer")


@dataclass(frozen=True)
class SessionExpires:
    """The header field. `refresher`: "uac" or "uas", as seen by this one transaction; "" if it does
    not say."""

    interval: int
    refresher: str = ""

    @classmethod
    def of(cls, message: Message) -> SessionExpires | None:
        """RemoteProtocolError if it cannot be read; None if there is none."""
        text = message.get("Session-Expires")
        if text is None:
            return None
        number, *params = (part.strip().lower() for part in text.split(";"))
        named = dict(param.replace(" ", "").partition("=")[::2] for param in params)
        refresher = named.get("refresher", "")
        return cls(_seconds(number), refresher if refresher in ("uac", "uas") else "")

    def __str__(self) -> str:
        return (
            f"{self.interval};refresher={self.refresher}" if self.refresher else str(self.interval)
        )


class SessionTimer:
    """One call's. `wanted`: seconds to ask for, 0: what the other side asks for is done, and no
    more. `refresh` and `expire` are called when it is time to; the rows are the call's own, so that
    they end with it."""

    def __init__(self, wanted: int, timers: NamedTimers, refresh: Action, expire: Action) -> None:
        self._wanted = wanted
        self._timers, self._refresh, self._expire = timers, refresh, expire
        self._least = 0  # the largest Min-SE that was heard of
        self._refusals = 0
        self._interval = 0  # 0: this call does not expire
        self._refreshes = False
        self._since = 0.0
        self.takes_update = False  # the peer said so (RFC 3311 5.1)
        self.takes_info = False  # and INFO

    def silence(self, now: float) -> float:
        """Seconds since the last sign of life."""
        return now - self._since

    # -- our requests ------------------------------------------------------------------------------

    def request_fields(self) -> list[tuple[str, str]]:
        """For an INVITE or UPDATE of ours. RFC 4028 7.4: within a call it keeps the interval, and
        who refreshes."""
        interval = self._to_ask()
        if not interval:
            return [SUPPORTED]
        expires = SessionExpires(interval, self._role("uac", "uas") if self._interval else "")
        least = [("Min-SE", str(self._least))] if self._least else []
        return [SUPPORTED, ("Session-Expires", str(expires)), *least]

    def lengthen(self, response: Response) -> bool:
        """A 422: shall the request be sent once more, with the longer interval it names (RFC 4028
        7.3)?"""
        self._refusals += 1
        try:
            least = min_se(response)
        except RemoteProtocolError:
            return False
        if not 0 < self._to_ask() < least or self._refusals > MOST_REFUSALS:
            return False
        self._least = least
        return True

    def agreed(self, response: Response, now: float) -> None:
        """Their 2xx to an INVITE or UPDATE of ours; without Session-Expires the call does not
        expire (7.2)."""
        self._learn(response)
        self._refusals = 0
        try:
            theirs = SessionExpires.of(response)
        except RemoteProtocolError:
            theirs = None
        if theirs is None or theirs.interval < SHORTEST:
            self.stop()
        else:
            self._begin(theirs.interval, theirs.refresher != "uas", now)

    def again(self, response: Response, now: float) -> None:
        """The refresh could not be done, which ends nothing as long as there is time left (RFC 4028
        10)."""
        if self._refreshes and self._interval:
            self._timers.set("refresh", now + (retry_after(response) or RETRY), self._refresh)

    # -- their requests ----------------------------------------------------------------------------

    def answer_fields(self, request: Request, now: float) -> list[tuple[str, str]]:
        """For our 2xx to an INVITE or UPDATE, which starts the time anew (RFC 4028 9, table 2)."""
        self._learn(request)
        self._least = max(self._least, min_se(request))
        supported, asked = _supports(request), SessionExpires.of(request)
        if asked is None and supported and self._wanted:
            asked = SessionExpires(max(self._wanted, self._least))
        if asked is None or asked.interval < SHORTEST:
            self.stop()
            return [SUPPORTED]
        # A caller without session timers, for whom a proxy asks, cannot refresh. Else it is as they
        # say, or as it was.
        refresher = (asked.refresher or self._role("uas", "uac")) if supported else "uas"
        self._begin(asked.interval, refresher == "uas", now)
        required = [("Require", "timer")] if supported else []
        return [
            SUPPORTED,
            *required,
            ("Session-Expires", str(SessionExpires(asked.interval, refresher))),
        ]

    # -- inside ------------------------------------------------------------------------------------

    def stop(self) -> None:
        self._interval, self._refreshes = 0, False
        self._timers.cancel("refresh", "silence")

    def _begin(self, interval: int, refreshes: bool, now: float) -> None:
        self._interval, self._refreshes, self._since = interval, refreshes, now
        self._timers.cancel("refresh")
        if refreshes:
            self._timers.set("refresh", now + interval / 2, self._refresh)
        # RFC 4028 10: who refreshes and gets no answer leaves at that time too.
        self._timers.set("silence", now + interval - min(32.0, interval / 3), self._expire)

    def _to_ask(self) -> int:
        wanted = self._interval or self._wanted
        return max(wanted, self._least) if wanted else 0

    def _role(self, ours: str, theirs: str) -> str:
        return ours if self._refreshes else theirs

    def _learn(self, message: Message) -> None:
        if message.get("Allow") is not None:
            allowed = listed(message, "Allow")
            self.takes_update, self.takes_info = "UPDATE" in allowed, "INFO" in allowed


def min_se(message: Message) -> int:
    """Seconds of Min-SE; 0 without one. RemoteProtocolError if it cannot be read."""
    text = message.get("Min-SE")
    return 0 if text is None else _seconds(text.split(";")[0].strip())


def too_brief(request: Request) -> bool:
    """Is it to be refused with 422? Only to who understands that (RFC 4028 9). RemoteProtocolError
    (400) if what it says of session timers cannot be read."""
    min_se(request)
    asked = SessionExpires.of(request)
    return asked is not None and asked.interval < SHORTEST and _supports(request)


def _supports(request: Request) -> bool:
    return any(
        "timer" in map(str.lower, listed(request, name)) for name in ("Supported", "Require")
    )


def _seconds(text: str) -> int:
    if not is_number(text, 10):
        raise RemoteProtocolError(f"not a number of seconds: {text[:40]!r}")
    return int(text)
