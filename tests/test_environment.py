"""What a user's environment may set: the same result, or one line before anything is computed."""

import contextlib
import os
import pwd
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import vae
from experiments.command import devices
from tests import script_calls
from vae import environment
from vae.datasets import DataError, load
from vae.runs.files import RunWarning

ROOT = Path(__file__).parents[1]
SMALL = "--preset=digits", "--hidden_sizes=4", "--epochs=1"
WRONG = {
    "jax_enable_x64": True,
    "jax_debug_nans": True,
    "jax_debug_infs": True,
    "jax_disable_jit": True,
    "jax_numpy_dtype_promotion": "strict",
    "jax_default_prng_impl": "rbg",
    "jax_threefry_partitionable": False,
    "jax_random_seed_offset": 3,
    "jax_transfer_guard": "disallow",
    "jax_transfer_guard_host_to_device": "disallow",
    "jax_transfer_guard_device_to_host": "disallow",
    "jax_transfer_guard_device_to_device": "disallow",
}


@pytest.fixture
def wrong(request):
    before = jax.config.values[request.param]
    jax.config.update(request.param, WRONG[request.param])
    yield request.param
    jax.config.update(request.param, getattr(before, "value", before))


@pytest.mark.parametrize("wrong", environment.MODES, indirect=True)
def test_a_mode_of_jax_that_changes_numbers_is_refused_by_scripts_and_library(tmp_path, wrong):
    line = script_calls.refusal(tmp_path, "train", "--preset=digits")
    assert line.startswith(f"error: {wrong} is {WRONG[wrong]}, and must be {environment.MODES[wrong]}; unset JAX_")
    with pytest.raises(vae.configuration.ConfigurationError, match=wrong):
        vae.train(np.zeros((20, 2, 2), np.uint8), batch_size=4)


PRINTING = """
from experiments.command import script

def main(stop):
    print("k̂ 图 é", chr(0xDCFF))
    return 0

script.run(lambda: None, main)
"""
BYTES = b"\xff\n"  # a letter of a path that is not UTF-8


@pytest.mark.parametrize(
    ("variables", "shell", "printed"),
    [
        ({}, "", "k̂ 图 é ".encode() + BYTES),
        ({"PYTHONIOENCODING": "utf-8"}, "", "k̂ 图 é ".encode() + BYTES),
        ({"PYTHONIOENCODING": "latin-1"}, "", b"k? ? \xe9 " + BYTES),
        ({"PYTHONIOENCODING": "ascii"}, "", b"k? ? ? " + BYTES),
        ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, "", b"k? ? ? " + BYTES),
        ({"LC_ALL": "C"}, "", "k̂ 图 é ".encode() + BYTES),
        ({}, ">&-", b""),
        ({}, "<&- >&- 2>&-", b""),
    ],
)
def test_anything_can_be_printed_in_any_encoding_and_to_nobody(tmp_path, variables, shell, printed):
    (tmp_path / "script.py").write_text(PRINTING)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHON"))}
    ended = subprocess.run(
        f"{shlex.quote(sys.executable)} script.py {shell}",
        shell=True, cwd=tmp_path, env=kept | {"PYTHONPATH": str(ROOT)} | variables, capture_output=True, timeout=60,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, printed, b"")


@pytest.mark.parametrize(("flags", "code"), [("--helpshort", 0), ("--help", 0), ("--helpfull", 0), ("--epochs=x", 1)])
@pytest.mark.parametrize("reader", ["head -n 1", "true"])
def test_a_reader_that_ends_first_is_no_error(tmp_path, flags, code, reader):
    command = f"{shlex.quote(sys.executable)} {ROOT}/experiments/train.py {flags} | {reader}; exit ${{PIPESTATUS[0]}}"
    ended = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert "Traceback" not in ended.stderr
    assert "BrokenPipe" not in ended.stderr
    assert ended.returncode in (code, 75)


def test_a_run_folder_of_any_name_is_trained_and_its_next_line_can_be_pasted(tmp_path):
    name = "a b 图片 é x*? $(touch y)'-"
    code, out, err = script_calls.call(tmp_path, "train", *SMALL, "--nofigures", f"--workdir={name}")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == name
    (line,) = [line for line in out.splitlines() if line.startswith("next: ")]
    assert f"--workdir={name}" in shlex.split(line, comments=True)
    code, out, err = script_calls.call(tmp_path, "evaluate", f"--workdir={name}", "--num_samples=1", "--num_examples=4")
    assert (code, err) == (0, "")
    assert {path.name for path in tmp_path.iterdir()} == {name}


