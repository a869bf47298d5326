"""A server's row among the members of its cluster: its signs of life, and the case that two servers
have one name.

The row belongs to the server that started last. The older one goes on serving, warns, and signs in
a row "NAME at ADDRESS", by which the newer one learns of it. When the newer one has stopped, the
older one takes the row again. No I/O.
"""

from __future__ import annotations

from slee_mock.sip_adaptor import OptionsResponder
from slee_mock.store.interface import Store, Transaction
from slee_mock.store.records import Member, replace


class Membership:
    """Signs for this server. `member` is its row as saved last; `warning` is a sentence while two
    servers have the name."""

    def __init__(self, member: Member) -> None:
        self.member = member
        self.warning = ""
        self._is_aside = False  # the row of this name is another server's
        self._other = ""  # the address of a server of this name that lived when this one started

    def sign(self, store: Store, now: float, role: OptionsResponder, stopped: bool = False) -> None:
        """Saves a sign of life. May raise StoreDown, or Conflict if a server of this name signs at
        the same moment."""
        transaction = Transaction(store)
        mine, is_first = self.member, not self.member.last_seen
        known = transaction.read_if_intact(Member, mine.name)
        has_my_name = known is not None and known.started != mine.started and known.alive(now)
        signed = replace(
            mine, last_seen=now, stopped=stopped, role=role.role, role_since=role.role_since
        )
        if has_my_name and known and not is_first:
            self.warning = _clash(known)
            self._is_aside = True
            transaction.commit([replace(_aside(mine), last_seen=now, stopped=stopped)])
            return
        if has_my_name and known and known.address != mine.address:
            self._other = known.address
        gone = [replace(_aside(mine), last_seen=now, stopped=True)] if self._is_aside else []
        transaction.commit([signed, *gone])
        self.member, self._is_aside = signed, False
        other = (
            transaction.read_if_intact(Member, _aside(replace(mine, address=self._other)).name)
            if self._other
            else None
        )
        self.warning = _clash(other) if other and other.alive(now) else ""


def _aside(member: Member) -> Member:
    return replace(member, name=f"{member.name} at {member.address}", role="")


def _clash(other: Member) -> str:
    name = other.name.removesuffix(f" at {other.address}")
    return (
        f"another server signs as {name} too; give each its own --name (that one listens on "
        f"{other.address})"
    )
