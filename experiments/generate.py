"""Pictures of what a trained model makes.

    python -m experiments.generate --workdir=runs/x
    python -m experiments.generate --workdir=runs/x --indices=0,7,42 --morph=3,18
    python -m experiments.generate --workdir=runs/x --embeddings=test

Writes under <workdir>/figures: samples from the prior, reconstructions of the chosen test images, a morph from one test
image to another (strip and GIF), traversals of the most active latent dimensions, and the test set scattered in two of
them. If the prior is a standard normal, it also draws the decoded manifold of these two. Samples of a conditional model
are sorted by class. Pictures of --indices or of another --split have these in their names. With --embeddings, it also
writes q(z|x) of a split as .npz.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).parent.parent))

from experiments.command import notes, script
from experiments.command.stopping import StopRequest
from experiments.flags import options
from experiments.flags.parsing import UsageError, choice, indices, number

if TYPE_CHECKING:
    from vae.datasets import Split


def define_flags() -> None:
    options.define_trained_run()
    indices("indices", None, "images of --split to reconstruct (default: the first ten)")
    indices("morph", None, "two images of --split, from the first to the second (default: 0,1)", count=2)
    choice("path", "spherical", ("spherical", "linear"), "of the morph through latent space")
    number("num_steps", 15, "steps of the morph", least=2, most=200, integer=True)
    number("num_images", 100, "samples from the prior", least=1, most=10_000, integer=True)
    number("seed", 0, "of the samples", least=0, most=2**31 - 1, integer=True)
    choice("embeddings", None, ("train", "validation", "test"), "also write q(z|x) of this split as .npz")


def main(_: StopRequest) -> int:
    flags = options.read()
    asked, workdir = flags.values, flags.trained_workdir
    import jax

    from experiments.command import devices
    from experiments.pictures import run_pictures
    from vae.api import load_run

    devices.start(1, asked["data_dir"])
    workdir = options.opened(workdir)
    loaded = load_run(workdir, asked["checkpoint"])
    notes.show_best(workdir, asked["checkpoint"])
    dataset = flags.folders.of_run(workdir, asked["dataset"])
    data, _ = options.evaluated_split(workdir, dataset, asked["split"])
    shown = positions("indices", asked["indices"] or range(min(10, len(data.images))), data, asked["split"])
    ends = positions("morph", asked["morph"] or range(min(2, len(data.images))), data, asked["split"])
    key, about = jax.random.key(asked["seed"]), (asked["split"], dataset.classes)
    made = run_pictures.of_model(key, loaded, data, *about, indices=shown, num_images=asked["num_images"])
    named = {file_name(name, asked["split"], asked["indices"] or ()): figure for name, figure in made.items()}
    paths = run_pictures.save(workdir, named)
    if len(ends) == 2:  # of a split of one image there is no morph
        start, end = ends
        paths += run_pictures.morph(workdir, loaded, data, start, end, asked["num_steps"], asked["path"])
    if asked["embeddings"]:
        split, _ = options.evaluated_split(workdir, dataset, asked["embeddings"])
        paths.append(run_pictures.embeddings(workdir, loaded, split, asked["embeddings"], dataset.classes))
    for path in paths:
        print(path)
    return 0


def positions(name: str, values: Iterable[str | int], data: Split, split: str) -> list[int]:
    """The positions that the flag `name` gives; raises UsageError if one lies beyond the images of the split."""
    found, count = [int(value) for value in values], len(data.images)
    if beyond := [value for value in found if value >= count]:
        raise UsageError(f"--{name}: there is no {split} image {beyond[0]}; the {count} images count from 0")
    return found


def file_name(picture: str, split: str, indices: Sequence[str]) -> str:
    """The name of a picture's file; what training drew of the first test images stays beside that of others."""
    parts = [picture]
    if picture in ("reconstructions", "traversals", "latent_space"):
        parts += [split] if split != "test" else []
        if picture != "latent_space":
            parts += [str(int(position)) for position in indices[:10]]
            parts += [f"and_{len(indices) - 10}"] if len(indices) > 10 else []
    return "_".join(parts)


if __name__ == "__main__":
    script.run(define_flags, main)
