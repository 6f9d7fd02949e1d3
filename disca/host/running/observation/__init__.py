"""What else happened in a run: who answered, what the sampler asked, and what was not finite."""
