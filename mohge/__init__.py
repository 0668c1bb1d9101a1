"""MoHGE: mixture-of-experts language models whose experts come in groups of different sizes."""
