"""The mixture-of-experts layer: router, order of rows, experts, auxiliary losses and placement."""
