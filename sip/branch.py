"""Signed branches of a stateless proxy, made from the message and a secret (RFC 3261 16.11).

The branch a proxy puts into its own Via is a keyed hash of branch and sent-by of the Via beneath
it. So a retransmission, a CANCEL and the ACK to a failure leave with the branch of their INVITE,
whichever of the proxies that know the key forwards them; and a proxy that gets the response can
tell from the two topmost Vias alone that the request was once forwarded.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b

from sip.errors import RemoteProtocolError
from sip.grammar import canonical_host
from sip.message import Message
from sip.via import MAGIC_COOKIE, Via

_SEPARATOR = "\x00"


def keyed_hash(key: bytes, *parts: str) -> str:
    """32 characters 0-9 and a-f, 128 bits: equal for equal parts and key, not to be guessed without
    the key.

    `key` holds at most 64 bytes (BLAKE2's limit, RFC 7693 2.1).
    """
    keyed = _keyed(key).copy()
    keyed.update(_SEPARATOR.join(parts).encode("utf-8", "surrogateescape"))
    return keyed.hexdigest()


@lru_cache(maxsize=16)
def _keyed(key: bytes) -> blake2b:
    return blake2b(key=key, digest_size=16)


def make_branch(key: bytes, message: Message, beneath: Via | None = None) -> str:
    """The branch to push above the message's topmost Via, or above what `beneath` takes that
    for."""
    return MAGIC_COOKIE + keyed_hash(key, *_identity(beneath or message.via, message))


def is_branch_of(key: bytes, via: Via, beneath: Via, message: Message) -> bool:
    """Does `via` carry the branch that `make_branch` made over `beneath`?"""
    return via.branch == MAGIC_COOKIE + keyed_hash(key, *_identity(beneath, message))


def _identity(via: Via, message: Message) -> list[str]:
    """The words that name the transaction. RFC 3261 16.11: of a peer whose branch has the magic
    cookie branch and sent-by are enough, older peers need the fields that a response repeats as
    they are."""
    parts, branch = branch_inputs(via), via.branch
    # RFC 4475 3.2.1: a cookie alone
    if not branch.startswith(MAGIC_COOKIE) or branch == MAGIC_COOKIE:
        try:
            tag = message.from_tag
        except RemoteProtocolError:
            tag = ""
        parts += [message.call_id, str(message.cseq.number), tag]
    return parts


def branch_inputs(via: Via) -> list[str]:
    """The parts of a Via, whose branch has the magic cookie, that the branch above it is made from:
    branch and sent-by name the transaction, and nothing else does (RFC 3261 17.2.3). A NAT may give
    each message of it another port."""
    return [
        canonical_host(via.host),
        str(via.port or ""),
        via.branch,
        via.params.get("maddr") or "",
    ]
