"""The verbs of `python -m leo_lightning VERB`: one file or folder for each."""
