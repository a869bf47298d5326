"""Errors: RemoteProtocolError is the peer's fault, LocalProtocolError the caller's."""


class SipError(Exception):
    """Something about a SIP message is not as the protocol wants it."""


class RemoteProtocolError(SipError):
    """The peer broke the rules. `status` is what to answer if the message was a request (RFC 3261
    21.4)."""

    def __init__(self, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.status = status


class LocalProtocolError(SipError):
    """We were about to break the rules: a defect of the caller, never of the network."""
