"""Pictures of a training, written to the run folder and to every logger."""
