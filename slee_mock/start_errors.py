"""Why a server cannot start, for other reasons than its store: sentences with their remedies."""

from __future__ import annotations

import errno

REMEDIES = {
    errno.EADDRINUSE: "end the program that has this port, or name another one",
    errno.EACCES: "ports below 1024 are the system's own: name another one, or allow it",
    errno.EADDRNOTAVAIL: "this computer does not have this address: name another one",
}


class StartError(Exception):
    """The text is a sentence with the remedy."""


def cannot_listen(error: OSError) -> StartError:
    remedy = REMEDIES.get(error.errno or 0, "see why, or name another address and port")
    return StartError(f"cannot listen: {error.strerror or error}; {remedy}")


def cannot_register(error: OSError) -> StartError:
    return StartError(
        f"cannot register: {error.strerror or error}; correct --register, or the network that "
        "leads there"
    )


def name_is_taken(name: str) -> StartError:
    return StartError(
        f"another server that is named {name} starts at this moment; give each its own --name"
    )


def slow_store(name: str, seconds: float) -> str:
    return (
        f"the store {name} does not open within {seconds:g} s; see what keeps its disk or computer "
        "busy, or name another one"
    )
