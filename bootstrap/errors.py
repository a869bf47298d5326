"""The messages of set-up on stderr: its progress, and its errors, each with a remedy."""

import sys


class SetupError(Exception):
    """Why set-up cannot go on: one sentence that says what is wrong and what to do about it."""


def say(sentence: str) -> None:
    """Print to stderr: stdout belongs to the program that is started afterwards."""
    print(sentence, file=sys.stderr, flush=True)


# Words in the output of pip, or in an OSError -> the sentence for it. In this order: with a full
# disk or without a network pip goes on to complain of other things, too.
KNOWN_ERRORS = {
    "No space left|Errno 28|Errno 122|not enough space": "The disk is full. Make room, or move "
    "this folder to a larger disk",
    "Errno 30|Errno 13|Permission denied|WinError 5]": "Set-up may not write here. Copy this "
    "folder to a place of your own",
    "CERTIFICATE_VERIFY_FAILED|SSLError": "This Python does not trust the package index. Set "
    "PIP_CERT to your proxy's certificate, or correct this computer's date",
    "connection broken|Max retries|timed out|name resolution|Could not fetch URL": "The package "
    "index cannot be reached: this computer seems to be off-line. Connect it to the Internet "
    "(behind a proxy: set HTTPS_PROXY)",
    "No matching distribution|Could not find a version": "A package does not exist for this "
    "computer. It takes 64 bits, Python 3.10 to 3.14, and macOS 14, Windows 10 or a Linux such as "
    "Debian 12 (on ARM: Debian 13)",
}


def explain(output: str) -> str:
    """The sentence for a failed step of the set-up that printed this."""
    lines = [line.strip() for line in output.splitlines() if line.strip()] or ["no output"]
    last = ([line for line in lines if line.lower().startswith("error")] or lines)[-1]
    last = last.removeprefix("ERROR: ").rstrip(".")
    for words, sentence in KNOWN_ERRORS.items():
        if any(word in output for word in words.split("|")):
            return f"{sentence}, and start again. ({last})"
    return f"Set-up stopped: {last}. Correct that and start again."
