"""log p(x) by annealed importance sampling, and a bracket around it for data that the model itself drew."""

from vae.evaluation.annealing.estimates import (
    Annealed,
    Bracket,
    ais,
    bdmc,
    check_memory,
    sigmoidal_schedule,
    summarize,
    summarize_bracket,
)

__all__ = ["Annealed", "Bracket", "ais", "bdmc", "check_memory", "sigmoidal_schedule", "summarize", "summarize_bracket"]
