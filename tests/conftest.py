"""Everything is tested with checked shapes, no silent broadcasting between ranks, and no key spent twice."""

import atexit
import ctypes
import gc
import multiprocessing.util
import os
import sys
import tempfile
from importlib import metadata

# Most of a test's time is XLA's compiler at work on a program that runs once. Read before jax starts.
# The last flag saves about a third of that in jax 0.10; jax 0.12 aborts on it.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    " --xla_cpu_parallel_codegen_split_count=1"
    + (" --xla_cpu_use_fusion_emitters=false" if metadata.version("jaxlib").startswith("0.10.") else ""),
)
# What tests of scripts compile is loaded by the scripts that they start, and by pytest's other workers.
if "PYTEST_XDIST_WORKER" not in os.environ:
    compiled = tempfile.TemporaryDirectory(prefix="vae-compiled-")
    os.environ |= {
        "JAX_COMPILATION_CACHE_DIR": compiled.name,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }

import hypothesis
import jax
import pytest
from jaxtyping import install_import_hook

from tests import known_shapes, whole_programs  # noqa: F401

# Of a worker that keeps what its tests compiled. To forget it takes seconds.
MOST_BYTES = (
    0.65
    * os.sysconf("SC_PAGE_SIZE")
    * os.sysconf("SC_PHYS_PAGES")
    / int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
)
NEVER = 1e9  # seconds that no program takes to compile: none is kept on the disk; to write it takes a quarter as long

# Modules too, whatever the environment says: each process would compile some hundred.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
install_import_hook("vae", "beartype.beartype")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)
if "PYTEST_XDIST_WORKER" in os.environ:
    # A worker that ends frees its memory at once; jax would free each program by itself, for seconds.
    atexit.register(os._exit, 0)
    atexit.register(multiprocessing.util._exit_function)  # which deletes its folders, and is called before that
# The same examples in every run.
hypothesis.settings.register_profile("same", derandomize=True, database=None, deadline=None)
hypothesis.settings.load_profile("same")
# Eight devices on any machine; what is not about devices runs on the first.
jax.config.update("jax_num_cpu_devices", 8)
# A tenth of the time of tracing was the garbage collector's, and a second of each file; see below for when it collects.
gc.disable()


def pytest_collection_modifyitems(items):
    """Files that run scripts come first: they take longest, and at the end short ones keep every worker busy."""
    long = {item.path for item in items if "scripts" in item.fixturenames}
    items.sort(key=lambda item: item.path not in long)


def pytest_runtest_setup(item):
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0 if "scripts" in item.fixturenames else NEVER)


def pytest_runtest_teardown(item, nextitem):
    """Between files: what jax has compiled is forgotten once it takes much memory; the files on the disk are not."""
    if nextitem is None or nextitem.path != item.path:
        with open("/proc/self/statm") as file:
            resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        if resident > MOST_BYTES:
            jax.clear_caches()
            gc.unfreeze()
            gc.collect()
            # Or the process would keep its size, and do all this after every file.
            ctypes.CDLL(None).malloc_trim(0)
        gc.freeze()  # hypothesis and pytest collect too, and would visit all that there is


@pytest.fixture
def float64():
    """Tolerances below 1e-6 are meant in float64."""
    with jax.enable_x64(True):
        yield
