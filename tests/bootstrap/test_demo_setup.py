"""demo.py on a bare computer: what it sets up, what it becomes, and what it says when something is
missing."""

from __future__ import annotations

import ast
import os
import signal
import socket
import subprocess
import sys
from importlib.metadata import version
from types import SimpleNamespace

import pytest
from setup_kit import ROOT, Clone

from bootstrap import command, environment
from bootstrap.fault import SetupFault

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the faked computers are POSIX ones")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A clone that is set up, and what its first start said. Not to be changed by a test: copy
    it."""
    clone = Clone.make(tmp_path_factory.mktemp("finished"))
    return clone, clone.run("play", "--json")


@pytest.fixture
def clone(tmp_path):
    return Clone.make(tmp_path)


def test_first_start_makes_the_environment_and_starts_the_example_in_it(finished):
    clone, first = finished
    assert first.status == 0, first.err
    assert first.started == {
        "name": "__main__",
        "prefix": str(clone.venv),
        "arguments": ["play", "--json"],
        "platform": None,
    }
    assert "Setting up .venv" in first.err and "Successfully installed failover_probe" in first.err
    assert not (clone.venv / "tmp").exists()


def test_second_start_goes_straight_to_the_example_and_passes_on_its_exit_status(finished):
    clone, _ = finished
    clone.environ["STAGE_STATUS"] = "7"
    second = clone.run()
    del clone.environ["STAGE_STATUS"]
    assert second.status == 7
    assert second.err == ""
    assert second.started["arguments"] == []


def test_picture_folder_is_meant_from_where_the_person_stands(finished, tmp_path):
    clone, _ = finished
    outcome = clone.run("play", "--screenshots", "shots", "--talk", "4.5", cwd=tmp_path)
    assert outcome.started["arguments"] == [
        "play",
        "--screenshots",
        str(tmp_path / "shots"),
        "--talk",
        "4.5",
    ]


def test_tests_run_without_a_display_and_get_their_arguments(finished):
    clone, _ = finished
    clone.environ["DISPLAY"] = ":99"
    outcome = clone.run("test", "-k", "bye", "--maxfail=1")
    del clone.environ["DISPLAY"]
    assert outcome.started["platform"] == "offscreen"
    assert outcome.started["arguments"] == ["-k", "bye", "--maxfail=1"]


def test_phones_alone_get_their_arguments(finished):
    clone, _ = finished
    assert clone.run("softphone", "--user", "alice").started["arguments"] == ["--user", "alice"]


@pytest.mark.parametrize("line", ["requirements", "python"])
def test_environment_of_other_requirements_or_another_python_does_not_fit(finished, tmp_path, line):
    clone = finished[0].copy(tmp_path)
    assert environment.venv_fits(clone.root)
    stamp = clone.venv / "requirements.stamp"
    stamp.write_text(stamp.read_text().replace(line + " ", line + " other "))
    assert not environment.venv_fits(clone.root)


@pytest.mark.long
def test_environment_without_its_stamp_is_half_made_and_made_anew(finished, tmp_path):
    clone = finished[0].copy(tmp_path)
    clone.require("failover_probe==2.0")
    (clone.venv / "requirements.stamp").unlink()
    (clone.venv / "left over").write_text("from a start that was killed")
    outcome = clone.run()
    assert outcome.status == 0, outcome.err
    assert "making it anew" in outcome.err
    assert not (clone.venv / "left over").exists()
    assert list(clone.venv.glob("lib/python*/site-packages/failover_probe-2.0.dist-info"))


def test_second_demo_waits_for_the_first_and_uses_what_that_made(finished, tmp_path):
    clone = finished[0].copy(tmp_path)
    stamp = clone.venv / "requirements.stamp"
    text = stamp.read_text()
    stamp.unlink()
    with environment.only_one(clone.root):
        second = clone.start()
        assert "waiting" in second.stderr.readline()
        stamp.write_text(text)
    out, err = second.communicate(timeout=20)
    assert second.returncode == 0
    assert err == "" and str(clone.venv) in out


def test_running_interpreter_that_has_everything_is_used(clone):
    clone.require(
        f"iniconfig=={version('iniconfig')}", 'failover_probe==1.0; python_version < "3.0"'
    )
    outcome = clone.run()
    assert outcome.started["prefix"] == sys.prefix
    assert not clone.venv.exists()


def test_environment_whose_python_is_gone_does_not_fit(finished, tmp_path):
    clone = finished[0].copy(tmp_path)
    environment.venv_python(clone.root).unlink()
    assert not environment.venv_fits(clone.root)


@pytest.mark.long
def test_off_line_computer_is_told_so_and_nothing_is_left(clone, free_port):
    del clone.environ["PIP_NO_INDEX"], clone.environ["PIP_FIND_LINKS"]
    clone.environ["PIP_INDEX_URL"] = f"http://127.0.0.1:{free_port()}/simple"
    outcome = clone.run()
    outcome.assert_fault("off-line", "Connect it to the Internet")
    assert not clone.venv.exists()


@pytest.mark.long
def test_interrupt_while_installing_leaves_nothing(clone):
    with socket.create_server(("127.0.0.1", 0)) as index:
        del clone.environ["PIP_NO_INDEX"], clone.environ["PIP_FIND_LINKS"]
        clone.environ["PIP_INDEX_URL"] = f"http://127.0.0.1:{index.getsockname()[1]}/simple"
        demo = clone.start()
        index.settimeout(40)
        connection, _ = index.accept()  # pip is at work, and waits for an answer that never comes
        with connection:
            demo.send_signal(signal.SIGINT)
            _, err = demo.communicate(timeout=20)
    assert demo.returncode == 130
    assert "Traceback" not in err and "nothing was left half-made" in err
    assert not clone.venv.exists()


@pytest.mark.long
def test_pip_that_outlives_a_killed_demo_is_waited_for(clone, eventually):
    with socket.create_server(("127.0.0.1", 0)) as index:
        del clone.environ["PIP_NO_INDEX"], clone.environ["PIP_FIND_LINKS"]
        clone.environ["PIP_INDEX_URL"] = f"http://127.0.0.1:{index.getsockname()[1]}/simple"
        demo = clone.start()
        index.settimeout(40)
        connection, _ = index.accept()
        demo.kill()
        demo.wait()
        with open(clone.root / "requirements.txt", "rb") as file:
            assert not environment._locked(file)
            connection.close()
            index.close()  # pip gives up
            eventually(lambda: environment._locked(file), timeout=20)
    demo.communicate()
    assert clone.venv.exists() and not environment.venv_fits(clone.root)


def test_termination_while_the_environment_is_made_leaves_nothing(clone, eventually):
    demo = clone.start()
    eventually(lambda: (clone.venv / "pyvenv.cfg").exists(), timeout=20)
    demo.terminate()
    _, err = demo.communicate(timeout=20)
    assert demo.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in err and "nothing was left half-made" in err
    assert not clone.venv.exists()


def test_full_disk_is_noticed_before_anything_is_downloaded(clone):
    clone.patch(
        "import shutil\nfrom collections import namedtuple\n"
        "shutil.disk_usage = lambda path: namedtuple('Usage', 'total used free')(10**9, 10**9 - 5 "
        "* 10**6, 5 * 10**6)\n"
    )
    outcome = clone.run()
    outcome.assert_fault("The disk is too full", "5 MB are free", "Make room")
    assert not clone.venv.exists()


def test_disk_that_fills_up_meanwhile_leaves_nothing(clone, tmp_path, monkeypatch):
    disk = tmp_path / "small"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12M", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("only root can make a small disk")
    try:
        (disk / "requirements.txt").write_bytes((clone.root / "requirements.txt").read_bytes())
        monkeypatch.setattr(environment, "NEEDED_MB", 0)
        with pytest.raises(SetupFault, match="The disk is full"):
            environment.build(disk)
        assert [path.name for path in disk.iterdir()] == ["requirements.txt"]
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(13, "Permission denied", "/there/.venv"),
        OSError(30, "Read-only file system", "/there/.venv"),
    ],
)
def test_folder_that_must_not_be_written_is_named(error, monkeypatch, capsys):
    def refuse(root):
        raise error

    monkeypatch.setattr(environment, "ready", refuse)
    monkeypatch.setattr(command.libraries, "missing", lambda wanted: [])
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)
    assert command.main(["play"]) == 1
    assert capsys.readouterr().err == (
        "Set-up may not write to /there/.venv. Copy this folder to a place of your own and start "
        "again there.\n"
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--jsn"], "--jsn"),
        (["ply"], "ply"),
        (["--json"], "python3 demo.py play --json"),
        (["play", "--talk", "soon"], "'soon' is not a number of seconds"),
        (["play", "--talk", "2.9"], "'2.9' is not a number of seconds"),
        (["play", "--talk", "3601"], "'3601' is not a number of seconds"),
        (["play", "--talk", "nan"], "'nan' is not a number of seconds"),
        (["play", "--talk", "-1"], "'-1' is not a number of seconds"),
        (["play", "--screenshots"], "--screenshots"),
        (["play", "play"], "play"),
    ],
)
def test_argument_that_makes_no_sense_gets_a_sentence(clone, arguments, words):
    outcome = clone.run(*arguments)
    outcome.assert_fault(words, "python3 demo.py --help")
    assert outcome.status == 2
    assert outcome.err.count("\n") == 1
    assert not clone.venv.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--free-ports"],
        ["--pair"],
        ["play", "--pair", "--json", "--free-ports"],
        ["--deploy", "prepaid:balances.txt", "--free-ports"],
        ["play"],
        ["play", "--json", "--screenshots", "D", "--talk", "3", "--free-ports"],
        ["play", "--talk", "3600"],
        ["--store", "redis://127.0.0.1:6379/0"],
    ],
)
def test_what_is_passed_on_is_what_the_stage_takes(arguments):
    from stage import __main__ as stage

    job = command.parse(arguments)
    options = stage.parse(job.arguments)
    assert job.module == "stage"
    assert (options.what == "play") == ("play" in arguments)
    assert options.free_ports == ("--free-ports" in arguments)
    assert options.pair == ("--pair" in arguments)
    assert options.deploy == [f"prepaid:{os.path.abspath('balances.txt')}"] * (
        "--deploy" in arguments
    )
    assert options.store == ("redis://127.0.0.1:6379/0" if "--store" in arguments else None)


def test_help_and_version_need_no_set_up(clone):
    assert "python3 demo.py play" in clone.run("--help").out
    assert clone.run("--version").out == "Call Failover 0.1.0\n"
    assert not clone.venv.exists()


def test_old_python_is_told_what_it_takes():
    program = "import runpy, sys; sys.version_info = (3, 6, 15); runpy.run_path('demo.py', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "needs Python 3.10 or newer" in done.stderr and "Traceback" not in done.stderr


def test_demo_py_itself_is_written_so_that_old_pythons_can_read_it():
    """Nothing that came after Python 2.7: it could not say its sentence."""
    tree = ast.parse((ROOT / "demo.py").read_text())
    newer = (
        ast.JoinedStr,
        ast.NamedExpr,
        ast.AnnAssign,
        ast.Nonlocal,
        ast.Starred,
        ast.AsyncFunctionDef,
        ast.Match,
    )
    assert not [node for node in ast.walk(tree) if isinstance(node, newer)]
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        assert function.returns is None
        assert not [argument for argument in function.args.args if argument.annotation]


def test_every_requirement_is_pinned_and_understood():
    for name, wanted in environment.pins((ROOT / "requirements.txt").read_text()).items():
        assert name and wanted, "requirements.txt: name==version, please"
    assert set(environment.MODULES) <= set(
        environment.pins((ROOT / "requirements.txt").read_text())
    )


@pytest.mark.parametrize(
    ("python", "platform", "lines"),
    [((3, 10), "linux", "a=1 b=2 e=5"), ((3, 12), "win32", "a=1 b=3 d=4")],
)
def test_pins_follow_the_python_and_the_system(python, platform, lines, monkeypatch):
    text = """\
# a comment
a==1  # and one more
b==2; python_version < "3.12"
b==3; python_version >= "3.12"
d==4; sys_platform == "win32"
e==5; python_version == "3.10"
"""
    monkeypatch.setattr(
        environment, "sys", SimpleNamespace(version_info=(*python, 1), platform=platform)
    )
    assert environment.pins(text) == dict(line.split("=") for line in lines.split())


def test_marker_that_is_not_understood_is_an_error_not_a_guess():
    with pytest.raises(ValueError, match="not understood: os_name"):
        environment.pins('a==1; os_name == "nt"')
