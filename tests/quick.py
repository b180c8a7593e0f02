"""Imported, it makes a process of the tests quick: nothing else that they look at depends on it.

A training step is timed, and a strategy tried, for a hundredth of a second; no garbage is collected.
"""

import gc

from vae.sweeps import planning
from vae.training import timing

timing.SECONDS_OF_ROUND = planning.TRIAL_SECONDS = 0.01
gc.disable()
