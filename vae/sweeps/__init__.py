"""Which runs? Planning, training and searching many runs, and their results."""
