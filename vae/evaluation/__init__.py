"""How good is it? Importance sampling and annealing, what is lost where, and paired statistics of runs."""
