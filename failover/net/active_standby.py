"""Which of two forwarders has the address: two roles, four signs, one table.

There is no election. Whoever can bind the address is the active one; the system lets one socket
have it, or a VRRP daemon lets one computer. The other one stands by and tries again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import NamedTuple


class Role(str, Enum):
    STANDBY = "standby"  # watches the servers, and tries to get the address
    ACTIVE = "active"  # has the address, and forwards


class Sign(str, Enum):
    BOUND = "bound"  # the address was free, and is ours now
    HELD = "held"  # another program on this computer has it
    ELSEWHERE = "elsewhere"  # this computer does not have it, or has it no more
    HERE = "here"  # what we have bound is still this computer's


STANDBY, ACTIVE = Role
BOUND, HELD, ELSEWHERE, HERE = Sign

STANDING = {
    STANDBY: {BOUND: ACTIVE, HELD: STANDBY, ELSEWHERE: STANDBY},
    ACTIVE: {HERE: ACTIVE, ELSEWHERE: STANDBY},
}
LOOK = {STANDBY: 0.02, ACTIVE: 0.05}  # seconds until the next sign is looked for
STANDS_BY = {
    HELD: "{} is held by another forwarder",
    ELSEWHERE: "{} is not an address of this computer now",
}
TAKES = {
    None: "{} was free at the start",
    HELD: "{} is free, the forwarder that held it is gone",
    ELSEWHERE: "{} is an address of this computer now",
}  # by the sign before


class Takeover(NamedTuple):
    """The role is another than it was for `waited` seconds; `address` is what the two forwarders
    share."""

    at: float
    role: Role
    address: str
    why: str
    waited: float


@dataclass(frozen=True)
class Standing:
    """`since` is monotonic; `sign` is the last one that told anything."""

    address: str
    role: Role
    since: float
    why: str
    sign: Sign | None = None

    def after(self, sign: Sign, now: float) -> Standing:
        """Where we stand once the sign was seen; the same object if it told nothing new."""
        role = STANDING[self.role][sign]
        if role is ACTIVE:
            return (
                self
                if self.role is ACTIVE
                else Standing(self.address, role, now, self._say(TAKES[self.sign]), sign)
            )
        if self.role is STANDBY and self.sign is sign:
            return self
        since = self.since if self.role is STANDBY else now
        return replace(self, role=role, since=since, why=self._say(STANDS_BY[sign]), sign=sign)

    def _say(self, sentence: str) -> str:
        return sentence.format(self.address)
