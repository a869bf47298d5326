"""The events of the user agent: frozen, each with its time.

`at`, `since`, `answered_at` and `ended_at` are monotonic seconds. Every state comes with a sentence
for the person.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from sip.sdp import MediaPlan


class RegistrationState(str, Enum):
    UNREGISTERED = "unregistered"
    REGISTERING = "registering"
    REGISTERED = "registered"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"


class Direction(str, Enum):
    OUTGOING = "outgoing"
    INCOMING = "incoming"


class CallState(str, Enum):
    CALLING = "calling"  # our INVITE is out
    RINGING = "ringing"  # and their phone rings
    INCOMING = "incoming"  # their INVITE rings here
    TALKING = "talking"
    ENDING = "ending"  # we hung up, and they have not confirmed it yet
    ENDED = "ended"


@dataclass(frozen=True)
class CallView:
    """One call as a person sees it. `peer_uri`: "" for what was no address. `since` is the start of
    this state; `media` what to play and send, once agreed."""

    id: str
    direction: Direction
    peer_name: str
    peer_uri: str
    state: CallState
    sentence: str
    since: float
    answered_at: float | None = None
    ended_at: float | None = None
    held_here: bool = False
    held_there: bool = False
    status: int | None = None
    media: MediaPlan | None = None

    @property
    def active(self) -> bool:
        """Does it occupy the phone? A call that is ending does not: the person has hung up."""
        return self.state not in (CallState.ENDING, CallState.ENDED)


@dataclass(frozen=True)
class RegistrationChanged:
    """`wants_password`: it was refused because the password is wrong or missing. `server`: the one
    that registers the phone, by its name, if it says that."""

    at: float
    state: RegistrationState
    sentence: str
    wants_password: bool = False
    server: str = ""


@dataclass(frozen=True)
class CallChanged:
    at: float
    call: CallView


@dataclass(frozen=True)
class CallTurnedAway:
    """Somebody called while the phone was busy, and was told so (486). The call has ended."""

    at: float
    call: CallView


@dataclass(frozen=True)
class ProbeAnswered:
    """The answer to an OPTIONS within a call. `status` is 408 if there was none."""

    at: float
    call_id: str
    sent_at: float
    status: int


@dataclass(frozen=True)
class MessagePassed:
    """A message left or came. `retransmission`: the same one had before. `data`: as it travelled,
    between `local` and `peer`. `server`: who answered, if it is one of our servers and says so."""

    at: float
    sent: bool
    summary: str
    call_id: str
    retransmission: bool
    data: bytes = b""
    local: tuple[str, int] = ("", 0)
    peer: tuple[str, int] = ("", 0)
    server: str = ""


@dataclass(frozen=True)
class DigitPassed:
    """A digit of the dial pad has left in the call (`sent`), or came."""

    at: float
    call_id: str
    digit: str
    sent: bool


@dataclass(frozen=True)
class DigitRefused:
    """A digit was not sent, because the other side takes none."""

    at: float
    call_id: str
    digit: str
    sentence: str


AgentEvent = (
    RegistrationChanged
    | CallChanged
    | CallTurnedAway
    | ProbeAnswered
    | MessagePassed
    | DigitPassed
    | DigitRefused
)
