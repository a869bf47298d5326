"""Header rewriting: the header lines that the forwarder adds, changes and removes. A forwarded
message differs from the received one in these lines and in nothing else.

    Via                added on top. Its branch is signed, which proves that the request of an
                       answer passed here (RFC 3261 16.11); its parameter `back` signs the address
                       that answers go to.
    the sender's Via   gets `received` and `rport` (RFC 3581).
    Record-Route       added on top, with the server's hint.
    Path               added to a REGISTER, if the table asks for it (RFC 3327).
    Route              removed from the top where it names the forwarder.
    Route, Request-URI get the successor's address where they name a server that is down, or was in
                       the list before.
    Failover-Kept      tells a server how long ago a request came that reaches it late.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from failover.proxy.request_validation import LOOP, loop_hash
from failover.upstream.server_table import Server, ServerTable
from plumbing.address import Address, format_address
from sip.branch import is_branch_of, keyed_hash, make_branch
from sip.errors import RemoteProtocolError
from sip.grammar import canonical_host
from sip.header import NameAddr
from sip.message import DIALOG_CREATING, Message, Request, Response
from sip.uri import DEFAULT_PORT, Uri
from sip.via import Via

BACK, BACK_DIGITS = "back", 16  # parameter of our Via
KEPT = "Failover-Kept"  # header field; seconds, as in 12.345
LATE_SECONDS = 0.1  # a shorter delay is not told
SERVER = "server"  # stands for the address of any server in what is signed


class WayBack(NamedTuple):
    """Where a response goes. `to_server`: its request came from the server that had this address
    then; the server may have left the table since."""

    address: Address
    to_server: bool


class HeaderRewriter:
    """Edits parsed messages.

    `advertised(phone)` returns the forwarder's own address as that phone knows it,
    `advertised_to_server(host)` as a server at that IP address does. `is_own(address)`: is it one
    of the forwarder's addresses, written into a message or not?
    """

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
        """The own address to write for a server at that IP address, known as own from now on."""
        return self._known(self._advertised_to_server(host))

    def _known(self, own: Address) -> Address:
        if own not in self.own:
            self.own.add(own)
            self.generation += 1
        return own

    def is_own(self, address: Address) -> bool:
        return address in self.own or self._is_own(address)

    # -- Via ---------------------------------------------------------------------------------------

    def push_via(
        self, request: Request, own: Address, branch: str, side: str, back: Address
    ) -> None:
        """Adds our Via. `back`: the address that answers to the Via beneath it go to. `rport` (RFC
        3581 3) asks the peer to answer to the port that this is sent from, should `own` name
        another one. It is the last parameter, because the peer lengthens it."""
        loop = loop_hash(request, side)
        words = f"branch={branch};{LOOP}={loop};{BACK}={self.back_word(back)};rport"
        request.push("Via", f"SIP/2.0/UDP {format_address(own)};{words}")

    def branch(self, request: Request, back: Address) -> str:
        return make_branch(self.key, request, self.signed(request.via, back))

    def back_word(self, address: Address) -> str:
        """Signs the address that a response with our Via on top goes to. It is not part of the
        branch, because the branch names the transaction only."""
        if address in self.table.by_address:
            return self._back_word(SERVER)
        host, port = address
        return self._back_word(host, str(port))

    def _back_word(self, *words: str) -> str:
        return keyed_hash(self.key, BACK, *words)[:BACK_DIGITS]

    def way_back(self, response: Response) -> WayBack | None:
        """Returns where a response goes, if its topmost Via is one that a forwarder with our secret
        made, over the Via beneath it as it is; else None. Whether that was a server's is told by
        the Via and not by the table, which may be another one by now."""
        vias = response.vias[:2]
        if len(vias) < 2:
            return None
        ours, beneath = vias
        if not self.is_ours(ours, beneath, response):
            return None
        host, port = back = response_address(beneath)
        to_server = ours.params[BACK] == self._back_word(SERVER)
        if not to_server and ours.params[BACK] != self._back_word(host, str(port)):
            return None
        return WayBack(back, to_server)

    def is_ours(self, via: Via, beneath: Via, message: Message) -> bool:
        """Has a forwarder with our secret made this Via, over the one beneath it?"""
        word = via.params.get(BACK)
        if word == self._back_word(SERVER):
            beneath = _as_server(beneath)
        return word is not None and is_branch_of(self.key, via, beneath, message)

    def signed(self, via: Via, back: Address) -> Via:
        """Returns the Via that our branch is computed from, given the Via beneath ours and the
        address that its responses go to. All servers count as one: if a server repeats what a
        server that is down had sent, it has the same branch, so phones take it for a retransmission
        and not for a second call."""
        return _as_server(via) if back in self.table.by_address else via

    # -- Route, Record-Route, Request-URI ----------------------------------------------------------

    def drop_uri_headers(self, request: Request) -> None:
        """Takes escaped headers off a Request-URI, where they may not stand (RFC 3261 19.1.1), and
        which a proxy may neither pass on nor act on (RFC 4475 3.1.2.11)."""
        if "?" in request.uri and request.uri[:4].lower() in ("sip:", "sips"):
            headers = Uri.parse(request.uri).headers
            if headers or request.uri.endswith("?"):
                request.uri = request.uri[: -1 - len(headers)]

    def restore_target(self, request: Request) -> str:
        """Undoes what a strict router did: it put our Record-Route into the Request-URI, and the
        Request-URI last into the Route (RFC 3261 16.4). Returns the hint."""
        if ";lr" not in request.uri:
            return ""
        word = Uri.parse(request.uri).params.get("hint") or ""
        if word not in self.table.by_hint or not request.routes:
            return ""
        request.uri = str(NameAddr.parse(request.pop_last("Route")).uri)
        return word

    def suit_strict_router(self, request: Request) -> None:
        """Writes a request for a strict router, whose Route has no `lr`: its address becomes the
        Request-URI, and the Request-URI becomes the last Route (RFC 3261 16.6 step 6)."""
        route = request.routes[:1]
        if route and "lr" not in route[0].uri.params:
            request.pop("Route")
            request.add_last("Route", f"<{request.uri}>")
            request.uri = str(route[0].uri)

    def pop_routes(self, request: Request) -> str:
        """Removes the forwarder's own Route, or two if its Record-Routes had two addresses. Returns
        the hint."""
        hint = ""
        for uri in [NameAddr.parse(value).uri for value in request.values("Route")[:2]]:
            word = uri.params.get("hint") or ""
            if word not in self.table.by_hint and not self.is_own(uri.address()):
                break
            request.pop("Route")
            hint = hint or word
        return hint

    def record_route(self, request: Request, own: Address, server: Server) -> None:
        """Adds our Record-Route, so that later requests of the dialog come here and name their
        server.

        Not if the topmost one is equal. If it has another address of ours, that of another network,
        both are needed (RFC 5658).
        """
        if request.method not in DIALOG_CREATING or request.to_tag:
            return
        if _address_in(request.values("Record-Route")[:1]) == own:
            return
        request.push("Record-Route", f"<sip:{format_address(own)};lr;hint={server.hint}>")

    def add_path(self, request: Request, own: Address) -> None:
        """Adds our Path to a REGISTER, so that servers send requests for this phone through here
        (RFC 3327 5.2)."""
        if self.table.path and request.method == "REGISTER":
            request.push("Path", f"<sip:{format_address(own)};lr>")

    def replace_dead(self, request: Request, successor: Server) -> None:
        """Replaces the address of a server that is down by its successor's, in the first Route and
        the Request-URI; in a dialog also that of one that has left the list. What begins something
        new names such an address only if there is somebody else by now."""
        route = request.routes[:1]
        in_dialog = bool(request.to_tag)
        if route and self._is_dead(route[0].uri.address(), in_dialog):
            moved = _with_address(route[0].uri, successor.address)
            request.replace_top("Route", str(NameAddr(moved, route[0].display, route[0].params)))
        if request.uri[:4].lower() in ("sip:", "sips"):
            uri = Uri.parse(request.uri)
            if self._is_dead(uri.address(), in_dialog):
                request.uri = str(_with_address(uri, successor.address))

    def _is_dead(self, address: Address, in_dialog: bool) -> bool:
        server = self.table.by_address.get(address)
        if server is None:
            return in_dialog and address in self.table.former
        return not server.accepts_dialogs

    # -- Failover-Kept -----------------------------------------------------------------------------

    @staticmethod
    def tell_age(request: Request, seconds: float) -> None:
        """Adds Failover-Kept, the seconds since a request came, if that is LATE_SECONDS or more. So
        a bill ends when the phone hung up. Only servers get the field: one that a phone wrote is
        removed here, and `hide_age` removes it from what goes to phones."""
        request.remove(KEPT)
        if seconds >= LATE_SECONDS:
            request.add(KEPT, f"{seconds:.3f}")

    @staticmethod
    def hide_age(message: Message) -> None:
        message.remove(KEPT)

    # -- the forwarder's own answers ---------------------------------------------------------------

    def own_tag(self, branch: str) -> str:
        """Returns the To tag of the forwarder's own answers, equal for retransmissions (RFC 3261
        8.2.7)."""
        return keyed_hash(self.key, "tag", branch)

    def answer_tag(self, request: Request) -> str:
        try:
            return self.own_tag(self.branch(request, response_address(request.via)))
        # of an old peer, and without the fields that stand in for a branch
        except RemoteProtocolError:
            return self.own_tag(str(request.via))


def response_address(via: Via) -> Address:
    """Returns the address that the answer to a request with this Via goes to (RFC 3261 18.2.2, RFC
    3581 4). `maddr` is ignored: a phone could have its answers sent to somebody else."""
    params = via.params
    host = via.received if params.get("received") else ""
    port = via.rport if params.get("rport") else None
    return canonical_host(host or via.host), port or via.port or DEFAULT_PORT


def _with_address(uri: Uri, address: Address) -> Uri:
    return uri._replace(host=address[0], port=address[1])


def _as_server(via: Via) -> Via:
    return Via(via.transport, SERVER, params={"branch": via.branch})


def _address_in(values: list[str]) -> Address | None:
    """Returns the address in the first of these name-addrs; None if there is none or it is
    malformed, which does not matter to a proxy (RFC 3261 16.3)."""
    try:
        return NameAddr.parse(values[0]).uri.address() if values else None
    except RemoteProtocolError:
        return None
