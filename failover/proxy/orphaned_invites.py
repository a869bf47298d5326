"""Cancels the INVITEs that a dead B2BUA had ringing, once it is known that no other server goes on
with them.

A B2BUA (Asterisk, say) answers the caller's INVITE itself and sends the called phone one of its
own. When it dies, the caller's INVITE goes to the survivor, which calls the phone anew; the dead
one's INVITE rings on beside that. A phone with one line tells the new call that it is busy, and a
user who picks up the old one hears nobody.

 1. An INVITE that began at a server (beneath the forwarder's Via is the server's, and no other) is
    remembered as it was sent to the phone, until its final answer. A proxy's is not: the survivor
    has the same branch for it.
 2. When its server goes down, it is an orphan, and as yet nothing happens: servers that share
    their calls go on with it. One that sends it again, with its branch, takes it over.
 3. It is ended when a server refuses the caller's replayed INVITE, or sends the phone a new INVITE
    from the same caller. By that the survivor shows that it knows nothing of the first.
 4. To end it is RFC 3261 9.1: CANCEL with the branch that the phone knows, not before it has
    answered provisionally, repeated like any request over UDP (17.1.2.2). The forwarder
    acknowledges the final answer (17.1.1.3); to a 2xx that crosses the CANCEL it says ACK and BYE
    (15). None of these answers goes on to a server.

All of it is bounded. A standby that takes over knows nothing of it. A call's key is our branch of
its INVITE, which the answers have too; in what the forwarder itself tells the phone about a call
(ACK, BYE) that branch has a suffix.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

from failover.config.settings import PHONES
from failover.proxy.events import NOTHING, Outcome, Passed, Send, joined
from failover.proxy.pending_messages import RINGING_SECONDS
from failover.upstream.server_table import Server
from plumbing.address import Address
from sip.errors import RemoteProtocolError
from sip.header import NameAddr
from sip.message import Request, Response, parse
from sip.timing import PATIENCE, T1, T2
from sip.uri import Uri
from sip.via import Via

MAX_CALLS = 2_048  # ringing, and as many orphans
MAX_OCTETS = 8 << 20  # of ringing calls
ACK_SUFFIX, BYE_SUFFIX = ".ack", ".bye"  # of the branches of what ends a call that was answered
# The user in From. No full parse, because many calls may ring when a server dies.
_CALLER = re.compile(rb"(?im)^(?:From|f)[ \t]*:[^\r\n]*?sips?:([^@;>\s]*)@")


class Call:
    """An INVITE that a server began and sent to a phone. `data`: as it was sent; `rings`: the phone
    has answered provisionally; `ended_at`: when the forwarder began to end it, if it did; `over`:
    its final answer has come."""

    def __init__(self, server: Server, data: bytes, target: Address, since: float) -> None:
        self.server, self.data, self.target, self.since = server, data, target, since
        self.rings = self.over = False
        self.caller = b""  # the user in its From; read once it is an orphan
        self.ended_at: float | None = None
        self.cancel_due, self._interval = 0.0, T1

    @property
    def invite(self) -> Request:
        invite = parse(self.data, in_passing=True)
        assert isinstance(invite, Request)
        return invite

    def request(
        self, now: float, method: str, number: int, to: str, uri: str = "", suffix: str = ""
    ) -> Outcome:
        """A request to the phone about this INVITE. `suffix`: of its branch, where it is a
        transaction of its own."""
        invite = self.invite
        via = invite.via
        via = Via(via.transport, via.host, via.port, {**via.params, "branch": via.branch + suffix})
        fields = [
            ("Via", str(via)),
            *(("Route", value) for value in invite.all("Route")),
            ("Max-Forwards", "70"),
            ("From", invite.get("From") or ""),
            ("To", to),
            ("Call-ID", invite.call_id),
            ("CSeq", f"{number} {method}"),
            ("Content-Length", "0"),
        ]
        data = Request(method, uri or invite.uri, fields).to_bytes()
        server, why = self.server, f"{self.server.name} had it ringing when it went"
        event = Passed(
            now,
            server.name,
            PHONES,
            server.address,
            self.target,
            method,
            None,
            invite.call_id,
            False,
            why,
            data=data,
        )
        return Outcome((Send(PHONES, data, self.target),), (event,))

    def cancel(self, now: float) -> Outcome:
        self.cancel_due, self._interval = now + self._interval, min(2 * self._interval, T2)
        invite = self.invite
        return self.request(now, "CANCEL", invite.cseq.number, invite.get("To") or "")

    @property
    def is_to_be_cancelled(self) -> bool:
        return self.ended_at is not None and self.rings and not self.over

    def is_too_old(self, now: float) -> bool:
        if self.ended_at is not None:
            return now - self.ended_at > PATIENCE
        return now - self.since > RINGING_SECONDS


class OrphanedCalls:
    """`watchful`: there are orphans, so answers and INVITEs must be shown to this object. Counts in
    `counters`: `orphans.ended`."""

    def __init__(self, counters: Counter[str]) -> None:
        self._counters = counters
        self._ringing: dict[bytes, Call] = {}  # by our branch, oldest first
        self._orphans: dict[bytes, Call] = {}  # likewise
        self._octets = 0  # of the ringing ones
        self.watchful = False

    def clear(self) -> None:
        self._ringing.clear()
        self._orphans.clear()
        self._octets, self.watchful = 0, False

    # -- what rings --------------------------------------------------------------------------------

    def invite_sent(self, branch: bytes, server: Server, send: Send, now: float) -> None:
        """A server began this INVITE, or repeats it. With the branch of a lost server's call it
        takes that over."""
        if self._orphans.pop(branch, None):
            self.watchful = bool(self._orphans)
        assert send.target is not None
        call = self._ringing.get(branch)
        if call:
            call.server = server
            return
        self._ringing[branch] = Call(server, send.data, send.target, now)
        self._octets += len(send.data)
        while len(self._ringing) > MAX_CALLS or self._octets > MAX_OCTETS:
            self._remove(next(iter(self._ringing)))

    def invite_answered(self, branch: bytes, final: bool) -> None:
        """The phone has answered the INVITE of a server that is up."""
        call = self._ringing.get(branch)
        if call:
            call.rings = True
            if final:
                self._remove(branch)

    def server_lost(self, server: Server) -> None:
        """The calls that it had ringing are orphans now."""
        gone = [branch for branch, call in self._ringing.items() if call.server is server]
        for branch in gone:
            call = self._orphans[branch] = self._remove(branch)
            found = _CALLER.search(call.data)
            call.caller = found[1] if found else b""
        while len(self._orphans) > MAX_CALLS:
            del self._orphans[next(iter(self._orphans))]
        self.watchful = bool(self._orphans)

    def _remove(self, branch: bytes) -> Call:
        call = self._ringing.pop(branch)
        self._octets -= len(call.data)
        return call

    # -- what is to end ---------------------------------------------------------------------------

    def caller_refused(self, invite: bytes, now: float) -> Outcome:
        """A server has refused this INVITE of a caller, which rang before its server died."""
        if not self.watchful:
            return NOTHING
        try:
            wanted = parse(invite, in_passing=True)
        except RemoteProtocolError:
            return NOTHING
        caller, called = _user(wanted.get("From")), _user(wanted.get("To"))
        return self._end(caller, lambda call: called in _called(call.invite), now)

    def called_anew(self, invite: Request, target: Address, now: float) -> Outcome:
        """A server sends a phone this INVITE, which began there."""
        if not self.watchful:
            return NOTHING
        _, called = _called(invite)

        def is_same(call: Call) -> bool:
            known = call.invite
            return (
                call.target == target
                and known.call_id != invite.call_id
                and _called(known)[1] == called
            )

        return self._end(_user(invite.get("From")), is_same, now)

    def _end(self, caller: str, condition: Callable[[Call], bool], now: float) -> Outcome:
        """Ends the caller's orphans that fulfil the condition. One that cannot be parsed is
        skipped."""
        octets = caller.encode("utf-8", "surrogateescape")
        outcomes: list[Outcome] = []
        for call in self._orphans.values():
            if not octets or call.caller != octets or call.ended_at is not None:
                continue
            try:
                if not condition(call):
                    continue
                cancel = call.cancel(now) if call.rings else NOTHING
            except RemoteProtocolError:
                continue
            call.ended_at = now
            self._counters["orphans.ended"] += 1
            outcomes.append(cancel)
        return joined(outcomes)

    # -- what phones answer -----------------------------------------------------------------------

    def answered(self, response: Response, now: float) -> Outcome | None:
        """A phone's answer. If it is to an orphan that is being ended, or to its CANCEL or BYE,
        returns what to send, and the answer goes no further. None: it is another one. Phones
        without magic cookie may use an INVITE's branch for other methods, too."""
        branch, method = response.via.branch, response.cseq.method
        key = _key(branch)
        call = self._orphans.get(key)
        if not call or (method not in ("INVITE", "CANCEL") and not branch.endswith(BYE_SUFFIX)):
            return None
        invited = method == "INVITE"
        if call.ended_at is None:
            call.rings = True
            if invited and response.status >= 200:
                del self._orphans[key]
                self.watchful = bool(self._orphans)
            return None
        if not invited:
            return NOTHING
        if response.status < 200:
            begins, call.rings = not call.rings, True
            return call.cancel(now) if begins else NOTHING
        call.over = True
        return self._acknowledge(call, response, now)

    def undelivered(self, branch: str) -> None:
        """The phone cannot be reached, so it is not told again that this call is to end."""
        call = self._orphans.get(_key(branch))
        if call and call.ended_at is not None:
            call.over = True

    @staticmethod
    def _acknowledge(call: Call, response: Response, now: float) -> Outcome:
        to, number = response.get("To") or "", response.cseq.number
        if response.status >= 300:
            return call.request(now, "ACK", number, to)
        try:
            contact = response.contacts[:1]
        except RemoteProtocolError:  # no SIP URI, say
            contact = []
        uri = str(contact[0].uri) if contact else call.invite.uri
        acknowledged = call.request(now, "ACK", number, to, uri, ACK_SUFFIX)
        return joined((acknowledged, call.request(now, "BYE", number + 1, to, uri, BYE_SUFFIX)))

    # -- time --------------------------------------------------------------------------------------

    def on_timer(self, now: float) -> Outcome:
        """Forgets what is too old; returns the CANCELs that are to be repeated."""
        while self._ringing:
            branch = next(iter(self._ringing))
            if not self._ringing[branch].is_too_old(now):
                break
            self._remove(branch)
        if not self.watchful:
            return NOTHING
        repeated = []
        for branch, call in list(self._orphans.items()):
            if call.is_too_old(now):
                del self._orphans[branch]
            elif call.is_to_be_cancelled and now >= call.cancel_due:
                repeated.append(call.cancel(now))
        self.watchful = bool(self._orphans)
        return joined(repeated)


def _key(branch: str) -> bytes:
    """A call's key, from the branch of its INVITE or of a request about it (with a suffix)."""
    return branch.partition(".")[0].encode("utf-8", "surrogateescape")


def _user(value: str | None) -> str:
    """The user of the URI in a From or To; "" if there is none."""
    try:
        return NameAddr.parse(value or "").uri.user
    except RemoteProtocolError:
        return ""


def _called(invite: Request) -> tuple[str, str]:
    """The users in its To and in its Request-URI."""
    try:
        return _user(invite.get("To")), Uri.parse(invite.uri).user
    except RemoteProtocolError:
        return _user(invite.get("To")), ""
