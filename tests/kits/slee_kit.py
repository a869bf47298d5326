"""Servers of one cluster joined in memory: real nodes, one dict as the store, one clock that tests
set."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from sip.message import Request, Response, parse
from slee_mock.cluster.cluster_key import KeyedStore
from slee_mock.container.deployment import Context
from slee_mock.container.events import Address, Outcome
from slee_mock.node import Node
from slee_mock.receive_queue import Datagram
from slee_mock.services.bill_record import Bill, BillTotal, ServedBy, total_at
from slee_mock.services.bindings_record import Bindings
from slee_mock.store.interface import (
    ConditionalWrite,
    Conflict,
    Marked,
    Row,
    StoreDown,
    Transaction,
)
from slee_mock.store.records import Member, R

KEY = b"the cluster's key"
WALL = 1_800_000_000.0  # a time of day
FORWARDER = ("127.0.0.1", 5060)
ADDRESSES = {"server1": "127.0.0.1:5070", "server2": "127.0.0.1:5080"}


class DictStore:
    """The store contract in a dict. `down` makes it fail; `before_save` runs once, in the place of
    another process."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], Row] = {}
        self.timers: dict[tuple[str, str], float] = {}
        self._marks: dict[tuple[str, str], int] = {}
        self._created = itertools.count(1)
        self.down = False
        self.before_save: Any = None

    def get(self, kind: str, key: str) -> Row | None:
        self._check()
        return self.rows.get((kind, key))

    def save(self, changes: Sequence[ConditionalWrite]) -> None:
        self._check()
        intruder, self.before_save = self.before_save, None
        if intruder:
            intruder()
        for change in changes:
            row = self.rows.get((change.kind, change.key))
            if change.check_only and row != Row(change.text, change.version):
                raise Conflict(change.key)
            if (row.version if row else 0) != change.version or (
                row is None and change.text is None
            ):
                raise Conflict(change.key)
        for change in changes:
            place = change.kind, change.key
            if change.check_only:
                continue
            self.timers.pop(place, None)
            if change.text is None:
                del self.rows[place]
            else:
                if place not in self.rows:
                    self._marks[place] = next(self._created)
                self.rows[place] = Row(change.text, change.version + 1)
            if change.due is not None:
                self.timers[place] = change.due

    def walk(self, kind: str, limit: int | None = None, before: int | None = None) -> list[Marked]:
        return [each for each in self._all(kind) if before is None or each.mark < before][:limit]

    def mark(self, kind: str, newer: int) -> int | None:
        found = self._all(kind)
        return found[newer].mark if len(found) > newer else None

    def _all(self, kind: str) -> list[Marked]:
        self._check()
        rows = [(place, row) for place, row in self.rows.items() if place[0] == kind]
        return [Marked(self._marks[place], place[1], row) for place, row in reversed(rows)]

    def count(self, kind: str) -> int:
        self._check()
        return sum(each == kind for each, _ in self.rows)

    def due(self, wall: float, limit: int) -> list[tuple[str, str]]:
        self._check()
        ripe = sorted((due, place) for place, due in self.timers.items() if due <= wall)
        return [place for _, place in ripe[:limit]]

    def close(self) -> None:
        pass

    def _check(self) -> None:
        if self.down:
            raise StoreDown("the store is down")


