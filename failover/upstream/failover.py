"""The servers as the core knows them: which one gets a message, which messages each was sent and
has handled, and which takes over when one goes down.

 1. The shell tells what it learns: a check's result or a refusal (`signal`), the operator's wish, a
    server that shuts down, another server table, the time (`on_timer`). Each returns an Outcome.
 2. The core tells what it passes on (`request_sent`, `response_sent`) and what comes from servers
    (`request_passed_on`, `response_received`). So the pending messages are at any time what each
    server still owes.
 3. When a server goes down, its pending messages are moved: `handle`, which is the core's own
    handling of a received datagram, takes each once more, and finds another server for it. No more
    than REPLAYED_AT_ONCE at a time, so that others have their turn; the shell calls `replay` until
    `pending.moved` is empty.
 4. Where no server is left, handling a moved message puts it into the outage queue, and the first
    server that accepts messages gets what is in there.
 5. Where one server is left, it is given up only after LAST_SERVER_FACTOR times as many misses.
 6. Each failover that somebody could have felt is recorded, with the first answer after it.

Trap: outcomes are carried out after all of this has run. Between a server's change of state and the
Send of what it owed nothing may be sent to it, so the state changes first.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from failover.config.settings import CALL_ID
from failover.proxy.events import (
    NOTHING,
    Event,
    FailoverRecord,
    Outcome,
    Passed,
    Released,
    Resumed,
    StateChanged,
    joined,
)
from failover.proxy.orphaned_invites import OrphanedCalls
from failover.proxy.outage_queue import OutageQueue
from failover.proxy.pending_messages import (
    NO_STATUS,
    REQUEST_SECONDS,
    OneWayKey,
    PendingDatagram,
    PendingMessages,
    RequestKey,
)
from failover.upstream.health import ANSWER, MISS, Signal
from failover.upstream.passive_checks import PassiveCheck
from failover.upstream.server_table import AdminState, Server, ServerTable

REMEMBERED_FAILOVERS = 100
# A busy last server is better than none, and nobody else would answer sooner.
LAST_SERVER_FACTOR = 5
REPLAYED_AT_ONCE = 16  # a millisecond or two of work
Handle = Callable[[PendingDatagram, float], Outcome]


class Failover:
    """`table`, `counters`, `records`, `pending`, `outage_queue` and `orphans` are for reading."""

    def __init__(self, table: ServerTable, fall: int, rise: int, handle: Handle) -> None:
        self.table = table
        self.fall, self.rise = fall, rise
        self._handle = handle
        self.counters: Counter[str] = Counter()  # of everything, by what it was
        self.pending = PendingMessages(self.counters)
        self.outage_queue = OutageQueue(self.counters)
        self.orphans = OrphanedCalls(self.counters)
        self.passive = PassiveCheck(self)
        # None: on standby, so what servers do costs nobody anything.
        self.active_since: float | None = float("-inf")
        self.records: deque[FailoverRecord] = deque(maxlen=REMEMBERED_FAILOVERS)
        # Defects met while moved messages were handled; the shell takes and logs them.
        self.replay_errors: list[Exception] = []

    # -- what the shell tells ----------------------------------------------------------------------

    def signal(
        self, name: str, signal: Signal, now: float, why: str, answered_503: bool | None = None
    ) -> Outcome:
        """The result of a check, or a refusal. `answered_503`: None where there was no answer."""
        server = self.table.by_name.get(name)
        if not server:
            return NOTHING
        hot, health, said_503 = self.table.hot, server.health, server.answers_503
        fall = self.fall * LAST_SERVER_FACTOR if self.table.is_last(server) else self.fall
        server.set_health(health.after(signal, now, why, fall, self.rise, alone=hot is None))
        if signal is ANSWER:
            server.ever_answered, server.last_heard_at = True, now
        elif signal is MISS:
            server.missed_checks += 1
        if answered_503 is not None:
            server.answers_503 = answered_503
        if server.health.state is health.state:
            if server.answers_503 == said_503:
                return NOTHING
            server.health = replace(server.health, why=why)  # the earlier `why` names a status
        outcome = self._state_changed(server, now)
        if health.alive and not server.up:
            server.ejected = ""
            outcome = joined((outcome, *self._panic(now)))
            return self._move(server, now, server is hot, outcome, server.health.why)
        return self._released(outcome, now)

    def set_admin_state(self, name: str, state: AdminState, now: float) -> Outcome:
        """Does what the operator wants of a server. What it has been sent it may still answer.
        Raises KeyError for a server that is not in the table."""
        server = self.table.by_name[name]
        back = NOTHING
        if state is AdminState.ENABLED:
            back = self.passive.readmit(server, now, "enabled by the operator")
        if server.admin_state is state:
            return back
        server.admin_state = state
        return self._released(joined((back, self._state_changed(server, now))), now)

    def set_shutting_down(self, name: str, shutting_down: bool, now: float) -> Outcome:
        """A server that registered itself wants no new calls, or wants them again."""
        server = self.table.by_name.get(name)
        if not server or server.shutting_down == shutting_down:
            return NOTHING
        server.shutting_down = shutting_down
        return self._released(self._state_changed(server, now), now)

    def replace_table(self, table: ServerTable, fall: int, rise: int, now: float) -> Outcome:
        """Serves by another table. What the servers that are not in it owe goes to the others."""
        gone = [each for each in self.table.servers if table.by_name.get(each.name) is not each]
        table.succeed(self.table)
        hot, self.table, self.fall, self.rise = self.table.hot, table, fall, rise
        outcome = NOTHING
        for server in gone:
            outcome = self._move(server, now, server is hot, outcome, "taken out of the list")
        if table.hot and table.hot is not hot:
            outcome = joined((outcome, self._state_changed(table.hot, now)))
        return self._released(outcome, now)

    def become_active(self, now: float) -> None:
        """Messages come here from now on."""
        self.active_since = now

    def become_standby(self) -> None:
        """Messages go to another forwarder, which sees to what is pending."""
        self.active_since = None
        self.pending.clear()
        self.outage_queue.clear()
        self.orphans.clear()

    def on_timer(self, now: float) -> Outcome:
        """Does what time alone asks for; to be called every LOOK_INTERVAL (passive_checks.py)."""
        self.pending.expire(now)
        self.outage_queue.expire(now)
        outcome = self._released(self.passive.look(now), now)
        return joined((self.orphans.on_timer(now), outcome))

    def replay(self, now: float) -> Outcome:
        """Sends on the next of what lost servers owed."""
        outcome = self._handle_all(self.pending.take_moved(REPLAYED_AT_ONCE), now)
        self.counters["replayed"] += sum(
            isinstance(event, Passed) and event.replayed for event in outcome.events
        )
        return outcome

    # -- what the core tells and asks --------------------------------------------------------------

    def choose(
        self, hint: str, branch: bytes, key: RequestKey, new: bool, affinity_key: str, now: float
    ) -> tuple[Server | None, str]:
        """Chooses the server for a phone's request, and says why. `hint`: of its Route, or "";
        `branch`: ours; `new`: it begins something; `affinity_key`: "" unless the policy is
        call-id."""
        table = self.table
        hinted = table.by_hint.get(hint) if hint else None
        if hinted and hinted.accepts_dialogs:
            return hinted, "its call began there"
        # A retransmission goes where the request went, and so does the CANCEL of an INVITE.
        name = self.pending.server_of(branch, key)
        owner = table.by_name.get(name) if name else None
        if owner and owner.accepts_dialogs:
            return owner, "it has the transaction"
        trial = self.passive.due_trial() if new and self.passive.trial else None
        if trial:
            self.passive.start_trial(trial, now)
            return trial, "to see whether it handles requests again"
        chosen = table.choose(affinity_key, new)
        return chosen, f"{hinted.name} is down" if hinted else table.policy

    def request_sent(self, server: Server, key: RequestKey, datagram: PendingDatagram) -> None:
        """A request, but no ACK, was passed on to a server."""
        server.requests += 1
        self.pending.add_request(key, datagram)

    def ack_sent(
        self, server: Server, branch: bytes, to_tag: bytes, datagram: PendingDatagram, ends: bool
    ) -> None:
        """An ACK was passed on to a server. `branch`: ours; `ends`: at that server."""
        server.requests += 1
        self.pending.add_one_way((branch, b"ACK", NO_STATUS, to_tag), datagram, ends)

    def request_passed_on(
        self, server: Server, branch: bytes, method: bytes, to_tag: bytes
    ) -> None:
        """A request came from a server. `branch`: of the Via beneath the server's own. If it is
        ours, the server has passed on what it was sent."""
        if method == b"ACK":
            key = branch, method, NO_STATUS, to_tag
            relayed = self.pending.remove_one_way(key)
            if relayed:
                _count_handled(server, relayed)
        else:
            self._begun(server, branch, method, provisional=False)

    def response_received(
        self, server: Server, branch: bytes, method: bytes, status: bytes, to_tag: bytes, now: float
    ) -> PendingDatagram | None:
        """A server has sent a response; `branch` is ours. Returns the request, if this is its final
        answer."""
        pending = self.pending
        server.responses += 1
        server.last_heard_at = now
        relayed = None
        if pending.one_way:
            relayed = pending.remove_one_way((branch, method, status, to_tag))
            if relayed:
                _count_handled(server, relayed)
        if status < b"200":
            self._begun(server, branch, method, provisional=True)
            return None
        key = branch + method
        request = pending.remove_request(key)
        if request:
            _count_handled(server, request)
        if pending.hedged:
            self._count_hedged(server, key)
        if status >= b"300" and method == b"INVITE":
            pending.add_refusal(branch, server.name, own=relayed is None)
        return request

    def response_sent(
        self, server: Server, key: OneWayKey, datagram: PendingDatagram, ends: bool
    ) -> None:
        """A response was passed on to a server; `key` has the branch of the Via beneath the
        server's own. `ends`: there is none, so the request began there."""
        server.relayed += not ends
        self.pending.add_one_way(key, datagram, ends)
        if not ends:
            self.pending.add_answer(key, datagram.data, datagram.received_at)

    def count_kept(self) -> None:
        """A datagram that the last lost server owed was put into the outage queue."""
        last = self.records[-1] if self.records else None
        # Messages that end at a server are kept too; no answer to them was pending.
        if last and not last.successor and last.kept < last.in_flight:
            # it was counted among these if a server was left that keeps its calls
            replayed = max(0, last.replayed - 1)
            self.records[-1] = last._replace(kept=last.kept + 1, replayed=replayed)

    def awaits_first_answer(self, sender: str, now: float) -> FailoverRecord | None:
        """The failover whose first answer is waited for, if one of this server may be it.

        It may while something that was replayed can be answered. After that, where one server has
        all the work, for as long as it is this one: another server's answer tells nothing; nor,
        where many share the work, does an answer to what was not the lost server's.
        """
        last = self.records[-1] if self.records else None
        if not last or last.gap is not None:
            return None
        if self.active_since is None or last.at < self.active_since:
            return None
        shared, hot = self.table.policy == CALL_ID, self.table.hot
        if not shared and last.successor != sender:
            return None
        waits = last.replayed > 0 and now - last.at <= REQUEST_SECONDS
        return last if waits or (not shared and hot and hot.name == sender) else None

    def first_answer(
        self, request: PendingDatagram | None, server: str, now: float
    ) -> tuple[Event, ...]:
        """Records the first answer after a failover, if this request's is that."""
        last = self.awaits_first_answer(server, now)
        if not request or not last:
            return ()
        if self.table.policy == CALL_ID and not request.replayed:
            return ()
        self.records[-1] = last._replace(gap=now - request.received_at, first_answer=now)
        return (Resumed(now, self.records[-1]),)

    # -- what the passive check decides ------------------------------------------------------------

    def eject(self, server: Server, now: float, why: str) -> Outcome:
        """Takes a server out of use that answers heartbeats and nothing else."""
        was_hot = server is self.table.hot
        server.ejected = why
        server.ejections += 1
        self.counters["ejections"] += 1
        return self._move(server, now, was_hot, self._state_changed(server, now), why)

    def readmitted(self, server: Server, now: float, why: str) -> Outcome:
        """A server that was ejected is in use again."""
        server.health = replace(server.health, why=why)
        return self._released(self._state_changed(server, now), now)

    def hedge(self, datagrams: Sequence[PendingDatagram], now: float) -> Outcome:
        """Sends what a server has not handled to the next one too."""
        self.counters["hedged"] += len(datagrams)
        return self._handle_all(datagrams, now)

    def hand_over(self, server: Server, now: float) -> Outcome:
        """Sends what an ejected server was sent on trial to the next one."""
        self.counters["hedged"] += self.pending.move_all(server.name, now)
        return self.replay(now)

    # -- inside ------------------------------------------------------------------------------------

    def _move(self, lost: Server, now: float, was_hot: bool, outcome: Outcome, why: str) -> Outcome:
        """Sends the pending messages of a lost server to the others."""
        owed = self.pending.move_all(lost.name, now)
        self.orphans.server_lost(lost)
        successor = self.table.hot
        # The loss of a server that never answered is no failover.
        felt = was_hot and lost.ever_answered and self.active_since is not None
        if owed or felt:
            record = FailoverRecord(
                now,
                lost.name,
                successor.name if successor else None,
                why,
                replayed=owed if self.table.usable else 0,
                in_flight=owed,
                last_answer=lost.last_heard_at,
            )
            self.records.append(record)
            self.counters["failovers"] += 1
            outcome = joined((outcome, Outcome((), (record,))))
        return joined((outcome, self.replay(now)))

    def _handle_all(self, datagrams: Iterable[PendingDatagram], now: float) -> Outcome:
        outcomes = []
        for datagram in datagrams:
            try:
                outcomes.append(self._handle(datagram, now))
            # A defect of ours costs this datagram and none of those behind it.
            except Exception as error:
                self.replay_errors.append(error)
        return joined(outcomes)

    def _released(self, outcome: Outcome, now: float) -> Outcome:
        """The outcome, and what was kept during an outage, if a server takes it now."""
        if not self.outage_queue or not self.table.usable:
            return outcome
        begins = self.table.hot is not None or self.table.draining is not None
        kept = self.outage_queue.release(now, begins)
        if not kept:
            return outcome
        self.pending.add_moved(kept)
        released = Released(now, len(kept), now - kept[0].received_at)
        return joined((outcome, Outcome((), (released,)), self.replay(now)))

    def _panic(self, now: float) -> list[Outcome]:
        """Where no server is left, those are used that were held back for flapping, or ejected."""
        outcomes = [
            self._state_changed(server, now) for server in self.table.end_damping(now, self.rise)
        ]
        if not self.table.usable:
            up = [server for server in self.table.servers if server.up]
            outcomes += [self.passive.readmit(server, now, "nobody else is left") for server in up]
        return outcomes

    def _state_changed(self, server: Server, now: float) -> Outcome:
        hot = self.table.hot
        name = hot.name if hot else None
        return Outcome((), (StateChanged(now, server.name, server.state, server.why, name),))

    def _begun(self, server: Server, branch: bytes, method: bytes, provisional: bool) -> None:
        """The server has passed a request on, or answered it provisionally."""
        key = branch + method
        request = self.pending.mark_begun(key, server.name, provisional)
        if request:
            _count_handled(server, request)
        if self.pending.hedged:
            self._count_hedged(server, key)

    def _count_hedged(self, server: Server, key: RequestKey) -> None:
        """It has handled a request that another server was sent too meanwhile."""
        hedged = self.pending.hedged
        if hedged.get(key) == server.name:
            del hedged[key]
            server.handled += 1


def _count_handled(server: Server, datagram: PendingDatagram) -> None:
    if datagram.server == server.name:
        server.handled += 1
        server.handled_for_others += datagram.replayed
