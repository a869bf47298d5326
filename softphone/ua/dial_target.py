"""The URI to call: from a text that a person typed, or from the Contact of a redirection."""

from __future__ import annotations

import re
from unicodedata import normalize
from urllib.parse import unquote

from sip.dialog import as_request_uri
from sip.errors import RemoteProtocolError
from sip.uri import Uri
from softphone.ua import user_messages
from softphone.ua.account import Account, ascii_host, bracketed, escaped

_AS_TYPED = re.compile(r"""[^\s:@"<>\\\[\]{}|^`\x00-\x1f\x7f]*""")
# for the eye; RFC 3966 5.1.1 and what people write
_SEPARATORS = re.compile(r"[\s().\u00a0/\u2010-\u2015-]+")
_NUMBER = re.compile(r"\+?[0-9*#]+")
_ADDRESS = re.compile(r"\d{1,3}(\.\d{1,3}){3}", re.ASCII)
_ENCRYPTED = ("tls", "wss", "tls-sctp", "dtls")


class CannotBeCalled(RemoteProtocolError):
    """An address that could be read and cannot be called; its text is the sentence for the
    person."""


def target_of_text(text: str, account: Account) -> Uri:
    """ "bob", "bob@host", "sip:bob@host", "tel:+4930123", "+49 (30) 123-45" -> the Request-URI of
    the call.

    RemoteProtocolError if it is no address, CannotBeCalled with a sentence if it is one that we
    cannot call.
    """
    text = text.strip()
    if not text:
        raise RemoteProtocolError("nobody is named")
    scheme = re.match(r"(sips?|tel):", text, re.IGNORECASE)
    if scheme and scheme[1].lower() == "tel":
        return _of_telephone(text[scheme.end() :], account)
    if scheme:
        rest = text[scheme.end() :]
        user, at, host = rest.partition("@") if "@" in rest else ("", "", rest)
        text = f"{scheme[0].lower()}{_beyond_ascii_escaped(_plain_number(user))}{at}{_host(host)}"
    else:
        user, at, host = text.partition("@")
        host = _host(host) if at else bracketed(ascii_host(account.domain))
        text = f"sip:{escaped(_plain_number(user))}@{host}"
    return callable_uri(Uri.parse(text))


def callable_uri(uri: Uri) -> Uri:
    """Fit for a Request-URI, without the headers a URI may bring along; CannotBeCalled where it
    asks for more than this phone has."""
    transport = (uri.params.get("transport") or "").lower()
    if uri.scheme == "sips" or transport in _ENCRYPTED:
        raise CannotBeCalled(user_messages.ENCRYPTED)
    if not uri.is_sip or not _AS_TYPED.fullmatch(unquote(uri.user)):
        raise RemoteProtocolError(f"not a user: {uri.user[:40]!r}")
    return as_request_uri(uri)


def redirected(uri: Uri, account: Account) -> Uri:
    """A Contact of a 3xx as the next Request-URI; errors as above."""
    return (
        callable_uri(uri)
        if uri.scheme != "tel"
        else _of_telephone(str(uri)[len("tel:") :], account)
    )


def _of_telephone(text: str, account: Account) -> Uri:
    """RFC 3261 19.1.6: the number becomes the user, with its parameters, at the account's own
    domain."""
    number, *params = text.removeprefix("//").split(";")
    plain = _SEPARATORS.sub("", unquote(number))
    if not _NUMBER.fullmatch(plain):
        raise RemoteProtocolError(f"not a telephone number: {number[:40]!r}")
    user = ";".join([plain, *(param.strip() for param in params if param.strip())])
    uri = Uri.parse(f"sip:{escaped(user)}@{bracketed(ascii_host(account.domain))}")
    if not _AS_TYPED.fullmatch(unquote(uri.user)):
        raise RemoteProtocolError(f"not a user: {uri.user[:40]!r}")
    return uri._replace(params={"user": "phone"})


def _plain_number(user: str) -> str:
    """A telephone number without what only helps the eye; anything else as it is."""
    plain = _SEPARATORS.sub("", user)
    return plain if _NUMBER.fullmatch(plain) and not _ADDRESS.fullmatch(user.strip()) else user


def _beyond_ascii_escaped(user: str) -> str:
    """Escapes letters beyond ASCII. A URI keeps its own characters, such as the colon before a
    password."""
    return "".join(each if each.isascii() else escaped(each) for each in normalize("NFC", user))


def _host(text: str) -> str:
    """Host and what follows it, a name beyond ASCII encoded."""
    if text.isascii():
        return text
    host = re.match(r"[^:;?]*", text)
    assert host is not None
    return ascii_host(host[0]) + text[host.end() :]
