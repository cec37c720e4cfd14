"""Benchmarks of speed: `python -m benchmarks --help`."""
