"""The key that signs branches and route tokens: derived from a file, which the first start makes.

Forwarders with the same file and the same names of servers route alike, and one that starts again
recognises what it signed before. The file is one line of text, so that a person can copy it.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from pathlib import Path
from typing import NamedTuple, NoReturn

from plumbing.file_permissions import OWNER_ONLY, exposed
from sip.branch import keyed_hash

NO_FILE = "forwarder.secret.file is empty"
MIN_CHARACTERS = 32
MAX_CHARACTERS = 4096


class Secret(NamedTuple):
    """`key` signs. `origin` says in words where it is from. `kept`: the next start has it too."""

    key: bytes
    origin: str
    kept: bool

    def __str__(self) -> str:
        return f"{self.fingerprint}, {'from' if self.kept else 'for'} {self.origin}"

    @property
    def fingerprint(self) -> str:
        """Eight digits that are equal where the secret is, and tell nothing of it."""
        return keyed_hash(self.key, "fingerprint")[:8]


class SecretError(Exception):
    """The file cannot be used as it is; the text says why and what to do."""


def secret_path(name: str, settings_file: Path) -> Path | None:
    """The path of the secret file that the settings name; None for an empty name.

    A relative name is beside the settings, or in the folder that systemd made for the service
    (StateDirectory=).
    """
    if not name:
        return None
    state = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    return (Path(state) if state else settings_file.resolve().parent) / name


def open_secret(path: Path | None) -> Secret:
    """The secret in the file, which is made if there is none. Where no file can be made, a secret
    for this run. Raises SecretError for a file that cannot or should not be used."""
    if path is None:
        return ephemeral(NO_FILE)
    # Read first: a file in a folder that this user may not enter must not be taken for none.
    found = _existing(path)
    if found:
        return found
    try:
        _make(path)
    except FileExistsError:  # another forwarder was faster; or a link
        return _existing(path) or _broken_link(path)
    except OSError as error:
        return ephemeral(f"{path} cannot be written: {(error.strerror or str(error)).lower()}")
    return _read(path)._replace(origin=f"{path}, made now")


def describe(path: Path | None) -> str:
    """A line about what `open_secret` would find; makes nothing. Raises SecretError as it does."""
    if path is None:
        return f"for {ephemeral(NO_FILE).origin}"
    found = _existing(path)
    if not found and os.path.lexists(path):
        found = _broken_link(path)
    return str(found) if found else f"{path}, to be made by the first start"


def ephemeral(why: str) -> Secret:
    """A new secret that ends with the process."""
    return Secret(secrets.token_bytes(32), f"this run only ({why})", False)


def _make(path: Path) -> None:
    """Makes the file, whole or not at all. Raises FileExistsError if it is there, OSError if it
    cannot be made."""
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY)
    try:
        with open(handle, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(32) + "\n")
            file.flush()
            os.fsync(handle)
        os.link(temporary, path)  # unlike a rename it replaces nothing
    finally:
        os.unlink(temporary)


def _existing(path: Path) -> Secret | None:
    """Reads the file; None if there is none."""
    try:
        return _read(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SecretError(
            f"{path}: {(error.strerror or str(error)).lower()}; let this user read it"
        ) from None


def _broken_link(path: Path) -> NoReturn:
    raise SecretError(f"{path} is a link to nothing: delete it, and the next start makes the file")


def _read(path: Path) -> Secret:
    """Reads the file. Raises OSError, or SecretError for a file that will not do."""
    # Not blocking: opening a named pipe would wait for its other end.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise SecretError(f"{path} is not a file; name one in forwarder.secret.file")
        fault = exposed(path, status)
        if fault:
            raise SecretError(fault)
        text = os.read(handle, MAX_CHARACTERS).strip()
    finally:
        os.close(handle)
    if len(text) < MIN_CHARACTERS:
        raise SecretError(
            f"{path} holds less than {MIN_CHARACTERS} characters: delete it, and the next start "
            "makes a good one"
        )
    return Secret(hashlib.sha256(text).digest(), str(path), True)
