"""The pictures of a run: from its model and its data to files under <workdir>/figures."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vae import figures
from vae.api import TrainedRun, load_run
from vae.datasets import Dataset, Split, images
from vae.models import generation
from vae.objectives import OBJECTIVES
from vae.runs import tensorboard
from vae.runs.config import read_config
from vae.runs.files import write_arrays
from vae.runs.folder import FIGURES
from vae.runs.metrics import read_metrics, telling
from vae.settings import Settings

NUM_TRAVERSED = 8  # latent dimensions, the most active ones
ENOUGH_GAIN, ENOUGH_SHARE = 0.05, 0.05  # at most: nats from the k before, and images whose k̂ is above the limit
LONGEST_NAME = 20  # letters of a class in a picture


def after_training(workdir: Path, dataset: Dataset) -> list[Path]:
    """Draw the learning curves and the pictures of the model on the test set: as files, and in TensorBoard."""
    loaded = load_run(workdir)
    data = images.stored(dataset, "test", loaded.settings.binarization, training=False)
    indices = list(range(min(10, len(data.images))))
    made = drawn({"learning_curves": lambda: learning_curves(workdir)})
    if OBJECTIVES[loaded.settings.objective].holds:
        made |= drawn({"controlled": lambda: controlled({workdir.name: workdir})})
    made |= of_model(jax.random.key(0), loaded, data, "test", dataset.classes, indices=indices)
    paths = save(workdir, made)
    pictures = {path.stem: path.read_bytes() for path in paths}
    drawn({"in TensorBoard": lambda: tensorboard.write_pictures(workdir, loaded.step, pictures)})
    return paths


def drawn(pictures: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
    """Each picture that can be drawn; for any other a line is printed that says why: the run itself is done."""
    made = {}
    for name, draw in pictures.items():
        try:
            made[name] = draw()
        except (ValueError, ArithmeticError, LookupError, RuntimeError, MemoryError, OSError) as error:
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            print(f"warning: the picture {name} is not drawn: {reason}")
    return made


def learning_curves(workdir: Path):
    """The bound of each split against epochs, as a Figure."""
    config, written = read_config(workdir), read_metrics(workdir)
    objective, curves = config.settings.objective, {}
    for split in ("train", "validation", "test"):
        rows = [row for row in written if row["split"] == split and row.get(objective) is not None]
        # The one test row of a run with a validation split is its result, not a curve.
        if rows and not (split == "test" and "validation" in curves):
            curves[split] = (np.array([row["epoch"] for row in rows]), np.array([row[objective] for row in rows]))
    best = telling(written, config).get("validation", {}).get("epoch") if config.patience else None
    label, title = f"{objective} (nats per image)", f"Learning curves, {workdir.name}"
    return figures.learning_curves(curves, "epoch", label, title, best)


def controlled(workdirs: Mapping[str, Path]):
    """What runs of one objective hold, and its weight, against epochs of training, as a Figure."""
    configs = {name: read_config(workdir) for name, workdir in workdirs.items()}
    (objective,) = {config.settings.objective for config in configs.values()}
    metric, option, weight = OBJECTIVES[objective].holds or ("", "", "")
    wanted = [getattr(config.hyperparameters, option) for config in configs.values()]
    paths = {}
    for name, workdir in workdirs.items():
        rows = [row for row in read_metrics(workdir) if row["split"] == "train"]
        paths[name] = [row["epoch"] for row in rows], *([_number(row[one]) for row in rows] for one in (metric, weight))
    title = f"{objective}: the {metric}, and the {weight} that holds it at the broken line"
    return figures.controlled(paths, wanted, (f"{metric} (nats per image)", weight), title)


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def of_evaluation(workdir: Path, summary: dict) -> list[Path]:
    """The log-likelihood against k, the KL of each latent dimension, and the bracket of simulated data."""
    pictures: dict[str, Callable[[], Any]] = {}
    by_k = {int(k): estimate for k, estimate in summary["log_likelihood_by_num_samples"].items()}
    if len(by_k) > 1 and None not in (error for _, error in by_k.values()):
        pictures["log_likelihood"] = lambda: is_k_enough(summary, by_k)
    if summary["kl_per_dimension"]:
        pictures["kl_per_dimension"] = lambda: figures.kl_per_dimension(
            summary["kl_per_dimension"], f"KL of each latent dimension, step {summary['checkpoint']}"
        )
    if bdmc := summary.get("bdmc"):
        bounds = bdmc["by_num_temperatures"]
        pictures["bdmc"] = lambda: figures.log_likelihood_bracket(
            list(map(int, bounds)),
            [bound["lower"] for bound in bounds.values()],
            [bound["upper"] for bound in bounds.values()],
            f"Annealing from both sides, {bdmc['num_examples']} simulated images, step {summary['checkpoint']}",
        )
    return save(workdir, drawn(pictures))


def is_k_enough(summary: dict, by_k: Mapping[int, tuple[float, float]]):
    """The log-likelihood against k, as a Figure whose title says whether the largest is enough.

    It is if more samples would change the estimate little, and importance sampling can be trusted for most images.
    """
    ks = sorted(by_k)
    means = [by_k[k][0] for k in ks]
    differences = {str(k): (by_k[k][0] - by_k[before][0], None) for before, k in pairwise(ks)}
    gains = [(gain, error) for gain, error in summary.get("log_likelihood_gain", differences).values()]
    share, limit = summary["pareto_k_above_threshold"], summary["pareto_k_threshold"]
    is_enough = gains[-1][0] < ENOUGH_GAIN and share <= ENOUGH_SHARE
    title = f"Is k = {ks[-1]} enough? {'Yes' if is_enough else 'No'} (step {summary['checkpoint']})"
    note = (
        "Between the estimates: the gain on the same images ± its standard error.\n"
        f"k̂ > {limit:.2f} for {100 * share:.1f} % of the images. Enough is: a last gain below {ENOUGH_GAIN:g} nats, "
        f"and k̂ above for {100 * ENOUGH_SHARE:g} % of the images at most"
    )
    return figures.log_likelihood_by_num_samples(ks, means, by_k[ks[-1]][1], gains, title, note)


def of_model(
    key,
    loaded: TrainedRun,
    data: Split,
    split: str,
    classes: Sequence[int | str] | None,
    *,
    indices: list[int],
    num_images: int = 100,
) -> dict[str, Any]:
    """Samples, reconstructions, traversals, the manifold and the scattered latent space: {name: Figure}.

    Those that cannot be drawn are left out, with a line that says why. Of a conditional model, the samples are sorted
    by class, traversals keep the image's label, and the manifold is that of the first image's class. The manifold steps
    through the quantiles of a prior that is standard normal. `classes` are the names of the labels.
    """
    model, params, settings = loaded.model, loaded.params, loaded.settings
    key_samples, key_reconstructions = jax.random.split(key)
    names = None if classes is None else [shortened(str(name)) for name in classes]
    chosen = data.images[np.array(indices)]
    shown = None if data.labels is None else data.labels[np.array(indices)]
    first = None if shown is None or not settings.num_classes else shown[:1]

    def named(labels):
        return labels if labels is None or names is None else [names[label] for label in labels]

    def samples():
        of_each = sorted_classes(settings.num_classes, num_images)
        made = generation.samples(key_samples, params, model, num_images, of_each)
        sorted_by = "" if of_each is None else ", class after class" + _listed(named(range(settings.num_classes)))
        return figures.samples(
            made, f"{num_images} samples from the prior (step {loaded.step}), mean of p(x|z){sorted_by}"
        )

    def reconstructions():
        means, draws = generation.reconstructions(key_reconstructions, params, chosen, model, _given(settings, shown))
        title = f"Reconstructions of {split} images, step {loaded.step}"
        name = original(settings)
        return figures.reconstructions(unit(chosen), means, draws, indices, title, named(shown), name)

    is_standard = settings.prior == "standard" and not settings.upper_latent_dim

    @functools.cache
    def codes():
        found = generation.encode(params, data.images, model, _given(settings, data.labels))
        # The KL from N(0, I) says what a dimension carries only if that is the prior.
        ranked = found if is_standard else found._replace(log_scale=None)
        return found.mean, generation.most_active(ranked, NUM_TRAVERSED)

    def traversals():
        (z, active), values = codes(), np.linspace(-3, 3, 13)
        points = generation.traversals(z[indices[0]], active, values)
        made = generation.decode(params, points, model, first)
        title = f"Latent traversals from image #{indices[0]}, step {loaded.step}"
        return figures.traversals(made, active, values, title)

    def pair():
        active = codes()[1]
        return int(min(active[:2])), int(max(active[:2]))

    def manifold():
        # A plane through more than two dimensions shows less of them: fewer images, which can be told apart.
        num_others = settings.latent_dim - 2
        z_values, grid = generation.quantile_grid(settings.latent_dim, pair(), 11 if num_others else 21)
        of_class = "" if first is None else f", class {named(first)[0]}"
        title = f"Decoded manifold (step {loaded.step}), at equal steps of the prior's quantiles{of_class}"
        others = f"the two dimensions that carry most; the other {num_others} are 0" if num_others else ""
        return figures.manifold(generation.decode(params, grid, model, first), z_values, title, pair(), others)

    def latent_space():
        title = f"{len(data.images)} images in latent space, mean of q(z|x), step {loaded.step}"
        return figures.latent_scatter(codes()[0], data.labels, title, pair(), names)

    pictures = {"samples": samples, "reconstructions": reconstructions, "traversals": traversals}
    if settings.latent_dim > 1:
        if is_standard:
            pictures["manifold"] = manifold
        pictures["latent_space"] = latent_space
    return drawn(pictures)


def shortened(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def _listed(names: Sequence[Any]) -> str:
    """Class names at the end of a title, if there are few; numbers from 0 need not be said."""
    counted = [str(name) for name in names] == [str(number) for number in range(len(names))]
    return "" if counted or len(names) > 10 else f": {', '.join(map(str, names))}"


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
    title = f"From image #{start} to #{end}, {path} path, step {loaded.step}"
    gif = workdir / FIGURES / f"{name}.gif"
    saved = save(
        workdir,
        drawn({name: lambda: figures.morph(steps(num_steps), start, end, title, unit(ends), original(settings))}),
    )
    moving = drawn({gif.name: lambda: figures.morph_gif(steps(4 * num_steps), gif)})
    return [*saved, *(gif for _ in moving)]


def embeddings(workdir: Path, loaded: TrainedRun, data: Split, split: str, classes: Sequence[int | str] | None) -> Path:
    """q(z|x) of every image of the split: mean [N, D], log_scale [N, D] if its dimensions are independent normals,
    and labels [N] if there are any: positions in `classes`, which are numbers or names."""
    codes = generation.encode(loaded.params, data.images, loaded.model, _given(loaded.settings, data.labels))
    path = workdir / f"embeddings_{split}.npz"
    arrays = {name: values for name, values in codes._asdict().items() if values is not None}
    arrays |= {} if data.labels is None else {"labels": data.labels}
    arrays |= {} if classes is None else {"classes": np.array(classes)}
    write_arrays(path, arrays)
    return path


def original(settings: Settings) -> str:
    """What the images are called that a model sees."""
    return "original" if settings.binarization == "none" else "original,\nbinarised"


def unit(images: np.ndarray) -> np.ndarray:
    """Stored images as floats in [0, 1]."""
    return images.astype(np.float32) / 255 if images.dtype == np.uint8 else images


def save(workdir: Path, made: Mapping[str, Any]) -> list[Path]:
    """Write each Figure as <workdir>/figures/<name>.png; the paths of those that could be written."""
    folder = workdir / FIGURES
    paths = {name: folder / f"{name}.png" for name in made}
    return [paths[name] for name in drawn({n: partial(figures.save, figure, paths[n]) for n, figure in made.items()})]
