"""The store in a real Redis: every trouble it can have is a sentence, passes by itself, and holds
nobody up.

What the contract says is tested in test_store.py, Sentinel and a master's death in
test_sentinel.py.
"""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from program_kit import HELLO, Forwarder, Program
from redis_kit import RedisProgram, needs_redis
from slee_kit import phone_request, register

from slee_mock.store import redis_store
from slee_mock.store.interface import ConditionalWrite, Conflict, Row, StoreDown
from slee_mock.store.open_store import store_name
from slee_mock.store.redis_store import RedisStore
from slee_mock.store.redis_url import RedisPlace

pytestmark = needs_redis


@pytest.fixture
def server(tmp_path, free_port):
    made = RedisProgram(tmp_path, free_port()).start()
    yield made
    made.stop()


@pytest.fixture
def connect(server):
    """connect(url, patience) -> a store; closed at the end."""
    with contextlib.ExitStack() as stack:
        yield lambda url=server.url, patience=5.0: stack.enter_context(
            contextlib.closing(RedisStore(RedisPlace.parse(url), patience))
        )


def works(store, key):
    """A condition to wait for: something can be saved."""
    try:
        store.save([ConditionalWrite("call", key, "x", 0)])
    except StoreDown:
        return False
    except Conflict:  # an attempt that was given up had been carried out
        pass
    return True


def test_a_killed_redis_is_a_sentence_and_the_store_works_again_once_it_is_back(
    server, connect, eventually
):
    store = connect()
    store.save([ConditionalWrite("call", "c1", "x", 0)])
    server.kill()
    with pytest.raises(StoreDown, match=f"the store {server.url} cannot be reached .*; start it"):
        store.get("call", "c1")
    server.start()
    eventually(lambda: works(store, "c2"))


def test_a_frozen_redis_holds_a_server_up_for_less_than_heartbeats_may_wait(
    server, connect, eventually
):
    """A server that is silent for 0.145 s is taken for dead."""
    store, waited = connect(patience=redis_store.ANSWER_SECONDS), []
    for number in range(3):
        eventually(lambda number=number: works(store, f"c{number}"))
        server.signal(signal.SIGSTOP)
        began = time.monotonic()
        for _ in range(17):
            with pytest.raises(StoreDown):
                store.get("call", "c1")
        waited.append(time.monotonic() - began)
        server.signal(signal.SIGCONT)
    assert min(waited) < 0.12, waited  # the least: this computer may be busy


@pytest.mark.long
def test_a_frozen_redis_costs_one_short_wait_and_then_nobody_waits(server, connect, eventually):
    store = connect(patience=1.0)
    server.signal(signal.SIGSTOP)
    for _ in range(2000):  # one wait each would be minutes
        with pytest.raises(StoreDown, match=r"does not answer; see why, or start another one"):
            store.get("call", "c1")
    server.signal(signal.SIGCONT)
    eventually(lambda: works(store, "c1"))


@pytest.mark.long
def test_a_store_that_does_not_answer_is_not_asked_at_every_call(server, connect):
    """The kernel goes on accepting connections for a frozen program: each attempt would be one."""
    store = connect(patience=0.2)
    server.signal(signal.SIGSTOP)
    began = time.monotonic()
    while time.monotonic() < began + 2.0:
        with pytest.raises(StoreDown, match="does not answer"):
            store.get("call", "c1")
    server.signal(signal.SIGCONT)
    attempts = int(re.search(r"total_connections_received:(\d+)", server.says("INFO", "stats"))[1])
    assert attempts < 12, "the first, one each half second, and this question"


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (
            "READONLY You can't write against a read only replica.",
            "is a replica, which cannot be written to; name",
        ),
        ("LOADING Redis is loading the dataset in memory", "is still loading its data; wait"),
        ("MASTERDOWN Link with MASTER is down", "is a replica that has lost its master; wait"),
        (
            "NOREPLICAS Not enough good replicas to write.",
            "has fewer replicas than its min-replicas-to-write",
        ),
        (
            "ERR Error running script (call to f_1): @user_script:9: -OOM command not allowed",
            "no memory left",
        ),
        ("MISCONF Errors writing to the AOF file: No space left", "cannot write to its disk"),
        ("BUSY Redis is busy running a script.", "is busy with somebody's script"),
        (
            "ERR of a kind that nobody has thought of",
            r"does not work \(.*nobody has thought of.*\); mend that",
        ),
    ],
)
def test_what_a_redis_refuses_with_is_told_in_words(connect, code, sentence):
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def play():
            connection, _ = listening.accept()
            with connection:
                while connection.recv(65_536):
                    connection.sendall(f"-{code}\r\n".encode())

        thread = threading.Thread(target=play)
        thread.start()
        try:
            with pytest.raises(StoreDown, match=sentence):
                connect(f"redis://127.0.0.1:{listening.getsockname()[1]}")
        finally:
            thread.join(HELLO)


