"""The data sets that have a name. To add one: a module of that name, and its name here. Needs neither jax nor numpy.

Each module `vae/datasets/NAME.py` has `ABOUT`, what is known of the data set.
"""

# Made of published files: the module's `DATA` says which, and `read(paths)` returns their splits.
FETCHED = (
    "mnist", "fashion_mnist", "binarized_mnist", "omniglot", "omniglot_burda", "caltech101_silhouettes",
    "caltech101_silhouettes_published", "frey_faces", "cifar10", "svhn_cropped", "dsprites",
    "shapes3d", "celeba",
)  # fmt: skip
# Nothing is fetched: the module's `load(image_size)` returns the training and the test split.
COMPUTED = ("digits", "sprites", "sprites_colour")

NAMES: tuple[str, ...] = (*FETCHED, *COMPUTED)
