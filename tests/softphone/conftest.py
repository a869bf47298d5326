"""Real phones without windows."""

from __future__ import annotations

import pytest
from phone_kit import QUICKLY, Owner


@pytest.fixture
def owners():
    made: list[Owner] = []

    def make(user: str, **options) -> Owner:
        made.append(Owner(user, **options))
        return made[-1]

    yield make
    for owner in made:
        owner.phone.stop(QUICKLY)
