"""The protocol of every published cell: its numbers are typed in here, or counted by hand, not computed."""

import jax
import numpy as np
import pytest

from experiments.command import notes, reproductions
from experiments.papers import TABLES
from experiments.papers.paper import SCHEDULES
from vae.configuration import complete
from vae.datasets.dataset import Dataset, Split
from vae.models import model as models
from vae.models.model import Batch
from vae.options import flattened, read
from vae.settings import OPTIONS, PROGRAM

# Parameters and steps. Burda's one layer: 784-200-200-(50+50), 50-200-200-784; 3,280 epochs of 59,600 / 20 steps.
# Two layers: the encoders 784-200-200-(100+100) with 157,000 + 40,200 + 40,200 and 100-100-100-(50+50) with
# 10,100 + 10,100 + 10,100; the decoders 50-100-100-(100+100) with 5,100 + 10,100 + 20,200 and 100-200-200-784 with
# 20,200 + 40,200 + 157,584.
ONE, TWO, FIXED = (425_284, 9_774_400), (521_084, 9_774_400), (425_284, 8_200_000)
# VampPrior: gated layers, so twice 784·300 + 300, 300·300 + 300, 40·300 + 300 and 300·300 + 300, then 300·80 + 80 and
# 300·784 + 784; 500 pseudo-inputs of 784; 2,000 epochs of 50,000 / 100 steps. Frey faces have 560 pixels, a location
# and a scale of each, and 15 whole batches. flax: 784-500-(20+20), 20-500-784 with
# 392,500 + 20,040 + 10,500 + 392,784; 10 epochs of 468 whole batches. The tutorials: 784-256-(2+2), 2-256-784 with
# 200,960 + 1,028 + 768 + 201,488, 10 epochs of 1,875; 784-400-(20+20), 20-400-784 with 314,000 + 16,040 + 8,400 +
# 314,384.
# Of each cell: the printed number, the parameters and steps, and K.
CELLS = {
    "burda2016": {
        "mnist/1/vae/1": (86.76, ONE, 1), "mnist/1/vae/5": (86.47, ONE, 5), "mnist/1/vae/50": (86.35, ONE, 50),
        "mnist/1/iwae/1": (86.76, ONE, 1), "mnist/1/iwae/5": (85.54, ONE, 5), "mnist/1/iwae/50": (84.78, ONE, 50),
        "mnist/2/vae/1": (85.33, TWO, 1), "mnist/2/vae/5": (85.01, TWO, 5), "mnist/2/vae/50": (84.78, TWO, 50),
        "mnist/2/iwae/1": (85.33, TWO, 1), "mnist/2/iwae/5": (83.89, TWO, 5), "mnist/2/iwae/50": (82.90, TWO, 50),
        "fixed/1/iwae/1": (88.71, FIXED, 1), "fixed/1/iwae/5": (87.63, FIXED, 5), "fixed/1/iwae/50": (87.10, FIXED, 50),
    },
    "rainforth2018": {
        "mnist/iwae": (-84.52, ONE, 64), "mnist/piwae": (-84.46, ONE, 64), "mnist/miwae": (-84.97, ONE, 64),
        "mnist/ciwae": (-85.24, ONE, 64), "mnist/vae": (-86.21, ONE, 64),
    },
    "li2016": {
        "mnist/1/iwae/5": (-85.41, ONE, 5), "mnist/1/vr_max/5": (-85.42, ONE, 5), "mnist/1/renyi/5": (-85.50, ONE, 5),
        "mnist/1/iwae/50": (-84.80, ONE, 50), "mnist/1/vr_max/50": (-84.81, ONE, 50),
        "mnist/2/iwae/5": (-83.92, TWO, 5), "mnist/2/vr_max/5": (-84.04, TWO, 5),
        "mnist/2/iwae/50": (-83.05, TWO, 50), "mnist/2/vr_max/50": (-83.44, TWO, 50),
    },
    "vampprior2018": {
        "static_mnist/1/standard": (None, (1_116_864, 1_000_000), 1),
        "static_mnist/1/vamp": (85.57, (1_508_864, 1_000_000), 1),
        "frey_faces/1/standard": (None, (1_083_600, 30_000), 1), "frey_faces/1/vamp": (None, (1_363_600, 30_000), 1),
    },
    "flax_example": {"mnist": (103.60, (815_824, 4_680), 1)},
    "tutorials": {"tutorial": (153.25, (404_244, 18_750), 1), "mlp400": (105.37, (652_824, 4_680), 1)},
}  # fmt: skip
SHAPES = {"frey_faces": (28, 20, 1)}
EVERY = [(table, name) for table, cells in CELLS.items() for name in cells]
TRAINABLE = [(table, name) for table, name in EVERY if reproductions.lacks(TABLES[table].cells[name]) is None]


