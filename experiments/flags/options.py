"""The flags, each defined once: those of a run from the tables of options, and what several scripts share.

Imports neither jax nor vae's heavy modules: `--helpshort` answers at once.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from absl import flags

from experiments.flags.parsing import UsageError, choice, define, number
from vae.configuration import NAMES
from vae.places import expanded
from vae.presets import PRESETS
from vae.settings import DATA, PROGRAM, RUN

if TYPE_CHECKING:
    from vae.datasets import Dataset, Split

FLAGS = flags.FLAGS
flags.disclaim_key_flags()  # as in parsing.py

CHECKPOINT_HELP = "last, best (highest validation bound) or a step (default: best if the run has --patience, else last)"
TRAINING_FLAGS: list[str] = []  # what config.json keeps, so that a run can be resumed
AXES = sorted(NAMES)  # those of them that make a run what it is


class DataFolders(NamedTuple):
    """Where this command says that data are: --data_dir, --manual_dir, and the --dataset of runs whose images moved."""

    data_dir: str | None
    manual_dir: str | None
    moved_to: str | None = None

    def load(self, name: str, validation: int | None, image_size: int | None) -> Dataset:
        """The data set `name`; prints what of a user's own was used."""
        from vae import datasets

        dataset = datasets.load(
            self.moved_to or name,
            data_dir=self.data_dir,
            manual_dir=self.manual_dir,
            validation=validation,
            image_size=image_size,
        )
        if dataset.account:
            print(f"images: {dataset.account}")
        return dataset

    def of_run(self, workdir: Path, place: str | None = None) -> Dataset:
        """The data set of the run in `workdir`, at `place` if it was moved; raises RunError if it has other images."""
        from vae.runs.config import read_config

        config = read_config(workdir)
        there = self._replace(moved_to=place)
        return checked(workdir, there.load(config.dataset, config.validation, config.image_size))


def checked(workdir: Path, dataset: Dataset) -> Dataset:
    """`dataset` as the run in `workdir` was trained on it; raises RunError if it has other images.

    Prints that nothing can be said of it if the run is from before its data were kept.
    """
    from vae.runs import fingerprint
    from vae.runs.config import read_config

    record, conditional = fingerprint.read(workdir), read_config(workdir).settings.num_classes > 0
    if record is None:
        note_unknown(dataset.name)
    return fingerprint.check(record, dataset, str(workdir), conditional=conditional)


@functools.cache  # once for all runs on the same images
def note_unknown(dataset: str) -> None:
    print(
        f"note: this run is from before runs knew their data: whether {dataset} has the images that it was trained on "
        "cannot be checked"
    )


def evaluated_split(workdir: Path, dataset: Dataset, split: str, num_examples: int | None = None) -> tuple[Split, Any]:
    """The images of a run's split as they are evaluated, and their positions [N].

    Of `num_examples` images, a fixed random subset; all of them by default. Raises UsageError if there are none.
    """
    from vae.datasets import images
    from vae.runs.config import read_config

    if not len(getattr(dataset, split).images):
        raise UsageError(f"--split={split} of this run is empty; use another split")
    binarization = read_config(workdir).settings.binarization
    return images.subset(images.stored(dataset, split, binarization, training=False), num_examples)


class Flags(NamedTuple):
    """The flags of a script, read once: the value of each by its name, and those that the command line gives."""

    values: dict[str, Any]
    given: frozenset[str]

    @property
    def folders(self) -> DataFolders:
        return DataFolders(self.values["data_dir"], self.values["manual_dir"])

    @property
    def workdir(self) -> Path | None:
        return expanded(self.values["workdir"]) if self.values["workdir"] else None

    @property
    def trained_workdir(self) -> Path:
        """--workdir, or a packed run; raises UsageError if it holds no run, or if nothing can be written there."""
        from vae.runs.archive import is_packed
        from vae.runs.folder import CONFIG

        workdir = self.workdir
        if workdir is None:
            raise UsageError("which run? Pass --workdir=FOLDER, the last line that experiments.train printed")
        if is_packed(workdir):
            return workdir
        if not (workdir / CONFIG).exists():
            raise UsageError(f"--workdir={workdir} holds no run (no {CONFIG}); train one with experiments.train")
        if not os.access(workdir, os.W_OK):
            raise UsageError(
                f"--workdir={workdir} cannot be written to; make it writable, or copy it to where you may write"
            )
        return workdir

    def among(self, names: Iterable[str], stored: Mapping[str, Any]) -> dict[str, Any]:
        """The values of `names`: the `stored` one, if there is one, of a flag that is not given."""
        return {
            name: stored[name] if name in stored and name not in self.given else self.values[name] for name in names
        }


def opened(workdir: Path) -> Path:
    """The folder of a run: `workdir`, or, of a packed run, the folder beside it that it is unpacked into, with a line.

    Call it once the devices are started. Raises RunError or CheckpointError.
    """
    from vae.runs.archive import is_packed

    if not is_packed(workdir):
        return workdir
    from vae.training import packing

    folder = packing.unpack(workdir)
    print(f"{workdir} is unpacked: {folder}")
    return folder


def read() -> Flags:
    """The flags as they were parsed."""
    return Flags({name: FLAGS[name].value for name in FLAGS}, frozenset(name for name in FLAGS if FLAGS[name].present))


def define_data() -> None:
    define(DATA)
    define_places()


def define_places() -> None:
    """Where data are looked for and kept."""
    flags.DEFINE_string("data_dir", None, "where prepared data are kept (default: $VAE_DATA_DIR or ~/.cache/vae)")
    flags.DEFINE_string("manual_dir", None, "a folder that holds the original files of a data set")


def define_distributed() -> None:
    flags.DEFINE_bool("distributed", False, "join the processes of a cluster; --devices is then of each of them")


def define_profile() -> None:
    flags.DEFINE_bool("profile", False, "trace a few training steps after compilation, into profile/ of the workdir")


def define_run() -> None:
    flags.DEFINE_string("workdir", None, "the run folder; a run in it is resumed (default: a new folder in runs/)")
    number("devices", 1, "devices that share each batch; 0: all there are", least=0, most=1024, integer=True)
    flags.DEFINE_bool("figures", True, "draw what the model makes of the test set once training is done")
    number("keep_last", 2, "newest checkpoints kept", least=1, integer=True)
    number("keep_best", 1, "checkpoints with the best validation bound kept", least=0, integer=True)
    number("save_every", 1, "seconds between checkpoints, at least; 0: one after each epoch", least=0)


def define_trained_run() -> None:
    """The flags of a script that reads a finished run."""
    flags.DEFINE_string("workdir", None, "the run folder, or a packed run, which is unpacked beside it (required)")
    flags.DEFINE_string("checkpoint", None, CHECKPOINT_HELP)
    choice("split", "test", ("train", "validation", "test"), "the images to use")
    flags.DEFINE_string("dataset", None, "where the run's images are now, if they were moved")
    define_places()


def define_config() -> None:
    """Every flag that makes a run what it is."""
    before = set(FLAGS)
    define_data()
    define({**PROGRAM, **RUN})
    TRAINING_FLAGS[:] = sorted(set(FLAGS) - before)
    choice("preset", None, list(PRESETS), "set several flags at once; those on the command line win")
    FLAGS["preset"].allow_overwrite = False  # of another flag that is given twice, the last value counts


def define_all() -> None:
    """Every flag of experiments.train."""
    define_config()
    before = set(FLAGS)
    define_run()
    TRAINING_FLAGS.extend(sorted(set(FLAGS) - before - {"workdir"}))
    # How a run is started, not what it is.
    define_distributed()
    define_profile()
