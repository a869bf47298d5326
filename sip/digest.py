"""Digest authentication (RFC 3261 22, RFC 7616, RFC 8760): MD5 and SHA-256, qop=auth, and RFC
2069's form without qop.

Nonces hold the time they were made and a signature, so that every server which knows the key can
check one that another server gave out.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from sip.branch import keyed_hash
from sip.errors import RemoteProtocolError
from sip.grammar import quoted, split_list, unquoted

ALGORITHMS = {"MD5": hashlib.md5, "SHA-256": hashlib.sha256}
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9-]*\s+[^\s=]")
_CREDENTIALS = ("username", "realm", "nonce", "uri", "response")  # each must be there
_QUOTED_ALWAYS = (*_CREDENTIALS, "opaque", "cnonce", "domain")


@dataclass(frozen=True)
class Challenge:
    """WWW-Authenticate or Proxy-Authenticate (RFC 3261 20.44, 20.27). `qop` lists what the server
    offers."""

    realm: str
    nonce: str
    algorithm: str = "MD5"
    qop: tuple[str, ...] = ("auth",)
    opaque: str = ""
    stale: bool = False

    @staticmethod
    def parse(value: str) -> Challenge:
        """Raises RemoteProtocolError for another scheme than Digest or a challenge without realm or
        nonce."""
        params = _parse(value)
        if not params.get("nonce") or "realm" not in params:
            raise RemoteProtocolError("a challenge without realm or nonce")
        qop = tuple(
            part.strip().lower() for part in params.get("qop", "").split(",") if part.strip()
        )
        return Challenge(
            params["realm"],
            params["nonce"],
            params.get("algorithm", "MD5").upper(),
            qop,
            params.get("opaque", ""),
            params.get("stale", "").lower() == "true",
        )

    @staticmethod
    def parse_all(value: str) -> list[Challenge]:
        """Those of one header line that can be read. RFC 3261 7.3.1 wants a line for each, and some
        servers join them by commas all the same; schemes other than Digest are passed over."""
        found = []
        for part in _challenges_in(value):
            try:
                found.append(Challenge.parse(part))
            except RemoteProtocolError:
                continue
        return found

    def __str__(self) -> str:
        params = {"realm": self.realm, "nonce": self.nonce, "algorithm": self.algorithm}
        if self.opaque:
            params["opaque"] = self.opaque
        if self.stale:
            params["stale"] = "TRUE"
        return _format(params) + (f', qop="{",".join(self.qop)}"' if self.qop else "")

    @property
    def supported(self) -> bool:
        """Can `answer` answer it?"""
        return self.algorithm in ALGORITHMS and (not self.qop or "auth" in self.qop)


@dataclass(frozen=True)
class Credentials:
    """Authorization or Proxy-Authorization (RFC 3261 20.7, 20.28)."""

    username: str
    realm: str
    nonce: str
    uri: str
    response: str
    algorithm: str = "MD5"
    qop: str = ""
    nc: str = ""
    cnonce: str = ""
    opaque: str = ""

    @staticmethod
    def parse(value: str) -> Credentials:
        """Raises RemoteProtocolError if a part is missing."""
        known = {each.name for each in fields(Credentials)}
        params = {name: text for name, text in _parse(value).items() if name in known}
        missing = [name for name in _CREDENTIALS if name not in params]
        if missing:
            raise RemoteProtocolError(f"credentials without {', '.join(missing)}")
        params["response"] = params["response"].lower()
        params["algorithm"] = params.get("algorithm", "MD5").upper()
        params["qop"] = params.get("qop", "").lower()
        return Credentials(**params)

    def __str__(self) -> str:
        return _format(
            {name: text for name, text in vars(self).items() if text or name in _CREDENTIALS}
        )


def answer(
    challenge: Challenge, method: str, uri: str, user: str, password: str, cnonce: str, nc: int = 1
) -> Credentials:
    """The client's credentials for a challenge. `nc` counts the uses of this nonce from 1.

    Raises RemoteProtocolError if the challenge wants an algorithm or a protection we do not have.
    """
    if not challenge.supported:
        raise RemoteProtocolError(
            f"unsupported challenge: {challenge.algorithm} {','.join(challenge.qop)}"
        )
    ha1 = hash_password(user, challenge.realm, password, challenge.algorithm)
    draft = Credentials(
        user,
        challenge.realm,
        challenge.nonce,
        uri,
        "",
        challenge.algorithm,
        opaque=challenge.opaque,
    )
    if challenge.qop:
        draft = replace(draft, qop="auth", nc=f"{nc:08x}", cnonce=cnonce)
    return replace(draft, response=_response(draft, method, ha1))


def check(credentials: Credentials, method: str, ha1: str) -> bool:
    """Do the credentials prove knowledge of the password whose `hash_password` is `ha1`? Takes
    equal time either way."""
    if credentials.algorithm not in ALGORITHMS or credentials.qop not in ("", "auth"):
        return False
    return _is_equal(_response(credentials, method, ha1), credentials.response)


def hash_password(user: str, realm: str, password: str, algorithm: str = "MD5") -> str:
    """H(A1) of RFC 7616 3.4.2: what a server may keep in the place of the password."""
    return _hash(algorithm, f"{user}:{realm}:{password}")


def _response(credentials: Credentials, method: str, ha1: str) -> str:
    ha2 = _hash(credentials.algorithm, f"{method}:{credentials.uri}")
    middle = credentials.nonce
    if credentials.qop:
        middle += f":{credentials.nc}:{credentials.cnonce}:{credentials.qop}"
    return _hash(credentials.algorithm, f"{ha1}:{middle}:{ha2}")


def _hash(algorithm: str, text: str) -> str:
    return ALGORITHMS[algorithm](text.encode("utf-8", "surrogateescape")).hexdigest()


def make_nonce(key: bytes, wall: float, scope: str, target: str = "") -> str:
    """A nonce that needs no memory: the time of day in hex, a keyed hash of it and of what it is
    good for, such as the realm, and a second one of the request that it was given for."""
    stamp = f"{int(wall):x}"
    bound = f".{_bound(key, stamp, scope, target)}" if target else ""
    return f"{stamp}.{keyed_hash(key, 'nonce', stamp, scope)}{bound}"


def nonce_age(key: bytes, nonce: str, wall: float, scope: str) -> float | None:
    """Seconds since the nonce was made, or None if nobody with this key made it for this scope."""
    stamp, signature, _ = _nonce_parts(nonce)
    if not _is_equal(keyed_hash(key, "nonce", stamp, scope), signature):
        return None
    return wall - int(stamp, 16)


def is_nonce_for(key: bytes, nonce: str, scope: str, target: str) -> bool:
    """Was the nonce given for this request? Its age is another question."""
    stamp, _, bound = _nonce_parts(nonce)
    return _is_equal(_bound(key, stamp, scope, target), bound)


def _bound(key: bytes, stamp: str, scope: str, target: str) -> str:
    return keyed_hash(key, "nonce for", stamp, scope, target)


def _nonce_parts(nonce: str) -> tuple[str, str, str]:
    """Time, signature, and the second one or ""."""
    stamp, _, rest = nonce.partition(".")
    signature, _, bound = rest.partition(".")
    return stamp, signature, bound


def _is_equal(expected: str, told: str) -> bool:
    return hmac.compare_digest(expected.encode(), told.encode("utf-8", "surrogateescape"))


def _parse(value: str) -> dict[str, str]:
    match = re.match(r"Digest\s+", value.strip(), re.IGNORECASE | re.ASCII)
    if not match:
        raise RemoteProtocolError(f"not Digest authentication: {value[:20]!r}", status=401)
    pairs = (part.partition("=") for part in split_list(value.strip()[match.end() :]))
    return {name.strip().lower(): unquoted(text.strip()) for name, _, text in pairs}


def _challenges_in(value: str) -> list[str]:
    """The line taken apart where a scheme's name begins the next challenge: a word with a blank
    after it."""
    try:
        parts = split_list(value)
    except RemoteProtocolError:
        return []
    found: list[str] = []
    for part in parts:
        if _SCHEME.match(part) or not found:
            found.append(part)
        else:
            found[-1] += f", {part}"
    return found


def _format(params: Mapping[str, str]) -> str:
    return "Digest " + ", ".join(
        f"{name}={quoted(text) if name in _QUOTED_ALWAYS else text}"
        for name, text in params.items()
    )
