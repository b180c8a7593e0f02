"""The flags of experiments.train in this process, as a command line gives them."""

import contextlib
from collections.abc import Iterator

from absl.testing import flagsaver

from experiments.flags.options import FLAGS, TRAINING_FLAGS, Flags, define_all, read


def define_once() -> None:
    if "latent_dim" not in FLAGS:
        define_all()
    assert "latent_dim" in TRAINING_FLAGS


@contextlib.contextmanager
def parsed(*arguments: str) -> Iterator[Flags]:
    """The flags of `arguments`; afterwards they are as before."""
    define_once()
    with flagsaver.flagsaver():
        FLAGS.unparse_flags()
        FLAGS(["train", *arguments])
        yield read()
