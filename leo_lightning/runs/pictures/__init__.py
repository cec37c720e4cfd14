"""Pictures of a training, for eyes rather than for tables: in the run folder and in every logger."""
