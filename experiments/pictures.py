"""The pictures of a run: from its model and its data to files under <workdir>/figures."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np

from vae import figures, generation, images, run
from vae.datasets import Dataset, Split

NUM_TRAVERSED = 8  # latent dimensions, the most active ones


def after_training(workdir: Path, dataset: Dataset) -> list[Path]:
    """The learning curves, and what the model makes of the test set: files, and the same in TensorBoard."""
    loaded = run.load_run(workdir)
    data = images.stored(dataset, "test", loaded.settings.binarization, training=False)
    made = {"learning_curves": learning_curves(workdir)}
    made |= of_model(jax.random.key(0), loaded, data, "test", indices=list(range(min(10, len(data.images)))))
    paths = save(workdir, made)
    run.write_pictures(workdir, run.choose_checkpoint(workdir), {name: figures.png(made[name]) for name in made})
    return paths


def learning_curves(workdir: Path):
    """The bound of each split against epochs, as a Figure."""
    objective = run.read_config(workdir).settings.objective
    curves = {}
    for split in ("train", "validation", "test"):
        rows = [row for row in run.read_metrics(workdir) if row["split"] == split and row[objective] is not None]
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
        title = f"Is k = {ks[-1]} enough?"
        made["log_likelihood"] = figures.log_likelihood_by_num_samples([int(k) for k in ks], values, errors, title)
    if summary["kl_per_dimension"]:
        made["kl_per_dimension"] = figures.kl_per_dimension(summary["kl_per_dimension"], "KL of each latent dimension")
    if bdmc := summary.get("bdmc"):
        bounds = bdmc["by_num_temperatures"].values()
        made["bdmc"] = figures.log_likelihood_bracket(
            [int(count) for count in bdmc["by_num_temperatures"]],
            [bound["lower"] for bound in bounds],
            [bound["upper"] for bound in bounds],
            f"Annealing from both sides, {bdmc['num_examples']} simulated images",
        )
    return save(workdir, made)


def of_model(key, loaded: run.LoadedRun, data: Split, split: str, *, indices: list[int], num_images: int = 100) -> dict:
    """Samples, reconstructions, traversals, the manifold and the scattered latent space: {name: Figure}."""
    model, params, settings = loaded
    key_samples, key_reconstructions = jax.random.split(key)
    chosen = data.images[np.array(indices)]
    labels = None if data.labels is None else data.labels[np.array(indices)]
    means, drawn = generation.reconstructions(key_reconstructions, params, chosen, model)
    q = jax.tree.map(np.asarray, generation.encode(params, data.images, model))
    active = generation.most_active(q.mean, NUM_TRAVERSED)
    made = {
        "samples": figures.samples(
            generation.samples(key_samples, params, model, num_images),
            f"{num_images} samples from the prior, mean of p(x|z)",
        ),
        "reconstructions": figures.reconstructions(
            unit(chosen), means, drawn, indices, f"Reconstructions of {split} images", labels
        ),
    }
    values = np.linspace(-3, 3, 13)
    points = generation.traversals(q.mean[indices[0]], active, values)
    made["traversals"] = figures.traversals(
        generation.decode(params, points, model), active, values, f"Latent traversals from image #{indices[0]}"
    )
    if settings.latent_dim > 1:
        pair = int(min(active[:2])), int(max(active[:2]))
        z_values, grid = generation.quantile_grid(settings.latent_dim, pair, 20)
        made["manifold"] = figures.manifold(
            generation.decode(params, grid, model),
            z_values,
            "Decoded manifold, at equal steps of the prior's quantiles",
            pair,
        )
        made["latent_space"] = figures.latent_scatter(
            q.mean, data.labels, f"{len(data.images)} images in latent space, mean of q(z|x)", pair
        )
    return made


def morph(
    workdir: Path, loaded: run.LoadedRun, data: Split, start: int, end: int, num_steps: int, path: str
) -> list[Path]:
    """The strip and the GIF of a morph between two images of the split, along `path` through latent space."""
    ends = data.images[np.array([start, end])]
    z = np.asarray(generation.encode(loaded.params, ends, loaded.model).mean)
    strip = generation.decode(loaded.params, generation.interpolate(z[0], z[1], num_steps, path), loaded.model)
    smooth = generation.decode(loaded.params, generation.interpolate(z[0], z[1], 4 * num_steps, path), loaded.model)
    name = f"morph_{start}_{end}"
    figure = figures.morph(strip, start, end, f"From image #{start} to #{end}, {path} path", unit(ends))
    gif = workdir / run.FIGURES / f"{name}.gif"
    saved = save(workdir, {name: figure})
    figures.morph_gif(smooth, gif)
    return [*saved, gif]


def embeddings(workdir: Path, loaded: run.LoadedRun, data: Split, split: str) -> Path:
    """q(z|x) of every image of the split: mean and log_scale [N, D], and labels where there are any."""
    q = generation.encode(loaded.params, data.images, loaded.model)
    path = workdir / f"embeddings_{split}.npz"
    arrays = {"mean": q.mean, "log_scale": q.log_scale} | ({} if data.labels is None else {"labels": data.labels})
    partial = path.with_name(f".{path.name}.partial.npz")
    np.savez_compressed(partial, allow_pickle=False, **arrays)
    partial.replace(path)
    return path


def unit(images: np.ndarray) -> np.ndarray:
    """Stored images as floats in [0, 1]."""
    return images.astype(np.float32) / 255 if images.dtype == np.uint8 else images


def save(workdir: Path, made: dict) -> list[Path]:
    """Write each Figure as <workdir>/figures/<name>.png."""
    folder = workdir / run.FIGURES
    folder.mkdir(exist_ok=True)
    for name, figure in made.items():
        figures.save(figure, folder / f"{name}.png")
    return [folder / f"{name}.png" for name in made]
