"""What names a message's session: the value of one header, Call-ID unless the operator says
otherwise.

Messages of one name go to one server (policy call-id), and the log shows it. Of From, To and other
headers that hold an address the name is the address alone, without what differs from message to
message (display name, tag, parameters).
"""

from __future__ import annotations

from sip.errors import RemoteProtocolError
from sip.header import NameAddr
from sip.message import Message

CALL_ID = "Call-ID"
ADDRESSES = frozenset(
    {
        "From",
        "To",
        "Contact",
        "Reply-To",
        "Referred-By",
        "P-Asserted-Identity",
        "P-Preferred-Identity",
        "P-Called-Party-Id",
    }
)
OF_ONE_MESSAGE = frozenset(
    {"Via", "Cseq", "CSeq", "Max-Forwards", "Route", "Record-Route", "Content-Length"}
)


def session(message: Message, header: str = CALL_ID) -> str:
    """The name of a message's session. `header` is spelled as `sip.header.canonical` spells it.

    A message without the header, or with a broken one, is named by its Call-ID.
    """
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
