"""likelihoods.py: p(x|z) of a decoder's outputs, what data each is for, and the optimal σ through a whole run."""

import dataclasses
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.run_samples import (
    STEPS_PER_EPOCH,
    assert_same_bits,
    assert_same_result,
    config,
    digits,
    rows,
    state,
    train,
)
from vae import objectives
from vae.datasets import Dataset, Split, images
from vae.evaluation import importance as evaluation
from vae.evaluation.summary import bits_per_dimension
from vae.models import checks, likelihoods
from vae.models import model as models
from vae.models.table import DENSITY, LIKELIHOODS, MASSES
from vae.settings import ADDED, Hyperparameters, Settings, read
from vae.streams import Stream, stream
from vae.training import fit, loop
from vae.training import step as training

SHAPE = (2, 3, 2)
OF_DENSITY, OF_MASSES = ([name for name, row in LIKELIHOODS.items() if row.of == kind] for kind in (DENSITY, MASSES))
FAMILIES = {
    **{name: {"likelihood": name} for name in LIKELIHOODS},
    "normal with a fixed scale": {"likelihood": "normal", "scale": 0.1},
    "normal with the optimal scale": {"likelihood": "normal", "scale": "optimal"},
}


def settings_of(name, **changes):
    return Settings(SHAPE, hidden_sizes=(4,), latent_dim=2, **FAMILIES[name], **changes)


def on_grid(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).integers(0, 256, shape) / 255, jnp.float32)


@cache
def initialized(name):
    """The model, its parameters, and what is said of them below: in one program."""
    model, mean_image = models.build(settings_of(name)), np.linspace(0.002, 0.998, 12, dtype=np.float32)
    constant = np.zeros((1, *SHAPE), np.float32)
    constant[:, 0] = 1

    @jax.jit
    def computed(mean_image, constant, z, x):
        params = model.init(jax.random.key(1), models.Batch(mean_image))
        p = model.likelihood(params, z)
        at_constant = model.init(jax.random.key(1), models.Batch(constant))
        of_constant = model.likelihood(at_constant, jnp.zeros((1, 2)))
        return params, {
            "mean at 0": model.likelihood(params, jnp.zeros((1, 2))).mean,
            "of a constant": (of_constant.mean, of_constant.log_prob(constant)),
            "log p": p.log_prob(x[None]),
            "log p of each": jax.vmap(lambda z: model.likelihood(params, z).log_prob(x))(z),
            "images": (p.mean, p.sample(jax.random.key(3))),
            "gradient": jax.grad(lambda params: model.likelihood(params, z).log_prob(x[None]).mean())(params),
        }

    z, x = np.random.default_rng(2).normal(size=(5, 4, 2)).astype(np.float32), on_grid(4, *SHAPE)
    mean_image = mean_image.reshape(1, *SHAPE)
    params, found = computed(mean_image, constant, z, x)
    return model, params, jax.device_get(found) | {"mean image": mean_image, "constant": constant}


def test_every_name_has_its_likelihood():
    assert all(LIKELIHOODS[name].function is getattr(likelihoods, name) for name in LIKELIHOODS)
    assert {*OF_DENSITY, *OF_MASSES} == {*LIKELIHOODS} - {"bernoulli"}


