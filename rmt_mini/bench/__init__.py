"""How fast a step is, beside TRL, generate and the limits of the machine."""
