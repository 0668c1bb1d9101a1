"""Looking at finished runs: comparison and pictures."""
