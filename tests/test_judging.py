"""What a comparison refuses, leaves out and says of the runs before it; in process, with evaluations made by hand."""

import dataclasses
from pathlib import Path

import pytest

from experiments.command.parsing import UsageError
from experiments.comparing import judging
from tests.run_samples import config


def groups(*configs):
    return [judging.Group(str(i), one, {0: Path(f"run{i}")}) for i, one in enumerate(configs)]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"num_classes": 10}, r"another conditioning on labels \(.*log p\(x\|y\)\): 0 and 10"),
        ({"likelihood": "continuous_bernoulli"}, "another likelihood: bernoulli and continuous_bernoulli"),
        ({"binarization": "none"}, "another binarization in evaluation: fixed and none"),
    ],
)
def test_two_log_likelihoods_of_different_quantities_are_refused(change, reason):
    with pytest.raises(UsageError, match=f"run0 and run1 cannot be compared: {reason}"):
        judging.check_comparable(groups(config(), config(**change)))


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"dataset": "mnist"}, "data set"),
        ({"image_size": 16}, "image size"),
        ({"image_shape": (4, 16, 1)}, "image shape"),
    ],
)
def test_log_likelihoods_of_other_images_are_refused(change, name):
    other = config()
    if "image_shape" in change:
        other = dataclasses.replace(other, settings=dataclasses.replace(other.settings, **change))
    else:
        other = dataclasses.replace(other, **change)
    with pytest.raises(UsageError, match=f"cannot be compared: another {name}: "):
        judging.check_comparable(groups(config(), other))


def test_what_leaves_the_log_likelihood_what_it_is_may_differ():
    """Another model of the same images is what a comparison is for; dynamic binarization is fixed in evaluation."""
    normal = [{"scale": 0.1}, {"scale": "optimal"}, {"precision": "bfloat16"}, {"prior": "vamp"}, {"latent_dim": 9}]
    judging.check_comparable(groups(*(config(likelihood="normal", binarization="none", **one) for one in normal)))
    judging.check_comparable(groups(config(), config(binarization="fixed"), config(validation=0)))
