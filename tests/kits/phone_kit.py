"""Real phones without a window, and what their persons have seen."""

from __future__ import annotations

from typing import Any

from softphone.phone import Account, Phone
from softphone.ua.events import (
    CallChanged,
    CallState,
    CallView,
    RegistrationChanged,
    RegistrationState,
)

LOCAL = ("127.0.0.1", 0)
QUICKLY = 0.5  # seconds for a phone to end when nobody may answer its BYE


class Owner:
    """A phone that runs, and what its person has seen. `options`: more of Phone's."""

    def __init__(
        self,
        user: str,
        proxy=None,
        register=False,
        password="",
        listen=LOCAL,
        domain="failover.test",
        **options: Any,
    ) -> None:
        self.events: list[object] = []
        account = Account(user, domain, password, user.capitalize())
        self.phone = Phone(account, proxy, listen, self.events.append, register=register, **options)
        self.phone.start()

    def stop(self) -> None:
        self.phone.stop()

    def told(self, kind: type) -> list[Any]:
        """The events of this kind, the newest last."""
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def registered(self) -> bool:
        told = self.told(RegistrationChanged)
        return bool(told) and told[-1].state is RegistrationState.REGISTERED

    @property
    def call(self) -> CallView | None:
        """As it was told last; of several, the one that was told of last."""
        told = self.told(CallChanged)
        return told[-1].call if told else None

    @property
    def state(self) -> CallState | None:
        return self.call.state if self.call else None

    @property
    def states(self) -> list[CallState]:
        return [event.call.state for event in self.told(CallChanged)]

    @property
    def sentence(self) -> str:
        return self.call.sentence if self.call else ""

    @property
    def heard(self) -> int:
        """How many packets of audio have come."""
        stats = self.phone.media_stats()
        return stats.packets_received if stats else 0

    @property
    def uri(self) -> str:
        host, port = self.phone.address
        return f"sip:{self.phone.account.user}@{host}:{port}"
