"""Other people's telephones, which `--lan` lets in: their accounts, and who is at which address."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from plumbing.address import Address
from sip.errors import SipError
from sip.message import parse
from stage.observation.from_events import person

ACCOUNTS = ("guest1", "guest2", "guest3", "guest4")
PASSWORD_DIGITS = 8  # digits alone, which every telephone's keypad has


class Guests:
    """`address`: where telephones find the forwarder. `users` has the passwords of all accounts,
    those of our own phones (`own`) among them."""

    def __init__(self, address: Address, own: tuple[str, ...]) -> None:
        self.address = address
        self.password = "".join(secrets.choice("0123456789") for _ in range(PASSWORD_DIGITS))
        self.users: Mapping[str, str] = dict.fromkeys(ACCOUNTS, self.password) | {
            name.lower(): secrets.token_hex(16) for name in own
        }
        self.names: dict[str, str] = {}

    def learn(self, told: dict[str, Any]) -> str | None:
        """The name of a telephone whose REGISTER is accepted by this message; else None."""
        if (told["method"], told["status"], told["to"]) != ("REGISTER", 200, "phones"):
            return None
        try:
            user = parse(str(told.get("text", "")).encode()).to.uri.user
        except SipError:
            return None
        if user not in ACCOUNTS:
            return None
        self.names[str(told["target"])] = person(user)
        return person(user)
