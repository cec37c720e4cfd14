"""Figures of a trained learner: the figures of the paper."""
