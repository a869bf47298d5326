"""Whatever is killed, restarted, called and hung up, in whatever order: the window's statements agree
with the state.

A model of the cluster tells the observations that the programs would, and knows the truth; after
each step the headline, the figure and the steps are held against it.
"""

from __future__ import annotations

import random

import pytest

from stage.gui.presenter import headline, phone_look, phone_note, server_look
from stage.observation.observations import (
    Bill,
    CallStateChanged,
    MembersSeen,
    MessageForwarded,
    ProcessBack,
    ProcessExited,
    ProcessKilled,
    Registration,
    ServerFailover,
    ServersUp,
)
from stage.scenes.state import ProgramState
from stage.scenes.use_case import UseCase

SERVERS, PHONES = ("server1", "server2"), ("Alice", "Bob")


class Model:
    """Two servers, two phones, first-live: calls that began on a server go back to it."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.now, self.number = 0.0, 0
        self.use_case = UseCase()
        self.servers = {
            name: ProgramState(name, 5070, 4711, True, False, forwarder_state="UP")
            for name in SERVERS
        }
        self.call = ""  # its Call-ID while Alice and Bob talk
        self.began = ""
        self.hung_up = False  # and nobody could be told
        self.said: list[str] = []
        self._tell_up()
        for phone in PHONES:
            self.tell(Registration(self.now, phone, True))
            self.tell(MessageForwarded(self.now, "server1", phone, "REGISTER", 200, "r"))

    @property
    def alive(self) -> list[str]:
        return [name for name, server in self.servers.items() if server.alive]

    @property
    def carrier(self) -> str | None:
        if self.call and self.began in self.alive:
            return self.began
        return self.alive[0] if self.alive else None

    def tell(self, seen: object) -> None:
        self.now += 0.001
        self.use_case.observe(seen)

    def _tell_up(self) -> None:
        self.tell(ServersUp(self.now, frozenset(self.alive), (self.alive or [None])[0]))
        self.tell(MembersSeen(self.now, frozenset(self.alive)))

    def step(self) -> None:
        self.now += 1.0
        can = [self.kill] if self.alive else []
        can += [self.restart] if len(self.alive) < 2 else []
        can += [self.place] if not self.call and self.alive else []
        can += [self.hang_up] if self.call and not self.hung_up else []
        act = self.dice.choice(can)
        self.said.append(act.__name__)
        act()

    def kill(self) -> None:
        name = self.dice.choice(self.alive)
        hot, carrier = self.alive[0], self.carrier
        self.servers[name].alive, self.servers[name].crashed = False, True
        self.servers[name].forwarder_state = "DOWN"
        news: list[object] = [ProcessExited(self.now, name, -9)]
        if self.alive and name in (hot, carrier):
            other = self.alive[0]
            news.append(
                ServerFailover(self.now + 0.01, name, other, 0, first_answer_at=self.now + 0.02)
            )
        self.tell(ProcessKilled(self.now, name, 4711))
        self.dice.shuffle(news)
        for each in news:
            self.tell(each)
        self._tell_up()

    def restart(self) -> None:
        name = self.dice.choice([name for name in SERVERS if name not in self.alive])
        self.servers[name] = ProgramState(name, 5070, 4712, True, False, forwarder_state="UP")
        self.tell(ProcessBack(self.now, name))
        self._tell_up()
        if self.hung_up:
            self.hung_up = False
            self._ended()

    def place(self) -> None:
        self.number += 1
        self.call, self.began = f"call-{self.number}", self.alive[0]
        caller, callee = self.dice.sample(PHONES, 2)
        self.tell(CallStateChanged(self.now, caller, "calling", self.call, peer=callee))
        self.tell(CallStateChanged(self.now, callee, "incoming", self.call, peer=caller))
        self.tell(MessageForwarded(self.now, self.began, caller, "INVITE", 200, self.call))
        for phone in PHONES:
            self.tell(CallStateChanged(self.now, phone, "talking", self.call, self.now))

    def hang_up(self) -> None:
        phone = self.dice.choice(PHONES)
        if self.alive:
            self.tell(MessageForwarded(self.now, phone, self.alive[0], "BYE", None, self.call))
            self._ended()
        else:
            self.hung_up = True
            self.tell(CallStateChanged(self.now, phone, "ending", self.call, 1.0))

    def _ended(self) -> None:
        for phone in PHONES:
            self.tell(CallStateChanged(self.now, phone, "ended", self.call, 1.0, self.now))
        reader = self.alive[0]
        self.tell(Bill(self.now, reader, self.call, 9, "0.15", "EUR", True, ((reader, 9.0),)))
        self.call = ""

    def check(self) -> None:
        """What the window says, against what is so."""
        state, servers = self.use_case.state, self.servers
        said = headline(state, servers, {})
        words = f"{said.words} {said.hint}"
        trace = f"{' '.join(self.said)}: {words!r}"
        assert "None" not in words, trace
        for name in SERVERS:
            look = server_look(servers[name], state.hot)
            assert (look.look == "dead") == (name not in self.alive), trace
            assert look.kill[0] == (name in self.alive), trace
            if f"Kill on {name}" in words or f"kill {name}" in words:
                assert name in self.alive and len(self.alive) == 2, f"leads to nowhere: {trace}"
            if f"Restart {name}" in words:
                assert name not in self.alive, trace
        if not self.alive:
            assert said.words == "No server is alive", trace
            assert all(phone_note(state, phone) for phone in PHONES), trace
            assert not any(phone_look(state, phone).linked for phone in PHONES), trace
        elif self.call:
            assert str(self.carrier) in words.lower(), trace
            assert state.carrier == self.carrier, trace
            if "took over" in said.words:
                assert state.failovers[-1].target == self.carrier, trace
        elif self.number:
            assert "The bill: 0.15 EUR" in said.words, trace
            dead = set(SERVERS) - set(self.alive)
            assert all(name in said.hint for name in dead), trace
        if self.number:
            rows = {row.number: row for row in self.use_case.rows}
            assert rows[3].observed and rows[4].observed, trace
            assert rows[8].observed == (not self.call), trace


@pytest.mark.parametrize("seed", range(60))
def test_the_windows_statements_agree_with_the_state_in_every_order(seed: int) -> None:
    model = Model(seed)
    for _ in range(40):
        model.step()
        model.check()
