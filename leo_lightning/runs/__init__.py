"""One run: its folder, flags, callbacks, loggers and pictures."""
