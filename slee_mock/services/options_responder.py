"""The service that tells the forwarder whether this server can work: OPTIONS to nobody in
particular. Pure.

The forwarder's heartbeats tell in turn, in Failover-Role, whether new calls come here. Those of a
standby say nothing of it, and change nothing.
"""

from __future__ import annotations

from sip.message import Request
from sip.uri import Uri
from slee_mock.container.events import Answers, Event, Outcome, RequestEvent
from slee_mock.container.sbb import On, the_call
from slee_mock.store.interface import Transaction


def is_heartbeat(request: Request) -> bool:
    """Within a dialog it is the other phone's, whose contact may have no user."""
    return request.method == "OPTIONS" and not Uri.parse(request.uri).user and not request.to_tag


ROLES = frozenset({"hot", "live", "replica"})


class Heartbeat:
    """`healthy` is this server's own opinion: false while the store does not answer. 503 then asks
    for no new calls, as it does once the server is `leaving`. `role`: what a forwarder on one of
    the computers `forwarders` said last, and from `role_since` on (wall seconds)."""

    name = "heartbeat"
    takes = (On(RequestEvent, name=the_call, when=lambda event: is_heartbeat(event.request)),)

    def __init__(self, answers: Answers, *forwarders: str) -> None:
        self._answers, self._forwarders = answers, frozenset(forwarders)
        self.role, self.role_since = "", 0.0
        self.healthy = True
        self.leaving = False

    def handle(self, event: Event, entity: str, transaction: Transaction) -> Outcome:
        assert isinstance(event, RequestEvent)
        role = event.request.get("Failover-Role")
        if role in ROLES and role != self.role and event.source[0] in self._forwarders:
            self.role, self.role_since = role, event.wall
        # The forwarder's heartbeats come from a socket of their own, and the answer goes back
        # there.
        send = self._answers.answer(
            event, 200 if self.healthy and not self.leaving else 503, to=event.source
        )
        return Outcome(sends=(send,), done=True)
