"""`python -m leo_lightning compare`: train, evaluate and compare methods on the same tasks."""
