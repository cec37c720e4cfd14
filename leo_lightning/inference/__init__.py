"""A trained model on new classes: Python API, export, images in, answers out."""
