"""What stays on disk? The run folder: config.json, metrics.jsonl, checkpoints and the lock."""
