"""A server's row among the members of its cluster: its signs of life, and what to do if two servers
have one name.

Pure. The row belongs to the server that started last. The one before goes on serving, says what is
wrong, and signs in a row "NAME at ADDRESS", by which the newer one knows of it. When the newer one
is gone, it has its row again.
"""

from __future__ import annotations

from slee_mock.sip_adaptor import OptionsResponder
from slee_mock.store.interface import Store, Transaction
from slee_mock.store.records import Member, replace


class Membership:
    """`member` as it was signed last; `warning` is a sentence while something is wrong with the
    name."""

    def __init__(self, member: Member) -> None:
        self.member = member
        self.warning = ""
        self._is_aside = False  # the row of this name is another server's
        self._other = ""  # the address of a server of this name that lived when this one started

    def sign(
        self, store: Store, wall: float, role: OptionsResponder, stopped: bool = False
    ) -> None:
        """May raise StoreDown, or Conflict if a server of this name signs at the same moment."""
        transaction = Transaction(store)
        mine, is_first = self.member, not self.member.last_seen
        known = transaction.read_if_intact(Member, mine.name)
        has_my_name = known is not None and known.started != mine.started and known.alive(wall)
        signed = replace(
            mine, last_seen=wall, stopped=stopped, role=role.role, role_since=role.role_since
        )
        if has_my_name and known and not is_first:
            self.warning = _clash(known)
            self._is_aside = True
            transaction.commit([replace(_aside(mine), last_seen=wall, stopped=stopped)])
            return
        if has_my_name and known and known.address != mine.address:
            self._other = known.address
        gone = [replace(_aside(mine), last_seen=wall, stopped=True)] if self._is_aside else []
        transaction.commit([signed, *gone])
        self.member, self._is_aside = signed, False
        other = (
            transaction.read_if_intact(Member, _aside(replace(mine, address=self._other)).name)
            if self._other
            else None
        )
        self.warning = _clash(other) if other and other.alive(wall) else ""


def _aside(member: Member) -> Member:
    return replace(member, name=f"{member.name} at {member.address}", role="")


def _clash(other: Member) -> str:
    name = other.name.removesuffix(f" at {other.address}")
    return (
        f"another server signs as {name} too; give each its own --name (that one listens on "
        f"{other.address})"
    )
