"""Resumable sweeps: a plan's cells, each trained once by whichever worker comes first."""
