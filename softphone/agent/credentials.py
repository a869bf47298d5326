"""Answers to digest challenges (RFC 3261 22, RFC 8760): once with the password, again only if the nonce was stale."""

from __future__ import annotations

from collections.abc import Callable

from sip.digest import Challenge, answer
from sip.errors import RemoteProtocolError
from sip.header import CSeq
from sip.message import Request, Response
from softphone.agent.account import Account

MAX_ROUNDS = 4  # of one request: a challenge from a proxy and one from a server, each stale once
MAX_REALMS = 8  # remembered: a phone has one registrar and perhaps a proxy or two
HEADERS = {"WWW-Authenticate": "Authorization", "Proxy-Authenticate": "Proxy-Authorization"}


class Keyring:
    """The challenges seen, by realm, and how often each nonce was used."""

    def __init__(self, account: Account, new_token: Callable[[], str]) -> None:
        self._account = account
        self._new_token = new_token
        self._challenges: dict[tuple[str, str], Challenge] = {}  # (header of the answer, realm)
        self._uses: dict[str, int] = {}

    def answer(
        self, request: Request, response: Response, rounds: int, next_seq: Callable[[], int]
    ) -> Request | None:
        """The request once more with credentials, still without Via; None if there is nothing left to try."""
        challenges = _challenges(response)
        if not challenges or not self._account.password or rounds >= MAX_ROUNDS:
            return None
        if any(self._was_answered(challenge, request, header, rounds) for header, challenge in challenges):
            return None
        for header, challenge in challenges:
            self._challenges[header, challenge.realm] = challenge
            if len(self._challenges) > MAX_REALMS:
                del self._challenges[next(iter(self._challenges))]
        # RFC 3261 22.2: a request of its own, numbered on.
        again = without(request, "Via", "Content-Length", *(header for header, _ in challenges))
        again.set("CSeq", str(CSeq(next_seq(), request.method)))
        for header, challenge in challenges:
            again.add(header, self._credentials(challenge, again))
        return again

    def sign(self, request: Request) -> None:
        """Credentials for a challenge seen before, which saves the round trip when registering again."""
        for (header, _), challenge in self._challenges.items():
            if header == "Authorization":
                request.add(header, self._credentials(challenge, request))

    def _credentials(self, challenge: Challenge, request: Request) -> str:
        count = self._uses.get(challenge.nonce, 0) + 1
        if count == 1 and len(self._uses) > 50:
            self._uses.clear()
        self._uses[challenge.nonce] = count
        user, password = self._account.user, self._account.password
        return str(answer(challenge, request.method, request.uri, user, password, self._new_token(), count))

    def _was_answered(self, challenge: Challenge, request: Request, header: str, rounds: int) -> bool:
        """Has this very request carried an answer for that realm, which was not merely too old?

        Credentials signed in advance do not count: not every server calls an old nonce stale.
        """
        if challenge.stale or rounds == 0:
            return False
        return any(f'realm="{challenge.realm}"' in value for value in request.all(header))


def without(request: Request, *names: str) -> Request:
    """A copy lacking the named headers."""
    kept = [(field.name, field.value) for field in request.fields if field.name not in names]
    return Request(request.method, request.uri, kept, request.body)


def _challenges(response: Response) -> list[tuple[str, Challenge]]:
    """The first challenge of each realm that we can answer (RFC 8760 2.4: the server's order is its preference)."""
    found: dict[tuple[str, str], Challenge] = {}
    for name, header in HEADERS.items():
        for value in response.all(name):
            try:
                challenge = Challenge.parse(value)
            except RemoteProtocolError:
                continue  # Basic and the like: not ours
            if challenge.supported:
                found.setdefault((header, challenge.realm), challenge)
    return [(header, challenge) for (header, _), challenge in found.items()]
