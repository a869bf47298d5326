"""The sound of a phone's calls: one media session for each, opened before it is offered, and what
becomes of it.

All of it runs in the phone's sip thread; the sessions have threads of their own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from softphone.media.audio_interfaces import AudioSink, AudioSource
from softphone.media.dtmf import DIGITS
from softphone.media.session import MediaSession
from softphone.media.stream import MediaStats
from softphone.ua.events import CallView

log = logging.getLogger(__name__)

OnDigit = Callable[[MediaSession, str, bool], None]


class CallAudio:
    """`devices`: a source and a sink for all calls. `on_digit(session, digit, sent)` is called in a
    session's own thread for each digit that has come or, `sent`, left."""

    def __init__(self, devices: tuple[AudioSource, AudioSink], on_digit: OnDigit) -> None:
        self._devices, self._on_digit = devices, on_digit
        self._sessions: dict[str, MediaSession] = {}  # by the call's Call-ID
        self._last: MediaSession | None = None  # swapped whole; read by any thread

    def stats(self) -> MediaStats | None:
        """Of the call going on, after its end of the last one; None before the first. Any
        thread."""
        session = self._last
        return session.stats() if session else None

    def of(self, call: CallView | None) -> MediaSession | None:
        """The session of this call; None without."""
        return self._sessions.get(call.id) if call else None

    def call_id_of(self, session: MediaSession) -> str | None:
        """The call that has this session; None once it is over."""
        return next((key for key, each in self._sessions.items() if each is session), None)

    def open(self, host: str) -> MediaSession:
        """A session whose ports can be offered. `host`: where SIP listens, for sockets bound to all
        addresses outlive the one that is in use now. OSError if no ports are to be had."""
        source, sink = self._devices

        def told(sent: bool) -> Callable[[str], None]:
            return lambda digit: self._on_digit(session, digit, sent)

        session = MediaSession(
            (host, 0), source=source, sink=sink, on_digit=told(False), on_digit_sent=told(True)
        )
        session.open()
        return session

    def keep(self, session: MediaSession, call: CallView | None) -> None:
        """The session is this call's; without a call it is not needed."""
        if call is None:
            end(session)
        else:
            self._sessions[call.id] = self._last = session

    def follow(self, call: CallView) -> None:
        """The sound does what the call says."""
        session = self.of(call)
        if session is None:
            return
        if not call.active:
            del self._sessions[call.id]
            end(session)
        elif call.media is not None:
            session.answered(call.answered_at is not None)
            session.apply(call.media, call.held_here)

    def mute(self, muted: bool) -> None:
        for session in self._sessions.values():
            session.mute(muted)

    def close(self) -> None:
        for session in self._sessions.values():
            end(session)
        self._sessions.clear()


def end(session: MediaSession) -> None:
    """Stop it; a sound device that does not let go must not keep the call from ending."""
    try:
        session.stop()
    except RuntimeError as error:
        log.warning("%s", error)


def is_digit(text: str) -> bool:
    """Is it one digit of a telephone?"""
    return len(text) == 1 and text.upper() in DIGITS
