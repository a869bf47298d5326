"""Digest authentication (RFC 3261 22, RFC 7616, RFC 8760), before any other SBB sees a request.

Nonces hold their own time and signature, so any server can check one that another has given.
Guessing is slowed down (login_throttle.py).

Strangers do not learn which users exist: every request outside of dialogs, of any method, is
challenged first, and an unknown user's password is checked at the same cost as a known one's. Not
challenged are ACK and CANCEL, which cannot be (RFC 3261 22.1), and methods that mean nothing
outside of a dialog; their response does not depend on the user.

A nonce is good for the address it was sent to. So nobody can send wrong passwords in the name of
another address, whose user would then have to wait: with UDP any source address can be forged, but
only its owner receives the nonce. A password is checked only with a good nonce; otherwise the phone
gets a new one (stale, RFC 7616 3.3), which does not tell whether the password was right.

The digest's `uri` says what the password was given for (RFC 7616 3.4.6). Phones write it with or
without port and parameters, or the domain alone, and a proxy on the way may have rewritten the
Request-URI, so the two need not be equal (RFC 3261 22.4). Where they do not name the same user at
the same domain, the nonce must be one that was given for this very method and Request-URI: else a
password given for one call could be used for another. A `uri` that names another user is refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from sip.digest import (
    Challenge,
    Credentials,
    check,
    hash_password,
    is_nonce_for,
    make_nonce,
    nonce_age,
)
from sip.errors import RemoteProtocolError
from sip.message import Request
from sip.uri import Uri
from slee_mock.container.events import NOTHING, Event, Outcome, RequestEvent
from slee_mock.container.sbb import Entity, InitialEvent, the_call
from slee_mock.services.call_record import is_again
from slee_mock.services.login_throttle import FailedLogins, FailedLoginSlot
from slee_mock.sip_adaptor import LocalResponses

NONCE_LIFE = 300.0  # seconds
# Phones that know MD5 alone (baresip 1.0, SIPp 3.6) give up where SHA-256 is offered beside it, in
# either order.
DIGEST = ("MD5",)
QOP = ("", "auth")  # the first: RFC 2069's form
# ACK and CANCEL cannot be challenged (RFC 3261 22.1). The others are 481 outside of dialogs,
# whomever they name.
UNCHALLENGED = ("ACK", "CANCEL", "BYE", "UPDATE", "INFO", "PRACK", "NOTIFY")


def _is_challenged(event: RequestEvent) -> bool:
    in_dialog = event.request.to_tag and event.request.method != "REGISTER"
    # The proxy lets nobody into a dialog that it does not know: 481.
    return event.request.method not in UNCHALLENGED and not in_dialog


class DigestAuthentication:
    """Challenges requests outside of dialogs: REGISTER with 401, all others with 407."""

    name = "authentication"
    records = (FailedLoginSlot,)
    events = (InitialEvent(RequestEvent, name=the_call, when=_is_challenged),)

    def __init__(
        self,
        answers: LocalResponses,
        key: bytes,
        users: Mapping[str, str],
        realm: str,
        algorithms: Sequence[str] = DIGEST,
    ) -> None:
        self._answers, self._key, self._users, self._realm = answers, key, users, realm
        self._algorithms = algorithms  # what is preferred first

    def handle(self, event: Event, entity: Entity) -> Outcome:
        assert isinstance(event, RequestEvent)
        request = event.request
        # it was let in, and its nonce may have grown old in the meantime
        if is_again(entity.transaction, request, event.time):
            return NOTHING
        credentials = self._credentials(request)
        if credentials is None:
            return self._challenge(event)
        if not self._is_good(credentials, event):
            return self._challenge(event, stale=True)
        name, address = credentials.username, came_from(event)
        logins = FailedLogins.read(entity.transaction, self._key, name, address)
        if logins.is_repeated(credentials.response):
            return self._challenge(event)
        wait = logins.wait(event.time)
        if wait > 0:
            return self._slow_down(event, wait)
        if not self._proves(credentials, request):
            writes = (logins.failed(credentials.response, event.time),)
            return self._challenge(event)._replace(writes=writes, drop_reason="wrong_password")
        return self._proven(event, credentials)._replace(writes=logins.cleared())

    def _proven(self, event: RequestEvent, credentials: Credentials) -> Outcome:
        request = event.request
        claimed = (request.to if request.method == "REGISTER" else request.from_).uri
        if _names_another_user(credentials.uri, request):
            return self._answers.refuse(event, 400, "Digest For Another URI")  # RFC 7616 3.4.6
        if not claimed.is_sip or credentials.username != claimed.username:
            return self._answers.refuse(event, 403, "Password Of Another User")
        return NOTHING

    def _is_good(self, credentials: Credentials, event: RequestEvent) -> bool:
        """Is the nonce young and this address's? Another request's will do only if the digest's uri
        names this one."""
        age = nonce_age(self._key, credentials.nonce, event.time, self._scope(event))
        if age is None or not -NONCE_LIFE <= age <= NONCE_LIFE:
            return False
        request = event.request
        return _is_same_resource(credentials.uri, request) or is_nonce_for(
            self._key, credentials.nonce, self._scope(event), _target(request)
        )

    def _scope(self, event: RequestEvent) -> str:
        return f"{self._realm} {came_from(event)}"

    def _credentials(self, request: Request) -> Credentials | None:
        """Reads the first credentials for this realm that can be checked."""
        for value in request.all(_header(request, "Authorization")):
            try:
                credentials = Credentials.parse(value)
            except RemoteProtocolError:
                continue  # another scheme, or half a one: as good as none
            is_ours = credentials.realm == self._realm and credentials.algorithm in self._algorithms
            if is_ours and credentials.qop in QOP:
                return credentials
        return None

    def _proves(self, credentials: Credentials, request: Request) -> bool:
        password = self._users.get(credentials.username)
        ha1 = hash_password(
            credentials.username, self._realm, password or "", credentials.algorithm
        )
        right = check(credentials, request.method, ha1)  # for unknown users too: it takes its time
        return right and password is not None

    def _slow_down(self, event: RequestEvent, wait: float) -> Outcome:
        """Answers 500 with Retry-After (RFC 3261 21.5.1, 20.33), to the right password too: it is
        not even looked at.

        A phone whose owner has just corrected the password tries again by itself when told. After
        403 it would not (21.4.4), nor after another 401, which would call the right password wrong;
        and 503 would have it, or the proxy of its whole company, send nothing else here for that
        long (21.5.4).
        """
        refusal = self._answers.refuse(
            event, 500, "Too Many Wrong Passwords", [("Retry-After", str(math.ceil(wait)))]
        )
        return refusal._replace(drop_reason="guessing_slowed")

    def _challenge(self, event: RequestEvent, stale: bool = False) -> Outcome:
        nonce = make_nonce(self._key, event.time, self._scope(event), _target(event.request))
        # RFC 8760 2.3: the preferred algorithm first; a phone takes the first it knows.
        challenges = [
            Challenge(self._realm, nonce, algorithm, stale=stale) for algorithm in self._algorithms
        ]
        name = _header(event.request, "Authenticate")
        status = 401 if event.request.method == "REGISTER" else 407
        return self._answers.refuse(
            event, status, fields=[(name, str(challenge)) for challenge in challenges]
        )


def came_from(event: RequestEvent) -> str:
    """Reads the phone's address as the forwarder saw it, which writes `received` anew over whatever
    a phone wrote there."""
    vias = event.request.vias
    return (vias[1].received or vias[1].host) if len(vias) > 1 else event.source[0]


def _target(request: Request) -> str:
    return f"{request.method} {request.uri}"


def _read_uri(text: str) -> Uri | None:
    """Reads a digest's uri; some phones write the domain without a scheme. None if it is none."""
    for each in (text, f"sip:{text}"):
        try:
            return Uri.parse(each)
        except RemoteProtocolError:
            continue
    return None


def _is_same_resource(text: str, request: Request) -> bool:
    """Is it the same user at the same domain? Default port and parameters make no difference."""
    uri = _read_uri(text)
    return uri is not None and uri.aor() == Uri.parse_any(request.uri).aor()


def _names_another_user(text: str, request: Request) -> bool:
    """Does the digest's uri name another user? A REGISTER may be for the user in its To."""
    uri = _read_uri(text)
    if uri is None:
        return True
    meant = {"", Uri.parse_any(request.uri).username}
    if request.method == "REGISTER":
        meant.add(request.to.uri.username)
    return uri.username not in meant


def _header(request: Request, kind: str) -> str:
    if request.method == "REGISTER":
        return "WWW-Authenticate" if kind == "Authenticate" else "Authorization"
    return f"Proxy-{kind}"
