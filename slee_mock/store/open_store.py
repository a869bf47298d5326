"""Opens the store that --store names: a URL is a Redis, anything else an SQLite file."""

from __future__ import annotations

from slee_mock.store.interface import Store
from slee_mock.store.redis_store import RedisStore
from slee_mock.store.redis_url import RedisPlace
from slee_mock.store.sqlite_store import SqliteStore


def redis_place(where: str) -> RedisPlace | None:
    """None for a file. Raises ValueError with a sentence for a bad URL."""
    return RedisPlace.parse(where) if "://" in where else None


def open_store(where: str, reading: bool = False) -> Store:
    """Raises StoreDown with a sentence and its remedy. The store belongs to the thread that opened
    it. `reading`: for a reader only."""
    place = redis_place(where)
    return RedisStore(place) if place else SqliteStore(where, reading=reading)


def store_name(where: str) -> str:
    """The name to show, without a password."""
    return str(redis_place(where) or where)
