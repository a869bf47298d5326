"""`python -m softphone`: one's own phone if one was set up, else the pair alice and bob; with
--user one phone for any SIP server."""

from __future__ import annotations

import logging
import sys

from plumbing import screen_check
from softphone.options import options_given, parse_phones, parser
from softphone.password import warning


def main(argv: list[str] | None = None) -> int:
    """Run the phones; the exit status."""
    arguments = parser().parse_args(argv)
    logging.basicConfig(
        level=logging.DEBUG if arguments.verbose else logging.WARNING,
        format="%(asctime)s %(name)s %(levelname)s %(message)s",
    )
    try:
        wanted = parse_phones(arguments)
    except ValueError as fault:
        print(f"softphone: {fault}", file=sys.stderr)
        return 2
    advice = warning(arguments)
    if advice:
        print(f"softphone: {advice}", file=sys.stderr)
    reason = screen_check.why_none()
    if reason and not screen_check.shows_nothing():
        print(f"softphone: {reason}", file=sys.stderr)
        return 1
    try:
        from softphone.gui.app import run
    except ImportError as fault:
        print(
            f"softphone: Qt cannot be loaded ({fault}); install it with: python -m pip install -r "
            "requirements.txt",
            file=sys.stderr,
        )
        return 1
    return run(wanted, may_use_own=not options_given(arguments))


if __name__ == "__main__":
    sys.exit(main())
