"""Controls over figures, a room for each part of the method; ``controls`` is what they are all made of."""
