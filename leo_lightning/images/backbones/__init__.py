"""Backbones: networks that turn images into embeddings."""
