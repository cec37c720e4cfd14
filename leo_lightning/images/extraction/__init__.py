"""Extraction: images in files to embeddings, and whole data sets of them to feature files."""
