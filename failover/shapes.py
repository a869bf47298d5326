"""Shapes of messages: which header lines they have, in which order. A phone has few of them, and repeats them for ever.

Of each shape that comes one pattern is made, with the names as they stand, for what begins behind the octets that
ways.py knows by heart: in a request behind `;branch=z9hG4bK` of its topmost Via, in an answer behind all its Vias; with
nothing but Record-Routes above those. It finds in one go all that the forwarder looks at there, and proves what the
parser would: every line is whole and unfolded, what may be there once is there once, and From, To, CSeq and the Vias
can be read. A pattern is stricter than the parser and never more lenient: what fits none may still be a good message,
and the parser decides (tests/test_quick.py holds the two equal).

Strangers can send shapes too: few are kept, and few are learned in a second.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any

from failover.lines import KEPT
from sip.header import canonical
from sip.message import MAX_HEAD, MAX_SIZE

MOST_SHAPES = 64
MOST_LINES = 48
MOST_BACK = 1_024  # octets up to the empty line, behind the last line that is looked at
MOST_FRONT, MOST_BODY = MAX_HEAD - MOST_BACK, MAX_SIZE - MAX_HEAD  # what has more is the parser's
BETWEEN, AT_ONCE = 0.1, 8  # seconds between two shapes learned, or so many at once; one costs about 3 ms

_NAMES = re.compile(rb"\n([^\s:]+):")
_NAME = re.compile(r"[\w.!%+*`'~-]{1,64}\Z", re.ASCII)
_POSSESSIVE = re.compile(r"(?<=[*+?}])\+")

# Below, `*+` and its like are possessive: what matched is not tried again otherwise. That changes no result here, and
# the time to a tenth. Python has it since 3.11, and rightly since 3.11.5 (before, `(?:a(?!b)c*+)*+` gave up too much:
# gh-106052; Debian 12 has 3.11.2). Until then the additional `+` is taken out. So no two neighbours may share octets:
# what can be divided between them in many ways would be tried in all of them. And a set that spells out what \w means
# is looked up in one table, where one with \w takes two steps.
_PORT = r"(?::(?:[1-9]\d{0,3}|[1-5]\d{4})(?!\d))?+"
_TOKEN = r"[A-Za-z0-9_.!%+*`'~-]++"
_HOPS = r"(?:[1-9]\d?|1\d\d|2[0-4]\d|25[0-5])"  # 1 to 255
_NUMBER = r"(?:[0-3]\d{9}|\d{1,9})"  # below 2**32
_TAGGED = r"""(?:"[^"\\\r]*+"|[^"<\r]*+) ?+<[^>\r]*+>"""
_HOST = rf"(?:[A-Za-z0-9_.-]++|\[[0-9A-Fa-f:.]++\]){_PORT}"
_URI = rf"sip:(?:[A-Za-z0-9_.!~*'()&=+$,%#/-]++@)?+(?P<host>{_HOST})(?:;[A-Za-z0-9_.;=~%+-]*+)?+"
_OTHER_VIA = rf"Via: SIP/2\.0/UDP {_HOST}(?:;[A-Za-z0-9_.-]++(?:=[A-Za-z0-9_.:!~*'%+-]*+)?+)*+\r\n"
_FIELDS = {
    "From": rf"{_TAGGED}(?:;tag={_TOKEN})?+",
    "To": rf"{_TAGGED}(?:;tag=(?P<tag>{_TOKEN}))?+",
    "CSeq": rf"{_NUMBER} (?P<method>[A-Z]++)",
    "Content-Length": r" *+(?P<length>\d{1,6})",  # SIPp formats it five wide
}
_OF_REQUESTS = {**_FIELDS, "Call-ID": r"(?P<call_id>[!-~][^\r]*+)", "Max-Forwards": rf"(?P<hops>{_HOPS})"}
_OF_ANSWERS = {**_FIELDS, "Call-ID": r"[!-~][^\r]*+"}
# Written by the forwarder itself in messages of that kind, so not in another spelling, and what it needs together.
_EDITED = {False: ("Via", "Max-Forwards", "Route", "Record-Route"), True: ("Via",)}
# What is taken from a match, in the usual order.
GROUPS = {
    False: ("branch", "right", "others", "hops", "tag", "call_id", "method", "routes", "record_routes"),
    True: ("tag", "method"),
}
OTHERS = 3  # the number of that group


class Odd(Exception):
    """A message that is the parser's."""