def dataset(cell):
    """Images of the size of the cell's own, which take no memory."""
    name = cell.values()["dataset"]
    images = np.broadcast_to(np.uint8(0), (cell.num_train, *SHAPES.get(name, (28, 28, 1))))
    return Dataset(name, Split(images), Split(images[:400]), Split(images[:1]), name == "binarized_mnist")


def config(cell):
    return reproductions.config_of(cell, lambda wanted: dataset(cell))


def test_every_cell_of_the_registry_is_here():
    assert {name: list(table.cells) for name, table in TABLES.items()} == {
        name: list(cells) for name, cells in CELLS.items()
    }


@pytest.mark.parametrize(("table", "name"), EVERY)
def test_a_cell_has_the_printed_number_and_the_size_of_its_protocol(table, name):
    cell = TABLES[table].cells[name]
    value, (parameters, steps), num_samples = CELLS[table][name]
    assert (cell.published and cell.published.value) == value
    assert (cell.num_parameters, cell.num_steps()) == (parameters, steps)
    values = cell.values()
    assert values.get("num_samples", 1) * values.get("num_groups", 1) == num_samples


@pytest.mark.parametrize("size", sorted({(TABLES[t].cells[n].num_parameters, t) for t, n in TRAINABLE}))
def test_the_model_has_the_parameters_that_the_registry_says(size):
    cell = next(TABLES[t].cells[n] for t, n in TRAINABLE if (TABLES[t].cells[n].num_parameters, t) == size)
    init = lambda key, x: models.build(config(cell).settings).init(key, Batch(x), 0.3)  # noqa: E731
    image = jax.ShapeDtypeStruct((1, *config(cell).settings.image_shape), np.float32)
    params = jax.eval_shape(init, jax.eval_shape(lambda: jax.random.key(0)), image)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == size[0]


@pytest.mark.parametrize(("table", "name"), TRAINABLE)
def test_a_cell_states_every_schedule_and_its_epochs_so_that_a_fraction_scales_them(table, name):
    cell = TABLES[table].cells[name]
    values = cell.values()
    config(cell)  # nothing that is set is without effect
    in_epochs = {option for option, one in flattened(OPTIONS).items() if one.in_epochs}
    assert {"stage_epochs", "warmup_epochs"} < set(SCHEDULES)
    assert in_epochs & set(read(PROGRAM, complete(values))) <= values.keys()
    assert {"epochs", "batch_size", "learning_rate", "validation", "objective", "binarization"} <= values.keys() | {
        "objective"
    }


def test_burda_trains_in_the_stages_of_the_authors_code_on_59600_images():
    cell = TABLES["burda2016"].cells["mnist/1/iwae/5"]
    made = config(cell)
    milestones = np.cumsum(made.hyperparameters.stage_steps)
    assert milestones.tolist() == [2980 * n for n in (1, 4, 13, 40, 121, 364, 1093, 3280)]
    assert (cell.num_train, made.validation, made.settings.batch_size) == (59_600, 400, 20)
    assert made.hyperparameters.learning_rate * made.hyperparameters.stage_factors[1] == pytest.approx(7.2e-4)


@pytest.mark.parametrize(("table", "name"), [(t, n) for t, n in TRAINABLE if TABLES[t].cells[n].runs_of])
def test_cells_that_share_runs_train_the_same_bound(table, name):
    cell = TABLES[table].cells[name]
    other = TABLES[table].cells[cell.runs_of]
    assert notes.simplest(config(cell)) == notes.simplest(config(other))
    assert other.runs_of is None
