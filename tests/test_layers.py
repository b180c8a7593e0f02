"""Imports run one way, by room, and the library neither prints nor reads flags."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "vae"
EXPERIMENTS = PACKAGE.parent / "experiments"
PEERS = EXPERIMENTS / "peers"  # scripts of other libraries

# A room may import from itself and from the rows above its own. A table.py of any room, and the files that it is
# made of, say what can be chosen in it, and import what says what an option is; `settings` are made of the tables.
ROOMS = (
    {"rules", "presets", "untrusted", "hosts", "streams", "durable", "environment", "places"},
    {"options", "figures"},
    {"table"},
    {"settings", "report", "datasets"},
    {"models"},
    {"objectives"},
    {"evaluation", "runs"},
    {"training", "configuration"},
    {"sweeps"},
    {"api"},
    {"judging"},
)
RANK = {room: rank for rank, row in enumerate(ROOMS) for room in row}
TABLES = ("table", "regularizer_table", "rows")
FILES = sorted(PACKAGE.rglob("*.py"))


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return names


def module_of(path: Path) -> str:
    """The dotted name of a file; that of its folder for an `__init__.py`."""
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def room_of(name: str) -> str:
    parts = [*name.split("."), "", ""]
    return "table" if parts[2] in TABLES else parts[1]


MODULES = {module_of(path): path for path in FILES}


def within(name: str) -> set[str]:
    """The modules of its own room that a module imports."""
    used = {other for other in imported(MODULES[name]) if other in MODULES and room_of(other) == room_of(name)}
    return {other for other in used if not name.startswith(other)}  # a package is imported before what is in it


def test_every_room_has_its_place():
    assert {room_of(name) for name in MODULES} - {""} == set(RANK)


@pytest.mark.parametrize("name", [name for name in MODULES if name != "vae"])
def test_imports_run_one_way_between_rooms(name):
    used = {room_of(other) for other in imported(MODULES[name]) if other.startswith("vae.")} - {room_of(name)}
    assert all(RANK[other] < RANK[room_of(name)] for other in used if other in RANK), used


def test_imports_within_a_room_have_no_cycle():
    order: list[str] = []

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join([*above, name])
        if name not in order:
            for other in sorted(within(name)):
                visit(other, (*above, name))
            order.append(name)

    for name in MODULES:
        visit(name, ())
    assert len(order) == len(MODULES)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_library_has_no_flags_and_does_not_print(path):
    assert not any(name.split(".")[0] in ("absl", "experiments") for name in imported(path))
    calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    assert not any(isinstance(function, ast.Name) and function.id == "print" for function in calls)


# Of experiments/, from what scripts share to the scripts: as ROOMS. A script is a file of its own there.
SHARED = ("papers", "flags", "pictures", "command", "soaking", "benchmarking", "scripts")


def part_of(name: str) -> str:
    """Which of SHARED a module of experiments/ is in."""
    part = [*name.split("."), ""][1]
    return "scripts" if (EXPERIMENTS / f"{part}.py").exists() else part


@pytest.mark.parametrize(
    "path", sorted(EXPERIMENTS.rglob("*.py")), ids=lambda path: str(path.relative_to(EXPERIMENTS.parent))
)
def test_no_script_is_imported_and_what_scripts_share_imports_one_way(path):
    own = part_of(module_of(path))
    used = {part_of(name) for name in imported(path) if name.startswith("experiments.")}
    assert "scripts" not in used
    assert all(SHARED.index(other) <= SHARED.index(own) for other in used if own), used


def test_peers_import_nothing_of_this_project():
    used = {name.split(".")[0] for path in PEERS.glob("*.py") for name in imported(path)}
    assert "torch" in used
    assert not used & {"vae", "experiments", "tests"}


def test_no_two_classes_have_one_name():
    names = [
        node.name
        for path in (*FILES, *(path for path in EXPERIMENTS.rglob("*.py") if PEERS not in path.parents))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    ]
    assert {name for name in names if names.count(name) > 1} == set()


def test_only_networks_imports_flax():
    assert [path.name for path in FILES if any(name.startswith("flax") for name in imported(path))] == ["networks.py"]


@pytest.mark.parametrize("name", MODULES)
def test_errors_speak_of_names_and_scripts_add_the_dashes(name):
    raised = (node for node in ast.walk(ast.parse(MODULES[name].read_text())) if isinstance(node, ast.Raise))
    texts = (part for node in raised for part in ast.walk(node) if isinstance(part, ast.Constant))
    assert not [text.value for text in texts if isinstance(text.value, str) and re.search(r"--[a-z]", text.value)]
