"""The pictures of a run: from its model and its data to files under <workdir>/figures."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np

from vae import figures
from vae.api import TrainedRun, load_run
from vae.datasets import Dataset, Split, images
from vae.models import generation
from vae.runs import tensorboard
from vae.runs.config import read_config
from vae.runs.files import write_arrays
from vae.runs.folder import FIGURES
from vae.runs.metrics import read_metrics
from vae.settings import Settings

NUM_TRAVERSED = 8  # latent dimensions, the most active ones


def after_training(workdir: Path, dataset: Dataset) -> list[Path]:
    """Draw the learning curves and the pictures of the model on the test set: as files, and in TensorBoard."""
    loaded = load_run(workdir)
    data = images.stored(dataset, "test", loaded.settings.binarization, training=False)
    made = {"learning_curves": learning_curves(workdir)}
    made |= of_model(jax.random.key(0), loaded, data, "test", indices=list(range(min(10, len(data.images)))))
    paths = save(workdir, made)
    tensorboard.write_pictures(workdir, loaded.step, {name: figures.png(made[name]) for name in made})
    return paths


def learning_curves(workdir: Path):
    """The bound of each split against epochs, as a Figure."""
    objective = read_config(workdir).settings.objective
    curves = {}
    for split in ("train", "validation", "test"):
        rows = [row for row in read_metrics(workdir) if row["split"] == split and row.get(objective) is not None]
        # The one test row of a run with a validation split is its result, not a curve.
        if rows and not (split == "test" and "validation" in curves):
            curves[split] = (np.array([row["epoch"] for row in rows]), np.array([row[objective] for row in rows]))
    return figures.learning_curves(curves, "epoch", f"{objective} (nats per image)", f"Learning curves, {workdir.name}")


def of_evaluation(workdir: Path, summary: dict) -> list[Path]:
    """The log-likelihood against k, the KL of each latent dimension, and the bracket of simulated data."""
    ks, estimates = zip(*summary["log_likelihood_by_num_samples"].items(), strict=True)
    values, errors = zip(*estimates, strict=True)
    made = {}
    if len(ks) > 1 and None not in errors:
        title = f"Is k = {ks[-1]} enough? (step {summary['checkpoint']})"
        made["log_likelihood"] = figures.log_likelihood_by_num_samples([int(k) for k in ks], values, errors, title)
    if summary["kl_per_dimension"]:
        title = f"KL of each latent dimension, step {summary['checkpoint']}"
        made["kl_per_dimension"] = figures.kl_per_dimension(summary["kl_per_dimension"], title)
    if bdmc := summary.get("bdmc"):
        bounds = bdmc["by_num_temperatures"].values()
        made["bdmc"] = figures.log_likelihood_bracket(
            [int(count) for count in bdmc["by_num_temperatures"]],
            [bound["lower"] for bound in bounds],
            [bound["upper"] for bound in bounds],
            f"Annealing from both sides, {bdmc['num_examples']} simulated images",
        )
    return save(workdir, made)


def of_model(key, loaded: TrainedRun, data: Split, split: str, *, indices: list[int], num_images: int = 100) -> dict:
    """Samples, reconstructions, traversals, the manifold and the scattered latent space: {name: Figure}.

    Of a conditional model, the samples are sorted by class, traversals keep the image's label, and the manifold is that
    of the first image's class. The manifold steps through the quantiles of a prior that is standard normal.
    """
    model, params, settings = loaded.model, loaded.params, loaded.settings
    key_samples, key_reconstructions = jax.random.split(key)
    chosen = data.images[np.array(indices)]
    shown = None if data.labels is None else data.labels[np.array(indices)]
    every, labels = _given(settings, data.labels), _given(settings, shown)
    first = None if labels is None else labels[0]
    classes = sorted_classes(settings.num_classes, num_images)
    means, drawn = generation.reconstructions(key_reconstructions, params, chosen, model, labels)
    z = generation.encode(params, data.images, model, every).mean
    active = generation.most_active(z, NUM_TRAVERSED)
    made = {
        "samples": figures.samples(
            generation.samples(key_samples, params, model, num_images, classes),
            f"{num_images} samples from the prior, mean of p(x|z)" + ("" if classes is None else ", class after class"),
        ),
        "reconstructions": figures.reconstructions(
            unit(chosen), means, drawn, indices, f"Reconstructions of {split} images", shown
        ),
    }
    values = np.linspace(-3, 3, 13)
    points = generation.traversals(z[indices[0]], active, values)
    made["traversals"] = figures.traversals(
        generation.decode(params, points, model, first),
        active,
        values,
        f"Latent traversals from image #{indices[0]}",
    )
    if settings.latent_dim > 1:
        pair = int(min(active[:2])), int(max(active[:2]))
        if settings.prior == "standard" and not settings.upper_latent_dim:
            z_values, grid = generation.quantile_grid(settings.latent_dim, pair, 20)
            made["manifold"] = figures.manifold(
                generation.decode(params, grid, model, first),
                z_values,
                "Decoded manifold, at equal steps of the prior's quantiles"
                + ("" if first is None else f", class {first}"),
                pair,
            )
        made["latent_space"] = figures.latent_scatter(
            z, data.labels, f"{len(data.images)} images in latent space, mean of q(z|x)", pair
        )
    return made


def _given(settings: Settings, labels: np.ndarray | None) -> np.ndarray | None:
    """The labels that the model gets: None if it is not conditional."""
    return labels if settings.num_classes else None


def sorted_classes(num_classes: int, num_images: int) -> np.ndarray | None:
    """A class for each of `num_images` samples, sorted, in equal shares if possible; None if there are no classes."""
    return np.arange(num_images) * num_classes // num_images if num_classes else None


def morph(
    workdir: Path, loaded: TrainedRun, data: Split, start: int, end: int, num_steps: int, path: str
) -> list[Path]:
    """The strip and the GIF of a morph between two images of the split, along `path` through latent space.

    A conditional model gets the label of the nearer end.
    """
    model, params, settings = loaded.model, loaded.params, loaded.settings
    chosen = np.array([start, end])
    ends = data.images[chosen]
    labels = _given(settings, None if data.labels is None else data.labels[chosen])
    z = generation.encode(params, ends, model, labels).mean

    def steps(count):
        nearer = None if labels is None else labels[np.arange(count) * 2 // count]
        return generation.decode(params, generation.interpolate(z[0], z[1], count, path), model, nearer)

    name = f"morph_{start}_{end}"
    title = f"From image #{start} to #{end}, {path} path"
    figure = figures.morph(steps(num_steps), start, end, title, unit(ends))
    gif = workdir / FIGURES / f"{name}.gif"
    saved = save(workdir, {name: figure})
    figures.morph_gif(steps(4 * num_steps), gif)
    return [*saved, gif]


def embeddings(workdir: Path, loaded: TrainedRun, data: Split, split: str) -> Path:
    """q(z|x) of every image of the split: mean [N, D], log_scale [N, D] if its dimensions are independent normals,
    and labels if there are any."""
    codes = generation.encode(loaded.params, data.images, loaded.model, _given(loaded.settings, data.labels))
    path = workdir / f"embeddings_{split}.npz"
    arrays = {name: values for name, values in codes._asdict().items() if values is not None}
    arrays |= {} if data.labels is None else {"labels": data.labels}
    write_arrays(path, arrays)
    return path


def unit(images: np.ndarray) -> np.ndarray:
    """Stored images as floats in [0, 1]."""
    return images.astype(np.float32) / 255 if images.dtype == np.uint8 else images


def save(workdir: Path, made: dict) -> list[Path]:
    """Write each Figure as <workdir>/figures/<name>.png."""
    folder = workdir / FIGURES
    for name, figure in made.items():
        figures.save(figure, folder / f"{name}.png")
    return [folder / f"{name}.png" for name in made]
