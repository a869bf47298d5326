"""The lines of a message that are the forwarder's to write: a forwarded message differs from the
received one by these and by nothing else.

Its Via, whose branch is signed and proves that an answer's request passed here (RFC 3261 16.11),
and whose parameter `back` proves the way back; Record-Route with the server's hint; Path in a
registration, if that is wished for (RFC 3327); the sender's Via completed by where it came from
(RFC 3581); a Route that named the forwarder, taken away; a dead server's address, written over with
its successor's.
"""

from __future__ import annotations

from collections.abc import Callable

from failover.proxy.destination import names, way_back
from failover.proxy.request_validation import LOOP, loop_word
from failover.upstream.server_table import Server, ServerTable
from plumbing.address import Address, format_address
from sip.branch import is_branch_of, keyed_hash, make_branch
from sip.errors import RemoteProtocolError
from sip.header import NameAddr
from sip.message import DIALOG_CREATING, Message, Request, Response
from sip.uri import Uri
from sip.via import Via

BACK, BACK_DIGITS = "back", 16  # parameter of our Via
KEPT = "Failover-Kept"  # header field; seconds, as in 12.345
LATE = 0.1  # seconds; less is not worth telling


class Lines:
    """`advertised(phone)` is the forwarder's own address as that phone knows it,
    `advertised_to_server(host)` as a server at that IP address does; `is_own(address)`: is this one
    of the forwarder's, whether or not it was written into a message yet?"""

    def __init__(
        self,
        table: ServerTable,
        key: bytes,
        advertised: Callable[[Address], Address],
        advertised_to_server: Callable[[str], Address],
        is_own: Callable[[Address], bool],
    ) -> None:
        self.table, self.key, self._advertised, self._is_own = table, key, advertised, is_own
        self._advertised_to_server = advertised_to_server
        # those written already: as many as this computer has addresses
        self.own: set[Address] = set()
        # Grows when the table or the own addresses change: what was cached of them is void then.
        self.generation = 0

    def towards(self, phone: Address) -> Address:
        """The own address to write for that phone, known as own from now on."""
        return self._known(self._advertised(phone))

    def towards_server(self, host: str) -> Address:
        """The same for a server."""
        return self._known(self._advertised_to_server(host))

    def _known(self, own: Address) -> Address:
        if own not in self.own:
            self.own.add(own)
            self.generation += 1
        return own

    def is_own(self, address: Address) -> bool:
        return address in self.own or self._is_own(address)

    # -- Via ---------------------------------------------------------------------------------------

    def complete_via(self, request: Request, source: Address) -> None:
        """Notes in the sender's Via where it really came from, so that the answer goes nowhere
        else."""
        via = request.via
        complete = via.with_source(*source)
        if complete != via:
            request.replace_via(complete)

    def push_via(self, request: Request, own: Address, branch: str, side: str) -> None:
        """`rport` (RFC 3581 3) has the peer answer to the port that this leaves from, should `own`
        name another one. It stands last, where a peer's answer to it grows."""
        loop, back = loop_word(request, side), self.back_word(way_back(request.via))
        words = f"branch={branch};{LOOP}={loop};{BACK}={back};rport"
        request.push("Via", f"SIP/2.0/UDP {format_address(own)};{words}")

    def branch(self, request: Request) -> str:
        return make_branch(self.key, request, self.signed(request.via))

    def back_word(self, address: Address) -> str:
        """Signs the address to which a response goes that has our Via on top. It is no part of the
        branch, which names the transaction alone."""
        host, port = address
        words = ("server",) if address in self.table.by_address else (host, str(port))
        return keyed_hash(self.key, BACK, *words)[:BACK_DIGITS]

    def is_ours(self, response: Response) -> bool:
        """Is the topmost Via one that a forwarder with our secret made, over the Via beneath it as
        it is?"""
        vias = response.vias[:2]
        if len(vias) < 2:
            return False
        ours, beneath = vias
        back = way_back(beneath)
        signed = self.signed(beneath, back)
        return is_branch_of(self.key, ours, signed, response) and (
            ours.params.get(BACK) == self.back_word(back)
        )

    def signed(self, via: Via, back: Address | None = None) -> Via:
        """What our branch says of the Via beneath it. Servers stand in for one another, so that one
        which repeats what a dead one had sent already makes a retransmission of it, which no phone
        takes for a second call. `back` is its way back, where that is known."""
        if (back or way_back(via)) in self.table.by_address:
            return Via(via.transport, "server", params={"branch": via.branch})
        return via

    # -- Route, Record-Route, Request-URI ----------------------------------------------------------

    def drop_uri_headers(self, request: Request) -> None:
        """Takes escaped headers off a Request-URI, where they may not stand (RFC 3261 19.1.1), and
        which a proxy may neither pass on nor act on (RFC 4475 3.1.2.11)."""
        if "?" in request.uri and request.uri[:4].lower() in ("sip:", "sips"):
            headers = Uri.parse(request.uri).headers
            if headers or request.uri.endswith("?"):
                request.uri = request.uri[: -1 - len(headers)]

    def restore_target(self, request: Request) -> str:
        """RFC 3261 16.4: a strict router put our Record-Route where the Request-URI was, and that
        last in the Route. Returns the hint."""
        if ";lr" not in request.uri:
            return ""
        word = Uri.parse(request.uri).params.get("hint") or ""
        if word not in self.table.by_hint or not request.routes:
            return ""
        request.uri = str(NameAddr.parse(request.pop_last("Route")).uri)
        return word

    def suit_strict_router(self, request: Request) -> None:
        """RFC 3261 16.6 step 6: to a next hop of before RFC 3261, whose Route has no `lr`, goes
        what it looks at, the Request-URI, and the one that it takes the place of goes last in the
        Route."""
        route = request.routes[:1]
        if route and "lr" not in route[0].uri.params:
            request.pop("Route")
            request.add_last("Route", f"<{request.uri}>")
            request.uri = str(route[0].uri)

    def pop_routes(self, request: Request) -> str:
        """Takes the forwarder's own Route away, or two if its Record-Routes had two addresses;
        returns the hint."""
        hint = ""
        for uri in [NameAddr.parse(value).uri for value in request.values("Route")[:2]]:
            word = uri.params.get("hint") or ""
            if word not in self.table.by_hint and not self.is_own(uri.address()):
                break
            request.pop("Route")
            hint = hint or word
        return hint

    def record_route(self, request: Request, own: Address, server: Server) -> None:
        """So that the dialog's later requests come this way, and say which server they belong to.

        Not where the topmost is this very one already. Where it is the forwarder's under its
        address towards another network, both are needed (RFC 5658).
        """
        if request.method not in DIALOG_CREATING or request.to_tag:
            return
        if _address_in(request.values("Record-Route")[:1]) == own:
            return
        request.push("Record-Route", f"<sip:{format_address(own)};lr;hint={server.hint}>")

    def add_path(self, request: Request, own: Address) -> None:
        """RFC 3327 5.2: what servers send to a phone that registers here is to come this way
        too."""
        if self.table.path and request.method == "REGISTER":
            request.push("Path", f"<sip:{format_address(own)};lr>")

    def replace_dead(self, request: Request, successor: Server) -> None:
        """Writes the successor's address over that of a server which is down, in the next Route and
        the Request-URI."""
        route = request.routes[:1]
        if route and self._is_dead(route[0].uri.address()):
            moved = names(route[0].uri, successor.address)
            request.replace_top("Route", str(NameAddr(moved, route[0].display, route[0].params)))
        if request.uri[:4].lower() in ("sip:", "sips"):
            uri = Uri.parse(request.uri)
            if self._is_dead(uri.address()):
                request.uri = str(names(uri, successor.address))

    def _is_dead(self, address: Address) -> bool:
        server = self.table.by_address.get(address)
        return server is not None and not server.accepts_dialogs

    # -- Failover-Kept -----------------------------------------------------------------------------

    @staticmethod
    def tell_age(request: Request, seconds: float) -> None:
        """Tells a server how long ago a request came that reaches it late, so that a bill ends when
        the phone hung up. The field is between the forwarder and its servers: `hide_age` takes it
        off for everybody else, and off what phones write themselves."""
        request.remove(KEPT)
        if seconds >= LATE:
            request.add(KEPT, f"{seconds:.3f}")

    @staticmethod
    def hide_age(message: Message) -> None:
        message.remove(KEPT)

    # -- the forwarder's own answers ---------------------------------------------------------------

    def own_tag(self, branch: str) -> str:
        """The To tag of the forwarder's own answers: the same for a retransmission (RFC 3261
        8.2.7)."""
        return keyed_hash(self.key, "tag", branch)

    def answer_tag(self, request: Request) -> str:
        try:
            return self.own_tag(self.branch(request))
        # of an old peer, and without the fields that stand in for a branch
        except RemoteProtocolError:
            return self.own_tag(str(request.via))


def _address_in(values: list[str]) -> Address | None:
    """The address of the first of these name-addrs; None if there is none, or it cannot be read,
    which is for those to mind who need it (RFC 3261 16.3)."""
    try:
        return NameAddr.parse(values[0]).uri.address() if values else None
    except RemoteProtocolError:
        return None
