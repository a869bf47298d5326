"""The SIP side of a server, as JAIN SLEE's resource adaptor: it makes events of datagrams, and the
responses that this cluster gives itself.

It reads the message once, takes the header field Failover-Kept off it, refuses what cannot be
answered or passed on, and answers the forwarder's heartbeats, which must not wait for the store.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from sip import VERSION
from sip.branch import keyed_hash
from sip.errors import RemoteProtocolError
from sip.message import BrokenRequest, Request, Response, parse, reply
from sip.uri import Uri
from slee_mock.container.events import (
    Address,
    Arrival,
    Outcome,
    RequestEvent,
    ResponseEvent,
    Send,
    TimerEvent,
    drop,
)

HEARTBEATS = "heartbeats"  # counted, not logged: twenty of them a second would bury everything else
METHODS = frozenset(
    {"REGISTER", "INVITE", "ACK", "CANCEL", "BYE", "OPTIONS"}
    | {"MESSAGE", "UPDATE", "INFO", "PRACK", "REFER"}
)
ROLES = frozenset({"hot", "live", "replica"})
KEPT_FIELD = "Failover-Kept"
MOST_SECONDS_KEPT = 30 * 86_400.0  # as long as an answered call is kept (billing.ABANDONED_SECONDS)

_SECONDS = re.compile(r"\d{1,7}(\.\d{1,9})?", re.ASCII)


# -- datagrams -> events ---------------------------------------------------------------------------


class Forwarders:
    """The addresses whose Failover-Kept field is believed: `forwarder`, and its port on each of
    `hosts`. The port tells a forwarder from a phone on the same computer, which could otherwise
    shorten its bill."""

    def __init__(self, forwarder: Address, hosts: Iterable[str] = ()) -> None:
        self._addresses = frozenset((host, forwarder[1]) for host in (forwarder[0], *hosts))

    def seconds_kept(self, request: Request, source: Address) -> float:
        """How long the forwarder kept the request while no server lived. Removes the field. 0.0 if
        there is none, more than one, an impossible one, or one that is not a forwarder's."""
        values = request.all(KEPT_FIELD)
        if not values:
            return 0.0
        request.remove(KEPT_FIELD)
        if len(values) > 1 or source[:2] not in self._addresses:
            return 0.0
        match = _SECONDS.fullmatch(values[0].strip())
        seconds = float(match[0]) if match else 0.0
        return seconds if seconds <= MOST_SECONDS_KEPT else 0.0


def read_event(data: bytes, source: Address, now: float, forwarders: Forwarders) -> Arrival:
    """Raises RemoteProtocolError if `data` is not a SIP message. A request that a forwarder kept
    counts as if it had come that much earlier."""
    message = parse(data, in_passing=True)
    if isinstance(message, Request):
        kept = forwarders.seconds_kept(message, source)
        return RequestEvent(message, source, now - kept, kept)
    assert isinstance(message, Response)
    return ResponseEvent(message, source, now)


def check(event: Arrival) -> None:
    """Raises RemoteProtocolError unless all can be read that a response to the request needs, and
    within a dialog its tags. A response needs its Call-ID alone: it goes back by its Vias (RFC 3261
    16.7)."""
    message: Request | Response
    if isinstance(event, RequestEvent):
        message = event.request
        has_to_tag = len(message.all("To")) == 1 and bool(message.to_tag)
        message.check(in_passing=message.method != "REGISTER" and has_to_tag)
    else:
        message = event.response
    # the Call-ID becomes a key of the store; surrogates are not printable either
    if not message.call_id.isprintable():
        raise RemoteProtocolError("Call-ID has bytes that cannot stand in one")


def message_of(event: Arrival) -> Request | Response:
    return event.request if isinstance(event, RequestEvent) else event.response


def is_heartbeat(request: Request) -> bool:
    """Is it OPTIONS to no user? Within a dialog it is the other phone's, whose contact may have
    none."""
    return request.method == "OPTIONS" and not Uri.parse(request.uri).user and not request.to_tag