def test_passwords_are_asked_for_checked_and_never_shown(server, connect):
    server.says("CONFIG", "SET", "requirepass", "s3cret/@: word")
    with pytest.raises(StoreDown, match="asks for a password; write it before the address"):
        connect()
    with pytest.raises(
        StoreDown, match="refuses the password; correct the one before the @"
    ) as refused:
        connect(f"redis://:wr0ng@127.0.0.1:{server.port}")
    assert "wr0ng" not in str(refused.value)
    url = f"redis://:s3cret%2F%40%3A%20word@127.0.0.1:{server.port}/3"
    store = connect(url)
    store.save([ConditionalWrite("call", "c1", "x", 0)])
    assert "s3cret" not in store_name(url) + repr(RedisPlace.parse(url)) + str(
        RedisPlace.parse(url)
    )
    server.kill()
    with pytest.raises(StoreDown) as told:
        store.get("call", "c1")
    assert "s3cret" not in str(told.value)


def test_a_password_where_none_is_needed_and_a_database_that_is_not_there_are_told(server, connect):
    with pytest.raises(StoreDown, match="has no password; leave away"):
        connect(f"redis://:any@127.0.0.1:{server.port}")
    with pytest.raises(StoreDown, match="does not have a database of that number"):
        connect(f"redis://127.0.0.1:{server.port}/99")


@pytest.mark.parametrize(
    ("module", "sentence"),
    [
        (
            "raise ImportError('not here')",
            "a store in Redis needs Python's client library for it: pip install -r "
            "requirements-redis.txt",
        ),
        (
            "__version__ = '6.4.0'",
            "a store in Redis needs Python's client library for it in version 8.1 or later, and "
            "6.4.0 is installed: pip install --upgrade redis",
        ),
    ],
    ids=["not installed", "too old"],
)
def test_without_the_client_library_the_remedy_is_told(tmp_path, module, sentence):
    (tmp_path / "redis.py").write_text(module)
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from slee_mock.__main__ import main\n"
        "sys.exit(main(['--store', 'redis://127.0.0.1:1/0', '--listen', '127.0.0.1:0', "
        "'--management', '']))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", script], capture_output=True, text=True, timeout=HELLO
    )
    assert done.returncode == 1
    assert done.stderr == f"slee_mock: {sentence} (for {sys.executable})\n"


def test_a_replica_is_not_taken_for_the_store(server, connect, tmp_path, free_port):
    replica = RedisProgram(tmp_path, free_port(), f"replicaof 127.0.0.1 {server.port}").start()
    try:
        with pytest.raises(
            StoreDown, match="is a replica, which cannot be written to; name the master"
        ):
            connect(replica.url)
    finally:
        replica.stop()


