"""Shapes of messages: which header lines they have, in which order. A phone has few of them, and repeats them for ever.

Of each shape that comes one pattern is made, with the names as they stand. It finds in one go all that the forwarder
looks at, and proves what the parser would: every line is whole and unfolded, what may be there once is there once, and
From, To, CSeq and the Vias can be read. A pattern is stricter than the parser and never more lenient: what fits none
may still be a good message, and the parser decides (tests/test_quick.py holds the two equal).

Strangers can send shapes too: few are kept, and few are learned in a second.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Hashable
from typing import Any

from sip.header import canonical
from sip.message import MAX_HEAD, MAX_SIZE

MOST_SHAPES = 64
MOST_KINDS = 4_096
MOST_LINES = 48
BETWEEN, AT_ONCE = 0.1, 8  # seconds between two shapes learned, or so many at once; one costs about 3 ms

_NAMES = re.compile(rb"\n([^\s:]+):")
_NAME = re.compile(r"[\w.!%+*`'~-]{1,64}\Z", re.ASCII)
_POSSESSIVE = re.compile(r"(?<=[*+?}])\+")

# Below, `*+` and its like are possessive: what matched is not tried again otherwise. That changes no result here, and
# the time to a tenth. Python has it since 3.11; before, the additional `+` is taken out.
_PORT = r"(?::(?:[1-9]\d{0,3}|[1-5]\d{4})(?!\d))?+"
_TOKEN = r"[\w.!%+*`'~-]++"
_NUMBER = r"(?:[0-3]\d{9}|\d{1,9})"  # below 2**32
_TAGGED = r"""(?:"[^"\\\r]*+"|[^"<\r]*+) ?+<[^>\r]*+>"""
_URI = rf"sip:(?:[\w.!~*'()&=+$,%#/-]++@)?+(?P<host>[\w.-]++{_PORT})(?:;[\w.;=~%+-]*+)?+"
_REQUEST_LINE = rf"(?P<method>[A-Z]++) (?P<uri>{_URI}) SIP/2\.0\r\n"
_STATUS_LINE = r"SIP/2\.0 (?P<status>[1-6]\d\d) [^\r]*+\r\n"
_VIA = (
    r"Via: (?P<left>SIP/2\.0/UDP [^\r;]++(?:;(?!branch=)[^\r;]++)*+)"
    rf";branch=z9hG4bK(?P<branch>{_TOKEN})(?P<right>[^\r]*+)\r\n"
)
_OTHER_VIA = rf"Via: SIP/2\.0/UDP [\w.-]++{_PORT}(?:;[\w.-]++(?:=[\w.:!~*'%+-]*+)?+)*+\r\n"
_OWN_VIA = r"Via: SIP/2\.0/UDP (?P<own>[^\r;]++);branch=(?P<branch>[^\r]{39});loop=[\w.=:;-]*+\r\n"
_FIELDS = {
    "From": rf"{_TAGGED}(?:;tag={_TOKEN})?+",
    "To": rf"{_TAGGED}(?:;tag=(?P<tag>{_TOKEN}))?+",
    "Call-ID": r"(?P<call_id>[!-~][^\r]*+)",
    "Content-Length": r"(?P<length>\d{1,6})",
}
_OF_REQUESTS = {
    **_FIELDS, "CSeq": rf"{_NUMBER} (?P=method)", "Max-Forwards": r"(?P<hops>\d{1,3})",
}  # fmt: skip
_OF_ANSWERS = {**_FIELDS, "CSeq": rf"{_NUMBER} (?P<method>[A-Z]++)"}
# Written by the forwarder itself in messages of that kind, so not in another spelling, and what it needs together.
_EDITED = {False: ("Via", "Max-Forwards", "Route", "Record-Route"), True: ("Via",)}
# What is taken from a match, in the usual order.
GROUPS = {
    False: ("method", "uri", "host", "left", "branch", "right", "others", "hops", "tag", "call_id", "length",
            "routes", "record_routes"),
    True: ("status", "via", "own", "branch", "others", "tag", "call_id", "method", "length"),
}  # fmt: skip
URI = 2  # the number of that group


class Odd(Exception):
    """A message that is the parser's."""


class Shape:
    """`match(data)`, and `read`, which takes from its match what GROUPS names; `lines`: how many there are, with
    the start line and the empty one. The others are numbers of groups."""

    __slots__ = ("hops", "left", "lines", "match", "names", "read", "right", "routed", "routes", "via")

    def __init__(self, names: list[str], is_answer: bool) -> None:
        pattern = _compiled(_pattern(names, is_answer))
        index, wanted = pattern.groupindex, GROUPS[is_answer]
        self.names, self.lines, self.match = frozenset(map(canonical, names)), len(names) + 2, pattern.match
        numbers = tuple(index[name] for name in wanted)
        in_order = numbers == tuple(range(1, pattern.groups + 1))  # twice as fast
        self.read: Callable[[re.Match[bytes]], tuple[Any, ...]] = (
            re.Match.groups if in_order else lambda match: match.group(*numbers)
        )
        self.routed = "Route" in self.names
        self.left, self.right = index.get("left", 0), index.get("right", 0)
        self.hops, self.routes, self.via = index.get("hops", 0), index.get("routes", 0), index.get("via", 0)


