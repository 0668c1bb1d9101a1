"""One self-contained HTML page about one or many runs, with a PNG and a CSV of each chart."""
