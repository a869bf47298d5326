"""Offer and answer of one call (RFC 3264): what each side said last, and the media plan that
follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sip import sdp
from sip.errors import LocalProtocolError, RemoteProtocolError
from sip.message import Message
from sip.multipart import session_description
from sip.sdp import MediaDirection, MediaPlan, SessionDescription

CODECS = ("PCMU", "PCMA")
CONTENT_TYPE = ("Content-Type", sdp.CONTENT_TYPE)


class OfferAnswer:
    """`plan` is what both agreed on last; an offer that is refused changes nothing (RFC 3261
    14.1)."""

    def __init__(self, host: str, port: int, session_id: int, peers: tuple[str, ...] = ()) -> None:
        self._host = host  # where our media is wanted
        self._named = host  # the one our last offer or answer named
        self._port, self._session_id = port, session_id
        self.peers = peers  # hosts where the other side was reached or seen
        self._local: SessionDescription | None = None
        self._offered: SessionDescription | None = None
        self._offers_hold = False
        self._version = 0  # of what we said last
        self.held_here = False
        self.plan: MediaPlan | None = None

    @property
    def held_there(self) -> bool:
        return self.plan is not None and self.plan.held_there

    @property
    def awaits_answer(self) -> bool:
        return self._offered is not None

    @property
    def has_moved(self) -> bool:
        """Is our media wanted elsewhere than we said last?"""
        return self._named != self._host

    def move(self, host: str) -> None:
        """Our media is wanted at this host from the next offer or answer on."""
        self._host = host

    def offer(self, hold: bool = False, codecs: Sequence[str] = ()) -> bytes:
        """Our next offer. On hold we offer sendonly, which tells the other side apart from its own
        hold. `codecs`: offered again instead of the one agreed on."""
        direction = _direction(hold)
        self._version += 1
        if self._local is None:
            offered = sdp.offer(
                self._host, self._port, CODECS, self._session_id, self._version, direction
            )
        else:
            offered = sdp.offer_again(
                self._local, self._host, self._session_id, self._version, direction, codecs
            )
        self._offered, self._offers_hold, self._named = offered, hold, self._host
        return offered.to_bytes()

    def offer_all(self) -> bytes:
        """An offer of all that we have, to a re-INVITE that makes none (RFC 3261 14.2)."""
        return self.offer(self.held_here, CODECS)

    def repeat(self) -> bytes:
        """An offer of what stands, for a re-INVITE that changes nothing: by its version they know
        (RFC 4028 7.4)."""
        standing = self._local or self._offered
        if standing is None:
            return self.offer(self.held_here)
        self._offered, self._offers_hold = standing, self.held_here
        return standing.to_bytes()

    def withdraw(self) -> None:
        """Our offer was refused."""
        self._offered = None

    def take_answer(self, message: Message, preview: bool = False) -> None:
        """Their answer to our offer; a `preview` in a provisional response may still be replaced
        (13.2.1).

        RemoteProtocolError 488 if nothing was agreed.
        """
        if self._offered is None:
            raise LocalProtocolError("an answer without an offer")
        self._plan(self._offered, _description(message))
        if not preview:
            self.settle()

    def take_correction(self, message: Message) -> None:
        """Another answer to the offer that was answered before: a gateway whose sound has moved
        meanwhile."""
        if self._local is not None:
            self._plan(self._local, _description(message))

    def settle(self) -> None:
        """The answer that was previewed stands."""
        self._local, self._offered, self.held_here = self._offered, None, self._offers_hold

    def answer(self, message: Message) -> bytes:
        """Our answer to their offer: one codec (PJSIP would ask again otherwise).
        RemoteProtocolError 415 or 488."""
        theirs = _description(message)
        local = self._describe(theirs, self._version)
        if local != self._local:  # RFC 3264 8: what stays the same keeps its version
            self._version += 1
            local = self._describe(theirs, self._version)
        self._plan(local, theirs)
        self._local, self._named = local, self._host
        return local.to_bytes()

    def _plan(self, local: SessionDescription, theirs: SessionDescription) -> None:
        self.plan = replace(sdp.plan(local, theirs), peers=self.peers)

    def _describe(self, theirs: SessionDescription, version: int) -> SessionDescription:
        direction = _direction(self.held_here)
        return sdp.answer(
            theirs, self._host, self._port, CODECS, self._session_id, version, direction
        )


def offers(message: Message) -> bool:
    """Is there a session description in it? RemoteProtocolError 415 for a body that is another."""
    return session_description(message) is not None


def check_offer(message: Message, host: str) -> None:
    """Could this offer be answered at all, by a phone at `host`? Asked before it rings (RFC 3261
    13.3.1)."""
    if offers(message):
        theirs = _description(message)
        sdp.plan(sdp.answer(theirs, host, 9, CODECS), theirs)


def _direction(hold: bool) -> MediaDirection:
    return MediaDirection.SENDONLY if hold else MediaDirection.SENDRECV


def _description(message: Message) -> SessionDescription:
    found = session_description(message)
    if found is None:
        raise RemoteProtocolError("no session description where one is needed", status=415)
    return SessionDescription.parse(found)
