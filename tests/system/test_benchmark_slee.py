"""benchmarks/slee.py: a small run of it with a real server."""

from __future__ import annotations

import json

import pytest
from process_kit import free_port

from benchmarks import slee


def test_a_rate_beyond_reason_is_refused(capsys):
    with pytest.raises(SystemExit):
        slee.parse(["--rate", "0"])
    assert "--rate" in capsys.readouterr().err


@pytest.mark.long
def test_every_call_of_a_small_run_is_set_up_ended_and_billed(capsys, monkeypatch):
    monkeypatch.setattr(slee, "_have_a_core_each", lambda pid: None)
    assert (
        slee.main(
            [
                "--rate",
                "20",
                "--seconds",
                "1",
                "--at-once",
                "2",
                "--port",
                str(free_port()),
                "--json",
            ]
        )
        == 0
    )
    told = json.loads(capsys.readouterr().out)
    assert (
        told["steady"]["completed"] == told["steady"]["placed"]
        and 15 <= told["steady"]["placed"] <= 20
    )
    assert told["missing"] == 0 and told["good"]
