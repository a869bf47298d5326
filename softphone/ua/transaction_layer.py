"""The transaction layer of a phone (RFC 3261 17): transactions, addresses and counters beneath
calls and the registration.

It takes datagrams and the time, matches them with the transactions under way (RFC 3261 17.1.3,
17.2.3), and collects in `outcome` what is to be sent and told. Requests that begin something go to
`on_request`. No sockets, no clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from sip.branch import keyed_hash
from sip.errors import LocalProtocolError, RemoteProtocolError
from sip.message import BrokenRequest, Message, Request, Response, parse, reply
from sip.sdp import CONTENT_TYPE
from sip.transaction import (
    ClientTransaction,
    Deliver,
    Outcome,
    ServerTransaction,
    State,
    Transaction,
    Transmit,
    client_key,
    make_cancel,
    server_key,
)
from sip.uri import Uri
from sip.via import MAGIC_COOKIE, Via
from softphone.ua.account import USER_AGENT, Account, Address, Randomness
from softphone.ua.address_comparison import is_literal, same_address
from softphone.ua.client_request import Actions, ClientRequest, ResponseHandler, Send
from softphone.ua.digest_auth import DigestCredentials
from softphone.ua.events import AgentEvent, MessagePassed
from softphone.ua.user_messages import ASKED_BY_STRANGER, legible, name_of_server, summary

MAX_TRANSACTIONS = 512  # of either kind: a phone has a handful; more come only from a flood


class ServerRequest:
    """A request of theirs that began a transaction, and the way back."""

    def __init__(self, layer: TransactionLayer, request: Request, source: Address) -> None:
        self.request = request
        self.source = source
        self.transaction = ServerTransaction(request)
        self.destination = layer.reply_address(request, source)
        self._layer = layer

    def respond(self, response: Response, now: float) -> None:
        self._layer.apply(self.transaction.respond(response, now), self.destination, now)

    def answer(
        self,
        status: int,
        now: float,
        *fields: tuple[str, str],
        to_tag: str = "",
        reason: str = "",
        body: bytes = b"",
    ) -> Response:
        """Respond with these; the response. `body`: a session description."""
        fields = (*fields, ("Content-Type", CONTENT_TYPE)) if body else fields
        to_tag = to_tag or self._layer.new_token()
        response = reply(self.request, status, reason, to_tag, fields, body)
        self.respond(response, now)
        return response


class TransactionLayer:
    """One per phone. `local` is the bound address, `public` the one others see (RFC 3581), `proxy`
    where requests outside dialogs go, `open_media` as UserAgent has it, `session_expires` the
    seconds of session timers (RFC 4028) to ask for, 0: none."""

    def __init__(
        self,
        account: Account,
        local: Address,
        proxy: Address | None,
        random: Randomness,
        open_media: Callable[[str], int],
        session_expires: int,
    ) -> None:
        self.account, self.local, self.proxy, self.random = account, local, proxy, random
        self.open_media = open_media
        self.session_expires = session_expires
        self.public = local
        self.credentials = DigestCredentials(account, self.new_token)
        self.outcome = Actions()
        self.retransmissions = 0
        self.dropped: Counter[str] = Counter()
        self.on_request: Callable[[ServerRequest, float], object] = lambda incoming, now: None
        self.on_ack: Callable[[Request, float], None] = lambda request, now: None
        self.on_late_success: Callable[[Response, float], bool] = lambda response, now: False
        self.answers_from: Address | None = None  # where REGISTER was accepted, if not `server`
        self._key = f"{random.getrandbits(128):032x}".encode()
        self._clients: dict[tuple[str, str], tuple[ClientTransaction, ClientRequest]] = {}
        self._servers: dict[tuple[str, ...], ServerRequest] = {}

    def new_token(self) -> str:
        """A tag or Call-ID: 64 bits that nobody can guess (RFC 3261 19.3)."""
        return f"{self.random.getrandbits(64):016x}"

    @property
    def contact(self) -> str:
        """Without a display name: simple peers copy what follows "Contact:" into their next
        Request-URI."""
        return str(self.account.contact(self.public))

    @property
    def who_answers(self) -> list[tuple[str, str]]:
        """For our answers to INVITE: by it whoever called an address learns whom they reached (RFC
        3261 20.31)."""
        return [("Reply-To", str(self.account.name_addr))] if self.account.display_name else []

    @property
    def server(self) -> Address | None:
        """The one address from which the account is served: the proxy's, else the registrar's if it
        is a literal."""
        if self.proxy:
            return self.proxy
        try:
            host, port = self.account.uri.address()
        except RemoteProtocolError:
            return None
        return (host, port) if is_literal(host) else None

    def is_server(self, address: Address) -> bool:
        """Is it the account's own server that speaks from there, or is spoken to there?"""
        known = (self.server, self.answers_from, *self.account.servers)
        return any(each is not None and same_address(address, each) for each in known)

    def emit(self, event: AgentEvent) -> None:
        self.outcome.events.append(event)

    # -- where things go ---------------------------------------------------------------------------

    def address_of(self, uri: Uri, instead: Address | None = None) -> Address:
        """The literal address of a next hop. A name is the proxy's to resolve, or `instead` is
        where the peer was reached before; LocalProtocolError without either."""
        host, port = uri.address()
        host = uri.params.get("maddr") or host
        if not uri.is_sip:
            host = f"{uri.scheme}:{uri.user}"
        if host.lower() == "localhost":
            return "127.0.0.1", port
        if is_literal(host):
            return host, port
        if self.proxy or instead:
            return self.proxy or instead or self.local
        raise LocalProtocolError(f"{host} is a name, and there is no proxy to resolve it")

    def reply_address(self, request: Request, source: Address) -> Address:
        host, port = request.via.reply_address()
        return (host, port) if is_literal(host) else source

    # -- our requests ------------------------------------------------------------------------------

    def ask(self, exchange: ClientRequest, now: float) -> ClientRequest:
        """Send a request without Via; its responses go to the handler, challenges are answered on
        the way."""
        self._sign(exchange.request)
        self._start(exchange, now)
        return exchange

    def cancel(
        self,
        exchange: ClientRequest,
        handler: ResponseHandler,
        now: float,
    ) -> None:
        """CANCEL an INVITE that is proceeding; the INVITE's own final response says what came of it
        (9.1). Nobody may challenge it (22.1), for it could not be sent again with another
        number."""
        cancel = make_cancel(exchange.request)
        self._start(
            ClientRequest(cancel, exchange.destination, handler, lambda: 0, given_up=True), now
        )

    def send(
        self, request: Request, destination: Address, now: float, repeated: bool = False
    ) -> None:
        """An ACK to a 2xx: no transaction. It gets its Via the first time."""
        if not request.get("Via"):
            self._sign(request)
        self._transmit(request, destination, now, repeated)

    def _sign(self, request: Request) -> None:
        """Write into a request of ours, once, what its transaction and its answers go by."""
        branch = MAGIC_COOKIE + self.new_token()
        request.push("Via", str(Via("UDP", *self.local, {"branch": branch, "rport": None})))
        request.set("User-Agent", USER_AGENT)

    def repeat(self, response: Response, destination: Address, now: float) -> None:
        """A 2xx to INVITE once more, which no transaction does for us (RFC 3261 13.3.1.4)."""
        self.retransmissions += 1
        self._transmit(response, destination, now, True)

    def abandon(self, exchange: ClientRequest) -> None:
        """The request's answer is of no interest any more, and its handler not called."""
        exchange.closed = True
        self._clients.pop(client_key(exchange.request), None)

    def _start(self, exchange: ClientRequest, now: float) -> None:
        transaction = exchange.transaction = ClientTransaction(exchange.request)
        if len(self._clients) >= MAX_TRANSACTIONS:
            self.dropped["own requests beyond the bound"] += 1
            self._time_out(exchange, now)
            return
        self._clients[client_key(exchange.request)] = transaction, exchange
        self._run(transaction, exchange, transaction.start(now), now)

    def _run(
        self,
        transaction: ClientTransaction,
        exchange: ClientRequest,
        todo: list[Outcome],
        now: float,
    ) -> None:
        """Do what one of our transactions asks for. One that a repeat with credentials replaced has
        no say any more."""
        self.apply(todo, exchange.destination, now)
        if transaction is not exchange.transaction or exchange.closed:
            return
        for item in todo:
            if isinstance(item, Deliver) and isinstance(item.message, Response):
                self._hand_over(exchange, item.message, now)
            elif not isinstance(item, Transmit):
                self._time_out(exchange, now)
            elif item.repeated and exchange.on_repeat:
                exchange.on_repeat(exchange, now)

    def _time_out(self, exchange: ClientRequest, now: float) -> None:
        exchange.timed_out = True
        self._hand_over(exchange, reply(exchange.request, 408), now)

    def _hand_over(self, exchange: ClientRequest, response: Response, now: float) -> None:
        if response.status < 200:
            if response.status > 100 and response.to.tag:
                exchange.proofs.has_rung = True
            if exchange.on_provisional:
                exchange.on_provisional(exchange, response, now)
            return
        if response.status in (401, 407) and not exchange.given_up:
            again = self._prove(exchange, response)
            if again is not None:
                exchange.request = again
                self.ask(exchange, now)
                return
        exchange.handler(exchange, response, now)

    def _prove(self, exchange: ClientRequest, response: Response) -> Request | None:
        """The request once more with credentials, which only the account's own server gets."""
        # The branch of a REGISTER is known to the registrar, and to proxies before it, alone.
        is_register = exchange.request.method == "REGISTER"
        by_server = is_register or self.is_server(exchange.came_from)
        if self.is_server(exchange.destination) and by_server:
            return self.credentials.answer(
                exchange.request, response, exchange.proofs, exchange.next_seq
            )
        if self.account.password:
            host, port = exchange.came_from
            sentence = ASKED_BY_STRANGER.format(host=host, port=port, name=self.account.username)
            exchange.proofs.why_not = legible(sentence)
        self.dropped["a challenge by a stranger"] += 1
        return None

    # -- datagrams ---------------------------------------------------------------------------------

    def receive(self, data: bytes, source: Address, now: float) -> None:
        """A datagram came. Strangers' nonsense is counted, never raised."""
        if not data.strip(b"\r\n\0 "):
            return  # keep-alive (RFC 5626 4.4.1 and what phones made of it)
        message: Message | None = None
        try:
            message = parse(data)
            message.check()
            if isinstance(message, Response):
                self._receive_response(message, data, source, now)
                return
        except BrokenRequest as error:
            self._count(error)
            self._refuse_unread(error.request, error.status, source, now)
            return
        except (RemoteProtocolError, LocalProtocolError) as error:
            self._count(error)
            if isinstance(message, Request) and isinstance(error, RemoteProtocolError):
                self._refuse_unread(message, error.status, source, now)
            return
        try:
            self._receive_request(message, data, source, now)
        except (RemoteProtocolError, LocalProtocolError) as error:
            self._count(error)

    def _count(self, error: Exception) -> None:
        self.dropped[str(error)[:40] if len(self.dropped) < 100 else "others"] += 1

    def _refuse_unread(self, request: Request, status: int, source: Address, now: float) -> None:
        """400, 505 and the like to a request that cannot be read (RFC 3261 21.4.1), as far as its
        Via tells the way back. Nothing is remembered, so the tag is made from the request
        (8.2.7)."""
        try:
            if request.method == "ACK":
                return
            request.complete_via(*source)
            to = self.reply_address(request, source)
            tag = keyed_hash(
                self._key, *request.all("Via"), *request.all("Call-ID"), *request.all("CSeq")
            )[:16]
            refusal = reply(request, status, to_tag=tag)
            self.outcome.sends.append(Send(refusal.to_bytes(), to))
        except (RemoteProtocolError, LocalProtocolError):
            return

    def _receive_response(
        self, response: Response, data: bytes, source: Address, now: float
    ) -> None:
        if len(response.values("Via")) != 1:
            # RFC 3261 8.1.3.3
            raise RemoteProtocolError("a response with somebody else's Via beneath")
        known = self._clients.get(client_key(response))
        is_success = response.cseq.method == "INVITE" and 200 <= response.status < 300
        if is_success and (known is None or known[0].state is State.COMPLETED):
            # RFC 3261 16.7 step 5: it may follow another final response, or come much later.
            if not self.on_late_success(response, now):
                raise RemoteProtocolError("a 2xx to nothing we asked")
            self._passed(False, response, data, source, now)
            return
        if known is None:
            raise RemoteProtocolError("a response to nothing we asked")
        transaction, exchange = known
        exchange.came_from = source
        self._passed(False, response, data, source, now)
        self._run(transaction, exchange, transaction.receive(response, now), now)

    def _receive_request(self, request: Request, data: bytes, source: Address, now: float) -> None:
        request.complete_via(*source)
        key = server_key(request)
        known = self._servers.get(key)
        repeated = known is not None and request.method != "ACK"
        self._passed(False, request, data, source, now, repeated)
        if known is not None and (
            request.method == "ACK" or request.method == known.request.method
        ):
            self.apply(known.transaction.receive(request, now), known.destination, now)
            if request.method != "ACK":
                return
        if request.method == "ACK":
            # The ACK to a 2xx is a transaction of its own (13.2.2.4), found by its dialog.
            if known is None or known.transaction.state is State.ACCEPTED:
                self.on_ack(request, now)
        elif len(self._servers) >= MAX_TRANSACTIONS and not self._make_room():
            self.dropped["requests beyond the bound"] += 1
        else:
            incoming = ServerRequest(self, request, source)
            self._servers[key] = incoming
            self._take_up(incoming, now)

    def _make_room(self) -> bool:
        """Forget the oldest request that has had its final answer: strangers' requests must not
        make the phone deaf. Its repeats are taken for new ones. A 2xx to an INVITE stays, for
        its call repeats that by itself."""
        for key, incoming in self._servers.items():
            if incoming.transaction.answered and incoming.transaction.state is not State.ACCEPTED:
                del self._servers[key]
                self.dropped["answers forgotten to make room"] += 1
                return True
        return False

    def _take_up(self, incoming: ServerRequest, now: float) -> None:
        try:
            self.on_request(incoming, now)
        except RemoteProtocolError as error:
            if incoming.transaction.answered:
                raise
            # RFC 3261 21.4.13: 415 says what would have been understood.
            fields = [("Accept", CONTENT_TYPE)] if error.status == 415 else []
            incoming.answer(error.status, now, *fields)

    def cancelled(self, cancel: Request) -> ServerRequest | None:
        """The INVITE that a CANCEL is about (RFC 3261 9.2)."""
        return self._servers.get((*server_key(cancel)[:-1], "INVITE"))

    def merged(self, request: Request) -> bool:
        """Is another transaction of the same request under way, which came by another path
        (8.2.2.2)?"""
        mine = (request.from_.tag, request.call_id, str(request.cseq))
        others = (i.request for i in self._servers.values() if i.request is not request)
        return any((o.from_.tag, o.call_id, str(o.cseq)) == mine for o in others)

    # -- time --------------------------------------------------------------------------------------

    @property
    def deadline(self) -> float | None:
        return min(
            (due for tx in self._transactions() if (due := tx.deadline) is not None), default=None
        )

    def on_deadline(self, now: float) -> None:
        for transaction, exchange in list(self._clients.values()):
            self._run(transaction, exchange, self._fire(transaction, now), now)
        for incoming in list(self._servers.values()):
            self.apply(self._fire(incoming.transaction, now), incoming.destination, now)
        self._forget_terminated()

    def on_unreachable(self, destination: Address, now: float) -> None:
        """The system says that nobody listens there, or that no way leads there: what begins
        something need not wait longer for an answer. What belongs to a call counts as lost on the
        way and is repeated, for the network may be back in a moment."""
        for transaction, exchange in list(self._clients.values()):
            request = exchange.request
            within_call = request.to.tag or request.method == "CANCEL"
            if exchange.destination == destination and not within_call:
                self._run(transaction, exchange, transaction.on_unreachable(now), now)
        self._forget_terminated()

    def _fire(self, transaction: Transaction, now: float) -> list[Outcome]:
        todo = transaction.on_deadline(now)
        self.retransmissions += sum(isinstance(each, Transmit) and each.repeated for each in todo)
        return todo

    def _transactions(self) -> list[Transaction]:
        return [
            *(tx for tx, _ in self._clients.values()),
            *(i.transaction for i in self._servers.values()),
        ]

    def _forget_terminated(self) -> None:
        self._clients = {
            k: c for k, c in self._clients.items() if c[0].state is not State.TERMINATED
        }
        self._servers = {
            k: i for k, i in self._servers.items() if i.transaction.state is not State.TERMINATED
        }

    # -- doing what transactions ask for -----------------------------------------------------------

    def apply(self, todo: list[Outcome], destination: Address, now: float) -> None:
        for item in todo:
            if isinstance(item, Transmit):
                self._transmit(item.message, destination, now, item.repeated)

    def _transmit(self, message: Message, to: Address, now: float, repeated: bool) -> None:
        data = message.to_bytes()
        self.outcome.sends.append(Send(data, to))
        self._passed(True, message, data, to, now, repeated)

    def _passed(
        self,
        sent: bool,
        message: Message,
        data: bytes,
        peer: Address,
        now: float,
        repeated: bool = False,
    ) -> None:
        answers = isinstance(message, Response) and not sent
        server = name_of_server(message.get("Server") or "") if answers else ""
        about = summary(message), message.call_id, repeated
        self.emit(MessagePassed(now, sent, *about, data, self.local, peer, server))
