"""How does it learn? One step, many runs as one program, and a run from its first step to its last."""
