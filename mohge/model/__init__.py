"""The decoder transformer: attention, feed-forward, rotary positions, and their initialisation."""
