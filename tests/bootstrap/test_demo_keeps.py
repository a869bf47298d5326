"""demo.py and the folder .venv that is there already: what set-up did not make it never removes,
and a finished environment stays until the next one is finished."""

from __future__ import annotations

import os
import shutil
import signal
import socket

import pytest
from setup_kit import Clone

from bootstrap import environment
from bootstrap.fault import SetupFault

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the faked computers are POSIX ones")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A clone that is set up. Not to be changed by a test: copy it."""
    clone = Clone.make(tmp_path_factory.mktemp("finished"))
    outcome = clone.run()
    assert outcome.status == 0, outcome.err
    return clone


@pytest.fixture
def set_up(finished, tmp_path):
    return finished.copy(tmp_path)


@pytest.fixture
def clone(tmp_path):
    return Clone.make(tmp_path)


def folders(clone):
    return sorted(path.name for path in clone.root.iterdir() if path.name.startswith(".venv"))


def installed(clone):
    found = clone.venv.glob("lib/python*/site-packages/failover_probe-*.dist-info")
    return [path.name.split("-")[1].removesuffix(".dist") for path in found]


# -- not ours --------------------------------------------------------------------------------------


def a_developer_s_own(clone):
    (clone.venv / "bin").mkdir(parents=True)
    (clone.venv / "pyvenv.cfg").write_text("home = /usr/bin\n")
    (clone.venv / "bin" / "python").symlink_to("/usr/bin/python3")
    return clone.venv / "pyvenv.cfg"


def a_link_to_one_of_ours(clone):
    elsewhere = clone.root.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / environment.MARK).write_text("")
    (elsewhere / "requirements.stamp").write_text(
        environment._stamp_text(clone.root).replace("0", "1")
    )
    clone.venv.symlink_to(elsewhere)
    return elsewhere / "requirements.stamp"


def a_file(clone):
    clone.venv.write_text("not a folder")
    return clone.venv


def one_with_somebody_else_s_stamp(clone):
    clone.venv.mkdir()
    (clone.venv / "requirements.stamp").write_text("2026-11-30, by make")
    return clone.venv / "requirements.stamp"


def an_empty_folder(clone):
    clone.venv.mkdir()
    return clone.venv


@pytest.mark.parametrize(
    "make",
    [
        a_developer_s_own,
        a_link_to_one_of_ours,
        a_file,
        one_with_somebody_else_s_stamp,
        an_empty_folder,
    ],
)
def test_a_venv_that_set_up_did_not_make_is_left_alone_and_the_sentence_says_what_to_do(
    clone, make
):
    precious = make(clone)
    before = precious.read_bytes() if precious.is_file() else None
    outcome = clone.run()
    outcome.assert_fault(
        "did not make", "left alone", "Rename it", "-m pip install -r requirements.txt"
    )
    assert outcome.err.count("\n") == 1
    assert precious.exists() and (precious.read_bytes() if precious.is_file() else None) == before
    assert folders(clone) == [".venv"]


def test_folders_beside_it_that_are_somebody_else_s_are_left_alone_too(set_up):
    set_up.require("failover_probe==2.0")
    for name in (".venv.new", ".venv.old"):
        (set_up.root / name).mkdir()
        (set_up.root / name / "precious").write_text("")
        set_up.run().assert_fault(name, "left alone")
        assert (set_up.root / name / "precious").exists() and installed(set_up) == ["1.0"]
        shutil.rmtree(set_up.root / name)


# -- ours, and for something else ------------------------------------------------------------------


@pytest.mark.long
def test_off_line_after_a_pull_the_environment_of_before_is_still_there(set_up, free_port):
    set_up.require("failover_probe==2.0")
    online = dict(set_up.environ)
    del set_up.environ["PIP_NO_INDEX"], set_up.environ["PIP_FIND_LINKS"]
    set_up.environ["PIP_INDEX_URL"] = f"http://127.0.0.1:{free_port()}/simple"
    set_up.run().assert_fault("off-line", "Connect it to the Internet")
    assert folders(set_up) == [".venv"] and installed(set_up) == ["1.0"]
    set_up.require("failover_probe==1.0")  # back to the commit of before
    back = set_up.run()
    assert (back.status, back.err) == (0, ""), "it starts at once"
    set_up.require("failover_probe==2.0")
    set_up.environ = online
    assert set_up.run().status == 0 and installed(set_up) == ["2.0"]


