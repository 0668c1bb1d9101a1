"""mohge-bench: speed and memory, always as a ratio to a named peer or bound of the same run."""