def counter_name(event: Arrival) -> str:
    """Names the counter of an event. The names are a fixed set: strangers cannot add to it."""
    if isinstance(event, ResponseEvent):
        return "responses"
    try:
        if is_heartbeat(event.request):
            return HEARTBEATS
    except RemoteProtocolError:
        return "other"
    return event.request.method if event.request.method in METHODS else "other"


# -- responses of our own --------------------------------------------------------------------------


class LocalResponses:
    """Responses this cluster gives itself. To-tags are made from the request, so any server answers
    a retransmission alike (RFC 3261 8.2.7), and knows the ACK to such a response when it sees one.
    `name`: of the server that answers, told with the version in a Server header; without it there
    is none, for it tells strangers what to attack (RFC 3261 20.35)."""

    def __init__(self, key: bytes, name: str = "") -> None:
        self._key = key
        escaped = re.sub(r"([()\\])", r"\\\1", name)  # RFC 3261 25.1: comment
        self._server = [("Server", f"call-failover-slee/{VERSION} ({escaped})")] if name else []

    def tag(self, request: Request) -> str:
        return keyed_hash(
            self._key, "tag", request.call_id, request.from_tag, str(request.cseq.number)
        )

    def answered_by_us(self, request: Request) -> bool:
        """Does the To-tag say that we answered this INVITE ourselves?"""
        return request.to_tag == self.tag(request)

    def answer(
        self,
        event: RequestEvent,
        status: int,
        reason: str = "",
        fields: Iterable[tuple[str, str]] = (),
        to: Address | None = None,
    ) -> Send:
        tag = self.tag(event.request)
        response = reply(event.request, status, reason, tag, [*fields, *self._server])
        return Send(response.to_bytes(), to)

    def refuse(
        self,
        event: RequestEvent,
        status: int,
        reason: str = "",
        fields: Iterable[tuple[str, str]] = (),
    ) -> Outcome:
        """Refuses a request with a response, an ACK with none (RFC 3261
        17.1.1.3)."""
        if event.request.method == "ACK":
            return drop("ack_refused")
        send = self.answer(event, status, reason, fields)
        return Outcome(sends=(send,), consumed=True, log_text=f"answered {status}")

    def reject(self, event: Arrival | TimerEvent, status: int) -> Outcome:
        """Refuses a request, and drops a response or what cannot be answered."""
        if not isinstance(event, RequestEvent):
            return drop("bad_response")
        try:
            fields = [("Retry-After", "2")] if status == 503 else []
            return self.refuse(event, status, fields=fields)
        except RemoteProtocolError:
            return drop("unanswerable")  # not even what an answer needs could be read

    def too_large(self, data: bytes) -> tuple[Send, ...]:
        """Makes the 513 to a request that this server could not send on; nothing for an ACK or a
        response."""
        head, end, _ = data.partition(b"\r\n\r\n")
        try:
            request = parse(head + end, in_passing=True)
        except BrokenRequest as error:
            request = error.request  # its body is missing
        except RemoteProtocolError:
            return ()
        if not isinstance(request, Request):
            return ()
        return self.reject(RequestEvent(request, ("", 0), 0.0), 513).sends


class OptionsResponder:
    """Answers the forwarder's heartbeats: 200 if the server is `ready` for new calls, else 503.

    `role`: what a forwarder on one of the computers `hosts` said last in Failover-Role, since
    `role_since` (cluster time). A standby's heartbeats have no such field and change nothing.
    """

    def __init__(self, answers: LocalResponses, *hosts: str) -> None:
        self._answers, self._hosts = answers, frozenset(hosts)
        self.role, self.role_since = "", 0.0

    def respond(self, event: RequestEvent, ready: bool) -> Outcome:
        """Answers to where the heartbeat came from: the forwarder asks from a socket of its own."""
        role = event.request.get("Failover-Role")
        if role in ROLES and role != self.role and event.source[0] in self._hosts:
            self.role, self.role_since = role, event.time
        send = self._answers.answer(event, 200 if ready else 503, to=event.source)
        return Outcome(sends=(send,), consumed=True)
