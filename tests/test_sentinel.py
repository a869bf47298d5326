"""Redis with Sentinel, all of them real: a master, two replicas, three Sentinels. kill -9 and SIGSTOP are real."""

from __future__ import annotations

import contextlib
import signal
import threading

import pytest
from redis_kit import SentinelCluster, needs_redis

from slee_mock.redis_place import RedisPlace
from slee_mock.redis_store import RedisStore
from slee_mock.store import Change, Conflict, StoreDown

pytestmark = [needs_redis, pytest.mark.long]
WITHIN = 20.0  # seconds, on a busy computer; Sentinel has promised one or two


@pytest.fixture
def sentinels(tmp_path, free_port):
    made = SentinelCluster(tmp_path / "redis", [free_port() for _ in range(6)], password="between us")
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
        store = RedisStore(RedisPlace.parse(self._url))
        number = 0
        while not self._halt.wait(0.001):
            try:
                store.save([Change("call", f"{self.name}-{number}", "x", 0)])
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
        eventually(lambda: all(len(w.saved) > count + 50 for w, count in zip(writers, counts, strict=True)), WITHIN)
        if death == signal.SIGSTOP:
            first.signal(signal.SIGCONT)
        else:
            first.start()
        eventually(lambda: "role:slave" in first.says("INFO", "replication"), WITHIN)
        counts = [len(writer.saved) for writer in writers]
        eventually(lambda: all(len(w.saved) > count + 50 for w, count in zip(writers, counts, strict=True)), WITHIN)
    finally:
        for writer in writers:
            writer.end()
    with contextlib.closing(RedisStore(RedisPlace.parse(sentinels.url), patience=WITHIN)) as store:
        kept = {key for key, _ in store.scan("call")}
    for writer in writers:
        lost = [key for key in writer.saved if key not in kept]
        assert not lost, f"acknowledged and lost: {len(lost)} of {len(writer.saved)}, {lost[0]} to {lost[-1]}"
        assert "between us" not in " ".join(writer.sentences)
        assert all(sentence.startswith(("the store redis+sentinel://", "no ")) for sentence in writer.sentences)