@pytest.mark.parametrize("name", FAMILIES)
def test_untrained_decoder_outputs_the_mean_image_where_z_is_zero(name):
    _, _, found = initialized(name)
    np.testing.assert_allclose(found["mean at 0"], found["mean image"], atol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_bias_of_a_pixel_that_never_changes_is_finite(name):
    _, _, found = initialized(name)
    mean, log_p = found["of a constant"]
    np.testing.assert_allclose(mean, found["constant"], atol=2e-3)
    assert np.isfinite(log_p).all()


@pytest.mark.parametrize("name", FAMILIES)
def test_every_likelihood_broadcasts_x_over_samples_and_keeps_the_shape_of_images(name):
    _, _, found = initialized(name)
    assert found["log p"].shape == (5, 4)
    np.testing.assert_allclose(found["log p"], found["log p of each"], rtol=1e-4)
    assert [image.shape for image in found["images"]] == [(5, 4, *SHAPE)] * 2
    if FAMILIES[name]["likelihood"] != "normal":
        assert all(image.min() >= 0 and image.max() <= 1 for image in found["images"])


@pytest.mark.parametrize("name", OF_MASSES)
def test_outputs_of_a_value_are_its_own_in_every_row_column_and_channel(name):
    """Changing x in one place changes log p by that value's own mass: outputs are not mixed up between channels."""
    model, params, _ = initialized(name)
    z = jax.random.normal(jax.random.key(2), (1, 2))
    base = jnp.asarray(np.full((1, *SHAPE), 51 / 255, np.float32))
    changed = np.where(np.eye(12, dtype=bool).reshape(12, *SHAPE), np.float32(1), base)

    @jax.jit
    def everything(params, changed):
        p = model.likelihood(params, z)
        differences = jax.vmap(lambda x: p.log_prob(x[None])[0])(changed) - p.log_prob(base)
        expected = p.pixels.log_prob(jnp.ones_like(base)) - p.pixels.log_prob(base)
        return differences, expected, model.likelihood(params, jnp.zeros((1, 2))).mean

    differences, expected, mean = map(np.asarray, everything(params, changed))
    np.testing.assert_allclose(differences, expected.reshape(-1), rtol=1e-4, atol=1e-4)
    # A brighter mean image gives a brighter bias at the same place.
    assert (np.diff(mean.reshape(-1)) > 0).all()


@pytest.mark.parametrize("name", FAMILIES)
def test_every_parameter_of_a_likelihood_has_a_finite_gradient_and_all_but_the_optimal_scale_one_that_is_not_zero(name):
    _, _, found = initialized(name)
    for path, leaf in jax.tree_util.tree_leaves_with_path(found["gradient"]["decoder"]):
        held = name == "normal with the optimal scale" and "log_scale" in jax.tree_util.keystr(path)
        assert np.isfinite(leaf).all(), path
        assert (leaf != 0).any() != held, path


def test_logistic_mixture_of_one_is_the_discretized_logistic():
    one = likelihoods.logistic_mixture(settings_of("logistic_mixture", num_logistics=1))
    alone = likelihoods.discretized_logistic(settings_of("discretized_logistic"))
    mean_image, x = on_grid(*SHAPE, seed=1), on_grid(4, *SHAPE)
    raw = jax.random.normal(jax.random.key(0), (4, 2, 3, 6))

    @partial(jax.jit, static_argnums=0)
    def log_prob(family, raw):
        return family.distribution(family.init(mean_image, jnp.ones(())), raw).log_prob(x)

    np.testing.assert_allclose(log_prob(one, raw), log_prob(alone, raw[..., 2:]), rtol=1e-5)


def test_num_logistics_is_the_number_of_components():
    for number in (2, 3):
        mixture = likelihoods.logistic_mixture(settings_of("logistic_mixture", num_logistics=number))
        assert mixture.outputs_per_channel == 3 * number
        raw = jnp.zeros((1, 2, 3, 2 * 3 * number))

        def logits(raw, mixture=mixture):
            return mixture.distribution(mixture.init(on_grid(*SHAPE), jnp.ones(())), raw).pixels.logits

        assert jax.eval_shape(logits, raw).shape == (number, 1, *SHAPE)


GREY = np.arange(48, dtype=np.uint8).reshape(4, 2, 3, 2)
BLACK_AND_WHITE = np.where(GREY > 20, 255, 0).astype(np.uint8)
BETWEEN = GREY.astype(np.float32) / 50


def data(values, binary=False):
    return Dataset("mine", Split(values), Split(values[:0]), Split(values[:1]), binary)


@pytest.mark.parametrize("likelihood", OF_DENSITY)
@pytest.mark.parametrize("binarization", ["dynamic", "fixed", "threshold", "none"])
def test_a_density_of_black_and_white_pixels_is_refused(likelihood, binarization):
    """It has no upper bound: a σ towards 0 at each of two values, a logit towards infinity."""
    binary = binarization == "none"
    with pytest.raises(checks.LikelihoodError) as caught:
        checks.check_data(likelihood, data(BLACK_AND_WHITE if binary else GREY, binary), binarization)
    expected = "no upper bound; use `likelihood=bernoulli`" + ("" if binary else ", or `binarization=none`")
    assert str(caught.value).endswith(expected)


@pytest.mark.parametrize("likelihood", OF_MASSES)
def test_masses_of_256_values_are_refused_for_binarised_data_and_for_values_between(likelihood):
    with pytest.raises(checks.LikelihoodError, match="these pixels are black or white; use `likelihood=bern"):
        checks.check_data(likelihood, data(GREY), "dynamic")
    with pytest.raises(checks.LikelihoodError, match="mine has values between them; use `likelihood=cont"):
        checks.check_data(likelihood, data(BETWEEN), "none")
    checks.check_data(likelihood, data(GREY), "none")


@pytest.mark.parametrize("likelihood", ["bernoulli", "continuous_bernoulli"])
@pytest.mark.parametrize("value", [-0.5, 1.5, np.nan])
def test_values_outside_of_0_and_1_are_for_the_normal_alone(likelihood, value):
    beyond = BETWEEN.copy()
    beyond[3, 0, 0, 0] = value
    with pytest.raises(checks.LikelihoodError, match=r"is of values in \[0, 1\], and those of mine range from"):
        checks.check_data(likelihood, data(beyond), "none")
    checks.check_data("normal", data(beyond), "none")


def test_what_fits_is_not_refused():
    for likelihood in ("bernoulli", *OF_DENSITY):
        checks.check_data(likelihood, data(GREY), "none")
        checks.check_data(likelihood, data(BETWEEN), "none")
    for binarization in ("dynamic", "fixed", "threshold", "none"):
        checks.check_data("bernoulli", data(GREY), binarization)
    checks.check_data("bernoulli", data(BLACK_AND_WHITE, binary=True), "none")


def test_fit_refuses_before_anything_is_written(tmp_path):
    with pytest.raises(checks.LikelihoodError, match="the likelihood normal is a density"):
        fit.fit(tmp_path / "new", config(likelihood="normal", binarization="fixed"), digits())
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", FAMILIES)
def test_the_256_masses_of_every_likelihood_of_grey_values_are_a_code(name):
    """Each value's masses add up to one, whatever the decoder's outputs; of a cross-entropy there are none."""
    model, params, _ = initialized(name)
    values = np.broadcast_to((np.arange(256, dtype=np.float32) / 255).reshape(-1, 1, 1, 1), (256, *SHAPE))

    @jax.jit
    def log_masses(params, x):
        p = model.likelihood(params, jnp.asarray([[-3.0, 2.0]]))
        if name == "bernoulli":
            assert p.log_mass(x) is None
            return None
        return jax.lax.map(lambda one: p.pixels.log_mass(one[None])[0], x), p.log_mass(x[7:8])

    found = log_masses(params, values)
    if name != "bernoulli":
        of_values, of_image = map(np.asarray, found)
        np.testing.assert_allclose(np.exp(of_values.astype(float)).sum(0), 1, atol=1e-5)
        np.testing.assert_allclose(of_image, [of_values[7].sum()], rtol=1e-5)


def optimal(**changes):
    # With the default number of validation images, which are more like the training images than 360 are.
    given = {"epochs": 2, "validation": None, "batch_size": 50} | changes
    return config(likelihood="normal", scale="optimal", binarization="none", **given)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed")
    assert train(workdir, optimal()).finished
    return workdir


def log_scale(params):
    return float(params["decoder"]["output"]["log_scale"])


def squared_errors(params, number_of_draws=1, seed=0):
    """By numpy: of every training image, [draws, N, H, W, C]."""
    model, x = models.build(optimal().settings), np.asarray(digits().train.images / 255, np.float32)

    @jax.jit
    def reconstructions(params, x):
        z, _ = model.posterior(params, models.Batch(x)).sample_and_log_prob(jax.random.key(seed), number_of_draws)
        return model.likelihood(params, z).mean

    return (np.asarray(reconstructions(params, x), np.float64) - x[None]) ** 2


def test_stored_sigma_is_the_root_of_numpys_mean_squared_error_over_the_training_set(undisturbed):
    params = jax.device_put(state(undisturbed).params)
    errors = squared_errors(params, 20).mean((1, 2, 3, 4))
    assert errors.std() < 0.01 * errors.mean()
    assert np.exp(2 * log_scale(params)) == pytest.approx(errors.mean(), abs=5 * errors.std())


def test_the_reported_bounds_before_and_after_the_last_epoch_are_of_the_optimal_sigma(undisturbed):
    """−D/2 (log 2π σ² + 1) is the reconstruction of the training set; in training every batch has its own σ."""
    expected = -64 / 2 * (np.log(2 * np.pi) + 2 * log_scale(state(undisturbed).params) + 1)
    held_out = rows(undisturbed)[-2]
    assert held_out["split"] == "validation"
    assert held_out["reconstruction"] == pytest.approx(expected, rel=0.05)
    # Parameters change within the epoch; at σ = 1 it would be −60.
    assert rows(undisturbed)[-3]["reconstruction"] == pytest.approx(expected, abs=3)


@pytest.mark.parametrize("stops", [[STEPS_PER_EPOCH], [STEPS_PER_EPOCH - 1, STEPS_PER_EPOCH + 3]])
def test_a_run_with_the_optimal_sigma_resumes_bit_identical(tmp_path, undisturbed, monkeypatch, stops):
    monkeypatch.setattr(loop, "SECONDS_PER_CALL", 0.0)
    for stop in stops:
        seen = []
        train(
            tmp_path,
            optimal(),
            report=lambda progress, seen=seen: seen.append(progress.step),
            should_stop=lambda seen=seen, stop=stop: bool(seen) and seen[-1] >= stop,
        )
        assert seen[-1] == stop
    assert train(tmp_path, optimal()).finished
    assert_same_result(tmp_path, undisturbed)


@cache
def fitted(**changes):
    """A new state, the compiled function that sets its σ, and the 75 images that it is of."""
    settings = optimal(**changes).settings
    model, objective = models.build(settings), objectives.build(settings)
    stored = images.stored(digits(), "train", "none", training=True)
    data = Split(jnp.asarray(stored.images[:75]), None)
    initialize = jax.jit(lambda root, h, m: training.initialize(root, model, objective, settings, h, m))
    first = initialize(
        jax.random.key(0), Hyperparameters(ema_decay=0.9), images.Moments(jnp.full((8, 8, 1), 0.3), jnp.ones(()))
    )
    refit = jax.jit(partial(training.refit, model=model, settings=settings))
    return first, lambda root, state=first: refit(root, state, data), data


def test_sigma_is_a_function_of_seed_and_step_and_the_last_batch_is_masked():
    first, refit, data = fitted()
    once = refit(jax.random.key(0))
    assert_same_bits(refit(jax.random.key(0)), once)
    assert log_scale(refit(jax.random.key(1)).params) != log_scale(once.params)
    assert log_scale(refit(jax.random.key(0), first._replace(step=first.step + 1)).params) != log_scale(once.params)
    # The two batches of 50 by hand: the second is half filled.
    model, total = models.build(optimal().settings), 0.0
    x = np.asarray(data.images, np.float32) / 255

    @jax.jit
    def reconstruction(params, x, number):
        q = model.posterior(params, models.Batch(x))
        z, _ = q.sample_and_log_prob(stream(jax.random.key(0), Stream.SCALE, 0, number), 1)
        return model.likelihood(params, z).mean[0]

    for number, index in enumerate((np.arange(50), np.minimum(np.arange(50, 100), 74))):
        errors = (np.asarray(reconstruction(first.params, x[index], number)) - x[index]) ** 2
        total += errors[: 75 - 50 * number].sum()
    assert np.exp(2 * log_scale(once.params)) == pytest.approx(total / x.size, rel=1e-5)


def test_sigma_changes_nothing_but_itself_and_the_average_has_it_too():
    first, refit, _ = fitted(average_weights=True, ema_decay=0.9)
    once = refit(jax.random.key(0))
    assert log_scale(once.average) == log_scale(once.params) != 0
    for tree in (once.params, once.average):
        tree["decoder"]["output"]["log_scale"] = jnp.zeros(())
    assert_same_bits(once, first)


def test_training_neither_reads_nor_moves_the_stored_sigma():
    settings = optimal().settings
    model, objective = models.build(settings), objectives.build(settings)
    first, refit, data = fitted()
    once = refit(jax.random.key(0))

    @jax.jit
    def step(state):
        batch, parts = models.Batch(data.images[:50] / 255.0), {"model": model, "objective": objective}
        return training.train_step(jax.random.key(5), state, batch, Hyperparameters(), **parts, settings=settings)

    other, same = step(first), step(once)
    assert log_scale(same.params) == log_scale(once.params)
    assert other.recent.bound[0] == same.recent.bound[0]
    same.params["decoder"]["output"]["log_scale"] = other.params["decoder"]["output"]["log_scale"]
    assert_same_bits(other.params, same.params)


def test_evaluation_at_the_stored_sigma_does_not_depend_on_the_batch(undisturbed):
    params, model = jax.device_put(state(undisturbed).params), models.build(optimal().settings)
    x = digits().test.images[:7]
    options = {"model": model, "num_samples": 5}
    whole = evaluation.evaluate(jax.random.key(0), params, x, batch_size=7, **options)
    parts = evaluation.evaluate(jax.random.key(0), params, x, batch_size=3, **options)
    jax.tree.map(np.testing.assert_array_equal, parts, whole)
    in_training = evaluation.evaluate(
        jax.random.key(0), params, x, batch_size=7, model=model.in_training, num_samples=5
    )
    assert (in_training.elbo != whole.elbo).all()


# Where a learned scale begins


SPREAD = 0.07
LEARNED_SCALE = [
    name for name in FAMILIES if name.startswith(("normal", "discretized", "logistic")) and "fixed" not in name
]


@cache
def begun(name):
    """New parameters, and p(x|z = 0), as a function of a mean image and a spread."""
    model = models.build(settings_of(name))

    @jax.jit
    def params_and_pixels(mean_image, spread):
        params = model.init(jax.random.key(1), models.Batch(mean_image), spread)
        return params, model.likelihood(params, jnp.zeros((1, 2))).pixels

    return params_and_pixels


@pytest.mark.parametrize("name", LEARNED_SCALE)
def test_a_learned_scale_begins_at_the_spread_of_the_training_images_about_their_mean(name):
    """Of the untrained decoder at z = 0, which outputs the mean image; √(m(1 − m)) is the most a value can have."""
    mean_image = np.linspace(0.001, 0.999, 12, dtype=np.float32).reshape(1, *SHAPE)
    _, pixels = begun(name)(mean_image, SPREAD)
    expected = np.full((1, *SHAPE), SPREAD)
    if name.startswith("normal"):
        deviation = np.exp(pixels.log_scale)
    else:
        logistic = pixels.components if name == "logistic_mixture" else pixels
        deviation = np.exp(logistic.log_scale).reshape(-1, *SHAPE) * np.pi / np.sqrt(3)
        expected = np.minimum(expected, np.sqrt(mean_image * (1 - mean_image)))
        expected = np.broadcast_to(expected, deviation.shape)
    np.testing.assert_allclose(deviation, expected[0, 0, 0, 0] if deviation.ndim == 0 else expected, rtol=1e-4)


@pytest.mark.parametrize("name", LEARNED_SCALE)
def test_the_scale_of_a_run_that_is_older_than_the_choice_begins_where_it_did(name):
    """σ = 1, and of logistics the log-scale ½ log 3m(1 − m) − log π, which was then bounded."""
    newer = {field for since, added in ADDED.items() if since > 2 for field in added}
    values = {field: value for field, value in settings_of(name).to_dict().items() if field not in newer}
    settings = Settings(**read(values, [field.name for field in dataclasses.fields(Settings)], file_format=2))
    assert settings.initial_scale == "wide"
    model, mean_image = models.build(settings), jnp.linspace(0.001, 0.999, 12).reshape(1, *SHAPE)
    output = jax.jit(model.init)(jax.random.key(1), models.Batch(mean_image), SPREAD)["decoder"]["output"]
    if name.startswith("normal"):
        assert output["log_scale"] == 0
    else:
        m = np.asarray(mean_image[0])
        log_scale = np.asarray(output["bias"]).reshape(*SHAPE[:2], -1, SHAPE[2])[..., -1, :]
        np.testing.assert_allclose(log_scale, 0.5 * np.log(3 * m * (1 - m)) - np.log(np.pi), rtol=1e-5)


@pytest.mark.parametrize("spread", [0.0, 1e30])
@pytest.mark.parametrize("name", LEARNED_SCALE)
def test_images_that_are_all_alike_or_beyond_all_bounds_give_a_finite_scale(name, spread):
    params, _ = begun(name)(np.full((1, *SHAPE), 0.5, np.float32), spread)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params["decoder"]["output"]))


@pytest.mark.parametrize("name", LEARNED_SCALE)
def test_a_run_begins_better_than_uniform_at_the_sigma_that_fits_the_mean_image(name):
    """σ = 1 needed thousands of steps of Adam before samples were anything but noise."""
    settings = config(**FAMILIES[name], binarization="none").settings
    model, objective = models.build(settings), objectives.build(settings)
    data = digits()

    @jax.jit
    def begin(root, moments, x):
        first = training.initialize(root, model, objective, settings, Hyperparameters(), moments)
        p = model.likelihood(first.params, jnp.zeros((1, settings.latent_dim)))
        return p.pixels, p.log_mass(x).mean()

    x = np.asarray(data.train.images, np.float32) / 255
    pixels, log_mass = begin(jax.random.key(0), images.moments(data.train.images), x)
    assert 0 < bits_per_dimension(float(log_mass), 64) < 8
    if name.startswith("normal"):
        mean_image = data.train.images.mean(0) / 255
        sigma = np.sqrt(((data.train.images / 255 - mean_image) ** 2).mean())
        assert np.exp(pixels.log_scale) == pytest.approx(sigma, rel=1e-5)
