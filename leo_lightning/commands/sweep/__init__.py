"""Hyperparameter search on the validation tasks: `python -m leo_lightning sweep`."""
