"""What pip and venv say when they fail, in one sentence with the remedy."""

import platform
import sys

# Looked for in this order, for a full disk or a missing network makes pip complain of other things
# later on.
_NO_ROOM = (
    "No space left on device",
    "[Errno 28]",
    "Disk quota exceeded",
    "[Errno 122]",
    "not enough space on the disk",
    "[WinError 112]",
)
_NOT_WRITABLE = ("Read-only file system", "Permission denied", "[WinError 5]")
_NO_TRUST = ("CERTIFICATE_VERIFY_FAILED", "SSLError", "SSL: ")
_OFF_LINE = (
    "NewConnectionError",
    "Max retries exceeded",
    "connection broken",
    "Name or service not known",
    "name resolution",
    "getaddrinfo failed",
    "Network is unreachable",
    "Connection refused",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "timed out",
    "ProxyError",
    "Connection reset",
    "Could not fetch URL",
)
_NO_WHEEL = (
    "No matching distribution found",
    "Could not find a version",
    "not a supported wheel",
    "requires a different Python",
)

# Less than this left on the disk explains a failure that does not explain itself (venv hides what
# ensurepip said).
_FULL_BYTES = 20_000_000


def explain(words: str, status: int, free_bytes: int) -> str:
    """The sentence for a set-up step that ended with this exit status and these words on stderr."""
    if _any(_NO_ROOM, words) or free_bytes < _FULL_BYTES:
        return (
            "The disk is full: nothing was set up. Make room, or move this folder to a larger "
            "disk, and start again."
        )
    if _any(_NOT_WRITABLE, words):
        return (
            f"Set-up may not write here: {last_error(words)}. "
            "Copy this folder to a place of your own and start again there."
        )
    if _any(_NO_TRUST, words):
        return (
            "The package index shows a certificate that this Python does not trust. Behind a "
            "company's proxy, set "
            "PIP_CERT to the file with its certificate; else check this computer's date and time. "
            "Then start again."
        )
    if _any(_OFF_LINE, words):
        return (
            "The package index cannot be reached: this computer seems to be off-line. Connect it "
            "to the Internet "
            "(behind a proxy: set HTTPS_PROXY) and start again; nothing was left half-made."
        )
    if _any(_NO_WHEEL, words):
        return (
            f"Not everything is to be had for {platform.platform()} with Python "
            f"{platform.python_version()}: "
            f"{last_error(words)}. It takes 64 bits, macOS 14, Windows 10 or a Linux such as "
            "Debian 12, or newer, "
            "and Python 3.10 to 3.14. Start again with such."
        )
    return (
        f"Set-up stopped with exit status {status}: {last_error(words)}. "
        "Mend that and start again; nothing was left half-made."
    )


def _any(signs: tuple[str, ...], words: str) -> bool:
    return any(sign in words for sign in signs)


def last_error(words: str) -> str:
    """The last line that calls itself an error, or the last line at all."""
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error")]
    return (
        (errors or lines or [f"{sys.executable} said nothing"])[-1]
        .removeprefix("ERROR: ")
        .rstrip(".")
    )
