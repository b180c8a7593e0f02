"""What the README shows works as it stands there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.flags.options import TRAINING_FLAGS
from tests.flag_samples import define_once
from vae.objectives import OBJECTIVES
from vae.objectives.estimators import ESTIMATORS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(section: str) -> list[str]:
    """The code blocks under a heading, up to the next one."""
    text = README.split(f"# {section}\n", 1)[1]
    text = re.split(r"^##+ ", text, maxsplit=1, flags=re.MULTILINE)[0]
    return re.findall(r"^```\w+\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def python(cwd: Path, *arguments: str) -> str:
    unknown = {"PYTHONPATH", "JAX_COMPILATION_CACHE_DIR"}
    environment = {name: value for name, value in os.environ.items() if name not in unknown}
    environment["VAE_DATA_DIR"] = str(cwd / "data")
    done = subprocess.run([sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_new_bound_takes_one_function_and_one_row(tmp_path):
    for folder in ("vae", "experiments"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    function, row, command = blocks("A worked example: a new bound")
    path = tmp_path / "vae" / "objectives" / "bounds.py"
    table = 'BOUNDS: dict[str, Callable[..., Float[Array, "B"]]] = {\n'
    assert path.read_text().count(table) == 1
    path.write_text(path.read_text().replace(table, f"{function}\n\n{table}{row}"))
    assert command.startswith("python -m experiments.train ")
    out = python(tmp_path, *command.split()[1:], "--hidden_sizes=16", "--nofigures", "--workdir=run")
    last = next(line for line in out.splitlines() if line.startswith("test: "))
    assert re.search(r"tvo -\d+\.\d+", last)
    ordered = (
        "import jax, vae.objectives.bounds as b; w = 5 * jax.random.normal(jax.random.key(0), (8, 100));"
        "assert (b.elbo_mc(w) < b.tvo(w)).all() and (b.tvo(w) < b.iwae(w)).all()"
    )
    python(tmp_path, "-c", ordered)


def test_every_objective_and_every_estimator_has_its_row():
    rows = [line for line in README.splitlines() if line.startswith("| `")]
    first_cells = {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert {*OBJECTIVES, *ESTIMATORS} <= first_cells


def test_every_flag_of_training_is_named():
    define_once()
    named = set(re.findall(r"`(?:--)?(\w+)", README))
    assert not [name for name in [*TRAINING_FLAGS, "preset", "workdir"] if name not in named]


@pytest.mark.parametrize("name", sorted(set(re.findall(r"python -m experiments\.(\w+)", README))))
def test_every_script_the_readme_names_exists(name):
    assert (ROOT / "experiments" / f"{name}.py").exists()


def test_every_relative_link_leads_to_a_file():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links
    assert all((ROOT / link).exists() for link in links)
