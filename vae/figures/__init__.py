"""Every picture of the project, from numpy arrays: one function per picture, each returns a matplotlib `Figure`.

Images are [N, H, W, C] in [0, 1], with C = 1 (grey) or 3 (colour). Latent dimensions count from 0 in arrays and
arguments and from 1 in labels, as in the papers: `z[:, 0]` is drawn as z₁. Arrays that do not fit raise ValueError.
"""

from vae.figures.benchmarks import Bar, Growth, growth, times_of_works
from vae.figures.canvas import files, mean_and_error, png, save, write
from vae.figures.charts import controlled, kl_per_dimension, latent_scatter, learning_curves
from vae.figures.comparisons import (
    color_of,
    curves_of_objectives,
    differences,
    kl_spectra,
    log_likelihoods,
    rate_distortion,
)
from vae.figures.estimates import (
    gradient_work,
    log_likelihood_bracket,
    log_likelihood_by_num_samples,
    signal_to_noise,
)
from vae.figures.images import manifold, morph, morph_gif, reconstructions, samples, side_by_side, tile, traversals
from vae.figures.sweeps import (
    learning_curves_of_sweep,
    score_against_axis,
    score_against_parameter,
    score_by_trial,
    score_heat_map,
)
from vae.figures.validity import Cells, power_of_tests, rates_of_cells
