"""Training: the Lightning module, checkpoints, run folders."""
