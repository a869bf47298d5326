"""demo.py and the folder .venv that is there already: set-up never removes one that it did not make,
and what is installed in its own stays until what is new is downloaded."""

from __future__ import annotations

import os
import signal
import socket

import pytest

from bootstrap import environment

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the faked computers are POSIX ones")


UNFINISHED = f"requirements unfinished\npython {environment.PYTHON}\n"


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
    (elsewhere / "requirements.stamp").write_text(UNFINISHED)
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
    assert set_up.run().status == 0, "it needs no network for what is there"
    set_up.require("failover_probe==2.0")
    set_up.environ = online
    assert set_up.run().status == 0 and installed(set_up) == ["2.0"]


@pytest.mark.long
def test_new_requirements_that_were_interrupted_by_a_kill_are_installed_by_the_next_start(set_up):
    set_up.require("failover_probe==2.0")
    with socket.create_server(("127.0.0.1", 0)) as index:
        online = dict(set_up.environ)
        del set_up.environ["PIP_NO_INDEX"], set_up.environ["PIP_FIND_LINKS"]
        set_up.environ["PIP_INDEX_URL"] = f"http://127.0.0.1:{index.getsockname()[1]}/simple"
        demo = set_up.start()
        index.settimeout(40)
        connection, _ = index.accept()  # pip is at work, and waits for an answer that never comes
        with connection:
            assert installed(set_up) == ["1.0"] and not environment.venv_fits(set_up.root)
            os.killpg(demo.pid, signal.SIGKILL)
    demo.communicate()  # pip gives up
    set_up.environ = online
    assert set_up.run().status == 0
    assert installed(set_up) == ["2.0"] and environment.venv_fits(set_up.root)


@pytest.mark.long
def test_one_that_is_half_made_is_made_anew(set_up):
    set_up.require("failover_probe==2.0")
    (set_up.venv / "requirements.stamp").write_text("requirements unfinished\npython unfinished\n")
    (set_up.venv / "left over").write_text("")
    outcome = set_up.run()
    assert outcome.status == 0, outcome.err
    assert not (set_up.venv / "left over").exists() and installed(set_up) == ["2.0"]


@pytest.mark.long
def test_a_disk_without_room_for_the_next_one_is_told_before_anything_is_removed(set_up):
    set_up.require("failover_probe==2.0")
    set_up.patch(
        "import shutil\nfrom collections import namedtuple\n"
        "usage = namedtuple('Usage', 'total used free')(10**9, 10**9 - 5 * 10**6, 5 * 10**6)\n"
        "shutil.disk_usage = lambda path: usage\n"
    )
    set_up.run().assert_fault("The disk is too full", "5 MB are free", "Make room")
    assert folders(set_up) == [".venv"] and installed(set_up) == ["1.0"]
