"""The affinity key: messages with the same key go to the same server (policy call-id).

It is the value of one header field, Call-ID unless route.convergence names another. Of From, To and
other fields that hold an address only the address counts, without what differs from message to
message (display name, tag, parameters).
"""

from __future__ import annotations

from sip.errors import RemoteProtocolError
from sip.header import NameAddr
from sip.message import Message

CALL_ID = "Call-ID"
ADDRESSES = frozenset(
    [
        "From",
        "To",
        "Contact",
        "Reply-To",
        "Referred-By",
        "P-Asserted-Identity",
        "P-Preferred-Identity",
        "P-Called-Party-Id",
    ]
)
# fields that differ within a call, so no key can be made of them
OF_ONE_MESSAGE = frozenset(
    ["Via", "Cseq", "CSeq", "Max-Forwards", "Route", "Record-Route", "Content-Length"]
)


def affinity_key(message: Message, header: str = CALL_ID) -> str:
    """The key of a message. `header` is spelled as `sip.header.canonical` spells it. A message
    without that field, or with a broken one, has its Call-ID for a key."""
    if header != CALL_ID:
        value = _value(message, header)
        if value:
            return value
    return message.call_id


def _value(message: Message, header: str) -> str:
    if header not in ADDRESSES:
        return (message.get(header) or "").strip()
    try:
        return NameAddr.parse(message.get(header) or "").uri.aor()
    except RemoteProtocolError:
        return ""