class Shape:
    """`front(data, at)` matches up to the last line that the forwarder looks at, `back(data, end of that)` the rest,
    with what Content-Length says; `read` takes from the front's match what GROUPS names. `lines`: how many end in front
    and in all, with the empty one. The others are numbers of groups."""

    __slots__ = ("back", "front", "hops", "length", "lines", "names", "read", "routed", "routes")

    def __init__(self, names: list[str], is_answer: bool) -> None:
        self.names = frozenset(read := list(map(canonical, names)))
        looked_at = ("Via", "From", "To", "Call-ID", "CSeq", *_EDITED[is_answer])
        split = max(at for at, name in enumerate(read) if name in looked_at) + 1
        parts, wanted = _lines(names, is_answer), GROUPS[is_answer]
        text = "".join(parts[:split])
        text += "".join(f"(?P<{group}>)" for group in wanted if f"(?P<{group}>" not in text)
        front, back = _compiled(text), _compiled("".join([*parts[split:], r"\r\n"]))
        passed = read.index("Via") + (read.count("Via") if is_answer else 0)  # by heart
        self.front, self.back, self.lines = front.match, back.match, (split - passed, len(names) + 1 - passed)
        index, numbers = front.groupindex, tuple(front.groupindex[name] for name in wanted)
        in_order = numbers == tuple(range(1, front.groups + 1))  # twice as fast
        self.read: Callable[[re.Match[bytes]], tuple[Any, ...]] = (
            re.Match.groups if in_order else lambda match: match.group(*numbers)
        )
        self.routed, self.length = "Route" in self.names, index.get("length", 0)
        self.hops, self.routes = index.get("hops", 0), index.get("routes", 0)


# What a message of a kind looked like last time: its shape, the octets behind the last line that is looked at, and what
# Content-Length says there, or -1. Most senders end all their messages of a kind alike.
Form = tuple[Shape, bytes, int]


def fits(form: Form, data: bytes, at: int) -> re.Match[bytes] | None:
    """Where everything stands in a message that has that form behind its first `at` octets; None: it has another.
    Raises Odd."""
    shape, back, length = form
    match = shape.front(data, at)
    if not match or not data.startswith(back, end := match.end()):
        return None
    size = len(data) - end - len(back)
    if shape.length:
        length = int(match[shape.length])
    if data.count(b"\n", at, end) != shape.lines[0] or end > MOST_FRONT or size > MOST_BODY:
        raise Odd
    if size != length and length >= 0:
        raise Odd
    return match


