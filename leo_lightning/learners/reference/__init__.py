"""Methods written to be read, line by line beside their papers."""
