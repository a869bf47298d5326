"""The session description in a message's body, whatever is wrapped around it (RFC 3261 7.4, RFC
2046 5.1, RFC 5621)."""

from __future__ import annotations

import re

from sip.errors import RemoteProtocolError
from sip.message import Message
from sip.sdp import CONTENT_TYPE

DEEPEST = 3  # parts within parts
MOST_PARTS = 32
_BOUNDARY = re.compile(r';\s*boundary\s*=\s*(?:"([^"]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE)


def session_description(message: Message) -> bytes | None:
    """The SDP of a message; None if there is none. RemoteProtocolError 415 for a body that we would
    have to understand and do not: one that is not marked handling=optional (RFC 3261 20.11)."""
    if not message.body.strip():
        return None
    if (message.get("Content-Encoding") or "identity").strip().lower() != "identity":
        raise RemoteProtocolError("an encoded body", status=415)
    kind, how = message.get("Content-Type") or "", message.get("Content-Disposition") or ""
    found, faults = _find(kind, how, message.body, DEEPEST)
    if found is None and faults:
        raise RemoteProtocolError(
            f"a body of type {faults[0][:40]!r} where SDP is needed", status=415
        )
    return found


def _find(kind: str, how: str, body: bytes, depth: int) -> tuple[bytes | None, list[str]]:
    """The description in here, and the types that are neither it nor optional."""
    media_type = kind.partition(";")[0].strip().lower()
    if media_type == CONTENT_TYPE or (not media_type and body.lstrip().startswith(b"v=")):
        return body, []
    if not media_type.startswith("multipart/") or not depth:
        return None, [] if _is_optional(how) else [media_type]
    faults: list[str] = []
    for part_kind, part_how, part in _parts(kind, body):
        found, more = _find(part_kind, part_how, part, depth - 1)
        if found is not None:
            return found, []
        faults += more
    return None, faults or ([] if _is_optional(how) else [media_type])


def _parts(kind: str, body: bytes) -> list[tuple[str, str, bytes]]:
    """Content-Type, Content-Disposition and body of each part; a part without the first is plain
    text (RFC 2046 5.1)."""
    named = _BOUNDARY.search(kind)
    if not named:
        return []
    line = b"--" + re.escape((named[1] or named[2]).encode("utf-8", "surrogateescape"))
    pieces = re.split(
        rb"(?:^|\r?\n)" + line + rb"(?:--)?[ \t]*(?:\r?\n|$)", body, maxsplit=MOST_PARTS
    )
    parts = []
    for piece in pieces[1:]:
        head, _, rest = (
            piece.partition(b"\r\n\r\n") if b"\r\n\r\n" in piece else piece.partition(b"\n\n")
        )
        if piece.startswith((b"\r\n", b"\n")):  # no headers at all
            head, rest = b"", piece.lstrip(b"\r\n")
        fields = {name.strip().lower(): value.strip() for name, value in _lines(head)}
        if piece.strip():
            parts.append(
                (
                    fields.get("content-type", fields.get("c", "text/plain")),
                    fields.get("content-disposition", ""),
                    rest,
                )
            )
    return parts


def _lines(head: bytes) -> list[tuple[str, str]]:
    text = re.sub(r"\r?\n[ \t]+", " ", head.decode("utf-8", "surrogateescape"))
    pairs = (line.partition(":") for line in text.splitlines())
    return [(name, value) for name, colon, value in pairs if colon]


def _is_optional(disposition: str) -> bool:
    return re.search(r";\s*handling\s*=\s*\"?optional\b", disposition, re.IGNORECASE) is not None
