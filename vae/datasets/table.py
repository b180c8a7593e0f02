"""The data sets that have a name. To add one: a module of its own, and a row here. Imports neither jax nor numpy."""

# Files that are fetched once: "module:class" of the TFDS builder that reads them. The module's `DATA` says which.
FETCHED = {
    "mnist": "vae.datasets.mnist:MnistBuilder",
    "fashion_mnist": "vae.datasets.fashion_mnist:FashionMnistBuilder",
    "binarized_mnist": "vae.datasets.binarized_mnist:BinarizedMnistBuilder",
    "omniglot": "vae.datasets.omniglot:OmniglotBuilder",
}
# Nothing is fetched: "module:function" of what returns the training and the test split.
COMPUTED = {"digits": "vae.datasets.digits:load"}

NAMES: tuple[str, ...] = (*FETCHED, *COMPUTED)
