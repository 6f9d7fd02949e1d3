"""Methods on many prompts and seeds: what is asked for, what is written down, and the page that shows it."""
