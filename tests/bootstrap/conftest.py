"""Clones of the project to set up: one as it comes, one that is set up."""

from __future__ import annotations

import pytest
from setup_kit import Clone


@pytest.fixture(scope="session")
def first_start(tmp_path_factory):
    """A clone that is set up, and what its first start said. Not to be changed by a test: copy
    it."""
    clone = Clone.make(tmp_path_factory.mktemp("finished"))
    return clone, clone.run("play", "--json")


@pytest.fixture
def finished(first_start):
    clone, outcome = first_start
    assert outcome.status == 0, outcome.err
    return clone


@pytest.fixture
def set_up(finished, tmp_path):
    return finished.copy(tmp_path)


@pytest.fixture
def clone(tmp_path):
    return Clone.make(tmp_path)
