"""What the parts of a training agree on: settings, samples and losses, times and draws."""
