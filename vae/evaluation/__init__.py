"""How good is it? Importance sampling and annealing, where the ELBO loses, and paired statistics of runs."""
