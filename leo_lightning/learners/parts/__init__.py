"""Building blocks that several few-shot methods share."""
