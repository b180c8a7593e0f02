"""What is timed: works, who does them, and the commands of those who do. Imports neither jax nor numpy."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

PEERS_FOLDER = Path(__file__).parent.parent / "peers"
PRECISIONS = ("float32", "bfloat16")
MOST_EPOCHS = 10**6  # of a run that is ended before
IMAGES = "conv.npz"  # the 32×32×3 images that are made for a work


class Peer(NamedTuple):
    """A script of another library, as its users write it, in experiments/peers/."""

    script: str
    works: tuple[str, ...]
    mode: tuple[str, ...] = ()
    ours: bool = False  # whether it runs in this project's own Python


class TimedWork(NamedTuple):
    """What is done: a title, the flags of training, and what one unit of it is."""

    title: str
    flags: tuple[str, ...] = ()
    unit: int = 0  # steps, or images that are evaluated; 0: an epoch
    evaluates: bool = False
    whole: bool = False  # a whole command, and not a live process that does a unit when it is told to
    data: str = "grey"  # what the peers get: grey, binarized, or images that are made

    def shown(self, seconds: float) -> float:
        """Seconds of a unit as the number that is shown."""
        return seconds * (10_000 / self.unit if self.evaluates else 1000 / self.unit if self.unit else 1)

    @property
    def quantity(self) -> str:
        return "s per 10,000 images" if self.evaluates else "ms a step" if self.unit else "s"


BURDA = ("--hidden_sizes=200,200", "--latent_dim=50", "--binarization=dynamic", "--validation=0")
IWAE = (*BURDA, "--objective=iwae", "--num_samples=50")
CONV = ("--network=conv", "--channels=16,32", "--hidden_sizes=200,200", "--latent_dim=8", "--binarization=none",
        "--validation=0")  # fmt: skip
WORKS = {
    "tutorial": TimedWork("epoch, 784-256-2, batch 32", ("--preset=tutorial",)),
    "mlp400": TimedWork("epoch, 784-400-20, batch 128", ("--preset=mlp400",)),
    "mlp200": TimedWork("784-200-200-50, dynamic, batch 100", BURDA, 300, data="binarized"),
    "iwae50": TimedWork("IWAE, K = 50, 784-200-200-50, batch 100", IWAE, 20, data="binarized"),
    "iwae50_batch20": TimedWork("IWAE, K = 50, batch 20", (*IWAE, "--batch_size=20"), 100, data="binarized"),
    "iwae5000": TimedWork("evaluation, K = 5000, 784-200-200-50", BURDA, 50, evaluates=True, data="binarized"),
    "conv": TimedWork(
        "conv 16, 32, images of 32×32×3, batch 32", (*CONV, "--batch_size=32", "--likelihood=normal", "--scale=1"),
        100, data=IMAGES,
    ),
    "conv_mnist": TimedWork("conv 16, 32, batch 128", (*CONV, "--batch_size=128"), 50),
    "sweep": TimedWork("64 runs × 20 epochs on digits, whole command", whole=True),
    "start": TimedWork("start to the first step, 784-400-20", ("--preset=mlp400",), whole=True),
}  # fmt: skip

OF_TORCH = tuple(name for name in WORKS if name != "sweep")
OF_FLAX = ("tutorial", "mlp400", "mlp200", "iwae50", "iwae50_batch20", "start")
PEERS = {
    "torch": Peer("torch_vae.py", (*OF_TORCH, "sweep"), ("eager",)),
    "torch_compile": Peer("torch_vae.py", OF_TORCH, ("compile",)),
    "torch_bf16": Peer("torch_vae.py", OF_TORCH, ("compile_bf16",)),
    "keras": Peer("keras_vae.py", ("tutorial", "mlp400", "start")),
    "flax_loop": Peer("flax_vae.py", OF_FLAX, ours=True),
    "pythae": Peer("pythae_vae.py", ("tutorial", "mlp400")),
}

RATES = "0.0001,0.0002,0.0004,0.0007,0.0014,0.0027,0.0052,0.01"
SWEEP_EPOCHS = 20
SWEEP = ("--dataset=digits", "--nofigures", f"--epochs={SWEEP_EPOCHS}", "--sweep=seed=0:8",
         f"--sweep=learning_rate={RATES}")  # fmt: skip


def of_peer(name: str, work: str, data: Path, unit: int, python: str) -> list[str]:
    """The command of a peer for a work; `unit` is in steps or images."""
    peer = PEERS[name]
    script = "torch_sweep.py" if work == "sweep" else peer.script
    used = sys.executable if peer.ours else python
    return [used, str(PEERS_FOLDER / script), work, str(data), str(unit), *peer.mode]


def of_ours(mode: str, work: TimedWork, precision: str, flags: Sequence[str]) -> list[str]:
    """The command of a live process of this project; `flags` say where data are."""
    what = ("--mode=" + mode, f"--unit={work.unit}", f"--precision={precision}", f"--epochs={MOST_EPOCHS}")
    return [sys.executable, "-m", "experiments.benchmarking.ours", *what, *work.flags, *flags]
