"""Redis with Sentinel, all of them real: a master, two replicas, three Sentinels. kill -9 and
SIGSTOP are real."""

from __future__ import annotations

import contextlib
import re
import signal
import threading
import time
from types import SimpleNamespace

import pytest
from load_kit import forwarder_started
from program_kit import Program
from redis_kit import SentinelCluster, needs_redis

from slee_mock.store.interface import ConditionalWrite, Conflict, StoreDown
from slee_mock.store.redis_store import RedisStore
from slee_mock.store.redis_url import RedisPlace
from softphone.phone import Account, Phone
from softphone.ua.events import CallState

pytestmark = [needs_redis, pytest.mark.long]
SECRET = "between-us@home"
SENTENCE = re.compile(
    "(the store|no replica of the store|no Sentinel of|the Sentinels of) redis[+]sentinel://"
)
WITHIN = 40.0  # seconds, on a busy computer: Sentinels repeat a failed election after ten


@pytest.fixture
def sentinels(tmp_path, free_port):
    made = SentinelCluster(tmp_path / "redis", [free_port() for _ in range(6)], password=SECRET)
    try:
        yield made.start()
    finally:
        made.stop()


class Writer(threading.Thread):
    """Saves row after row through a connection of its own, and knows which were acknowledged."""

    def __init__(self, url: str, name: str) -> None:
        super().__init__(name=name)
        self._url, self._halt = url, threading.Event()
        self.saved: list[str] = []
        self.sentences: set[str] = set()

    def run(self) -> None:
        store = RedisStore(RedisPlace.parse(self._url), patience=1.0)
        number = 0
        while not self._halt.wait(0.001):
            try:
                store.save([ConditionalWrite("call", f"{self.name}-{number}", "x", 0)])
            except StoreDown as error:
                self.sentences.add(str(error))
                continue
            except Conflict:  # it had been done when no answer came
                pass
            self.saved.append(f"{self.name}-{number}")
            number += 1
        store.close()

    def end(self) -> None:
        self._halt.set()
        self.join(WITHIN)


@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGSTOP])
def test_what_was_acknowledged_outlives_the_master(sentinels, eventually, death):
    writers = [Writer(sentinels.url, f"w{number}") for number in range(3)]
    for writer in writers:
        writer.start()
    try:
        eventually(lambda: all(len(writer.saved) > 50 for writer in writers), WITHIN)
        first = sentinels.master
        first.signal(death)
        eventually(lambda: sentinels.master is not first, WITHIN)
        counts = [len(writer.saved) for writer in writers]
        eventually(
            lambda: all(
                len(w.saved) > count + 50 for w, count in zip(writers, counts, strict=True)
            ),
            WITHIN,
        )
        if death == signal.SIGSTOP:
            first.signal(signal.SIGCONT)
        else:
            first.start()
        eventually(lambda: "role:slave" in first.says("INFO", "replication"), WITHIN)
        counts = [len(writer.saved) for writer in writers]
        eventually(
            lambda: all(
                len(w.saved) > count + 50 for w, count in zip(writers, counts, strict=True)
            ),
            WITHIN,
        )
    finally:
        for writer in writers:
            writer.end()
    with contextlib.closing(RedisStore(RedisPlace.parse(sentinels.url), patience=WITHIN)) as store:
        kept = {key for _, key, _ in store.walk("call")}
    for writer in writers:
        lost = [key for key in writer.saved if key not in kept]
        assert not lost, (
            f"acknowledged and lost: {len(lost)} of {len(writer.saved)}, {lost[0]} to {lost[-1]}"
        )
        assert SECRET not in " ".join(writer.sentences)
        assert all(map(SENTENCE.match, writer.sentences)), writer.sentences


