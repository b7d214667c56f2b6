"""Controls over figures, what lessons draw with a model, and the control panel."""
