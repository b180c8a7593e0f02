"""experiments.benchmark: everybody does the same work in turn, who cannot is left out, and ratios are what they say."""

import importlib.util
import io
import json
import os
import re
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarking import limits, measuring, ours, tables, whole
from experiments.benchmarking.live import Live, NoAnswer
from experiments.benchmarking.measuring import GivenData, Timed
from experiments.benchmarking.works import PEERS, WORKS, of_peer
from experiments.flags.parsing import UsageError
from tests.run_samples import config, digits
from tests.script_runs import scripts
from vae.models.model import Batch
from vae.training import timing
from vae.training.timing import Product

__all__ = ["scripts"]

PEERS_PYTHON = os.environ.get("PEERS_PYTHON", sys.executable)  # that has the packages of the peers
PACKAGES = {"torch_vae.py": "torch", "keras_vae.py": "keras", "flax_vae.py": "flax", "pythae_vae.py": "pythae"}

LIVE = """
import json, sys
print("a line of a library")
print(json.dumps({"ready": True, "versions": {"x": "1"}, "threads": 1, "precision": "float32"}), flush=True)
for line in sys.stdin:
    open("TOLD", "a").write("NAME ")
    print(json.dumps({"seconds": SECONDS}), flush=True)
print(json.dumps({"held_out": -1.5}), flush=True)
"""


def command(tmp_path, name, seconds):
    text = LIVE.replace("TOLD", str(tmp_path / "told")).replace("NAME", name).replace("SECONDS", str(seconds))
    return [sys.executable, "-c", text]


def benchmark(tmp_path, peers=(), rounds=3):
    return measuring.Benchmark(GivenData((), tmp_path, lambda size: 4), WORKS, peers, sys.executable, rounds)


def test_all_are_asked_in_turn_and_a_peer_that_cannot_is_left_out(tmp_path, monkeypatch):
    commands = [("ours", "ours", command(tmp_path, "a", 1.0)), ("torch", "peer", [sys.executable, "-c", "import none"]),
                ("keras", "peer", command(tmp_path, "b", 3.0))]  # fmt: skip
    one = benchmark(tmp_path, ["torch", "keras"])
    monkeypatch.setattr(one, "_commands", lambda work: commands)
    ((title, times),) = one.time("mlp400").items()
    assert title == WORKS["mlp400"].title
    assert (tmp_path / "told").read_text().split() == ["a", "b"] * 3
    assert one.left_out == {"torch": "ModuleNotFoundError: No module named 'none'"}
    assert times["ours"] == Timed("ours", [1.0] * 3, "float32", 1, {"x": "1"}, -1.5)
    assert times["keras"].seconds == [3.0] * 3


def test_ours_must_do_the_work(tmp_path, monkeypatch):
    one = benchmark(tmp_path)
    monkeypatch.setattr(one, "_commands", lambda work: [("ours", "ours", [sys.executable, "-c", "exit('error: no')"])])
    with pytest.raises(UsageError, match=r"^ours cannot be timed: no$"):
        one.time("mlp400")


def test_of_a_process_that_failed_the_error_is_told_and_not_the_advice_after_it(tmp_path):
    raised = (
        "import sys; print('library.SomeError: what happened\\n\\nSet LOGS=1 for more', file=sys.stderr); sys.exit(1)"
    )
    failed = Live([sys.executable, "-c", raised], tmp_path / "errors", os.environ)
    with failed, pytest.raises(NoAnswer, match=r"^library.SomeError: what happened$"):
        failed.ready()


def test_a_live_process_is_stopped_except_while_it_works_and_ends_with_its_block(tmp_path):
    with Live(command(tmp_path, "a", 1.0), tmp_path / "errors", os.environ) as process:
        process.ready()
        stat = f"/proc/{process._process.pid}/stat"
        with open(stat) as file:
            assert file.read().split(") ")[1][0] == "T"
        assert process.unit() == 1.0
    assert not os.path.exists(stat)


def test_ratios_are_to_the_fastest_peer_and_the_limit_of_the_same_precision():
    def timed(whose, *seconds, precision="float32"):
        return Timed(whose, list(seconds), precision, 2, {"jax": "1"})

    times = {
        "ours": timed("ours", 2.0, 1.0, 3.0),
        "a": timed("peer", 5.0),
        "b": timed("peer", 4.0),
        "limit": timed("limit", 1.6),
        "c": timed("peer", 1.0, precision="bfloat16"),
    }
    cells = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:6]] for line in
             tables.table("x", WORKS["mlp400"], times)}  # fmt: skip
    assert cells["ours"] == ["2", "1 – 3", "2.00", "1.25"]
    assert cells["a"][2:] == ["0.80", "3.12"]
    assert cells["limit"][2:] == ["", ""]
    assert cells["c"][2:] == ["1.00", ""]
    assert WORKS["iwae50"].shown(1.0) == 50
    assert WORKS["iwae5000"].shown(1.0) == 200


