"""Benchmarks of lm-eval (Gao et al., "A framework for few-shot language model evaluation") on our models."""