def test_a_redis_that_forgot_our_scripts_or_takes_no_changes_now_is_no_harm(
    server, connect, eventually
):
    store = connect()
    store.save([ConditionalWrite("call", "c1", "x", 0)])
    server.says("SCRIPT", "FLUSH")
    store.save([ConditionalWrite("call", "c1", "y", 1)])
    assert [each[1:] for each in store.walk("call")] == [("c1", Row("y", 2))]
    server.says("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(StoreDown, match="no memory left"):
        store.save([ConditionalWrite("call", "c2", "x", 0)])
    server.says("CONFIG", "SET", "maxmemory", "0")
    server.says("CONFIG", "SET", "min-replicas-to-write", "1")
    eventually(lambda: fails(store, "c2", "has fewer replicas than its min-replicas-to-write"))
    server.says("CONFIG", "SET", "min-replicas-to-write", "0")
    eventually(lambda: works(store, "c2"))
    assert [key for _, key, _ in store.walk("call")] == ["c2", "c1"]


def fails(store, key, sentence):
    try:
        store.save([ConditionalWrite("call", key, "x", 0)])
    except StoreDown as error:
        return sentence in str(error)
    return False


@pytest.mark.long
def test_saved_means_that_a_replica_has_it(server, connect, tmp_path, free_port, eventually):
    store = connect()
    store.save([ConditionalWrite("call", "alone", "x", 0)])
    replica = RedisProgram(tmp_path, free_port(), f"replicaof 127.0.0.1 {server.port}").start()
    try:
        eventually(lambda: "state=online" in server.says("INFO", "replication"))
        # there is nothing to confirm in a Redis that is quite new
        store.save([ConditionalWrite("call", "first", "x", 0)])
        eventually(lambda: server.replicas)
        store.save([ConditionalWrite("call", "c1", "x", 0)])
        assert ":1\r\n" in replica.says("EXISTS", "call-failover:row:call:c1")
        replica.signal(signal.SIGSTOP)
        with pytest.raises(StoreDown, match=r"no replica of the store .* confirms what is saved"):
            store.save([ConditionalWrite("call", "c2", "mine", 0)])
        replica.signal(signal.SIGCONT)
        # It was done nevertheless: whoever repeats it is told so, and finds it.
        eventually(lambda: conflicts(store, "c2"))
        assert store.get("call", "c2") == Row("mine", 1)
        replica.kill()
        eventually(lambda: not server.replicas)
        eventually(lambda: works(store, "c3"))
    finally:
        replica.stop()


def conflicts(store, key):
    try:
        store.save([ConditionalWrite("call", key, "mine", 0)])
    except Conflict:
        return True
    except StoreDown:
        return False
    pytest.fail("it was saved a second time")


# -- emptied under living servers ------------------------------------------------------------------


@pytest.fixture
def pair(server, free_port):
    """(the forwarder, server1, server2): both run, with one Redis."""
    forwarder = Forwarder(free_port())
    ports = [free_port() for _ in range(4)]
    made = [
        Program(f"server{n}", server.url, forwarder.address, ports[n], ports[n + 2]) for n in (0, 1)
    ]
    try:
        yield forwarder, *(each.start() for each in made)
    finally:
        for each in made:
            each.close()
        forwarder.sock.close()


def health(forwarder, *servers):
    heartbeat = phone_request("OPTIONS", "sip:127.0.0.1:5070")
    return [forwarder.ask(heartbeat, each).status for each in servers]


@pytest.mark.long
@pytest.mark.parametrize("how", ["FLUSHALL", "a new, empty master"])
def test_a_redis_that_was_emptied_makes_all_step_back_and_no_server_begins_anew_beside_them(
    pair, server, eventually, how
):
    forwarder, one, two = pair
    assert forwarder.ask(register(), one).status == 200
    if how == "FLUSHALL":
        server.says("FLUSHALL")
        assert forwarder.ask(register("carol", call_id="r-carol"), two).status == 503
        assert "bindings" not in server.says("KEYS", "*"), "nothing is kept there"
    else:
        server.kill()
        server.start()
    eventually(lambda: health(forwarder, one, two) == [503, 503], 2.0)
    eventually(
        lambda: "was emptied since this server started: restore it" in two.read("/status")["store"]
    )
    one.close()  # kill -9
    done = subprocess.run(one.argv, capture_output=True, text=True, timeout=HELLO)
    assert done.returncode == 1 and "was emptied while server1 went on running" in done.stderr
    two.end(signal.SIGTERM)
    assert health(forwarder, one.start()) == [200]


@pytest.mark.long
def test_a_redis_whose_data_are_restored_is_served_from_again(pair, server, eventually):
    forwarder, one, two = pair
    key = server.says("HGET", "call-failover:row:secret:cluster", "text").split("\r\n")[1]
    server.says("FLUSHALL")
    eventually(lambda: health(forwarder, one, two) == [503, 503], 2.0)
    server.says("HSET", "call-failover:row:secret:cluster", "version", "1", "text", key)
    eventually(lambda: health(forwarder, one, two) == [200, 200], 2.0)
    assert forwarder.ask(register(cseq=2), two).status == 200


def test_a_row_that_makes_no_sense_is_damaged_and_hides_no_other(server, connect):
    store = connect()
    store.save([ConditionalWrite("call", f"c{number}", "x", 0, 1.0) for number in range(3)])
    server.says("HSET", "call-failover:row:call:c1", "version", "many")
    server.says("HDEL", "call-failover:row:call:c2", "text")
    assert store.get("call", "c1") == Row("x", 0) and store.get("call", "c2") == Row("", 1)
    assert [key for _, key, _ in store.walk("call")] == ["c2", "c1", "c0"]
    assert len(store.due(2.0, 9)) == 3


def test_a_sentinel_that_asks_for_a_password_hears_it_and_keeps_few_connections(
    server, tmp_path, free_port, monkeypatch
):
    lines = (f"sentinel monitor mymaster 127.0.0.1 {server.port} 1",)
    server.says("CONFIG", "SET", "requirepass", "secret")
    sentinel = RedisProgram(
        tmp_path,
        free_port(),
        *lines,
        "sentinel auth-pass mymaster secret",
        "requirepass secret",
        sentinel=True,
    ).start()
    sentinel.password = "secret"
    monkeypatch.setattr(redis_store, "FOLLOW_SECONDS", 0.0)
    url = f"redis+sentinel://:secret@127.0.0.1:{sentinel.port}/mymaster"
    try:
        with contextlib.closing(RedisStore(RedisPlace.parse(url), 5.0)) as store:
            for _ in range(50):
                assert store.get("call", "c1") is None
            assert sentinel.says("CLIENT", "LIST").count("addr=127.0.0.1") < 6
        wrong = RedisPlace.parse(url.replace("secret", "wr0ng"))
        with pytest.raises(StoreDown, match=r"no Sentinel .*; they refuse the password; ") as told:
            RedisStore(wrong)
        assert "wr0ng" not in str(told.value)
    finally:
        sentinel.stop()


def test_it_is_told_whether_the_sentinels_or_their_master_are_missing(
    server, tmp_path, free_port, eventually
):
    lines = (
        f"sentinel monitor mymaster 127.0.0.1 {server.port} 1",
        "sentinel down-after-milliseconds mymaster 200",
    )
    sentinel = RedisProgram(tmp_path, free_port(), *lines, sentinel=True).start()
    nobody = f"127.0.0.1:{free_port()}"
    url = f"redis+sentinel://{nobody},127.0.0.1:{sentinel.port}/mymaster"
    no_master = "know no living master of that name; wait until they have made one, start it"

    def fault(url):
        try:
            RedisStore(RedisPlace.parse(url)).close()
        except StoreDown as error:
            return str(error)
        return ""

    try:
        eventually(lambda: fault(url) == "")
        assert "no Sentinel of" in fault(f"redis+sentinel://{nobody}/mymaster")
        assert no_master in fault(url.replace("mymaster", "mimaster"))
        server.kill()
        eventually(lambda: no_master in fault(url))
        server.start()
        eventually(lambda: fault(url) == "")
    finally:
        sentinel.stop()


@pytest.mark.long
def test_sentinels_that_do_not_answer_take_little_of_the_time_while_the_redis_works(
    server, tmp_path, free_port, monkeypatch
):
    line = f"sentinel monitor mymaster 127.0.0.1 {server.port} 1"
    sentinels = [RedisProgram(tmp_path, free_port(), line, sentinel=True).start() for _ in range(3)]
    monkeypatch.setattr(redis_store, "FOLLOW_SECONDS", 0.1)
    hosts = ",".join(f"127.0.0.1:{each.port}" for each in sentinels)
    place = RedisPlace.parse(f"redis+sentinel://{hosts}/mymaster")
    try:
        with contextlib.closing(RedisStore(place, 5.0)) as store:
            for each in sentinels:
                each.signal(signal.SIGSTOP)
            waited, until = 0.0, time.monotonic() + 3.0
            while time.monotonic() < until:
                began = time.monotonic()
                store.get("call", "c1")
                took = time.monotonic() - began
                waited += took if took > 0.04 else 0.0
            assert waited < 0.6
    finally:
        for each in sentinels:
            each.stop()
