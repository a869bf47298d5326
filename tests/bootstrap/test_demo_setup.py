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

import pytest
from packaging.requirements import Requirement
from setup_kit import ROOT

from bootstrap import environment
from bootstrap import launcher as cli
from bootstrap.errors import SetupError
from stage import options

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the faked computers are POSIX ones")


def test_first_start_makes_the_environment_and_starts_the_example_in_it(first_start):
    clone, first = first_start
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
    finished.environ["STAGE_STATUS"] = "7"
    second = finished.run()
    del finished.environ["STAGE_STATUS"]
    assert second.status == 7
    assert second.err == ""
    assert second.started["arguments"] == ["show"]


def test_picture_folder_is_meant_from_where_the_person_stands(finished, tmp_path):
    outcome = finished.run("play", "--screenshots", "shots", "--talk", "4.5", cwd=tmp_path)
    assert outcome.started["arguments"] == [
        "play",
        "--screenshots",
        str(tmp_path / "shots"),
        "--talk",
        "4.5",
    ]


def test_tests_run_without_a_display_and_get_their_arguments(finished):
    finished.environ["DISPLAY"] = ":99"
    outcome = finished.run("test", "-k", "bye", "--maxfail=1")
    del finished.environ["DISPLAY"]
    assert outcome.started["platform"] == "offscreen"
    assert outcome.started["arguments"] == [
        "-q",
        "--durations=10",
        "--processes=2",
        "-k",
        "bye",
        "--maxfail=1",
    ]


def test_phones_alone_get_their_arguments(finished):
    assert finished.run("softphone", "--user", "alice").started["arguments"] == ["--user", "alice"]


@pytest.mark.parametrize("line", ["requirements", "python"])
def test_environment_of_other_requirements_or_another_python_does_not_fit(set_up, line):
    assert environment.venv_fits(set_up.root)
    stamp = set_up.venv / "requirements.stamp"
    stamp.write_text(stamp.read_text().replace(line + " ", line + " other "))
    assert not environment.venv_fits(set_up.root)


def test_second_demo_waits_for_the_first_and_uses_what_that_made(set_up):
    stamp = set_up.venv / "requirements.stamp"
    text = stamp.read_text()
    stamp.unlink()
    with environment.only_one(set_up.root):
        second = set_up.start()
        assert "waiting" in second.stderr.readline()
        stamp.write_text(text)
    out, err = second.communicate(timeout=20)
    assert second.returncode == 0
    assert err == "" and str(set_up.venv) in out


def test_running_interpreter_that_has_everything_is_used(clone):
    clone.require(
        "# what is there already",
        f"iniconfig=={version('iniconfig')}",
        'failover_probe==1.0; python_version < "3.0"',
    )
    outcome = clone.run()
    assert outcome.started["prefix"] == sys.prefix
    assert not clone.venv.exists()


def test_environment_whose_python_is_gone_does_not_fit(set_up):
    environment.venv_python(set_up.root).unlink()
    assert not environment.venv_fits(set_up.root)


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
    assert "Traceback" not in err and "The same command starts it again" in err
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
            assert not environment.locked(file)
            connection.close()
            index.close()  # pip gives up
            eventually(lambda: environment.locked(file), timeout=20)
    demo.communicate()
    assert clone.venv.exists() and not environment.venv_fits(clone.root)


def test_termination_while_the_environment_is_made_leaves_nothing(clone, eventually):
    demo = clone.start()
    eventually(lambda: (clone.venv / "pyvenv.cfg").exists(), timeout=20)
    demo.terminate()
    _, err = demo.communicate(timeout=20)
    assert demo.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in err and "The same command starts it again" in err
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


@pytest.mark.long
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
        with pytest.raises(SetupError, match="The disk is full"):
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
    monkeypatch.setattr(cli.qt_libraries, "missing", lambda environ: [])
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)
    assert cli.main(["play"]) == 1
    said = capsys.readouterr().err
    assert "Set-up may not write here" in said and "/there/.venv" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--jsn"], "--jsn"),
        (["ply"], "ply"),
        (["play", "--talk", "soon"], "'soon'"),
        (["play", "--talk", "2.9"], "between 3 and 3600 seconds"),
        (["play", "--talk", "3601"], "between 3 and 3600 seconds"),
        (["play", "--talk", "nan"], "between 3 and 3600 seconds"),
        (["play", "--screenshots"], "--screenshots"),
        (["play", "play"], "play"),
        (["pak"], "show or play; or begin with test, softphone or pack"),
        (["--lan", "foo"], "--lan: 'foo' is no IP address of this computer"),
        (["--lan", "192.0.2.1"], "no IP address of this computer"),
    ],
)
def test_argument_that_makes_no_sense_is_told_before_anything_is_set_up(clone, arguments, words):
    outcome = clone.run(*arguments)
    outcome.assert_fault(words)
    assert outcome.status == 2 and not clone.venv.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--free-ports"],
        ["--pair"],
        ["play", "--pair", "--json", "--free-ports"],
        ["--deploy", "prepaid:/balances.txt", "--deploy", "greeter", "--free-ports"],
        ["play"],
        ["play", "--json", "--screenshots", "/D", "--talk", "3", "--free-ports"],
        ["play", "--talk", "3600"],
        ["--store", "redis://127.0.0.1:6379/0"],
        ["--lan"],
        ["--lan", "127.0.0.1", "--pair"],
        ["--scene", "frozen", "--report", "story.html"],
        ["--scenes"],
    ],
)
def test_options_of_the_example_reach_it(arguments):
    program = cli.parse(arguments)
    assert program.module == "stage"
    assert options.parse(program.arguments) == options.parse(arguments)


def test_no_option_of_the_example_is_left_out():
    """Whatever options it gets: each alone, with a value that it takes."""
    values = {"talk": 5.0, "lan": "127.0.0.1", "deploy": ["greeter:Hello"]}
    for name, usual in vars(options.Options()).items():
        if name != "what":
            value = True if usual is False else values.get(name, f"/{name}")
            wanted = [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
            wanted = wanted if name != "deploy" else ["--deploy", *values["deploy"]]
            asked = options.parse(wanted)
            assert getattr(asked, name) != usual
            assert options.parse(cli.parse(wanted).arguments) == asked, name


def test_files_are_meant_from_where_the_person_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "balances.txt").write_text("alice:5.00\n")
    wishes = ["--deploy", "prepaid:balances.txt", "--deploy", "greeter:Hello", "--store", "my.db"]
    arguments = cli.parse(wishes).arguments
    assert f"prepaid:{tmp_path / 'balances.txt'}" in arguments
    assert "greeter:Hello" in arguments, "no file, but words for the service"
    assert str(tmp_path / "my.db") in arguments


def test_help_and_version_need_no_set_up(clone):
    said = clone.run("--help").out
    assert "demo.py test" in said and "--screenshots DIR" in said
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


def test_every_requirement_is_pinned():
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        assert line.startswith("#") or Requirement(line).specifier