@pytest.mark.parametrize(("name", "reason"), [("[x]", "takes a path with [ for a pattern"), ("\udcff", "is not UTF-8")])
def test_a_run_folder_that_no_checkpoint_can_be_written_to_is_refused_at_the_start(tmp_path, name, reason):
    for script in ("train", "compare", "sweep"):
        assert reason in script_calls.refusal(tmp_path, script, "--preset=digits", f"--workdir={name}")
    (tmp_path / name).mkdir()
    with contextlib.chdir(tmp_path / name):
        assert reason in script_calls.refusal(tmp_path / name, "train", "--preset=digits")


DRAWING = """
from experiments.command import script

def main(stop):
    import numpy as np
    from vae import figures
    print(len(figures.png(figures.kl_per_dimension(np.ones(2), ""))))
    return 0

script.run(lambda: None, main)
"""


def test_a_home_that_is_no_folder_and_a_notebooks_backend_do_not_matter(tmp_path, monkeypatch):
    monkeypatch.delenv("VAE_DATA_DIR", raising=False)
    code, out, err = script_calls.call(tmp_path, "train", *SMALL, "--nofigures", "--workdir=run", HOME="/dev/null")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "run"
    # Only a new process imports what draws.
    (tmp_path / "script.py").write_text(DRAWING)
    variables = os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "no such backend", "HOME": "/dev/null"}
    command = [sys.executable, "script.py"]
    ended = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert int(ended.stdout) > 1000


def test_where_no_compiled_program_can_be_kept_a_warning_says_so_and_none_is(tmp_path, monkeypatch):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    before = jax.config.jax_compilation_cache_dir
    try:
        with pytest.warns(RunWarning, match=r"not kept for the next run: .*, since /dev/null is no folder$"):
            devices.configure(1, "/dev/null/x")
        assert jax.config.jax_compilation_cache_dir is None
        devices.configure(1, str(tmp_path / "x"))
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "x/compiled")
        assert not (tmp_path / "x").exists()
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


def test_a_working_folder_that_cannot_be_written_to_is_one_line():
    if not shutil.which("true") or not Path("/proc/self").exists():
        pytest.skip("no /proc")
    code, _, err = script_calls.call(Path("/proc"), "train", *SMALL)
    assert code == 1
    assert err.startswith("error: ")
    assert err.count("\n") == 1


@pytest.fixture
def homeless(monkeypatch):
    """No HOME, and a user of whom the system knows nothing."""

    def unknown(*args):
        raise KeyError("unknown")

    for name in ("HOME", "VAE_DATA_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


@pytest.mark.usefixtures("homeless")
def test_without_a_home_folder_one_line_says_what_to_set(tmp_path):
    said = "there is no home folder to keep prepared data in; set HOME or VAE_DATA_DIR, or pass --data_dir"
    assert said in script_calls.refusal(tmp_path, "train", "--preset=digits")
    with pytest.raises(DataError, match="set HOME or VAE_DATA_DIR"):
        devices._compiled(None)
    assert load("digits", data_dir=tmp_path).train.images.shape == (1294, 8, 8, 1)


@pytest.mark.parametrize(
    ("script", "flag"),
    [("train", flag) for flag in ("--dataset", "--data_dir", "--manual_dir", "--init_from", "--workdir")]
    + [("sweep", "--storage"), ("compare", "--runs"), ("evaluate", "--workdir"), ("runs", "--folder")],
)
def test_a_home_folder_that_nobody_knows_is_one_line(tmp_path, script, flag):
    others = {"train": ["--preset=digits"], "sweep": ["--preset=digits", "--search=tpe", "--sweep=latent_dim=1:4"]}
    said = script_calls.refusal(tmp_path, script, *others.get(script, []), f"{flag}=~nobodyhere/x")
    assert "~nobodyhere/x is in a home folder that is not known; write the whole path, or set HOME" in said


def test_a_home_folder_that_cannot_be_written_to_is_one_line_if_something_must_be_written(tmp_path, monkeypatch):
    """The digits need nothing there; a compiled program that cannot be kept is compiled anew."""
    for name in ("VAE_DATA_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/dev/null")
    said = script_calls.refusal(tmp_path, "train", "--dataset=mnist")
    assert re.search("cannot load mnist: .*Not a directory: '/dev/null/.cache", said)
    assert load("digits").train.images.shape == (1294, 8, 8, 1)
