"""Modes of jax under which a run gives other numbers, or none: they are refused before anything is computed.

A user's environment or program may have set them for another purpose. What only checks more, or prints, may be set.
"""

from __future__ import annotations

# By mode of jax: its value here.
MODES = {
    "jax_enable_x64": False,
    "jax_debug_nans": False,
    "jax_debug_infs": False,
    "jax_disable_jit": False,
    "jax_numpy_dtype_promotion": "standard",
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
    "jax_random_seed_offset": 0,
    "jax_transfer_guard": None,
    "jax_transfer_guard_host_to_device": None,
    "jax_transfer_guard_device_to_host": None,
    "jax_transfer_guard_device_to_device": None,
}


def fault() -> str | None:
    """Why nothing can be computed as jax is set; None if it can."""
    import jax

    for name, needed in MODES.items():
        value = getattr(jax.config, name)
        value = getattr(value, "value", value)
        if value not in (needed, "allow"):
            return f"{name} is {value}, and must be {needed}; unset {name.upper()}, or {name} in jax.config"
    return None
