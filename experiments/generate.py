"""Pictures of what a trained model makes.

    python -m experiments.generate --workdir=runs/x
    python -m experiments.generate --workdir=runs/x --indices=0,7,42 --morph=3,18
    python -m experiments.generate --workdir=runs/x --embeddings=test

Writes under <workdir>/figures: samples from the prior, reconstructions of the chosen test images, a morph from one test
image to another (strip and GIF), traversals of the most active latent dimensions, and the test set scattered in two of
them. If the prior is a standard normal, it also draws the decoded manifold of these two. Samples of a conditional model
are sorted by class. With --embeddings, it also writes q(z|x) of a split as .npz.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).parent.parent))

from experiments.command import script
from experiments.flags import options
from experiments.flags.parsing import choice, indices, number

FLAGS = options.FLAGS


def define_flags() -> None:
    options.define_trained_run()
    indices("indices", None, "images of --split to reconstruct (default: the first ten)")
    indices("morph", "0,1", "two images of --split, from the first to the second", count=2)
    choice("path", "spherical", ("spherical", "linear"), "of the morph through latent space")
    number("num_steps", 15, "steps of the morph", least=2, most=200, integer=True)
    number("num_images", 100, "samples from the prior", least=1, most=10_000, integer=True)
    number("seed", 0, "of the samples", least=0, most=2**31 - 1, integer=True)
    choice("embeddings", None, ("train", "validation", "test"), "also write q(z|x) of this split as .npz")


def main() -> int:
    workdir = options.trained_workdir()
    import jax

    from experiments.command import devices
    from experiments.pictures import run_pictures
    from vae.api import load_run

    devices.start(1)
    loaded = load_run(workdir, FLAGS.checkpoint)
    data, _ = options.evaluated_split(workdir, FLAGS.split)
    for name in ("indices", "morph"):
        options.check_indices(name, len(data.images), FLAGS.split)
    key = jax.random.key(FLAGS.seed)
    made = run_pictures.of_model(
        key,
        loaded,
        data,
        FLAGS.split,
        indices=[int(i) for i in FLAGS.indices or range(min(10, len(data.images)))],
        num_images=FLAGS.num_images,
    )
    paths = run_pictures.save(workdir, made)
    start, end = (int(i) for i in FLAGS.morph)
    paths += run_pictures.morph(workdir, loaded, data, start, end, FLAGS.num_steps, FLAGS.path)
    if FLAGS.embeddings:
        split, _ = options.evaluated_split(workdir, FLAGS.embeddings)
        paths.append(run_pictures.embeddings(workdir, loaded, split, FLAGS.embeddings))
    for path in paths:
        print(path)
    return 0


if __name__ == "__main__":
    define_flags()
    script.run(main)
