"""The audio of a phone's calls: one media session for each, opened before its port is offered.

All of it runs in the phone's sip thread; a session has a thread of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from softphone.media.audio_interfaces import AudioSink, AudioSource
from softphone.media.levels import SilenceMeter
from softphone.media.session import MediaSession
from softphone.media.stream import MediaStats
from softphone.ua.events import CallView

log = logging.getLogger(__name__)

OnDigit = Callable[[str, str, bool], None]


class CallAudio:
    """`devices`: a source and a sink for all calls. `on_digit(call_id, digit, sent)` is called in a
    session's own thread for each digit that has come or, `sent`, left."""

    def __init__(self, devices: tuple[AudioSource, AudioSink], on_digit: OnDigit) -> None:
        self._devices, self._on_digit = devices, on_digit
        self._call_id = ""  # of the call going on
        # Of that call, or of the last one; swapped whole, read by any thread.
        self._session: MediaSession | None = None
        self._silence = SilenceMeter()

    def stats(self) -> MediaStats | None:
        """Of the call going on, after its end of the last one; None before the first. Any
        thread."""
        session = self._session
        return session.stats() if session else None

    def of(self, call: CallView | None) -> MediaSession | None:
        """The session of this call; None without."""
        return self._session if call and call.id == self._call_id else None

    def open(self, call_id: str, host: str) -> int:
        """Open this call's session; the port to offer. `host`: where SIP listens, for sockets bound
        to all addresses outlive the one that is in use now. OSError if no ports are to be had."""
        self.close()
        source, sink = self._devices
        self._session = MediaSession(
            host,
            source,
            sink,
            lambda digit, sent: self._on_digit(call_id, digit, sent),
        )
        self._call_id, self._silence = call_id, SilenceMeter()
        return self._session.port

    def follow(self, call: CallView) -> None:
        """The sound does what the call says."""
        session = self.of(call)
        if session is None:
            return
        if not call.active:
            self.close()
        elif call.media is not None:
            session.apply(call.media, call.held_here, call.answered_at is not None)

    def silent_seconds(self, call: CallView, now: float) -> int:
        """For how long this call has brought no sound though it should, in whole steps. Asked every
        second or so."""
        if self._session is None or call.media is None or call.answered_at is None:
            return 0
        is_due = call.media.direction.receives and not call.held_there
        return self._silence.look(self._session.stats().packets_received, is_due, now)

    def mute(self, muted: bool) -> None:
        if self._session is not None:
            self._session.mute(muted)

    def close(self) -> None:
        """End the session of the call going on. A sound device that does not let go must not keep
        the call from ending."""
        if self._session is None or not self._call_id:
            return
        self._call_id = ""
        try:
            self._session.stop()
        except RuntimeError as error:
            log.warning("%s", error)
