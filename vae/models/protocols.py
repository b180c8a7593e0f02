"""What the parts of a model offer: the shapes, and what None means, of q(z|x), p(z), p(x|z) and the functions of them.

Shapes: K samples, B batch, D latent, H W C image. Log densities are in nats. A key is spent by what takes it.

With several stochastic layers, z is a tuple with one [K, B, D_l] for each, and so is whatever is told of each layer:
log densities and KLs. `Layers[…]` is that, or the array alone if there is one layer. x is made of the first layer.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

from jaxtyping import Array, Float, Int, Key

T = TypeVar("T")
Layers = T | tuple[T, ...]
Params = dict[str, Any]  # with the subtrees encoder, decoder and prior; objective, if that has parameters of its own


class Batch(NamedTuple):
    """Images in [0, 1], and, if there are any, their labels and their positions in a data set of `dataset_size`."""

    x: Float[Array, "B H W C"]
    y: Int[Array, "B"] | None = None
    index: Int[Array, "B"] | None = None
    dataset_size: int | Int[Array, ""] | None = None


@runtime_checkable
class LogProb(Protocol):
    def __call__(self, z: Layers[Float[Array, "K #B D"]], /) -> Layers[Float[Array, "K B"]]: ...


@runtime_checkable
class Distribution(Protocol):
    """p(z), or q(z|x) of B examples: a pytree of arrays that can be sampled and scored.

    B is 1 for a prior that does not depend on y.
    """

    def sample_and_log_prob(
        self, key: Key[Array, ""], num_samples: int
    ) -> tuple[Layers[Float[Array, "K B D"]], Layers[Float[Array, "K B"]]]:
        """Reparameterised samples, and their log densities."""
        ...

    @property
    def log_prob(self) -> LogProb | None:
        """Scores z; None if the density of a given z cannot be computed."""
        ...


@runtime_checkable
class PriorDistribution(Distribution, Protocol):
    """p(z), whose density is always known."""

    @property
    def log_prob(self) -> LogProb: ...


@runtime_checkable
class ApproximatePosterior(Distribution, Protocol):
    """q(z|x). What has no closed form is None."""

    @property
    def mean(self) -> Float[Array, "B D"] | None:
        """Of the first layer."""
        ...

    @property
    def covariance(self) -> Float[Array, "B D D"] | None:
        """Of the first layer."""
        ...

    def log_prob_per_dimension(self, z: Layers[Float[Array, "K #B D"]], /) -> Float[Array, "K B D"] | None:
        """Of one layer; None if there are several, or if the dimensions of z depend on each other given x."""
        ...

    def kl_per_dimension(self, prior: Any, /) -> Layers[Float[Array, "B D"]] | None:
        """KL(q ‖ prior), by its terms."""
        ...


@runtime_checkable
class ImageDistribution(Protocol):
    """p(x|z) for z of shape [..., B, D]; a pytree of arrays."""

    @property
    def mean(self) -> Float[Array, "... B H W C"]: ...

    def sample(self, key: Key[Array, ""], /) -> Float[Array, "... B H W C"]: ...

    def log_prob(self, x: Float[Array, "... #B H W C"], /) -> Float[Array, "... B"]:
        """Summed over an image, which the caller broadcasts."""
        ...

    @property
    def log_mass(self) -> Any:
        """As `log_prob`, of x as one of the images of values k/255; None if there are no such masses."""
        ...


@runtime_checkable
class Init(Protocol):
    def __call__(self, key: Key[Array, ""], batch: Batch, spread: Any = 1.0, /) -> Params:
        """New parameters, given the training set's mean image (as a batch of one) or a large batch.

        The mean of `batch.x` sets the decoder's output bias. A learned scale begins at `spread`, a number: the root
        mean square of the training set's values about the mean image.
        """
        ...


@runtime_checkable
class PosteriorOf(Protocol):
    def __call__(self, params: Params, batch: Batch, /) -> ApproximatePosterior: ...


@runtime_checkable
class PriorOf(Protocol):
    def __call__(self, params: Params, y: Int[Array, "B"] | None = None, /) -> PriorDistribution: ...


@runtime_checkable
class LikelihoodOf(Protocol):
    def __call__(
        self, params: Params, z: Layers[Float[Array, "... B D"]], y: Int[Array, "B"] | None = None, /
    ) -> ImageDistribution:
        """p(x|z); of several stochastic layers the first one may be given alone."""
        ...


@runtime_checkable
class CheckImages(Protocol):
    def __call__(self, images: Any, /) -> None:
        """Raises LikelihoodError unless p(x|z) can score stored images [N, H, W, C]."""
        ...
