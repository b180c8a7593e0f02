"""Which runs? Planning, training and searching many runs, and what they reached."""
