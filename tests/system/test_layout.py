"""The shape of the project, checked from its imports: which package may use which, and where the
world may come in."""

from __future__ import annotations

import ast
import os
import re
import sys
from collections import namedtuple
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("plumbing", "sip", "failover", "slee_mock", "softphone", "stage")

MAY_IMPORT = {
    "plumbing": set(),
    "sip": set(),
    "failover": {"plumbing", "sip"},
    "slee_mock": {"plumbing", "sip"},
    "softphone": {"plumbing", "sip"},
    "stage": {"plumbing", "sip", "softphone"},
    "forwarder.py": {"failover"},
}

# A core is a function of bytes and times: it must not be able to reach the world.
WORLD = {
    "socket",
    "select",
    "selectors",
    "threading",
    "time",
    "random",
    "secrets",
    "sqlite3",
    "logging",
    "subprocess",
}
CORES = [
    "sip",
    *(f"plumbing/{name}.py" for name in ("address", "http_request_parser", "shorten_text")),
    "failover/proxy",
    "failover/upstream",
    "slee_mock/container",
    "slee_mock/services",
    "slee_mock/node.py",
    "slee_mock/sip_adaptor.py",
    *(f"slee_mock/cluster/{name}.py" for name in ("cluster_key", "membership")),
    "slee_mock/degraded_mode.py",
    *(f"slee_mock/store/{name}.py" for name in ("interface", "purge", "records", "redis_url")),
    "slee_mock/management/snapshot.py",
    "softphone/ua",
    *(
        f"softphone/media/{name}.py"
        for name in (
            "audio_interfaces",
            "dtmf",
            "g711",
            "jitter_buffer",
            "levels",
            "resample",
            "rtcp",
        )
    ),
    *(f"softphone/media/{name}.py" for name in ("rtp", "source_filter", "stream")),
    "softphone/media/tone_generator.py",
    *(
        f"stage/{name}.py"
        for name in ("scenes/state", "scenes/use_case", "observation/observations")
    ),
]

QT = {"PySide6", "shiboken6"}
QT_LIVES_IN = (
    "softphone/gui/",
    "softphone/media/audio_devices.py",
    "softphone/media/call_tone_player.py",
    "softphone/__main__.py",
    "stage/",
)
BARE = ("forwarder.py", "plumbing/", "sip/", "failover/", "slee_mock/")
INSIDE_FUNCTIONS_ONLY = {"netifaces", "redis"}


def product_files() -> list[Path]:
    return [
        ROOT / "forwarder.py",
        *(path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))),
    ]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


FILES = product_files()


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path: Path) -> dict[str, bool]:
    """Top-level name of every imported module -> is it imported at the file's top level?"""
    found: dict[str, bool] = {}
    todo: list[tuple[ast.AST, bool]] = [(parsed(path), True)]
    while todo:
        node, at_top = todo.pop()
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}:{node.lineno}: say the package's name"
            names = [node.module or ""]
        else:
            at_top = at_top and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            inside = ast.iter_child_nodes(node)
            todo += [(each, at_top) for each in inside if not isinstance(each, ast.expr)]
            continue
        for name in names:
            top = name.partition(".")[0]
            found[top] = found.get(top, False) or at_top
    return found


def test_arrows_between_packages_go_one_way():
    for path in FILES:
        owner = name_of(path).partition("/")[0]
        ours = {name for name in imports(path) if name in PACKAGES} - {owner}
        assert ours <= MAY_IMPORT[owner], name_of(path)


def test_qt_stays_where_windows_are():
    for path in FILES:
        if not name_of(path).startswith(QT_LIVES_IN):
            assert not QT & set(imports(path)), name_of(path)


def test_forwarder_and_servers_run_on_the_bare_standard_library():
    allowed = set(sys.stdlib_module_names) - {"configparser", "asyncio"} | set(PACKAGES)
    for path in FILES:
        for module, at_top in imports(path).items() if name_of(path).startswith(BARE) else ():
            fits = module in allowed or (module in INSIDE_FUNCTIONS_ONLY and not at_top)
            assert fits, f"{name_of(path)}: {module}"


@pytest.mark.parametrize("core", CORES)
def test_cores_cannot_reach_the_world(core):
    path = ROOT / core
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
    assert files and all(file.exists() for file in files), "the list of cores is out of date"
    for file in files:
        assert not (WORLD | QT) & set(imports(file)), name_of(file)


def test_every_file_says_what_it_is_for():
    assert [name_of(path) for path in FILES if not ast.get_docstring(parsed(path))] == []


def test_nothing_shadows_the_forwarder_and_tests_are_no_packages():
    assert not (ROOT / "forwarder").exists()
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_no_test_file_imports_another():
    """What several share is in tests/kits or in a conftest.py of their folder."""
    for path in (ROOT / "tests").rglob("*.py"):
        assert not re.search(r"^(from|import) test_", path.read_text(), re.MULTILINE), name_of(path)


def test_private_names_that_tests_use_are_the_products_names():
    """One that was renamed in the product may be set in a test for ever, and change nothing."""
    source = "".join(path.read_text("utf-8") for path in [*FILES, *(ROOT / "tests").rglob("*.py")])
    known = set(re.findall(r"(?:\bself\.|\bdef |\bclass |^ *)(_[a-z]\w*)", source, re.MULTILINE))
    known |= set(dir(tuple)) | set(dir(namedtuple("Row", ()))) | set(dir(os))
    for path in (ROOT / "tests").rglob("*.py"):
        used = set(re.findall(r"[\w)\]]\.(_[a-z]\w*)", path.read_text("utf-8")))
        assert used <= known, f"{name_of(path)}: {sorted(used - known)}"


# The files of each service of the servers; of another service it may read the records.
SERVICES = (
    {"registrar"},
    {"authentication", "login_throttle"},
    {"billing"},
    {
        "call_control",
        "call_dialogs",
        "call_progress",
        "loop_detection",
        "serial_forking",
        "session_timer",
    },
)
SHARED = {"bill_record", "bindings_record", "call_record", "tariff"}


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: min(service))
def test_a_service_imports_no_other_service_but_its_records(service):
    for name in service:
        tree = ast.parse((ROOT / "slee_mock" / "services" / f"{name}.py").read_text("utf-8"))
        imported = {
            node.module.rpartition(".")[2]
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            and (node.module or "").startswith("slee_mock.services.")
        }
        assert imported <= service | SHARED


def test_every_file_of_a_service_is_known_to_this_test():
    files = {path.stem for path in (ROOT / "slee_mock" / "services").glob("*.py")} - {"__init__"}
    assert files == SHARED.union(*SERVICES)
