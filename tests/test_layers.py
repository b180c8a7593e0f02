"""Imports run one way, and the library neither prints nor reads flags."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "vae"

# A module may import those of the rows above its own.
LAYERS = (
    {"rules", "untrusted", "passwords"},
    {"settings", "streams", "hosts", "tensorboard", "datasets", "figures", "comparison", "report"},
    {"distributions", "bounds", "importance"},
    {"likelihoods", "networks", "images"},
    {"flows"},
    {"posteriors"},
    {"priors"},
    {"model"},
    {"estimators", "generation", "evaluation"},
    {"objectives", "aggregate", "amortization", "annealing"},
    {"training", "gradients"},
    {"checkpoint"},
    {"run"},
    {"ranking"},
    {"record", "storage"},
    {"study"},
    {"fit", "population"},
    {"planning"},
    {"scoreboard", "results", "folders"},
    {"sweep"},
    {"search"},
)
RANK = {module: rank for rank, layer in enumerate(LAYERS) for module in layer}
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
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_every_module_has_its_place():
    assert {module_of(path) for path in FILES} - {"__init__"} == set(RANK)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path):
    module = module_of(path)
    if module == "__init__":
        return
    used = {name.split(".")[1] for name in imported(path) if name.startswith("vae.")} - {module}
    assert all(RANK[other] < RANK[module] for other in used if other in RANK), used


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_library_has_no_flags_and_does_not_print(path):
    assert not any(name.split(".")[0] in ("absl", "experiments") for name in imported(path))
    calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    assert not any(isinstance(function, ast.Name) and function.id == "print" for function in calls)


def test_only_networks_imports_flax():
    assert [path.name for path in FILES if any(name.startswith("flax") for name in imported(path))] == ["networks.py"]
