"""A real phone without a window, and what its person has seen."""

from __future__ import annotations

from softphone.phone import Account, Phone
from softphone.ua.events import CallChanged, CallState, RegistrationChanged, RegistrationState

LOCAL = ("127.0.0.1", 0)
QUICKLY = 0.5  # seconds for a phone to end when nobody may answer its BYE


class Owner:
    """A phone, and what its person has seen."""

    def __init__(self, user: str, proxy=None, register=False, password="", listen=LOCAL) -> None:
        self.events: list[object] = []
        account = Account(user, "failover.test", password, user.capitalize())
        self.phone = Phone(account, proxy, listen, self.events.append, register=register)
        self.phone.start()

    @property
    def registered(self) -> bool:
        states = [event.state for event in self.events if isinstance(event, RegistrationChanged)]
        return bool(states) and states[-1] is RegistrationState.REGISTERED

    @property
    def states(self) -> list[CallState]:
        return [event.call.state for event in self.events if isinstance(event, CallChanged)]

    @property
    def state(self) -> CallState | None:
        return self.states[-1] if self.states else None

    @property
    def sentence(self) -> str:
        return [event.call.sentence for event in self.events if isinstance(event, CallChanged)][-1]

    @property
    def uri(self) -> str:
        host, port = self.phone.address
        return f"sip:{self.phone.account.user}@{host}:{port}"
