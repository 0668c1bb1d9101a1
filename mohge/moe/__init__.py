"""The mixture-of-experts layer: router, dispatcher, experts, auxiliary losses and placement."""
