"""The odd messages of tests/messages, and what forwarding may change in a message, said line by
line.

The files are the torture messages of RFC 4475 and RFC 5118, one per file, named after the oddity,
byte for byte. Of RFC 5118's bodies one is longer than its Content-Length said:
ipv6-in-the-session-description has the right one instead.
"""

from __future__ import annotations

import re
from pathlib import Path

from sip.errors import RemoteProtocolError
from sip.message import Request, Response, parse
from sip.uri import Uri

FOLDER = Path(__file__).resolve().parents[1] / "messages"
OWN_VIA = re.compile(
    rb"Via: SIP/2\.0/UDP [^ ;]+;branch=z9hG4bK[0-9a-f]{32};loop=[0-9a-f]{8};back=[0-9a-f]{16};rport\r\n\Z"
)
OWN_RECORD_ROUTE = re.compile(rb"Record-Route: <sip:[^ ;>]+;lr;hint=[0-9a-f]+>\r\n\Z")


def messages():
    """Name -> bytes, in the order of the names."""
    return {path.stem: path.read_bytes() for path in sorted(FOLDER.glob("*.sip"))}


def unpromised(received, sent):
    """What forwarding changed in a message beyond the promised lines: "" or a sentence. Independent
    of what the forwarder itself does to find the lines: those that stay must stay as they are, in
    their order.

    Promised (header_rewrite.py): a Via on top and perhaps a Record-Route, Max-Forwards, the
    sender's Via, a Route that is ours, and in the start line and the first Route the address of a
    dead server; a Request-URI loses its escaped headers, a response its topmost Via. Empty lines
    before the message and bytes beyond its Content-Length are no part of it (RFC 3261 7.5, 18.3).
    """
    before, after = parse(received, in_passing=True), parse(sent, in_passing=True)
    if before._start != after._start and not _moved(before, after):
        return f"start line {before._start!r} became {after._start!r}"
    if (before._blank, before.body) != (after._blank, after.body):
        return "the body changed"
    old, new = [field.raw for field in before.fields], [field.raw for field in after.fields]
    if isinstance(before, Response):
        return _unpromised_response(before, after, old, new)
    own = [line for line in new if OWN_VIA.match(line) or OWN_RECORD_ROUTE.match(line)]
    if len(own) > 2 or not OWN_VIA.match(_first(after, "Via")[0]):
        return f"not the forwarder's lines: {own}"
    may_go = _first(before, "Via") + _first(before, "Max-Forwards") + _first(before, "Route", 2)
    # a strict router's
    may_go += [field.raw for field in before.fields if field.name == "Route"][-1:]
    may_come = (
        own + _first(after, "Via", 2) + _first(after, "Max-Forwards") + _first(after, "Route")
    )
    gone, come = (
        [line for line in old if line not in new],
        [line for line in new if line not in old],
    )
    strange = [line for line in gone if line not in may_go] + [
        line for line in come if line not in may_come
    ]
    if strange:
        return f"lines changed that may not: {strange}"
    if [line for line in old if line in new and line not in own] != [
        line for line in new if line in old and line not in own
    ]:
        return "the order of the lines changed"
    return ""


def _unpromised_response(before, after, old, new):
    """Its topmost Via is gone, which takes a line away or shortens one."""
    at = next(n for n, field in enumerate(before.fields) if field.name == "Via")
    if after.values("Via") != before.values("Via")[1:]:
        return f"Vias {before.values('Via')} became {after.values('Via')}"
    shortened = new[:at] == old[:at] and new[at + 1 :] == old[at + 1 :]
    return (
        "" if shortened or new == old[:at] + old[at + 1 :] else "other lines than the Via changed"
    )


def _first(message, name, count=1):
    return [field.raw for field in message.fields if field.name == name][:count]


def _moved(before, after):
    """Only the address in the Request-URI changed, or its escaped headers are gone, or a strict
    router had put ours there."""
    if not isinstance(before, Request) or before.method != after.method:
        return False
    uris = _without_headers(before.uri), after.uri
    was, now = (re.sub(r"(?<=[:@])[^:@;?]+(:\d+)?(?=[;?]|$)", "HOST", uri, count=0) for uri in uris)
    return was == now or ";lr" in before.uri


def _without_headers(uri):
    try:
        headers = Uri.parse(uri).headers
    except RemoteProtocolError:
        return uri
    return uri[: -1 - len(headers)] if headers or uri.endswith("?") else uri
