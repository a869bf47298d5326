"""The store in a Redis, alone or watched by Sentinels, for servers of several computers.

Rules:

1. Per record one hash with its version and text; per kind one sorted set in the order of creation;
   one sorted set of what is due. A save is one script: all rows or none.
2. Reads and writes go to the master alone: a replica may lag behind.
3. `save` returns once one replica has confirmed it (WAIT), if the master has replicas. If none
   confirms, the store counts as down, and nothing is read until an empty save is confirmed:
   replicas apply writes in their order, so that this one covers all before it.
4. The thread that owns the store also answers heartbeats, and a server that is silent for 0.145 s
   is taken for dead. So it must not wait longer than 0.1 s: each answer has a time limit; after a
   failure every call fails at once until the next attempt is due, and that attempt waits only
   PROBE_SECONDS.

Traps: WAIT tells about the writes of its own connection, so script and WAIT must use one connection
and no retry may replace it in between. A script whose answer did not come may have been executed.
A deposed master that cannot reach the others learns of it late, so the Sentinels are asked again
every second.
"""

from __future__ import annotations

import contextlib
import re
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from slee_mock.store.interface import ConditionalWrite, Conflict, Marked, Row, StoreDown
from slee_mock.store.redis_url import RedisPlace

LEAST_LIBRARY = (8, 1)  # version of the client library that has all that is used here
PREFIX = "call-failover:"  # tells our keys from other programs' in the same database
REPLICATION_SECONDS = 0.06  # in which a replica must have confirmed a change
ANSWER_SECONDS = 0.08  # to wait for an answer
PROBE_SECONDS = 0.05  # the same for the first answer after a failure
SENTINEL_SECONDS = 0.03  # the same for a Sentinel's; there are three, and all may hang
PAUSE_SECONDS = 0.2  # between two attempts that are refused at once
LONG_PAUSE_SECONDS = 0.5  # between two attempts that have to wait
FOLLOW_SECONDS = 1.0  # at least, between two questions to the Sentinels which Redis is the master
FOLLOW_PAUSE = 30  # times as long as such a question took

# Part of an error's text or code: what it means to the operator, and the remedy.
_MEANINGS = {
    "READONLY": "is a replica, which cannot be written to; name the master, "
    "or the Sentinels that know it",
    "is now a slave": "is not the master any more; wait until the Sentinels name the new one",
    "LOADING": "is still loading its data; wait for it",
    "MASTERDOWN": "is a replica that has lost its master; wait, or name the master",
    "NOREPLICAS": "has fewer replicas than its min-replicas-to-write; start one, or wait for it",
    "OOM": "has no memory left below its maxmemory; raise that, "
    "and set maxmemory-policy noeviction",
    "MISCONF": "cannot write to its disk and so takes no changes; make room there",
    "NOAUTH": "asks for a password; write it before the address, as in "
    "redis://:PASSWORD@127.0.0.1:6379/0",
    "WRONGPASS": "refuses the password; correct the one before the @",
    "without any password": "has no password; leave away what stands before the @",
    "DB index": "does not have a database of that number; name one that it has, as in /0",
    "NOPERM": "does not permit what a store needs to the default user; permit it (ACL SETUSER)",
    "BUSY": "is busy with somebody's script; end that (SCRIPT KILL), or wait for it",
}

# First all versions, then all changes: no other command of anybody runs between the two. The first
# change of all is one that takes room, for a Redis whose memory is full refuses a script at its
# first change or not at all. Returns the number of the change that is out of date, or 0, and how
# many replicas are connected and have confirmed anything yet.
_SAVE = """
local prefix = ARGV[1]
for at = 2, #ARGV, 6 do
  local row, action = prefix .. 'row:' .. ARGV[at] .. ':' .. ARGV[at + 1], ARGV[at + 3]
  local version = redis.call('HGET', row, 'version') or '0'
  if version ~= ARGV[at + 2] or (version == '0' and action == '-')
    or (action == '=' and redis.call('HGET', row, 'text') ~= ARGV[at + 4]) then
    return {(at + 4) / 6, 0}
  end
end
redis.call('INCR', prefix .. 'created')
for at = 2, #ARGV, 6 do
  local kind, key, version, action, text, due = unpack(ARGV, at, at + 5)
  local row, scan = prefix .. 'row:' .. kind .. ':' .. key, prefix .. 'scan:' .. kind
  if action == '-' then
    redis.call('DEL', row)
    redis.call('ZREM', scan, key)
  elseif action == '+' then
    redis.call('HSET', row, 'version', string.format('%d', version + 1), 'text', text)
    if version == '0' then
        redis.call('ZADD', scan, redis.call('INCR', prefix .. 'created'), key)
    end
  end
  if action ~= '=' and due == '' then
    redis.call('ZREM', prefix .. 'due', kind .. ':' .. key)
  elseif action ~= '=' then
    redis.call('ZADD', prefix .. 'due', due, kind .. ':' .. key)
  end
end
local _, replicas = string.gsub(redis.call('INFO', 'replication'), 'state=online,offset=[1-9]', '')
return {0, replicas}
"""

