"""What a representation knows of the labels: how well simple classifiers of E[z|x] do with few labels and with many.

Shapes: N images, D numbers of E[z|x], of all stochastic layers end to end.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vae.datasets.images import to_unit_interval
from vae.evaluation.importance import batches, program, shardings
from vae.evaluation.summary import mean_and_error
from vae.models.model import Batch, Model
from vae.settings import Settings
from vae.streams import Stream, stream

COUNTS = (10, 100, 1000)  # labelled images, besides all that there are
DRAWS = 10  # of each number of labelled images
SAMPLES = 100  # of z for a mean without a closed form
IMAGES_PER_CALL = 256
REGRESSION = {"penalty": "L2", "C": 1.0, "max_iter": 1000}  # of the linear probe


class Probed(NamedTuple):
    """The share of test images whose label is found, by number of labelled images: one value for each draw."""

    linear: dict[int, np.ndarray]
    nearest_neighbour: dict[int, np.ndarray]


def unavailable(settings: Settings, split: str, labels: Sequence[np.ndarray | None]) -> str | None:
    """The reason why there is no probe of a run, tested on `split`; None if there is. `labels` are of both splits."""
    if any(of_split is None for of_split in labels):
        return "it needs labels, and the data set has none"
    if split == "train":
        return "it learns from training images and must be tested on others; use another split"
    if settings.num_classes:
        return "the encoder of a conditional model is given the label"
    if len(np.unique(labels[0])) < 2:  # pyright: ignore
        return "the training images have one label only"
    if importlib.util.find_spec("sklearn") is None:
        return "it needs scikit-learn, which is not installed: pip install scikit-learn"
    return None


def represent(
    root: jax.Array,
    params: Any,
    images: np.ndarray,
    index: np.ndarray,
    *,
    model: Model,
    devices: Sequence[Any],
    on_progress: Callable[[int], None] = lambda count: None,
) -> np.ndarray:
    """E[z|x] of each image, [N, D]; what has no closed form, as of a flow, is the mean of `SAMPLES` samples of z.

    Noise is a function of (root, position of the image). Raises LikelihoodError if the model is not of such images.
    """
    model.check_images(images)
    encode = program(_means, tuple(devices), model=model)
    root, params = jax.device_put((root, params), shardings(devices)[1])
    found, done = [], 0
    for batch, count in batches((images, index), IMAGES_PER_CALL, devices):
        found.append(np.asarray(encode(root, params, *batch))[:count])
        done += count
        on_progress(done)
    return np.concatenate(found)


def _means(root, params, images, index, *, model: Model):
    def one(image, position):
        q = model.posterior(params, Batch(to_unit_interval(image)[None], None, position[None]))
        z, _ = q.sample_and_log_prob(stream(root, Stream.PROBE, position), SAMPLES)
        exact = jax.tree.leaves(q.mean)
        sampled = [layer.mean(0) for layer in jax.tree.leaves(z)[len(exact) :]]
        return jnp.concatenate([*exact, *sampled], axis=-1)[0]

    return jax.vmap(one)(images, index)


def probe(
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    counts: Sequence[int] = COUNTS,
    num_draws: int = DRAWS,
    on_progress: Callable[[float], None] = lambda share: None,
) -> Probed:
    """Accuracy on `test`, (E[z|x] [N, D], labels [N]), of classifiers that are fitted to labelled images of `train`.

    Logistic regression, and the label of the nearest image in E[z|x], as it is: the prior gives z its scale. Each of
    `counts` is drawn `num_draws` times, with as many images of each label as of any other as far as that goes, the same
    for all runs. Then come all images, once. scikit-learn fits.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier

    x, y = train
    makers = {
        "linear": lambda: LogisticRegression(C=REGRESSION["C"], max_iter=REGRESSION["max_iter"]),
        "nearest_neighbour": lambda: KNeighborsClassifier(1),
    }
    drawn = [(count, num_draws) for count in counts if count < len(x)] + [(len(x), 1)]
    found: dict[str, dict[int, list[float]]] = {name: {count: [] for count, _ in drawn} for name in makers}
    done, total = 0, sum(num for _, num in drawn)
    for count, num in drawn:
        for draw in range(num):
            rows = labelled(y, count, draw)
            for name, make in makers.items():
                guessed = make().fit(x[rows], y[rows]).predict(test[0])
                found[name][count].append(float(np.mean(guessed == test[1])))
            done += 1
            on_progress(done / total)
    return Probed(*({count: np.array(one) for count, one in found[name].items()} for name in Probed._fields))


def labelled(labels: np.ndarray, count: int, draw: int) -> np.ndarray:
    """Positions of `count` of N labelled images, chosen at random by `draw`: labels take turns until all is chosen."""
    order = np.random.default_rng((draw, count)).permutation(len(labels))
    turn = np.empty(len(labels), int)
    for label in np.unique(labels):
        of_label = order[labels[order] == label]
        turn[of_label] = np.arange(len(of_label))
    return order[np.argsort(turn[order], kind="stable")][:count]


def summarize(probed: Probed, train: np.ndarray, test: np.ndarray, num_features: int) -> dict[str, Any]:
    """Accuracies as evaluation.json holds them, with their standard errors over draws; `train`, `test` are labels.

    `most_frequent` is the share of the test images with the label that most of the training images have.
    """
    values, counts = np.unique(train, return_counts=True)
    by_labels = {}
    for count in probed.linear:
        pairs = {name: mean_and_error(of_counts[count]) for name, of_counts in probed._asdict().items()}
        by_labels[str(count)] = {
            key: value for name, (mean, error) in pairs.items() for key, value in ((name, mean), (f"{name}_se", error))
        }
    return {
        "num_examples": len(test),
        "num_features": num_features,
        "num_classes": len(values),
        "num_draws": max(map(len, probed.linear.values())),
        "regression": REGRESSION,
        "most_frequent": float(np.mean(test == values[counts.argmax()])),
        "by_labels": by_labels,
    }
