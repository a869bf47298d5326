"""The sentences for a person: one for every answer that a call or a registration can get, never a
bare code."""

from __future__ import annotations

import re

from plumbing.address import Address, format_address
from sip.errors import RemoteProtocolError
from sip.header import NameAddr
from sip.message import Message, Request, Response
from softphone.translation import tr

LONGEST = 120
_SERVER = re.compile(r"call-failover-slee/[\w.+-]{1,32} \(([\w.-]{1,32})\)", re.ASCII)

# A call.
CALLING = tr("Calling {name} ...")
NO_ANSWER_YET = tr("Calling {name} ... no answer yet")
SENT_ON = tr("{name} is reached elsewhere: calling {new_name} ...")
RINGING_AT = tr("Ringing at {name} ...")
IS_CALLING = tr("{name} is calling")
TALKING_WITH = tr("Talking with {name}")
NOTHING_HEARD = tr("nothing has been heard for {seconds} s")
IS_ON_HOLD = tr("{name} is on hold")
HAS_PUT_ON_HOLD = tr("{name} has put the call on hold")
NO_HOLD = tr("{name}'s phone does not agree to hold")
NO_RESUME = tr("{name}'s phone does not agree to go on")
NO_DIGITS = tr("{name}'s phone takes no digits")
HANGING_UP = tr("Hanging up ...")
# How a call ended.
HUNG_UP_HERE = tr("You hung up")
HUNG_UP_THERE = tr("{name} hung up")
DECLINED_HERE = tr("You declined the call")
MISSED_CALL = tr("Missed call from {name}")
CALLED_WHILE_BUSY = tr("{name} called while this phone was busy")
DOES_NOT_ANSWER = tr("{name} does not answer")
NOBODY_ANSWERS = tr("Nobody answers: neither a server nor {name}'s phone")
MAKES_NO_SENSE = tr("{name}'s phone gave an answer that makes no sense")
NOTHING_IN_COMMON = tr("{name}'s phone and this one have no sound format in common")
CALL_LOST = tr("The call with {name} was lost")
RINGING_UNHEARD = tr("The call of {name} was lost: their phone did not hear that this one rings")
NEVER_CONFIRMED = tr("The call with {name} was never confirmed")
NO_SOUND = tr("No sound: {reason}")  # neither a socket nor a device could be had here
NOT_FOUND = tr("{host} cannot be found without a server")
NO_ADDRESS = tr("\u201c{text}\u201d is not an address that can be called")
ENCRYPTED = tr("That address asks for encryption, which this phone does not have: call it by sip:")
WHOM_TO_CALL = tr("Whom do you want to call?")
# The registration.
NOT_REGISTERED = tr("Not registered")
REGISTERING = tr("Registering as {name} ...")
TAKEN_BACK = tr("The server took the registration back at once")
# A challenge that is not answered: by another than the account's own server, in a realm that may be
# another's, or of a kind that digest_auth.py does not have.
ASKED_BY_STRANGER = tr(
    "{host} port {port} asks for the password of {name}, which only {name}'s own server gets"
)
ASKED_IN_STRANGE_REALM = tr(
    "{realm} asks for the password of {name}; if that is your own server's realm, name it by "
    "--realm"
)
ASKED_IN_ANOTHER_WAY = tr(
    "The server wants {name}'s password in a way that this phone does not have"
)

CALL_SENTENCES = {
    400: tr("The other side did not understand this phone"),
    402: tr("Your balance is too small for this call"),
    403: tr("This call is not allowed"),
    404: tr("No such user: {name}"),
    408: tr("No answer from {name}"),
    410: tr("{name} has left for good"),
    415: tr("{name}'s phone and this one cannot talk to each other"),
    420: tr("{name}'s phone and this one cannot talk to each other"),
    421: tr("{name}'s phone and this one cannot talk to each other"),
    480: tr("{name} cannot be reached right now"),
    481: tr("The call no longer exists"),
    482: tr("The call ran in a circle"),
    483: tr("The call ran in a circle"),
    484: tr("The address of {name} is incomplete"),
    485: tr("The address of {name} is ambiguous"),
    486: tr("{name} is busy"),
    487: tr("The call was cancelled"),
    488: tr("{name}'s phone and this one have no sound format in common"),
    502: tr("The way to {name} is broken"),
    503: tr("No server can take the call right now"),
    504: tr("The way to {name} is broken"),
    600: tr("{name} is busy"),
    603: tr("{name} declined the call"),
    604: tr("No such user: {name}"),
    606: tr("{name}'s phone and this one have no sound format in common"),
}
REGISTRATION_SENTENCES = {
    400: tr("The server did not understand this phone"),
    403: tr("The server does not let {name} in"),
    404: tr("The server does not know {name}"),
    410: tr("The server does not know {name} any more"),
}
CLASSES = {
    3: tr("{name} is to be called elsewhere"),
    4: tr("The call to {name} was refused"),
    5: tr("The server could not place the call to {name}"),
    6: tr("{name} cannot take the call"),
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
        known.format(name=name)
        if known
        else _with_reason(tr("The server refused {name}").format(name=name), reason)
    )


def why_no_credentials(name: str, password: str) -> str:
    sentence = (
        tr("The password of {name} is wrong")
        if password
        else tr("The server wants a password for {name}")
    )
    return sentence.format(name=name)


def registered(user: str, server: str) -> str:
    """`server`: its name; "" if it does not say that."""
    if server:
        return tr("Registered through {name}").format(name=server)
    return tr("Registered as {name}").format(name=user)


def name_of_server(server: str) -> str:
    """The name in the Server header of one of our servers, which say it in a comment; "" in any
    other: what others say there is not for people."""
    named = _SERVER.fullmatch(server)
    return named[1] if named else ""


def trying_again(seconds: float, silent: Address | None = None) -> str:
    """`silent`: where nobody answers; None: somebody answers that no server does."""
    known = tr("No server answers; trying again in {seconds} s")
    text = tr("No answer from {server}; trying again in {seconds} s") if silent else known
    server = format_address(silent) if silent else ""
    return text.format(server=server, seconds=max(1, round(seconds)))


def heard_nothing(name: str, seconds: float) -> str:
    minutes = round(seconds / 60)
    span = tr("{number} minutes").format(number=minutes) if minutes > 1 else tr("a minute")
    text = tr("The connection to {name} was lost: nothing was heard for {span}")
    return text.format(name=name, span=span)


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