class Scene:
    """Alice's and Bob's phones, the forwarder, two servers as processes, all their calls in the
    Redis at `url`."""

    def __init__(self, stack, url, free_port, eventually):
        self._eventually = eventually
        port, ports = (
            free_port(),
            {name: (free_port(), free_port()) for name in ("server1", "server2")},
        )
        self.servers = {
            name: Program(name, url, f"127.0.0.1:{port}", *pair) for name, pair in ports.items()
        }
        for server in self.servers.values():
            stack.callback(server.close)
            server.start()
        addresses = [
            SimpleNamespace(name=name, address=("127.0.0.1", pair[0]))
            for name, pair in ports.items()
        ]
        stack.enter_context(forwarder_started(addresses, port))
        self.alice, self.bob = (
            Phone(Account(user, "failover.test"), ("127.0.0.1", port), ("127.0.0.1", 0))
            for user in ("alice", "bob")
        )
        for phone in (self.alice, self.bob):
            stack.callback(phone.stop)
            phone.start()
        self.until(
            lambda: all(
                self.state(phone, "registration").state.name == "REGISTERED"
                for phone in self.phones
            )
        )

    @property
    def phones(self):
        return self.alice, self.bob

    def until(self, condition):
        return self._eventually(condition, WITHIN)

    def state(self, phone, of="calls"):
        return getattr(phone.snapshot(), of)

    def both(self, state):
        return all(
            (calls := self.state(phone)) and calls[-1].state == state for phone in self.phones
        )

    def talk(self):
        """Alice calls again when she hears 503, as she does while the new master has no replica to
        confirm what it saves (min-replicas-to-write)."""
        self.alice.call("bob")
        self.until(self._rings)
        self.bob.answer()
        self.until(lambda: self.both(CallState.TALKING))

    def _rings(self):
        if self.state(self.alice)[-1].status == 503:
            self.alice.call("bob")
        return (calls := self.state(self.bob)) and calls[-1].state == CallState.INCOMING

    def calls(self, server):
        """As its page tells them; nothing while it cannot."""
        with contextlib.suppress(OSError):
            return self.servers[server].read("/calls")["calls"]
        return []

    def carriers(self, server):
        """The servers that have carried the first call, as the page of `server` tells."""
        return [share["server"] for call in self.calls(server)[:1] for share in call["carried"]]

    def store(self, server):
        return self.servers[server].read("/status")["store"]


@pytest.fixture
def scene(sentinels, free_port, eventually):
    with contextlib.ExitStack() as stack:
        yield Scene(stack, sentinels.url, free_port, eventually)


def test_a_call_outlives_the_masters_death_and_then_its_servers_and_is_billed_right(
    sentinels, scene
):
    scene.talk()
    began = time.monotonic()
    (carrier,) = scene.until(lambda: scene.carriers("server1"))
    survivor = next(name for name in scene.servers if name != carrier)
    first = sentinels.master
    first.kill()
    scene.until(lambda: sentinels.master is not first)
    scene.until(lambda: scene.store("server1") == scene.store("server2") == "ok")
    scene.servers[carrier].process.kill()
    assert scene.both(CallState.TALKING)
    scene.alice.hang_up()
    talked = time.monotonic() - began
    scene.until(lambda: scene.both(CallState.ENDED))
    (call,) = scene.until(lambda: [call for call in scene.calls(survivor) if call["final"]])
    assert abs(call["seconds"] - talked) <= 1.5 and call["why"] == "alice hung up"
    assert call["carried"][0]["server"] == carrier and call["total"] != "0.00"
    scene.talk()  # and the next one finds both phones through what the replica had been told
    assert len(scene.calls(survivor)) == 2


def test_who_hangs_up_while_no_master_is_there_is_heard_at_once_and_billed_to_that_moment(
    sentinels, scene
):
    scene.talk()
    began = time.monotonic()
    for sentinel in sentinels.sentinels[1:]:  # the one that is left may not make a new master
        sentinel.kill()
    sentinels.master.kill()
    scene.until(lambda: "redis+sentinel://" in scene.store("server1"))
    scene.bob.hang_up()
    talked = time.monotonic() - began
    scene.until(lambda: scene.both(CallState.ENDED))
    # at each server that heard the BYE: if it was slow, its retransmission went to the other one
    assert 1 <= sum(server.read("/status")["waiting"] for server in scene.servers.values()) <= 2
    assert SECRET not in scene.store("server1")
    until = time.monotonic() + 2.0
    scene.until(lambda: time.monotonic() > until)  # which nobody is to pay
    for sentinel in sentinels.sentinels[1:]:
        sentinel.start()
    (call,) = scene.until(lambda: [call for call in scene.calls("server1") if call["final"]])
    assert abs(call["seconds"] - talked) <= 1.5 and call["why"] == "bob hung up"
    scene.until(
        lambda: not any(server.read("/status")["waiting"] for server in scene.servers.values())
    )
    status, said = scene.servers["server1"].end(signal.SIGTERM)
    assert status == 0 and SECRET not in said and "Traceback" not in said
