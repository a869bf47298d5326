"""The store in a Redis, alone or watched by Sentinels, for servers of several computers.

Per record one hash with its version and text; per kind one sorted set in the order of creation; one
sorted set of what is due. Reads and writes go to the master alone: a replica may not have heard
yet. What `save` has returned from is on one replica too, if the master has any, and outlives the
master's computer.
"""

from __future__ import annotations

from collections.abc import Sequence

from slee_mock.store.interface import BadName, ConditionalWrite, Conflict, Marked, Row
from slee_mock.store.redis_connection import LONG_PAUSE, PATIENCE, RedisLink, Script
from slee_mock.store.redis_url import RedisPlace

PREFIX = "call-failover:"  # tells our keys from other programs' in the same database
REPLICATION = 0.15  # seconds in which a replica must have confirmed a change

# First all versions, then all changes: no other command of anybody runs between the two. The first
# change of all is one that takes room, for a Redis whose memory is full refuses a script at its
# first change or not at all. Returns the number of the change that is out of date, or 0, and how
# many replicas are connected and have confirmed anything yet.
_SAVE = Script("""
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
""")

# Scores are what `created` was: whole numbers, of which tostring() would make 1e+15.
_WALK = Script("""
local found, scan = {}, ARGV[1] .. 'scan:' .. ARGV[2]
local keys = redis.call('ZREVRANGEBYSCORE', scan, ARGV[3], '-inf', 'WITHSCORES',
    'LIMIT', 0, ARGV[4])
for at = 1, #keys, 2 do
  local row = redis.call('HMGET', ARGV[1] .. 'row:' .. ARGV[2] .. ':' .. keys[at],
    'version', 'text')
  found[#found + 1] = {keys[at], string.format('%d', keys[at + 1]), row[1] or '', row[2] or ''}
end
return found
""")

_MARK = Script("""
local found = redis.call('ZREVRANGE', ARGV[1] .. 'scan:' .. ARGV[2], ARGV[3], ARGV[3], 'WITHSCORES')
return found[2] and {string.format('%d', found[2])} or {}
""")


class RedisStore:
    """Raises StoreDown with a sentence and its remedy if the Redis at `place` cannot be used.
    `patience`: the seconds to wait for one answer."""

    def __init__(self, place: RedisPlace, patience: float = PATIENCE) -> None:
        self._name = str(place)
        self._link = RedisLink(place, patience)
        self._unconfirmed = False  # may the last save be on the master alone?
        self._link.command("PING")

    def get(self, kind: str, key: str) -> Row | None:
        self._catch_up()
        version, text = self._link.command(
            "HMGET", _bytes(f"{PREFIX}row:{kind}:{key}"), "version", "text"
        )
        return _row(version, text) if version else None

    def save(self, changes: Sequence[ConditionalWrite]) -> None:
        words: list[bytes] = []
        for change in changes:
            action = "=" if change.check_only else "-" if change.text is None else "+"
            due = "" if change.due is None else repr(change.due)
            fields = (change.kind, change.key, str(change.version), action, change.text or "", due)
            words += [_bytes(field) for field in fields]
        self._catch_up()
        late = self._replicate(words)
        if late:
            change = changes[late - 1]
            raise Conflict(f"{change.kind} {change.key} is no longer at version {change.version}")

    def scan(self, kind: str, limit: int | None = None) -> list[tuple[str, Row]]:
        return [(key, row) for _, key, row in self.walk(kind, -1 if limit is None else limit)]

    def walk(self, kind: str, limit: int, before: int | None = None) -> list[Marked]:
        self._catch_up()
        highest = "+inf" if before is None else f"({before}"  # below it, not at it
        found = self._link.run(_WALK, PREFIX, kind, highest, limit)
        return [
            Marked(int(mark), key.decode(errors="replace"), _row(*rest))
            for key, mark, *rest in found
        ]

    def mark(self, kind: str, newer: int) -> int | None:
        self._catch_up()
        found = self._link.run(_MARK, PREFIX, kind, newer)
        return int(found[0]) if found else None

    def count(self, kind: str) -> int:
        self._catch_up()
        return int(self._link.command("ZCARD", f"{PREFIX}scan:{kind}"))

    def due(self, wall: float, limit: int) -> list[tuple[str, str]]:
        self._catch_up()
        found = self._link.command("ZRANGEBYSCORE", f"{PREFIX}due", "-inf", wall, "LIMIT", 0, limit)
        places = [place.decode(errors="replace").partition(":") for place in found]
        return [(kind, key) for kind, _, key in places]

    def close(self) -> None:
        self._link.close()

    def _replicate(self, words: Sequence[bytes]) -> int:
        """Runs the script and waits for a replica. Returns the number of the change that is out of
        date, or 0."""
        self._unconfirmed = True
        late, replicas = self._link.run(_SAVE, PREFIX, *words)
        if replicas and not late and not self._link.command("WAIT", 1, int(REPLICATION * 1000)):
            self._link.fail(
                f"no replica of the store {self._name} confirms what is saved within "
                f"{REPLICATION:g} s; "
                "see why, or end those that hang",
                LONG_PAUSE,
            )
        self._unconfirmed = False
        return int(late)

    def _catch_up(self) -> None:
        """A save that failed may have been done. Nobody is to read it and act on it before a
        replica has it too: replicas take changes in their order, so that one more, of nothing,
        confirms all before."""
        self._link.follow()
        if self._unconfirmed:
            self._replicate(())


def _row(version: bytes, text: bytes | None) -> Row:
    """A row that makes no sense becomes one that cannot be read: it must not hide the others."""
    return Row((text or b"").decode(errors="replace"), int(version) if version.isdigit() else 0)


def _bytes(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise BadName(f"the store keeps text alone: {error}") from None
