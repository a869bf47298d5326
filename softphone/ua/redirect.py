"""Where a call goes that was redirected (RFC 3261 8.1.3.4): to the Contacts of the 3xx, the
likeliest first.

No address is tried twice and no more than MOST_TRIED are, so that two phones which name each other
cause no storm.
"""

from __future__ import annotations

from sip.errors import RemoteProtocolError
from sip.header import NameAddr
from sip.message import Response
from sip.uri import Uri
from softphone.ua.account import Account
from softphone.ua.dial_target import CannotBeCalled, redirected
from softphone.ua.optional_fields import listed

MOST_TRIED = 5
FOLLOWED = (300, 301, 302)  # 305 names a proxy, 380 another service (21.3)


class Redirection:
    """One call's. `refusal`: a sentence, if it was sent only where this phone cannot call."""

    def __init__(self, account: Account, target: Uri) -> None:
        self._account = account
        self._waiting: list[tuple[float, Uri]] = []  # the likeliest first
        self._seen = [target]
        self._tried = 0
        self.refusal = ""

    def learn(self, response: Response) -> None:
        """Take up the Contacts of a 3xx; what cannot be read or called is left out."""
        self.refusal = ""
        if response.status not in FOLLOWED:
            return
        for value in listed(response, "Contact"):
            try:
                contact = NameAddr.parse_any(value)
                uri = redirected(contact.uri, self._account)
            except CannotBeCalled as fault:
                self.refusal = str(fault)
                continue
            except RemoteProtocolError:
                continue
            if len(self._seen) <= 2 * MOST_TRIED and not any(
                uri.same_as(each) for each in self._seen
            ):
                self._seen.append(uri)
                self._waiting.append((_q(contact), uri))
        self._waiting.sort(key=lambda each: -each[0])  # stable: among equals their order stands

    def next(self) -> Uri | None:
        """The URI to call now; None if none is left."""
        if not self._waiting or self._tried >= MOST_TRIED:
            return None
        self._tried += 1
        return self._waiting.pop(0)[1]


def _q(contact: NameAddr) -> float:
    try:
        return min(max(float(contact.params.get("q") or 1.0), 0.0), 1.0)
    except ValueError:
        return 0.0
