"""One program as several processes, on one host or many: every process runs the same code on the same data.

Only process 0 writes. All processes must issue the same programs. So they agree on everything that depends on a clock,
a signal or a file. With a single process all of this costs nothing.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")
E = TypeVar("E", bound=Exception)

HEARTBEAT_SECONDS = 30  # a process that is silent for this long is taken for dead, and the others end
SHUTDOWN_SECONDS = 10  # a process that failed waits this long for the others, and then ends them


class HostsError(ValueError):
    """The processes cannot be joined; one line for the user."""


SHARED: dict[str, type[Exception]] = {"OSError": OSError}


def join() -> None:
    """Join this process to the others; call it before jax computes anything.

    jax finds Slurm, Open MPI, Kubernetes and TPU pods by itself. Elsewhere JAX_COORDINATOR_ADDRESS,
    JAX_NUM_PROCESSES and JAX_PROCESS_ID say what to join. Raises HostsError if there is nothing to join.
    """
    import jax

    # Its handler of SIGTERM would replace that of the script.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        # jax itself reads the address from the environment, but not these two.
        given = {name: os.environ.get(f"JAX_{name.upper()}") for name in ("num_processes", "process_id")}
        numbers: dict[str, Any] = {name: int(value) for name, value in given.items() if value is not None}
        jax.distributed.initialize(
            **numbers, heartbeat_timeout_seconds=HEARTBEAT_SECONDS, shutdown_timeout_seconds=SHUTDOWN_SECONDS
        )
    except (ValueError, LookupError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise HostsError(
            f"`distributed`: nothing could be joined ({reason}); start it with srun, mpirun or on a TPU pod, or set "
            "JAX_COORDINATOR_ADDRESS=host:port, JAX_NUM_PROCESSES and JAX_PROCESS_ID for each process"
        ) from error


def num_processes() -> int:
    """How many processes were joined; 1 if none were."""
    jax = sys.modules.get("jax")  # a process that has not imported it has joined nothing
    return jax.process_count() if jax is not None and jax.distributed.is_initialized() else 1


def is_first() -> bool:
    """Whether this is process 0, which writes."""
    return num_processes() == 1 or sys.modules["jax"].process_index() == 0


def shared(error: type[E]) -> type[E]:
    """Mark an error class: if process 0 raises it in `agreed`, all processes do. It is made from its message."""
    SHARED[error.__name__] = error
    return error


def agreed(decide: Callable[[], T]) -> T:
    """Call `decide()` on process 0 only, and return its result on all processes; likewise with an error.

    The result must fit in JSON, so that no process executes what another sends. An error that is not `shared` becomes
    a HostsError on the others.
    """
    if num_processes() == 1:
        return decide()
    import numpy as np
    from jax.experimental.multihost_utils import broadcast_one_to_all

    outcome, failed = b"", None
    if is_first():
        try:
            outcome = json.dumps({"value": decide()}).encode()
        except Exception as error:
            failed = error
            kind = next((cls.__name__ for cls in type(error).__mro__ if SHARED.get(cls.__name__) is cls), None)
            text = str(error) if kind else f"process 0 failed: {type(error).__name__}: {error}"
            outcome = json.dumps({"error": kind, "text": text}).encode()
    length = int(broadcast_one_to_all(np.int32(len(outcome))))
    padded = np.zeros(-(-length // 1024) * 1024, np.uint8)  # few lengths, few programs
    padded[: len(outcome)] = np.frombuffer(outcome, np.uint8)
    answer = json.loads(broadcast_one_to_all(padded).tobytes()[:length])
    if failed is not None:
        raise failed
    if "text" in answer:
        raise SHARED.get(answer["error"], HostsError)(answer["text"])
    return answer["value"]


def any_of(flag: bool) -> bool:
    """Whether `flag` is true on some process."""
    if num_processes() == 1:
        return flag
    import numpy as np
    from jax.experimental.multihost_utils import process_allgather

    return bool(process_allgather(np.asarray(flag)).any())


def place(tree: Any, sharding: Any) -> Any:
    """Put arrays, which are the same on all processes, on the devices of all processes."""
    import jax
    import numpy as np

    if num_processes() == 1:
        return jax.device_put(tree, sharding)

    def one(leaf):
        # Not device_put: it compares the processes' values, and takes NaN for a difference.
        whole = leaf if isinstance(leaf, jax.Array) else np.asarray(leaf)
        return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])

    return jax.tree.map(one, tree)


def gather(tree: Any) -> Any:
    """Arrays of all devices as complete numpy arrays on each process."""
    import jax

    if num_processes() == 1:
        return jax.device_get(tree)
    from jax.experimental.multihost_utils import process_allgather

    def one(leaf):
        apart = isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated)
        return process_allgather(leaf, tiled=True) if apart else jax.device_get(leaf)

    return jax.tree.map(one, tree)
