"""The address of a Redis, as it stands after --store. No I/O, and no need of the client library.

redis://[:password@]host:port[/db]
redis+sentinel://[:password@]host:port,host:port,.../MASTERNAME[/db]
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import unquote

from plumbing.address import Address, format_address, parse_address

REDIS, SENTINEL = "redis://", "redis+sentinel://"
EXAMPLES = {
    REDIS: "redis://127.0.0.1:6379/0",
    SENTINEL: "redis+sentinel://192.0.2.1:26379,192.0.2.2:26379/mymaster",
}
MOST_DB = 9999


@dataclass(frozen=True)
class RedisPlace:
    """`addresses`: of the Sentinels that know `master`, or of the one Redis if `master` is empty.
    As text it is the URL without the password."""

    addresses: tuple[Address, ...]
    master: str = ""
    db: int = 0
    password: str = field(default="", repr=False)

    def __str__(self) -> str:
        hosts = ",".join(format_address(each) for each in self.addresses)
        return (
            f"{SENTINEL}{hosts}/{self.master}/{self.db}"
            if self.master
            else f"{REDIS}{hosts}/{self.db}"
        )

    @staticmethod
    def parse(url: str) -> RedisPlace:
        """Raises ValueError with a sentence, in which the password does not stand."""
        scheme = next((each for each in (REDIS, SENTINEL) if url.startswith(each)), "")
        if not scheme:
            raise ValueError(
                f"'{url.partition('://')[0]}://' is not known here; write a file's name, "
                f"{EXAMPLES[REDIS]} or {EXAMPLES[SENTINEL]}"
            )
        credentials, _, rest = url[len(scheme) :].rpartition("@")
        user, _, password = credentials.partition(":")
        if user:
            raise ValueError(
                "a password stands alone here, behind a colon, as in "
                "redis://:PASSWORD@127.0.0.1:6379/0"
            )
        hosts, *path = rest.split("/")
        master = path.pop(0) if scheme == SENTINEL and path else ""
        if scheme == SENTINEL and not master:
            raise ValueError(
                "the master's name is missing; write it behind the Sentinels, as in "
                f"{EXAMPLES[SENTINEL]}"
            )
        addresses = tuple(_address(each, scheme) for each in hosts.split(","))
        if scheme == REDIS and len(addresses) > 1:
            raise ValueError(
                f"several addresses are those of Sentinels; write {EXAMPLES[SENTINEL]}"
            )
        return RedisPlace(addresses, master, _db("/".join(path)), unquote(password))


def _address(text: str, scheme: str) -> Address:
    try:
        address = parse_address(text, literal=True)
    except ValueError as error:
        raise ValueError(f"{error}; write it as in {EXAMPLES[scheme]}") from None
    if not address[1]:
        raise ValueError(
            f"nobody can be reached at port 0 in '{text}'; write it as in {EXAMPLES[scheme]}"
        )
    return address


def _db(text: str) -> int:
    if text and not (re.fullmatch("[0-9]{1,6}", text) and int(text) <= MOST_DB):
        raise ValueError(
            f"'{text}' is not a database's number; Redis has 0 to 15 unless told otherwise"
        )
    return int(text or 0)
