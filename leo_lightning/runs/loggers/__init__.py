"""Where a run logs to: metrics.csv, TensorBoard, W&B."""
