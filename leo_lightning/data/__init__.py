"""Features, and the tasks drawn from them."""
