"""Finished evaluations side by side: scores with errors, paired differences, and what they cost.

`comparing.compare` reads them, `writing.write_comparison` writes files, `terminal.render` makes the tables of
the terminal. docs/BENCHMARK_STATISTICS.md says how each figure comes about.
"""
