"""The devices that a script uses, and the folder in which compiled programs are kept between runs."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

from experiments.flags.parsing import UsageError
from vae.places import expanded


def start(num_devices: int, data_dir: str | None, *, one_per_core: bool = False, distributed: bool = False):
    """The first `num_devices` devices (0: all); on a CPU they are virtual.

    Raises UsageError if there are fewer, or if jax is set to a mode under which numbers differ.

    `data_dir`: --data_dir of this very command, in which compiled programs are kept; None is the default folder. They
    are executed. So it is never what the config.json of a run says, which a stranger may have made.
    `one_per_core`: a CPU has one device for each core of this process; else one device in all.
    `distributed`: joins the other processes of the cluster. `num_devices` is then the number for each process, and only
    the first process prints. Raises HostsError if there is no cluster.
    """
    import jax

    from vae import environment

    if reason := environment.fault():
        raise UsageError(reason)
    configure(num_devices or (len(os.sched_getaffinity(0)) if one_per_core else 1), data_dir)
    if distributed:
        from vae import hosts

        hosts.join()
    try:
        here = jax.local_devices()
    except (RuntimeError, AssertionError) as error:
        wanted, reason = os.environ.get("JAX_PLATFORMS", ""), " ".join(str(error).split())[:200]
        raise UsageError(
            f"JAX_PLATFORMS={wanted}: jax finds no such device here{f' ({reason})' if reason else ''}; "
            "install jax for it (see README.md, Set-up), or unset JAX_PLATFORMS"
        ) from error
    if num_devices > len(here):
        raise UsageError(f"--devices={num_devices} was asked for, but there are {len(here)}: {here}")
    if not distributed:
        return here[: num_devices or None]
    if jax.process_index():
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    processes = range(jax.process_count())
    return [device for process in processes for device in jax.local_devices(process)[: num_devices or None]]


def configure(num_virtual: int, data_dir: str | None) -> None:
    """Set up jax, before it is used: how many devices a CPU has, and where compiled programs are kept."""
    import jax

    if num_virtual > 1:
        jax.config.update("jax_num_cpu_devices", num_virtual)
    folder = os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(_compiled(data_dir))
    if (fault := _not_a_place(folder)) is not None:
        from vae.runs.files import RunWarning

        warnings.warn(f"compiled programs are not kept for the next run: {fault}", RunWarning, 2)
        folder = None
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def _compiled(data_dir: str | None) -> Path:
    from vae.datasets import default_data_dir

    return (expanded(data_dir) if data_dir else default_data_dir()) / "compiled"


def _not_a_place(folder: str) -> str | None:
    """Why no file can be written below `folder`, which need not exist; None if one can, or if it is a bucket's URL."""
    if "://" in folder:
        return None
    path = Path(folder).absolute()
    nearest = next(one for one in (path, *path.parents) if one.exists())
    if not nearest.is_dir():
        return f"{folder} cannot be made, since {nearest} is no folder"
    if not os.access(nearest, os.W_OK | os.X_OK):
        return f"{nearest} cannot be written to"
    return None
