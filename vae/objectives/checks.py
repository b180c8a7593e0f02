"""What a new run may be trained on. A run that has begun is built, resumed and evaluated without these checks."""

from __future__ import annotations

from collections.abc import Mapping

from vae.models.model import has_closed_form_kl
from vae.objectives.objective import ObjectiveError
from vae.objectives.table import OBJECTIVES
from vae.settings import Settings


def check(settings: Settings, splits: Mapping[str, int] | None = None) -> None:
    """Raises ObjectiveError if a new run of `settings` would not train what its objective is.

    `splits` names the splits that are validated, with their numbers of images: a batch of them is as large as a batch
    of training, or as the split if that is smaller. What cannot be built at all is refused by `build`.
    """
    name, row = settings.objective, OBJECTIVES[settings.objective]
    if settings.num_samples < row.least_samples and settings.rws_phase != "sleep_q":  # wake-sleep, Hinton et al. 1995
        raise ObjectiveError(
            f"{name} weighs samples against each other: with num_samples {settings.num_samples} that trains the "
            f"encoder on noise; it needs num_samples of {row.least_samples} or more"
        )
    least = row.least_batch
    if settings.batch_size < least:
        raise ObjectiveError(
            f"{name} compares the images of a batch with each other, and batch_size is {settings.batch_size}; "
            f"it needs a batch_size of {least} or more"
        )
    for split, num_images in (splits or {}).items():
        if num_images < least:
            images = f"{num_images} image" + ("" if num_images == 1 else "s")
            raise ObjectiveError(
                f"{name} compares the images of a batch with each other, and the {split} split has {images}; "
                f"it needs {least} or more, so hold out more images or use another objective"
            )
    if row.needs_closed_form_kl and not has_closed_form_kl(settings):
        layers = ", two stochastic layers" if settings.upper_latent_dim else ""
        raise ObjectiveError(
            f"{name} needs KL(q ‖ p) in closed form, which posterior {settings.posterior} with prior {settings.prior}"
            f"{layers} has not; use the objective elbo_mc, beta, or another bound on log-weights"
        )
