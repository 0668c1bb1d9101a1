"""Hydra configuration: every key that a user may override, with a comment."""
