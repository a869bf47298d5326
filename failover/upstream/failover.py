"""The servers as the core sees them: signals change their health, and when one goes down its work
moves to the others.

The half of the core that has to do with servers; core.py has the one that has to do with messages.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import replace

from failover.config.settings import CALL_ID, PHONES
from failover.proxy.events import (
    NOTHING,
    Event,
    Failover,
    Outcome,
    Passed,
    Released,
    Resumed,
    Send,
    StateChanged,
    joined,
)
from failover.proxy.orphaned_calls import Call, Orphans
from failover.proxy.outage_queue import KeptMessages
from failover.proxy.pending_messages import WAITING, InFlight, Kept, Row
from failover.upstream.health import ANSWER, MISS, Signal
from failover.upstream.passive_checks import PassiveCheck
from failover.upstream.server_table import AdminState, Server, ServerTable
from sip.message import Request
from sip.uri import Uri

REMEMBERED_FAILOVERS = 100
# times as many misses until the last living server is given up: nobody else would answer sooner
LAST = 5
REPLAYED_AT_ONCE = 16  # a millisecond or two of work, then others have their turn


class Members:
    """`counters`, `failovers`, `inflight` and `kept` are for reading."""

    def __init__(self, table: ServerTable, fall: int, rise: int) -> None:
        self.table = table
        self.fall, self.rise = fall, rise
        self.counters: Counter[str] = Counter()  # of everything, by what it was
        self.inflight = InFlight(self.counters)
        self.kept = KeptMessages(self.counters)
        self.orphans = Orphans(self.counters)
        self.passive = PassiveCheck(self)
        # since when; None: on standby, so what servers do costs nobody
        self.serving: float | None = float("-inf")
        self.failovers: deque[Failover] = deque(maxlen=REMEMBERED_FAILOVERS)
        # raised by rows that were to be replayed; for the shell to take out and tell
        self.unfit: list[Exception] = []

    def _handle(self, row: Row, now: float) -> Outcome:
        raise NotImplementedError  # core.py

    def signal(
        self, name: str, signal: Signal, now: float, why: str, leaving: bool | None = None
    ) -> Outcome:
        """A heartbeat's result, or a refusal. `leaving`: the answer was 503, or not; None: there
        was none."""
        server = self.table.by_name.get(name)
        if not server:
            return NOTHING
        hot, was, left = self.table.hot, server.health, server.answers_503
        fall = self.fall * LAST if self.is_last(server) else self.fall
        server.set_health(was.after(signal, now, why, fall, self.rise, alone=hot is None))
        if signal is ANSWER:
            server.ever_answered, server.last_heard_at = True, now
        elif signal is MISS:
            server.missed_checks += 1
        server.answers_503 = left if leaving is None else leaving
        if server.health.state is was.state:
            if server.answers_503 == left:
                return NOTHING
            # the one of before spoke of the other status
            server.health = replace(server.health, why=why)
        outcome = self._state(server, now)
        if was.alive and not server.up:
            server.ejected = ""
            outcome = joined((outcome, *self._welcomed(now)))
            return self._move(server, now, server is hot, outcome, server.health.why)
        return self._released(outcome, now)

    def _welcomed(self, now: float) -> list[Outcome]:
        """Where no server is left, those come back that were held back for their flapping, or
        ejected."""
        outcomes = [self._state(heir, now) for heir in self.table.end_damping(now, self.rise)]
        if not self.table.usable:
            living = [server for server in self.table.servers if server.up]
            outcomes += [
                self.passive.readmit(server, now, "nobody else is left") for server in living
            ]
        return outcomes

    def serve(self, now: float) -> None:
        """Messages come here from now on."""
        self.serving = now

    def stand_by(self) -> None:
        """They go to another forwarder, which sees to what is in flight."""
        self.serving = None
        self.inflight.forget()
        self.kept.forget()
        self.orphans.forget()

    def is_last(self, server: Server) -> bool:
        """Does no other one live, and work?"""
        return not any(
            other.up and not other.ejected for other in self.table.servers if other is not server
        )

    def farewell(self, name: str, leaving: bool, now: float) -> Outcome:
        """A server that registered itself wants no new calls from now on, or wants them again."""
        server = self.table.by_name.get(name)
        if not server or server.shutting_down == leaving:
            return NOTHING
        server.shutting_down = leaving
        return self._released(self._state(server, now), now)

    def wish(self, name: str, wish: AdminState, now: float) -> Outcome:
        """What the operator wants of a server from now on. Raises KeyError for one that is not in
        the list.

        What it has been sent it may still answer, whatever the wish."""
        server = self.table.by_name[name]
        back = (
            self.passive.readmit(server, now, "enabled by the operator")
            if wish is AdminState.ENABLED
            else NOTHING
        )
        if server.admin_state is wish:
            return back
        server.admin_state = wish
        return self._released(joined((back, self._state(server, now))), now)

    def adopt(self, table: ServerTable, fall: int, rise: int, now: float) -> Outcome:
        """Serves from another table from now on. What those owe who are not in it goes to the
        others."""
        gone = [
            server for server in self.table.servers if table.by_name.get(server.name) is not server
        ]
        hot, self.table, self.fall, self.rise = self.table.hot, table, fall, rise
        outcome = NOTHING
        for server in gone:
            outcome = self._move(server, now, server is hot, outcome, "taken out of the list")
        if table.hot and table.hot is not hot:
            outcome = joined((outcome, self._state(table.hot, now)))
        return self._released(outcome, now)

    def look(self, now: float) -> Outcome:
        """Does what time alone asks for; to be called every LOOK_INTERVAL (passive_checks.py)."""
        self.inflight.expire(now)
        self.kept.expire(now)
        return self._ending(self.orphans.look(now), now, self.passive.look(now))

    def _ending(
        self, sends: Sequence[tuple[Call, Send]], now: float, outcome: Outcome = NOTHING
    ) -> Outcome:
        """These first, which end what a dead server had ringing, then the outcome."""
        if not sends:
            return outcome
        events = tuple(self._ended(call, send, now) for call, send in sends)
        return joined((Outcome(tuple(send for _, send in sends), events), outcome))

    def _ended(self, call: Call, send: Send, now: float) -> Passed:
        server, method = self.table.by_name.get(call.server), send.data.split(b" ", 1)[0].decode()
        source, call_id = server.address if server else call.target, call.invite.call_id
        why = f"{call.server} had it ringing when it went"
        way = call.server, PHONES, source, call.target
        return Passed(now, *way, method, None, call_id, False, why)

    # -- what the passive check asks for -----------------------------------------------------------

    def eject(self, server: Server, now: float, why: str) -> Outcome:
        """Takes a server out of use that answers heartbeats and nothing else."""
        was_hot = server is self.table.hot
        server.ejected = why
        server.ejections += 1
        self.counters["ejections"] += 1
        return self._move(server, now, was_hot, self._state(server, now), why)

    def readmitted(self, server: Server, now: float, why: str) -> Outcome:
        """It is in use again."""
        server.health = replace(server.health, why=why)
        return self._released(self._state(server, now), now)

    def hedge(self, rows: Sequence[Row], now: float) -> Outcome:
        """Sends requests to the next server that theirs has not handled."""
        self.counters["hedged"] += len(rows)
        return self._handle_all(rows, now)

    def hand_over(self, server: Server, now: float) -> Outcome:
        """Sends to the next server what an ejected one was sent on trial."""
        self.counters["hedged"] += self.inflight.move(server.name, now)
        return self.replay(now)

    # -- failover ----------------------------------------------------------------------------------

    def _move(self, lost: Server, now: float, was_hot: bool, outcome: Outcome, why: str) -> Outcome:
        """What a server that is gone still owed goes to those who live."""
        owed = self.inflight.move(lost.name, now)
        self.orphans.abandon(lost.name)
        heir = self.table.hot
        # one that was never there has left nothing behind
        felt = was_hot and lost.ever_answered and self.serving is not None
        if owed or felt:
            replayed = owed if self.table.usable else 0
            failover = Failover(
                now,
                lost.name,
                heir.name if heir else None,
                why,
                replayed,
                in_flight=owed,
                last_answer=lost.last_heard_at,
            )
            self.failovers.append(failover)
            self.counters["failovers"] += 1
            outcome = joined((outcome, Outcome((), (failover,))))
        return joined((outcome, self.replay(now)))

    def replay(self, now: float) -> Outcome:
        """Sends on the next of what servers that are gone still owed; to be called until
        `inflight.moving` is empty."""
        outcome = self._handle_all(self.inflight.moved(REPLAYED_AT_ONCE), now)
        self.counters["replayed"] += sum(
            isinstance(each, Passed) and each.replayed for each in outcome.events
        )
        return outcome

    def _handle_all(self, rows: Sequence[Row], now: float) -> Outcome:
        outcomes = []
        for row in rows:
            try:
                outcomes.append(self._handle(row, now))
            # a defect of ours, which costs this row and none of those behind it
            except Exception as error:
                self.unfit.append(error)
        return joined(outcomes)

    def kept_of_failover(self) -> None:
        """One more of those that the last server owed is kept."""
        last = self.failovers[-1] if self.failovers else None
        # What ended at the server is kept too, and nobody was owed anything for it.
        if last and not last.taken_by and last.kept < last.in_flight:
            self.failovers[-1] = last._replace(kept=last.kept + 1)

    def _ends_at_server(self, ack: Request, branch: str) -> bool:
        """Is the server that gets this ACK the party that is meant? The ACK names it, or confirms a
        refusal of its own."""
        if self.inflight.refused_itself(branch.encode()):
            return True
        named = ack.uri[:4].lower() in ("sip:", "sips") and not ack.routes
        return named and Uri.parse(ack.uri).address() in self.table.by_address

    def _released(self, outcome: Outcome, now: float) -> Outcome:
        """With what was kept on its way, if there is a server to take it now."""
        if not self.kept or not self.table.usable:
            return outcome
        rows = self.kept.release(now)
        if not rows:
            return outcome
        self.inflight.resume(rows)
        told = Released(now, len(rows), now - rows[0].since)
        return joined((outcome, Outcome((), (told,)), self.replay(now)))

    def _state(self, server: Server, now: float) -> Outcome:
        hot = self.table.hot
        changed = StateChanged(
            now, server.name, server.state, server.why, hot.name if hot else None
        )
        return Outcome((), (changed,))

    def unsettled(self, sender: str, now: float) -> Failover | None:
        """The failover whose first answer is waited for, if that may be one of `sender`, a server.

        It may while something that was replayed can be answered. After that, where one server has
        all the work, for as long as that server has it: an answer of another one tells nothing,
        nor, where many share the work, does one to what was no dead server's."""
        last = self.failovers[-1] if self.failovers else None
        if not last or last.gap is not None or self.serving is None or last.at < self.serving:
            return None
        shared, hot = self.table.policy == CALL_ID, self.table.hot
        if not shared and last.taken_by != sender:
            return None
        waits = last.replayed > 0 and now - last.at <= WAITING
        return last if waits or (not shared and hot and hot.name == sender) else None

    def _settle(self, kept: Kept | None, server: str, now: float) -> tuple[Event, ...]:
        """The first answer after a failover tells how long it was felt."""
        last = self.unsettled(server, now)
        if not kept or not last:
            return ()
        answered = Row(*kept)
        # Where many share a dead server's work, only what was its own tells anything.
        if answered.replayed if self.table.policy == CALL_ID else last.taken_by == server:
            self.failovers[-1] = last._replace(gap=now - answered.since, first_answer=now)
            return (Resumed(now, self.failovers[-1]),)
        return ()
