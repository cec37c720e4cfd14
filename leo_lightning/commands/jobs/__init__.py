"""Runs side by side, on this machine or through SLURM: what `compare` and `sweep` train with."""