@pytest.mark.long
def test_the_next_one_is_made_beside_it_and_then_they_change_places(set_up):
    set_up.require("failover_probe==2.0")
    with socket.create_server(("127.0.0.1", 0)) as index:
        online = dict(set_up.environ)
        del set_up.environ["PIP_NO_INDEX"], set_up.environ["PIP_FIND_LINKS"]
        set_up.environ["PIP_INDEX_URL"] = f"http://127.0.0.1:{index.getsockname()[1]}/simple"
        demo = set_up.start()
        index.settimeout(40)
        connection, _ = index.accept()  # pip is at work, and waits for an answer that never comes
        with connection:
            assert installed(set_up) == ["1.0"] and environment._stamped(set_up.venv)
            os.killpg(demo.pid, signal.SIGKILL)
    demo.communicate()  # pip gives up
    assert folders(set_up) == [".venv", ".venv.new"]
    set_up.environ = online
    outcome = set_up.run()
    assert outcome.status == 0 and "keeping it until then" in outcome.err
    assert folders(set_up) == [".venv"] and installed(set_up) == ["2.0"]
    assert outcome.started["prefix"] == str(set_up.venv)
    named = [path for path in set_up.venv.joinpath("bin").iterdir() if not path.is_symlink()]
    assert named and not [path for path in named if b".venv.new" in path.read_bytes()]


def test_a_disk_without_room_for_the_next_one_is_told_before_anything_is_removed(set_up):
    set_up.require("failover_probe==2.0")
    set_up.patch(
        "import shutil\nfrom collections import namedtuple\n"
        "usage = namedtuple('Usage', 'total used free')(10**9, 10**9 - 5 * 10**6, 5 * 10**6)\n"
        "shutil.disk_usage = lambda path: usage\n"
    )
    set_up.run().assert_fault("The disk is too full", "5 MB are free", "Make room")
    assert folders(set_up) == [".venv"] and installed(set_up) == ["1.0"]


# -- after a crash ---------------------------------------------------------------------------------

HALF, OLD, NEW = "half", "old", "new"


@pytest.mark.long
@pytest.mark.parametrize(
    "venv, fresh, old, expected",
    [
        (None, NEW, OLD, NEW),
        (NEW, None, OLD, NEW),
        (None, None, OLD, OLD),
        (None, HALF, OLD, OLD),
        (OLD, HALF, None, OLD),
        (OLD, NEW, None, OLD),
    ],
)
def test_what_a_kill_leaves_of_the_three_folders_is_put_right(clone, venv, fresh, old, expected):
    """The table of bootstrap/environment.py. Each is told by its stamp; the next set-up cannot
    install anything."""
    for name, kind in ((".venv", venv), (".venv.new", fresh), (".venv.old", old)):
        if kind:
            folder = clone.root / name
            (folder / "bin").mkdir(parents=True)
            (folder / environment.MARK).write_text("")
            (folder / "bin" / "python").write_text("")
            stamps = {
                NEW: environment._stamp_text(clone.root),
                OLD: f"requirements {'0' * 64}\npython a b\n",
            }
            if kind in stamps:
                (folder / "requirements.stamp").write_text(stamps[kind])
    if expected == NEW:
        environment.build(clone.root) if venv is None else environment.ready(clone.root)
    else:
        clone.environ["PIP_FIND_LINKS"] = os.devnull
        assert clone.run().status != 0
    assert environment.venv_fits(clone.root) == (expected == NEW)
    assert environment._stamped(clone.venv) and folders(clone) == [".venv"]


def test_a_half_made_one_counts_as_room_for_its_successor(clone, monkeypatch):
    clone.venv.mkdir()
    (clone.venv / environment.MARK).write_text("")
    (clone.venv / "large").write_bytes(b"x" * 3_000_000)
    monkeypatch.setattr(environment, "NEEDED_MB", 2)
    monkeypatch.setattr(environment.shutil, "disk_usage", lambda path: _Usage(0))
    environment._refuse_full_disk(clone.root)
    monkeypatch.setattr(environment, "NEEDED_MB", 4)
    with pytest.raises(SetupFault, match="3 MB are free"):
        environment._refuse_full_disk(clone.root)


class _Usage:
    def __init__(self, free):
        self.free = free