class Cluster:
    """`receive` hands a message to one server and returns what it sends, parsed; `tick` does what
    each server does every half second. `context` says otherwise what every server is told, as
    deploy=("prepaid:balances.txt",)."""

    def __init__(
        self, users: dict[str, str] | None = None, store: Any = None, **context: Any
    ) -> None:
        self.store = store or DictStore()
        self.now = WALL
        self.outcome: Any = None
        self.fired: list[Outcome] = []  # by the last tick
        self.failures: list[Any] = []  # services' exceptions, and sentences for the operator
        self._context: dict[str, Any] = {
            "tariff": "0.10+0.05/10s",
            "currency": "EUR",
            "users": users,
            "realm": "failover.test",
            **context,
        }
        self.nodes: dict[str, Node] = {}
        for name in ADDRESSES:
            self.restart(name)

    def restart(self, name: str) -> Node:
        """A new process, which knows nothing but the store."""
        made = Context(server=name, address=ADDRESSES[name], key=KEY, **self._context)
        member = Member(name, ADDRESSES[name], started=self.now)
        store = KeyedStore(self.store, "in memory")
        self.nodes[name] = Node(made, member, store, FORWARDER, (), self)
        return self.nodes[name]

    # What a node tells.

    def warn(self, sentence: str) -> None:
        self.failures.append(sentence)

    lost = warn

    def failed(self, what: str, error: BaseException) -> None:
        self.failures.append(error)

    def handled(self, message: Request | Response, note: str) -> None:
        pass

    def store_found(self) -> None:
        pass

    def receive(
        self, message: Request | Response | bytes, at: str = "server1", source: Address = FORWARDER
    ) -> list[Any]:
        outcomes = self.turn([message], at, source)
        self.outcome = outcomes[0] if outcomes else None  # None: it is no SIP message
        return [parse(send.data) for outcome in outcomes for send in outcome.sends]

    def receive_all(self, messages: Sequence[Request | Response], at: str = "server1") -> list[Any]:
        """What one server that was busy finds in its socket, and what it sends."""
        outcomes = self.turn(messages, at)
        return [parse(send.data) for outcome in outcomes for send in outcome.sends]

    def turn(
        self,
        messages: Sequence[Request | Response | bytes],
        at: str = "server1",
        source: Address = FORWARDER,
    ) -> list[Outcome]:
        datagrams = [
            Datagram(each if isinstance(each, bytes) else each.to_bytes(), source, self.now)
            for each in messages
        ]
        turn = self.nodes[at].receive(datagrams, self.now)
        return [outcome for outcomes in turn for outcome in outcomes]

    def tick(self, at: str = "server1") -> list[Any]:
        """A server's sign of life, what it deferred while the store was down, and its timers; what
        is sent on account of the timers."""
        node, self.fired = self.nodes[at], []
        node.sign_of_life(self.now)
        while node.deadline <= self.now:
            self.fired += node.on_deadline(self.now)
        return [parse(send.data) for outcome in self.fired for send in outcome.sends]

    def one(
        self, message: Request | Response | bytes, at: str = "server1", source: Address = FORWARDER
    ) -> Any:
        sent = self.receive(message, at, source)
        assert len(sent) == 1, (sent, self.outcome)
        return sent[0]

    def get(self, kind: type[R], key: str) -> R | None:
        return Transaction(self.store).read(kind, key)

    def bill(self, call_id: str = "c1") -> BillTotal:
        bill = self.get(Bill, call_id)
        assert bill is not None
        return total_at(bill, self.now)

    def sign(self, *names: str) -> None:
        """A sign of life of each named server, now."""
        for name in names:
            self.nodes[name].sign(self.now)

    def bindings(self, aor: str) -> list[str]:
        found = self.get(Bindings, aor)
        return [each.contact for each in found.live(self.now)] if found else []


def cluster_with_bob(expires: str = "300", **context: Any) -> Cluster:
    """Two servers that know of each other, and Bob's phone registered for so many seconds."""
    made = Cluster(**context)
    made.sign("server1", "server2")
    made.one(register(expires=expires))
    return made


def make_bill(call_id: str = "c1", offered: float = WALL, **facts: Any) -> Bill:
    """The bill of a call that Alice ended after 12 s of talk, of which server2 carried the last
    seven; but for these facts."""
    usual: dict[str, Any] = {
        "caller": "alice",
        "caller_uri": "sip:alice@x",
        "callee": "bob",
        "callee_uri": "sip:bob@x",
        "tariff": "0.10+0.05/10s",
        "currency": "EUR",
        "answered": offered + 1,
        "ended": offered + 13,
        "why": "alice hung up",
        "carriers": (ServedBy("server1", offered), ServedBy("server2", offered + 6)),
    }
    return Bill(call_id, offered=offered, **{**usual, **facts})


