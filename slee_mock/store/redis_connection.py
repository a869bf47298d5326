"""One connection to the Redis that is the master now, found anew when it is lost.

It belongs to one thread, which must not wait for long: every answer has a time limit, and while the
trouble is known everybody hears of it at once, but for one short attempt from time to time.
"""

from __future__ import annotations

import hashlib
import sys
import time
from typing import Any, NoReturn

from plumbing.address import Address, format_address
from slee_mock.store.interface import StoreDown
from slee_mock.store.redis_url import RedisPlace

PATIENCE = 0.2  # seconds to wait for an answer
IMPATIENCE = 0.05  # the same while it is known that something is wrong
PAUSE = 0.2  # seconds between two attempts at what refuses, which costs no time
LONG_PAUSE = 0.5  # and at what does not answer, which does
LOOKING = 1.0  # seconds between two looks at whether the Sentinels have made another one the master

# What the error's code means for whoever runs the Redis; None of these may become a traceback.
_MEANING = {
    "READONLY": "is a replica, which cannot be written to; name the master, "
    "or the Sentinels that know it",
    "LOADING": "is still loading its data; wait for it",
    "MASTERDOWN": "is a replica that has lost its master; wait, or name the master",
    "NOREPLICAS": "has fewer replicas than its min-replicas-to-write; start one, or wait for it",
    "OOM": "has no memory left below its maxmemory; raise that, "
    "and set maxmemory-policy noeviction",
    "MISCONF": "cannot write to its disk and so takes no changes; make room there",
    "NOAUTH": "asks for a password; write it before the address, as in redis://:PASSWORD@127.0.0.1:6379/0",
    "WRONGPASS": "refuses the password; correct the one before the @",
    "without any password": "has no password; leave away what stands before the @",
    "DB index": "does not have a database of that number; name one that it has, as in /0",
    "NOPERM": "does not permit what a store needs to the default user; permit it (ACL SETUSER)",
    "BUSY": "is busy with somebody's script; end that (SCRIPT KILL), or wait for it",
}


def redis_library() -> Any:
    """The client library, which is not needed for anything else. Raises StoreDown if it is not
    there."""
    try:
        import redis
    except ImportError:
        raise StoreDown(
            "a store in Redis needs Python's client library for it: pip install redis "
            f"(for {sys.executable})"
        ) from None
    return redis


class Script:
    """A Lua script, which Redis runs as a whole or not at all."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.sha = hashlib.sha1(source.encode()).hexdigest()


class RedisLink:
    """Every method but `close` may raise StoreDown. An answer that did not come may stand for
    something done."""

    def __init__(self, place: RedisPlace, patience: float = PATIENCE) -> None:
        self._redis = redis_library()
        self._place = place
        self._patience = patience
        self._sentinels = list(place.addresses)
        self._connection: Any = None
        self._trouble = ""
        self._again = 0.0  # when the next attempt may be made
        self._address: Address | None = None  # of the one that is connected
        self._look = 0.0  # when to ask the Sentinels next

    def command(self, *words: bytes | str | int | float) -> Any:
        if self._trouble and time.monotonic() < self._again:
            raise StoreDown(self._trouble)
        try:
            if self._connection is None:
                self._connection = self._connect()
            answer = self._ask(self._connection, *words)
        except self._redis.exceptions.NoScriptError:
            raise
        except self._redis.exceptions.RedisError as error:
            late = isinstance(error, self._redis.exceptions.TimeoutError)
            self.fail(self._sentence(error), LONG_PAUSE if late else PAUSE)
        self._trouble = ""
        return answer

    def follow(self) -> None:
        """Leaves a master that is none any more. One that the others cannot reach may be told so
        late, and until then take changes that will be thrown away."""
        if self._connection is None or not self._place.master or time.monotonic() < self._look:
            return
        self._look = time.monotonic() + LOOKING
        address, _ = self._find_master(IMPATIENCE)
        if address and address != self._address:
            self.close()

    def run(self, script: Script, *words: bytes | str | int | float) -> Any:
        try:
            return self.command("EVALSHA", script.sha, 0, *words)
        # a Redis that has just started, or has just become master
        except self._redis.exceptions.NoScriptError:
            return self.command("EVAL", script.source, 0, *words)

    def fail(self, sentence: str, pause: float) -> NoReturn:
        """The connection is not to be trusted any more; nobody tries again before the `pause` is
        over."""
        self.close()
        self._trouble, self._again = sentence, time.monotonic() + pause
        raise StoreDown(sentence)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.disconnect()
            self._connection = None

    def _connect(self) -> Any:
        limit = IMPATIENCE if self._trouble else self._patience
        address, told = (
            self._find_master(limit) if self._place.master else (self._place.addresses[0], "")
        )
        if address is None:
            self.fail(
                f"no Sentinel of {self._place} tells where the master is ({told}); start them, or "
                "correct "
                "addresses and name",
                PAUSE,
            )
        self._address, self._look = address, time.monotonic() + LOOKING
        connection = self._open(address, limit, self._place.password, self._place.db)
        try:
            # a replica would answer with what was true long ago
            if self._ask(connection, "ROLE")[0] != b"master":
                raise self._redis.exceptions.ReadOnlyError("READONLY")
        except BaseException:
            connection.disconnect()
            raise
        if limit == self._patience:
            return connection
        connection.disconnect()
        return self._open(address, self._patience, self._place.password, self._place.db)

    def _find_master(self, limit: float) -> tuple[Address | None, str]:
        """From the first Sentinel that answers; those that did not are asked last from then on. And
        what went wrong."""
        deadline = time.monotonic() + 2 * limit
        faults = []
        for sentinel in tuple(self._sentinels):
            try:
                found = self._ask_sentinel(sentinel, limit)
            except self._redis.exceptions.RedisError as error:
                faults.append(f"{format_address(sentinel)}: {error}")
                self._sentinels.remove(sentinel)
                self._sentinels.append(sentinel)
            else:
                if found:
                    return (found[0].decode(), int(found[1])), ""
                faults.append(f"{format_address(sentinel)} knows no such master")
            if time.monotonic() > deadline:
                break
        return None, "; ".join(faults)

    def _ask_sentinel(self, sentinel: Address, limit: float) -> Any:
        """A Sentinel has a password of its own or, as a rule, none."""
        question = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._place.master)
        for password in ("", self._place.password):
            connection = self._open(sentinel, limit, password)
            try:
                return self._ask(connection, *question)
            except self._redis.exceptions.AuthenticationError:
                if password or not self._place.password:
                    raise
            finally:
                connection.disconnect()
        return None

    def _open(self, address: Address, limit: float, password: str = "", db: int = 0) -> Any:
        return self._redis.Connection(
            host=address[0],
            port=address[1],
            db=db,
            password=password or None,
            socket_timeout=limit,
            socket_connect_timeout=limit,
            protocol=2,
        )

    def _ask(self, connection: Any, *words: bytes | str | int | float) -> Any:
        connection.send_command(*words)
        return connection.read_response()

    def _sentence(self, error: Exception) -> str:
        text = f"{getattr(error, 'status_code', None) or ''} {error}"
        meaning = next((meaning for code, meaning in _MEANING.items() if code in text), "")
        if meaning:
            return f"the store {self._place} {meaning}"
        if isinstance(error, self._redis.exceptions.TimeoutError):
            return f"the store {self._place} does not answer; see why, or start another one"
        if isinstance(error, self._redis.exceptions.ConnectionError):
            return (
                f"the store {self._place} cannot be reached ({error}); start it, or name another "
                "one"
            )
        return f"the store {self._place} does not work ({error}); mend that, or name another one"
