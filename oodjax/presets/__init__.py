"""One file per study: its data, its checkpoints, its network."""