def phone_request(
    method: str,
    uri: str,
    user: str = "alice",
    *,
    to: str = "",
    to_tag: str = "",
    tag: str = "a1",
    call_id: str = "c1",
    cseq: int = 1,
    branch: str = "",
    contact: str = "",
    fields: Sequence[tuple[str, str]] = (),
    hops: int = 69,
) -> Request:
    """A request as it leaves the forwarder: its Via above the phone's. The same arguments are a
    retransmission."""
    branch = (
        branch
        or f"z9hG4bK-{user}-{cseq}-{'INVITE' if method in ('ACK', 'CANCEL') else method}-{call_id}"
    )
    to = to or f"<{uri if method != 'REGISTER' else f'sip:{user}@failover.test'}>"
    lines = [
        ("Via", f"SIP/2.0/UDP 127.0.0.1:5060;branch=z9hG4bK{branch[7:]}fw"),
        ("Via", f"SIP/2.0/UDP 127.0.0.1:4000;branch={branch};rport=4000;received=127.0.0.1"),
        ("Max-Forwards", str(hops)),
        ("From", f"<sip:{user}@failover.test>;tag={tag}"),
        ("To", f"{to};tag={to_tag}" if to_tag else to),
        ("Call-ID", call_id),
        ("CSeq", f"{cseq} {method}"),
    ]
    if contact:
        lines.append(("Contact", contact))
    return Request(method, uri, [*lines, *fields])


def register(
    user: str = "bob",
    contact: str = "<sip:bob@127.0.0.1:4100>",
    cseq: int = 1,
    call_id: str = "r-bob",
    expires: str = "300",
    fields: Sequence[tuple[str, str]] = (),
) -> Request:
    expiry = [("Expires", expires)] if expires else []
    return phone_request(
        "REGISTER",
        "sip:failover.test",
        user,
        call_id=call_id,
        cseq=cseq,
        contact=contact,
        fields=[*expiry, *fields],
    )


def invite(cseq: int = 1, **more: Any) -> Request:
    more.setdefault("contact", "<sip:alice@127.0.0.1:4000>")
    return phone_request("INVITE", more.pop("uri", "sip:bob@failover.test"), cseq=cseq, **more)


def in_dialog(method: str, by: str = "alice", cseq: int = 2, **more: Any) -> Request:
    """A request of the dialog that `invite` and an answer with tag b1 made."""
    if by == "alice":
        return phone_request(
            method,
            "sip:bob@127.0.0.1:4100",
            "alice",
            to="<sip:bob@failover.test>",
            to_tag="b1",
            cseq=cseq,
            **more,
        )
    return phone_request(
        method,
        "sip:alice@127.0.0.1:4000",
        "bob",
        to="<sip:alice@failover.test>",
        to_tag="a1",
        tag="b1",
        cseq=cseq,
        **more,
    )


def kept(request: Request, seconds: object) -> Request:
    """The request as the forwarder passes it on that kept it so long, since no server lived."""
    late = request.copy()
    late.add(
        "Failover-Kept",
        f"{seconds:.3f}" if isinstance(seconds, float | int) else str(seconds),
    )
    return late


def answer(
    request: Request, status: int, contact: str = "<sip:bob@127.0.0.1:4100>", tag: str = "b1"
) -> Response:
    """The other phone's answer to what a server forwarded to it."""
    to = request.get("To") or ""
    lines = [("Via", value) for value in request.all("Via")]
    lines += [
        ("From", request.get("From") or ""),
        ("To", to if ";tag=" in to else f"{to};tag={tag}"),
    ]
    lines += [(name, request.get(name) or "") for name in ("Call-ID", "CSeq")]
    if contact and status < 300:
        lines.append(("Contact", contact))
    return Response(status, "", lines)
