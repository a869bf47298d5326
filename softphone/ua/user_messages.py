"""The sentences for a person: one for every answer that a call or a registration can get, never a
bare code."""

from __future__ import annotations

import re

from sip.errors import RemoteProtocolError
from sip.header import NameAddr
from sip.message import Message, Request, Response
from sip.uri import Uri

NO_ANSWER = 408  # RFC 3261 8.1.3.1: silence counts as this
LONGEST = 120
_SERVER = re.compile(r"call-failover-slee/[\w.+-]{1,32} \(([\w.-]{1,32})\)", re.ASCII)

CALL_SENTENCES = {
    400: "The other side did not understand this phone",
    402: "Your balance is too small for this call",
    403: "This call is not allowed",
    404: "No such user: {name}",
    408: "No answer from {name}",
    410: "{name} has left for good",
    415: "{name}'s phone and this one cannot talk to each other",
    420: "{name}'s phone and this one cannot talk to each other",
    421: "{name}'s phone and this one cannot talk to each other",
    480: "{name} cannot be reached right now",
    481: "The call no longer exists",
    482: "The call ran in a circle",
    483: "The call ran in a circle",
    484: "The address of {name} is incomplete",
    485: "The address of {name} is ambiguous",
    486: "{name} is busy",
    487: "The call was cancelled",
    488: "{name}'s phone and this one have no sound format in common",
    502: "The way to {name} is broken",
    503: "No server can take the call right now",
    504: "The way to {name} is broken",
    600: "{name} is busy",
    603: "{name} declined the call",
    604: "No such user: {name}",
    606: "{name}'s phone and this one have no sound format in common",
}
REGISTRATION_SENTENCES = {
    400: "The server did not understand this phone",
    403: "The server does not let {name} in",
    404: "The server does not know {name}",
    410: "The server does not know {name} any more",
}
CLASSES = {
    3: "{name} is to be called elsewhere",
    4: "The call to {name} was refused",
    5: "The server could not place the call to {name}",
    6: "{name} cannot take the call",
}


def why_not_called(status: int, name: str, reason: str = "") -> str:
    """The sentence for a final response to INVITE that is not a success."""
    known = CALL_SENTENCES.get(status)
    return begin(
        known.format(name=name)
        if known
        else _with_reason(CLASSES[status // 100].format(name=name), reason)
    )


def why_not_registered(status: int, name: str, reason: str = "") -> str:
    """The sentence for a final response to REGISTER that trying again would not change."""
    known = REGISTRATION_SENTENCES.get(status)
    return begin(
        known.format(name=name) if known else _with_reason(f"The server refused {name}", reason)
    )


def why_no_credentials(name: str, password: str) -> str:
    return (
        f"The password of {name} is wrong"
        if password
        else f"The server wants a password for {name}"
    )


def asked_by_stranger(name: str, host: str, port: int) -> str:
    """A challenge that did not come from the account's own server."""
    text = (
        f"{host} port {port} asks for the password of {name}, which only {name}'s own server gets"
    )
    return legible(text)


def asked_in_strange_realm(name: str, realm: str) -> str:
    """A challenge that came by the account's own server, and perhaps from beyond it."""
    text = f"{realm[:40]} asks for the password of {name}; if that is your own server's realm,"
    return legible(f"{text} name it by --realm")


def asked_in_another_way(name: str) -> str:
    return f"The server wants {name}'s password in a way that this phone does not have"


def no_sound(error: Exception) -> str:
    """No socket or no device could be had here."""
    return f"No sound: {error}"


def no_sound_for(seconds: int) -> str:
    return f"nothing has been heard for {seconds} s"


def not_found(target: Uri) -> str:
    return f"{target.host} cannot be found without a server"


def sent_on(name: str, new_name: str) -> str:
    return f"{name} is reached elsewhere: calling {new_name} ..."


def registered(user: str, server: str) -> str:
    """`server` is the Server header: ours say their name in a comment, what others say there is not
    for people."""
    name = name_of_server(server)
    return f"Registered through {name}" if name else f"Registered as {user}"


def name_of_server(server: str) -> str:
    """The name in the Server header of one of our servers; "" in any other."""
    named = _SERVER.fullmatch(server)
    return named[1] if named else ""


def trying_again(seconds: float) -> str:
    return f"No server answers; trying again in {max(1, round(seconds))} s"


def heard_nothing(name: str, seconds: float) -> str:
    minutes = round(seconds / 60)
    span = f"{minutes} minutes" if minutes > 1 else "a minute"
    return f"The connection to {name} was lost: nothing was heard for {span}"


def begin(sentence: str) -> str:
    """Names are written as they are, sentences begin with a capital."""
    return sentence[:1].upper() + sentence[1:]


def legible(text: str) -> str:
    """A text from the network, short enough to show and without the bytes that were not UTF-8."""
    return text[:LONGEST].encode("utf-8", "replace").decode()


def name_of_callee(response: Response) -> str:
    """The name that the answer gives to the called person (RFC 3325 9.1; RFC 3261 20.10, 20.39); ""
    if it does not."""
    for header in ("P-Asserted-Identity", "To", "Reply-To", "Contact"):
        try:
            display = next(
                (NameAddr.parse_any(value).display for value in response.values(header)), ""
            )
        except RemoteProtocolError:
            continue  # it cannot be read
        if any(character.isalnum() for character in display):
            return legible(display)
    return ""


def summary(message: Message) -> str:
    """A message in a few words: "INVITE sip:bob@failover.test", "200 OK (INVITE)"."""
    if isinstance(message, Response):
        return legible(f"{message.status} {message.reason[:60]} ({message.cseq.method})")
    return legible(f"{message.method} {message.uri}" if isinstance(message, Request) else "")


def _with_reason(sentence: str, reason: str) -> str:
    # The reason phrase is the peer's own words; a short, clean one helps the person, anything else
    # does not.
    shown = reason.strip()
    return f"{sentence}: {shown}" if 0 < len(shown) <= 60 and shown.isprintable() else sentence
