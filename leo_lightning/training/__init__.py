"""The outer loop, what it measures, and what a checkpoint holds."""
