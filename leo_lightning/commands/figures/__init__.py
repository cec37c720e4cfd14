"""What a trained learner does, drawn: the figures of the paper that are no table."""
