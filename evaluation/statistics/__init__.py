"""Statistics of scores: pure functions of figures per item and per seed, each with its method and source."""
