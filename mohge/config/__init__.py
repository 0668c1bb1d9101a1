"""Typed configuration: schema, loading, checks."""
