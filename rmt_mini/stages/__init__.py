"""Cold start, mid-training, and the yardstick; only these rooms own an optimizer."""
