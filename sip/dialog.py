"""Dialogs (RFC 3261 12): the two parties, the route set and remote target, the order of requests.

A dialog makes the requests sent within it, without a Via: that, and the sending, is the transport's
part. It knows nothing of sessions or of the person on the phone.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from sip.errors import RemoteProtocolError
from sip.header import NameAddr
from sip.message import Message, Request, Response
from sip.uri import Uri

DialogId = tuple[str, str, str]  # Call-ID, local tag, remote tag
TARGET_REFRESHING = ("INVITE", "UPDATE")
MAX_FORWARDS = ("Max-Forwards", "70")


class DialogState(str, Enum):
    EARLY = "early"
    CONFIRMED = "confirmed"


class Dialog:
    """One side of a dialog. Build it with `uac` or `uas`; `request` makes the next request."""

    def __init__(
        self, call_id: str, local: NameAddr, remote: NameAddr, target: Uri, routes: list[NameAddr]
    ) -> None:
        self.call_id = call_id
        self.local = local
        self.remote = remote
        self.target = target
        self.routes = routes
        self.state = DialogState.EARLY
        self.local_seq = 0
        self.remote_seq: int | None = None

    @classmethod
    def uac(cls, request: Request, response: Response) -> Dialog:
        """The caller's side, out of a response above 100 (RFC 3261 12.1.2). RFC 2543 phones send no
        To tag: it is then empty. RemoteProtocolError if the response has no Contact, which a 2xx
        must have."""
        target = target_of(response)
        if target is None and response.status >= 200:
            raise RemoteProtocolError("a 2xx to INVITE without Contact")
        routes = list(reversed(response.record_routes))
        dialog = cls(
            request.call_id, request.from_, response.to, target or Uri.parse(request.uri), routes
        )
        dialog.local_seq = request.cseq.number
        if response.status >= 200:
            dialog.state = DialogState.CONFIRMED
        return dialog

    @classmethod
    def uas(cls, request: Request, tag: str) -> Dialog:
        """The called side, out of the request and the tag our responses will carry (RFC 3261
        12.1.1)."""
        target = target_of(request)
        if target is None:
            raise RemoteProtocolError(f"{request.method} without Contact")
        local = request.to.with_tag(tag)
        dialog = cls(request.call_id, local, request.from_, target, request.record_routes)
        dialog.remote_seq = request.cseq.number
        return dialog

    @property
    def id(self) -> DialogId:
        return self.call_id, self.local.tag, self.remote.tag

    def confirm(self, response: Response | None = None) -> None:
        """The INVITE was accepted. RFC 3261 13.2.2.4: the caller takes the route set from the 2xx
        anew."""
        self.state = DialogState.CONFIRMED
        if response is not None:
            self.routes = list(reversed(response.record_routes))
            self.refresh_target(response)

    def next_seq(self) -> int:
        self.local_seq += 1
        return self.local_seq

    def request(
        self,
        method: str,
        fields: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
        seq: int | None = None,
    ) -> Request:
        """The next request of this dialog (RFC 3261 12.2.1.1). An ACK takes its INVITE's number as
        `seq`."""
        number = self.next_seq() if seq is None else seq
        uri, routes = self._uri_and_routes()
        head = [*(("Route", route) for route in routes), MAX_FORWARDS]
        head += [("From", str(self.local)), ("To", str(self.remote))]
        head += [("Call-ID", self.call_id), ("CSeq", f"{number} {method}")]
        return Request(method, uri, [*head, *fields], body)

    def _uri_and_routes(self) -> tuple[str, list[str]]:
        if not self.routes or "lr" in self.routes[0].uri.params:
            return str(self.target), [str(route) for route in self.routes]
        # A strict router wants its own address as Request-URI and the target as the last Route.
        rest = [str(route) for route in self.routes[1:]]
        return str(as_request_uri(self.routes[0].uri)), [*rest, f"<{self.target}>"]

    def take(self, request: Request) -> None:
        """A request of theirs, not an ACK or CANCEL: RemoteProtocolError if it came out of order
        (12.2.2).

        A new Contact in a target refresh request is where our next request goes.
        """
        number = request.cseq.number
        if self.remote_seq is not None and number < self.remote_seq:
            raise RemoteProtocolError(f"CSeq {number} came after {self.remote_seq}", status=500)
        if number == self.remote_seq:
            # Not a retransmission, for that has the branch of the first: the same request over a
            # second path (8.2.2.2).
            raise RemoteProtocolError(f"CSeq {number} came twice", status=482)
        self.remote_seq = number
        if request.method in TARGET_REFRESHING:
            self.refresh_target(request)

    def refresh_target(self, message: Request | Response) -> None:
        """The remote target is the Contact of the latest target refresh request or of the 2xx to
        ours."""
        self.target = target_of(message) or self.target


def target_of(message: Message) -> Uri | None:
    """The first Contact, as the Request-URI of what is sent there; None without one. A gateway may
    write a tel URI, which RFC 3261 8.1.1.8 does not allow: what names no host goes by the route
    set, or back where it came from."""
    for value in message.values("Contact"):
        if value != "*":
            return as_request_uri(NameAddr.parse_any(value).uri)
    return None


def next_hop(request: Request) -> Uri:
    """The URI that a request is sent to (RFC 3261 8.1.2): its first Route if that is a loose
    router, else the Request-URI."""
    routes = request.routes
    if routes and "lr" in routes[0].uri.params:
        return routes[0].uri
    return Uri.parse_any(request.uri)


def as_request_uri(uri: Uri) -> Uri:
    """Without what may not stand in a Request-URI: `method` and headers (RFC 3261 19.1.1, table
    1)."""
    if not (uri.headers or "method" in uri.params):
        return uri
    kept = {name: value for name, value in uri.params.items() if name != "method"}
    return Uri(uri.scheme, uri.user, uri.host, uri.port, uri.password, kept)
