"""How fast is it? This project beside other libraries, and beside what no code on this machine can do without.

    python -m experiments.benchmark                                     # without other libraries
    python -m experiments.benchmark --works=mlp400,iwae50 --peers=torch,torch_compile,flax_loop
    python -m experiments.benchmark --peers=torch,torch_compile,torch_bf16,keras,flax_loop,pythae \\
        --peers_python=peers/bin/python --rounds=7 --workdir=runs/speed

A peer is a script of experiments/peers/, written as its library's users write it, with its own best settings; what the
scripts need is in experiments/peers/requirements.txt. A peer whose packages are not installed is left out.

Everybody is a process that has compiled before, and does one unit (an epoch, steps, images) when it is told to: one
after the other, A B C A B C …, the others stopped. `ours` are whole epochs as experiments.train does them, with
held-out bounds, metrics and checkpoints; `ours_steps` and the peers take the steps alone. `limit` is the matrix
products of the work, and the bytes of Adam. A sweep and a start are whole commands: cold, without a compiled program on
the disk, and warm. Held-out bounds show that the work is the same; after few steps they also differ by where a library
starts.

Prints a table for each work, and writes benchmark.json and benchmark.png. On a machine that does nothing else.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).parent.parent))

from absl import flags

from experiments.benchmarking.works import PEERS, WORKS
from experiments.command import script
from experiments.command.stopping import StopRequest
from experiments.flags import options
from experiments.flags.parsing import UsageError, choices, number


def define_flags() -> None:
    choices("works", tuple(WORKS), "what is timed; all by default")
    choices("peers", tuple(PEERS), "who is timed beside this project")
    flags.DEFINE_string("peers_python", sys.executable, "the Python that has the packages of the peers")
    number("rounds", 5, "of which medians are taken", least=1, most=1000, integer=True)
    number("units", 1, "of steps or images for each round; an accelerator needs about 20", least=1, integer=True)
    flags.DEFINE_string("dataset", "mnist", "the images of all works but conv and sweep; a data set with a test split")
    flags.DEFINE_string("data_dir", None, "where prepared data are kept (default: $VAE_DATA_DIR or ~/.cache/vae)")
    flags.DEFINE_string("manual_dir", None, "a folder that holds the original files of a data set")
    flags.DEFINE_string("workdir", None, "where benchmark.json and the picture are written (default: new, in runs/)")


def main(_: StopRequest) -> int:
    asked = options.read()
    works, peers = asked.values["works"] or list(WORKS), asked.values["peers"]
    timed = {name: work._replace(unit=asked.values["units"] * work.unit) for name, work in WORKS.items()}
    check(asked, works, peers)
    from experiments.benchmarking import measuring, tables
    from experiments.command import devices
    from vae import durable, figures
    from vae.runs.files import write_json

    workdir = script.given_workdir(asked.values["workdir"])
    if workdir is not None and workdir.exists() and any(workdir.iterdir()):
        raise UsageError(f"{workdir} is not empty; choose another --workdir")
    (device,) = devices.start(1, asked.values["data_dir"])
    dataset, digits = (asked.folders.load(name, validation, None) for name, validation in data_sets(asked))
    workdir = workdir or script.new_workdir("benchmark")
    durable.make_folder(workdir)
    about = described(device)
    print("{device}, {processor}, {cores} cores, {system}, Python {python}".format_map(about))
    with tempfile.TemporaryDirectory() as folder:
        measuring.write_data(Path(folder), dataset, digits)
        given = tuple(f"--{name}={asked.values[name]}" for name in ("dataset", "data_dir", "manual_dir")
                      if asked.values[name])  # fmt: skip
        data = measuring.GivenData(given, Path(folder), lambda batch_size: len(dataset.train.images) // batch_size)
        benchmark = measuring.Benchmark(data, timed, peers, asked.values["peers_python"], asked.values["rounds"])
        found, drawn = {}, {}
        for work in works:
            told = len(benchmark.left_out)
            for title, times in benchmark.time(work).items():
                print("\n".join(["", *tables.table(title, timed[work], times)]))
                found[title] = tables.as_json(timed[work], times) | {"work": work}
                drawn[title] = timed[work].quantity, tables.bars(timed[work], times)
            for name, reason in list(benchmark.left_out.items())[told:]:
                print(f"left out: {name}: {reason}; see experiments/peers/requirements.txt and --peers_python")
            write_json(workdir / "benchmark.json", about | {"works": found, "left_out": benchmark.left_out})
    figures.save(figures.times_of_works(drawn), workdir / "benchmark.png")
    print(f"picture: {workdir / 'benchmark.png'}")
    print(workdir)
    return 0


def check(asked: options.Flags, works: list[str], peers: list[str]) -> None:
    """Raises UsageError for a peer that does none of the works, or for a Python that is none."""
    from experiments.benchmarking.measuring import unused

    for name in unused(peers, works):
        raise UsageError(
            f"--peers={name} does none of --works={','.join(works)}; it does {','.join(PEERS[name].works)}"
        )
    python = asked.values["peers_python"]
    if "peers_python" in asked.given and not any(not PEERS[name].ours for name in peers):
        raise UsageError("--peers_python has no effect without --peers of other libraries; leave it out")
    if shutil.which(python) is None:
        raise UsageError(f"--peers_python={python} is no program; give a Python that has the packages of the peers")


def data_sets(asked: options.Flags) -> tuple[tuple[str, int | None], ...]:
    """Name and validation images: of the works, which train on all, and of the sweep."""
    return (asked.values["dataset"], 0), ("digits", None)


def described(device: Any) -> dict[str, Any]:
    """The command and the machine, with the device that jax computes on."""
    from vae.runs.config import provenance

    with open("/proc/cpuinfo") as file:
        models = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    processor = models[0] if models else platform.machine()
    about = {"argv": sys.argv, "device": device.device_kind, "processor": processor, "cores": os.cpu_count()}
    return about | {"system": platform.platform(), "python": platform.python_version(), **provenance()}


if __name__ == "__main__":
    script.run(define_flags, main)
