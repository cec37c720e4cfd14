"""Errors, atomic files, safe readers, figure style: what every other package may use."""
