"""What the three READMEs show works as it stands there: the first page, the manual and the guide to the code."""

import ast
import json
import os
import pkgutil
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.flags.options import TRAINING_FLAGS
from tests import script_calls
from tests.flag_samples import define_once
from tests.run_samples import config
from tests.test_layers import RANK
from vae.datasets import NAMES
from vae.objectives import OBJECTIVES
from vae.objectives.table import ESTIMATORS
from vae.presets import PRESETS
from vae.runs.config import write_config
from vae.runs.folder import CONFIG
from vae.settings import FORMAT

ROOT = Path(__file__).parent.parent
README, MANUAL, GUIDE = (ROOT / name for name in ("README.md", "experiments/README.md", "vae/README.md"))
TEXTS = {path: path.read_text() for path in (README, MANUAL, GUIDE)}
SCRIPTS = {path.stem for path in (ROOT / "experiments").glob("[!_]*.py")}
PAGES = pytest.mark.parametrize("page", TEXTS, ids=lambda page: str(page.relative_to(ROOT)))
CODE = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path, section: str) -> list[str]:
    """The code blocks under a heading, up to the next one."""
    text = TEXTS[page].split(f"# {section}\n", 1)[1]
    text = re.split(r"^##+ ", text, maxsplit=1, flags=re.MULTILINE)[0]
    return re.findall(r"^```\w+\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """What `#…` may name: the headings, in lower case, with dashes for spaces and without punctuation."""
    headings = re.findall(r"^#+ (.+)$", CODE.sub("", TEXTS[page]), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_python_example_runs_as_it_stands(tmp_path, monkeypatch, capsys):
    (example,) = blocks(README, "From Python")
    (tmp_path / "example.py").write_text(f"{example}\nassert images.shape == (16, 8, 8, 1)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VAE_DATA_DIR", str(tmp_path / "data"))
    runpy.run_path("example.py", run_name="__main__")
    log_likelihood, error = map(float, capsys.readouterr().out.split())
    assert -35 < log_likelihood < -20
    assert 0 < error < 2
    assert [path.name for path in tmp_path.iterdir()] == ["example.py"]


def test_a_new_bound_with_a_number_takes_one_function_and_one_row(tmp_path):
    for folder in ("vae", "experiments"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    function, row, command, reference = blocks(README, "Add a bound")
    row = re.sub(r"since=\d+", f"since={FORMAT + 1}", row)
    room, rows = tmp_path / "vae" / "objectives", "BOUNDS: dict[str, Bound] = {\n"
    bounds, table = room / "bounds.py", room / "table.py"
    bounds.write_text(f"{bounds.read_text()}\n\n{function}")
    assert table.read_text().count(rows) == 1
    table.write_text(table.read_text().replace(rows, f"{rows}{row}"))
    assert command.startswith("python -m experiments.train ")
    (tmp_path / "before").mkdir()
    write_config(tmp_path / "before", config())
    assert "truncation" not in (tmp_path / "before" / CONFIG).read_text()
    shutil.copy(Path(script_calls.__file__), tmp_path / "calls.py")
    (tmp_path / "checks.py").write_text(CHECKS.replace("REFERENCE", "{" + reference + "}"))
    train = command.split()[3:]
    unknown = {"PYTHONPATH", "JAX_COMPILATION_CACHE_DIR"}
    environment = {name: value for name, value in os.environ.items() if name not in unknown}
    environment["VAE_DATA_DIR"] = str(tmp_path / "data")
    checked = subprocess.run(
        [sys.executable, "checks.py", *train], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stderr
    trained, refused, beyond = json.loads(checked.stdout)
    assert (trained[0], trained[2]) == (0, "")
    last = next(line for line in trained[1].splitlines() if line.startswith("test: "))
    assert re.search(r"truncated -\d+\.\d+", last)
    assert refused[0] == 1
    assert refused[2] == (
        "error: --truncation has no effect with --objective=iwae; leave it out, or use --objective=truncated\n"
    )
    assert "must be a finite float32 number at least 0 and below 1" in beyond[2]
    command = [sys.executable, "-m", "experiments.train", "--helpshort"]
    helped = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert "truncated: the power of K (0.5 in Ionides 2008) (at least 0 and below 1)" in " ".join(helped.stdout.split())


# Run in the copy: a new process, as its modules have the names of those here.
CHECKS = """
import json, pathlib, sys
import jax, numpy as np, scipy.special
import calls
import vae.objectives.bounds as b
from vae.runs.config import read_config

here, train = pathlib.Path.cwd(), sys.argv[1:]
ended = [
    calls.call(here, "train", *flags)
    for flags in (
        [*train, "--hidden_sizes=16", "--nofigures", "--workdir=run"],
        ["--objective=iwae", "--truncation=0.3"],
        [*train, "--truncation=1"],
    )
]
w = 5 * jax.random.normal(jax.random.key(0), (8, 100))
assert (b.truncated(w, 0.3) < b.truncated(w, 0.5)).mean() > 0.5
assert (b.truncated(w, 0.5) <= b.iwae(w)).all()
assert (abs(b.truncated(w, 1.0) - b.iwae(w)) < 1e-5).all()
found = [read_config(pathlib.Path(name)).hyperparameters.truncation for name in ("run", "before")]
assert found == [0.3, 0.5], found
log_mean_exp = lambda w: scipy.special.logsumexp(w, axis=0) - np.log(len(w))
np.testing.assert_allclose(b.truncated(w, 0.3), REFERENCE["truncated"](np.asarray(w), 0.3), rtol=1e-4, atol=1e-4)
assert b.__file__.startswith(str(here))
print(json.dumps(ended))
"""


def test_an_option_that_is_shown_as_new_is_of_the_next_format_and_one_place_says_which():
    tables = [path.read_text() for path in (ROOT / "vae").glob("*/table.py")]
    docstrings = [ast.get_docstring(ast.parse(text)) or "" for text in tables]
    shown = [number for text in (*TEXTS.values(), *docstrings) for number in re.findall(r"since(?:=|\s.*)(\d+)", text)]
    assert shown == [f"{FORMAT + 1}"], f"write since={FORMAT + 1} in README.md, and no number anywhere else"


def first_cells(text: str) -> set[str]:
    """The names in the first cells of all tables."""
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}


def test_every_objective_and_every_estimator_has_its_row():
    missing = {*OBJECTIVES, *ESTIMATORS} - first_cells(TEXTS[README])
    assert not missing, f"add a row for each of {missing} to the tables of README.md"


def test_the_manual_and_the_table_of_objectives_name_every_flag_of_training():
    define_once()
    named = set(re.findall(r"`(?:--)?(\w+)", TEXTS[README] + TEXTS[MANUAL]))
    missing = [name for name in [*TRAINING_FLAGS, "preset", "workdir", *PRESETS] if name not in named]
    assert not missing, f"name each of {missing}: in README.md, Bounds, or in experiments/README.md, Flags"


def test_the_manual_names_every_data_set():
    missing = {*NAMES} - first_cells(TEXTS[MANUAL])
    assert not missing, f"add a row for each of {missing} to Data sets of experiments/README.md"


def test_the_manual_names_every_script():
    assert set(re.findall(r"python -m experiments\.(\w+)", TEXTS[MANUAL])) == SCRIPTS


@PAGES
def test_every_script_that_is_named_exists(page):
    assert set(re.findall(r"\bexperiments\.(\w+)", TEXTS[page])) <= SCRIPTS


@PAGES
def test_every_relative_link_leads_to_a_file_and_a_heading(page):
    links = [link for link in re.findall(r"\]\(([^)]+)\)", TEXTS[page]) if "://" not in link]
    assert links
    for link in links:
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@PAGES
def test_every_file_and_every_module_that_is_named_exists(page):
    named = set(re.findall(r"\b(?:vae|experiments|tests)/[\w/]*(?:\.py|/(?=`))", TEXTS[page]))
    assert not [name for name in named if name != "vae/datasets/NAME.py" and not (ROOT / name).exists()]
    for module, name in re.findall(r"\b(vae(?:\.\w+)*)\.(\w+)\b(?!/)", TEXTS[page]):
        assert pkgutil.resolve_name(f"{module}.{name}") is not None


def test_the_guide_lists_every_room_in_the_order_of_imports():
    section = TEXTS[GUIDE].split("# Rooms\n", 1)[1].split("\n#", 1)[0]
    first_cells = [row.split("|")[1] for row in section.splitlines() if row.startswith("| `")]
    rooms = [name for cell in first_cells for name in re.findall(r"`(\w+)(?:/|\.py)`", cell)]
    assert sorted(rooms) == sorted(RANK)
    assert [RANK[room] for room in rooms] == sorted(RANK.values())


def test_the_first_page_is_short():
    without_tables = re.sub(r"^\|.*$", "", TEXTS[README], flags=re.MULTILINE)
    assert len(without_tables.split()) <= 1500