def answers(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]


@pytest.mark.parametrize("mode", ["epochs", "steps", "limit_of_steps"])
def test_ours_does_a_unit_for_each_line_and_tells_the_held_out_bound(mode, capsys, monkeypatch):
    dataset, device = digits(), jax.devices()[0]
    run = config(epochs=10**6)
    monkeypatch.setattr(sys, "stdin", io.StringIO("unit\nunit\n"))
    if mode == "epochs":
        ours.train_epochs(run, dataset, device)
    elif mode == "steps":
        ours.take_steps(run, dataset, device, 5)
    else:
        ours.reach_limit(run, device, 2, mode)
    ready, *units, last = answers(capsys)
    assert ready["ready"]
    assert ready["precision"] == "float32"
    assert [unit["seconds"] > 0 for unit in units] == [True, True]
    if mode != "limit_of_steps":
        assert -50 < last["held_out"] < 0


def test_the_limit_counts_the_products_of_the_network_that_is_trained():
    for settings in (config().settings, config(network="conv", channels=(4, 8)).settings):
        layers = limits.encoder_of(settings, 3) + limits.decoder_of(settings, 3)
        parts = timing.cached_program(settings, (jax.devices()[0],), 1, timing.ALONE).parts
        batch = Batch(jnp.zeros((1, *settings.image_shape)))
        params = jax.eval_shape(partial(parts["model"].init, batch=batch), jax.random.key(0))
        kernels = [leaf.shape for leaf in jax.tree.leaves(params) if leaf.ndim in (2, 4)]
        wanted = sorted((int(np.prod(shape[:-1])), shape[-1]) for shape in kernels)
        assert sorted((layer.inputs, layer.outputs) for layer in layers) == wanted


def test_products_and_passes_are_computed():
    layer = Product(8, 4, 2)
    timing.seconds(timing.products([layer, layer._replace(of_rows=False)], 3, "bfloat16"))
    timing.seconds(timing.passes(64, 3))


def installed(package):
    if sys.executable == PEERS_PYTHON:
        return importlib.util.find_spec(package) is not None
    return subprocess.run([PEERS_PYTHON, "-c", f"import {package}"], capture_output=True).returncode == 0


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("peers")
    measuring.write_data(folder, digits(), digits())
    return GivenData((), folder, lambda size: 40)


@pytest.mark.parametrize(
    ("peer", "work"),
    [("flax_loop", "iwae50_batch20"), ("torch", "tutorial"), ("torch_compile", "iwae50_batch20"),
     ("torch_bf16", "conv_mnist"), ("keras", "tutorial"), ("pythae", "tutorial")],
)  # fmt: skip
def test_a_peer_does_the_work(peer, work, data, tmp_path):
    package = PACKAGES[PEERS[peer].script]
    if not PEERS[peer].ours and not installed(package):
        pytest.skip(f"{package} is not installed for {PEERS_PYTHON} (PEERS_PYTHON says where it is)")
    given = of_peer(peer, work, data.of_peer(work), 2, PEERS_PYTHON)
    with Live(given, tmp_path / "errors", os.environ) as process:
        about = process.ready()
        assert process.unit() > 0
        assert -60 < process.held_out() < 0
    assert about["threads"] == len(os.sched_getaffinity(0))
    assert about["precision"] == ("bfloat16" if peer == "torch_bf16" else "float32")


@pytest.mark.soak
def test_a_start_is_timed_until_the_first_step(data, tmp_path):
    given = of_peer("flax_loop", "start", data.of_peer("start"), 1, sys.executable)
    seconds, about = whole.start_of_peer(given, str(tmp_path))
    assert 0 < seconds < 60
    assert about["versions"].keys() == {"jax", "flax"}
    assert 0 < whole.start_of_ours(["--preset=digits"], str(tmp_path)) < 60
    with pytest.raises(NoAnswer, match=r"no such data set|unknown data set"):
        whole.start_of_ours(["--dataset=none"], str(tmp_path))


@pytest.mark.soak
def test_a_benchmark_ends_with_a_table_a_picture_and_json(scripts, tmp_path):
    given = ("--dataset=digits", "--works=mlp200,start", "--peers=flax_loop", "--rounds=1", "--workdir=b")
    code, out, err = scripts.start(tmp_path, "benchmark", *given).result(240)
    assert (code, err) == (0, "")
    stored = json.loads((tmp_path / "b" / "benchmark.json").read_text())
    assert [one["work"] for one in stored["works"].values()] == ["mlp200", "start", "start"]
    for one in stored["works"].values():
        assert {"ours", "flax_loop"} <= one["seconds_of_a_unit"].keys()
    assert re.search(r"^\| ours_bf16 +\|", out, re.MULTILINE)
    assert (tmp_path / "b" / "benchmark.png").exists()