# Scores are what `created` was: whole numbers, of which tostring() would make 1e+15.
_WALK = """
local found, scan = {}, ARGV[1] .. 'scan:' .. ARGV[2]
local keys = redis.call('ZREVRANGEBYSCORE', scan, ARGV[3], '-inf', 'WITHSCORES',
    'LIMIT', 0, ARGV[4])
for at = 1, #keys, 2 do
  local row = redis.call('HMGET', ARGV[1] .. 'row:' .. ARGV[2] .. ':' .. keys[at],
    'version', 'text')
  found[#found + 1] = {keys[at], string.format('%d', keys[at + 1]), row[1] or '', row[2] or ''}
end
return found
"""


def _redis_library() -> Any:
    """The client library, which only this store needs. Raises StoreDown if it is not installed, or
    too old: before LEAST_LIBRARY a connection does not tell whether it is open, nor an error its
    code."""
    try:
        import redis
    except ImportError:
        raise StoreDown(
            "a store in Redis needs Python's client library for it: pip install -r "
            f"requirements-redis.txt (for {sys.executable})"
        ) from None
    found = re.match(r"([0-9]+)\.([0-9]+)", getattr(redis, "__version__", ""))
    if found and (int(found[1]), int(found[2])) < LEAST_LIBRARY:
        least = ".".join(map(str, LEAST_LIBRARY))
        raise StoreDown(
            f"a store in Redis needs Python's client library for it in version {least} or later, "
            f"and {redis.__version__} is installed: pip install --upgrade redis "
            f"(for {sys.executable})"
        )
    return redis


