"""`python -m leo_lightning classify`: learn new classes from a few examples, and classify others."""
