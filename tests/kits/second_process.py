"""`pytest --processes 2`: a second process runs the tests from the other end of the list.
(pytest-xdist does more; these tests are to need no packages but pytest and pytest-qt.)

This process takes the test files from the first on, the second one from the last on, until they
meet: each file is run by the process that makes its claim, an empty file in a common folder. The
second process sends its reports to this one, which counts, shows and times them like its own. Its
output is shown only if it ends before it is done.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain, groupby, pairwise
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import process_kit
import pytest

OWN_OPTIONS = ("-q", "--processes=1")
END_SECONDS = 30.0  # for the second process to end what it is at, when this one stops early
DONE = "done"  # the last thing that the second process sends


def run(session: pytest.Session, common: Path, backwards: bool) -> Iterator[None]:
    """Run the files that the other process has not claimed, test by test."""

    def claimed() -> Iterator[pytest.Item]:
        files = [list(items) for _, items in groupby(session.items, key=lambda item: item.path)]
        for number, items in sorted(enumerate(files), key=lambda file: file[0], reverse=backwards):
            with suppress(FileExistsError):
                (common / str(number)).touch(exist_ok=False)
                yield from items

    for item, following in pairwise(chain(claimed(), [None])):
        assert item
        item.ihook.pytest_runtest_protocol(item=item, nextitem=following)
        yield
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
        if session.shouldstop:
            raise session.Interrupted(session.shouldstop)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """In the first process: start the second one, run tests, and take in the other's reports."""
    options = session.config.option
    alone = options.processes == 1 or os.cpu_count() == 1
    if alone or options.collectonly or session.testsfailed:
        return None  # pytest's own loop
    process_kit.share = (0, 2)
    context = get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory() as folder, ours:
        words = (*session.config.invocation_params.args, *OWN_OPTIONS)
        other = context.Process(target=be_second, args=(words, theirs, Path(folder)))
        other.start()
        theirs.close()
        try:
            going_on = True
            for _ in run(session, Path(folder), backwards=False):
                while going_on and ours.poll():
                    going_on = _take_in(session, ours)
            while going_on:
                going_on = _take_in(session, ours)
        except EOFError:
            text = (Path(folder) / "output").read_text(errors="replace")
            pytest.exit(f"the second process ended before it was done\n{text}", returncode=1)
        except BaseException:
            if other.pid and sys.platform != "win32":
                os.kill(other.pid, signal.SIGINT)  # so that it stops what its tests have started
            raise
        finally:
            other.join(END_SECONDS)
            other.terminate()
            other.join()
            other.close()
    return True


def _take_in(session: pytest.Session, reports: Connection[Any, Any]) -> bool:
    """Handle one report of the second process as one of this process; False: it was the last.
    Raises EOFError where that process has died."""
    data = reports.recv()
    if data == DONE:
        return False
    hook = session.config.hook
    report = hook.pytest_report_from_serializable(config=session.config, data=data)
    hook.pytest_runtest_logreport(report=report)
    if session.shouldfail:
        raise session.Failed(session.shouldfail)
    return True


class Second:
    """The plugin of the second process."""

    def __init__(self, reports: Connection[Any, Any], common: Path) -> None:
        self._reports, self._common = reports, common

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        for _ in run(session, self._common, backwards=True):
            pass
        self._reports.send(DONE)
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        hook = self._config.hook
        self._reports.send(hook.pytest_report_to_serializable(config=self._config, report=report))

    def pytest_configure(self, config: pytest.Config) -> None:
        self._config = config


def be_second(words: Sequence[str], reports: Connection[Any, Any], common: Path) -> None:
    """The second process. Its own output goes to a file."""
    output = os.open(common / "output", os.O_WRONLY | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    process_kit.share = (1, 2)
    pytest.main([*words], plugins=[Second(reports, common)])
