"""A bound that is not finite although training was: said loudly, null in the files, and no reader stumbles over it."""

import numpy as np
import pytest

from tests.run_samples import STEPS_PER_EPOCH, VALIDATION, config, digits
from vae.runs import checkpoint
from vae.runs.config import write_config
from vae.runs.folder import CHECKPOINTS, lock
from vae.runs.metrics import read_metrics, summary
from vae.training import fit
from vae.training.record import FAILURE, TrainingFailed


@pytest.fixture(scope="module")
def one_impossible_image():
    """The digits as floats; the square of what a test image is off by is beyond float32, so its density is 0."""
    dataset = digits(VALIDATION)
    as_floats = {
        name: split._replace(images=split.images.astype(np.float32) / 255)
        for name, split in (("train", dataset.train), ("validation", dataset.validation), ("test", dataset.test))
    }
    as_floats["test"].images[7] = 1e25
    return dataset._replace(**as_floats)


@pytest.fixture(scope="module")
def not_tested(tmp_path_factory, one_impossible_image):
    """A run that was trained to its end on it, and what was raised at each of two calls."""
    workdir = tmp_path_factory.mktemp("not_tested")
    asked = config(epochs=1, likelihood="normal", binarization="none")
    raised = []
    with lock(workdir):
        write_config(workdir, asked)
        for _ in range(2):
            with pytest.raises(TrainingFailed) as error:
                fit.fit(workdir, asked, one_impossible_image)
            raised.append(str(error.value))
    return workdir, raised


def test_a_test_bound_of_minus_infinity_is_one_loud_line_at_every_start_and_the_run_is_saved(not_tested):
    workdir, (first, again) = not_tested
    assert first == again
    assert first.startswith("the test bound is -inf, though training and validation were finite")
    assert "\n" not in first
    assert checkpoint.steps(workdir / CHECKPOINTS) == [STEPS_PER_EPOCH]
    assert not (workdir / FAILURE).exists()
    assert [row["elbo"] for row in read_metrics(workdir) if row["split"] == "test"] == [None]


def test_its_row_is_read_as_a_run_without_a_test_bound(not_tested):
    workdir, _ = not_tested
    found = summary(workdir)
    assert found["test"] is None
    assert found["epoch"] == 1.0
    assert np.isfinite(found["validation"])
