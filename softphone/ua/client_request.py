"""A request of ours with its authentication retries, and the actions of one step of the agent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from sip.message import Request, Response
from sip.transaction import ClientTransaction
from softphone.ua.account import Address
from softphone.ua.digest_auth import Proofs
from softphone.ua.events import AgentEvent


@dataclass(frozen=True)
class Send:
    data: bytes
    to: Address


@dataclass
class Actions:
    """The actions of one step of the agent, for its shell: datagrams to send, events to tell."""

    sends: list[Send] = field(default_factory=list)
    events: list[AgentEvent] = field(default_factory=list)


@dataclass
class ClientRequest:
    """A request of ours with all its repeats for authentication, up to its final response.

    `handler` gets the final responses, of which an INVITE may have several, and `on_provisional`
    the others. Where nobody answered the response is a 408 that was made here (RFC 3261 8.1.3.1),
    and `timed_out` is true. `next_seq` numbers a repeat. `given_up`: the person wants it no more,
    so no challenge to it is answered. `came_from`: the sender of the response at hand.
    """

    request: Request
    destination: Address
    handler: ResponseHandler
    next_seq: Callable[[], int]
    on_repeat: Callable[[ClientRequest, float], None] | None = None
    on_provisional: ResponseHandler | None = None
    transaction: ClientTransaction = field(init=False)  # of `request`, from when it is sent
    proofs: Proofs = field(default_factory=Proofs)
    given_up: bool = False
    closed: bool = False
    timed_out: bool = False
    came_from: Address = ("", 0)

    @property
    def unanswered(self) -> int:
        """How often the request went out again without any answer."""
        return self.transaction.retransmissions


ResponseHandler = Callable[[ClientRequest, Response, float], None]
