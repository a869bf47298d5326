"""Answers to digest challenges (RFC 3261 22, RFC 7616, RFC 8760).

A request may meet several challengers on its way, each with a realm of its own: every repeat
carries credentials for all of them (RFC 3261 22.3, RFC 3665 3.3). A realm is answered once with the
password, and again only if the nonce was stale or had been used before.

Credentials let whoever gets them try passwords at leisure. So they are made only for the account's
own server, which the endpoint knows by its address, and only in its realm: the account's domain,
those named with it, those in which REGISTER was challenged, and what is beneath or above them. As
long as nobody has challenged a REGISTER, the realm in which a call is challenged before it rings is
believed too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from sip.digest import Challenge, answer
from sip.header import CSeq
from sip.message import Request, Response
from softphone.ua.account import Account
from softphone.ua.user_messages import ASKED_IN_ANOTHER_WAY, ASKED_IN_STRANGE_REALM, legible

MAX_ROUNDS = 8  # of one request: two proxies and a server, each stale once, and two more
MAX_REALMS = 8  # remembered: a phone has one registrar and perhaps a proxy or two
MAX_NONCES = 64  # whose uses are counted; those that still stand are never forgotten
HEADERS = {"WWW-Authenticate": "Authorization", "Proxy-Authenticate": "Proxy-Authorization"}

Key = tuple[str, str]  # header of the answer, realm


@dataclass
class Proofs:
    """The challenges that one request and its repeats have met. `fresh`: those answered with a
    nonce nobody had used, so that another challenge in that realm means a wrong password.
    `why_not`: the sentence, if something else is at fault than the password."""

    standing: dict[Key, Challenge] = field(default_factory=dict)
    fresh: set[Key] = field(default_factory=set)
    rounds: int = 0
    has_rung: bool = False  # somebody beyond the servers has answered
    why_not: str = ""


class DigestCredentials:
    """The challenges of the registrar, which are answered in advance, and how often each nonce was
    used."""

    def __init__(self, account: Account, new_token: Callable[[], str]) -> None:
        self._account = account
        self._new_token = new_token
        self._registrar: dict[Key, Challenge] = {}
        self._met: set[str] = set()  # realms answered outside of calls
        self._uses: dict[tuple[str, str], int] = {}  # (realm, nonce), the least recently used first

    def answer(
        self, request: Request, response: Response, proofs: Proofs, next_seq: Callable[[], int]
    ) -> Request | None:
        """The request once more with credentials, still without Via; None if there is nothing left
        to try."""
        found = _challenges(response)
        user, password = self._account.username, self._account.password
        if not password:
            return None
        proofs.why_not = "" if found else ASKED_IN_ANOTHER_WAY.format(name=user)
        challenges = {
            key: each for key, each in found.items() if self._trusts(each.realm, request, proofs)
        }
        if found and not challenges:
            realm = next(iter(found.values())).realm[:40]
            proofs.why_not = legible(ASKED_IN_STRANGE_REALM.format(realm=realm, name=user))
        in_vain = any(key in proofs.fresh and not each.stale for key, each in challenges.items())
        if not challenges or in_vain or proofs.rounds >= MAX_ROUNDS:
            return None
        self._remember(request, challenges)
        proofs.rounds += 1
        proofs.standing |= challenges
        # RFC 3261 22.2: a request of its own, numbered on.
        again = request.copy()
        for name in ("Via", *HEADERS.values()):
            again.remove(name)
        again.set("CSeq", str(CSeq(next_seq(), request.method)))
        self._write(again, proofs)
        return again

    def sign(self, request: Request) -> Proofs:
        """Credentials for the challenges of the REGISTER before, which saves the round trip when
        registering again."""
        proofs = Proofs(dict(self._registrar))
        self._write(request, proofs)
        return proofs

    # -- inside ------------------------------------------------------------------------------------

    def _trusts(self, realm: str, request: Request, proofs: Proofs) -> bool:
        named = {
            self._account.domain,
            *self._account.realms,
            *(realm for _, realm in self._registrar),
        }
        if request.method == "REGISTER" or any(_related(realm, own) for own in named):
            return True
        if request.to.tag or proofs.has_rung:  # by now it may be the other phone that asks
            return realm in self._met
        return not self._registrar and not self._account.realms

    def _remember(self, request: Request, challenges: dict[Key, Challenge]) -> None:
        if request.method == "REGISTER":
            self._registrar |= challenges
            for key in list(self._registrar)[:-MAX_REALMS]:
                del self._registrar[key]
        if not request.to.tag and len(self._met) < 4 * MAX_REALMS:
            self._met |= {realm for _, realm in challenges}

    def _write(self, request: Request, proofs: Proofs) -> None:
        for key, challenge in proofs.standing.items():
            count = self._count(challenge)
            user, password = self._account.username, self._account.password
            made = answer(
                challenge, request.method, request.uri, user, password, self._new_token(), count
            )
            request.add(key[0], str(made))
            (proofs.fresh.add if count == 1 else proofs.fresh.discard)(key)

    def _count(self, challenge: Challenge) -> int:
        """Which use of its nonce this is, from 1 (RFC 7616 3.4: never the same for two
        requests)."""
        nonce = challenge.realm, challenge.nonce
        count = self._uses.pop(nonce, 0) + 1
        self._uses[nonce] = count
        standing = {(each.realm, each.nonce) for each in self._registrar.values()}
        for old in [each for each in self._uses if each not in standing][:-MAX_NONCES]:
            del self._uses[old]
        return count


def _related(realm: str, own: str) -> bool:
    """Is a realm our own, or a name beneath or above it, as sip.example.org and example.org? A
    single word is above no name."""
    one, other = realm.lower().rstrip("."), own.lower().rstrip(".")
    if one == other:
        return True
    longer, shorter = (one, other) if len(one) > len(other) else (other, one)
    return (
        "." in shorter and not shorter.replace(".", "").isdigit() and longer.endswith(f".{shorter}")
    )


def _challenges(response: Response) -> dict[Key, Challenge]:
    """The first challenge of each realm that we can answer (RFC 8760 2.4: the server's order is its
    preference)."""
    found: dict[Key, Challenge] = {}
    for name, header in HEADERS.items():
        for value in response.all(name):
            for challenge in Challenge.parse_all(value):
                if challenge.supported:
                    found.setdefault((header, challenge.realm), challenge)
    return found
