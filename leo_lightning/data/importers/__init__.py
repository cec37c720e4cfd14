"""Other people's formats → feature files. Nothing in a source is executed or extracted."""