class RedisStore:
    """Raises StoreDown with a sentence and its remedy if the Redis at `place` cannot be used.
    `patience`: the seconds to wait for one answer."""

    def __init__(self, place: RedisPlace, patience: float = ANSWER_SECONDS) -> None:
        self._redis = _redis_library()
        self._place, self._patience = place, patience
        self._unconfirmed = False  # the last save may be on the master alone
        self._trouble = ""  # a sentence while the Redis cannot be used
        self._retry_at = 0.0  # monotonic; when the next attempt may be made
        self._follow_at = time.monotonic() + FOLLOW_SECONDS
        try:
            self._client = self._make_client()
        except self._redis.RedisError as error:
            raise StoreDown(self._sentence(error)) from None
        self._scripts = {each: self._client.register_script(each) for each in (_SAVE, _WALK)}

    def get(self, kind: str, key: str) -> Row | None:
        self._catch_up()
        row = f"{PREFIX}row:{kind}:{key}"
        version, text = self._ask(self._client.hmget, row, "version", "text")
        return _row(version, text) if version else None

    def save(self, changes: Sequence[ConditionalWrite]) -> None:
        words: list[str] = []
        for change in changes:
            action = "=" if change.check_only else "-" if change.text is None else "+"
            due = "" if change.due is None else repr(change.due)
            fields = (change.kind, change.key, str(change.version), action, change.text or "", due)
            words += fields
        self._catch_up()
        late = self._replicate(words)
        if late:
            change = changes[late - 1]
            raise Conflict(f"{change.kind} {change.key} is no longer at version {change.version}")

    def walk(self, kind: str, limit: int | None = None, before: int | None = None) -> list[Marked]:
        self._catch_up()
        highest = "+inf" if before is None else f"({before}"  # below it, not at it
        return [
            Marked(int(mark), key.decode(errors="replace"), _row(*rest))
            for key, mark, *rest in self._run(_WALK, kind, highest, -1 if limit is None else limit)
        ]

    def mark(self, kind: str, newer: int) -> int | None:
        self._catch_up()
        scan = f"{PREFIX}scan:{kind}"
        found = self._ask(self._client.zrevrange, scan, newer, newer, True)
        return int(found[0][1]) if found else None

    def count(self, kind: str) -> int:
        self._catch_up()
        return int(self._ask(self._client.zcard, f"{PREFIX}scan:{kind}"))

    def due(self, now: float, limit: int) -> list[tuple[str, str]]:
        self._catch_up()
        found = self._ask(self._client.zrangebyscore, f"{PREFIX}due", "-inf", now, 0, limit)
        places = [place.decode(errors="replace").partition(":") for place in found]
        return [(kind, key) for kind, _, key in places]

    def close(self) -> None:
        self._client.close()
        self._client.connection_pool.disconnect()

    def _make_client(self) -> Any:
        """Connects. The client has one connection and never retries: see the traps above."""
        place = self._place
        common = {
            "retry": self._redis.retry.Retry(self._redis.backoff.NoBackoff(), 0),
            "protocol": 2,
            "driver_info": None,
        }
        options = {
            **common,
            "db": place.db,
            "password": place.password or None,
            "socket_timeout": self._patience,
            "redis_connect_func": self._greet,
        }
        if not place.master:
            host, port = place.addresses[0]
            return self._redis.Redis(host, port, **options, single_connection_client=True)
        quick = {**common, "socket_timeout": SENTINEL_SECONDS}
        sentinel = self._redis.Sentinel(place.addresses, sentinel_kwargs=quick)
        if place.password:  # a Sentinel has the same password or, as a rule, none
            locked = {**quick, "password": place.password}
            others = self._redis.Sentinel(place.addresses, sentinel_kwargs=locked)
            sentinel.sentinels += others.sentinels
        self._sentinels = sentinel.sentinels
        return sentinel.master_for(place.master, **options).client()

    def _greet(self, connection: Any) -> None:
        """After each connect: only a master may answer."""
        connection.on_connect()
        connection.send_command("ROLE")
        if connection.read_response()[0] != b"master":
            raise self._redis.ReadOnlyError("READONLY")

    def _run(self, script: str, *words: str | int) -> Any:
        return self._ask(self._scripts[script], (), (PREFIX, *words))

    def _ask(self, command: Callable[..., Any], *words: Any) -> Any:
        """Calls a method of the client. Raises StoreDown; the command may have been executed."""
        began = time.monotonic()
        if self._trouble and began < self._retry_at:
            raise StoreDown(self._trouble)
        try:
            if self._trouble:
                self._probe()
            return command(*words)
        except self._redis.RedisError as error:
            took = time.monotonic() - began
            pause = PAUSE_SECONDS if took < PROBE_SECONDS else LONG_PAUSE_SECONDS
            self._fail(self._sentence(error), pause)

    def _probe(self) -> None:
        """Connects with little patience, and once more with the usual one."""
        connection = self._client.connection
        connection.socket_timeout = connection.socket_connect_timeout = PROBE_SECONDS
        try:
            connection.connect()
        finally:
            connection.disconnect()
            connection.socket_timeout = connection.socket_connect_timeout = self._patience
        self._trouble = ""

    def _fail(self, sentence: str, pause: float) -> NoReturn:
        self._client.connection.disconnect()
        self._trouble, self._retry_at = sentence, time.monotonic() + pause
        raise StoreDown(sentence)

    def _follow(self) -> None:
        """Leaves a Redis that the Sentinels do not call the master any more."""
        began, connection = time.monotonic(), self._client.connection
        if not self._place.master or not connection.is_connected or began < self._follow_at:
            return
        with contextlib.suppress(self._redis.RedisError):
            address = self._client.connection_pool.get_master_address()
            if address != (connection.host, connection.port):
                connection.disconnect()
        now = time.monotonic()  # Sentinels that do not answer must not take much of the time
        self._follow_at = now + max(FOLLOW_SECONDS, FOLLOW_PAUSE * (now - began))

    def _replicate(self, words: Sequence[str]) -> int:
        """Runs the script and waits for a replica. Returns the number of the change that is out of
        date, or 0."""
        self._unconfirmed = True
        late, replicas = self._run(_SAVE, *words)
        timeout = int(REPLICATION_SECONDS * 1000)
        if replicas and not late and not self._ask(self._client.wait, 1, timeout):
            self._fail(
                f"no replica of the store {self._place} confirms what is saved within "
                f"{REPLICATION_SECONDS:g} s; see why, or end those that hang",
                LONG_PAUSE_SECONDS,
            )
        self._unconfirmed = False
        return int(late)

    def _catch_up(self) -> None:
        """After a failed save, confirms it by an empty one (rule 3)."""
        self._follow()
        if self._unconfirmed:
            self._replicate(())

    def _sentence(self, error: Exception) -> str:
        text = f"{getattr(error, 'status_code', None) or ''} {error}"
        meaning = next((meaning for code, meaning in _MEANINGS.items() if code in text), "")
        if isinstance(error, self._redis.sentinel.MasterNotFoundError):
            return self._no_master(text)
        if meaning:
            return f"the store {self._place} {meaning}"
        if isinstance(error, self._redis.TimeoutError):
            return f"the store {self._place} does not answer; see why, or start another one"
        if isinstance(error, self._redis.ConnectionError):
            return (
                f"the store {self._place} cannot be reached ({error}); start it, or name another "
                "one"
            )
        return f"the store {self._place} does not work ({error}); mend that, or name another one"

    def _no_master(self, text: str) -> str:
        """`text` is the library's: it names each client of a Sentinel that had no answer."""
        clients = [str(each) for each in self._sentinels]
        if sum(text.count(each) for each in set(clients)) < len(clients):
            return (
                f"the Sentinels of {self._place} know no living master of that name; wait until "
                "they have made one, start it, or correct the name"
            )
        why = "; they refuse the password" if "uthentication" in text else ""
        return f"no Sentinel of {self._place} answers{why}; start them, or correct their addresses"


def _row(version: bytes, text: bytes | None) -> Row:
    """A row that makes no sense becomes one that cannot be read: it must not hide the others."""
    return Row((text or b"").decode(errors="replace"), int(version) if version.isdigit() else 0)
