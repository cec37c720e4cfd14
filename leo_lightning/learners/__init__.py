"""Few-shot learning methods. Plain torch: no Lightning, no configuration, no logger."""
