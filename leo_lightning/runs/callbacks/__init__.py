"""Lightning callbacks: checkpoints, stop signals, progress, results."""
