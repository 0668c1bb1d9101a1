"""Executable walk-throughs."""
