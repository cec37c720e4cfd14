"""How fast this is: `python -m benchmarks --help`."""