class Shapes:
    def __init__(self) -> None:
        self.usual: dict[Hashable, Shape] = {}  # what a message of that kind looked like last time
        self._known: dict[tuple[bool, tuple[bytes, ...]], Shape | None] = {}  # the longest unused first
        self._next = float("-inf")

    def read(self, data: bytes, kind: Hashable, now: float) -> tuple[Shape, re.Match[bytes], int]:
        """The message's shape, where in the message everything stands, and the size of the body. `kind`: of messages
        that probably have one shape. Raises Odd."""
        shape = self.usual.get(kind)
        match = shape.match(data) if shape else None
        if not match:
            shape = self._find(data, kind, now)
            match = shape.match(data) if shape else None
        if not shape or not match:
            raise Odd
        end, size = match.end(), len(data)
        if end > MAX_HEAD or size > MAX_SIZE or data.count(b"\n", 0, end) != shape.lines:
            raise Odd
        return shape, match, size - end

    def _find(self, data: bytes, kind: Hashable, now: float) -> Shape | None:
        """The shape by its names, learned now if it is new and others were not just now."""
        names = tuple(_NAMES.findall(data, 0, max(0, data.find(b"\r\n\r\n")) + 2))
        is_answer = data.startswith(b"SIP/")
        known = is_answer, names
        if known in self._known:
            shape = self._known.pop(known)
        elif now < self._next or len(names) > MOST_LINES:
            return None
        else:
            shape = learn(names, is_answer)
            if shape:
                self._next = max(self._next, now - AT_ONCE * BETWEEN) + BETWEEN
        self._known[known] = shape
        if len(self._known) > MOST_SHAPES:
            del self._known[next(iter(self._known))]
            self.usual.clear()
        if shape:
            if len(self.usual) >= MOST_KINDS:
                self.usual.clear()
            self.usual[kind] = shape
        return shape


def learn(raw: tuple[bytes, ...], is_answer: bool) -> Shape | None:
    """None: messages with these names, so spelled and in this order, are the parser's."""
    names = [name.decode("ascii", "replace") for name in raw]
    if not all(map(_NAME.match, names)):
        return None
    read = list(map(canonical, names))
    once = ["From", "To", "Call-ID", "CSeq", *(() if is_answer else ("Max-Forwards",))]
    if any(read.count(name) != 1 for name in once) or read.count("Content-Length") > 1:
        return None
    if "Via" not in read or (is_answer and read.count("Via") < 2) or (not is_answer and "Proxy-Require" in read):
        return None
    for name in _EDITED[is_answer]:
        count = read.count(name)
        if count and (names.count(name) != count or set(read[read.index(name) :][:count]) != {name}):
            return None
    if not is_answer and read.index("Max-Forwards") < read.index("Via"):
        return None
    if "Route" in read and not is_answer and read.index("Route") < read.index("Via"):
        return None
    return Shape(names, is_answer)


def _pattern(names: list[str], is_answer: bool) -> str:
    fields = _OF_ANSWERS if is_answer else _OF_REQUESTS
    blocks = {"Via"} if is_answer else {"Via", "Route", "Record-Route"}
    parts, read = [_STATUS_LINE if is_answer else _REQUEST_LINE], list(map(canonical, names))
    for at, (name, canonical_name) in enumerate(zip(names, read, strict=True)):
        count = read.count(canonical_name)
        if canonical_name not in blocks:
            value = fields.get(canonical_name)
            parts.append(re.escape(name) + (rf": {value}\r\n" if value else r":[^\r]*+\r\n"))
        elif at != read.index(canonical_name):
            continue
        elif canonical_name != "Via":
            group = canonical_name.lower().replace("-", "_") + "s"
            parts.append(rf"(?P<{group}>(?:{canonical_name}: [^\r]*+\r\n){{{count}}})")
        elif is_answer:
            parts.append(rf"(?P<via>{_OWN_VIA})(?P<others>(?:Via: [^\r]*+\r\n){{{count - 1}}})")
        else:
            parts.append(rf"{_VIA}(?P<others>(?:{_OTHER_VIA}){{{count - 1}}})")
    text = "".join([*parts, r"\r\n"])
    text += "".join(f"(?P<{group}>)" for group in GROUPS[is_answer] if f"(?P<{group}>" not in text)
    return text


def _compiled(text: str) -> re.Pattern[bytes]:
    return re.compile((text if sys.version_info >= (3, 11) else _POSSESSIVE.sub("", text)).encode("ascii"))


_BRANCH = _compiled(r"(?i:[^\r;]*+(?:;(?!branch[=;\r])[^\r;]*+)*+;branch=?+)(?P<branch>[^\r;]*+)")


def branch_of(vias: bytes) -> bytes:
    """The first one's branch; empty if it has none."""
    match = _BRANCH.match(vias)
    return match["branch"] if match else b""
