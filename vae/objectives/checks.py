"""What a new run may be trained on. A run that has begun is built, goes on and is evaluated without these checks."""

from __future__ import annotations

from collections.abc import Mapping

from vae.models.model import has_closed_form_kl
from vae.objectives.objective import ObjectiveError
from vae.settings import Settings

# Images that a batch must have at least; 1 for the others.
LEAST_BATCH = {
    "beta_tcvae": 2,  # of one image, q(z) is q(z|x): the total correlation is 0
    "dip_i": 2,  # one image has no covariance
    "dip_ii": 2,  # the same: what would be pulled to 1 is each posterior's own variance
    "info": 2,  # the MMD compares draws of different images
    "factor": 2,  # one image cannot be permuted: there is nothing to tell apart
}
# |KL − C| of a KL from samples is too large by their noise. `elbo` and `free_bits` cannot be computed without the form.
NEED_CLOSED_FORM_KL = ("capacity",)


def check(settings: Settings, splits: Mapping[str, int] | None = None) -> None:
    """Raises ObjectiveError if a new run of `settings` would not train what its objective is.

    `splits` names the splits that are validated, with their numbers of images: a batch of them is as large as a batch
    of training, or as the split if that is smaller. What cannot be built at all is refused by `build`.
    """
    name = settings.objective
    if name == "rws" and settings.num_samples < 2:
        raise ObjectiveError(
            "rws weighs samples against each other: with num_samples 1 the encoder is trained on noise alone; "
            "it needs num_samples of 2 or more"
        )
    least = LEAST_BATCH.get(name, 1)
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
    if name in NEED_CLOSED_FORM_KL and not has_closed_form_kl(settings):
        layers = ", two stochastic layers" if settings.upper_latent_dim else ""
        raise ObjectiveError(
            f"{name} needs KL(q ‖ p) in closed form, which posterior {settings.posterior} with prior {settings.prior}"
            f"{layers} has not; use the objective elbo_mc, beta, or another bound on log-weights"
        )
