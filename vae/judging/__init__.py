"""Which run is better? Run folders before one evaluation: grouped, evaluated, refused if they cannot be compared."""