class Shapes:
    """What has no shape is kept apart: of that strangers can send any number, and it is to push no shape out."""

    def __init__(self) -> None:
        self._known: dict[tuple[bool, tuple[bytes, ...]], Shape] = {}  # the longest unused first
        self._shapeless: set[tuple[bool, tuple[bytes, ...]]] = set()
        self._next = float("-inf")

    def form(self, data: bytes, at: int, now: float) -> Form:
        """That of a message of which the first `at` octets have been read. Raises Odd."""
        shape = self._find(data, now)
        match = shape.front(data, at) if shape else None
        back = shape.back(data, match.end()) if shape and match else None
        if not shape or not match or not back or len(back[0]) > MOST_BACK:
            raise Odd
        if data.count(b"\n", at, back.end()) != shape.lines[1]:
            raise Odd
        return shape, back[0], int(back["length"]) if "length" in back.re.groupindex else -1

    def _find(self, data: bytes, now: float) -> Shape | None:
        """The shape by its names, learned now if it is new and others were not just now."""
        names = tuple(_NAMES.findall(data, 0, max(0, data.find(b"\r\n\r\n")) + 2))
        is_answer = data.startswith(b"SIP/")
        known = is_answer, names
        if known in self._known:
            shape = self._known.pop(known)
        elif known in self._shapeless or now < self._next or len(names) > MOST_LINES:
            return None
        elif learned := learn(names, is_answer):
            shape, self._next = learned, max(self._next, now - AT_ONCE * BETWEEN) + BETWEEN
        else:
            if len(self._shapeless) >= MOST_SHAPES:
                self._shapeless.clear()
            self._shapeless.add(known)
            return None
        self._known[known] = shape
        if len(self._known) > MOST_SHAPES:
            del self._known[next(iter(self._known))]
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
    if "Via" not in read or set(names[: read.index("Via")]) - {"Record-Route"}:
        return None
    if (not is_answer and "Proxy-Require" in read) or canonical(KEPT) in read:
        return None
    for name in _EDITED[is_answer]:
        count = read.count(name)
        if count and (names.count(name) != count or set(read[read.index(name) :][:count]) != {name}):
            return None
    return Shape(names, is_answer)


def _lines(names: list[str], is_answer: bool) -> list[str]:
    """A pattern for each line; for several that are taken together, or are known by heart, an empty one."""
    fields = _OF_ANSWERS if is_answer else _OF_REQUESTS
    blocks = {"Via"} if is_answer else {"Via", "Route", "Record-Route"}
    parts, read = [], list(map(canonical, names))
    for at, (name, canonical_name) in enumerate(zip(names, read, strict=True)):
        count = read.count(canonical_name)
        if at < read.index("Via"):
            parts.append("")
        elif canonical_name not in blocks:
            value = fields.get(canonical_name)
            parts.append(re.escape(name) + (rf": {value}\r\n" if value else r":[^\r]*+\r\n"))
        elif at != read.index(canonical_name):
            parts.append("")
        elif canonical_name != "Via":
            group = canonical_name.lower().replace("-", "_") + "s"
            parts.append(rf"(?P<{group}>(?:{canonical_name}: [^\r]*+\r\n){{{count}}})")
        elif is_answer:
            parts.append("")
        else:
            top = rf"(?P<branch>{_TOKEN})(?P<right>(?:;[^\r]*+)?+)\r\n"
            parts.append(rf"{top}(?P<others>(?:{_OTHER_VIA}){{{count - 1}}})")
    return parts


def _compiled(text: str) -> re.Pattern[bytes]:
    possessive = sys.version_info >= (3, 11, 5)
    return re.compile((text if possessive else _POSSESSIVE.sub("", text)).encode("ascii"))


_ABOVE = r"(?:Record-Route: [^\r\n]*+\r\n)*+"
HEAD = _compiled(  # of a request
    rf"(?P<start>(?P<method>[A-Z]++) (?P<uri>{_URI}) SIP/2\.0\r\n)(?P<records>{_ABOVE})"
    r"Via: (?P<left>SIP/2\.0/UDP [^\r\n;]++(?:;(?!branch=)[^\r\n;]++)*+);branch=z9hG4bK"
)
HEAD_OF_ANSWER = _compiled(rf"SIP/2\.0 [1-6]\d\d [^\r\n]*+\r\n{_ABOVE}")
GROWN = _compiled(r"[\w.=:;-]*+")  # what a server may have added to our Via
_BRANCH = _compiled(r"(?i:[^\r;]*+(?:;(?!branch[=;\r])[^\r;]*+)*+;branch=?+)(?P<branch>[^\r;]*+)")


def branch_of(vias: bytes) -> bytes:
    """The first one's branch; empty if it has none."""
    match = _BRANCH.match(vias)
    return match["branch"] if match else b""
