"""What a sweep of `mohge-sweep` says: arms over seeds, paired differences, effects, power, cost and charts.

`reading.read_study` reads a sweep's folder, or the compact table that an earlier report made of it;
`analysis.analyse` computes; `making.report_sweep` writes tables, charts, a page, and the marked parts of a
document.
"""
