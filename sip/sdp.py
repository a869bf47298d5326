"""Session descriptions: what each side of a call says about its media, and the agreement of the
two.

RFC 8866 (and 4566) is the language, RFC 3264 the negotiation. A phone here has one audio stream: an
answer accepts the first audio stream it can carry with one codec (plus telephone-event) and turns
the others down with port 0. Pure: text in, text or a MediaPlan out. Faults of the other side are
RemoteProtocolError, 400 for a description that cannot be read and 488 for one that can but offers
nothing we have.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from sip.errors import RemoteProtocolError
from sip.grammar import is_number

Address = tuple[str, int]
Line = tuple[str, str]

CONTENT_TYPE = "application/sdp"
TELEPHONE_EVENT = 101
# RFC 3551 table 4; other static types are not ours to speak
STATIC = {"0": "PCMU/8000", "8": "PCMA/8000"}
NUMBERS = {"PCMU": "0", "PCMA": "8"}
PROTOCOLS = ("RTP/AVP", "RTP/AVPF")
LONGEST_NUMBER = 20  # digits: 64 bits (RFC 8866 5.2)


class MediaDirection(str, Enum):
    """Which way a stream flows, seen from the side whose description says so (RFC 8866 6.7)."""

    SENDRECV = "sendrecv"
    SENDONLY = "sendonly"
    RECVONLY = "recvonly"
    INACTIVE = "inactive"

    @classmethod
    def of(cls, sends: bool, receives: bool) -> MediaDirection:
        if sends:
            return cls.SENDRECV if receives else cls.SENDONLY
        return cls.RECVONLY if receives else cls.INACTIVE

    @property
    def sends(self) -> bool:
        return self in (MediaDirection.SENDRECV, MediaDirection.SENDONLY)

    @property
    def receives(self) -> bool:
        return self in (MediaDirection.SENDRECV, MediaDirection.RECVONLY)

    def facing(self, other: MediaDirection) -> MediaDirection:
        """The part of this direction that is left when the other side's is `other` (RFC 3264
        6.1)."""
        return MediaDirection.of(self.sends and other.receives, self.receives and other.sends)


@dataclass(frozen=True)
class MediaDescription:
    """One m= line and the lines beneath it."""

    kind: str
    port: int
    protocol: str
    formats: tuple[str, ...]
    lines: tuple[Line, ...] = ()
    ports: int = 1

    def __iter__(self) -> Iterator[Line]:
        port = f"{self.port}/{self.ports}" if self.ports != 1 else str(self.port)
        yield "m", " ".join((self.kind, port, self.protocol, *self.formats))
        yield from self.lines

    @property
    def carries_audio(self) -> bool:
        return self.kind == "audio" and self.port != 0 and self.protocol in PROTOCOLS

    def encodings(self) -> dict[str, str]:
        """Payload type -> "NAME/rate" in order of preference; types that nothing explains are left
        out."""
        named: dict[str, str] = {}
        for value in attributes(self.lines, "rtpmap"):
            number, _, encoding = value.partition(" ")
            named.setdefault(number, encoding.strip())
        known = ((number, named.get(number, STATIC.get(number, ""))) for number in self.formats)
        return {number: _encoding(text) for number, text in known if text}

    def rejected(self) -> MediaDescription:
        """This stream turned down: same place, port 0 (RFC 3264 6)."""
        return MediaDescription(self.kind, 0, self.protocol, self.formats or ("0",))


@dataclass(frozen=True)
class SessionDescription:
    """A whole description: its session lines in order, then its streams. Lines nobody here knows
    are kept."""

    lines: tuple[Line, ...]
    media: tuple[MediaDescription, ...] = ()

    @classmethod
    def parse(cls, data: bytes | str) -> SessionDescription:
        """Read a body; RemoteProtocolError (400) says which line is at fault."""
        lines = _split(data)
        starts = [index for index, (kind, _) in enumerate(lines) if kind == "m"]
        edges = [*starts, len(lines)]
        media = tuple(
            _media(lines[start:end]) for start, end in zip(starts, edges[1:], strict=True)
        )
        return cls(tuple(lines[: edges[0]]), media)

    def __str__(self) -> str:
        lines = (*self.lines, *(line for stream in self.media for line in stream))
        return "".join(f"{kind}={value}\r\n" for kind, value in lines)

    def to_bytes(self) -> bytes:
        return str(self).encode("utf-8", "surrogateescape")

    def connection(self, stream: MediaDescription) -> str:
        """The host where this stream is wanted; the stream's own c= line goes before the session's
        (RFC 8866 5.7)."""
        text = _first(stream.lines, "c") or _first(self.lines, "c")
        parts = text.split() if text else []
        if len(parts) != 3 or parts[0] != "IN" or parts[1] not in ("IP4", "IP6"):
            raise RemoteProtocolError(
                f"SDP: no usable c= line for the {stream.kind} stream: {text!r}"
            )
        return parts[2].partition("/")[0]

    def direction(self, stream: MediaDescription) -> MediaDirection:
        """Which way the stream flows for its author; an unspecified host is an old phone's hold
        (RFC 3264 8.4)."""
        own = next(_directions(stream.lines), None) or next(
            _directions(self.lines), MediaDirection.SENDRECV
        )
        return MediaDirection.of(own.sends, own.receives and not _nowhere(self.connection(stream)))


@dataclass(frozen=True)
class MediaPlan:
    """The parameters of a media session, agreed by offer and answer. `payload_type` and
    `telephone_event` are the numbers to send with; `direction` is ours; `held_there`: the other
    side does not want to hear us; `peers`: hosts their signalling is known to come from, behind a
    NAT the only hint of where their media will."""

    remote: Address
    payload_type: int
    codec: str
    telephone_event: int | None
    direction: MediaDirection
    held_there: bool = False
    remote_rtcp: Address | None = None  # None: the port after `remote`'s (RFC 3550 11)
    peers: tuple[str, ...] = ()


def offer(
    address: str,
    port: int,
    codecs: Sequence[str] = ("PCMU", "PCMA"),
    session_id: int = 1,
    version: int = 1,
    direction: MediaDirection = MediaDirection.SENDRECV,
) -> SessionDescription:
    """Offer one audio stream at `address`, our codecs in order of preference, and
    telephone-event."""
    encodings = {NUMBERS[codec]: f"{codec}/8000" for codec in codecs}
    encodings[str(TELEPHONE_EVENT)] = "telephone-event/8000"
    stream = _audio(port, "RTP/AVP", encodings, direction)
    return SessionDescription(_head(address, session_id, version, ("0 0",)), (stream,))


def offer_again(
    local: SessionDescription,
    address: str,
    session_id: int,
    version: int,
    direction: MediaDirection,
    codecs: Sequence[str] = (),
) -> SessionDescription:
    """The next offer in the session of `local`, as for hold and resume (RFC 3264 8): what was
    agreed, or with `codecs` all of them instead of the one agreed on."""
    streams = tuple(
        _widened(each, codecs, direction)
        if codecs and each.carries_audio
        else _redirected(each, direction)
        for each in local.media
    )
    return SessionDescription(_head(address, session_id, version, _times(local)), streams)


def answer(
    offered: SessionDescription,
    address: str,
    port: int,
    codecs: Sequence[str] = ("PCMU", "PCMA"),
    session_id: int = 1,
    version: int = 1,
    direction: MediaDirection = MediaDirection.SENDRECV,
) -> SessionDescription:
    """Answer stream by stream (RFC 3264 6); `direction` is what we would like. 488 if no stream
    can be carried, be it for its codecs or because its address is a name, a group's, or of the
    family that `address` is not."""
    streams: list[MediaDescription] = []
    accepted = False
    for stream in offered.media:
        usable = (
            stream.carries_audio and not accepted and _reaches(address, offered.connection(stream))
        )
        chosen = _choose(stream, codecs) if usable else {}
        if chosen:
            accepted = True
            ours = direction.facing(offered.direction(stream))
            streams.append(_audio(port, stream.protocol, chosen, ours))
        else:
            streams.append(stream.rejected())
    if not accepted:
        wanted = f"{' or '.join(codecs)} over IPv{6 if ':' in address else 4}"
        raise RemoteProtocolError(f"SDP: no audio stream with {wanted} is offered", status=488)
    head = _head(address, session_id, version, _times(offered))
    return SessionDescription(head, tuple(streams))


def plan(local: SessionDescription, remote: SessionDescription) -> MediaPlan:
    """The parameters that the two descriptions agree on, whichever was the offer; 488 if there are
    none.

    We send with the numbers of the remote description: it says what its author wants to receive
    (RFC 3264 5.1).
    """
    for mine, theirs in zip(local.media, remote.media, strict=False):
        if not (mine.carries_audio and theirs.carries_audio):
            continue
        codecs = [encoding.partition("/")[0] for encoding in mine.encodings().values()]
        chosen = _choose(theirs, codecs)
        if chosen:
            numbers = list(chosen)
            wanted = remote.direction(theirs)
            host = _unicast(remote.connection(theirs))
            if not _reaches(local.connection(mine), host):
                continue
            return MediaPlan(
                remote=(host, theirs.port),
                payload_type=int(numbers[0]),
                codec=chosen[numbers[0]].partition("/")[0],
                telephone_event=int(numbers[1])
                if len(numbers) > 1 and "telephone-event" in codecs
                else None,
                direction=local.direction(mine).facing(wanted),
                held_there=not wanted.receives,
                remote_rtcp=_rtcp(theirs, host),
            )
    raise RemoteProtocolError("SDP: the two sides agree on no audio stream", status=488)


def attributes(lines: Sequence[Line], name: str) -> list[str]:
    """The values of all a=name lines ("" for a flag)."""
    pairs = (value.partition(":") for kind, value in lines if kind == "a")
    return [value for key, _, value in pairs if key == name]


def _split(data: bytes | str) -> list[Line]:
    text = data.decode("utf-8", "surrogateescape") if isinstance(data, bytes) else data
    lines: list[Line] = []
    for row in text.replace("\r\n", "\n").replace("\r", "\n").strip("\n\0 ").split("\n"):
        row = row.rstrip()
        if not row and lines:
            continue  # an empty line among the others
        if len(row) < 2 or row[1] != "=" or not row[0].isalpha():
            raise RemoteProtocolError(f"SDP: not a type=value line: {row[:60]!r}")
        lines.append((row[0], row[2:]))
    if (lines[0][0], lines[0][1].strip()) != ("v", "0"):
        raise RemoteProtocolError("SDP: the first line is not v=0")
    return lines


def _media(lines: Sequence[Line]) -> MediaDescription:
    value = lines[0][1]
    parts = value.split()
    if len(parts) < 3:
        raise RemoteProtocolError(f"SDP: incomplete m= line: {value[:60]!r}")
    port, slash, count = parts[1].partition("/")
    ports = _number(count, 65535) if slash else 1
    # Without formats: some phones turn a stream down like that, and some only list them below.
    listed = dict.fromkeys(text.partition(" ")[0] for text in attributes(lines[1:], "rtpmap"))
    formats = tuple(parts[3:]) or tuple(listed)
    return MediaDescription(
        parts[0], _number(port, 65535), parts[2], formats, tuple(lines[1:]), ports
    )


def _number(text: str, most: int) -> int:
    if not (is_number(text, LONGEST_NUMBER) and int(text) <= most):
        raise RemoteProtocolError(f"SDP: {text[:20]!r} is not a number from 0 to {most}")
    return int(text)


def _times(description: SessionDescription) -> tuple[str, ...]:
    return tuple(value for kind, value in description.lines if kind == "t") or ("0 0",)


def _first(lines: Sequence[Line], wanted: str) -> str | None:
    return next((value for kind, value in lines if kind == wanted), None)


def _directions(lines: Sequence[Line]) -> Iterator[MediaDirection]:
    return (
        direction
        for kind, value in lines
        if kind == "a"
        for direction in MediaDirection
        if direction == value.strip()
    )


def _encoding(text: str) -> str:
    # Names compare without case and one channel is the default (RFC 8866 6.6).
    name, _, rest = text.partition("/")
    known = {"pcmu": "PCMU", "pcma": "PCMA", "telephone-event": "telephone-event"}
    rate, _, channels = rest.partition("/")
    return f"{known.get(name.lower(), name)}/{rate}" + (
        f"/{channels}" if channels not in ("", "1") else ""
    )


def _choose(stream: MediaDescription, codecs: Sequence[str]) -> dict[str, str]:
    """The stream's first codec that is among ours, and its telephone-event; empty if there is
    none."""
    encodings = {
        number: text for number, text in stream.encodings().items() if _payload_type(number)
    }
    wanted = {f"{codec}/8000" for codec in codecs if codec in NUMBERS}
    chosen = [(number, text) for number, text in encodings.items() if text in wanted][:1]
    if chosen:
        chosen += [
            (number, text) for number, text in encodings.items() if text == "telephone-event/8000"
        ][:1]
    return dict(chosen)


def _payload_type(text: str) -> bool:
    return is_number(text, 3) and int(text) <= 127


def _audio(
    port: int, protocol: str, encodings: dict[str, str], direction: MediaDirection
) -> MediaDescription:
    lines: list[Line] = [("a", f"rtpmap:{number} {text}") for number, text in encodings.items()]
    lines += [
        ("a", f"fmtp:{number} 0-15")
        for number, text in encodings.items()
        if text.startswith("telephone-event")
    ]
    lines += [("a", "ptime:20"), ("a", direction.value)]
    return MediaDescription("audio", port, protocol, tuple(encodings), tuple(lines))


def _redirected(stream: MediaDescription, direction: MediaDirection) -> MediaDescription:
    if stream.port == 0:
        return stream
    kept = tuple(line for line in stream.lines if not any(_directions([line])))
    return replace(stream, lines=(*kept, ("a", direction.value)))


def _widened(
    stream: MediaDescription, codecs: Sequence[str], direction: MediaDirection
) -> MediaDescription:
    """With all our codecs; payload types that were given keep their meaning (RFC 3264 8.3.2)."""
    encodings = stream.encodings()
    events = next(
        (number for number, text in encodings.items() if text == "telephone-event/8000"), None
    )
    wide = {NUMBERS[codec]: f"{codec}/8000" for codec in codecs}
    known = [number for number, text in encodings.items() if text in wide.values()]
    ordered = {number: encodings[number] for number in known}
    ordered |= {number: text for number, text in wide.items() if text not in ordered.values()}
    ordered[events or str(TELEPHONE_EVENT)] = "telephone-event/8000"
    return _audio(stream.port, stream.protocol, ordered, direction)


def _head(address: str, session_id: int, version: int, times: Sequence[str]) -> tuple[Line, ...]:
    where = f"IN {'IP6' if ':' in address else 'IP4'} {address}"
    lines: list[Line] = [
        ("v", "0"),
        ("o", f"- {session_id} {version} {where}"),
        ("s", "-"),
        ("c", where),
    ]
    return (*lines, *(("t", value) for value in times))


def _rtcp(stream: MediaDescription, host: str) -> Address | None:
    """Where a=rtcp says its reports go (RFC 3605); without it the next port."""
    for value in attributes(stream.lines, "rtcp"):
        parts = value.split()
        if len(parts) in (1, 4) and _number(parts[0], 65535) > 0:
            return (_unicast(parts[3]) if len(parts) == 4 else host), int(parts[0])
    return None


# -- hosts of c= lines (RFC 8866 5.7): can they be sent to? ----------------------------------------


def _nowhere(host: str) -> bool:
    """Is it no address at all, which is a hold (RFC 3264 8.4)?"""
    return host in ("0.0.0.0", "::") or host.endswith(".invalid")


def _unicast(host: str) -> str:
    """A host that may be sent to. Names are refused, for nothing on the media path waits for
    DNS."""
    if _nowhere(host):
        return "::" if ":" in host else "0.0.0.0"
    try:
        parsed = ipaddress.ip_address(host)
    except ValueError:
        raise RemoteProtocolError(
            f"SDP: the media address {host[:60]!r} is not a literal one", status=488
        ) from None
    if parsed.is_multicast or host == "255.255.255.255":
        raise RemoteProtocolError(f"SDP: the media address {host} is not one host's", status=488)
    return str(parsed)  # as recvfrom spells it


def _reaches(ours: str, theirs: str) -> bool:
    """Can media go from the one host to the other? No address at all is a hold, which nothing
    goes to."""
    try:
        host = _unicast(theirs)
    except RemoteProtocolError:
        return False
    return _nowhere(ours) or _nowhere(host) or (":" in ours) == (":" in host)
