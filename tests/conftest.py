"""Everything is tested with checked shapes, no silent broadcasting between ranks, and no key spent twice."""

import os
import tempfile
from importlib import metadata

# Most of a test's time is XLA's compiler at work on a program that runs once. Read before jax starts.
# The second flag saves about a third of that in jax 0.10; jax 0.12 aborts on it.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0"
    + (" --xla_cpu_use_fusion_emitters=false" if metadata.version("jaxlib").startswith("0.10.") else ""),
)
# What one process of this run compiled, every other one loads: pytest's workers, and the scripts that they start.
if "PYTEST_XDIST_WORKER" not in os.environ:
    compiled = tempfile.TemporaryDirectory(prefix="vae-compiled-")
    os.environ |= {
        "JAX_COMPILATION_CACHE_DIR": compiled.name,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }

import jax
import pytest
from jaxtyping import install_import_hook

from tests import whole_programs  # noqa: F401

install_import_hook("vae", "beartype.beartype")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)
# Eight devices on any machine; what is not about devices runs on the first.
jax.config.update("jax_num_cpu_devices", 8)


def pytest_collection_modifyitems(items):
    """Files that run scripts come first: they take longest, and at the end short ones keep every worker busy."""
    long = {item.path for item in items if "scripts" in item.fixturenames}
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture
def float64():
    """Tolerances below 1e-6 are meant in float64."""
    with jax.enable_x64(True):
        yield
