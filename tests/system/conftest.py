"""The story that tests of a pair of forwarders on two hosts tell."""

from __future__ import annotations

import contextlib

import pytest
from hosts_kit import Meter, Pair, unfit
from takeover_kit import SLACK, Story, phones_started


@pytest.fixture
def story(eventually):
    """story(unicast=False): everything runs, they talk, requests are being counted."""
    reason = unfit(nft="nftables", keepalived="keepalived")
    if reason:
        pytest.skip(reason)
    with contextlib.ExitStack() as stack:

        def begin(**options):
            pair = stack.enter_context(Pair(**options))
            told = Story(eventually, pair, stack.enter_context(Meter()), *phones_started(stack))
            told.begins()
            return told

        yield begin


@pytest.fixture
def outage(capsys):
    """outage(story, what, limit): seconds without an answer until now, printed and held to the
    limit. None was a refusal."""

    def tell(story, what, limit):
        seconds = story.meter.outage()
        with capsys.disabled():
            print(f"\n  {what}: {seconds * 1000:.0f} ms without an answer", end=" ")
        assert seconds <= limit + SLACK
        assert story.meter.refused == [], "nobody is refused because the address moves"

    return tell
