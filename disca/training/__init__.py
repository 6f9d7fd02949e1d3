"""Training: the three algorithms of the paper, on the networks that inference uses."""
